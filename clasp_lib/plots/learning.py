"""What happens while something is trained, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from clasp_lib.plots.style import COLOURS, DASHES, drawing
from clasp_lib.training import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def record_curves(rows: Sequence[Mapping[str, float]], panels: Mapping[str, Mapping[str, str]]) -> Figure:
    """Columns of a run's record over its minutes; `panels` gives, by the name of the axis, columns and their labels."""
    plt, _ = drawing()
    figure, grid = plt.subplots(1, len(panels), figsize=(8, 3.2), layout="constrained", squeeze=False)
    for axes, (name, columns) in zip(grid[0], panels.items(), strict=True):
        for (column, label), colour, dash in zip(columns.items(), COLOURS, DASHES, strict=False):
            points = [(row["minutes"], row[column]) for row in rows if column in row]
            marker = "o" if len(points) < 20 else ""
            axes.plot(*zip(*points, strict=True), color=colour, linestyle=dash, marker=marker, label=label)
        axes.set(xlabel="minutes of training", ylabel=name, ylim=(0, None))
        axes.legend(fontsize=8)
    return figure


def learning_curves(histories: Mapping[str, History]) -> Figure:
    """Training loss and validation MRR over epochs, one line a run; a dot marks the weights that were kept."""
    plt, _ = drawing()
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    for (name, history), colour, dash in zip(histories.items(), COLOURS, DASHES, strict=False):
        epochs = [row["epoch"] for row in history.rows]
        for axes, column in zip(panels, ("loss", "mrr"), strict=True):
            axes.plot(epochs, [row[column] for row in history.rows], color=colour, linestyle=dash, label=name)
        best = history.rows[history.best_epoch - 1]
        panels[1].plot(best["epoch"], best["mrr"], "o", color=colour)
    panels[0].set(xlabel="epoch", ylabel="training loss")
    highest = max(row["mrr"] for history in histories.values() for row in history.rows)
    panels[1].set(xlabel="epoch", ylabel="validation MRR", ylim=(0, min(1.0, 1.25 * highest)))
    panels[1].legend()
    return figure


def probe_chart(probes: Mapping[str, Sequence[np.ndarray]]) -> Figure:
    """Mean score of each layer, with 95% intervals; by name, `probes` has the scores of the clips for each layer."""
    plt, _ = drawing()
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for (name, layers), colour, dash in zip(probes.items(), COLOURS, DASHES, strict=False):
        means = np.array([scores.mean() for scores in layers])
        errors = np.array([1.96 * scores.std(ddof=1) / np.sqrt(len(scores)) for scores in layers])
        axes.errorbar(
            range(len(layers)), means, errors, color=colour, linestyle=dash, marker="o", capsize=3, label=name
        )
    axes.set(xlabel="layer (0 enters the first)", ylabel="score", ylim=(0, 1), xticks=range(len(layers)))
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def disturbance_map(differences: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Change of the letter error rate in percentage points, by the training (rows) and by what is heard (columns).

    Args:
        differences: by row and column, [value, low, high]; an asterisk marks intervals without zero.
    """
    plt, sns = drawing()
    points = 100 * np.array([[list(cell) for cell in row.values()] for row in differences.values()])
    values, low, high = np.moveaxis(points, -1, 0)  # (rows, columns) each
    signs = np.where((low > 0) | (high < 0), "*", "")
    labels = [[f"{v:+.1f}{s}" for v, s in zip(*row, strict=True)] for row in zip(values, signs, strict=True)]
    columns = [name.replace(" ", "\n") for name in next(iter(differences.values()))]
    figure, axes = plt.subplots(figsize=(8, 0.45 * len(differences) + 1.6), layout="constrained")
    end = np.abs(values).max()
    bar = {"label": "percentage points"}
    sns.heatmap(
        values, vmin=-end, vmax=end, cmap="PuOr_r", annot=labels, fmt="", annot_kws={"size": 8}, cbar_kws=bar,
        xticklabels=columns, yticklabels=list(differences), ax=axes,
    )  # fmt: skip
    axes.set(xlabel="heard through", ylabel="trained with")
    axes.tick_params(axis="x", rotation=0, labelsize=8)
    return figure
