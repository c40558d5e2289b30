"""Figures show the numbers they were given."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from conftest import Clip

pytest.importorskip("matplotlib", reason="matplotlib is not installed: figures belong to the extra [book]")

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from clasp_lib import evaluate_retrieval
from clasp_lib.errors import MissingDependencyError
from clasp_lib.plots import (
    ablation_chart,
    category_chart,
    disturbance_map,
    interval_chart,
    learning_curves,
    question_chart,
    similarity_heatmap,
    three_intervals_chart,
    waveform_and_spectrogram,
)
from clasp_lib.training import History


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def test_the_category_chart_counts_and_sorts() -> None:
    (axes,) = category_chart(["news"] * 3 + ["science_fiction"] * 5 + ["lore"]).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["science fiction", "news", "lore"]
    assert [bar.get_width() for bar in axes.patches] == [5, 3, 1]


def test_the_spectrogram_has_the_length_of_the_clip(clips: list[Clip]) -> None:
    top, bottom, _ = waveform_and_spectrogram(clips[0].samples, "The ferry").axes
    assert top.get_title() == "The ferry"
    assert bottom.get_xlim() == pytest.approx((0, len(clips[0].samples) / 16_000))
    assert bottom.images[0].get_array().shape[0] == 128


def test_learning_curves_mark_the_weights_that_were_kept() -> None:
    rows = [{"epoch": e, "loss": 3 - e / 2, "mrr": m, "seconds": 1.0} for e, m in ((1, 0.2), (2, 0.6), (3, 0.5))]
    loss, mrr = learning_curves({"gating": History(rows, best_epoch=2)}).axes
    assert loss.lines[0].get_ydata().tolist() == [2.5, 2, 1.5]
    assert mrr.lines[0].get_ydata().tolist() == [0.2, 0.6, 0.5]
    assert (mrr.lines[1].get_xdata()[0], mrr.lines[1].get_ydata()[0]) == (2, 0.6)


def test_the_interval_chart_draws_the_intervals() -> None:
    rng = np.random.default_rng(0)
    text = rng.standard_normal((40, 8))
    report = evaluate_retrieval(text + rng.standard_normal((40, 8)), text, range(40), range(40))
    (axes,) = interval_chart({"one": report, "two": report}).axes
    ends = [segment[:, 0].tolist() for line in axes.collections for segment in line.get_segments()]
    assert ends == [pytest.approx([report.hits_at_1.low, report.hits_at_1.high])] * 2
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "two"]


def test_the_ablation_chart_shows_every_seed_and_the_interval_over_both() -> None:
    usual = {"loss": "contrastive", "speech_encoder": "pocket-ctc"}
    means = {"gating": [0.2, 0.4], "concatenation": [0.5, 0.7]}
    record = {
        "default": {"fusion": "concatenation", **usual},
        "rows": [
            {"fusion": name, **usual, "speech_to_text_mrr": value} for name, values in means.items() for value in values
        ],
        "systems": [
            {"fusion": "gating", **usual, "mrr": {"value": 0.3, "both": [0.1, 0.5]}},
            {"fusion": "concatenation", **usual, "mrr": {"value": 0.6, "both": [0.45, 0.75]}},
            {"fusion": "gating", **usual, "loss": "huber", "mrr": {"value": 0.9, "both": [0.8, 1.0]}},
        ],
    }
    (axes,) = ablation_chart(record).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["concatenation", "gating"]  # the best first
    dots = [list(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2]
    assert dots == [[0.5, 0.7], [0.2, 0.4]]
    ends = [segment[:, 0].tolist() for line in axes.collections for segment in line.get_segments()]
    assert ends == [pytest.approx([0.45, 0.75]), pytest.approx([0.1, 0.5])]
    (axes,) = ablation_chart(record, varied="loss").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["contrastive"]  # not gating with another loss


def test_the_question_chart_pairs_the_seeds_and_marks_what_is_shown() -> None:
    def system(fusion: str) -> dict[str, str]:
        return {"fusion": fusion, "loss": "contrastive", "speech_encoder": "pocket-ctc"}

    means = {"gating": [0.2, 0.4], "concatenation": [0.5, 0.8], "linear": [0.6, 0.6]}
    rows = [
        {**system(name), "seed": seed, "speech_to_text_mrr": values[seed]}
        for seed in (1, 0)
        for name, values in means.items()
    ]
    usual = {"seeds": 2, "second": system("concatenation")}
    gates = {"name": "gates?", "first": system("gating"), "difference": {"value": -0.35, "both": [-0.5, -0.2]}}
    line = {"name": "a line?", "first": system("linear"), "difference": {"value": -0.05, "both": [-0.3, 0.2]}}
    questions = [{**gates, **usual, "corrected": 0.05}, {**line, **usual, "corrected": 0.06}]
    record = {"rows": rows, "questions": questions, "default": system("concatenation")}
    (axes,) = question_chart(record).axes
    labels = [label.get_text().replace("\n", " ") for label in axes.get_yticklabels()]
    assert labels == ["gating minus concatenation", "linear minus concatenation"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first question on top
    dots = [list(each.get_xdata()) for each in axes.lines if len(each.get_xdata()) == 2 and each.get_alpha()]
    assert dots == [pytest.approx([-0.3, -0.4]), pytest.approx([0.1, -0.2])]
    ends = [segment[:, 0].tolist() for each in axes.collections for segment in each.get_segments()]
    assert ends == [pytest.approx([-0.5, -0.2]), pytest.approx([-0.3, 0.2])]
    assert [each.get_marker() for each in axes.lines if each.get_marker() in {"s", "o"} and not each.get_alpha()] == [
        "s",
        "o",
    ]
    for side in ("first", "second"):
        questions[1][side] = {**system("gating"), "speech_encoder": f"pocket-{side}"}
    rows += [
        {**questions[1][side], "seed": n, "speech_to_text_mrr": 0.5} for side in ("first", "second") for n in (0, 1)
    ]
    (axes,) = question_chart(record, ["a line?"]).axes  # what both have is named where it is not the usual
    (label,) = axes.get_yticklabels()
    assert label.get_text().replace("\n", " ") == "pocket-first minus pocket-second, gating"


def test_three_intervals_are_drawn_around_one_mean() -> None:
    one = {"value": 0.5, "items": [0.4, 0.6], "seeds": [0.45, 0.52], "both": [0.3, 0.7]}
    two = {"value": 0.2, "items": [0.1, 0.3], "seeds": [0.15, 0.25], "both": [0.05, 0.4]}
    (axes,) = three_intervals_chart({"one": one, "two": two}).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "two"]
    ends = [[segment[:, 0].tolist() for segment in lines.get_segments()] for lines in axes.collections]
    assert ends == [[pytest.approx(row[kind]) for row in (one, two)] for kind in ("items", "seeds", "both")]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["other sentences", "other seeds", "both"]


def test_the_disturbance_map_marks_intervals_without_zero() -> None:
    found = {"noise": {"none": [0.01, -0.01, 0.03], "low pass": [-0.052, -0.07, -0.03]}}
    axes = disturbance_map(found).axes[0]
    assert [text.get_text() for text in axes.texts] == ["+1.0", "-5.2*"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["none", "low\npass"]


def test_the_heatmap_names_rows_and_columns() -> None:
    axes = similarity_heatmap(np.array([[0.11, 0.92, 0.33], [0.4, 0.5, 0.6]]), ["a", "b"], ["x", "y", "z"]).axes[0]
    assert {"0.11", "0.92"} <= {text.get_text() for text in axes.texts}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["x", "y", "z"]


def test_missing_plotting_libraries_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "seaborn", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'clasp-lib\[book\]'"):
        category_chart(["news"])
