"""How well something is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from clasp_lib.evaluation import RetrievalReport
from clasp_lib.metrics import Ranking
from clasp_lib.plots.style import COLOURS, DASHES, drawing
from clasp_lib.protocols import Extrapolation, GroupReport, PoolReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def interval_chart(reports: Mapping[str, RetrievalReport]) -> Figure:
    """HITS@1 of several systems in one pool, with 95% intervals; the dotted line is chance."""
    plt, _ = drawing()
    figure, axes = plt.subplots(figsize=(7, 0.55 * len(reports) + 1.2), layout="constrained")
    for row, report in enumerate(reports.values()):
        value, low, high = report.hits_at_1
        axes.errorbar(value, row, xerr=[[value - low], [high - value]], fmt="o", capsize=4, color=COLOURS[row % 2])
    axes.set_yticks(range(len(reports)), list(reports))
    axes.invert_yaxis()
    axes.axvline(next(iter(reports.values())).chance, linestyle=":", color="0.4")
    axes.set_xlim(left=0)
    axes.set(xlabel="HITS@1, 95% interval")
    return figure


def rank_chart(rankings: Mapping[str, Ranking], marks: Mapping[str, float] | None = None) -> Figure:
    """The share of queries whose rank is at most k, for every k: HITS@1 is where a line begins.

    Args:
        rankings: by system.
        marks: ranks at which a dotted line is drawn, by what is written beside it.
    """
    plt, _ = drawing()
    figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
    for (name, ranking), colour, dash in zip(rankings.items(), COLOURS, DASHES, strict=False):
        ranks, counts = np.unique(ranking.rank, return_counts=True)
        shares = np.cumsum(counts) / len(ranking.rank)
        axes.step(ranks, shares, where="post", color=colour, linestyle=dash, label=name)
    for name, rank in (marks or {}).items():
        axes.axvline(rank, linestyle=":", color="0.4")
        axes.text(rank, 0.02, f" {name}", fontsize=8, color="0.3")
    axes.set(xscale="log", xlabel="rank k", ylabel="share of queries with rank at most k", ylim=(0, 1.02))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend(fontsize=8)
    return figure


def pool_curve_chart(
    curves: Mapping[str, Sequence[PoolReport]], forecasts: Mapping[str, Sequence[Extrapolation]] | None = None
) -> Figure:
    """HITS@1 over the size of the pool, with a band of 95%; the dotted line is chance.

    Args:
        curves: by system, from `clasp_lib.protocols.pool_curve`.
        forecasts: by system, larger pools that nobody measured: open circles with intervals, side by side.
    """
    plt, _ = drawing()
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    forecasts = forecasts or {}
    for number, ((name, curve), colour, dash) in enumerate(zip(curves.items(), COLOURS, DASHES, strict=False)):
        pools = [report.pool for report in curve]
        value, low, high = np.array([report.hits_at_1 for report in curve]).T  # (pools,) each
        axes.fill_between(pools, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(pools, value, color=colour, linestyle=dash, label=name)
        for forecast in forecasts.get(name, ()):
            value, low, high = forecast.score
            axes.errorbar(
                forecast.pool * 1.05**number, value, [[value - low], [high - value]], fmt="o", capsize=4, color=colour,
                markerfacecolor="white",
            )  # fmt: skip
    ends = [report.pool for curve in curves.values() for report in curve]
    ends += [forecast.pool for further in forecasts.values() for forecast in further]
    sizes = np.geomspace(min(ends), max(ends), 50)
    axes.plot(sizes, 1 / sizes, linestyle=":", color="0.4", label="chance")
    axes.set(xscale="log", xlabel="candidates in the pool", ylabel="HITS@1", ylim=(0, 1.02))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend(fontsize=8)
    return figure


def group_chart(groups: Mapping[str, Sequence[GroupReport]]) -> Figure:
    """MRR of every group with its 95% interval and its number of queries, one panel for each way to group.

    Args:
        groups: by what the queries are grouped by, from `clasp_lib.protocols.evaluate_groups`. A group of few sentences
            (`GroupReport.small`) is an open circle. The dotted line is the mean over all queries of a panel.
    """
    plt, _ = drawing()
    sizes = [len(reports) for reports in groups.values()]
    figure, grid = plt.subplots(
        len(groups), 1, figsize=(7, 0.32 * sum(sizes) + 0.5 * len(groups) + 0.6), sharex=True, squeeze=False,
        height_ratios=sizes, layout="constrained",
    )  # fmt: skip
    for axes, (name, reports), colour in zip(grid[:, 0], groups.items(), COLOURS, strict=False):
        for height, report in enumerate(reports):
            value, low, high = report.measures["mrr"]
            axes.errorbar(
                value, height, xerr=[[value - low], [high - value]], fmt="o", capsize=4, color=colour,
                markerfacecolor="white" if report.small else colour,
            )  # fmt: skip
        mean = np.average([r.measures["mrr"].value for r in reports], weights=[r.n for r in reports])
        axes.axvline(mean, linestyle=":", color="0.4")
        axes.set_yticks(range(len(reports)), [f"{r.group.replace('_', ' ')} (n {r.n})" for r in reports], fontsize=8)
        axes.set_ylim(len(reports) - 0.5, -0.5)
        axes.set_title(name, loc="left", fontsize=9)
    grid[-1, 0].set(xlabel="MRR, 95% interval")
    return figure


def similarity_heatmap(similarity: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> Figure:
    """Cosines of texts (rows) and clips (columns)."""
    plt, sns = drawing()
    figure, axes = plt.subplots(figsize=(7, 0.45 * len(rows) + 1.8), layout="constrained")
    sns.heatmap(similarity, annot=True, fmt=".2f", cmap="cividis", xticklabels=columns, yticklabels=rows, ax=axes)
    axes.tick_params(axis="x", rotation=0)
    return figure
