"""Recordings that can be played in a notebook or a web page."""

from __future__ import annotations

import base64
import os
from html import escape
from pathlib import Path

import numpy as np

from clasp_lib.audio import SAMPLING_RATE, AudioItem, duration, encode_audio, load_audio, resample
from clasp_lib.errors import AudioError


class Player:
    """An `<audio>` element with a caption, shown by Jupyter. The clip travels inside the page as a small MP3.

    Args:
        item: see `clasp_lib.audio.load_audio`.
        label: what is heard: the caption, and the name that screen readers speak.
        start_s, end_s: the part to play, in seconds. Of a file no more than that is read, however long it is.

    Raises:
        AudioError: the recording cannot be read.
    """

    def __init__(self, item: AudioItem, label: str, start_s: float = 0.0, end_s: float | None = None) -> None:
        if isinstance(item, str | Path) and end_s is not None:
            self.samples = _stretch(item, start_s, end_s)
        else:
            stop = None if end_s is None else round(end_s * SAMPLING_RATE)
            self.samples = load_audio(item, max_seconds=None)[round(start_s * SAMPLING_RATE) : stop]
        self.label = label

    @property
    def html(self) -> str:
        """The element alone."""
        loudest = max(float(np.abs(self.samples).max(initial=0.0)), 1e-6)
        louder = self.samples * min(1.0 / loudest, 4.0) * 0.9
        data = base64.b64encode(encode_audio(louder, SAMPLING_RATE, "MP3")).decode()
        return (
            f'<audio controls preload="none" aria-label="{escape(self.label)}" '
            f'src="data:audio/mpeg;base64,{data}"></audio>'
        )

    def _repr_html_(self) -> str:
        return f'<div class="clasp-player">{self.html}<div class="clasp-text">{escape(self.label)}</div></div>'

    def __repr__(self) -> str:
        return f"Player({self.label!r}, {len(self.samples) / SAMPLING_RATE:.1f} s)"


def _stretch(file: str | Path, start_s: float, end_s: float) -> np.ndarray:
    """Samples at 16 kHz from one second to another; what is silent may be played, too."""
    import soundfile

    duration(file)  # refuses, as for every recording, what is missing, no file, or broken off
    try:
        with soundfile.SoundFile(os.fspath(file)) as opened:
            rate = opened.samplerate
            start = min(round(start_s * rate), opened.frames)
            opened.seek(start)
            samples = opened.read(max(0, round(end_s * rate) - start), "float32", always_2d=True).mean(1)  # (samples,)
    except (OSError, ValueError, soundfile.SoundFileError) as error:
        raise AudioError(f"{file}: cannot be decoded at {start_s:g} s ({error}). Re-export the recording.") from error
    if not np.isfinite(samples).all():
        raise AudioError(f"{file}: holds NaN or infinite samples. Re-export the recording.")
    return resample(samples, rate, SAMPLING_RATE)
