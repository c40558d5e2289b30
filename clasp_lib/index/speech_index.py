"""Search over a collection of recordings."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from clasp_lib.audio import AudioItem, duration
from clasp_lib.errors import ClaspError, DatasetError, OnError, Skipped, check_on_error
from clasp_lib.index.entries import Entry
from clasp_lib.index.filters import Where, check_where
from clasp_lib.index.hits import Hit, Hits
from clasp_lib.index.local import LocalStore
from clasp_lib.index.manifest import MANIFEST, read_manifest
from clasp_lib.index.milvus import MilvusStore, is_milvus
from clasp_lib.index.recordings import Recording, Recordings, iterate, recordings_of
from clasp_lib.index.store import ModelName, Store, about_model, model_of
from clasp_lib.localization import Cutting, encode_recording
from clasp_lib.model import CLASP, check_batch_size, checked_matrix

if TYPE_CHECKING:
    from clasp_lib.index.nearest import Nearest

_CHUNK = 256  # recordings that are encoded before they are stored: what a stopped run repeats at most


class Added(NamedTuple):
    """What `SpeechIndex.add` did: recordings encoded, recordings that were there already, and those left out."""

    added: int
    unchanged: int
    skipped: list[Skipped]


class SpeechIndex:
    """Vectors of a collection and what they stand for, searched by cosine.

        index = SpeechIndex.build(model, ["one.flac", "two.mp3"])
        index.search("a query", k=5)

    Make one with `build` or `load`.

    Attributes:
        model: encodes what is added and what is asked.
        store: where the vectors are.
        skipped: recordings that were left out because they could not be encoded, and why.
    """

    def __init__(self, model: CLASP, store: Store) -> None:
        self.model, self.store = model, store
        self.skipped: list[Skipped] = []
        self._audio: dict[str, Callable[[], AudioItem]] = {}
        if isinstance(store, LocalStore):
            store.device, store.encode_texts = model.device, model.encode_text

    def __len__(self) -> int:
        """How many vectors it holds: one for each recording, or for each window of one."""
        return len(self.store)

    def __repr__(self) -> str:
        return f"SpeechIndex({len(self)} entries, {self.model.dimension} wide, in {_place(self.store)})"

    @property
    def vectors(self) -> np.ndarray:
        """All vectors: float32 (n, dimension), in the order in which they came."""
        return self.store.vectors()

    @property
    def entries(self) -> list[Entry]:
        """What the vectors stand for, row by row."""
        return self.store.entries()

    @classmethod
    def build(
        cls,
        model: CLASP,
        items: Recordings,
        *,
        texts: Sequence[str | None] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        ids: Sequence[str] | None = None,
        folder: str | Path | None = None,
        backend: str = "auto",
        cut: bool | Cutting | None = None,
        sampling_rate: int = 16_000,
        batch_size: int = 16,
        on_error: OnError = "raise",
        show_progress_bar: bool | None = None,
    ) -> SpeechIndex:
        """Encode recordings and keep their vectors.

        Args:
            items: a list as for `CLASP.encode_speech`; a folder, whose recordings are taken, or what its `metadata.csv`
                names; or a `datasets.Dataset` with a column `audio`. See `clasp_lib.index.recordings.recordings_of`.
            texts: what is said in each, shown with the hits; never searched.
            metadata: for each item a mapping of names to strings, numbers and truth values, for `where`.
            ids: a name for each item, to remove or replace it by; default its path, or a digest of its samples.
            folder: where the index lives, saved every 256 recordings: a stopped run goes on when it is started again,
                and only what is new or has changed is encoded. None keeps it in memory. A path that ends in ".db" is a
                Milvus Lite database, and "http://host:19530[/database][/collection]" a Milvus cluster, user and
                password in the URL or in the environment variable MILVUS_TOKEN.
            backend: how the nearest vectors are found, one of `clasp_lib.index.local.BACKENDS`; of a new index.
            cut: index the windows of each recording (True, or how to cut), so that a hit is a moment of a long one.
            sampling_rate: of arrays, in Hz.
            on_error: "skip" leaves bad recordings out and lists them in `index.skipped`.

        Raises:
            ClaspError: lists of different lengths, no recordings, or a bad one with `on_error="raise"`.
            DatasetError: the folder holds something else, an index of another model, or another process writes to it.
        """
        recordings = recordings_of(items, texts=texts, metadata=metadata, ids=ids)
        if not len(recordings):
            raise ClaspError("nothing to index: no recordings were given.")
        index = cls(model, _store_for(folder, model, backend))
        how = (cut, sampling_rate, batch_size, on_error, show_progress_bar)
        done = index._add(recordings, *how)
        if not len(index):
            raise ClaspError(
                f"nothing to index: {len(recordings)} recordings given, {len(done.skipped)} skipped. "
                f"The first: {done.skipped[0].reason}"
            )
        return index

    @classmethod
    def load(cls, folder: str | Path, model: CLASP, *, verify: bool = True) -> SpeechIndex:
        """Open a saved index with the model that built it. What is added to it later is saved in the same folder.

        Args:
            folder: or the address of a Milvus database.
            verify: compare every file with its checksum, which reads all of it once.

        Raises:
            DatasetError: missing or damaged, or built with another model.
        """
        store: Store = MilvusStore.open(str(folder)) if is_milvus(folder) else LocalStore.open(folder, verify=verify)
        _check_model(store, model, folder)
        return cls(model, store)

    def add(
        self,
        items: Recordings,
        *,
        texts: Sequence[str | None] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        ids: Sequence[str] | None = None,
        cut: bool | Cutting | None = None,
        sampling_rate: int = 16_000,
        batch_size: int = 16,
        on_error: OnError = "raise",
        show_progress_bar: bool | None = None,
    ) -> Added:
        """Encode further recordings; one whose id is there already is replaced if it has changed, and else left alone.

        Arguments and errors are those of `build`.
        """
        recordings = recordings_of(items, texts=texts, metadata=metadata, ids=ids)
        return self._add(recordings, cut, sampling_rate, batch_size, on_error, show_progress_bar)

    def remove(self, recordings: str | Path | Collection[str | Path]) -> int:
        """Forget recordings, named by their ids or files; returns how many of them were there."""
        names = {recordings} if isinstance(recordings, str | Path) else set(recordings)
        return self.store.remove({str(name) for name in names} | {str(Path(name).absolute()) for name in names})

    def search(self, query: str | AudioItem, k: int = 5, where: Where | None = None) -> Hits:
        """The `k` clips nearest to a query. A `str` is a text; a `Path`, array or mapping is a recording.

        Args:
            where: conditions that a hit must fulfil, as `clasp_lib.index.filters` has them: {"category": "news"}. A
                name that no recording has is an error on this machine; a Milvus database finds nothing.

        Raises:
            ClaspError: `k` is below 1, the query is empty, or the filter makes no sense.
        """
        if not isinstance(query, str):
            return self.search_vectors(self.model.encode_speech([query]), k, where)[0]
        return self.search_vectors(self.model.encode_text([query]), k, where)[0]

    def search_vectors(self, vectors: np.ndarray, k: int = 5, where: Where | None = None) -> list[Hits]:
        """The same for many queries that are encoded already: float32 (q, dimension) of unit length.

        Raises:
            ClaspError: vectors of another width, or as for `search`.
        """
        if not isinstance(k, int) or isinstance(k, bool) or k < 1:
            raise ClaspError(f"k is {k!r}; give a whole number of at least 1.")
        queries = checked_matrix(vectors, self.model.dimension, "vectors")
        where = check_where(where) if where else None
        return [Hits(self._hit(*pair) for pair in found) for found in self.store.search(queries, k, where)]

    def save(self, folder: str | Path) -> None:
        """Write a copy of the index as it is now, whole or not at all; an older index there is replaced.

        Raises:
            DatasetError: the folder exists and is not an index, another process writes to it, or it cannot be written.
        """
        folder = Path(folder)
        if isinstance(self.store, LocalStore) and self.store.folder is not None and _same(self.store.folder, folder):
            return  # it is saved whenever it changes
        about = self.store.about
        backend = self.store.backend if isinstance(self.store, LocalStore) else "auto"
        LocalStore.write(folder, about, backend, self.entries, self.vectors)

    def nearest(self) -> Nearest | None:
        """What finds the nearest vectors of an index on this machine; tells how well, if it is approximate."""
        return self.store.nearest() if isinstance(self.store, LocalStore) else None

    def close(self) -> None:
        """Let go of files and connections."""
        self.store.close()

    def _hit(self, score: float, entry: Entry) -> Hit:
        read = self._audio.get(entry.id)
        return Hit(score, entry.file, entry.start_s, entry.end_s, entry.text, entry.metadata, read)

    def _add(
        self,
        recordings: Sequence[Recording],
        cut: bool | Cutting | None,
        sampling_rate: int,
        batch_size: int,
        on_error: OnError,
        show_progress_bar: bool | None,
    ) -> Added:
        check_on_error(on_error)
        check_batch_size(batch_size)
        if not isinstance(cut, bool | Cutting | None):
            raise ClaspError(f"cut is {cut!r}; give True, or how to cut: Cutting(...).")
        cutting = Cutting() if cut is True else cut or None
        show = len(recordings) > 2 * batch_size if show_progress_bar is None else show_progress_bar
        added, unchanged, skipped = 0, 0, list[Skipped]()
        encode = _Encoder(self.model, cutting, sampling_rate, batch_size)
        with contextlib.ExitStack() as stack:
            if isinstance(self.store, LocalStore):
                stack.enter_context(self.store.writing())
            known = self.store.known()
            bar = stack.enter_context(tqdm(total=len(recordings), desc="indexing", unit="clip", disable=not show))
            for chunk in iterate(recordings, _CHUNK):
                new: list[tuple[Recording, str]] = []
                failed: dict[str, str] = {}
                for recording in chunk:
                    if not recording.is_file:
                        self._audio[recording.id] = recording.read
                    try:
                        digest = recording.digest(encode.settings)
                    except ClaspError as error:
                        if on_error == "raise":
                            raise
                        failed[recording.id] = str(error)
                        continue
                    if known.get(recording.id) == digest:
                        unchanged += 1
                    else:
                        new.append((recording, digest))
                found = encode(new, failed if on_error == "skip" else None)
                if found:
                    self.store.add([entry for entry, _ in found], np.stack([vector for _, vector in found]))
                added += len({entry.id for entry, _ in found})
                skipped += [Skipped(each.file, failed[each.id]) for each in chunk if each.id in failed]
                bar.update(len(chunk))
        self.skipped += skipped
        return Added(added, unchanged, skipped)


class _Encoder:
    """Recordings to entries and vectors."""

    def __init__(self, model: CLASP, cutting: Cutting | None, sampling_rate: int, batch_size: int) -> None:
        self.model, self.cutting, self.rate, self.batch_size = model, cutting, sampling_rate, batch_size
        self.settings = "" if cutting is None else repr(cutting)

    def __call__(
        self, recordings: Sequence[tuple[Recording, str]], failed: dict[str, str] | None
    ) -> list[tuple[Entry, np.ndarray]]:
        """Encode a chunk, of recordings with their digests; if one fails and may be left out, each is tried alone.

        Args:
            failed: takes the reasons by id; None lets the first error through.
        """
        if not recordings:
            return []
        if self.cutting is None:
            try:
                return self._whole(recordings)
            except ClaspError:
                if failed is None:
                    raise
        found = []
        for recording in recordings:
            try:
                found += self._whole([recording]) if self.cutting is None else self._windows(*recording)
            except ClaspError as error:
                if failed is None:
                    raise
                failed[recording[0].id] = str(error)
        return found

    def _whole(self, recordings: Sequence[tuple[Recording, str]]) -> list[tuple[Entry, np.ndarray]]:
        items = [recording.read() for recording, _ in recordings]
        vectors = self.model.encode_speech(items, self.rate, self.batch_size, show_progress_bar=False)
        return [
            (_entry(recording, digest, 0.0, self._seconds(item)), vector)
            for (recording, digest), item, vector in zip(recordings, items, vectors, strict=True)
        ]

    def _windows(self, recording: Recording, digest: str) -> list[tuple[Entry, np.ndarray]]:
        options = {"sampling_rate": self.rate, "cutting": self.cutting, "batch_size": self.batch_size}
        cut = encode_recording(self.model, recording.read(), **options, show_progress_bar=False)  # type: ignore[arg-type]
        places = zip(cut.start_s.tolist(), cut.end_s.tolist(), strict=True)
        return [(_entry(recording, digest, *place), v) for place, v in zip(places, cut.vectors, strict=True)]

    def _seconds(self, item: AudioItem) -> float:
        return len(item) / self.rate if isinstance(item, np.ndarray) else duration(item)


def stored_model(folder: str | Path) -> ModelName:
    """Which model built the index in a folder, or at the address of a Milvus database.

    Raises:
        DatasetError: there is no index, or it is of another version.
    """
    if not is_milvus(folder):
        return model_of(read_manifest(Path(folder)), folder)
    store = MilvusStore.open(str(folder))
    try:
        return model_of(store.about, folder)
    finally:
        store.close()


def _store_for(folder: str | Path | None, model: CLASP, backend: str) -> Store:
    """The store at a place, with the entries that are there already; or a new one."""
    about = about_model(model.name, model.fingerprint, model.dimension)
    if folder is not None and is_milvus(folder):
        store: Store = MilvusStore.open_or_create(str(folder), about)
    elif folder is not None and os.path.isfile(Path(folder) / MANIFEST):
        store = LocalStore.open(folder)
        if backend not in ("auto", store.backend):
            raise DatasetError(f"{folder}: was built for the backend {store.backend!r}, not {backend!r}.")
    else:
        return LocalStore.create(folder, about, backend)
    _check_model(store, model, folder)
    return store


def _check_model(store: Store, model: CLASP, place: object) -> None:
    built_by = model_of(store.about, place)
    if built_by.fingerprint != model.fingerprint:
        name = f" ({built_by.name!r})" if built_by.name else ""
        raise DatasetError(
            f"{place}: was built with another model{name}. Load that model, or build the index again in another place."
        )


def _entry(recording: Recording, digest: str, start_s: float, end_s: float) -> Entry:
    return Entry(recording.id, recording.file, start_s, end_s, recording.text, recording.metadata, digest)


def _same(a: Path, b: Path) -> bool:
    return a.resolve() == b.resolve()


def _place(store: Store) -> str:
    if isinstance(store, LocalStore):
        return "memory" if store.folder is None else str(store.folder)
    return str(getattr(store, "_address", "a database"))
