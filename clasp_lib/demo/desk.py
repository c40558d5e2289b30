"""What the demo does when somebody asks, without the page around it: every limit is checked here."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from clasp_lib.audio import duration
from clasp_lib.demo.limits import Door, Limits, Refused
from clasp_lib.demo.recordings import Recording, Visitors, take_recording
from clasp_lib.errors import AudioError, brief

if TYPE_CHECKING:
    from clasp_lib.index import Hits, SpeechIndex
    from clasp_lib.model import CLASP

MOST_CHOICES = 60
MOST_ENTRIES = 200_000
FIRST_COLUMNS = ("category", "speaker", "language", "voice")


class Desk:
    """Answers the visitors of one page.

    Args:
        model: encodes recordings and queries. index: the collection, if there is one.
        limits: what a visitor may ask.
        uploads: the folder in which uploaded files arrive, and no other is read.
    """

    def __init__(self, model: CLASP, index: SpeechIndex | None, limits: Limits, uploads: Path) -> None:
        self.model, self.index, self.limits, self.uploads = model, index, limits, uploads
        self.visitors = Visitors(limits)
        self._door = Door(limits.jobs, limits.queue)
        self._turns: dict[str, Lock] = {}

    def search(self, query: str, k: float, chosen: Mapping[str, Sequence[str]]) -> Hits:
        """The recordings of the collection nearest to a text.

        Args:
            chosen: values by column, as `filters` names them; a column without values does not count.

        Raises:
            Refused: the query is empty or too long, or too many people ask.
        """
        return self._search(self._checked(query), k, chosen)

    def search_by_speech(self, upload: str, k: float, chosen: Mapping[str, Sequence[str]]) -> Hits:
        """The recordings of the collection nearest to a spoken query, which is deleted then.

        Raises:
            Refused: too large, too long, not an upload, or too many people ask.
            AudioError: it cannot be read.
        """
        file = self._uploaded(upload)
        try:
            if duration(file) > self.limits.spoken_query_seconds:
                raise Refused("spoken_too_long", most=self.limits.spoken_query_seconds)
            return self._search(file, k, chosen)
        except AudioError as error:
            raise _unreadable(error, file) from error
        finally:
            file.unlink(missing_ok=True)

    def _search(self, query: str | Path, k: float, chosen: Mapping[str, Sequence[str]]) -> Hits:
        assert self.index is not None
        where = {column: list(values) for column, values in chosen.items() if values}
        with self._door.entered():
            return self.index.search(query, self._hits(k), where=where or None)

    def take(self, visitor: str, upload: str, name: str) -> Recording:
        """Make an upload the visitor's recording: encoded once, for as many queries as are asked. It is deleted then.

        Raises:
            Refused: too large, too long, not readable, not an upload, or too many people ask.
        """
        file = self._uploaded(upload)
        try:
            with self._door.entered(), self._turn(visitor):
                recording = take_recording(self.model, file, Path(name).name[:200], self.uploads, self.limits)
                self.visitors.put(visitor, recording)
        except AudioError as error:
            raise _unreadable(error, file) from error
        finally:
            file.unlink(missing_ok=True)
        return recording

    def find(self, visitor: str, query: str, k: float) -> Recording:
        """The visitor's recording with the moments nearest to a text.

        Raises:
            Refused: there is no recording, the query is empty or too long, or too many people ask.
        """
        with self._turn(visitor):  # who asks while the recording is still being encoded waits for it
            recording = self.visitors.get(visitor)
        if recording is None:
            raise Refused("no_recording")
        text = self._checked(query)
        with self._door.entered():
            recording.moments = recording.windows.locate(text, self._hits(k))
        return recording

    def leave(self, visitor: str) -> None:
        """The page was closed: delete what the visitor brought, after what is being done for them."""
        with self._turn(visitor):
            self.visitors.forget(visitor)
        self._turns.pop(visitor, None)

    def filters(self) -> dict[str, list[str]]:
        """Columns by which the collection can be narrowed down, and their values: texts, two to sixty of them.

        A collection of more than 200 000 entries, which may be a database elsewhere, is not read for this.
        """
        if self.index is None or len(self.index) > MOST_ENTRIES:
            return {}
        values: dict[str, set[str]] = {}
        for entry in self.index.entries:
            for column, value in entry.metadata.items():
                values.setdefault(column, set()).add(value if isinstance(value, str) else "")
        kept = {c: sorted(v) for c, v in values.items() if "" not in v and 2 <= len(v) <= MOST_CHOICES}
        first = [column for column in FIRST_COLUMNS if column in kept]
        return {column: kept[column] for column in [*first, *sorted(kept.keys() - set(first))]}

    def _turn(self, visitor: str) -> Lock:
        return self._turns.setdefault(visitor, Lock())

    def _checked(self, query: str) -> str:
        if not isinstance(query, str) or not query.strip():
            raise Refused("no_query")
        self.limits.check_query(query)
        return query.strip()

    def _hits(self, k: float) -> int:
        if isinstance(k, bool) or not isinstance(k, int | float) or not math.isfinite(k):  # by no slider of the page
            raise Refused("failed", why=f"the number of answers is {brief(k)}; give a number.")
        return max(1, min(int(k), self.limits.hits))

    def _uploaded(self, upload: str) -> Path:
        """The uploaded file. What a browser says is not believed: only files that arrived here are read."""
        file = Path(os.path.realpath(upload))
        if not file.is_relative_to(os.path.realpath(self.uploads)) or not file.is_file():
            raise Refused("not_uploaded")
        self.limits.check_size(file.stat().st_size)
        return file


def _unreadable(error: AudioError, file: Path) -> Refused:
    """The library's message, without the place where the server keeps the file."""
    return Refused("unreadable", why=str(error).removeprefix(f"{file}: ").replace(str(file), file.name))
