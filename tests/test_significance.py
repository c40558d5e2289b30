"""Intervals and tests over sentences and seeds: by hand, against scipy, and on data whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from clasp_lib import significance
from clasp_lib.errors import ClaspError
from clasp_lib.metrics import Interval
from clasp_lib.significance import (
    PairedComparison,
    compare_systems,
    estimate,
    holm,
    interval_over_both,
    interval_over_items,
    interval_over_seeds,
    sign_flip_test,
)


def made_up(
    seeds: int, items: int, by_seed: float, by_item: float, rest: float, rng: np.random.Generator, mean: float = 0.0
) -> np.ndarray:
    """Scores (seeds, items): a part of the seed, a part of the item, and a part of both together."""
    parts = (by_seed * rng.standard_normal((seeds, 1)), by_item * rng.standard_normal((1, items)))
    return mean + parts[0] + parts[1] + rest * rng.standard_normal((seeds, items))


def width(interval: Interval) -> float:
    return interval.high - interval.low


SCORES = made_up(8, 300, 0.05, 0.3, 0.2, np.random.default_rng(0), mean=0.6)


def test_the_interval_over_seeds_is_that_of_a_t_test() -> None:
    expected = stats.ttest_1samp(SCORES.mean(1), 0).confidence_interval(0.95)
    assert interval_over_seeds(SCORES) == pytest.approx((SCORES.mean(), expected.low, expected.high))


def test_the_interval_over_items_is_that_of_a_bootstrap() -> None:
    found = interval_over_items(SCORES)
    expected = stats.bootstrap((SCORES.mean(0),), np.mean, n_resamples=10_000, method="percentile", rng=1)
    assert found.value == pytest.approx(SCORES.mean())
    assert found[1:] == pytest.approx(tuple(expected.confidence_interval), abs=0.002)


def test_few_items_give_the_percentiles_of_all_resamples() -> None:
    """Of items 0 and 1, a quarter of the resamples has mean 0, a half 0.5, a quarter 1."""
    assert interval_over_items(np.array([[0.0, 1.0]])) == (0.5, 0.0, 1.0)


def test_the_interval_over_both_has_the_width_of_the_theory() -> None:
    """Owen and Eckles 2012: with effects of seeds and items alone, the variances of the two add up."""
    rng = np.random.default_rng(1)
    scores = made_up(40, 400, 0.1, 1.0, 0.0, rng)
    expected = np.sqrt(scores.mean(1).var(ddof=1) / 40 + scores.mean(0).var() / 400)
    assert width(interval_over_both(scores)) == pytest.approx(2 * 1.96 * expected, rel=0.03)


def test_with_two_seeds_one_is_drawn() -> None:
    """Resamples are then means of either seed: the variance is that of the mean of two."""
    scores = np.array([[0.0, 0.0], [1.0, 1.0]])
    assert interval_over_both(scores) == (0.5, 0.0, 1.0)


def test_both_is_at_least_as_wide_as_either() -> None:
    found = estimate(SCORES)
    assert found.value == found.items.value == found.seeds.value == found.both.value
    assert width(found.both) > 0.95 * max(width(found.items), width(found.seeds))
    assert found.to_dict()["both"] == [found.both.low, found.both.high]


def test_the_same_seed_repeats_and_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    one = compare_systems(SCORES, SCORES[::-1], 2_000, seed=3)
    assert compare_systems(SCORES, SCORES[::-1], 2_000, seed=4) != one
    monkeypatch.setattr(significance, "_CELLS", 7 * 300)
    chunked = compare_systems(SCORES, SCORES[::-1], 2_000, seed=3)
    assert (chunked.p_items, chunked.p_seeds) == (one.p_items, one.p_seeds)
    for name in ("items", "seeds", "both"):
        assert getattr(chunked.difference, name) == pytest.approx(getattr(one.difference, name), abs=1e-12)


def test_sign_flips_of_three_numbers_by_hand() -> None:
    """1 + 2 + 3 = 6 is reached by two of the eight ways; 1 + 2 - 1 = 2 by all but the two that give 0."""
    assert sign_flip_test(np.array([1.0, 2.0, 3.0])) == 2 / 8
    assert sign_flip_test(np.array([1.0, 2.0, -1.0])) == 6 / 8
    assert sign_flip_test(np.zeros(3)) == 1
    assert sign_flip_test(np.full(10, 0.1)) == 2 / 1024  # the smallest there is for ten


def test_exact_sign_flips_are_those_of_scipy() -> None:
    rng = np.random.default_rng(2)
    for n in (5, 9, 12):
        differences = rng.standard_normal(n) + 0.4
        expected = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
        assert sign_flip_test(differences) == pytest.approx(expected.pvalue)


def test_drawn_sign_flips_agree_with_scipy() -> None:
    differences = np.random.default_rng(3).standard_normal(200) + 0.12
    expected = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=50_000, rng=0)
    assert sign_flip_test(differences) == pytest.approx(expected.pvalue, abs=0.012)
    assert sign_flip_test(differences + 5) == 1 / 10_001  # what was found counts as one of the draws


def test_a_difference_must_hold_for_sentences_and_for_seeds() -> None:
    rng = np.random.default_rng(4)
    chance = rng.random((10, 200))
    lucky_seeds = chance + np.linspace(-0.3, 0.34, 10)[:, None]  # every sentence gains a little, half of the seeds lose
    found = compare_systems(lucky_seeds, chance)
    assert found.p_items < 0.001 < 0.05 < found.p_seeds == found.p_value
    few_sentences = chance.copy()
    few_sentences[:, :3] += 1  # each seed gains, by three sentences alone
    found = compare_systems(few_sentences, chance)
    assert found.p_seeds == 2 / 1024 < 0.05 < found.p_items == found.p_value
    found = compare_systems(chance + 0.1 + 0.05 * rng.random((10, 200)), chance)
    assert found.p_value == 2 / 1024
    assert found.difference.both.low > 0.1
    assert PairedComparison(found.difference, 0.2, 0.1).p_value == 0.2


def test_holm_by_hand() -> None:
    """The first is multiplied by 4, the next by 3, by 2, by 1; none falls below the one before, none exceeds 1."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.01, 0.5]) == pytest.approx([1.0, 0.03, 1.0])
    assert holm([0.04]) == [0.04] and holm([]) == []


