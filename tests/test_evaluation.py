"""Reports of both directions, and paired comparisons: what is said is what was measured."""

from __future__ import annotations

import json

import numpy as np
import pytest

from clasp_lib import RetrievalReport, evaluate_retrieval
from clasp_lib.errors import ClaspError
from clasp_lib.evaluation import compare, evaluate_both_directions, first_rows
from clasp_lib.metrics import MEASURES, per_query, rank_queries


def noisy_pairs(n: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Texts, and speech that is the text and noise: unit vectors."""
    rng = np.random.default_rng(seed)
    text = rng.standard_normal((n, 16))
    speech = text + noise * rng.standard_normal((n, 16))
    return speech / np.linalg.norm(speech, axis=1, keepdims=True), text / np.linalg.norm(text, axis=1, keepdims=True)


# Reports -----------------------------------------------------------------------------------------------------------


def test_a_report_holds_the_measures_and_survives_json() -> None:
    speech, text = noisy_pairs(60, 0.8)
    report = evaluate_retrieval(speech, text, range(60), range(60), seed=4)
    ranking = rank_queries(speech, text, range(60), range(60))
    for name, values in per_query(ranking).items():
        assert getattr(report, name).value == pytest.approx(values.mean())
    assert (report.n, report.candidates, report.seed, report.chance) == (60, 60, 4, 1 / 60)
    stored = json.loads(report.to_json())
    assert set(stored) == {"n", "candidates", "seed", "groups", "ties", "resamples", "method", *MEASURES}
    assert [stored[name] for name in ("groups", "ties", "resamples", "method")] == [60, "expected", 1000, "bca"]
    assert set(stored["mrr"]) == {"value", "low", "high"}
    assert RetrievalReport.from_dict(stored) == report
    assert report == evaluate_retrieval(speech, text, range(60), range(60), seed=4)
    with pytest.raises(AttributeError):
        report.n = 5  # type: ignore[misc]
    for name in MEASURES:
        assert f"{name} " in str(report) and str(getattr(report, name)) in str(report)


def test_a_record_from_before_some_things_were_kept_still_loads() -> None:
    speech, text = noisy_pairs(20, 0.8)
    stored = evaluate_retrieval(speech, text, range(20), range(20), method="percentile").to_dict()
    for name in ("map", "groups", "ties", "resamples", "method"):
        del stored[name]
    report = RetrievalReport.from_dict(stored)
    assert report.map is None and report.groups is None and "map" not in str(report)
    assert (report.ties, report.resamples, report.method) == ("expected", 1000, "percentile")
    assert RetrievalReport.from_dict(report.to_dict()) == report


def test_a_report_says_by_which_rules_it_was_made() -> None:
    """Thirty texts, ten of them twice under ids of their own: what the reference leaves out, and what it does not."""
    speech, text = (x[np.arange(40) % 30] for x in noisy_pairs(30, 0.0))
    expected = evaluate_retrieval(speech, text, range(40), range(40))
    assert (expected.n, expected.hits_at_1.value, expected.mean_rank.value) == (40, 30 / 40, 1.25)
    optimistic = evaluate_retrieval(speech, text, range(40), range(40), ties="optimistic", method="percentile")
    assert (optimistic.n, optimistic.hits_at_1.value, optimistic.method) == (40, 1, "percentile")
    skipped = evaluate_retrieval(speech, text, range(40), range(40), ties="skip", resamples=70)
    assert (skipped.n, skipped.groups, skipped.hits_at_1.value) == (30, 30, 1)
    assert (skipped.ties, skipped.resamples) == ("skip", 70)


def test_a_text_that_occurs_twice_is_one_text() -> None:
    """Three recordings of two sentences: the texts a and b stand once on their side."""
    text = np.array([[1.0, 0], [1, 0], [0, 1]])
    speech = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])  # the second one is heard wrongly
    reports = evaluate_both_directions(speech, text, ["a", "a", "b"])
    to_speech, to_text = reports["text_to_speech"], reports["speech_to_text"]
    assert (to_speech.n, to_speech.candidates) == (2, 3)
    assert (to_text.n, to_text.candidates) == (3, 2)
    assert to_speech.hits_at_1.value == 0.5  # a finds its first recording; b finds the wrong one of a before its own
    assert to_speech.mean_rank.value == 1.5
    assert to_text.hits_at_1.value == pytest.approx(2 / 3)
    assert to_text.mean_rank.value == pytest.approx(4 / 3)


def test_both_directions_follow_the_same_rules() -> None:
    speech, text = noisy_pairs(30, 0.8)
    rules = {"seed": 5, "ties": "optimistic", "method": "percentile", "resamples": 50}
    reports = evaluate_both_directions(speech, text, range(30), **rules)
    assert reports["speech_to_text"] == evaluate_retrieval(speech, text, range(30), range(30), **rules)
    assert reports["text_to_speech"] == evaluate_retrieval(text, speech, range(30), range(30), **rules)
    assert first_rows(["b", "a", "b"]) == {"b": 0, "a": 1}


def test_recordings_of_one_sentence_make_the_interval_wider() -> None:
    speech, text = noisy_pairs(50, 1.0)
    ids = [f"s{i}" for i in range(50)]
    repeated = evaluate_both_directions(np.repeat(speech, 8, 0), np.repeat(text, 8, 0), list(np.repeat(ids, 8)))
    once = evaluate_both_directions(speech, text, ids)
    assert repeated["speech_to_text"].mrr == pytest.approx(once["speech_to_text"].mrr)


# Comparison --------------------------------------------------------------------------------------------------------


def test_a_planted_difference_is_found() -> None:
    speech, text = noisy_pairs(200, 0.9)
    worse, _ = noisy_pairs(200, 1.3)
    result = compare(speech, worse, text, range(200), resamples=1000)
    assert result.n == 200 and result.measure == "mrr"
    assert 0 < result.difference.low <= result.difference.value <= result.difference.high
    assert result.p_value < 0.01
    assert compare(worse, speech, text, range(200), resamples=1000).difference.high < 0
    by_rank = compare(speech, worse, text, range(200), "mean_rank", resamples=1000)
    assert by_rank.difference.value < 0 and by_rank.p_value < 0.01


def test_no_difference_is_found_where_there_is_none() -> None:
    """Two systems of equal quality: about one comparison in twenty is significant at 5%."""
    rng, p_values = np.random.default_rng(0), []
    for seed in range(20):
        _, text = noisy_pairs(100, 0, seed)
        one, other = (text + 0.3 * rng.standard_normal(text.shape) for _ in range(2))
        p_values.append(compare(one, other, text, range(100), resamples=200, seed=seed).p_value)
    assert sum(p < 0.05 for p in p_values) <= 4
    assert 0.25 < np.mean(p_values) < 0.85
    same = compare(one, one, text, range(100), resamples=200)
    assert same.p_value == 1 and same.difference == (0, 0, 0)


def test_recordings_of_one_sentence_are_compared_together() -> None:
    speech, text = noisy_pairs(120, 0.9)
    worse, _ = noisy_pairs(120, 1.0, seed=1)
    ids = np.repeat(np.arange(40), 3).tolist()
    result = compare(speech, worse, text[:40], ids, resamples=500, seed=2, candidate_ids=range(40))
    assert (result.n, result.groups, result.resamples, result.seed, result.method) == (120, 40, 500, 2, "bca")
    careless = compare(speech, worse, text, range(120), "map", resamples=500, method="percentile")
    assert (careless.groups, careless.method, careless.measure) == (120, "percentile", "map")


def test_what_leaves_no_pairs_is_refused() -> None:
    speech, text = noisy_pairs(5, 0.1)
    with pytest.raises(ClaspError, match=r"'skip'.*no pairs"):
        compare(speech, speech, text, range(5), ties="skip")


def test_an_unknown_measure_is_refused_with_the_choice() -> None:
    speech, text = noisy_pairs(5, 0.1)
    with pytest.raises(ClaspError, match=r"'accuracy'.*hits_at_1"):
        compare(speech, speech, text, range(5), "accuracy")
