"""Measures against brute force and trec_eval, over scores with ties, several positives and repeated queries."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score

from clasp_lib import metrics
from clasp_lib.errors import ClaspError
from clasp_lib.metrics import (
    MEASURES,
    Interval,
    Ranking,
    bootstrap,
    equal_rows,
    hits_at,
    per_query,
    rank_queries,
    reciprocal_rank,
)


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


def case(seed: int, n: int, queries: int, distinct: int) -> tuple[np.ndarray, list[str], list[str]]:
    """Scores of few different values, and ids of which several candidates share one."""
    rng = np.random.default_rng(seed)
    candidate_ids = [f"text {i}" for i in rng.integers(0, max(1, n // 3), n)]
    return rng.integers(0, distinct, (queries, n)), list(rng.choice(candidate_ids, queries)), candidate_ids


def by_order(right: np.ndarray) -> dict[str, float]:
    """All measures of one query whose candidates, best first, are right or not: by the definitions, no ties."""
    places = np.flatnonzero(right) + 1
    values = {f"hits_at_{k}": float((places <= k).any()) for k in (1, 3, 5, 10)}
    values |= {"mrr": 1 / places[0], "map": float(np.mean(np.arange(1, len(places) + 1) / places))}
    for k in (3, 10):
        ideal = sum(1 / np.log2(i + 1) for i in range(1, min(k, len(places)) + 1))
        values[f"ndcg_at_{k}"] = sum(1 / np.log2(i + 1) for i in places if i <= k) / ideal
    return values


@pytest.mark.parametrize("seed", range(6))
def test_expected_measures_are_the_mean_over_all_orders_of_what_ties(seed: int) -> None:
    """Every order of six candidates that agrees with the scores, each as likely."""
    scores, query_ids, candidate_ids = case(seed, 6, 8, 1 + seed % 3)
    found = per_query(rank_queries(*scores_to_vectors(scores), query_ids, candidate_ids, cutoffs=[3]))
    for row, query in enumerate(query_ids):
        right = np.array([c == query for c in candidate_ids])
        orders = [o for o in map(list, permutations(range(6))) if (np.diff(scores[row][o]) <= 0).all()]
        values = [by_order(right[order]) for order in orders]
        for name in values[0]:
            assert found[name][row] == pytest.approx(np.mean([v[name] for v in values])), name


@pytest.mark.parametrize("seed", range(6))
def test_optimistic_ties_put_what_is_right_first(seed: int) -> None:
    scores, query_ids, candidate_ids = case(seed, 25, 20, 4)
    ranking = rank_queries(*scores_to_vectors(scores), query_ids, candidate_ids, ties="optimistic", cutoffs=[3])
    found = per_query(ranking)
    for row, query in enumerate(query_ids):
        right = np.array([c == query for c in candidate_ids])
        ordered = right[np.lexsort((~right, -scores[row]))]
        for name, value in by_order(ordered).items():
            assert found[name][row] == pytest.approx(value), name
        assert ranking.rank[row] == np.flatnonzero(ordered)[0] + 1
    assert all(values.dtype == float for values in found.values())  # a mean of booleans would do, a difference not


def test_the_rule_of_the_reference_leaves_out_a_wrong_top_hit_that_ties() -> None:
    scores = np.array([[3, 3, 3, 1], [3, 3, 3, 1], [3, 3, 3, 1], [0, 5, 5, 5], [5, 0, 1, 1], [2, 9, 9, 1]])
    query_ids = ["a", "b", "c", "a", "c", "a"]
    ranking = rank_queries(*scores_to_vectors(scores), query_ids, list("abcd"), ties="skip", chunk_size=2)
    assert ranking.kept is not None
    # b and c find a first, which ties with them; a finds itself first. The others' ties are not with their own.
    assert ranking.kept.tolist() == [0, 3, 4, 5]
    assert ranking.rank.tolist() == [1, 4, 2, 3]
    result = bootstrap(ranking, query_ids, resamples=50)
    assert result["hits_at_1"].value == 0.25 and result["mrr"].value == pytest.approx((1 + 1 / 4 + 1 / 2 + 1 / 3) / 4)
    with pytest.raises(ClaspError, match="leaves out every query"):
        rank_queries(np.ones((1, 2)), np.ones((2, 2)), ["b"], ["a", "b"], ties="skip")


def test_of_candidates_that_are_the_same_the_rule_of_the_reference_keeps_one_query_each() -> None:
    """As in the published test set, where 11 411 texts are 11 056 different ones: all copies but the first are lost."""
    vectors = np.random.default_rng(0).standard_normal((30, 8))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True))[np.arange(50) % 30]
    lenient = rank_queries(vectors, vectors, range(50), range(50), ties="skip")
    assert lenient.kept is not None and lenient.kept.tolist() == list(range(30)) and set(lenient.rank) == {1}
    honest = per_query(rank_queries(vectors, vectors, range(50), range(50)))
    assert honest["hits_at_1"].mean() == (10 + 40 / 2) / 50


@pytest.mark.parametrize("ties", ["expected", "optimistic"])
@pytest.mark.parametrize("distinct", [3, 10_000])
def test_chunks_and_ways_to_count_do_not_matter(monkeypatch: pytest.MonkeyPatch, ties: str, distinct: int) -> None:
    scores, query_ids, candidate_ids = case(1, 90, 70, distinct)
    whole = rank_queries(*scores_to_vectors(scores), query_ids, candidate_ids, ties=ties, cutoffs=[2, 500])
    for few in (0, 2, 100):  # all by sorting, some, none
        monkeypatch.setattr(metrics, "_FEW", few)
        for size in (1, 13, 1_000):
            parts = rank_queries(
                *scores_to_vectors(scores), query_ids, candidate_ids, size, ties=ties, cutoffs=[2, 500]
            )
            for name, values in per_query(whole).items():
                assert per_query(parts)[name].tolist() == values.tolist(), (name, few, size)


def test_the_whole_matrix_is_never_held(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    sizes: list[int] = []
    product = torch.mm

    def watched(*arguments: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(out.shape))
        sizes.append(out.untyped_storage().nbytes() // 4)
        return product(*arguments, out=out)

    monkeypatch.setattr(torch, "mm", watched)
    monkeypatch.setattr(metrics, "_CELLS", 1_000)
    vectors = np.random.default_rng(0).standard_normal((150, 8))
    rank_queries(vectors, vectors, range(150), range(150))
    assert shapes == [(6, 150)] * 25
    rank_queries(vectors[:3], np.repeat(vectors, 10, 0), range(3), np.repeat(range(150), 10).tolist())
    assert shapes[25:] == [(1, 1500)] * 3  # at least one query at a time
    rank_queries(vectors, vectors, range(150), range(150), chunk_size=60)
    assert shapes[28:] == [(60, 150), (60, 150), (30, 150)]
    rank_queries(vectors[:2], vectors, range(2), range(150))
    assert sizes == [6 * 150] * 25 + [1500] * 3 + [60 * 150] * 3 + [2 * 150]  # nor is more asked for


def test_a_system_that_ties_everything_is_worth_a_guess() -> None:
    n = 50
    values = per_query(rank_queries(np.ones((n, 8)), np.ones((n, 8)), range(n), range(n), cutoffs=[20]))
    places = np.arange(1, n + 1)
    assert values["mean_rank"].tolist() == [(n + 1) / 2] * n
    for k in (1, 5, 10, 20):
        assert values[f"hits_at_{k}"] == pytest.approx(np.full(n, k / n))
    assert values["mrr"] == pytest.approx(np.full(n, (1 / places).mean()))
    assert values["map"] == pytest.approx(values["mrr"])
    assert values["ndcg_at_10"] == pytest.approx(np.full(n, (1 / np.log2(places[:10] + 1)).sum() / n))


def test_copies_of_a_candidate_tie_however_the_product_rounds() -> None:
    """In a matrix product the last columns may be summed in another order than the others."""
    rng = np.random.default_rng(0)
    for candidates, width, queries in ((999, 384, 7), (37, 16, 5), (1003, 768, 1)):
        vectors = np.repeat(rng.standard_normal((1, width)), candidates, 0).astype(np.float32)
        vectors[::2] *= -1  # half of them opposite, and with zeros of either sign
        vectors[:, 0] = np.where(np.arange(candidates) % 2, 0.0, -0.0)
        asked = rng.standard_normal((queries, width))
        ranking = rank_queries(asked, vectors, [0] * queries, [0] + list(range(candidates - 1)))
        assert ranking.tied is not None
        same = (candidates + 1) // 2  # of an even number: itself, the first negative, and the other even ones
        for tied, rank in zip(ranking.tied, ranking.rank):
            assert sum(tied) in (same, candidates - same)
            assert rank == 1 + tied[0] / 2


def test_any_k_has_its_hits_and_ndcg() -> None:
    scores, query_ids, candidate_ids = case(5, 40, 30, 8)
    ranking = rank_queries(*scores_to_vectors(scores), query_ids, candidate_ids, cutoffs=[2, 40, 100])
    hits = np.array([hits_at(ranking, k) for k in range(1, 41)])
    assert (np.diff(hits, axis=0) >= -1e-12).all() and hits[-1].tolist() == [1] * 30
    # HITS@k is the chance of a rank of at most k, so that both add up to the mean rank of the first positive.
    reciprocal = (np.diff(hits, axis=0, prepend=0) / np.arange(1, 41)[:, None]).sum(0)
    assert reciprocal == pytest.approx(reciprocal_rank(ranking))
    values = per_query(ranking)
    assert [name for name in values if name not in MEASURES] == [
        f"{name}_at_{k}" for k in (2, 40, 100) for name in ("hits", "ndcg")
    ]
    assert values["ndcg_at_40"] == pytest.approx(values["ndcg_at_100"])
    assert tuple(bootstrap(ranking, query_ids, 50))[: len(MEASURES)] == MEASURES
    assert "ndcg_at_100" in bootstrap(ranking, query_ids, 50)


def test_no_more_than_sixteen_megabytes_of_scores_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    product = torch.mm

    def watched(*arguments: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(out.shape))
        return product(*arguments, out=out)

    monkeypatch.setattr(torch, "mm", watched)
    angles = np.linspace(0, 1, 2049)
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1)
    ranks = rank_queries(vectors, vectors[:2048], [*range(2048), 0], range(2048)).rank
    assert shapes == [(2048, 2048), (1, 2048)]  # 4 bytes each
    assert ranks[-1] == 2048 and ranks[:-1].max() < 3  # neighbours may round alike


def test_copies_are_found_however_many_rows_there_are() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((5_000, 3)).astype(np.float32)
    vectors[[7, 1_023, 1_024, 4_999]] = vectors[[3, 0, 1_022, 2_048]]
    vectors[4_000] = vectors[7]  # and a copy of a copy
    copies, originals = equal_rows(vectors)
    assert dict(zip(copies.tolist(), originals.tolist())) == {7: 3, 1_023: 0, 1_024: 1_022, 4_000: 3, 4_999: 2_048}
    assert len(equal_rows(vectors[8:1_000])[0]) == 0
    signs = np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, -1.0], [1.0, 0.0], [1.0, -0.0]], np.float32)
    copies, originals = equal_rows(signs)
    assert copies.tolist() == [1, 4] and originals.tolist() == [0, 3]


def test_rows_that_differ_in_one_bit_or_in_their_order_are_no_copies() -> None:
    bits = np.zeros((1 + 2 * 30, 2), np.uint32)
    bits[1:31, 0] = bits[31:, 1] = 1 << np.arange(30)  # the highest two would make infinities
    assert len(equal_rows(bits.view(np.float32))[0]) == 0
    turned = np.array([[1, 2, 3], [3, 2, 1], [2, 1, 3], [1, 2, 3]], np.float32)
    assert [part.tolist() for part in equal_rows(turned)] == [[3], [0]]


def test_what_is_left_unsaid_is_what_reports_say() -> None:
    scores, query_ids, candidate_ids = case(4, 30, 20, 5)
    found = rank_queries(*scores_to_vectors(scores), query_ids, candidate_ids)
    said = rank_queries(*scores_to_vectors(scores), query_ids, candidate_ids, None, "cpu", "expected", ())
    for one, two in zip(per_query(found).values(), per_query(said).values(), strict=True):
        assert one.tolist() == two.tolist()
    assert (
        found.kept is None
        and found.ndcg_at == {}
        and tuple(per_query(found)) == tuple(name for name in MEASURES if name != "median_rank")
    )
    assert bootstrap(found, query_ids) == bootstrap(found, query_ids, resamples=1_000, seed=0, method="bca")


def test_what_a_ranking_holds_of_further_k_is_read_only() -> None:
    for one in (ranking(0, 3), rank_queries(GOOD, GOOD, "abc", "abc", cutoffs=[2])):
        with pytest.raises(TypeError):
            one.ndcg_at[5] = one.rank  # type: ignore[index]


def test_a_ranking_without_average_precisions_has_no_map() -> None:
    some = Ranking(*ranking(0, 5)[:2])
    assert "map" not in per_query(some)
    assert tuple(bootstrap(some, range(5), 20)) == tuple(name for name in MEASURES if name != "map")


def test_no_measure_passes_what_is_perfect_by_rounding() -> None:
    for n in range(2, 60):
        ids = ["a"] * (n // 2) + ["b"] * (n - n // 2)
        scores = np.where(np.array(ids) == "a", 2, 1)[None]  # all that is right ties above all that is wrong
        found = per_query(rank_queries(*scores_to_vectors(scores), ["a"], ids, cutoffs=range(1, 12)))
        for name, values in found.items():
            assert values[0] <= 1 and values[0] == pytest.approx(1), (name, n)


# trec_eval ---------------------------------------------------------------------------------------------------------

TREC = {"map": "map", "mrr": "recip_rank", "ndcg_at_10": "ndcg_cut_10"} | {
    f"hits_at_{k}": f"success_{k}" for k in (1, 5, 10)
}


def of_trec_eval(scores: np.ndarray, query_ids: list[str], candidate_ids: list[str]) -> dict[str, np.ndarray]:
    """The same measures of trec_eval, which breaks ties by the candidates' names: give it none."""
    import pytrec_eval

    right = {
        str(row): {str(i): 1 for i, c in enumerate(candidate_ids) if c == query} for row, query in enumerate(query_ids)
    }
    run = {str(row): {str(i): float(s) for i, s in enumerate(values)} for row, values in enumerate(scores)}
    judge = pytrec_eval.RelevanceEvaluator(right, {"map", "recip_rank", "ndcg_cut.10", "success.1,5,10"})
    found = judge.evaluate(run)
    return {name: np.array([found[str(row)][its] for row in range(len(scores))]) for name, its in TREC.items()}


