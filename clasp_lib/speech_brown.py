"""Sentences and a voice become a dataset; folders of recordings enter by the same door.

Every dataset of the library has these columns, whatever it was made from:
`id` (unique), `sentence_id` (shared by all recordings of one sentence), `text`, `category`, `voice`, `duration` in
seconds, and `audio`, a dictionary of the file's bytes and its path that `clasp_lib.audio.load_audio` reads.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tqdm import tqdm

from clasp_lib.audio import duration, load_audio
from clasp_lib.corpus import SPLITS, Sentence, Split, normalise_text, split_by_text
from clasp_lib.errors import ClaspError, DatasetError, OnError, Skipped, check_on_error
from clasp_lib.folders import replacing, reported, write_whole, written_whole
from clasp_lib.speaking import Job, engine_identity, spoken
from clasp_lib.synthesis import BatchSynthesizer, Synthesizer
from clasp_lib.tables import read_csv

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, Features

_CHUNK = 64  # clips that a process of the pool speaks at a time, and that a stopped run repeats at most
_BATCHES = 16  # the same, in batches, of an engine that speaks in batches


class Build(NamedTuple):
    """A finished dataset and the report of what was left out of it (empty unless `on_error="skip"`)."""

    dataset: DatasetDict
    skipped: list[Skipped]


def columns() -> Features:
    """The columns of every dataset. Audio stays encoded; nothing decodes it behind the reader's back."""
    from datasets import Audio, Features, Value

    strings = {name: Value("string") for name in ("id", "sentence_id", "text", "category", "voice")}
    return Features({**strings, "audio": Audio(decode=False), "duration": Value("float32")})


def build_speech_brown(
    sentences: Sequence[Sentence],
    synthesizer: Synthesizer,
    *,
    voices_per_sentence: Mapping[Split, int] | None = None,
    fractions: Mapping[Split, float] | None = None,
    seed: int = 0,
    audio_format: Literal["OGG", "MP3", "FLAC", "WAV"] = "OGG",
    workers: int | None = None,
    batch_size: int = 32,
    folder: str | Path | None = None,
    shared_speakers: bool = False,
    on_error: OnError = "raise",
) -> Build:
    """Speak `sentences` and return them as train, validation and test.

    No text and no speaker is shared between splits. The same arguments give the same dataset, whatever the number of
    workers, and however often the work was stopped and taken up again.

    Args:
        voices_per_sentence: how many voices speak each sentence of a split; default one.
        fractions: see `split_by_text`.
        workers: processes that speak, or, of a `BatchSynthesizer`, threads that compress; default one for each CPU.
        batch_size: sentences of similar length that a `BatchSynthesizer` speaks at once.
        folder: where finished shards are kept, so that a stopped run goes on with the first missing one. The dataset
            then lies in these files and not in memory: `save_dataset` it before they are deleted.
        shared_speakers: allow an engine that has the same speakers in all splits.
        on_error: "raise" stops at the first sentence that cannot be spoken; "skip" reports it and goes on.

    Raises:
        ClaspError: a sentence cannot be spoken, with `on_error="raise"`; a number that is none.
        DatasetError: splits would share a speaker; a kept shard is damaged.
    """
    from datasets import DatasetDict, concatenate_datasets

    check_on_error(on_error)
    voices_per_sentence = voices_per_sentence or {}
    if set(voices_per_sentence) - set(SPLITS) or not all(_is_number(n, 0) for n in voices_per_sentence.values()):
        raise ClaspError(f"voices_per_sentence {dict(voices_per_sentence)}: give numbers for {', '.join(SPLITS)}.")
    for name, number in (("workers", 1 if workers is None else workers), ("batch_size", batch_size)):
        if not _is_number(number, 1):
            raise ClaspError(f"{name} is {number!r}; give a whole number of at least 1.")
    splits = split_by_text(sentences, fractions, seed)
    size = _BATCHES * batch_size if isinstance(synthesizer, BatchSynthesizer) else _CHUNK
    chunks: list[tuple[Split, list[Job]]] = []
    speakers: dict[str, Split] = {}
    for split in SPLITS:
        takes = [(sentence, take) for take in range(voices_per_sentence.get(split, 1)) for sentence in splits[split]]
        voices = synthesizer.voices(split, len(takes), seed)
        for voice in voices:
            if speakers.setdefault(voice.name, split) != split and not shared_speakers:
                raise DatasetError(
                    f"speaker {voice.name!r}: would be in {speakers[voice.name]} and in {split}, and what is learnt "
                    "would be tested on known voices. Use another engine, or pass shared_speakers=True if it is meant."
                )
        jobs = [Job(sentence, take, voice) for (sentence, take), voice in zip(takes, voices, strict=True)]
        chunks += [(split, jobs[start : start + size]) for start in range(0, len(jobs), size)]
    identity = engine_identity(synthesizer) if folder else ""
    recipe = [identity, synthesizer.sampling_rate, audio_format, on_error, batch_size]
    shards = [_Shard(folder, f"{split}-{i:05d}", [*recipe, jobs]) for i, (split, jobs) in enumerate(chunks)]
    missing = [i for i, shard in enumerate(shards) if not shard.finished]
    done = spoken([chunks[i][1] for i in missing], synthesizer, audio_format, on_error, workers, batch_size)
    clips = sum(len(jobs) for _, jobs in chunks)
    left = sum(len(chunks[i][1]) for i in missing)
    with contextlib.closing(done), tqdm(total=clips, initial=clips - left, desc="speaking", unit="clip") as bar:
        for i, (rows, skipped) in zip(missing, done, strict=True):
            shards[i].keep(rows, skipped)
            bar.update(len(chunks[i][1]))
    dataset = DatasetDict()
    for split in SPLITS:
        parts = [shard.dataset() for shard, (of, _) in zip(shards, chunks, strict=True) if of == split]
        dataset[split] = concatenate_datasets(parts) if parts else dataset_of([])
    return Build(dataset, [clip for shard in shards for clip in shard.skipped()])


