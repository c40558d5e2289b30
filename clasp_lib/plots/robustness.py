"""What is lost where speech is disturbed, or of a kind that was never heard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clasp_lib.plots.style import COLOURS, DASHES, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 3


def robustness_chart(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """MRR, speech to text: a panel for each disturbance, from clean to strong, a line and a 95% band for each system.

    Args:
        rows: of `clasp_lib.robustness.curve_rows`.
    """
    plt, _ = drawing()
    rows = [row for row in rows if (row["measure"], row["direction"]) == ("mrr", "speech_to_text")]
    clean = {row["system"]: row for row in rows if row["strength"] is None}
    kinds = list(dict.fromkeys(row["disturbance"] for row in rows if row["strength"] is not None))
    height = -(-len(kinds) // _COLUMNS)
    figure, grid = plt.subplots(
        height, _COLUMNS, figsize=(8, 2.3 * height + 0.5), layout="constrained", sharey=True, squeeze=False
    )
    for axes in grid.flat[len(kinds) :]:
        axes.remove()
    handles = {}
    for axes, kind in zip(grid.flat, kinds, strict=False):
        of_kind = [row for row in rows if row["disturbance"] == kind]
        ticks = {None: "clean"} | {row["strength"]: f"{row['real_strength']:.3g}" for row in of_kind}
        if kind == "speed":  # clean is 1, between too slow and too fast
            ticks = dict(sorted(ticks.items(), key=lambda tick: 1.0 if tick[0] is None else tick[0]))
        place = {strength: number for number, strength in enumerate(ticks)}
        for system, colour, dash in zip(clean, COLOURS, DASHES, strict=False):
            line = [row for row in of_kind if row["system"] == system]
            if line:
                line = sorted([clean[system], *line], key=lambda row: place[row["strength"]])
                at = [place[row["strength"]] for row in line]
                value, low, high = ([row[name] for row in line] for name in ("value", "low", "high"))
                style = {"color": colour, "linestyle": dash, "marker": "o", "markersize": 3}
                (handles[system],) = axes.plot(at, value, **style, label=system)
                axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set(xlabel=of_kind[0]["unit"], ylim=(0, 1))
        axes.set_title(kind, fontsize=10)
        axes.set_xticks(range(len(ticks)), list(ticks.values()), fontsize=8)
    for axes in grid[:, 0]:
        axes.set_ylabel("MRR")
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=len(handles), fontsize=8)
    return figure


def shift_chart(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """What is lost on each kind of speech that was left out of the training, most first, with 95% intervals.

    Args:
        rows: of `clasp_lib.shifts`, of one direction, MRR.
    """
    plt, _ = drawing()
    rows = sorted(rows, key=lambda row: row["value"])
    figure, axes = plt.subplots(figsize=(7, 0.3 * len(rows) + 1.1), layout="constrained")
    for height, row in enumerate(rows):
        error = [[row["value"] - row["low"]], [row["high"] - row["value"]]]
        axes.errorbar(row["value"], height, xerr=error, fmt="o", capsize=4, color=COLOURS[0])
    axes.axvline(0, linestyle=":", color="0.4")
    axes.set_yticks(range(len(rows)), [row["left_out"].replace("_", " ") for row in rows])
    axes.set(xlabel="MRR without minus with it, 95% interval", ylim=(len(rows) - 0.5, -0.5))
    return figure