@pytest.mark.parametrize("seed", range(8))
def test_without_ties_the_measures_are_those_of_trec_eval(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 60))
    _, query_ids, candidate_ids = case(seed, n, 25, 1)
    scores = np.array([rng.permutation(n) for _ in range(25)])
    expected = of_trec_eval(scores, query_ids, candidate_ids)
    for ties in ("expected", "optimistic", "skip"):
        found = per_query(rank_queries(*scores_to_vectors(scores), query_ids, candidate_ids, ties=ties))
        for name, values in expected.items():
            assert found[name] == pytest.approx(values, abs=1e-12), (ties, name)


def test_with_ties_they_are_the_mean_of_trec_eval_over_ties_broken_by_lot() -> None:
    rng, times = np.random.default_rng(4), 400
    scores, query_ids, candidate_ids = case(3, 30, 12, 5)
    drawn = [
        of_trec_eval(scores * 100 + np.array([rng.permutation(30) for _ in scores]), query_ids, candidate_ids)
        for _ in range(times)
    ]
    found = per_query(rank_queries(*scores_to_vectors(scores), query_ids, candidate_ids))
    for name in TREC:
        values = np.array([one[name] for one in drawn])  # (times, queries)
        error = values.std(0, ddof=1) / np.sqrt(times)
        assert (np.abs(found[name] - values.mean(0)) <= 4.5 * error + 1e-9).all(), name
    assert np.std([one["map"].mean() for one in drawn]) > 0.01  # and chance had a say