def read_recordings(folder: str | Path, *, on_error: OnError = "raise") -> tuple[Dataset, list[Skipped]]:
    """Recordings that lie in a folder with a `metadata.csv`, as a dataset with the usual columns.

    The table has the columns `file` (path inside the folder) and `text`, and may have `category` and `speaker` (which
    becomes `voice`). Recordings of the same normalised text share one `sentence_id`.

    Raises:
        DatasetError: no table, a missing column, an empty text, the same file twice, a path that leaves the folder.
        AudioError: a recording that cannot be read, with `on_error="raise"`.
    """
    check_on_error(on_error)
    folder = Path(folder)
    table = folder / "metadata.csv"
    header, records = read_csv(table)
    if missing := {"file", "text"} - set(header):
        raise DatasetError(
            f"{table}: lacks the column {' and '.join(sorted(missing))}; it has {', '.join(header)[:500] or 'none'}."
        )
    if not records:
        raise DatasetError(f"{table}: has a header and no rows.")
    rows: list[dict] = []
    skipped: list[Skipped] = []
    seen: set[Path] = set()
    for where, record in records:
        name, text = record["file"].strip(), record["text"].strip()
        if not name or not normalise_text(text):
            raise DatasetError(
                f"{where}: 'file' must be filled, and 'text' hold a letter or digit; they are {name!r} and {text!r}."
            )
        path = folder / name
        try:
            inside = path.resolve().relative_to(folder.resolve())
        except (ValueError, OSError, RuntimeError) as error:  # the last two for links in a circle
            raise DatasetError(f"{where}: the path {name!r} leads out of the folder.") from error
        if inside in seen:
            raise DatasetError(f"{where}: the file {name!r} stands in the table twice.")
        seen.add(inside)
        try:
            load_audio(path)
            seconds = duration(path)
        except ClaspError as error:
            if on_error == "raise":
                raise
            skipped.append(Skipped(name, str(error)))
            continue
        row = {"id": name, "sentence_id": normalise_text(text), "text": text, "duration": seconds}
        row |= {"category": record.get("category") or "", "voice": record.get("speaker") or ""}
        rows.append(row | {"audio": {"bytes": path.read_bytes(), "path": name}})
    return dataset_of(rows), skipped


