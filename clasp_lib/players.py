"""Recordings that can be played in a notebook or a web page."""

from __future__ import annotations

import base64
from html import escape

import numpy as np

from clasp_lib.audio import AudioItem, encode_audio, load_audio

_RATE = 16_000


class Player:
    """An `<audio>` element with a caption, shown by Jupyter. The clip travels inside the page as a small MP3.

    Args:
        item: see `clasp_lib.audio.load_audio`.
        label: what is heard: the caption, and the name that screen readers speak.
        start_s, end_s: the part to play, in seconds.
    """

    def __init__(self, item: AudioItem, label: str, start_s: float = 0.0, end_s: float | None = None) -> None:
        samples = load_audio(item, _RATE, max_seconds=None)
        stop = len(samples) if end_s is None else round(end_s * _RATE)
        self.label, self.samples = label, samples[round(start_s * _RATE) : stop]

    @property
    def html(self) -> str:
        """The element alone."""
        loudest = max(float(np.abs(self.samples).max(initial=0.0)), 1e-6)
        data = base64.b64encode(encode_audio(self.samples * min(1.0 / loudest, 4.0) * 0.9, _RATE, "MP3")).decode()
        return (
            f'<audio controls preload="none" aria-label="{escape(self.label)}" '
            f'src="data:audio/mpeg;base64,{data}"></audio>'
        )

    def _repr_html_(self) -> str:
        return f'<div class="clasp-player">{self.html}<div class="clasp-text">{escape(self.label)}</div></div>'

    def __repr__(self) -> str:
        return f"Player({self.label!r}, {len(self.samples) / _RATE:.1f} s)"
