"""Every figure of the book, in one style: colour-blind safe, readable on white and in dark mode."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from clasp_lib.audio import SAMPLING_RATE
from clasp_lib.encoders.spectrogram import HOP, log_mel
from clasp_lib.errors import MissingDependencyError
from clasp_lib.evaluation import RetrievalReport
from clasp_lib.metrics import Ranking
from clasp_lib.protocols import Extrapolation, GroupReport, PoolReport
from clasp_lib.synthesis import Utterance
from clasp_lib.training import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def category_chart(categories: Sequence[str]) -> Figure:
    """Sentences in each category, largest first (after the paper's figure 4)."""
    plt, sns = _style()
    names, counts = np.unique(np.asarray(categories), return_counts=True)
    order = np.argsort(-counts)
    figure, axes = plt.subplots(figsize=(7, 4.2))
    labels = [names[i].replace("_", " ") for i in order]
    sns.barplot(x=counts[order], y=labels, color=_COLOURS[0], ax=axes)
    axes.bar_label(axes.containers[0], padding=3, fontsize=9)
    axes.set(xlabel="sentences", ylabel="")
    return figure


def waveform_and_spectrogram(samples: np.ndarray, title: str) -> Figure:
    """A clip at 16 kHz, as the speech encoder and as the picture encoder get it."""
    plt, _ = _style()
    seconds = len(samples) / SAMPLING_RATE
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(7, 4.2), sharex=True, height_ratios=(1, 2), layout="constrained"
    )
    top.plot(np.arange(len(samples)) / SAMPLING_RATE, samples, linewidth=0.4, color=_COLOURS[0])
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
    plt, _ = _style()
    figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
    mel = log_mel(utterance.samples).numpy()
    seconds = len(utterance.samples) / SAMPLING_RATE
    axes.imshow(
        mel, origin="lower", aspect="auto", extent=(0, mel.shape[1] * HOP / SAMPLING_RATE, 0, 128), cmap="Greys"
    )
    for marks, height, colour in ((utterance.phones, 4, _COLOURS[0]), (utterance.words, 120, _COLOURS[1])):
        ends = [mark.start for mark in marks[1:]] + [len(utterance.samples)]
        for mark, end in zip(marks, ends, strict=True):
            start = mark.start / SAMPLING_RATE
            axes.axvline(start, 0 if height < 64 else 0.88, 0.08 if height < 64 else 1, color=colour, linewidth=1)
            if mark.symbol != "_":
                middle = (start + end / SAMPLING_RATE) / 2
                axes.text(middle, height, mark.symbol, color=colour, ha="center", va="center", fontsize=8)
    axes.set(xlabel="seconds", ylabel="mel band", xlim=(0, seconds), title=title)
    axes.grid(False)
    return figure


def record_curves(rows: Sequence[Mapping[str, float]], panels: Mapping[str, Mapping[str, str]]) -> Figure:
    """Columns of a run's record over its minutes; `panels` gives, by the name of the axis, columns and their labels."""
    plt, _ = _style()
    figure, grid = plt.subplots(1, len(panels), figsize=(8, 3.2), layout="constrained", squeeze=False)
    for axes, (name, columns) in zip(grid[0], panels.items(), strict=True):
        for (column, label), colour, dash in zip(columns.items(), _COLOURS, _DASHES, strict=False):
            points = [(row["minutes"], row[column]) for row in rows if column in row]
            marker = "o" if len(points) < 20 else ""
            axes.plot(*zip(*points, strict=True), color=colour, linestyle=dash, marker=marker, label=label)
        axes.set(xlabel="minutes of training", ylabel=name, ylim=(0, None))
        axes.legend(fontsize=8)
    return figure


def probe_chart(probes: Mapping[str, Sequence[np.ndarray]]) -> Figure:
    """Mean score of each layer, with 95% intervals; by name, `probes` has the scores of the clips for each layer."""
    plt, _ = _style()
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for (name, layers), colour, dash in zip(probes.items(), _COLOURS, _DASHES, strict=False):
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
    plt, sns = _style()
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


def learning_curves(histories: Mapping[str, History]) -> Figure:
    """Training loss and validation MRR over epochs, one line a run; a dot marks the weights that were kept."""
    plt, _ = _style()
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    for (name, history), colour, dash in zip(histories.items(), _COLOURS, _DASHES, strict=False):
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


