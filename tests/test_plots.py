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
from clasp_lib.metrics import Ranking
from clasp_lib.plots import (
    ablation_chart,
    category_chart,
    disturbance_map,
    group_chart,
    interval_chart,
    learning_curves,
    pool_curve_chart,
    question_chart,
    rank_chart,
    robustness_chart,
    shift_chart,
    similarity_heatmap,
    three_intervals_chart,
    waveform_and_spectrogram,
)
from clasp_lib.protocols import evaluate_groups, extrapolate, pool_curve
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
    (chance,) = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert chance.get_xdata()[0] == 1 / 40


def test_the_rank_chart_climbs_from_hits_at_1_to_all() -> None:
    rank = np.array([1.0, 1.0, 3.0, 100.0])
    (axes,) = rank_chart({"one": Ranking(rank, rank)}, {"soft": 10}).axes
    line, mark = axes.lines
    assert list(zip(*line.get_data(), strict=True)) == [(1, 0.5), (3, 0.75), (100, 1)]
    assert (mark.get_xdata()[0], axes.texts[0].get_text()) == (10, " soft")


def test_the_pool_curve_has_a_band_and_forecasts_beyond_it() -> None:
    rank = np.random.default_rng(0).integers(1, 60, 300).astype(float)
    ranking = Ranking(rank, rank)
    curve = pool_curve(ranking, 299, range(300), [2, 30, 300], resamples=50)
    further = extrapolate(ranking, 299, range(300), 600, "hits_at_1", resamples=50)
    (axes,) = pool_curve_chart({"one": curve}, forecasts={"one": [further]}).axes
    line, forecast, *_, chance = axes.lines
    assert list(line.get_ydata()) == [report.hits_at_1.value for report in curve]
    assert (forecast.get_xdata()[0], forecast.get_ydata()[0]) == (600, further.score.value)
    assert chance.get_xdata()[[0, -1]] == pytest.approx([2, 600]) and chance.get_ydata()[0] == pytest.approx(0.5)
    band = axes.collections[0].get_paths()[0].vertices
    assert {round(y, 9) for x, y in band if x == 30} == {round(end, 9) for end in curve[1].hits_at_1[1:]}


def test_the_group_chart_has_the_number_of_queries_and_marks_small_groups() -> None:
    rng = np.random.default_rng(0)
    text = rng.standard_normal((70, 4)).astype(np.float32)
    speech = text + rng.standard_normal((70, 4)).astype(np.float32)
    reports = evaluate_groups(speech, text, range(70), range(70), ["much_read"] * 60 + ["rare"] * 10)
    (axes,) = group_chart({"category": reports}).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["much read (n 60)", "rare (n 10)"]
    full, *_ = dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [dot.get_markerfacecolor() == "white" for dot in dots] == [False, True]
    assert full.get_xdata()[0] == reports[0].measures["mrr"].value
    mean = (60 * reports[0].measures["mrr"].value + 10 * reports[1].measures["mrr"].value) / 70
    assert any(line.get_xdata()[0] == pytest.approx(mean) for line in axes.lines if line.get_linestyle() == ":")


def test_the_robustness_chart_begins_clean_and_has_a_panel_for_each_disturbance() -> None:
    def row(system: str, disturbance: str, strength: float | None, value: float) -> dict:
        unit = None if strength is None else "units"
        said = {"system": system, "disturbance": disturbance, "strength": strength, "real_strength": strength}
        asked = {"direction": "speech_to_text", "measure": "mrr"}
        return said | asked | {"unit": unit, "value": value, "low": value - 0.1, "high": value + 0.1}

    rows = [row("one", "clean", None, 0.9), row("two", "clean", None, 0.5)]
    rows += [row("one", "speed", s, v) for s, v in ((0.8, 0.6), (1.2, 0.7))]
    rows += [row(name, "hum 50 Hz", s, v) for name in ("one", "two") for s, v in ((20, 0.4), (0, 0.2))]
    rows += [row("one", "hum 50 Hz", 20, 0.1) | {"direction": "text_to_speech"}]
    figure = robustness_chart(rows)
    speed, hum = figure.axes
    assert [speed.get_title(), hum.get_title()] == ["speed", "hum 50 Hz"]
    (line,) = speed.lines
    assert list(line.get_ydata()) == [0.6, 0.9, 0.7]
    assert [label.get_text() for label in speed.get_xticklabels()] == ["0.8", "clean", "1.2"]
    assert [list(line.get_ydata()) for line in hum.lines] == [[0.9, 0.4, 0.2], [0.5, 0.4, 0.2]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "two"]


def test_the_shift_chart_has_the_largest_loss_on_top() -> None:
    values = {"news": 0.1, "science_fiction": -0.2}
    (axes,) = shift_chart(
        [{"left_out": n, "value": v, "low": v - 0.1, "high": v + 0.1} for n, v in values.items()]
    ).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["science fiction", "news"]
    assert axes.lines[0].get_xdata()[0] == -0.2 and axes.get_ylim()[0] > axes.get_ylim()[1]


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