def _is_number(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def save_dataset(dataset: DatasetDict, folder: str | Path) -> None:
    """Write a dataset as `datasets.save_to_disk` does, whole or not at all; an older one there is replaced.

    The same dataset gives the same bytes.
    """
    with written_whole(folder, "dataset_dict.json") as unfinished:
        # `datasets` writes no file for a split without rows, and then cannot open it.
        dataset.save_to_disk(str(unfinished), num_shards={s: None if len(dataset[s]) else 1 for s in dataset})
        for state in unfinished.glob("*/state.json"):  # `datasets` names it after the time, too
            digests = [_sha256(state.parent / each["filename"]) for each in _state(state)["_data_files"]]
            fingerprint = hashlib.sha256("".join(digests).encode()).hexdigest()[:16]
            state.write_text(json.dumps({**_state(state), "_fingerprint": fingerprint}, indent=2) + "\n", "utf-8")


def _state(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text("utf-8"))


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def load_dataset(folder: str | Path) -> DatasetDict:
    """Open what `save_dataset` wrote, memory-mapped.

    Raises:
        DatasetError: missing, damaged, or without the columns of this module.
    """
    import datasets

    folder = Path(folder)
    try:
        dataset = datasets.load_from_disk(str(folder))
    except Exception as error:  # datasets and pyarrow raise a dozen kinds for a damaged folder
        raise DatasetError(f"{folder}: is not a dataset that can be opened ({error}). Build it again.") from error
    if not isinstance(dataset, datasets.DatasetDict):
        raise DatasetError(f"{folder}: holds one split, not a dictionary of splits. Build it again.")
    for split, part in dataset.items():
        if missing := set(columns()) - set(part.column_names):
            raise DatasetError(f"{folder}: the split {split!r} lacks the columns {', '.join(sorted(missing))}.")
    return dataset


def dataset_of(rows: list[dict]) -> Dataset:
    """Rows as a `Dataset`, straight through Arrow: `from_list` asks for torchcodec although nothing is decoded."""
    from datasets import Dataset
    from datasets.table import InMemoryTable

    return Dataset(InMemoryTable.from_pylist(rows, schema=columns().arrow_schema))


class _Shard:
    """Some clips, once they are spoken: in memory, or in two files whose names say what they were made from."""

    def __init__(self, folder: str | Path | None, name: str, recipe: object) -> None:
        digest = hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]
        self._file = None if folder is None else Path(folder) / f"{name}-{digest}.arrow"
        self._rows: tuple[Dataset, list[Skipped]] | None = None

    @property
    def finished(self) -> bool:
        return self._rows is not None if self._file is None else self._file.is_file()

    def keep(self, rows: list[dict], skipped: list[Skipped]) -> None:
        part = dataset_of(rows)
        if self._file is None:
            self._rows = part, skipped
            return
        import pyarrow

        with reported(self._file.parent):
            write_whole(self._file.with_suffix(".json"), json.dumps(skipped).encode())
            with replacing(self._file) as file, pyarrow.ipc.new_stream(file, part.data.schema) as stream:
                stream.write_table(part.data.table)  # last: where this file is, all is there

    def dataset(self) -> Dataset:
        from datasets import Dataset

        if self._rows is not None:
            return self._rows[0]
        try:
            return Dataset.from_file(str(self._file))
        except Exception as error:  # pyarrow and datasets each raise their own kinds
            raise DatasetError(f"{self._file}: is damaged ({error}). Delete it and build again.") from error

    def skipped(self) -> list[Skipped]:
        if self._rows is not None or self._file is None:
            return self._rows[1] if self._rows else []
        try:
            return [Skipped(*entry) for entry in json.loads(self._file.with_suffix(".json").read_text("utf-8"))]
        except (OSError, ValueError, TypeError) as error:
            raise DatasetError(
                f"{self._file}: its list of skipped clips is damaged. Delete it and build again."
            ) from error
