"""Mutants of weights: well-formed numbers of the right shapes or a refusal, no more memory than the file has, and
nothing that a pickle says is ever done.

Weights carry no checksum, so that a flipped bit may give another finite number; whatever else is changed is noticed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hard.conftest import Ended
from hard.hammer import Hammer, Reader, hammer_on, in_two_parts
from hard.mutants import json_mutant, mutant

if TYPE_CHECKING:
    import torch

WIDTHS = (12, 8, 8)
SHARE = 0.5  # of the mutants of an archive, in which the pickle inside is hurt and the archive is whole


class Canary:
    """A pickle that makes a file when it is opened."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self._file}'",)


def published_modules() -> list[Any]:
    """CLASP's fusions as its authors pickle them, of small widths."""
    import torch

    from clasp_lib.fusion import build_fusion
    from clasp_lib.paper_tiny.fusions import as_published

    torch.manual_seed(0)
    kinds = {"gating": "HubertLabseGating", "concatenation": "HubertLabseConcat"}
    modules = [as_published(kind, build_fusion(name, *WIDTHS)) for name, kind in kinds.items()]
    modules[0].mode = "joint"
    return modules


def pickled(module: Any, old: bool) -> bytes:
    """The bytes that `torch.save` writes in a notebook."""
    import torch

    from clasp_lib.paper_tiny.fusions import found_in_main

    buffer = io.BytesIO()
    with found_in_main(type(module)):
        torch.save(module, buffer, _use_new_zipfile_serialization=not old)
    return buffer.getvalue()


def published(folder: Path, old: bool) -> tuple[list[bytes], Any]:
    """Valid files and what reads them; the last file is a pickle that would run a program."""
    from clasp_lib.convert import read_published

    canary, file = folder / "canary", folder / "mutant.pt"
    files = [pickled(module, old) for module in published_modules()]
    import torch

    buffer = io.BytesIO()
    torch.save({"model": torch.zeros(3), "run": Canary(canary)}, buffer, _use_new_zipfile_serialization=not old)
    files.append(buffer.getvalue())

    def read(data: bytes) -> None:
        file.write_bytes(data)
        try:
            config, fusion = read_published(file)
        finally:
            assert not canary.exists(), "a program ran"
        state = fusion.state_dict()
        assert sum(tensor.numel() * tensor.element_size() for tensor in state.values()) <= len(data)
        check_finite(state)
        assert config["fusion_config"] == fusion.config
        fusion(torch.ones(2, fusion.config["speech_width"]), torch.ones(2, fusion.config["picture_width"]))

    return files, read


def check_finite(tensors: Mapping[str, torch.Tensor]) -> None:
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values()), "not finite"


def published_archive(folder: Path) -> Reader:
    """As torch has written since 1.6: a zip with a pickle in it."""
    files, read = published(folder, old=False)
    pickles = [_inside(data) for data in files]

    def make(number: int) -> bytes:
        if random.Random(f"which {number}").random() > SHARE:
            return mutant(files, number)
        changed = _renamed(pickles, number) if number % 3 == 0 else mutant(pickles, number)
        return _with_inside(files[number % len(files)], changed)

    return Reader(files, read, ("mutant.pt",), make)


def published_old(folder: Path) -> Reader:
    """As torch wrote before 1.6: pickles and storages one after the other, without a checksum."""
    files, read = published(folder, old=True)

    def make(number: int) -> bytes:
        return _renamed(files, number) if number % 5 == 0 else mutant(files, number)

    return Reader(files, read, ("mutant.pt",), make)


_NAMES = (b"__main__\nHubertLabseGating", b"torch.nn.modules.linear\nLinear", b"collections\nOrderedDict")
_OTHERS = (
    *(b"os\nsystem", b"posix\nsystem", b"builtins\neval", b"builtins\nexec", b"builtins\ngetattr", b"nt\nsystem"),
    *(b"subprocess\nPopen", b"torch.hub\nload", b"torch.serialization\nload", b"torch.storage\n_load_from_bytes"),
    *(b"torch._utils\n_rebuild_parameter", b"torch.nn.modules.container\nSequential", b"builtins\nset"),
    *(b"numpy\nload", b"importlib\nimport_module", b"torch._utils\n_rebuild_tensor_v2", b"__main__\nserve"),
)


