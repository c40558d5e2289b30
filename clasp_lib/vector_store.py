"""What an encoder said, on disk, found again by the digest of what it was asked.

A store is a folder of shards. A shard is one safetensors file that is written whole or not at all and never changed:
the rows of some clips, how many rows each has, and in its header the clips' keys, the reasons of those that failed,
and a checksum. Which shard a clip lies in does not matter, so shards of several machines are joined by copying them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from clasp_lib.errors import DatasetError
from clasp_lib.folders import replacing, reported, write_whole

if TYPE_CHECKING:
    import torch

_FORMAT = 3
_HEADER = "clasp"


class Shard(NamedTuple):
    """An opened shard: rows (n, width), memory-mapped, and where those of each key start; the last start is the end."""

    rows: torch.Tensor
    starts: np.ndarray


class VectorStore:
    """Rows of float32 numbers by key, of one encoder, in a folder or in memory.

    Args:
        folder: where stores lie side by side, one sub-folder for each identity; None keeps everything in memory.
        identity: all that the vectors depend on besides the sound or text; "encoder" in it names the sub-folder.
        width: of a row.

    Raises:
        DatasetError: a shard that is damaged or of another store; the message names the file.
    """

    def __init__(self, folder: str | Path | None, identity: Mapping[str, str | int | bool], width: int) -> None:
        self.identity, self.width = {"format": _FORMAT, **identity, "width": width}, width
        name = f"{identity['encoder']}-{_digest(json.dumps(self.identity, sort_keys=True).encode())[:16]}"
        self.folder = None if folder is None else Path(folder) / name
        self.failed: dict[str, str] = {}
        self._shards: list[Shard] = []
        self._places: dict[str, tuple[int, int]] = {}
        for file in _shard_files(self.folder):
            self._take(*_opened(file, self.identity))

    def __len__(self) -> int:
        """How many keys have vectors."""
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        """Whether this key was encoded, or failed to be."""
        return key in self._places or key in self.failed

    def add(self, rows: Mapping[str, np.ndarray], failed: Mapping[str, str] | None = None) -> None:
        """Store one shard: by key an array (rows, width), or (width,) for a single row; and reasons of failures.

        The file's name and its bytes follow from the keys and the rows: the same work done again writes the same file.

        Raises:
            DatasetError: the folder cannot be written; what was stored before stays.
        """
        import torch
        from safetensors.torch import save

        arrays = [np.asarray(array, np.float32).reshape(-1, self.width) for array in rows.values()]
        lengths = np.array([len(array) for array in arrays], np.int64)
        joined = np.concatenate(arrays) if arrays else np.zeros((0, self.width), np.float32)
        header = {"identity": self.identity, "keys": list(rows), "failed": dict(failed or {})}
        header["sha256"] = _digest(joined.tobytes() + lengths.tobytes())
        tensors = {"rows": torch.from_numpy(joined), "lengths": torch.from_numpy(lengths)}
        if self.folder is None:
            return self._take(header, tensors)
        data = save(tensors, {_HEADER: json.dumps(header)})
        file = self.folder / f"{_name(header)}.safetensors"
        with reported(self.folder):
            write_whole(file, data)
        self._take(*_opened(file, self.identity))

    def read(self, keys: Sequence[str]) -> np.ndarray:
        """One row for each key: float32 (n, width), in the order given."""
        found = np.empty((len(keys), self.width), np.float32)
        by_shard: dict[int, tuple[list[int], list[int]]] = {}
        for position, key in enumerate(keys):
            shard, number = self._places[key]
            into, start = by_shard.setdefault(shard, ([], []))
            into.append(position)
            start.append(int(self._shards[shard].starts[number]))
        for shard, (into, start) in by_shard.items():
            found[into] = self._shards[shard].rows[start].numpy()
        return found

    def read_all_rows(self, key: str) -> torch.Tensor:
        """All rows of one key: float32 (rows, width), memory-mapped if the store has a folder."""
        shard, number = self._places[key]
        rows, starts = self._shards[shard]
        return rows[int(starts[number]) : int(starts[number + 1])]

    def memory_mapped(self, keys: Sequence[str]) -> np.ndarray:
        """The same as `read`, in a file of its own beside the shards, for matrices that do not fit into memory.

        The file is written once, a few thousand rows at a time, and used again for the same keys.

        Raises:
            DatasetError: it cannot be written.
        """
        if self.folder is None:
            return self.read(keys)
        file = self.folder / f"{_digest(json.dumps(list(keys)).encode())[:32]}.npy"
        if not file.is_file():
            # Not into mapped memory, where a full disk ends the process without a word.
            about = {"descr": "<f4", "fortran_order": False, "shape": (len(keys), self.width)}
            with reported(self.folder), replacing(file) as opened:
                np.lib.format.write_array_header_1_0(opened, about)
                for start in range(0, len(keys), 4096):
                    opened.write(self.read(keys[start : start + 4096]).astype("<f4", copy=False).tobytes())
        return np.load(file, mmap_mode="c")  # what is written to it stays in memory

    def verify(self) -> int:
        """Read every shard again and compare it with its checksum; returns the number of shards.

        Raises:
            DatasetError: a shard does not hold what was written; the message names it.
        """
        files = _shard_files(self.folder)
        for file in files:
            _check(file, *_opened(file, self.identity))
        return len(files)

    def _take(self, header: dict, tensors: Mapping[str, torch.Tensor]) -> None:
        starts = np.concatenate([[0], np.cumsum(tensors["lengths"].numpy())])
        for number, key in enumerate(header["keys"]):
            self._places[key] = (len(self._shards), number)
        self._shards.append(Shard(tensors["rows"], starts))
        self.failed |= header["failed"]


def join_stores(sources: Iterable[str | Path], target: str | Path) -> int:
    """Copy the shards of several folders of stores, each checked, into one; returns how many were new there.

    Raises:
        DatasetError: a source without stores, a damaged shard, or a target that cannot be written; the shards before it
            have been copied.
    """
    new = 0
    for source in map(Path, sources):
        files = sorted(source.glob("*/*.safetensors"))
        if not files:
            raise DatasetError(f"{source}: holds no stored features. Give the folder that they were extracted to.")
        for file in files:
            copy = Path(target) / file.parent.name / file.name
            _check(file, *_opened(file, None))
            if not copy.is_file():
                with reported(target), replacing(copy) as opened, open(file, "rb") as original:
                    shutil.copyfileobj(original, opened)
                new += 1
    return new


def _shard_files(folder: Path | None) -> list[Path]:
    return sorted(folder.glob("*.safetensors")) if folder is not None else []


def _opened(file: Path, identity: Mapping | None) -> tuple[dict, dict[str, torch.Tensor]]:
    """A shard's header, and its tensors memory-mapped."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as shard:
            header = json.loads(shard.metadata()[_HEADER])
            tensors = {name: shard.get_tensor(name) for name in ("rows", "lengths")}
        fits = _fit(header, tensors["rows"], tensors["lengths"])
    except (SafetensorError, OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{file}: is damaged ({error}). Delete it; its clips are then encoded again.") from error
    if not fits or (identity is not None and header["identity"] != identity):
        raise DatasetError(f"{file}: does not belong into this folder. Delete it; its clips are then encoded again.")
    return header, tensors


def _fit(header: dict, rows: torch.Tensor, lengths: torch.Tensor) -> bool:
    """Whether a shard's rows are as many and as wide as it says."""
    shapes = rows.ndim == 2 and lengths.ndim == 1 and rows.is_floating_point() and not lengths.is_floating_point()
    named = isinstance(header["keys"], list) and isinstance(header["failed"], dict) and "sha256" in header
    if not (shapes and named and rows.shape[1] == header["identity"]["width"] and len(header["keys"]) == len(lengths)):
        return False
    return int(lengths.min() if len(lengths) else 0) >= 0 and int(lengths.sum()) == len(rows)


def _check(file: Path, header: dict, tensors: Mapping[str, torch.Tensor]) -> None:
    vectors = tensors["rows"].numpy().tobytes() + tensors["lengths"].numpy().tobytes()
    if _digest(vectors) != header["sha256"] or _name(header) != file.stem:
        raise DatasetError(f"{file}: has changed since it was written. Delete it; its clips are then encoded again.")


def _name(header: dict) -> str:
    """What a shard is called: a digest of its keys."""
    return _digest(json.dumps([header["keys"], list(header["failed"])]).encode())[:32]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
