"""Protocols: pools by hand and by simulation, groups, duplicates, and leaks that must not pass."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from clasp_lib.corpus import leaking_texts, normalise_text, pocket_brown, split_by_text
from clasp_lib.errors import ClaspError, DatasetError
from clasp_lib.metrics import MEASURES, Ranking, per_query, rank_queries
from clasp_lib.protocols import (
    Leaks,
    evaluate_groups,
    evaluate_soft,
    expected_scores,
    extrapolate,
    find_leaks,
    group_rows,
    length_groups,
    merge_duplicates,
    near_duplicates,
    pool_curve,
    refuse_leaks,
    soft_scores,
    wrong_candidates,
)
from clasp_lib.protocols.groups import SMALL_GROUP
from clasp_lib.protocols.pools import POOL_MEASURES, _drawn
from clasp_lib.significance import compare_paired


def noisy_pairs(n: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Queries that are their candidates and noise."""
    rng = np.random.default_rng(seed)
    right = rng.standard_normal((n, 12))
    return right + noise * rng.standard_normal((n, 12)), right


def ranking_of(ranks: Sequence[float]) -> Ranking:
    """A ranking without ties."""
    return Ranking(np.asarray(ranks, float), np.full(len(ranks), np.nan))


# Drawn pools -------------------------------------------------------------------------------------------------------


def test_the_soft_scores_by_hand() -> None:
    """One query among four: its own at 0.5, two above, one below. A pool of 3 has two of the three wrong ones."""
    scores = soft_scores([[1.0]], [[0.5], [0.9], [0.8], [0.1]], ["a"], list("abcd"), pools=(3,), draws=3000)[3]
    assert all(values.shape == (3000, 1) for values in scores.values())
    assert set(np.unique(scores["mean_rank"])) == {2.0, 3.0}  # never both below
    assert scores["hits_at_1"].max() == 0 and scores["hits_at_5"].min() == 1
    assert (scores["mean_rank"] == 3).mean() == pytest.approx(1 / 3, abs=0.03)


def test_the_whole_pool_is_the_hard_evaluation() -> None:
    queries, candidates = noisy_pairs(40, 1.5)
    candidates[1::2] = candidates[::2]  # each candidate twice, under two ids: ties everywhere
    ids = list(range(40))
    hard = per_query(rank_queries(queries, candidates, ids, ids))
    soft = soft_scores(queries, candidates, ids, ids, pools=(40,), draws=2)[40]
    for name in POOL_MEASURES:
        np.testing.assert_allclose(soft[name], np.stack([hard[name]] * 2), err_msg=name)


def test_several_positives_are_all_in_the_pool_and_no_wrong_one_is_drawn_twice() -> None:
    """Two right ones, of which the better one counts, and three wrong ones, all of which score higher."""
    scores = soft_scores([[1.0]], [[0.1], [0.3], [0.7], [0.8], [0.9]], "a", "aabcd", pools=(2, 3, 4), draws=20)
    assert [scores[pool]["mean_rank"].tolist() for pool in (2, 3, 4)] == [[[float(p)]] * 20 for p in (2, 3, 4)]


def test_all_systems_meet_the_same_candidates() -> None:
    """What is drawn does not depend on vectors: equal candidates differ between systems by the systems only."""
    queries, candidates = noisy_pairs(300, 1.0)
    ids = list(range(300))
    one, same = (
        soft_scores(queries @ turn, candidates @ turn, ids, ids, (20,), 3, seed=5)[20]["mean_rank"]
        for turn in (np.eye(12), np.linalg.qr(np.random.default_rng(1).standard_normal((12, 12)))[0])
    )
    np.testing.assert_array_equal(one, same)  # a rotation changes all vectors, and no score
    other = soft_scores(queries, candidates, ids, ids, (20,), 3, seed=6)[20]["mean_rank"]
    assert (one != other).mean() > 0.3
    assert (one[0] != one[1]).mean() > 0.3
    worse = soft_scores(noisy_pairs(300, 1.3)[0], candidates, ids, ids, (20,), 3, seed=5)[20]["mrr"]
    assert compare_paired((1 / one).mean(0), worse.mean(0), resamples=500).difference.low > 0


