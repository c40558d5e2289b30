"""Answers of a search, which Jupyter shows as players."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from clasp_lib.audio import AudioItem
from clasp_lib.errors import AudioError
from clasp_lib.players import Player


@dataclass(frozen=True)
class Hit:
    """One answer of a search.

    Attributes:
        score: cosine of query and clip. file: where the clip is. start_s, end_s: the part of the file, in seconds.
        text: what is said, where that is known. metadata: whatever was stored with the clip.
        read: gives the recording, where it is no file.
    """

    score: float
    file: str
    start_s: float
    end_s: float
    text: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    read: Callable[[], AudioItem] | None = field(default=None, repr=False, compare=False)

    @property
    def audio(self) -> AudioItem | None:
        """What can be played: the recording itself where the index has it, else its file if that is there."""
        if self.read is not None:
            return self.read()
        return self.file if os.path.isfile(self.file) else None

    def _repr_html_(self) -> str:
        known = " · ".join(f"{name} {value}" for name, value in self.metadata.items())
        about = f' <span class="clasp-known">{escape(known)}</span>' if known else ""
        return (
            f'<div class="clasp-hit">{self._player()}<span class="clasp-score">{self.score:.2f}</span> '
            f'<span class="clasp-text">{escape(self.text or self.file)}</span>{about}</div>'
        )

    def _player(self) -> str:
        try:
            audio = self.audio
            return "" if audio is None else Player(audio, self.text or self.file, self.start_s, self.end_s).html
        except AudioError as error:  # the file has changed since: the other hits are still worth showing
            return f'<span class="clasp-known">{escape(str(error))}</span>'


class Hits(list[Hit]):
    """A list of hits, best first, that Jupyter shows as players."""

    def _repr_html_(self) -> str:
        return "".join(hit._repr_html_() for hit in self) or "<p>Nothing was found.</p>"