def _renamed(files: Sequence[bytes], number: int) -> bytes:
    """A pickle that asks for another class or function in the place of one."""
    rng = random.Random(f"name {number}")
    data = rng.choice(files)
    present = [name for name in _NAMES if b"c" + name + b"\n" in data] or [data[1:2]]
    return data.replace(b"c" + rng.choice(present) + b"\n", b"c" + rng.choice(_OTHERS) + b"\n", rng.choice((1, -1)))


def _inside(archive: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return opened.read(next(name for name in opened.namelist() if name.endswith("/data.pkl")))


def _with_inside(archive: bytes, data: bytes) -> bytes:
    """The same archive around another pickle, with the right checksum."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, data if name.endswith("/data.pkl") else old.read(name))
    return buffer.getvalue()


class _Encoder:
    """Stands in for an encoder that is there under one name alone: what is loaded here is the fusion."""

    sampling_rate, layer, reference, drawing, digest = 16_000, -1, False, "mel", "d" * 32

    def __init__(self, dimension: int, name: str, **options: Any) -> None:
        import torch

        from clasp_lib.errors import CheckpointError

        if name != f"encoder-{dimension}":
            raise CheckpointError(f"{name!r}: there is no such encoder. Is it what clasp/config.json should say?")
        self.dimension, self.name, self.device = dimension, name, torch.device("cpu")


def _folder(folder: Path) -> tuple[Path, list[Path], Any]:
    """Folders as `CLASP.save_pretrained` writes them, and what reads the one called clasp."""
    from functools import partial

    import torch

    from clasp_lib import CLASP, model
    from clasp_lib.fusion import build_fusion

    kinds = ("SpeechEncoder", "SpectrogramEncoder", "TextEncoder")
    for kind, width in zip(kinds, WIDTHS, strict=True):
        setattr(model, kind, partial(_Encoder, width))
    torch.manual_seed(0)
    folders = []
    for name in ("concatenation", "speech_only", "attention+gmf"):
        encoders = [_Encoder(width, f"encoder-{width}") for width in WIDTHS]
        folders.append(folder / f"of {name}")
        CLASP(build_fusion(name, *WIDTHS), *encoders, name).save_pretrained(folders[-1])  # type: ignore[arg-type]
    target = folder / "clasp"
    target.mkdir()

    def read(file: str, whole: Path, data: bytes) -> None:
        for each in ("config.json", "model.safetensors"):
            (target / each).write_bytes(data if each == file else (whole / each).read_bytes())
        loaded = CLASP.from_pretrained(target)
        state = loaded.fusion.state_dict()
        size = (target / "model.safetensors").stat().st_size
        assert sum(tensor.numel() * tensor.element_size() for tensor in state.values()) <= size
        check_finite(state)
        assert not loaded.fusion.training

    return target, folders, read


def clasp_weights(folder: Path) -> Reader:
    """`model.safetensors` of a CLASP folder."""
    _, folders, read = _folder(folder)
    files = [(each / "model.safetensors").read_bytes() for each in folders]
    return Reader(files, lambda data: read("model.safetensors", folders[0], data), (str(folder),))


def clasp_config(folder: Path) -> Reader:
    """`config.json` of a CLASP folder."""
    _, folders, read = _folder(folder)
    files = [(each / "config.json").read_bytes() for each in folders]
    documents, lies = [json.loads(file) for file in files], []
    for key, value in (("speech_width", 10**9), ("width", 10**7), ("picture_width", -3), ("width", 0)):
        config = json.loads(files[0])
        config["fusion_config"][key] = value
        lies.append(json.dumps(config).encode())

    def make(number: int) -> bytes:
        if number < len(lies):
            return lies[number]
        return json.dumps(json_mutant(documents, number)).encode() if number % 2 else mutant(files, number)

    return Reader(files, lambda data: read("config.json", folders[0], data), (str(folder), "clasp/config.json"), make)


def run_state(folder: Path) -> Reader:
    """The state from which a stopped training goes on."""
    import torch

    from clasp_lib.fusion import build_fusion
    from clasp_lib.losses import ContrastiveLoss
    from clasp_lib.run_folder import RunFolder
    from clasp_lib.run_state import save_state
    from clasp_lib.training import Batch, Run, TrainingSettings

    def fresh() -> Run:
        torch.manual_seed(0)
        return Run(build_fusion("speech_only", *WIDTHS), ContrastiveLoss(), TrainingSettings(), torch.device("cpu"))

    files = []
    for steps in (1, 3):
        run = fresh()
        for _ in range(steps):
            vectors = [torch.randn(4, width) for width in WIDTHS]
            run.learn(Batch(*vectors, {}), 1e-3)
        tensors, facts = run.state()
        save_state(folder / f"{steps}.safetensors", tensors, {**facts, "description": {"fusion": "x"}})
        files.append((folder / f"{steps}.safetensors").read_bytes())
    (folder / "run").mkdir()

    def read(data: bytes) -> None:
        (folder / "run" / "state.safetensors").write_bytes(data)
        run = fresh()
        RunFolder(folder / "run", run, {"fusion": "x"}, 60.0, writes=False)
        assert isinstance(run.step, int) and run.history.best_mrr is not None
        run.learn(Batch(*(torch.ones(4, width) for width in WIDTHS), {}), 1e-3)  # it goes on

    return Reader(files, read, ("state.safetensors",))


def feature_shard(folder: Path) -> Reader:
    """What encoders said, as `VectorStore` keeps it."""
    import numpy as np

    from clasp_lib.vector_store import VectorStore

    rng, identity = np.random.default_rng(0), {"encoder": "speech", "weights": "w"}
    whole = [VectorStore(folder / f"whole {i}", identity, 4) for i in range(2)]
    truth: dict[str, np.ndarray] = {}
    for i, store in enumerate(whole):
        keys = [hashlib.sha256(bytes([i, j])).hexdigest()[:32] for j in range(5)]
        rows = {key: rng.standard_normal((j % 3 + 1, 4)).astype(np.float32) for j, key in enumerate(keys)}
        truth |= rows
        store.add(rows, {f"failed {i}": "silent"})
    shards = [file for store in whole if store.folder for file in store.folder.glob("*.safetensors")]
    files = [shard.read_bytes() for shard in shards]
    place = VectorStore(folder / "mutants", identity, 4).folder
    assert place is not None and len(files) == 2
    place.mkdir(parents=True)

    def read(data: bytes) -> None:
        (place / shards[0].name).write_bytes(data)  # a shard is called after what is in it
        store = VectorStore(folder / "mutants", identity, 4)
        store.verify()
        for key in list(truth):
            if key in store and key not in store.failed:
                np.testing.assert_array_equal(store.read([key])[0], truth[key][0])
                np.testing.assert_array_equal(store.read_all_rows(key).numpy(), truth[key])
        assert all(isinstance(reason, str) for reason in store.failed.values())

    return Reader(files, read, (shards[0].name,))


READERS = ("published_archive", "published_old", "clasp_weights", "clasp_config", "run_state", "feature_shard")


@in_two_parts
@pytest.mark.parametrize("kind", READERS)
def test_no_mutant_of_weights_does_harm(kind: str, numbers: range, hammer: Hammer, ended: Ended) -> None:
    counts = hammer_on(hammer, f"hard.test_fuzz_checkpoints:{kind}", numbers, ended)
    assert counts["refused"] > len(numbers) / 10


@pytest.mark.parametrize("old", [False, True])
def test_the_canary_would_sing(old: bool, tmp_path: Path) -> None:
    """The pickle among the valid files does what it says wherever it is opened as a pickle."""
    import torch

    canary, buffer = tmp_path / "canary", io.BytesIO()
    torch.save(Canary(canary), buffer, _use_new_zipfile_serialization=not old)
    torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    assert canary.exists()
    canary.unlink()
    pickle.loads(pickle.dumps(Canary(canary)))
    assert canary.exists()
