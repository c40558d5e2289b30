"""Was the moment found? Temporal IoU, and what a random window reaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clasp_lib.errors import ClaspError
from clasp_lib.localization import Moment
from clasp_lib.moments.joining import Segment

FOUND = 0.5
"""A segment counts as found by a window that has at least this IoU with it."""


class Judged(NamedTuple):
    """One query's result: 0 or 1 whether the first moment, or one of the first five, is the segment; IoU of the first.

    For chance the first two are probabilities.
    """

    recall_at_1: float
    recall_at_5: float
    mean_iou: float


def temporal_iou(
    start: np.ndarray | float, end: np.ndarray | float, other_start: np.ndarray | float, other_end: np.ndarray | float
) -> np.ndarray:
    """Shared time over the time that one of the two covers, from 0 to 1; arrays are compared entry by entry."""
    shared = np.maximum(0.0, np.minimum(end, other_end) - np.maximum(start, other_start))
    return np.asarray(shared / (np.subtract(end, start) + np.subtract(other_end, other_start) - shared))


def judge(moments: Sequence[Moment], segment: Segment) -> Judged:
    """The first five of `moments`, best first, against the segment that was asked for."""
    if not moments:
        return Judged(0.0, 0.0, 0.0)
    iou = np.array([float(temporal_iou(m.start_s, m.end_s, segment.start_s, segment.end_s)) for m in moments[:5]])
    return Judged(float(iou[0] >= FOUND), float((iou >= FOUND).any()), float(iou[0]))


def chance(segment: Segment, lengths: np.ndarray, duration_s: float, draws: int = 400, seed: int = 0) -> Judged:
    """What windows reach that lie anywhere: each as long as one of `lengths` (n,), each start as likely.

    Recall at 1 is exact. A window of length l that shares the time c with a segment of length s has the IoU
    c / (l + s - c), which is at least 1/2 where c is at least (l + s) / 3. If neither is longer than twice the other,
    its start may move by (l + s) / 3 for that, within the recording. Recall at 5 is of five windows that are drawn
    independently, 1 - (1 - p)^5, and the mean IoU is of `draws` windows.

    Raises:
        ClaspError: no lengths, or one that is not above zero and at most the recording's.
    """
    lengths = np.asarray(lengths, float)
    if lengths.size == 0 or lengths.min() <= 0 or lengths.max() > duration_s + 1e-6:
        raise ClaspError(f"lengths: give at least one, above zero and at most the recording's {duration_s} s.")
    size, room = segment.end_s - segment.start_s, np.maximum(duration_s - lengths, 0)  # room (n,) for starts
    needed = (lengths + size) / 3
    low = np.maximum(segment.start_s + needed - lengths, 0)
    high = np.minimum(segment.end_s - needed, room)
    fits = needed <= np.minimum(lengths, size) + 1e-12
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(room > 0, np.maximum(high - low, 0) / room, high >= low)
    p = float(np.where(fits, share, 0).mean())
    rng = np.random.default_rng(seed)
    drawn = rng.choice(lengths, draws)
    starts = rng.uniform(size=draws) * np.maximum(duration_s - drawn, 0)
    iou = temporal_iou(starts, starts + drawn, segment.start_s, segment.end_s)
    return Judged(p, 1 - (1 - p) ** 5, float(iou.mean()))
