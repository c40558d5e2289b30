"""Search over a collection of recordings."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from clasp_lib.audio import AudioItem, duration
from clasp_lib.errors import ClaspError, DatasetError
from clasp_lib.folders import written_whole
from clasp_lib.model import CLASP
from clasp_lib.players import Player
from clasp_lib.speech_brown import Skipped

_FORMAT = 1
_CHUNK = 256


@dataclass(frozen=True)
class Hit:
    """One answer of a search.

    Attributes:
        score: cosine of query and clip. file: where the clip is. start_s, end_s: the part of the file, in seconds.
        text: what is said, where that is known. metadata: whatever was stored with the clip.
    """

    score: float
    file: str
    start_s: float
    end_s: float
    text: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    audio: AudioItem | None = field(default=None, repr=False, compare=False)

    def _repr_html_(self) -> str:
        text = escape(self.text or self.file)
        player = ""
        if self.audio is not None or os.path.isfile(self.file):
            source = self.file if self.audio is None else self.audio
            player = Player(source, self.text or self.file, self.start_s, self.end_s).html
        return (
            f'<div class="clasp-hit">{player}<span class="clasp-score">{self.score:.2f}</span> '
            f'<span class="clasp-text">{text}</span></div>'
        )


class Hits(list[Hit]):
    """A list of hits, best first, that Jupyter shows as players."""

    def _repr_html_(self) -> str:
        return "".join(hit._repr_html_() for hit in self)


class SpeechIndex:
    """Vectors of a collection and what they stand for; exact search by cosine.

        index = SpeechIndex.build(model, ["one.flac", "two.mp3"])
        index.search("a query", k=5)

    Make one with `build` or `load`.
    """

    def __init__(self, model: CLASP, vectors: np.ndarray, entries: list[dict[str, Any]]) -> None:
        self.model, self.vectors, self.entries = model, vectors, entries
        self.skipped: list[Skipped] = []
        self._audio: dict[int, AudioItem] = {}

    def __len__(self) -> int:
        return len(self.entries)

    @classmethod
    def build(
        cls,
        model: CLASP,
        items: Sequence[AudioItem],
        *,
        texts: Sequence[str] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        batch_size: int = 16,
        on_error: Literal["raise", "skip"] = "raise",
        show_progress_bar: bool | None = None,
    ) -> SpeechIndex:
        """Encode recordings and keep their vectors.

        Args:
            items: as for `CLASP.encode_speech`. What is not a path is kept in memory to be played, and not saved.
            texts: what is said in each, shown with the hits; never searched.
            metadata: anything JSON can hold, a mapping for each item.
            on_error: "skip" leaves bad recordings out and lists them in `index.skipped`.

        Raises:
            ClaspError: lists of different lengths, no recordings, or a bad one with `on_error="raise"`.
        """
        for name, column in (("texts", texts), ("metadata", metadata)):
            if column is not None and len(column) != len(items):
                raise ClaspError(f"{name}: has {len(column)} entries for {len(items)} recordings.")
        vectors: list[np.ndarray] = []
        entries: list[dict[str, Any]] = []
        audio: dict[int, AudioItem] = {}
        skipped: list[Skipped] = []
        show = len(items) > 2 * batch_size if show_progress_bar is None else show_progress_bar
        with tqdm(total=len(items), desc="indexing", unit="clip", disable=not show) as bar:
            for start in range(0, len(items), _CHUNK):
                rows = range(start, min(start + _CHUNK, len(items)))
                for i, vector in _encode(model, items, rows, batch_size, on_error, skipped):
                    item = items[i]
                    if isinstance(item, str | Path):
                        file = str(Path(item).absolute())
                    else:
                        audio[len(entries)] = item
                        file = str(item.get("path") or f"item {i}") if isinstance(item, Mapping) else f"item {i}"
                    entry = {"file": file, "start_s": 0.0, "end_s": _seconds(item)}
                    entry["text"] = None if texts is None else texts[i]
                    entry["metadata"] = {} if metadata is None else dict(metadata[i])
                    entries.append(entry)
                    vectors.append(vector)
                bar.update(len(rows))
        if not entries:
            raise ClaspError(f"nothing to index: {len(items)} recordings given, {len(skipped)} skipped.")
        index = cls(model, np.stack(vectors), entries)
        index.skipped, index._audio = skipped, audio
        return index

    def search(self, query: str | AudioItem, k: int = 5) -> Hits:
        """The `k` clips nearest to a query. A `str` is a text; a `Path`, array or mapping is a recording.

        Raises:
            ClaspError: `k` is below 1, or the query is empty.
        """
        if not isinstance(query, str):
            return self._nearest(self.model.encode_speech([query])[0], k)
        return self._nearest(self.model.encode_text([query])[0], k)

    def save(self, folder: str | Path) -> None:
        """Write the index, whole or not at all; an older index there is replaced.

        Raises:
            DatasetError: the folder exists and is not an index, or the metadata cannot be written as JSON.
        """
        from safetensors.numpy import save_file

        about = {"format": _FORMAT, "model": self.model.fingerprint, "entries": self.entries}
        try:
            text = json.dumps(about)
        except (TypeError, ValueError) as error:
            raise DatasetError(f"metadata: holds what JSON cannot ({error}). Give strings and numbers.") from error
        with written_whole(folder, "index.json") as unfinished:
            save_file({"vectors": self.vectors}, unfinished / "vectors.safetensors")
            (unfinished / "index.json").write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, model: CLASP) -> SpeechIndex:
        """Open a saved index with the model that built it.

        Raises:
            DatasetError: missing or damaged, or built with another model.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        folder = Path(folder)
        try:
            about = json.loads((folder / "index.json").read_text("utf-8"))
            vectors = load_file(folder / "vectors.safetensors")["vectors"]
            entries, fingerprint, version = about["entries"], about["model"], about["format"]
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise DatasetError(f"{folder}: is not an index that can be opened ({error}). Build it again.") from error
        if version != _FORMAT:
            raise DatasetError(f"{folder}: has format {version}; this version reads {_FORMAT}. Build it again.")
        if fingerprint != model.fingerprint:
            raise DatasetError(f"{folder}: was built with another model. Load that model, or build the index again.")
        if not isinstance(entries, list) or len(entries) != len(vectors) or vectors.shape[1:] != (model.dimension,):
            raise DatasetError(f"{folder}: its entries and vectors of shape {vectors.shape} do not fit.")
        return cls(model, vectors, entries)

    def _nearest(self, vector: np.ndarray, k: int) -> Hits:
        if not isinstance(k, int) or k < 1:
            raise ClaspError(f"k is {k!r}; give a whole number of at least 1.")
        scores = self.vectors @ vector  # (clips,)
        k = min(k, len(scores))
        best = np.argpartition(-scores, k - 1)[:k]
        best = best[np.lexsort((best, -scores[best]))]
        return Hits(Hit(float(scores[i]), audio=self._audio.get(int(i)), **self.entries[i]) for i in best)


def _encode(
    model: CLASP, items: Sequence[AudioItem], rows: range, batch_size: int, on_error: str, skipped: list[Skipped]
) -> list[tuple[int, np.ndarray]]:
    """Vectors of the given rows; if one of them fails and may be skipped, each is tried alone."""
    try:
        vectors = model.encode_speech([items[i] for i in rows], batch_size=batch_size, show_progress_bar=False)
        return list(zip(rows, vectors, strict=True))
    except ClaspError:
        if on_error == "raise":
            raise
    out = []
    for i in rows:
        try:
            out.append((i, model.encode_speech([items[i]])[0]))
        except ClaspError as error:
            skipped.append(Skipped(str(items[i]) if isinstance(items[i], str | Path) else f"item {i}", str(error)))
    return out


def _seconds(item: AudioItem) -> float:
    if isinstance(item, np.ndarray):
        return len(item) / 16_000
    return duration(item)
