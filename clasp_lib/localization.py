"""Where in a long recording is something said? Overlapping windows, each compared with the query."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clasp_lib.audio import AudioItem, load_audio, stream_audio
from clasp_lib.errors import AudioError, ClaspError
from clasp_lib.model import CLASP

_BLOCK_SECONDS = 30.0
_SILENCE = 1e-4  # peak below which a window holds no speech worth encoding


class Moment(NamedTuple):
    """A stretch of a recording, in seconds, and its cosine with the query."""

    start_s: float
    end_s: float
    score: float


def locate(
    model: CLASP,
    recording: AudioItem,
    query: str,
    k: int = 3,
    *,
    window_s: float = 5.0,
    hop_s: float = 1.0,
    batch_size: int = 16,
) -> list[Moment]:
    """The `k` stretches of a recording of any length that are nearest to a text, best first.

    The recording is read in blocks and cut into windows of `window_s` every `hop_s` seconds; silent windows are left
    out. Of windows that overlap by more than half, only the best is kept, so there may be fewer than `k` moments.

    Raises:
        AudioError: the recording cannot be read, or is silent throughout.
        ClaspError: `k`, `window_s` or `hop_s` make no sense, or the query is empty.
    """
    if not isinstance(k, int) or k < 1:
        raise ClaspError(f"k is {k!r}; give a whole number of at least 1.")
    if not 0 < hop_s <= window_s <= 60:
        raise ClaspError(f"window_s {window_s} and hop_s {hop_s}: expected 0 < hop_s <= window_s <= 60.")
    wanted = model.encode_text([query])[0]
    rate = model.speech_encoder.sampling_rate
    starts: list[float] = []
    ends: list[float] = []
    scores: list[np.ndarray] = []
    batch: list[np.ndarray] = []
    for start, wave in _windows(recording, rate, window_s, hop_s):
        if np.abs(wave).max() < _SILENCE or np.ptp(wave) < _SILENCE:
            continue
        starts.append(start)
        ends.append(start + len(wave) / rate)
        batch.append(wave)
        if len(batch) == 8 * batch_size:
            scores.append(model.encode_speech(batch, rate, batch_size, show_progress_bar=False) @ wanted)
            batch = []
    if batch:
        scores.append(model.encode_speech(batch, rate, batch_size, show_progress_bar=False) @ wanted)
    if not scores:
        raise AudioError("the recording is silent throughout: there is nothing to find.")
    score = np.concatenate(scores)  # (windows,)
    found: list[Moment] = []
    for i in np.argsort(-score, kind="stable"):
        moment = Moment(starts[i], ends[i], float(score[i]))
        if all(_overlap(moment, other) <= 0.5 for other in found):
            found.append(moment)
        if len(found) == k:
            break
    return found


def _windows(recording: AudioItem, rate: int, window_s: float, hop_s: float) -> Iterator[tuple[float, np.ndarray]]:
    """Start in seconds and samples of each window; the last one ends where the recording ends."""
    window, hop = round(window_s * rate), round(hop_s * rate)
    if isinstance(recording, str | Path):
        blocks = stream_audio(recording, _BLOCK_SECONDS, rate)
    else:
        blocks = iter([load_audio(recording, rate, max_seconds=None)])
    held, before, start, last_end = np.zeros(0, np.float32), np.zeros(0, np.float32), 0, 0
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) >= window:
            yield start / rate, held[:window]
            last_end = start + window
            before, held, start = held[:hop], held[hop:], start + hop
    end = start + len(held)
    if end > last_end:
        rest = np.concatenate([before, held])[-window:]
        yield (end - len(rest)) / rate, rest


def _overlap(a: Moment, b: Moment) -> float:
    """Shared time over the shorter one's time."""
    shared = min(a.end_s, b.end_s) - max(a.start_s, b.start_s)
    return max(0.0, shared) / min(a.end_s - a.start_s, b.end_s - b.start_s)
