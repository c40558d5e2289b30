"""An index in memory or in a folder: segments that never change, and one small file that says which of them count.

Whatever is done to an index in a folder becomes true in one moment, when `index.json` is replaced. Whoever is killed
before that leaves the index as it was. One process at a time may write, which a lock sees to; and one that opened the
folder before another changed it has to open it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clasp_lib.errors import ClaspError, DatasetError
from clasp_lib.folders import written_whole
from clasp_lib.index.entries import Entry, entries_of, joined_tables, table_of
from clasp_lib.index.filters import Where, allowed_rows, check_where
from clasp_lib.index.manifest import MANIFEST, read_manifest, write_manifest
from clasp_lib.index.nearest import Exact, Nearest
from clasp_lib.index.segments import Segment, read_segment, write_segment
from clasp_lib.index.store import model_of

if TYPE_CHECKING:
    import pyarrow

    from clasp_lib.index.approximate import Approximate

BACKENDS = ("auto", "exact", "faiss", "hnsw", "ivfpq")
"""How the nearest vectors are found. "auto" is exact up to `EXACT_UP_TO` entries, and "faiss" beyond."""

EXACT_UP_TO = 1_000_000

_APPROXIMATE = "nearest.faiss"
_PATIENCE_S = 1.0  # with another process that only looks whether it may write
_FAN = 8  # segments of about the same size become one
_LEAST = 512  # entries of the smallest size
_GROWN = 1.5  # times as many rows as when recall was measured: it is measured again
_SAMPLE = 400  # texts, at most, by which an approximate search is measured
_CROWDED = 0.25  # of the entries removed: then those that are left are written anew


class LocalStore:
    """A `Store` on this machine. Make one with `create` or `open`.

    Attributes:
        about: what the manifest remembers of the model.
        folder: where the index lives; None is in memory.
        backend: one of `BACKENDS`.
        device: where an exact search computes.
        encode_texts: texts to vectors, to measure what an approximate search of text queries misses.
    """

    def __init__(self, about: dict[str, Any], folder: Path | None, backend: str) -> None:
        if backend not in BACKENDS:
            raise ClaspError(f"backend {backend!r}: choose one of {', '.join(BACKENDS)}.")
        self.about, self.folder, self.backend = about, folder, backend
        self.device: Any = None
        self.encode_texts: Callable[[list[str]], np.ndarray] | None = None
        self._dimension = model_of(about, folder or "the index").dimension
        self._segments: list[Segment | None] = []
        self._tables: list[pyarrow.Table] = [table_of([])]
        self._arrays: list[np.ndarray] = []
        self._removed = np.zeros(0, bool)  # (rows,)
        self._epoch, self._generation = "0" * 16, 0
        self._lock: Any = None

    @classmethod
    def create(cls, folder: str | Path | None, about: dict[str, Any], backend: str = "auto") -> LocalStore:
        """A store without entries; a folder must be new or empty.

        Raises:
            DatasetError: something else is in the folder, another process has just made an index there, or it cannot be
                made.
        """
        store = cls(about, None if folder is None else Path(folder), backend)
        if store.folder is not None:
            try:
                store.folder.mkdir(parents=True, exist_ok=True)
                strange = [file.name for file in store.folder.iterdir() if not file.name.startswith(".")]
            except (OSError, ValueError) as error:  # the second for a name that no folder can have
                raise DatasetError(f"{folder}: no index can be made there ({error}).") from error
            if os.path.isfile(store.folder / MANIFEST):
                raise DatasetError(
                    f"{folder}: another process has changed this folder: an index is there now. Do the same again, "
                    "which adds to it."
                )
            if strange:
                raise DatasetError(
                    f"{folder}: exists and holds no {MANIFEST}, so it is left alone ({strange[0]}). "
                    "Choose another folder."
                )
            with store.writing(), _disk(folder):
                store._commit()
        return store

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = True) -> LocalStore:
        """An index that was stored; a few attempts if another process replaces its parts at this very moment.

        Raises:
            DatasetError: missing or damaged.
        """
        folder, attempts = Path(folder), 3
        for attempt in range(attempts):
            manifest = read_manifest(folder)
            try:
                return cls._from_manifest(folder, manifest, verify)
            except DatasetError:
                if attempt == attempts - 1 or read_manifest(folder) == manifest:
                    raise
        raise AssertionError("not reached")

    @classmethod
    def write(
        cls, folder: Path, about: dict[str, Any], backend: str, entries: Sequence[Entry], vectors: np.ndarray
    ) -> None:
        """Write an index, whole or not at all; an older one there is replaced.

        Raises:
            DatasetError: the folder holds something else, another process writes to it, or it cannot be written.
        """
        if "\0" in str(folder):
            raise DatasetError(f"{folder}: no index can be made there (a NUL byte in the name).")
        old = None
        if os.path.isfile(folder / MANIFEST):
            with contextlib.suppress(DatasetError):  # one that is damaged is replaced as a folder
                old = cls.open(folder, verify=False)
        if old is not None:
            old.about, old.backend, old._dimension = about, backend, model_of(about, folder).dimension
            with old._changing():
                old._segments, old._tables, old._arrays = [], old._tables[:1], []
                old._epoch, old._removed = old._next_epoch(), np.zeros(len(entries), bool)
                old._put(table_of(entries), np.ascontiguousarray(vectors, np.float32))
            return
        with _disk(folder), written_whole(folder, MANIFEST) as unfinished:
            new = cls.create(unfinished, about, backend)
            new.add(entries, vectors)

    @classmethod
    def _from_manifest(cls, folder: Path, manifest: dict[str, Any], verify: bool) -> LocalStore:
        try:
            store = cls({name: manifest[name] for name in ("format", "model")}, folder, manifest["backend"])
            segments = [Segment(*segment) for segment in manifest["segments"]]
            store._epoch, store._generation = str(manifest["epoch"]), int(manifest["generation"])
            removed = np.array(manifest["removed"], np.int64)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DatasetError(f"{folder / MANIFEST}: is not complete ({error}). Build the index again.") from error
        parts = [read_segment(folder, segment, verify=verify) for segment in segments]
        for _, vectors in parts:
            if vectors.shape[1:] != (store._dimension,):
                raise DatasetError(f"{folder}: holds vectors of shape {vectors.shape}, not of {store._dimension}.")
        store._segments = [*segments]
        store._removed = np.zeros(sum(len(vectors) for _, vectors in parts), bool)  # by what is there, not what is said
        if removed.ndim != 1 or not ((removed >= 0) & (removed < len(store._removed))).all():
            raise DatasetError(f"{folder / MANIFEST}: removes rows that are not there. Build the index again.")
        store._removed[removed] = True
        store._tables += [table for table, _ in parts]
        store._arrays = [vectors for _, vectors in parts]
        return store

    def __len__(self) -> int:
        return len(self._removed) - int(self._removed.sum())

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the folder while the block runs: no other process may change it meanwhile.

        Raises:
            DatasetError: another process is writing, or has written since this one opened the folder.
        """
        if self.folder is None or (self._lock is not None and self._lock.is_locked):
            yield
            return
        from filelock import FileLock, Timeout

        if self._lock is None:
            self._lock = FileLock(self.folder / ".lock")
        try:
            self._lock.acquire(timeout=_PATIENCE_S)
        except Timeout:
            raise DatasetError(
                f"{self.folder}: another process is writing to this index. Wait for its end, then do this again; "
                "nothing is lost."
            ) from None
        except OSError as error:
            raise DatasetError(f"{self.folder}: cannot be written to ({error}).") from error
        try:
            there = (self.folder / MANIFEST).exists() or self._generation > 0
            if there and read_manifest(self.folder)["generation"] != self._generation:
                raise DatasetError(
                    f"{self.folder}: another process has changed this index since it was opened here. Load it again, "
                    "then do this again; nothing is lost."
                )
            yield
        finally:
            self._lock.release()

    def known(self) -> dict[str, str]:
        live = self._live_table.select(["id", "digest"]).to_pydict()
        return dict(zip(live["id"], live["digest"], strict=True))

    def add(self, entries: Sequence[Entry], vectors: np.ndarray) -> None:
        """Keep entries and their vectors (n, dimension), all or none of them; recordings of the same ids give way.

        Raises:
            DatasetError: metadata of another kind than before, or the folder cannot be written to.
        """
        if not entries:
            return
        table = table_of(entries)
        joined_tables([*self._tables, table])  # refuses what does not fit, before anything is written
        vectors = np.ascontiguousarray(vectors, np.float32).reshape(len(entries), self._dimension)
        with self._changing():
            self._removed = np.concatenate([self._removed, np.zeros(len(vectors), bool)])
            self._removed[self._rows_of({entry.id for entry in entries})] = True
            self._segments, self._tables, self._arrays = [*self._segments], [*self._tables], [*self._arrays]
            self._put(table, vectors)
            while self._many_of_one_size():
                tables, arrays = self._tables[-_FAN:], self._arrays[-_FAN:]
                del self._segments[-_FAN:], self._tables[-_FAN:], self._arrays[-_FAN:]
                self._put(joined_tables(tables).combine_chunks(), np.concatenate(arrays))

    def remove(self, ids: Collection[str]) -> int:
        rows = self._rows_of(set(ids))
        gone = len(set(self._table["id"].take(rows).to_pylist()))
        if gone:
            with self._changing():
                self._removed = self._removed.copy()
                self._removed[rows] = True
        return gone

    def search(self, queries: np.ndarray, k: int, where: Where | None = None) -> list[list[tuple[float, Entry]]]:
        allowed = ~self._removed if self._removed.any() else None
        if where:
            fits = allowed_rows(self._table, check_where(where))
            allowed = fits if allowed is None else fits & allowed
        if not len(self) or (allowed is not None and not allowed.any()):
            return [[] for _ in queries]
        scores, rows = self.nearest().search(queries, min(k, len(self._removed)), allowed)
        found = rows >= 0  # (queries, k)
        entries = iter(entries_of(self._table.take(rows[found])))
        return [
            [(float(score), next(entries)) for score, there in zip(*pair, strict=True) if there]
            for pair in zip(scores, found, strict=True)
        ]

    def vectors(self) -> np.ndarray:
        if len(self._arrays) == 1 and not self._removed.any():
            return self._arrays[0]
        joined = np.concatenate([np.zeros((0, self._dimension), np.float32), *self._arrays])
        return joined[~self._removed]

    def entries(self) -> list[Entry]:
        return entries_of(self._live_table)

    def nearest(self) -> Nearest:
        """What finds the nearest vectors; an approximate index is built, or brought up to date, when it is needed."""
        if self._nearest is None:
            kind = self.backend
            if kind == "auto":
                kind = "exact" if len(self) <= EXACT_UP_TO else "faiss"
            self._nearest = Exact(self._arrays, self.device) if kind == "exact" else self._approximate(kind)
        return self._nearest

    def close(self) -> None:
        self._forget_derived()

    # What follows from the segments, made when it is first needed ------------------------------------------------

    @cached_property
    def _table(self) -> pyarrow.Table:
        return joined_tables(self._tables).combine_chunks()

    @cached_property
    def _live_table(self) -> pyarrow.Table:
        return self._table.filter(~self._removed) if self._removed.any() else self._table

    @cached_property
    def _rows(self) -> dict[str, list[int]]:
        rows: dict[str, list[int]] = {}
        for row, id in enumerate(self._table["id"].to_pylist()):
            if not self._removed[row]:
                rows.setdefault(id, []).append(row)
        return rows

    _nearest: Nearest | None = None

    def _forget_derived(self) -> None:
        for name in ("_table", "_live_table", "_rows"):
            self.__dict__.pop(name, None)
        self._nearest = None

    def _rows_of(self, ids: set[str]) -> np.ndarray:
        return np.array([row for id in ids for row in self._rows.get(id, ())], np.int64)

    # Changing ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Do what the block does to segments and removed rows, and make it true; or, if anything fails, none of it."""
        with self.writing(), _disk(self.folder):
            before = (self._segments, self._tables, self._arrays, self._removed, self._epoch)
            generation = self._generation
            try:
                yield
                if self._removed.mean() > _CROWDED:
                    self._write_anew()
                self._commit()
            except BaseException:  # also Ctrl-C: what is in memory stays what is in the folder
                if self._generation == generation:
                    self._segments, self._tables, self._arrays, self._removed, self._epoch = before
                raise
            finally:
                self._forget_derived()

    def _put(self, table: pyarrow.Table, vectors: np.ndarray) -> None:
        if self.folder is None:
            segment = None
        else:
            segment = write_segment(self.folder, table, vectors)
            table, vectors = read_segment(self.folder, segment, verify=False)  # mapped: memory stays free
        self._segments.append(segment)
        self._tables.append(table)
        self._arrays.append(vectors)

    def _many_of_one_size(self) -> bool:
        """Whether the last segments are of one order of size and enough to become one: a vector moves log n times."""
        sizes = [int(np.log2(max(len(array) // _LEAST, 1)) / np.log2(_FAN)) for array in self._arrays[-_FAN:]]
        return len(sizes) == _FAN and len(set(sizes)) == 1

    def _write_anew(self) -> None:
        """Leave out what was removed; rows get other numbers, so an approximate index has to be built again."""
        start, old = 0, list(zip(self._tables[1:], self._arrays, strict=True))
        self._segments, self._tables, self._arrays = [], self._tables[:1], []
        for table, vectors in old:
            live = ~self._removed[start : start + len(vectors)]
            start += len(vectors)
            if live.any():
                self._put(table.filter(live), vectors[live])
        self._removed = np.zeros(sum(map(len, self._arrays)), bool)
        self._epoch = self._next_epoch()

    def _next_epoch(self) -> str:
        """A name for another numbering of the rows, which the folder has not had; the same for the same changes."""
        return hashlib.sha256(f"{self._epoch} {self._generation}".encode()).hexdigest()[:16]

    def _commit(self) -> None:
        """Make the change true: replace the manifest, then delete what it no longer names."""
        if self.folder is None:
            return
        manifest = {
            **self.about,
            "backend": self.backend,
            "epoch": self._epoch,
            "generation": self._generation + 1,
            "segments": self._segments,
            "removed": np.flatnonzero(self._removed).tolist(),
        }
        write_manifest(self.folder, manifest)
        self._generation += 1
        kept = {file for segment in self._segments if segment for file in segment.files}
        for file in self.folder.iterdir():
            if file.suffix in (".safetensors", ".parquet") and file.name not in kept:
                with contextlib.suppress(OSError):  # Windows keeps what is still mapped; the next commit tries again
                    file.unlink()

    def _approximate(self, kind: str) -> Approximate:
        """From the folder if it is of these rows, those that are new added to it; else built, and kept there."""
        from clasp_lib.index.approximate import Approximate

        kind = "auto" if kind == "faiss" else kind
        file = None if self.folder is None else self.folder / _APPROXIMATE
        found = None
        if file is not None and file.is_file():
            with contextlib.suppress(DatasetError):  # damaged, or of rows that were written anew: it is built again
                found = Approximate.load(file, self._arrays, self._epoch)
        if found is None or kind not in ("auto", found.kind):
            found = Approximate.build(self._arrays, kind, queries=self._sample())
        elif found.recall is None or len(found) > _GROWN * found.recall.rows:
            found.tune(queries=self._sample())
        elif found.added == 0:
            return found
        if file is not None:
            with contextlib.suppress(DatasetError), self.writing(), _disk(self.folder):  # who only reads does without
                found.save(file, self._epoch)
        return found

    def _sample(self) -> np.ndarray | None:
        """Vectors (q, dimension) of some texts of the collection, where it has any."""
        texts = self._live_table["text"].drop_null().unique()
        if self.encode_texts is None or not len(texts):
            return None
        rows = np.random.default_rng(0).permutation(len(texts))[:_SAMPLE]
        found = [text for text in texts.take(np.sort(rows)).to_pylist() if text.strip()]
        return self.encode_texts(found) if found else None


@contextlib.contextmanager
def _disk(folder: str | Path | None) -> Iterator[None]:
    """Say what is wrong where a folder cannot be written to."""
    try:
        yield
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be written to ({error}). Make room there, or choose another.") from error
