"""Long recordings of which everything is known: clips joined with pauses, and what is said from when to when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clasp_lib.arrays import number_array
from clasp_lib.audio import SAMPLING_RATE
from clasp_lib.errors import ClaspError, DatasetError
from clasp_lib.tables import read_csv


class Segment(NamedTuple):
    """What is said in a recording from `start_s` to `end_s`, in seconds."""

    start_s: float
    end_s: float
    text: str


class Joined(NamedTuple):
    """A recording, float32 `(samples,)` at 16 kHz, and its segments in order."""

    samples: np.ndarray
    segments: list[Segment]

    @property
    def duration_s(self) -> float:
        """Length of the recording, in seconds."""
        return len(self.samples) / SAMPLING_RATE


@dataclass(frozen=True)
class Joining:
    """How clips are joined.

    Attributes:
        gap_s: shortest and longest pause between two clips; each length between is as likely. The shortest is no
            longer than many a pause within a sentence.
        gain_db: by how much a clip may be louder or softer than it was.
        noise_db: level of the white noise under the whole recording, in dB of full scale.
    """

    gap_s: tuple[float, float] = (0.15, 1.0)
    gain_db: float = 6.0
    noise_db: float = -60.0


def join_clips(
    waves: Sequence[np.ndarray], texts: Sequence[str], seed: int = 0, joining: Joining | None = None
) -> Joined:
    """One recording of clips `(samples,)` at 16 kHz in the order given, with a pause before each and after the last.

    Raises:
        ClaspError: no clips, not as many texts, or a clip that is no row of finite samples.
    """
    if len(waves) == 0 or len(waves) != len(texts):
        raise ClaspError(
            f"there are {len(waves)} clips and {len(texts)} texts; give at least one, and a text for each."
        )
    joining = joining or Joining()
    rng = np.random.default_rng(seed)
    gaps = np.round(rng.uniform(*joining.gap_s, size=len(waves) + 1) * SAMPLING_RATE).astype(int)
    gains = 10 ** (rng.uniform(-joining.gain_db, joining.gain_db, size=len(waves)) / 20)
    parts, segments, at = [], [], 0
    for number, (wave, text, gap, gain) in enumerate(zip(waves, texts, gaps, gains)):
        wave = number_array(f"waves[{number}]", wave, "(samples,)")
        if wave.ndim != 1 or len(wave) == 0 or not np.isfinite(wave).all():
            raise ClaspError(f"waves[{number}]: has shape {wave.shape}; give finite samples, shape (samples,).")
        louder = wave * min(gain, 0.99 / max(np.abs(wave).max(), 1e-9))  # not clipped
        parts += [np.zeros(gap), louder]
        at += int(gap)
        segments.append(Segment(at / SAMPLING_RATE, (at + len(wave)) / SAMPLING_RATE, text))
        at += len(wave)
    samples = np.concatenate([*parts, np.zeros(gaps[-1])])
    samples += 10 ** (joining.noise_db / 20) * rng.standard_normal(len(samples))
    return Joined(samples.astype(np.float32), segments)


def join_all(
    waves: Sequence[np.ndarray],
    texts: Sequence[str],
    minutes: float,
    seed: int = 0,
    joining: Joining | None = None,
) -> list[Joined]:
    """All clips, each once and shuffled, in recordings of about so many minutes, of equal numbers of clips."""
    joining = joining or Joining()
    order = np.random.default_rng(seed).permutation(len(waves))
    seconds = sum(map(len, waves)) / SAMPLING_RATE + len(waves) * sum(joining.gap_s) / 2
    groups = np.array_split(order, max(1, round(seconds / 60 / minutes)))
    return [
        join_clips([waves[i] for i in group], [texts[i] for i in group], seed + number, joining)
        for number, group in enumerate(groups)
    ]


def read_segments(folder: Path) -> dict[str, list[Segment]]:
    """Known segments of recordings, by file: the rows of `segments.csv` (file, start_s, end_s, text) in a folder.

    Raises:
        DatasetError: there is no such file, it is no UTF-8 table, or a row lacks something.
    """
    path = folder / "segments.csv"
    if not path.is_file():
        raise DatasetError(f"{path}: there is no such file. Its columns are file, start_s, end_s and text.")
    found: dict[str, list[Segment]] = {}
    for where, row in read_csv(path)[1]:
        try:
            file, segment = row["file"], Segment(float(row["start_s"]), float(row["end_s"]), row["text"])
        except (KeyError, ValueError) as error:
            raise DatasetError(f"{where}: has no file, start_s, end_s and text ({error}).") from error
        found.setdefault(file, []).append(segment)
    return found