def test_a_small_pool_is_the_beginning_of_a_large_one() -> None:
    queries, candidates = noisy_pairs(600, 1.0)  # more than one block
    ids = list(range(600))
    alone = soft_scores(queries, candidates, ids, ids, (10,), 2)[10]
    both = soft_scores(queries, candidates, ids, ids, (10, 200), 2)
    np.testing.assert_array_equal(alone["mean_rank"], both[10]["mean_rank"])
    assert (both[200]["mean_rank"] >= both[10]["mean_rank"]).all()


def test_the_drawn_order_is_uniform_and_without_repetition() -> None:
    order = _drawn(60_000, 4, 2, np.random.default_rng(0))
    pairs, counts = np.unique(order, axis=0, return_counts=True)
    assert [tuple(pair) for pair in pairs.tolist()] == list(itertools.permutations(range(4), 2))
    assert counts == pytest.approx(np.full(12, 5000), rel=0.05)  # 5 000 +- 68


def test_a_soft_report_says_what_it_stands_on() -> None:
    queries, candidates = noisy_pairs(120, 1.0)
    ids = [f"s{i // 2}" for i in range(120)]  # two recordings of each sentence
    reports = evaluate_soft(queries, candidates, ids, ids, pools=(10, 100), draws=4, seed=3, resamples=200)
    again = evaluate_soft(queries, candidates, ids, ids, pools=(10, 100), draws=4, seed=3, resamples=200)
    assert reports == again
    ten, hundred = reports[10], reports[100]
    assert (ten.pool, ten.n, ten.draws, ten.seed, ten.chance) == (10, 120, 4, 3, 0.1)
    scores = soft_scores(queries, candidates, ids, ids, (10,), 4, 3)[10]
    assert ten.mrr.value == pytest.approx(scores["mrr"].mean())
    assert ten.spread == pytest.approx(scores["hits_at_1"].mean(1).std(ddof=1))
    assert ten.hits_at_1.value > hundred.hits_at_1.value > 0
    for name in POOL_MEASURES:
        interval = getattr(ten, name)
        assert interval.low <= interval.value <= interval.high
    alone = evaluate_soft(queries, candidates, ids, ids, (10,), draws=1, resamples=200)[10]
    assert alone.spread == 0 and alone.draws == 1


@pytest.mark.parametrize(
    ("pools", "draws", "message"),
    [
        ((1,), 1, "pools: 1 is not possible; give whole numbers from 2 to 5"),
        ((6,), 1, "pools: 6 is not possible"),
        ((2.5,), 1, r"pools: 2\.5"),
        ((), 1, "pools: are empty"),
        ((2,), 0, "draws=0"),
    ],
)
def test_pools_that_cannot_be_are_refused(pools: Any, draws: int, message: str) -> None:
    with pytest.raises(ClaspError, match=message):
        soft_scores(np.eye(5), np.eye(5), range(5), range(5), pools, draws)


def test_vectors_that_cannot_be_are_refused() -> None:
    with pytest.raises(ClaspError, match="no candidate with the same id"):
        soft_scores(np.eye(2), np.eye(2), "ab", "ac", (2,))
    with pytest.raises(ClaspError, match="query_vectors"):
        soft_scores(np.eye(2) * np.nan, np.eye(2), "ab", "ab", (2,))


# The size of the pool ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("above", "wrong", "pool"), [(0, 6, 3), (2, 6, 3), (4, 6, 5), (6, 6, 7), (3, 9, 2), (5, 12, 9)]
)
def test_the_expected_scores_are_the_mean_over_all_pools(above: int, wrong: int, pool: int) -> None:
    """Every way to draw is tried."""
    ranks = [1 + sum(i < above for i in drawn) for drawn in itertools.combinations(range(wrong), pool - 1)]
    found = expected_scores(ranking_of([above + 1]), wrong, pool)
    for k in (1, 5, 10):
        assert found[f"hits_at_{k}"][0] == pytest.approx(np.mean([rank <= k for rank in ranks]))
    assert found["mrr"][0] == pytest.approx(np.mean([1 / rank for rank in ranks]))
    assert found["mean_rank"][0] == pytest.approx(np.mean(ranks))


