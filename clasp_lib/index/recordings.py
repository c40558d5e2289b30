"""What is to be indexed, one recording after the other: from a list, a folder or a dataset."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from clasp_lib.audio import AudioItem, describe
from clasp_lib.errors import AudioError, ClaspError, DatasetError, brief
from clasp_lib.index.entries import Scalar, check_metadata
from clasp_lib.tables import read_csv

if TYPE_CHECKING:
    from datasets import Dataset

Recordings: TypeAlias = "Sequence[AudioItem] | str | Path | Dataset"

AUDIO_FILES = (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au", ".caf", ".w64")
"""Endings that a folder is searched for."""

TABLE = "metadata.csv"

_SAID = ("file", "text", "id")  # columns of a table that are no metadata


@dataclass(frozen=True)
class Recording:
    """One to be indexed.

    Attributes:
        id: unique in the index. file: its path, or what is known instead.
        read: gives what `CLASP.encode_speech` takes.
        text, metadata: what is known of it.
        is_file: whether `file` is where it can be heard later.
    """

    id: str
    file: str
    read: Callable[[], AudioItem]
    text: str | None
    metadata: Mapping[str, Scalar]
    is_file: bool

    def digest(self, settings: str) -> str:
        """Changes when the recording does, what is known of it, or how it is cut.

        Of a file it takes size and time of change for its contents; of bytes and samples, all of them.

        Raises:
            AudioError: the file is missing, or the item cannot be a recording.
            DatasetError: a name or text that cannot be written as UTF-8, in which an index keeps them.
        """
        for said in (self.id, self.file, self.text, *self.metadata, *self.metadata.values()):
            if isinstance(said, str) and any("\ud800" <= letter <= "\udfff" for letter in said):
                raise DatasetError(f"{brief(self.file)}: {brief(said)} is not UTF-8, as an index keeps it. Rename it.")
        item = self.read()
        about = [_contents(item), self.file, self.text, sorted(self.metadata.items()), settings]
        return hashlib.sha256(json.dumps(about).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def recordings_of(
    items: Recordings,
    *,
    texts: Sequence[str | None] | None = None,
    metadata: Sequence[Mapping[str, Any]] | None = None,
    ids: Sequence[str] | None = None,
) -> Sequence[Recording]:
    """What `items` stands for, each with an id of its own. Nothing is decoded yet.

    A list gives its items: a path is known by its absolute path, and anything else by the SHA-256 of its bytes or
    samples. A folder gives the recordings below it, or those that its `metadata.csv` names (columns `file`, perhaps
    `text` and `id`; all others are metadata). A dataset gives its column `audio`; `text` and `id` are taken for what
    they are called, all other columns of strings, numbers and truth values for metadata.

    Args:
        texts, metadata, ids: one for each item of a list; a folder or a dataset brings its own.

    Raises:
        ClaspError: lists of different lengths; an id given twice; metadata that cannot be stored.
        DatasetError: a folder without recordings, a table or dataset without the column.
    """
    given = {"texts": texts, "metadata": metadata, "ids": ids}
    if isinstance(items, str | Path) or hasattr(items, "column_names"):
        if wrong := [name for name, column in given.items() if column is not None]:
            raise ClaspError(f"{wrong[0]}: belongs to a list of recordings; a folder or a dataset brings its own.")
        return _from_folder(Path(items)) if isinstance(items, str | Path) else _from_dataset(items)
    if isinstance(items, Mapping | bytes) or (isinstance(items, np.ndarray) and items.ndim == 1):
        raise AudioError(f"{describe(items)}: one recording; give a list. Wrap it: [item].")
    if not isinstance(items, Iterable):
        raise AudioError(f"{describe(items)}: cannot be read as recordings. Give a list of them, or a folder.")
    items = list(items)
    for name, column in given.items():
        if isinstance(column, str):
            raise ClaspError(f"{name}: is one string; give a list with an entry for each of {len(items)} recordings.")
        if column is not None and len(column) != len(items):
            raise ClaspError(f"{name}: has {len(column)} entries for {len(items)} recordings.")
    found = []
    for i, item in enumerate(items):
        name = f"item {i}" if not isinstance(item, str | Path) else str(item)
        known = {} if metadata is None else check_metadata(metadata[i], name)
        text = None if texts is None else texts[i]
        found.append(_recording(item, name, text, known, None if ids is None else ids[i]))
    return _unique(found, chosen=ids is not None)


def _recording(
    item: AudioItem, name: str, text: str | None, metadata: Mapping[str, Scalar], id: str | None
) -> Recording:
    if text is not None and not isinstance(text, str):
        raise ClaspError(f"{name}: its text is a {type(text).__name__}; give a string or None.")
    if id is not None and (not isinstance(id, str) or not id):
        raise ClaspError(f"{name}: its id is {id!r}; give a string that is not empty.")
    if isinstance(item, str | Path):
        file = str(Path(item).absolute())
        return Recording(id or file, file, lambda: item, text, metadata, True)
    file = str(item.get("path") or name) if isinstance(item, Mapping) else name
    if id is None:
        try:
            id = f"sha256:{_contents(item)}"
        except AudioError:  # said again, and perhaps passed over, when its turn comes
            id = name
    return Recording(id, file, lambda: item, text, metadata, False)


def _unique(recordings: list[Recording], *, chosen: bool) -> list[Recording]:
    """An id that a user chose may not occur twice; one that we made gets a number."""
    seen: Counter[str] = Counter()
    for i, recording in enumerate(recordings):
        seen[recording.id] += 1
        if (times := seen[recording.id]) > 1:
            if chosen:
                raise ClaspError(f"ids: {recording.id!r} occurs twice. Every recording needs an id of its own.")
            recordings[i] = replace(recording, id=f"{recording.id}#{times}")
    return recordings


def _from_folder(folder: Path) -> list[Recording]:
    if folder.is_file():
        raise AudioError(f"{folder}: is one file; give a list of recordings, or a folder. Wrap it: [path].")
    if not folder.is_dir():
        raise DatasetError(f"{folder}: there is no such folder.")
    if (folder / TABLE).is_file():
        return _from_table(folder)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_FILES and not path.is_dir())
    files = [path for path in files if not path.name.startswith(".")]
    if not files:
        raise DatasetError(f"{folder}: holds no recordings ({', '.join(AUDIO_FILES)}) and no {TABLE}.")
    return [_recording(path, str(path), None, {}, None) for path in files]


def _from_table(folder: Path) -> list[Recording]:
    rows, seen = read_table(folder / TABLE), set[Path]()
    found, named = [], any(row.id for row in rows)
    for row in rows:
        path = Path(row.file)
        try:
            inside = (folder / path).resolve().relative_to(folder.resolve())
        except (ValueError, OSError, RuntimeError) as error:  # the last two for links in a circle
            raise DatasetError(f"{row.where}: file {row.file!r} is no path inside the folder.") from error
        if path.is_absolute():
            raise DatasetError(f"{row.where}: file {row.file!r} is no path inside the folder. Begin it there.")
        if inside in seen and not named:
            raise DatasetError(f"{row.where}: the file {row.file!r} stands in the table twice. Keep one line of it.")
        seen.add(inside)
        found.append(_recording(folder / path, row.where, row.text, row.metadata, row.id))
    return _unique(found, chosen=named)


class Row(NamedTuple):
    """What a table says of a recording; `where` names table and line for messages."""

    where: str
    file: str
    text: str | None
    id: str | None
    metadata: dict[str, Scalar]


def read_table(table: Path) -> list[Row]:
    """The rows of a table of comma-separated values with a column `file`, perhaps `text` and `id`; others are metadata.

    A column of numbers only becomes numbers; one that has a number with a leading zero, such as 007, has names.

    Raises:
        DatasetError: it cannot be read, has no such column or no rows, or a row has another number of cells.
    """
    names, rows = read_csv(table)
    if "file" not in names or not rows:
        raise DatasetError(
            f"{table}: needs a column 'file' and a row for each recording; its columns are {brief(names)}."
        )
    for where, row in rows:
        if not row["file"].strip():
            raise DatasetError(f"{where}: names no file.")
    columns = {name: _numbers_if_all_are([row[name] for _, row in rows]) for name in names if name not in _SAID}
    found = []
    for number, (where, row) in enumerate(rows):
        metadata = check_metadata({name: column[number] for name, column in columns.items() if name}, where)
        found.append(Row(where, row["file"].strip(), row.get("text") or None, row.get("id") or None, metadata))
    return found


def _numbers_if_all_are(cells: list[str]) -> list[Any]:
    """Cells as whole numbers, or as numbers, if all of them are; an empty cell is nothing."""
    if any("_" in cell for cell in cells):  # 1_000 is a number to Python alone
        return [cell or None for cell in cells]
    for kind in (int, float):
        try:
            found = [kind(cell) if cell.strip() else None for cell in cells]
        except ValueError:
            continue
        if all(cell is None or abs(cell) < 2**63 for cell in found) and not any(  # so also finite
            cell.strip().startswith("0") and cell.strip().isdigit() and len(cell.strip()) > 1 for cell in cells
        ):  # 007 is a name
            return found
    return [cell or None for cell in cells]


class _Rows(Sequence[Recording]):
    """The rows of a dataset; the sound of each is fetched when it is asked for."""

    def __init__(self, dataset: Dataset) -> None:
        from datasets import Audio

        self._audio = dataset.select_columns(["audio"]).cast_column("audio", Audio(decode=False))
        kept = [name for name, kind in dataset.features.items() if getattr(kind, "dtype", "") in _PLAIN]
        self._known = dataset.select_columns(kept)
        self._names = kept

    def __len__(self) -> int:
        return len(self._audio)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        row = self._known[i] if self._names else {}
        id, text = row.pop("id", None), row.pop("text", None)
        if text is not None and not isinstance(text, str):
            raise DatasetError(f"row {i}: its text is {brief(text)}; the column 'text' must hold strings.")
        audio = self._audio
        item = audio[i]["audio"]
        is_file = item.get("bytes") is None
        name = str(item.get("path") or id or f"row {i}")
        known = check_metadata({key: value for key, value in row.items() if key not in _OWN}, f"row {i}")
        file = str(Path(name).absolute()) if is_file else name
        key = str(id) if id is not None else f"sha256:{_contents(item)}#{i}"
        return Recording(key, file, lambda: audio[i]["audio"], text, known, is_file)


_PLAIN = (
    "string",
    "large_string",
    "bool",
    "float32",
    "float64",
    *(f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)),
)
_OWN = ("file", "start_s", "end_s", "digest", "duration", "duration_s")
"""Columns that an entry says in its own way."""


def _from_dataset(dataset: Any) -> Sequence[Recording]:
    if isinstance(dataset, Mapping):
        raise DatasetError(f"a DatasetDict with {', '.join(dataset)}: choose a part, such as dataset['test'].")
    if "audio" not in dataset.column_names:
        raise DatasetError(f"the dataset has no column 'audio'; its columns are {', '.join(dataset.column_names)}.")
    if "id" in dataset.column_names:
        ids = Counter(dataset["id"])
        if twice := [id for id, times in ids.items() if times > 1]:
            raise DatasetError(
                f"the dataset's column 'id' holds {twice[0]!r} twice. Every clip needs an id of its own."
            )
    return _Rows(dataset)


def _contents(item: AudioItem) -> str:
    """Of bytes and samples their SHA-256; of a file its size and time of change."""
    if isinstance(item, Mapping) and item.get("array") is None and item.get("bytes") is None and item.get("path"):
        item = str(item["path"])
    if isinstance(item, str | Path):
        try:
            status = Path(item).stat()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise AudioError(f"{describe(item)}: there is no such file, or it cannot be opened ({reason}).") from error
        return f"{status.st_size} bytes of {status.st_mtime_ns}"
    if isinstance(item, Mapping):
        if isinstance(item.get("bytes"), bytes | bytearray):
            return hashlib.sha256(item["bytes"]).hexdigest()
        rate = f"{item.get('sampling_rate')} ".encode()
        try:
            samples = np.ascontiguousarray(item.get("array"))
        except ValueError as error:
            raise AudioError(f"{describe(item)}: 'array' is not one row of numbers ({error}).") from error
        return hashlib.sha256(rate + samples.tobytes()).hexdigest()
    if isinstance(item, np.ndarray):
        return hashlib.sha256(f"{item.dtype}{item.shape}".encode() + np.ascontiguousarray(item).tobytes()).hexdigest()
    raise AudioError(
        f"{describe(item)}: cannot be read as audio. "
        "Give a path, a 1-D array, {'array', 'sampling_rate'} or {'bytes', 'path'}."
    )


def iterate(recordings: Sequence[Recording], size: int) -> Iterator[list[Recording]]:
    """In groups of at most `size`."""
    for start in range(0, len(recordings), size):
        yield list(recordings[start : start + size])
