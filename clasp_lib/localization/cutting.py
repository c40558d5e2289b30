"""Cut a recording where nobody speaks, while it comes in: pieces of speech, and windows made of them.

The threshold between speech and silence follows the recording. It is set anew for each block of ten seconds on a grid
that begins with the recording, so that what is found does not depend on how the sound arrives.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from clasp_lib.errors import ClaspError

FRAME_S = 0.02
"""One energy is taken for each stretch of this length."""

BLOCK_S = 10.0
"""How much is looked at to set a threshold; so long a moment may wait until it is known."""

INAUDIBLE = -80.0
"""dB of full scale (root mean square): what is at most as loud is digital silence."""

_RANGE = 35.0  # dB below the speech, at most, that still counts as speech
_SHARE = 0.3  # of the way from the noise floor up to the speech
_CONTRAST = 6.0  # dB between floor and speech, below which the two cannot be told apart
_FADE = 3.0  # dB a block by which an earlier, louder speech or lower floor is forgotten
_MARGIN = 2  # frames kept on both sides of a piece, for soft consonants
_CLICK = 3  # frames: a sound as short as this is no speech


@dataclass(frozen=True)
class Cutting:
    """How recordings are cut into windows. All in seconds.

    Attributes:
        silence_s: a pause that parts two pieces of speech. None: silences are passed over, windows are as they fall.
        shortest_s, longest_s: of a window, which is a run of consecutive pieces with the pauses between them.
        window_s, hop_s: length and distance of the windows that a piece longer than `longest_s`, or a recording without
            silences, is cut into.

    Raises:
        ClaspError: lengths that make no sense.
    """

    silence_s: float | None = 0.14
    shortest_s: float = 0.3
    longest_s: float = 10.0
    window_s: float = 5.0
    hop_s: float = 1.0

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if name == "silence_s" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ClaspError(f"{name} is {value!r}; give a number of seconds.")
        if self.silence_s is not None and not 0.1 <= self.silence_s <= 10:
            raise ClaspError(f"silence_s is {self.silence_s}; give 0.1 to 10 seconds, or None not to cut at silences.")
        if not 0.1 <= self.shortest_s <= self.longest_s <= 60:
            raise ClaspError(
                f"shortest_s {self.shortest_s} and longest_s {self.longest_s}: "
                "expected 0.1 <= shortest_s <= longest_s <= 60."
            )
        if not 0.1 <= self.hop_s <= self.window_s <= 60:
            raise ClaspError(
                f"window_s {self.window_s} and hop_s {self.hop_s}: expected 0.1 <= hop_s <= window_s <= 60."
            )
        if self.window_s < self.shortest_s:
            raise ClaspError(
                f"shortest_s {self.shortest_s} and window_s {self.window_s}: expected shortest_s <= window_s, or no "
                "window of a long piece would be long enough."
            )


class Piece(NamedTuple):
    """Speech between two silences, in samples; `closed` is False for what has no end yet."""

    start: int
    end: int
    closed: bool = True


class Window(NamedTuple):
    """A stretch of a recording, in samples from its start, and how it sounds: float32 `(end - start,)`."""

    start: int
    end: int
    samples: np.ndarray


def frame_levels(samples: np.ndarray, frame: int) -> np.ndarray:
    """Loudness of each whole or last broken frame of `(samples,)` in dB of full scale, not below `INAUDIBLE`."""
    energy = np.add.reduceat(np.square(samples, dtype=np.float64), np.arange(0, len(samples), frame))  # (frames,)
    lengths = np.diff(np.append(np.arange(0, len(samples), frame), len(samples)))
    return 10 * np.log10(np.maximum(energy / lengths, 10 ** (INAUDIBLE / 10)))


def threshold(floor: float, speech: float) -> float:
    """Loudness in dB that parts silence from speech.

    At least 35 dB below the speech, and 30% of the way from the floor up to it. Where the two are nearly the same,
    which is so in steady noise and in digital silence, nothing can be told apart: all that is audible counts as speech.
    """
    if speech - floor < _CONTRAST:
        return INAUDIBLE
    return max(speech - _RANGE, floor + _SHARE * (speech - floor))


class Pieces:
    """Finds pieces of speech block by block."""

    def __init__(self, rate: int, silence_s: float) -> None:
        self.frame = round(FRAME_S * rate)
        self._silence = max(2 * _MARGIN + 1, round(silence_s / FRAME_S))  # frames
        self._before = np.zeros(0)  # levels of the block before
        self._floor, self._speech = math.inf, -math.inf
        self._frames = 0  # so far
        self._first: int | None = None  # frame with which the open piece begins
        self._last = 0  # frame after the last one of speech
        self.thresholds: list[float] = []

    def add(self, block: np.ndarray, last: bool) -> Iterator[Piece]:
        """Pieces that end in this block of `(samples,)`, and then the one that is open at its end, if one is."""
        levels = frame_levels(block, self.frame)  # (frames,)
        whole = round(BLOCK_S / FRAME_S)
        looked_at = np.concatenate([self._before, levels])[-whole:]  # the last block may be short
        self._before = levels
        self._floor = min(float(np.percentile(looked_at, 2)), self._floor + _FADE)
        self._speech = max(float(np.percentile(looked_at, 95)), self._speech - _FADE)
        self.thresholds.append(threshold(self._floor, self._speech))
        spoken = np.flatnonzero(levels > self.thresholds[-1]) + self._frames
        total = self._frames + len(levels)
        end = (total - 1) * self.frame + (len(block) - (len(levels) - 1) * self.frame)  # of the block, in samples
        for run in np.split(spoken, np.flatnonzero(np.diff(spoken) > self._silence) + 1) if len(spoken) else []:
            if self._first is None:
                self._first = int(run[0])
            elif run[0] - self._last >= self._silence:
                yield from self._closed(end)
                self._first = int(run[0])
            self._last = int(run[-1]) + 1
        self._frames = total
        if self._first is not None and (last or total - self._last >= self._silence):
            yield from self._closed(end)
            self._first = None
        if self._first is not None:
            yield Piece(max(0, self._first - _MARGIN) * self.frame, self._last * self.frame, closed=False)

    @property
    def open_from(self) -> int:
        """The sample with which the next piece begins, at the earliest."""
        first = self._frames if self._first is None else self._first
        return max(0, first - _MARGIN) * self.frame

    def _closed(self, limit: int) -> Iterator[Piece]:
        assert self._first is not None
        if self._last - self._first > _CLICK:
            yield Piece(max(0, self._first - _MARGIN) * self.frame, min((self._last + _MARGIN) * self.frame, limit))