def test_the_expected_scores_with_ties_are_the_mean_over_all_orders_and_pools() -> None:
    """Three wrong and two right candidates tie, one wrong one stands above and two below."""
    values = np.array([[0.9], [0.5], [0.5], [0.5], [0.1], [0.2], [0.5], [0.5]])
    ids = [*"uvwxyz", "q", "q"]
    ranking = rank_queries([[1.0]], values, ["q"], ids)
    for pool in (2, 4, 7):
        ranks = []
        for drawn in itertools.combinations(range(6), pool - 1):
            tied = sum(1 <= i <= 3 for i in drawn)
            for places in itertools.combinations(range(tied + 2), 2):  # where the two right ones stand
                ranks.append((1 + (0 in drawn) + places[0], 1 / math.comb(tied + 2, 2)))
        rank, weight = np.array(ranks).T
        found = expected_scores(ranking, 6, pool)
        assert found["hits_at_1"][0] == pytest.approx(((rank <= 1) * weight).sum() / weight.sum())
        assert found["mrr"][0] == pytest.approx((weight / rank).sum() / weight.sum())


def test_the_expected_scores_are_what_drawing_comes_to() -> None:
    queries, candidates = noisy_pairs(250, 1.2)
    ids = [i // 2 for i in range(250)]
    wrong = wrong_candidates(ids, ids)
    assert set(wrong.tolist()) == {248}
    ranking = rank_queries(queries, candidates, ids, ids)
    drawn = soft_scores(queries, candidates, ids, ids, (8, 60), draws=150)
    for pool in (8, 60):
        found = expected_scores(ranking, wrong, pool)
        for name in POOL_MEASURES:
            error = drawn[pool][name].std(0, ddof=1) / np.sqrt(150)  # (queries,)
            difference = drawn[pool][name].mean(0) - found[name]
            assert abs(difference.mean()) < 4 * np.sqrt((error**2).sum()) / 250 + 1e-9, name


def test_the_curve_ends_at_the_whole_pool_and_never_rises() -> None:
    queries, candidates = noisy_pairs(90, 1.0)
    ids = list(range(90))
    ranking = rank_queries(queries, candidates, ids, ids)
    curve = pool_curve(ranking, 89, ids, resamples=200, seed=7)
    assert [point.pool for point in curve][:: len(curve) - 1] == [2, 90]
    assert all((point.n, point.draws, point.seed, point.spread) == (90, 0, 7, 0) for point in curve)
    for name, values in per_query(ranking).items():
        if name in POOL_MEASURES:
            assert getattr(curve[-1], name).value == pytest.approx(values.mean()), name
    for name in ("hits_at_1", "mrr"):
        scores = [getattr(point, name).value for point in curve]
        assert scores == sorted(scores, reverse=True) and scores[0] > scores[-1]
        assert all(getattr(point, name).low <= getattr(point, name).value for point in curve)
    assert [point.pool for point in pool_curve(ranking, 89, ids, pools=(5, 3), resamples=50)] == [5, 3]


def test_a_guess_is_worth_the_chance_in_every_pool() -> None:
    same = np.ones((400, 4))
    ranking = rank_queries(same, same, range(400), range(400))
    for pool in (2, 10, 400):
        assert expected_scores(ranking, 399, pool)["hits_at_1"] == pytest.approx(np.full(400, 1 / pool))


def test_large_pools_lose_no_digits_that_matter() -> None:
    """Whole numbers of any length, against logarithms of factorials."""
    wrong, above, pool = 11_410, 37, 1000
    whole = math.comb(wrong, pool - 1)
    chances = [math.comb(above, x) * math.comb(wrong - above, pool - 1 - x) / whole for x in range(above + 1)]
    found = expected_scores(ranking_of([above + 1]), wrong, pool)
    assert found["hits_at_5"][0] == pytest.approx(sum(chances[:5]), abs=1e-8)
    assert found["mrr"][0] == pytest.approx(sum(p / (1 + x) for x, p in enumerate(chances)), abs=1e-6)


def test_rankings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ClaspError, match="ranks must be from 1"):
        expected_scores(ranking_of([0.5, 2]), 5, 3)
    with pytest.raises(ClaspError, match="ranks must be from 1"):
        expected_scores(ranking_of([7]), 5, 3)
    with pytest.raises(ClaspError, match="ranks must be from 1"):
        expected_scores(ranking_of([np.nan]), 5, 3)
    with pytest.raises(ClaspError, match=r"wrong: has shape \(3,\)"):
        expected_scores(ranking_of([1, 2]), np.array([5, 5, 5]), 3)
    with pytest.raises(ClaspError, match="whole numbers from 2 to 6"):
        expected_scores(ranking_of([1, 2]), np.array([5, 8]), 7)
    with pytest.raises(ClaspError, match="leaves out queries"):
        expected_scores(ranking_of([1, 2])._replace(kept=np.array([0, 2])), 5, 3)
    with pytest.raises(ClaspError, match="groups"):
        pool_curve(ranking_of([1, 2]), 5, [1])


