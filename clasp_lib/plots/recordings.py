"""Recordings and corpora."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from clasp_lib.audio import SAMPLING_RATE
from clasp_lib.encoders.spectrogram import HOP, log_mel
from clasp_lib.plots.style import COLOURS, drawing
from clasp_lib.synthesis import Utterance

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def category_chart(categories: Sequence[str]) -> Figure:
    """Sentences in each category, largest first (after the paper's figure 4)."""
    plt, sns = drawing()
    names, counts = np.unique(np.asarray(categories), return_counts=True)
    order = np.argsort(-counts)
    figure, axes = plt.subplots(figsize=(7, 4.2))
    labels = [names[i].replace("_", " ") for i in order]
    sns.barplot(x=counts[order], y=labels, color=COLOURS[0], ax=axes)
    axes.bar_label(axes.containers[0], padding=3, fontsize=9)
    axes.set(xlabel="sentences", ylabel="")
    return figure


def waveform_and_spectrogram(samples: np.ndarray, title: str) -> Figure:
    """A clip at 16 kHz, as the speech encoder and as the picture encoder get it."""
    plt, _ = drawing()
    seconds = len(samples) / SAMPLING_RATE
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(7, 4.2), sharex=True, height_ratios=(1, 2), layout="constrained"
    )
    top.plot(np.arange(len(samples)) / SAMPLING_RATE, samples, linewidth=0.4, color=COLOURS[0])
    top.set(ylabel="amplitude", title=title)
    mel = log_mel(samples).numpy()
    extent = (0, mel.shape[1] * HOP / SAMPLING_RATE, 0, mel.shape[0])
    image = bottom.imshow(mel, origin="lower", aspect="auto", extent=extent, cmap="cividis")
    bottom.set(xlabel="seconds", ylabel="mel band", xlim=(0, seconds))
    bottom.grid(False)
    figure.colorbar(image, ax=bottom, label="dB", pad=0.01)
    return figure


def phone_chart(utterance: Utterance, title: str) -> Figure:
    """The spectrogram of a spoken sentence at 16 kHz, with its phones below and its words above."""
    plt, _ = drawing()
    figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
    mel = log_mel(utterance.samples).numpy()
    seconds = len(utterance.samples) / SAMPLING_RATE
    axes.imshow(
        mel, origin="lower", aspect="auto", extent=(0, mel.shape[1] * HOP / SAMPLING_RATE, 0, len(mel)), cmap="Greys"
    )
    for marks, height, colour in ((utterance.phones, 4, COLOURS[0]), (utterance.words, 120, COLOURS[1])):
        ends = [mark.start for mark in marks[1:]] + [len(utterance.samples)]
        for mark, end in zip(marks, ends, strict=False):  # of no marks there is an end all the same
            start = mark.start / SAMPLING_RATE
            axes.axvline(start, 0 if height < 64 else 0.88, 0.08 if height < 64 else 1, color=colour, linewidth=1)
            if mark.symbol != "_":
                middle = (start + end / SAMPLING_RATE) / 2
                axes.text(middle, height, mark.symbol, color=colour, ha="center", va="center", fontsize=8)
    axes.set(xlabel="seconds", ylabel="mel band", xlim=(0, seconds), title=title)
    axes.grid(False)
    return figure