def test_ties_by_hand() -> None:
    scores = np.array([[3, 3, 3, 1], [2, 5, 2, 2], [0, 0, 0, 0], [9, 1, 1, 9]])
    ranking = rank_queries(*scores_to_vectors(scores), ["a", "a", "d", "a"], ["a", "b", "c", "d"])
    assert ranking.rank.tolist() == [2, 3, 2.5, 1.5]
    values = per_query(ranking)
    assert values["hits_at_1"] == pytest.approx(np.array([1 / 3, 0, 1 / 4, 1 / 2]))
    assert values["hits_at_5"] == pytest.approx(np.ones(4))
    first_of_three, second_to_fourth = (1 + 1 / 2 + 1 / 3) / 3, (1 / 2 + 1 / 3 + 1 / 4) / 3
    assert values["mrr"] == pytest.approx(np.array([first_of_three, second_to_fourth, (25 / 12) / 4, (1 + 1 / 2) / 2]))
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
    assert per_query(ranking)["map"].tolist() == [1]


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
    return Ranking(1.0 + rng.geometric(0.3, n), rng.random(n), rng.random(n))


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_intervals_hold_their_value_and_repeat(method: str) -> None:
    for n in (1, 2, 50):
        result = bootstrap(ranking(0, n), range(n), seed=1, method=method)
        assert tuple(result) == MEASURES
        for interval in result.values():
            assert interval.low <= interval.value <= interval.high
        assert result == bootstrap(ranking(0, n), range(n), seed=1, method=method)
    assert result != bootstrap(ranking(0, 50), range(50), seed=2, method=method)
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
    copies = Ranking(*(np.repeat(values, 10) for values in alone[:3]))
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
        ([[1.0], [1.0, 2.0]], GOOD, "ab", "abc", r"query_vectors: is no array of numbers.*\(n, d\)"),
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