def simulated(mean: float, spread: float, n: int, rng: np.random.Generator) -> Ranking:
    """Ranks in a world where a right candidate scores N(mean, spread) and the n - 1 wrong ones N(0, 1)."""
    from scipy.stats import norm

    return ranking_of(1 + rng.binomial(n - 1, norm.sf(rng.normal(mean, spread, n))))


def truth(mean: float, spread: float, pool: int) -> float:
    """HITS@1 in that world, with as many candidates as you like."""
    from scipy.stats import norm

    scores = norm.ppf((np.arange(100_000) + 0.5) / 100_000) * spread + mean
    return float(np.exp((pool - 1) * np.log1p(-norm.sf(scores))).mean())


def test_the_forecast_of_a_larger_pool_is_close_and_remembers_how_it_was_made() -> None:
    ranking = simulated(3, 1, 2000, np.random.default_rng(0))
    forecast = extrapolate(ranking, 1999, range(2000), 8000, "hits_at_1", resamples=300, seed=2)
    assert (forecast.measure, forecast.pool, forecast.measured) == ("hits_at_1", 8000, 2000)
    assert (forecast.n, forecast.seed) == (2000, 2)
    assert forecast.score.low < truth(3, 1, 8000) < forecast.score.high
    assert forecast.score.low < forecast.score.value < (ranking.rank == 1).mean()
    assert abs(forecast.missed) < 0.1
    assert forecast == extrapolate(ranking, 1999, range(2000), 8000, "hits_at_1", resamples=300, seed=2)
    pairs = [i // 4 for i in range(2000)]
    wider = extrapolate(ranking_of(np.repeat(ranking.rank[:500], 4)), 1999, pairs, 8000, resamples=300)
    narrow = extrapolate(ranking_of(np.repeat(ranking.rank[:500], 4)), 1999, range(2000), 8000, resamples=300)
    assert wider.score.high - wider.score.low > 1.3 * (narrow.score.high - narrow.score.low)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize(("mean", "spread"), [(2, 1), (3, 1), (3, 0.6), (4, 1.5), (5, 2)])
def test_forecasts_hold_the_truth_about_as_often_as_they_say(mean: float, spread: float, factor: int) -> None:
    rng, n, held = np.random.default_rng(1), 1000, 0
    expected = truth(mean, spread, n * factor)
    for _ in range(100):
        forecast = extrapolate(simulated(mean, spread, n, rng), n - 1, range(n), n * factor, "hits_at_1", 200)
        held += forecast.score.low <= expected <= forecast.score.high
    print(f"N({mean}, {spread}) x{factor}: {held} of 100")
    assert held >= 85


def test_forecasts_that_go_too_far_are_refused() -> None:
    ranking = simulated(3, 1, 400, np.random.default_rng(0))
    with pytest.raises(ClaspError, match="at most 1600"):
        extrapolate(ranking, 399, range(400), 1601)
    with pytest.raises(ClaspError, match="more than that"):
        extrapolate(ranking, 399, range(400), 400)
    with pytest.raises(ClaspError, match="mean_rank"):
        extrapolate(ranking, 399, range(400), 800, "mean_rank")
    with pytest.raises(ClaspError, match="too few"):
        extrapolate(ranking_of([1, 2, 3]), 50, range(3), 100)
    with pytest.raises(ClaspError, match="hits_at_1 is 0"):
        extrapolate(ranking_of(np.full(400, 9)), 399, range(400), 800, "hits_at_1")
    with pytest.raises(ClaspError, match="groups"):
        extrapolate(ranking, 399, range(3), 800)


# Groups ------------------------------------------------------------------------------------------------------------


def test_groups_are_ranked_in_the_whole_pool_and_add_up_to_it() -> None:
    queries, candidates = noisy_pairs(120, 1.0)
    ids = list(range(120))
    voices = ["anna" if i < 100 else "bert" for i in ids]
    queries[100:] *= -1  # bert is never understood
    anna, bert = evaluate_groups(queries, candidates, ids, ids, voices, seed=4)
    assert (anna.group, anna.n, anna.sentences, anna.candidates, anna.seed) == ("anna", 100, 100, 120, 4)
    assert (bert.group, bert.n, bert.own_pool, bert.small, anna.small) == ("bert", 20, False, True, False)
    assert set(anna.measures) == set(MEASURES)
    whole = per_query(rank_queries(queries, candidates, ids, ids))
    for name, values in whole.items():
        assert anna.measures[name].value == pytest.approx(values[:100].mean())
        mean = (100 * anna.measures[name].value + 20 * bert.measures[name].value) / 120
        assert mean == pytest.approx(values.mean())
    assert anna.measures["hits_at_1"].low > bert.measures["hits_at_1"].high


def test_the_own_pool_holds_only_what_is_right_for_the_group() -> None:
    """The only candidate that beats the right ones belongs to the other group."""
    candidates = np.array([[1.0, 0], [0.9, 0.1], [5, 5]])
    arguments = (np.eye(2)[[0, 0, 1]], candidates, "abc", "abc", ["news", "news", "humor"])
    assert [r.measures["mean_rank"].value for r in evaluate_groups(*arguments)] == [1, 2.5]
    own = evaluate_groups(*arguments, own_pool=True)
    assert [(r.group, r.candidates, r.own_pool) for r in own] == [("humor", 1, True), ("news", 2, True)]
    assert own[1].measures["mean_rank"].value == 1.5


def test_a_small_group_is_counted_in_sentences_and_carries_a_warning() -> None:
    n = SMALL_GROUP - 1
    vectors = np.eye(n)
    many = evaluate_groups(np.repeat(vectors, 3, 0), vectors, list(np.repeat(range(n), 3)), range(n), [None] * 3 * n)
    assert many[0].small and (many[0].group, many[0].n, many[0].sentences) == ("(not given)", 3 * n, n)
    row = group_rows(many, ["hits_at_1"])[0]
    assert row["warning"].startswith("⚠") and row["n"] == 3 * n and row["hits_at_1"] == "1.000 [1.000, 1.000]"
    one_more = np.eye(n + 1)
    enough = evaluate_groups(one_more, one_more, range(n + 1), range(n + 1), [1] * (n + 1))
    assert group_rows(enough)[0]["warning"] == ""


def test_groups_come_in_the_order_of_their_names_and_numbers() -> None:
    names = ["10 to 12", "7 to 9", "", "b", float("nan"), "a"]
    reports = evaluate_groups(np.eye(6), np.eye(6), range(6), range(6), names)
    assert [r.group for r in reports] == ["7 to 9", "10 to 12", "(not given)", "a", "b"]
    with pytest.raises(ClaspError, match="groups: are 2"):
        evaluate_groups(np.eye(6), np.eye(6), range(6), range(6), names[:2])


def test_length_groups_are_about_equal_and_keep_equal_lengths_together() -> None:
    assert (
        length_groups([1, 2, 3, 4, 5, 6, 7, 8], 4) == ["1 to 2"] * 2 + ["3 to 4"] * 2 + ["5 to 6"] * 2 + ["7 to 8"] * 2
    )
    assert length_groups([8, 1, 1, 1, 1, 1], 3) == ["8"] + ["1"] * 5
    assert length_groups([2.5, 0.5], 2) == ["2.5", "0.5"]
    sizes = np.unique(length_groups(np.random.default_rng(0).random(1000), 5), return_counts=True)[1]
    assert sizes.tolist() == [200] * 5
    with pytest.raises(ClaspError, match="lengths"):
        length_groups([1, np.nan])
    with pytest.raises(ClaspError, match="parts=1"):
        length_groups([1, 2], 1)


# Duplicates --------------------------------------------------------------------------------------------------------


def test_equal_texts_become_one_id() -> None:
    merged = merge_duplicates(["Yes.", "No!", "yes", "Perhaps", "YES "], ["a", "b", "c", "d", "a"])
    assert merged.ids == ["a", "b", "a", "d", "a"]
    assert merged.classes == [("a", "c")] and merged.merged == 1
    assert merge_duplicates([], []).ids == []


def test_equality_goes_on_from_text_to_id_to_text() -> None:
    """a and b share "one", b and c share "two"; what nothing is left of is compared as it is."""
    merged = merge_duplicates(["two", "one", "One", "Two!", "?!", "...", "?!"], ["c", "a", "b", "b", 4, 5, 6])
    assert merged.ids == ["c", "c", "c", "c", 4, 5, 4]
    assert merged.classes == [("c", "a", "b"), (4, 6)] and merged.merged == 3


def test_merged_ids_undo_the_harm_of_duplicates() -> None:
    vectors = np.array([[1.0, 0], [1, 0], [0, 1]])
    texts = ["Good day.", "good day", "Night"]
    before = evaluate_groups(vectors, vectors, range(3), range(3), [0] * 3)[0]
    ids = merge_duplicates(texts, range(3)).ids
    after = evaluate_groups(vectors, vectors, ids, ids, [0] * 3)[0]
    assert before.measures["hits_at_1"].value < 1 == after.measures["hits_at_1"].value
    with pytest.raises(ClaspError, match="ids: are 2"):
        merge_duplicates(texts, [1, 2])


# Leaks -------------------------------------------------------------------------------------------------------------

TRAIN = [
    {"text": "The boat left at dawn.", "speaker": "p1", "voice": "f1"},
    {"text": "Nobody knew the way home in that cold winter night.", "speaker": "p2", "voice": "f2"},
    {"text": "Bread", "speaker": None, "voice": "f3"},
]
TEST = [
    {"text": "Quite another thing", "speaker": "p9", "voice": "m1"},
    {"text": "the boat left, at dawn", "speaker": "p2", "voice": "m1"},
    {"text": "Nobody knew the way home in that cold winter.", "speaker": None, "voice": "m2"},
    {"text": "Milk", "speaker": "p2", "voice": ""},
]


def test_leaks_are_found_and_counted() -> None:
    leaks = find_leaks(TRAIN, TEST)
    text, near, speaker = leaks.found
    assert (text.column, text.rows, text.shared, text.n) == ("text", [1], ["the boat left, at dawn"], 4)
    assert (near.column, near.rows) == ("near text", [2])
    assert (speaker.column, speaker.rows, speaker.shared) == ("speaker", [1, 3], ["p2"])
    assert leaks.checked == ["text", "speaker", "voice", "near text"] and leaks.unchecked == []
    assert leaks.to_dict()["found"]["speaker"] == {"shared": 1, "rows": 2, "n": 4}
    assert [leak.column for leak in find_leaks(TRAIN, TEST, ["voice"]).found] == []
    assert [leak.column for leak in find_leaks(TRAIN, TEST, near=None).found] == ["text", "speaker"]


def test_a_person_is_never_named() -> None:
    leaks = find_leaks(TRAIN, TEST)
    assert "p2" not in str(leaks) + repr(leaks) + str(leaks.to_dict())
    assert "speaker: 1 shared, in 2 of 4 test rows (rows 1, 3)" in str(leaks)


def test_any_kind_of_table_will_do() -> None:
    import pandas as pd
    from datasets import Dataset

    def columns(rows: list[dict]) -> dict[str, list]:
        return {name: [row[name] for row in rows] for name in rows[0]}

    expected = find_leaks(TRAIN, TEST)
    for table in (columns, pd.DataFrame, Dataset.from_list):
        assert find_leaks(table(TRAIN), table(TEST)) == expected
        assert find_leaks(TRAIN, table(TEST)) == expected


def test_columns_that_one_side_lacks_are_named_and_those_asked_for_must_be_there() -> None:
    rows = [{"text": "a"}]
    leaks = find_leaks(rows, [{"text": "b", "voice": "v"}])
    assert leaks == Leaks([], ["text", "near text"], ["speaker", "voice"])
    assert str(leaks) == "nothing is shared\nchecked: text, near text\nnot checked: speaker, voice"
    with pytest.raises(
        DatasetError, match=r"columns voice: must be in both tables; train has text; test has text, voice"
    ):
        find_leaks(rows, [{"text": "b", "voice": "v"}], ["text", "voice"])
    with pytest.raises(DatasetError, match="must be in both"):
        find_leaks([], [])
    with pytest.raises(DatasetError, match="must be in both"):
        find_leaks(rows, rows, [])
    with pytest.raises(DatasetError, match="a str is no table"):
        find_leaks("text", rows)
    with pytest.raises(DatasetError, match="text 3: is a int"):
        find_leaks([{"text": 3}], rows)


def test_a_leaky_split_is_refused_unless_told() -> None:
    with pytest.raises(DatasetError) as error:
        refuse_leaks(TRAIN, TEST)
    message = str(error.value)
    for part in ("text: 1 shared, in 1 of 4", "'the boat left, at dawn'", "near text: 1", "speaker: 1", "allow="):
        assert part in message
    assert refuse_leaks(TRAIN, TEST, allow=True) == find_leaks(TRAIN, TEST)
    assert len(refuse_leaks(TRAIN, TEST, allow=("text", "near text", "speaker")).found) == 3
    with pytest.raises(
        DatasetError, match=r"^the test has been seen in training; speaker: 1 .*allow=\('speaker',\)\.$"
    ):
        refuse_leaks(TRAIN, TEST, allow=("text", "near text"))
    assert refuse_leaks(TRAIN[2:], TEST[:1]).found == []
    for wrong in ("text", ["texts"]):
        with pytest.raises(ClaspError, match="allow="):
            refuse_leaks(TRAIN, TEST, allow=wrong)


def test_many_shared_values_are_not_all_shown() -> None:
    rows = [{"text": f"Sentence {i}", "voice": f"v{i}"} for i in range(9)]
    text, voice = find_leaks(rows, rows[::-1]).found
    assert text.example == "'Sentence 8', 'Sentence 7', 'Sentence 6', ..."
    assert voice.example == "rows 0, 1, 2, ..."


def test_near_duplicates_are_those_of_the_plain_definition() -> None:
    """Against all pairs, one by one; few words, so that many texts meet."""
    rng = np.random.default_rng(0)
    train, test = (
        [" ".join(f"w{word}" for word in rng.zipf(1.3, rng.integers(0, 9)) % 40) for _ in range(n)] for n in (300, 120)
    )
    sets = [[set(normalise_text(text).split()) for text in side] for side in (train, test)]
    for threshold in (0.3, 0.5, 0.75, 0.8, 1.0):
        expected = {
            (i, j): len(a & b) / len(a | b)
            for (i, a), (j, b) in itertools.product(enumerate(sets[0]), enumerate(sets[1]))
            if a and b and len(a & b) >= threshold * len(a | b) - 1e-9
        }
        found = {(i, j): similarity for i, j, similarity in near_duplicates(train, test, threshold)}
        assert found == pytest.approx(expected)
        assert len(expected) > 20
    assert near_duplicates([], ["a"]) == near_duplicates(["a"], []) == near_duplicates(["", "?"], ["", "!"]) == []
    with pytest.raises(ClaspError, match="threshold 0"):
        near_duplicates(["a"], ["a"], 0)


def test_near_duplicates_without_spaces_are_found_by_letters() -> None:
    train = ["我们今天一起去学校看老师", "他昨天买了一本新书"]
    assert [pair[:2] for pair in near_duplicates(train, ["我们今天一起去学校看老师吧", "天气很好"])] == [(0, 0)]


def test_the_split_of_pocket_brown_shares_no_text() -> None:
    splits = split_by_text(pocket_brown())
    train, test = ([{"text": s.text} for s in splits[name]] for name in ("train", "test"))
    assert [leak.column for leak in find_leaks(train, test, near=None).found] == []
    leaky = find_leaks(train, test + train[:5], near=None).found[0]
    assert (
        len(leaky.rows) == len(leaking_texts([row["text"] for row in train[:5]], [row["text"] for row in train])) == 5
    )