def interval_chart(reports: Mapping[str, RetrievalReport], measure: str = "hits_at_1", label: str = "HITS@1") -> Figure:
    """One measure of several systems, with 95% intervals."""
    plt, _ = _style()
    figure, axes = plt.subplots(figsize=(7, 0.55 * len(reports) + 1.2), layout="constrained")
    for row, (_name, report) in enumerate(reports.items()):
        value, low, high = getattr(report, measure)
        axes.errorbar(value, row, xerr=[[value - low], [high - value]], fmt="o", capsize=4, color=_COLOURS[row % 2])
    axes.set_yticks(range(len(reports)), list(reports))
    axes.invert_yaxis()
    chance = next(iter(reports.values())).chance
    if measure.startswith("hits_at_1"):
        axes.axvline(chance, linestyle=":", color="0.4")
        axes.set_xlim(left=0)
    axes.set(xlabel=f"{label}, 95% interval")
    return figure


def rank_chart(rankings: Mapping[str, Ranking], marks: Mapping[str, float] | None = None) -> Figure:
    """The share of queries whose rank is at most k, for every k: HITS@1 is where a line begins.

    Args:
        rankings: by system.
        marks: ranks at which a dotted line is drawn, by what is written beside it.
    """
    plt, _ = _style()
    figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
    for (name, ranking), colour, dash in zip(rankings.items(), _COLOURS, _DASHES, strict=False):
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
    curves: Mapping[str, Sequence[PoolReport]],
    measure: str = "hits_at_1",
    label: str = "HITS@1",
    forecasts: Mapping[str, Sequence[Extrapolation]] | None = None,
) -> Figure:
    """A measure over the size of the pool, with a band of 95%; for HITS@1 with a dotted line for chance.

    Args:
        curves: by system, from `clasp_lib.protocols.pool_curve`.
        forecasts: by system, larger pools that nobody measured: open circles with intervals, side by side.
    """
    plt, _ = _style()
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    forecasts = forecasts or {}
    for number, ((name, curve), colour, dash) in enumerate(zip(curves.items(), _COLOURS, _DASHES, strict=False)):
        pools = [report.pool for report in curve]
        value, low, high = np.array([getattr(report, measure) for report in curve]).T  # (pools,) each
        axes.fill_between(pools, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(pools, value, color=colour, linestyle=dash, label=name)
        for forecast in forecasts.get(name, ()):
            value, low, high = forecast.score
            axes.errorbar(
                forecast.pool * 1.05**number, value, [[value - low], [high - value]], fmt="o", capsize=4, color=colour,
                markerfacecolor="white",
            )  # fmt: skip
    if measure == "hits_at_1":
        ends = [report.pool for curve in curves.values() for report in curve]
        ends += [forecast.pool for further in forecasts.values() for forecast in further]
        sizes = np.geomspace(min(ends), max(ends), 50)
        axes.plot(sizes, 1 / sizes, linestyle=":", color="0.4", label="chance")
    axes.set(xscale="log", xlabel="candidates in the pool", ylabel=label)
    axes.xaxis.set_major_formatter("{x:g}")
    if measure != "mean_rank":
        axes.set_ylim(0, 1.02)
    axes.legend(fontsize=8)
    return figure


def group_chart(groups: Mapping[str, Sequence[GroupReport]], measure: str = "mrr", label: str = "MRR") -> Figure:
    """A measure of every group with its 95% interval and its number of queries, one panel for each way to group.

    Args:
        groups: by what the queries are grouped by, from `clasp_lib.protocols.evaluate_groups`. A group of few sentences
            (`GroupReport.small`) is an open circle. The dotted line is the mean over all queries of a panel.
    """
    plt, _ = _style()
    sizes = [len(reports) for reports in groups.values()]
    figure, grid = plt.subplots(
        len(groups), 1, figsize=(7, 0.32 * sum(sizes) + 0.5 * len(groups) + 0.6), sharex=True, squeeze=False,
        height_ratios=sizes, layout="constrained",
    )  # fmt: skip
    for axes, (name, reports), colour in zip(grid[:, 0], groups.items(), _COLOURS, strict=False):
        for height, report in enumerate(reports):
            value, low, high = report.measures[measure]
            axes.errorbar(
                value, height, xerr=[[value - low], [high - value]], fmt="o", capsize=4, color=colour,
                markerfacecolor="white" if report.small else colour,
            )  # fmt: skip
        mean = np.average([r.measures[measure].value for r in reports], weights=[r.n for r in reports])
        axes.axvline(mean, linestyle=":", color="0.4")
        axes.set_yticks(range(len(reports)), [f"{r.group.replace('_', ' ')} (n {r.n})" for r in reports], fontsize=8)
        axes.set_ylim(len(reports) - 0.5, -0.5)
        axes.set_title(name, loc="left", fontsize=9)
    grid[-1, 0].set(xlabel=f"{label}, 95% interval")
    return figure


def ablation_chart(
    record: Mapping[str, Any], varied: str = "fusion", measure: str = "mrr", label: str = "MRR, speech to text"
) -> Figure:
    """Systems of an ablation's record that differ in one thing: the mean, its 95% interval, and each seed.

    Args:
        record: of `clasp_lib.ablation`.
        varied: "fusion", "loss" or "speech_encoder"; in the others, all systems shown are as the record's default.
        measure: "mrr" or "hits_at_1"; the intervals are those for other sentences and other seeds at once.
    """
    plt, _ = _style()
    usual = {name: value for name, value in record["default"].items() if name != varied}
    systems = [row for row in record["systems"] if usual.items() <= row.items()]
    systems.sort(key=lambda row: -row[measure]["value"])
    figure, axes = plt.subplots(figsize=(7, 0.38 * len(systems) + 1.2), layout="constrained")
    for height, system in enumerate(systems):
        same = {**usual, varied: system[varied]}.items()
        runs = [row[f"speech_to_text_{measure}"] for row in record["rows"] if same <= row.items()]
        value, (low, high) = system[measure]["value"], system[measure]["both"]
        colour = _COLOURS[system[varied] == record["default"][varied]]
        below = [height + 0.25] * len(runs)
        axes.plot(runs, below, "o", markersize=4, alpha=0.4, markeredgewidth=0, color=colour)
        axes.errorbar(value, height, xerr=[[value - low], [high - value]], fmt="o", capsize=4, color=colour)
    axes.set_yticks(range(len(systems)), [row[varied].replace("_", " ") for row in systems])
    axes.invert_yaxis()
    axes.set(xlabel=f"{label}: mean, 95% interval, each seed", xlim=(0, None))
    return figure


def question_chart(record: Mapping[str, Any], names: Sequence[str] | None = None, level: float = 0.05) -> Figure:
    """Questions of an ablation's record: the MRR of the first system minus that of the second, overall and by seed.

    Args:
        record: of `clasp_lib.ablation`.
        names: of the questions, from top to bottom; all of the record, if not given.
        level: the difference is a full square where its corrected p-value is at most this, else an open circle. The
            intervals are those for other sentences and other seeds at once.
    """
    plt, _ = _style()
    by_name = {row["name"]: row for row in record["questions"]}
    questions = [by_name[name] for name in (by_name if names is None else names)]
    figure, axes = plt.subplots(figsize=(7, 0.5 * len(questions) + 1.1), layout="constrained")
    labels = []
    for height, question in enumerate(questions):
        labels.append(textwrap.fill(_subtraction(question, record["default"]), 36))
        first, second = (
            {row["seed"]: row["speech_to_text_mrr"] for row in record["rows"] if question[side].items() <= row.items()}
            for side in ("first", "second")
        )
        runs = [first[seed] - second[seed] for seed in range(question["seeds"])]
        value, (low, high) = question["difference"]["value"], question["difference"]["both"]
        shown = question["corrected"] <= level
        colour, marker = _COLOURS[shown], "s" if shown else "o"
        axes.plot(runs, [height + 0.25] * len(runs), "o", markersize=4, alpha=0.4, markeredgewidth=0, color=colour)
        axes.errorbar(
            value, height, xerr=[[value - low], [high - value]], fmt=marker, capsize=4, color=colour,
            markerfacecolor=colour if shown else "white",
        )  # fmt: skip
    axes.axvline(0, linestyle=":", color="0.4")
    axes.set_yticks(range(len(questions)), labels)
    axes.set(xlabel="difference of MRR: mean, 95% interval, each seed", ylim=(len(questions) - 0.4, -0.6))
    return figure


def three_intervals_chart(estimates: Mapping[str, Mapping[str, Any]], label: str = "MRR, speech to text") -> Figure:
    """By system, a mean with its 95% intervals for other sentences, for other seeds, and for both.

    Args:
        estimates: by name, what `clasp_lib.significance.Estimate.to_dict` gives.
    """
    plt, _ = _style()
    figure, axes = plt.subplots(figsize=(7, 0.75 * len(estimates) + 1.2), layout="constrained")
    kinds = (("items", "other sentences", "o"), ("seeds", "other seeds", "^"), ("both", "both", "s"))
    for number, (kind, name, marker) in enumerate(kinds):
        values = np.array([found["value"] for found in estimates.values()])  # (systems,)
        ends = np.array([found[kind] for found in estimates.values()])  # (systems, 2)
        heights = np.arange(len(estimates)) + 0.22 * (number - 1)
        errors = np.abs(ends.T - values)  # (2, systems)
        axes.errorbar(values, heights, xerr=errors, fmt=marker, capsize=4, color=_COLOURS[number], label=name)
    axes.set_yticks(range(len(estimates)), list(estimates))
    axes.set(xlabel=f"{label}, 95% intervals", ylim=(len(estimates) - 0.5, -0.5))
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def similarity_heatmap(similarity: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> Figure:
    """Cosines of texts (rows) and clips (columns)."""
    plt, sns = _style()
    figure, axes = plt.subplots(figsize=(7, 0.45 * len(rows) + 1.8), layout="constrained")
    sns.heatmap(similarity, annot=True, fmt=".2f", cmap="cividis", xticklabels=columns, yticklabels=rows, ax=axes)
    axes.tick_params(axis="x", rotation=0)
    return figure


def robustness_chart(
    rows: Sequence[Mapping[str, Any]], measure: str = "mrr", direction: str = "speech_to_text", columns: int = 3
) -> Figure:
    """A panel for each disturbance, from clean to strong as given, a line and a 95% band for each system.

    Args:
        rows: of `clasp_lib.robustness.curve_rows`.
    """
    plt, _ = _style()
    rows = [row for row in rows if row["measure"] == measure and row["direction"] == direction]
    clean = {row["system"]: row for row in rows if row["strength"] is None}
    kinds = list(dict.fromkeys(row["disturbance"] for row in rows if row["strength"] is not None))
    height = -(-len(kinds) // columns)
    figure, grid = plt.subplots(
        height, columns, figsize=(8, 2.3 * height + 0.5), layout="constrained", sharey=True, squeeze=False
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
        for system, colour, dash in zip(clean, _COLOURS, _DASHES, strict=False):
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
        axes.set_ylabel({"mrr": "MRR", "hits_at_1": "HITS@1"}.get(measure, measure))
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=len(handles), fontsize=8)
    return figure


def shift_chart(rows: Sequence[Mapping[str, Any]], label: str = "MRR without minus with it") -> Figure:
    """What is lost on each kind of speech that was left out of the training, most first, with 95% intervals.

    Args:
        rows: of `clasp_lib.shifts`, of one direction and one measure.
    """
    plt, _ = _style()
    rows = sorted(rows, key=lambda row: row["value"])
    figure, axes = plt.subplots(figsize=(7, 0.3 * len(rows) + 1.1), layout="constrained")
    for height, row in enumerate(rows):
        error = [[row["value"] - row["low"]], [row["high"] - row["value"]]]
        axes.errorbar(row["value"], height, xerr=error, fmt="o", capsize=4, color=_COLOURS[0])
    axes.axvline(0, linestyle=":", color="0.4")
    axes.set_yticks(range(len(rows)), [row["left_out"].replace("_", " ") for row in rows])
    axes.set(xlabel=f"{label}, 95% interval", ylim=(len(rows) - 0.5, -0.5))
    return figure


_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")  # Okabe and Ito
_DASHES = ("-", "--", "-.", ":", "-", "--")


def _subtraction(question: Mapping[str, Any], default: Mapping[str, str]) -> str:
    """What differs, "first minus second", and what both have that is not the default."""
    first, second = question["first"], question["second"]
    differing = [name for name in first if first[name] != second[name]]
    sides = [" with ".join(side[name] for name in differing) for side in (first, second)]
    shared = [first[name] for name in first if name not in differing and first[name] != default[name]]
    return ", ".join([" minus ".join(sides), *shared]).replace("_", " ")


def _style():
    """pyplot and seaborn, with the book's theme on; they are only imported when something is drawn."""
    try:
        import matplotlib.pyplot as plt
        import seaborn as sns
    except ImportError as error:
        raise MissingDependencyError(
            "figures need matplotlib and seaborn. Run: pip install 'clasp-lib[book]'"
        ) from error
    sns.set_theme(context="notebook", style="whitegrid", palette=list(_COLOURS), font_scale=0.9)
    plt.rcParams |= {"figure.dpi": 110, "savefig.facecolor": "white", "figure.facecolor": "white"}
    return plt, sns
