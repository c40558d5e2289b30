"""Long jobs and careful writers, small enough to be stopped hundreds of times.

Each works below one folder. `prepare` leaves what is there beforehand, `run` does the work, and `read` says what a
reader finds, as text that is equal where the bits are; it raises a ClaspError where there is nothing to be found.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clasp_lib.corpus import Sentence, Split
from clasp_lib.synthesis import Voice, draw_voices


class Job(NamedTuple):
    """A job; `replaces` says that until its end a reader finds what was there before, `once` that it runs only once."""

    run: Callable[[Path], None]
    read: Callable[[Path], str]
    prepare: Callable[[Path], None] = lambda folder: None
    replaces: bool = False
    once: bool = False


def digest(value: Any) -> str:
    """Arrays, tensors and plain values in 16 letters."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        value = [str(value.dtype), value.shape, hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()]
    elif isinstance(value, Mapping):
        value = {str(name): digest(part) for name, part in value.items()}
    elif isinstance(value, list | tuple):
        value = [digest(part) for part in value]
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode()).hexdigest()[:16]


# What the jobs work with --------------------------------------------------------------------------------------------


class Hum:
    """An engine that hums, many sentences at once."""

    sampling_rate, digest = 16_000, "hum"

    def voices(self, split: Split, n: int, seed: int = 0) -> list[Voice]:
        return draw_voices(split, n, seed)

    def synthesize(self, text: str, voice: Voice) -> np.ndarray:
        return np.sin(np.arange(800 * len(text.split())) * voice.pitch / 500).astype(np.float32) / 2

    def synthesize_batch(self, texts: Sequence[str], voices: Sequence[Voice]) -> list[np.ndarray]:
        return [self.synthesize(text, voice) for text, voice in zip(texts, voices, strict=True)]


class Ear:
    """A frozen encoder that looks at length and loudness; a picture if it is called so, or a text encoder."""

    sampling_rate, dimension = 16_000, 4

    def __init__(self, kind: str) -> None:
        self.identity = {"encoder": kind, "weights": "none"}

    def encode(self, items: Sequence[Any], batch_size: int = 16) -> np.ndarray:
        lengths = np.array([len(item) for item in items], np.float32)
        return lengths[:, None] ** np.array([0.0, 0.5, 1.0, 1.5], np.float32)


class Listener:
    """What an index needs of a model."""

    name, fingerprint, dimension, device = "listener", "0" * 32, 4, "cpu"

    def encode_speech(
        self, items: Sequence[Any], sampling_rate: int = 16_000, batch_size: int = 16, show_progress_bar: bool = False
    ) -> np.ndarray:
        vectors = np.stack([np.resize(np.asarray(item, np.float32)[:4], 4) for item in items])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        return np.ones((len(texts), 4), np.float32) / 2


def waves(n: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.uniform(-0.5, 0.5, 1_600 + 80 * i).astype(np.float32) for i in range(n)]


def sentences() -> list[Sentence]:
    subjects = ("The baker", "A heron", "Nobody", "The ferry", "My aunt", "A committee", "The clerk", "Rain")
    verbs = ("waited all morning.", "came back at noon.", "was gone by then.")
    lines = [f"{subject} {verb}" for subject in subjects for verb in verbs]
    return [Sentence(f"s{i}", line, ("news", "humor")[i % 2]) for i, line in enumerate(lines)]


