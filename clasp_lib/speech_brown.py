"""Sentences and a voice become a dataset; folders of recordings enter by the same door.

Every dataset of the library has these columns, whatever it was made from:
`id` (unique), `sentence_id` (shared by all recordings of one sentence), `text`, `category`, `voice`, `duration` in
seconds, and `audio`, a dictionary of the file's bytes and its path that `clasp_lib.audio.load_audio` reads.
"""

from __future__ import annotations

import concurrent.futures
import csv
import multiprocessing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tqdm import tqdm

from clasp_lib.audio import duration, encode_audio, load_audio
from clasp_lib.corpus import SPLITS, Sentence, Split, normalise_text, split_by_text
from clasp_lib.errors import ClaspError, DatasetError
from clasp_lib.folders import written_whole
from clasp_lib.synthesis import Synthesizer, Voice, draw_voices

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, Features

_CHUNK = 64


class Skipped(NamedTuple):
    """A clip that was left out, and why."""

    id: str
    reason: str


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
    on_error: Literal["raise", "skip"] = "raise",
) -> Build:
    """Speak `sentences` and return them as train, validation and test.

    No text and no speaker is shared between splits. The same arguments give the same dataset, whatever the number of
    workers.

    Args:
        voices_per_sentence: how many voices speak each sentence of a split; default one.
        fractions: see `split_by_text`.
        workers: processes that speak; default one for each CPU.
        on_error: "raise" stops at the first sentence that cannot be spoken; "skip" reports it and goes on.

    Raises:
        ClaspError: a sentence cannot be spoken, with `on_error="raise"`.
    """
    from datasets import DatasetDict

    voices_per_sentence = voices_per_sentence or {}
    splits = split_by_text(sentences, fractions, seed)
    dataset, skipped = DatasetDict(), []
    with concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for split in SPLITS:
            times = voices_per_sentence.get(split, 1)
            takes = [(sentence, take) for take in range(times) for sentence in splits[split]]
            voices = draw_voices(split, len(takes), seed)
            jobs = [(s, take, voice) for (s, take), voice in zip(takes, voices, strict=True)]
            chunks = [jobs[start : start + _CHUNK] for start in range(0, len(jobs), _CHUNK)]
            tasks = (pool.submit(_speak_chunk, chunk, synthesizer, audio_format, on_error) for chunk in chunks)
            rows: list[dict] = []
            with tqdm(total=len(jobs), desc=f"speaking {split}", unit="clip") as bar:
                for chunk, task in zip(chunks, list(tasks), strict=True):
                    done, failed = task.result()
                    rows += done
                    skipped += failed
                    bar.update(len(chunk))
            dataset[split] = _dataset(rows)
    return Build(dataset, skipped)


def read_recordings(
    folder: str | Path, *, on_error: Literal["raise", "skip"] = "raise"
) -> tuple[Dataset, list[Skipped]]:
    """Recordings that lie in a folder with a `metadata.csv`, as a dataset with the usual columns.

    The table has the columns `file` (path inside the folder) and `text`, and may have `category` and `speaker` (which
    becomes `voice`). Recordings of the same normalised text share one `sentence_id`.

    Raises:
        DatasetError: no table, a missing column, an empty text, the same file twice, a path that leaves the folder.
        AudioError: a recording that cannot be read, with `on_error="raise"`.
    """
    folder = Path(folder)
    table = folder / "metadata.csv"
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            header, records = reader.fieldnames or [], list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{table}: cannot be read as a UTF-8 table ({error}).") from error
    if missing := {"file", "text"} - set(header):
        raise DatasetError(
            f"{table}: lacks the column {' and '.join(sorted(missing))}; it has {', '.join(header) or 'none'}."
        )
    if not records:
        raise DatasetError(f"{table}: has a header and no rows.")
    rows: list[dict] = []
    skipped: list[Skipped] = []
    seen: set[Path] = set()
    for number, record in enumerate(records, 2):
        name, text = (record["file"] or "").strip(), (record["text"] or "").strip()
        where = f"{table}, line {number}"
        if not name or not normalise_text(text):
            raise DatasetError(f"{where}: 'file' and 'text' must both be filled; they are {name!r} and {text!r}.")
        path = folder / name
        try:
            inside = path.resolve().relative_to(folder.resolve())
        except ValueError as error:  # also for a NUL byte
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
    return _dataset(rows), skipped


def save_dataset(dataset: DatasetDict, folder: str | Path) -> None:
    """Write a dataset as `datasets.save_to_disk` does, whole or not at all; an older one there is replaced."""
    with written_whole(folder, "dataset_dict.json") as unfinished:
        # `datasets` writes no file for a split without rows, and then cannot open it.
        dataset.save_to_disk(str(unfinished), num_shards={s: None if len(dataset[s]) else 1 for s in dataset})


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


def _dataset(rows: list[dict]) -> Dataset:
    """Rows as a `Dataset`, straight through Arrow: `from_list` asks for torchcodec although nothing is decoded."""
    from datasets import Dataset
    from datasets.table import InMemoryTable

    return Dataset(InMemoryTable.from_pylist(rows, schema=columns().arrow_schema))


def _speak_chunk(
    chunk: Sequence[tuple[Sentence, int, Voice]], synthesizer: Synthesizer, audio_format: str, on_error: str
) -> tuple[list[dict], list[Skipped]]:
    rows, skipped = [], []
    for sentence, take, voice in chunk:
        clip_id = f"{sentence.id}-{take}"
        try:
            samples = synthesizer.synthesize(sentence.text, voice)
        except ClaspError as error:
            if on_error == "raise":
                raise
            skipped.append(Skipped(clip_id, str(error)))
            continue
        row: dict[str, Any] = {
            "id": clip_id,
            "sentence_id": sentence.id,
            "text": sentence.text,
            "category": sentence.category,
        }
        row |= {"text": sentence.text, "category": sentence.category}
        row |= {"voice": voice.name, "duration": len(samples) / synthesizer.sampling_rate}
        data = encode_audio(samples, synthesizer.sampling_rate, audio_format)
        rows.append(row | {"audio": {"bytes": data, "path": f"{clip_id}.{audio_format.lower()}"}})
    return rows, skipped
