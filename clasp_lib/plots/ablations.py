"""Records of `clasp_lib.ablation`."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from clasp_lib.plots.style import COLOURS, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVEL = 0.05
"""As in `clasp_lib.ablation.record`."""


def ablation_chart(record: Mapping[str, Any], varied: str = "fusion") -> Figure:
    """Systems of an ablation's record that differ in one thing: mean MRR, its 95% interval, and each seed.

    Args:
        record: of `clasp_lib.ablation`; the intervals are those for other sentences and other seeds at once.
        varied: "fusion", "loss" or "speech_encoder"; in the others, all systems shown are as the record's default.
    """
    plt, _ = drawing()
    usual = {name: value for name, value in record["default"].items() if name != varied}
    systems = [row for row in record["systems"] if usual.items() <= row.items()]
    systems.sort(key=lambda row: -row["mrr"]["value"])
    figure, axes = plt.subplots(figsize=(7, 0.38 * len(systems) + 1.2), layout="constrained")
    for height, system in enumerate(systems):
        same = {**usual, varied: system[varied]}.items()
        runs = [row["speech_to_text_mrr"] for row in record["rows"] if same <= row.items()]
        value, (low, high) = system["mrr"]["value"], system["mrr"]["both"]
        colour = COLOURS[system[varied] == record["default"][varied]]
        below = [height + 0.25] * len(runs)
        axes.plot(runs, below, "o", markersize=4, alpha=0.4, markeredgewidth=0, color=colour)
        axes.errorbar(value, height, xerr=[[value - low], [high - value]], fmt="o", capsize=4, color=colour)
    axes.set_yticks(range(len(systems)), [row[varied].replace("_", " ") for row in systems])
    axes.invert_yaxis()
    axes.set(xlabel="MRR, speech to text: mean, 95% interval, each seed", xlim=(0, None))
    return figure


def question_chart(record: Mapping[str, Any], names: Sequence[str] | None = None) -> Figure:
    """Questions of an ablation's record: the MRR of the first system minus that of the second, overall and by seed.

    A full square is a difference that is shown (corrected p at most `LEVEL`), an open circle one that is not. The
    intervals are those for other sentences and other seeds at once.

    Args:
        record: of `clasp_lib.ablation`.
        names: of the questions, from top to bottom; all of the record, if not given.
    """
    plt, _ = drawing()
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
        shown = question["corrected"] <= LEVEL
        colour, marker = COLOURS[shown], "s" if shown else "o"
        axes.plot(runs, [height + 0.25] * len(runs), "o", markersize=4, alpha=0.4, markeredgewidth=0, color=colour)
        axes.errorbar(
            value, height, xerr=[[value - low], [high - value]], fmt=marker, capsize=4, color=colour,
            markerfacecolor=colour if shown else "white",
        )  # fmt: skip
    axes.axvline(0, linestyle=":", color="0.4")
    axes.set_yticks(range(len(questions)), labels)
    axes.set(xlabel="difference of MRR: mean, 95% interval, each seed", ylim=(len(questions) - 0.4, -0.6))
    return figure


def _subtraction(question: Mapping[str, Any], default: Mapping[str, str]) -> str:
    """What differs, "first minus second", and what both have that is not the default."""
    first, second = question["first"], question["second"]
    differing = [name for name in first if first[name] != second[name]]
    sides = [" with ".join(side[name] for name in differing) for side in (first, second)]
    shared = [first[name] for name in first if name not in differing and first[name] != default[name]]
    return ", ".join([" minus ".join(sides), *shared]).replace("_", " ")


def three_intervals_chart(estimates: Mapping[str, Mapping[str, Any]]) -> Figure:
    """By system, mean MRR with its 95% intervals for other sentences, for other seeds, and for both.

    Args:
        estimates: by name, what `clasp_lib.significance.Estimate.to_dict` gives.
    """
    plt, _ = drawing()
    figure, axes = plt.subplots(figsize=(7, 0.75 * len(estimates) + 1.2), layout="constrained")
    kinds = (("items", "other sentences", "o"), ("seeds", "other seeds", "^"), ("both", "both", "s"))
    for number, (kind, name, marker) in enumerate(kinds):
        values = np.array([found["value"] for found in estimates.values()])  # (systems,)
        ends = np.array([found[kind] for found in estimates.values()])  # (systems, 2)
        heights = np.arange(len(estimates)) + 0.22 * (number - 1)
        errors = np.abs(ends.T - values)  # (2, systems)
        axes.errorbar(values, heights, xerr=errors, fmt=marker, capsize=4, color=COLOURS[number], label=name)
    axes.set_yticks(range(len(estimates)), list(estimates))
    axes.set(xlabel="MRR, speech to text, 95% intervals", ylim=(len(estimates) - 0.5, -0.5))
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
