"""Measures against brute force over scores with ties, several positives and repeated queries."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from clasp_lib.errors import ClaspError
from clasp_lib.metrics import MEASURES, Interval, Ranking, bootstrap, per_query, rank_queries


def scores_to_vectors(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Query and candidate vectors whose dot products are exactly the given scores (small whole numbers)."""
    return scores.astype(np.float32), np.eye(scores.shape[1], dtype=np.float32)


def rank_by_hand(scores: np.ndarray, query_ids: list, candidate_ids: list) -> list[float]:
    ranks = []
    for row, query in zip(scores, query_ids, strict=True):
        best = max(s for s, c in zip(row, candidate_ids, strict=True) if c == query)
        wrong = [s for s, c in zip(row, candidate_ids, strict=True) if c != query]
        ranks.append(1 + sum(s > best for s in wrong) + sum(s == best for s in wrong) / 2)
    return ranks


@pytest.mark.parametrize("seed", range(20))
def test_ranks_are_those_of_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, queries = int(rng.integers(1, 40)), int(rng.integers(1, 30))
    candidate_ids = [f"text {i}" for i in rng.integers(0, max(1, n // 2), n)]
    query_ids = list(rng.choice(candidate_ids, queries))
    scores = rng.integers(0, 6, (queries, n))  # few values, so that ties abound
    ranking = rank_queries(*scores_to_vectors(scores), query_ids, candidate_ids, chunk_size=7)
    assert ranking.rank.tolist() == rank_by_hand(scores, query_ids, candidate_ids)


def test_a_tie_counts_half() -> None:
    scores = np.array([[3, 3, 3, 1], [2, 5, 2, 2], [0, 0, 0, 0], [9, 1, 1, 9]])
    ranking = rank_queries(*scores_to_vectors(scores), ["a", "a", "d", "a"], ["a", "b", "c", "d"])
    assert ranking.rank.tolist() == [2, 3, 2.5, 1.5]
    values = per_query(ranking)
    assert values["hits_at_1"].tolist() == [0, 0, 0, 0]
    assert values["hits_at_5"].tolist() == [1, 1, 1, 1]
    assert values["mrr"].tolist() == [1 / 2, 1 / 3, 1 / 2.5, 1 / 1.5]
    assert values["mean_rank"].tolist() == ranking.rank.tolist()


@pytest.mark.parametrize("candidates", [3, 10, 60])
def test_ndcg_is_sklearns(candidates: int) -> None:
    rng = np.random.default_rng(candidates)
    candidate_ids = rng.integers(0, max(1, candidates // 4), candidates).tolist()
    query_ids = rng.choice(candidate_ids, 40).tolist()
    queries, vectors = rng.standard_normal((40, 8)), rng.standard_normal((candidates, 8))
    ranking = rank_queries(queries, vectors, query_ids, candidate_ids)
    scores = queries @ vectors.T
    for row, query in enumerate(query_ids):
        right = np.array([[c == query for c in candidate_ids]], float)
        assert ranking.ndcg_at_10[row] == pytest.approx(ndcg_score(right, scores[row : row + 1], k=10))


def test_more_than_ten_positives_can_fill_the_first_ten_places() -> None:
    scores = np.arange(30)[None]
    ranking = rank_queries(*scores_to_vectors(scores), ["a"], ["b"] * 10 + ["a"] * 20)
    assert ranking.rank.tolist() == [1] and ranking.ndcg_at_10[0] == pytest.approx(1)


def test_perfect_and_random_vectors_are_where_they_belong() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((400, 64))
    perfect = bootstrap(rank_queries(vectors, vectors, range(400), range(400)), range(400))
    assert perfect["hits_at_1"] == perfect["mrr"] == perfect["mean_rank"] == (1, 1, 1)
    chance = bootstrap(rank_queries(rng.standard_normal((400, 64)), vectors, range(400), range(400)), range(400))
    assert chance["mean_rank"].low < 200.5 < chance["mean_rank"].high
    assert chance["mrr"].value == pytest.approx(sum(1 / r for r in range(1, 401)) / 400, abs=0.01)


# Intervals ---------------------------------------------------------------------------------------------------------


def ranking(seed: int, n: int) -> Ranking:
    rng = np.random.default_rng(seed)
    return Ranking(1.0 + rng.geometric(0.3, n), rng.random(n))


def test_intervals_hold_their_value_and_repeat() -> None:
    for n in (1, 2, 50):
        result = bootstrap(ranking(0, n), range(n), seed=1)
        assert tuple(result) == MEASURES
        for interval in result.values():
            assert interval.low <= interval.value <= interval.high
        assert result == bootstrap(ranking(0, n), range(n), seed=1)
    assert result != bootstrap(ranking(0, 50), range(50), seed=2)
    ranks = ranking(0, 50).rank
    assert result["median_rank"].value == np.median(ranks) and result["mean_rank"].value == ranks.mean()
    assert result["hits_at_5"].value == (ranks <= 5).mean()


def test_the_interval_is_that_of_theory() -> None:
    """For a mean of many values a 95% interval is 1.96 standard errors to each side."""
    ranks = ranking(3, 2000)
    interval = bootstrap(ranks, range(2000))["mrr"]
    error = (1 / ranks.rank).std() / np.sqrt(2000)
    assert interval.low == pytest.approx(interval.value - 1.96 * error, abs=0.25 * error)
    assert interval.high == pytest.approx(interval.value + 1.96 * error, abs=0.25 * error)


def test_recordings_of_one_sentence_are_drawn_together() -> None:
    """Ten copies of each query hold no more evidence than one."""
    alone = ranking(0, 40)
    copies = Ranking(*(np.repeat(values, 10) for values in alone))
    wide = bootstrap(alone, range(40))
    grouped = bootstrap(copies, np.repeat(np.arange(40), 10).tolist())
    careless = bootstrap(copies, range(400))
    assert grouped["mrr"] == pytest.approx(wide["mrr"])
    assert grouped["median_rank"] == pytest.approx(wide["median_rank"])
    assert careless["mrr"].high - careless["mrr"].low < 0.5 * (wide["mrr"].high - wide["mrr"].low)


def test_an_interval_reads_well() -> None:
    assert str(Interval(0.12345, 0.1, 0.2)) == "0.123 [0.100, 0.200]"
    assert str(Interval(123.45, 99.0, 150.0)) == "123.5 [99.0, 150.0]" or str(Interval(123.45, 99.0, 150.0)).startswith(
        "123.4"
    )


# What is refused ---------------------------------------------------------------------------------------------------

GOOD = np.eye(3)


@pytest.mark.parametrize(
    ("queries", "candidates", "query_ids", "candidate_ids", "message"),
    [
        (GOOD[0], GOOD, "abc", "abc", r"query_vectors.*\(3,\)"),
        (GOOD, GOOD[:, :, None], "abc", "abc", r"candidate_vectors.*\(3, 3, 1\)"),
        (GOOD[:0], GOOD, "", "abc", "query_vectors.*at least one row"),
        (GOOD, GOOD[:0], "abc", "", "candidate_vectors.*at least one row"),
        (GOOD, GOOD[:, :2], "abc", "abc", "3 wide, candidate vectors 2"),
        (GOOD, GOOD, "ab", "abc", "3 rows, but there are 2 query_ids"),
        (GOOD, GOOD, "abc", "abcd", "3 rows, but there are 4 candidate_ids"),
        (GOOD * np.nan, GOOD, "abc", "abc", "query_vectors.*NaN"),
        (GOOD, np.where(GOOD > 0, np.inf, 0), "abc", "abc", "candidate_vectors.*infinite"),
        (GOOD, GOOD, "abx", "abc", "'x'"),
    ],
)
def test_what_cannot_be_ranked_is_refused(
    queries: np.ndarray, candidates: np.ndarray, query_ids: str, candidate_ids: str, message: str
) -> None:
    with pytest.raises(ClaspError, match=message):
        rank_queries(queries, candidates, list(query_ids), list(candidate_ids))