def test_unknown_rules_and_places_are_refused() -> None:
    with pytest.raises(ClaspError, match=r"'pessimistic'.*expected, optimistic, skip"):
        rank_queries(GOOD, GOOD, "abc", "abc", ties="pessimistic")
    with pytest.raises(ClaspError, match=r"cutoffs: \[5, 0\]"):
        rank_queries(GOOD, GOOD, "abc", "abc", cutoffs=[5, 0])
    with pytest.raises(ClaspError, match="overflow"):  # though only one of the products does
        rank_queries(np.diag([1e30, 1, 1]), np.diag([1e30, 1, 1]), "abc", "abc")
    with pytest.raises(ClaspError, match="overflow"):
        rank_queries(GOOD * 1e30, GOOD * 1e30, "abc", "abc")
    with pytest.raises(ClaspError, match=r"'bayes'.*percentile, bca"):
        bootstrap(ranking(0, 5), range(5), method="bayes")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("ties", ["expected", "optimistic", "skip"])
def test_a_gpu_finds_the_same(ties: str) -> None:
    scores, query_ids, candidate_ids = case(2, 300, 200, 40)
    one, other = (
        rank_queries(*scores_to_vectors(scores), query_ids, candidate_ids, device=device, ties=ties)
        for device in ("cpu", "cuda")
    )
    for name, values in per_query(one).items():
        assert per_query(other)[name] == pytest.approx(values), name
