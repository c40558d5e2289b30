"""Windows of a recording, each as soon as it is known: runs of pieces of speech, or stretches of a fixed length.

Not all runs are windows: who pauses inside a sentence pauses longer at its end. On joined recordings of four minutes
made of the validation split of Pocket Brown, the rule of `PAUSE_RATIO` leaves out 39% of the runs, and the share of
sentences that are found first rises from 0.61 to 0.63.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from clasp_lib.localization.cutting import BLOCK_S, Cutting, Piece, Pieces, Window

PAUSE_RATIO = 2.0
"""A window holds no pause that is more than so many times as long as the shorter of the two around it."""

PAUSE_S = 0.5
"""But a pause of so many seconds may end any window."""

_SILENT = 1e-4  # range of samples below which a window holds no speech worth encoding


def cut(chunks: Iterable[np.ndarray], rate: int, cutting: Cutting) -> Iterator[list[Window]]:
    """Windows of a recording that comes in chunks of `(samples,)` of any length, after each block of ten seconds.

    In the order of their ends, and of equal ends, of their starts. Only what a later window may need is kept. How the
    recording is divided into chunks makes no difference.
    """
    finder = None if cutting.silence_s is None else Pieces(rate, cutting.silence_s)
    maker = _Maker(rate, cutting)
    for block, last in _blocks(chunks, round(BLOCK_S * rate)):
        maker.hear(block)
        pieces = [Piece(0, maker.end, closed=last)] if finder is None else finder.add(block, last)
        found = [window for piece in pieces for window in maker.windows(piece)]
        open_from = 0 if finder is None else finder.open_from
        yield found + list(maker.settle(open_from, last))
        maker.forget(open_from)


def _blocks(chunks: Iterable[np.ndarray], size: int) -> Iterator[tuple[np.ndarray, bool]]:
    """The same samples in blocks of `size`, and whether it is the last one, which may be shorter."""
    held: list[np.ndarray] = []
    length = 0
    for chunk in chunks:
        held.append(chunk)
        length += len(chunk)
        if length <= size:
            continue
        joined = np.concatenate(held)
        while len(joined) > size:
            yield joined[:size], False
            joined = joined[size:]
        held, length = [joined.copy()], len(joined)
    if length:
        yield np.concatenate(held), True


class _Maker:
    """Keeps the end of the recording and makes windows of it."""

    def __init__(self, rate: int, cutting: Cutting) -> None:
        self._shortest, self._longest, self._window, self._hop = (
            round(seconds * rate)
            for seconds in (cutting.shortest_s, cutting.longest_s, cutting.window_s, cutting.hop_s)
        )
        if cutting.silence_s is None:
            self._longest = self._window
        self._pause = round(PAUSE_S * rate)
        self._held, self._from = np.zeros(0, np.float32), 0
        self._chain: list[tuple[Piece, float]] = []  # consecutive pieces, and the pause before each
        self._settled = True  # whether the windows that end with the last piece of the chain are made
        self._end: int | None = None  # of the last piece
        self._next: int | None = None  # where the next window of a long piece begins
        self.end = 0

    def hear(self, block: np.ndarray) -> None:
        self._held = np.concatenate([self._held, block])
        self.end += len(block)

    def windows(self, piece: Piece) -> Iterator[Window]:
        """What can be made now that this piece is known, or more of it than before."""
        pause = np.inf if self._end is None else piece.start - self._end
        yield from self._runs(pause)
        if self._next is None and piece.end - piece.start <= self._longest:
            if piece.closed:
                self._chain = [kept for kept in self._chain if piece.end - kept[0].start <= self._longest]
                self._chain.append((piece, pause))
                self._settled = False
        else:
            self._chain = []
            yield from self._stretches(piece)
        if piece.closed:
            self._end = piece.end

    def settle(self, open_from: int, last: bool) -> Iterator[Window]:
        """Windows whose pause afterwards is long enough whatever follows: no piece begins before `open_from`."""
        if not self._settled and (last or open_from - self._chain[-1][0].end >= self._pause):
            yield from self._runs(np.inf)

    def forget(self, open_from: int) -> None:
        """Samples before all windows to come; `open_from` is where the next piece begins, at the earliest."""
        needed = [open_from if self._next is None else self._next - self._window]
        needed += [
            piece.start for piece, _ in self._chain if not self._settled or open_from - piece.start <= self._longest
        ]
        first = max(self._from, min(needed))
        self._held, self._from = self._held[first - self._from :].copy(), first

    def _runs(self, after: float) -> Iterator[Window]:
        """All runs that end with the last piece, unless a pause inside is much longer than those around."""
        if self._settled:
            return
        self._settled = True
        inside = [max((pause for _, pause in self._chain[i + 1 :]), default=0) for i in range(len(self._chain))]
        for (first, before), longest in zip(self._chain, inside, strict=True):
            if min(before, after) >= min(longest / PAUSE_RATIO, self._pause):
                yield from self._made(first.start, self._chain[-1][0].end)

    def _stretches(self, piece: Piece) -> Iterator[Window]:
        """Of a piece that is too long for one window."""
        start = piece.start if self._next is None else self._next
        while start + self._window <= piece.end:
            yield from self._made(start, start + self._window)
            start += self._hop
        self._next = None if piece.closed else start
        if piece.closed and (start == piece.start or start - self._hop + self._window < piece.end):
            yield from self._made(max(piece.start, piece.end - self._window), piece.end)

    def _made(self, start: int, end: int) -> Iterator[Window]:
        samples = self._held[start - self._from : end - self._from]
        if end - start >= self._shortest and np.ptp(samples) >= _SILENT:
            yield Window(start, end, samples)
