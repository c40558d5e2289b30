"""What a stranger may ask of the demo, and the door that counts how many ask at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from threading import BoundedSemaphore

from clasp_lib.demo.texts import say
from clasp_lib.errors import ClaspError


@dataclass(frozen=True)
class Limits:
    """What one visitor, and all of them together, may use. All are checked on the server.

    Attributes:
        upload_mb: size of one uploaded file. recording_minutes: length of a recording in which a moment is looked for.
        spoken_query_seconds: length of a spoken query. query_characters: length of a written one.
        hits: most answers to one query. jobs: queries and recordings worked on at once. queue: how many may wait.
        recordings: how many visitors' recordings are kept at once; the one not used for longest goes first.
        keep_minutes: how long a recording is kept after its last query, if its page stays open.

    Raises:
        ClaspError: a limit that is not above zero.
    """

    upload_mb: float = 200
    recording_minutes: float = 30
    spoken_query_seconds: float = 20
    query_characters: int = 300
    hits: int = 20
    jobs: int = 2
    queue: int = 16
    recordings: int = 16
    keep_minutes: float = 60

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "queue" else 1e-6
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < float("inf"):
                raise ClaspError(f"{field.name} is {value!r}; give a number above zero.")
            if field.type == "int" and not isinstance(value, int):
                raise ClaspError(f"{field.name} is {value!r}; give a whole number.")

    @property
    def upload_bytes(self) -> int:
        """Size of one uploaded file, in bytes."""
        return round(self.upload_mb * 1e6)

    def check_query(self, text: str) -> None:
        """Raises Refused: the query is too long."""
        if len(text) > self.query_characters:
            raise Refused("query_too_long", most=self.query_characters)

    def check_size(self, size: int) -> None:
        """Raises Refused: a file of `size` bytes is too large."""
        if size > self.upload_bytes:
            raise Refused("too_large", most=f"{self.upload_mb:g}")


class Refused(ClaspError):
    """Something that the demo does not do; `key` is its text in `texts.TEXTS`."""

    def __init__(self, key: str, **values: object) -> None:
        super().__init__(say("en", key, **values))
        self.key, self.values = key, values

    def text(self, language: str) -> str:
        """The message in the interface's language."""
        return say(language, self.key, **self.values)


class Door:
    """Lets `jobs` work at once and `waiting` more wait for them; whoever comes then is sent away."""

    def __init__(self, jobs: int, waiting: int) -> None:
        self._places, self._working = BoundedSemaphore(jobs + waiting), BoundedSemaphore(jobs)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Raises Refused: no place is left."""
        if not self._places.acquire(blocking=False):
            raise Refused("busy")
        try:
            with self._working:
                yield
        finally:
            self._places.release()