def test_scores_that_are_none_are_refused() -> None:
    nan = np.where(np.eye(3) > 0, np.nan, 1.0)
    for call, message in (
        (lambda: estimate(np.zeros(5)), r"shape \(5,\)"),
        (lambda: interval_over_items(np.zeros((3, 1))), r"at least \(1, 2\)"),
        (lambda: interval_over_seeds(np.zeros((1, 9))), r"at least \(2, 1\)"),
        (lambda: interval_over_both(np.zeros((1, 9))), r"at least \(2, 2\)"),
        (lambda: estimate(nan), "NaN"),
        (lambda: compare_systems(np.zeros((3, 4)), np.zeros((3, 5))), "no pairs"),
        (lambda: sign_flip_test(np.array([])), "finite numbers"),
        (lambda: sign_flip_test(np.array([1.0, np.inf])), "finite numbers"),
        (lambda: holm([0.5, 1.5]), "from 0 to 1"),
        (lambda: holm([float("nan")]), "from 0 to 1"),
    ):
        with pytest.raises(ClaspError, match=message):
            call()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("by_seed", "by_item", "rest", "low", "high"),
    [
        (0.02, 1.0, 0.5, 0.92, 0.99),  # as trained systems are: sentences differ much more than seeds
        (0.05, 0.0, 0.1, 0.88, 0.97),  # seeds alone: ten are few for a bootstrap, Student's t is the better interval
        (0.0, 0.0, 1.0, 0.98, 1.0),  # what Owen and Eckles warn of: far on the safe side
    ],
)
def test_the_interval_over_both_covers_the_truth(
    by_seed: float, by_item: float, rest: float, low: float, high: float
) -> None:
    rng = np.random.default_rng(5)
    runs = [interval_over_both(made_up(10, 200, by_seed, by_item, rest, rng), 1_000, seed=i) for i in range(1_000)]
    assert low <= np.mean([run.low <= 0 <= run.high for run in runs]) <= high


@pytest.mark.slow
@pytest.mark.parametrize(("by_seed", "by_item"), [(0.1, 0.0), (0.0, 1.0), (0.05, 0.5)])
def test_chance_is_called_a_difference_in_at_most_one_case_of_twenty(by_seed: float, by_item: float) -> None:
    rng = np.random.default_rng(6)
    p = []
    for i in range(1_000):
        difference = made_up(10, 100, by_seed, by_item, 0.3, rng)
        p.append(compare_systems(difference, np.zeros_like(difference), 500, seed=i).p_value)
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 1_000)  # 99.5% of such counts
    if by_seed == 0.0:
        assert np.mean(np.array(p) <= 0.05) >= 0.02  # and it is not asleep


@pytest.mark.slow
def test_holm_holds_the_error_rate_of_a_family() -> None:
    rng = np.random.default_rng(7)
    families = [min(holm(rng.random(20))) <= 0.05 for _ in range(4_000)]
    assert 0.035 <= np.mean(families) <= 0.06
