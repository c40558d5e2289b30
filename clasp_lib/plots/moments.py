"""Long recordings: pieces of speech, windows, scores over time, and what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from clasp_lib.audio import SAMPLING_RATE
from clasp_lib.localization import EncodedRecording, Moment
from clasp_lib.localization.cutting import FRAME_S, INAUDIBLE, Piece, Window, frame_levels
from clasp_lib.moments import FOUND, Segment, temporal_iou
from clasp_lib.plots.style import COLOURS, DASHES, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GOAL = 0.8
"""Recall at 1 that this project set itself."""


def pieces_chart(samples: np.ndarray, pieces: Sequence[Piece], threshold_db: float) -> Figure:
    """The waveform of `(samples,)` at 16 kHz, and the level of its frames with the threshold; pieces are shaded."""
    plt, _ = drawing()
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 4), sharex=True, layout="constrained")
    top.plot(np.arange(len(samples)) / SAMPLING_RATE, samples, linewidth=0.4, color=COLOURS[0])
    levels = frame_levels(samples, round(FRAME_S * SAMPLING_RATE))
    bottom.plot((np.arange(len(levels)) + 0.5) * FRAME_S, levels, linewidth=1, color=COLOURS[0])
    bottom.axhline(threshold_db, color=COLOURS[1], linestyle="--", label="threshold")
    for axes in (top, bottom):
        for piece in pieces:
            axes.axvspan(piece.start / SAMPLING_RATE, piece.end / SAMPLING_RATE, color=COLOURS[2], alpha=0.2, lw=0)
    top.set(ylabel="amplitude")
    bottom.set(xlabel="seconds", ylabel="dB of full scale", ylim=(INAUDIBLE - 2, 0))
    bottom.legend(loc="lower right")
    return figure


def windows_chart(windows: Sequence[Window], segments: Sequence[Segment]) -> Figure:
    """Each window as a bar, in the order in which they come out; what was really said from when to when is shaded."""
    plt, _ = drawing()
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.09 * len(windows)), layout="constrained")
    _shade(axes, segments)
    for row, window in enumerate(windows):
        axes.hlines(row, window.start / SAMPLING_RATE, window.end / SAMPLING_RATE, color=COLOURS[0], linewidth=2)
    axes.set(xlabel="seconds", ylabel="window", ylim=(len(windows), -1))
    axes.grid(False, axis="y")
    return figure


def score_chart(encoded: EncodedRecording, scores: np.ndarray, moments: Sequence[Moment], segment: Segment) -> Figure:
    """Each window at the height of its cosine with the query; moments are thick, the segment asked for is shaded."""
    plt, _ = drawing()
    figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
    _shade(axes, [segment])
    axes.hlines(scores, encoded.start_s, encoded.end_s, color=COLOURS[0], linewidth=2, alpha=0.6)
    for rank, moment in enumerate(moments, 1):
        axes.hlines(moment.score, moment.start_s, moment.end_s, color=COLOURS[1], linewidth=4)
        axes.annotate(
            str(rank), ((moment.start_s + moment.end_s) / 2, moment.score), (0, 4), textcoords="offset points"
        )
    axes.set(xlabel="seconds", ylabel="cosine with the query", xlim=(0, encoded.duration_s))
    return figure


def iou_chart(segment: Segment, windows: Sequence[tuple[float, float]]) -> Figure:
    """Windows below a segment, each with its IoU; those that count as found have another colour and a tick."""
    plt, _ = drawing()
    figure, axes = plt.subplots(figsize=(8, 0.9 + 0.35 * len(windows)), layout="constrained")
    _shade(axes, [segment])
    axes.hlines(0, segment.start_s, segment.end_s, color="0.4", linewidth=7)
    for row, (start, end) in enumerate(windows, 1):
        iou = float(temporal_iou(start, end, segment.start_s, segment.end_s))
        axes.hlines(row, start, end, color=COLOURS[0 if iou >= FOUND else 1], linewidth=7)
        said = f"IoU {iou:.2f}" + (", found" if iou >= FOUND else "")
        axes.text(max(end, segment.end_s) + 0.15, row, said, va="center", fontsize=9)
    right = max(segment.end_s, *(end for _, end in windows))
    axes.set(xlabel="seconds", xlim=(None, right + 2), ylim=(len(windows) + 0.7, -0.7))
    axes.set_yticks(range(len(windows) + 1), ["segment", *(f"window {row + 1}" for row in range(len(windows)))])
    axes.grid(False, axis="y")
    return figure


def recall_chart(rows: Sequence[Mapping[str, Any]], systems: Mapping[str, str]) -> Figure:
    """Recall at 1 against the length of the recordings, with 95% bars, and a dotted line at `GOAL`.

    Args:
        systems: by name in the record, how the legend calls it.
    """
    plt, _ = drawing()
    figure, axes = plt.subplots(figsize=(7, 3.8), layout="constrained")
    places = sorted({row["minutes"] for row in rows})
    for number, (system, said) in enumerate(systems.items()):
        found = sorted((row for row in rows if row["system"] == system), key=lambda row: row["minutes"])
        value, low, high = (np.array([row["recall_at_1"][end] for row in found]) for end in ("value", "low", "high"))
        at = np.array([places.index(row["minutes"]) for row in found]) + 0.05 * (number - (len(systems) - 1) / 2)
        colour = [*COLOURS, "0.4"][min(number, len(COLOURS))]
        axes.errorbar(
            at, value, yerr=[value - low, high - value], color=colour, capsize=3, marker="o", markersize=4,
            linestyle=DASHES[number % len(DASHES)], linewidth=1.2, label=said,
        )  # fmt: skip
    axes.axhline(GOAL, color="0.4", linestyle=":", linewidth=1)
    axes.set_xticks(range(len(places)), [f"{minutes} min" for minutes in places])
    axes.set(xlabel="length of the recordings, about", ylabel="recall at 1", ylim=(0, 1.02))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)
    return figure


def _shade(axes: Any, segments: Sequence[Segment]) -> None:
    for segment in segments:
        axes.axvspan(segment.start_s, segment.end_s, color=COLOURS[2], alpha=0.2, lw=0)