def features(n: int, seed: int) -> Any:
    from clasp_lib.features import Features

    rng = np.random.default_rng(seed)
    text = rng.standard_normal((n, 8)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    speech, picture = (text @ rng.standard_normal((8, width)).astype(np.float32) for width in (6, 5))
    ids = [f"{seed}-{i}" for i in range(n)]
    return Features(speech, picture, text, ids, ids, ["news", "humor"] * (n // 2), ["somebody"] * n)


# The jobs -----------------------------------------------------------------------------------------------------------


def _profile() -> Any:
    import clasp_lib.speech_brown
    from clasp_lib.profiles import Profile

    clasp_lib.speech_brown._BATCHES = 1  # type: ignore[attr-defined]
    return Profile("small", "", "", "", sentences, Hum)


def build_dataset(folder: Path) -> None:
    _profile().dataset(folder / "dataset")


def read_dataset(folder: Path) -> str:
    from clasp_lib.errors import DatasetError
    from clasp_lib.speech_brown import load_dataset

    parts = load_dataset(folder / "dataset")
    try:
        skipped = (folder / "dataset" / "skipped.json").read_text("utf-8")
    except OSError as error:
        raise DatasetError("the list of skipped clips is missing") from error
    return digest([skipped, {split: part[:] for split, part in parts.items()}])


def rows() -> Any:
    from clasp_lib.audio import encode_audio
    from clasp_lib.speech_brown import dataset_of

    said = {"category": "news", "voice": "somebody", "duration": 0.1}
    return dataset_of(
        [
            {"id": f"{i}", "sentence_id": f"{i}", "text": "word " * (i + 1), **said}
            | {"audio": {"bytes": encode_audio(wave, 16_000, "WAV"), "path": f"{i}.wav"}}
            for i, wave in enumerate(waves(10, 1))
        ]
    )


def ears() -> list[Ear]:
    return [Ear(kind) for kind in ("speech", "picture", "text")]


def extract(folder: Path) -> None:
    import clasp_lib.features

    clasp_lib.features.SHARD = 4
    found = clasp_lib.features.extract_features(
        rows(), *ears(), folder=folder / "features", memory_mapped=True, workers=1
    )
    assert found.texts == rows()["text"] and np.array_equal(found.text[:, 2], [len(text) for text in found.texts])


def read_features(folder: Path) -> str:
    """Of all clips; and the matrices that were mapped to memory."""
    from clasp_lib.features import audio_keys

    texts = [hashlib.sha256(text.encode()).hexdigest()[:32] for text in rows()["text"]]
    clips = audio_keys(rows())
    stored = [_stored(folder / "features", ear, keys) for ear, keys in zip(ears(), (clips, clips, texts), strict=True)]
    return digest([stored, [np.load(file) for file in sorted((folder / "features").rglob("*.npy"))]])


def _stored(folder: Path, ear: Ear, keys: Sequence[str]) -> np.ndarray:
    from clasp_lib.errors import DatasetError
    from clasp_lib.vector_store import VectorStore

    store = VectorStore(folder, ear.identity, ear.dimension)
    store.verify()
    if not all(key in store for key in keys):
        raise DatasetError(f"{folder}: holds {len(store)} of {len(keys)}")
    return store.read(keys)


def join(folder: Path) -> None:
    from clasp_lib.vector_store import join_stores

    join_stores([folder / "left", folder / "right"], folder / "joined")


def two_stores(folder: Path) -> None:
    from clasp_lib.vector_store import VectorStore

    for number, side in enumerate(("left", "right")):
        vectors = np.random.default_rng(number).standard_normal((5, 4)).astype(np.float32)
        VectorStore(folder / side, Ear("speech").identity, 4).add({f"{side} {i}": v for i, v in enumerate(vectors)})


def read_joined(folder: Path) -> str:
    keys = [f"{side} {i}" for side in ("left", "right") for i in range(5)]
    return digest(_stored(folder / "joined", Ear("speech"), keys))


def train(folder: Path) -> None:
    import torch

    from clasp_lib.fusion import build_fusion
    from clasp_lib.losses import build_loss
    from clasp_lib.training import TrainingSettings, train_fusion

    torch.manual_seed(0)
    fusion = build_fusion("linear", 6, 5, 8)
    settings = TrainingSettings(epochs=3, batch_size=8, checkpoint_every=0.0)
    data = features(24, 1), features(10, 2)
    train_fusion(fusion, build_loss("contrastive", 8), *data, settings, "cpu", False, folder / "run")


def read_run(folder: Path) -> str:
    from clasp_lib.errors import CheckpointError
    from clasp_lib.run_state import load_state

    tensors, facts = load_state(folder / "run" / "state.safetensors")
    lines = (folder / "run" / "log.jsonl").read_text("utf-8").splitlines()
    if facts["epochs"] < 3 or len(lines) != 3:
        raise CheckpointError(f"after {facts['epochs']} epochs and {len(lines)} lines the run is not over")
    kept = [[row["epoch"], row["loss"], row["mrr"]] for row in map(json.loads, lines)]
    return digest([tensors, kept, facts["history"]["best_epoch"]])


def build_index(folder: Path) -> None:
    import clasp_lib.index.speech_index
    from clasp_lib.index import SpeechIndex

    clasp_lib.index.speech_index._CHUNK = 4
    items = waves(10, 3)
    SpeechIndex.build(Listener(), items, ids=[f"new {i}" for i in range(10)], folder=folder / "index")  # type: ignore[arg-type]


def old_index(folder: Path) -> None:
    from clasp_lib.index import SpeechIndex

    items = waves(12, 4)
    SpeechIndex.build(Listener(), items, ids=[f"old {i}" for i in range(12)], folder=folder / "index")  # type: ignore[arg-type]


def remove_from_index(folder: Path) -> None:
    from clasp_lib.index import SpeechIndex

    SpeechIndex.load(folder / "index", Listener()).remove([f"old {i}" for i in range(6)])  # type: ignore[arg-type]


def replace_index(folder: Path) -> None:
    from clasp_lib.index import SpeechIndex

    SpeechIndex.build(Listener(), waves(5, 5), ids=[f"other {i}" for i in range(5)]).save(folder / "index")  # type: ignore[arg-type]


def read_index(folder: Path) -> str:
    from clasp_lib.index import SpeechIndex

    index = SpeechIndex.load(folder / "index", Listener())  # type: ignore[arg-type]
    return digest([[entry.id for entry in index.entries], index.vectors])


def write_report(folder: Path) -> None:
    import clasp_lib.report.files as files

    class Said:
        def to_dict(self) -> dict[str, str]:
            return {"said": "new"}

    files.markdown, files.page = (lambda report: "new\n" * 9), (lambda report: "<p>new</p>\n" * 9)  # type: ignore[assignment]
    files.write_report(Said(), folder / "report")  # type: ignore[arg-type]


def old_report(folder: Path) -> None:
    (folder / "report").mkdir()
    for name in ("report.json", "report.md", "report.html"):
        (folder / "report" / name).write_text("old", "utf-8")


def read_report(folder: Path) -> str:
    from clasp_lib.errors import DatasetError

    try:
        return digest([file.read_text("utf-8") for file in sorted((folder / "report").iterdir())])
    except OSError as error:
        raise DatasetError("there is no report") from error


def cell(folder: Path) -> None:
    from clasp_lib.ablation.runs import train_cell

    job = _cell(folder)
    if not job.result.is_file():  # as `run_jobs` looks
        train_cell(job)


def _cell(folder: Path) -> Any:
    from clasp_lib.ablation.runs import Job as Training
    from clasp_lib.ablation.specification import Cell
    from clasp_lib.training import TrainingSettings

    pieces = {split: f"{split}.safetensors" for split in ("train", "validation", "test")}
    settings = TrainingSettings(epochs=2, batch_size=8)
    return Training(Cell("linear", "contrastive", "none", 1, 1e-3), settings, pieces, folder, folder / "store")


def pieces_of_cell(folder: Path) -> None:
    import torch

    from clasp_lib.run_state import save_state

    for seed, split in enumerate(("train", "validation", "test")):
        made = features(16, seed)
        tensors = {name: torch.from_numpy(getattr(made, name)) for name in ("speech", "picture", "text")}
        facts = {name: getattr(made, name) for name in ("sentence_ids", "texts", "categories", "voices")}
        save_state(folder / "data" / f"{split}.safetensors", tensors, facts)


def read_cell(folder: Path) -> str:
    from clasp_lib.ablation.runs import read_result

    result = read_result(_cell(folder).result)
    return digest([result.facts["best_epoch"], result.facts["validation_mrr"], result.ranks, result.sentences])


def convert(folder: Path) -> None:
    from clasp_lib.convert import convert

    convert(folder / "published" / "CLASP_Gating.pt", folder / "converted")


def published(folder: Path) -> None:
    import torch

    from clasp_lib.paper_tiny.fusions import clasp

    torch.manual_seed(0)
    clasp(folder / "published")


def read_converted(folder: Path) -> str:
    from safetensors.torch import load_file

    from clasp_lib.errors import CheckpointError

    if not (folder / "converted").is_dir():
        raise CheckpointError("nothing was converted yet")
    return digest([load_file(folder / "converted/model.safetensors"), (folder / "converted/config.json").read_text()])


def stand_ins(folder: Path) -> None:
    """The folder of stand-ins, of which only the light ones are really made."""
    import clasp_lib.paper_tiny as tiny
    from clasp_lib.paper_tiny.files import write_json

    heavy = ("hubert", "wav2vec2", "efficientnet", "labse", "xlm_r", "small_100", "clasp", "vits", "whisper")
    for name in heavy:
        setattr(tiny, name, lambda place: write_json(place.with_suffix(".json"), {"name": place.name}))
    tiny.tiny_corpora.write_corpora = lambda place: write_json(place / "corpora.json", [1, 2, 3])  # type: ignore[assignment]
    tiny.make_checkpoints(folder / "stand-ins")


def old_stand_ins(folder: Path) -> None:
    (folder / "stand-ins").mkdir()
    for name in ("paper-tiny.json", "old.bin"):
        (folder / "stand-ins" / name).write_text("of an older version", "utf-8")


def read_stand_ins(folder: Path) -> str:
    from clasp_lib.errors import CheckpointError

    place = folder / "stand-ins"
    if not place.is_dir():
        raise CheckpointError("there are no stand-ins")
    return digest({str(file.relative_to(place)): file.read_text() for file in place.rglob("*") if file.is_file()})


def save_run_state(folder: Path) -> None:
    import torch

    from clasp_lib.run_state import save_state

    save_state(folder / "state.safetensors", {"x": torch.arange(1000.0)}, {"epoch": 2})


def old_run_state(folder: Path) -> None:
    import torch

    from clasp_lib.run_state import save_state

    save_state(folder / "state.safetensors", {"x": torch.zeros(1000)}, {"epoch": 1})


def read_run_state(folder: Path) -> str:
    from clasp_lib.run_state import load_state

    return digest(load_state(folder / "state.safetensors"))


JOBS: dict[str, Job] = {
    "dataset": Job(build_dataset, read_dataset),
    "features": Job(extract, read_features),
    "joined features": Job(join, read_joined, two_stores),
    "training": Job(train, read_run),
    "state of a run": Job(save_run_state, read_run_state, old_run_state, replaces=True),
    "new index": Job(build_index, read_index),
    "grown index": Job(build_index, read_index, old_index),
    "removed from an index": Job(remove_from_index, read_index, old_index, replaces=True),
    "replaced index": Job(replace_index, read_index, old_index, replaces=True),
    "report": Job(write_report, read_report, old_report, replaces=True),
    "ablation": Job(cell, read_cell, pieces_of_cell),
    "conversion": Job(convert, read_converted, published, once=True),
    "stand-ins": Job(stand_ins, read_stand_ins, old_stand_ins, replaces=True),
}
"""By name."""


def files_of(folder: Path) -> set[str]:
    """Names of all files that a job leaves, without those that stay for locks and for TensorBoard."""
    return {
        str(file.relative_to(folder))
        for file in folder.rglob("*")
        if file.is_file() and not file.name.endswith(".lock") and "tensorboard" not in file.parts
    }


def copied(source: Path, target: Path) -> Path:
    """A copy of a folder, with its times: an index knows a recording by them."""
    shutil.copytree(source, target, copy_function=shutil.copy2)
    return target
