"""Laws of the measures of retrieval: what the order of rows, ties, chunks and further negatives may and may not do."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from clasp_lib.metrics import Ranking, bootstrap, hits_at, per_query, rank_queries
from hard.properties import holds


class Case(NamedTuple):
    """Small vectors of whole numbers, so that scores are exact and often tie; every query has a positive."""

    queries: np.ndarray
    candidates: np.ndarray
    query_ids: list[str]
    candidate_ids: list[str]

    def rank(self, **options: object) -> Ranking:
        return rank_queries(*self, **options)  # type: ignore[arg-type]


@st.composite
def cases(draw: st.DrawFn, most: int = 12) -> Case:
    width, n = draw(st.integers(1, 3)), draw(st.integers(1, most))
    numbers = st.lists(st.integers(-2, 2), min_size=width, max_size=width)
    candidates = draw(st.lists(numbers, min_size=n, max_size=n))
    ids = draw(st.lists(st.sampled_from("abcd"), min_size=n, max_size=n))
    asked = draw(st.lists(st.sampled_from(ids), min_size=1, max_size=5))
    queries = draw(st.lists(numbers, min_size=len(asked), max_size=len(asked)))
    return Case(np.array(queries, np.float32), np.array(candidates, np.float32), asked, ids)


def measures(ranking: Ranking) -> dict[str, np.ndarray]:
    return per_query(ranking)


def same(one: Ranking, other: Ranking) -> None:
    """To the last digit but one: sums may come in another order."""
    for (name, a), b in zip(measures(one).items(), measures(other).values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12, err_msg=name)


@holds(24, case=cases())
def test_measures_stay_within_their_bounds(case: Case) -> None:
    for ties in ("expected", "optimistic"):
        ranking = case.rank(ties=ties, cutoffs=(3,))
        found = measures(ranking)
        n = len(case.candidates)
        assert ((ranking.rank >= 1) & (ranking.rank <= n)).all()
        for name, values in found.items():
            assert values.shape == (len(case.queries),) and np.isfinite(values).all(), name
            if name != "mean_rank":
                assert (values >= 0).all() and (values <= 1).all(), name
        assert (found["mrr"] >= 1 / n - 1e-12).all() and (found["map"] > 0).all()
        chances = [hits_at(ranking, k) for k in range(1, n + 1)]
        assert all((less <= more + 1e-12).all() for less, more in itertools.pairwise(chances))
        np.testing.assert_allclose(chances[-1], 1)
        assert (found["mrr"] >= found["hits_at_1"] - 1e-12).all()


@holds(16, case=cases(most=5))
def test_expected_measures_are_the_mean_over_all_orders(case: Case) -> None:
    """By hand: every order of the candidates, of which those count that respect the scores."""
    found = measures(case.rank())
    scores = case.queries @ case.candidates.T
    for i, asked in enumerate(case.query_ids):
        sums: dict[str, list[float]] = {name: [] for name in ("hits_at_1", "mrr", "map", "ndcg_at_10")}
        for order in itertools.permutations(range(len(case.candidates))):
            if any(scores[i, a] < scores[i, b] for a, b in itertools.pairwise(order)):
                continue
            right = np.array([case.candidate_ids[j] == asked for j in order])
            places = np.flatnonzero(right) + 1
            sums["hits_at_1"].append(float(right[0]))
            sums["mrr"].append(1 / places[0])
            sums["map"].append(float(np.mean(np.arange(1, len(places) + 1) / places)))
            ideal = np.sum(1 / np.log2(np.arange(1, len(places) + 1) + 1))
            sums["ndcg_at_10"].append(float(np.sum(1 / np.log2(places + 1)) / ideal))
        for name, values in sums.items():
            np.testing.assert_allclose(found[name][i], np.mean(values), rtol=1e-9, err_msg=name)


@holds(24, case=cases(), seed=st.integers(0, 10**6))
def test_the_order_of_candidates_and_queries_does_not_matter(case: Case, seed: int) -> None:
    rng = np.random.default_rng(seed)
    order, asked = rng.permutation(len(case.candidates)), rng.permutation(len(case.queries))
    other = Case(
        case.queries[asked],
        case.candidates[order],
        [case.query_ids[i] for i in asked],
        [case.candidate_ids[i] for i in order],
    )
    for ties in ("expected", "optimistic"):
        one, two = measures(case.rank(ties=ties)), measures(other.rank(ties=ties))
        for name, values in one.items():
            np.testing.assert_allclose(values[asked], two[name], rtol=1e-12, atol=1e-12, err_msg=name)


@holds(16, case=cases(), size=st.integers(1, 4), power=st.integers(-20, 20))
def test_neither_chunks_nor_the_length_of_vectors_matter(case: Case, size: int, power: int) -> None:
    whole = case.rank()
    same(whole, case.rank(chunk_size=size))
    same(whole, case._replace(queries=case.queries * np.float32(2.0**power)).rank())


@holds(24, case=cases(), worst=st.lists(st.integers(-2, 2), min_size=3, max_size=3))
def test_another_wrong_candidate_makes_nothing_better(case: Case, worst: list[int]) -> None:
    further = np.array(worst[: case.candidates.shape[1]], np.float32)[None]
    more = case._replace(
        candidates=np.concatenate([case.candidates, further]), candidate_ids=[*case.candidate_ids, "nobody's"]
    )
    for ties in ("expected", "optimistic"):
        before, after = measures(case.rank(ties=ties)), measures(more.rank(ties=ties))
        for name, values in before.items():
            worse = after[name] - values if name == "mean_rank" else values - after[name]
            assert (worse >= -1e-12).all(), name


@holds(24, case=cases())
def test_who_gets_ties_for_free_is_never_worse(case: Case) -> None:
    lucky, fair = measures(case.rank(ties="optimistic")), measures(case.rank())
    for name, values in fair.items():
        better = values - lucky[name] if name == "mean_rank" else lucky[name] - values
        assert (better >= -1e-12).all(), name


@holds(12, case=cases(), copies=st.integers(2, 4))
def test_a_system_that_cannot_tell_anything_apart_is_worth_a_guess(case: Case, copies: int) -> None:
    blind = case._replace(candidates=np.tile(case.candidates[:1], (len(case.candidates), 1)))
    ranking = blind.rank()
    share = [case.candidate_ids.count(asked) / len(case.candidates) for asked in case.query_ids]
    np.testing.assert_allclose(hits_at(ranking, 1), share, rtol=1e-9)
    twice = blind._replace(queries=np.repeat(blind.queries, copies, 0), query_ids=np.repeat(case.query_ids, copies))
    np.testing.assert_allclose(np.repeat(hits_at(ranking, 1), copies), hits_at(twice.rank(), 1))


@holds(8, case=cases(), method=st.sampled_from(["bca", "percentile"]), seed=st.integers(0, 5))
def test_intervals_hold_their_value_within_what_was_measured(case: Case, method: str, seed: int) -> None:
    ranking = case.rank()
    groups = list(case.query_ids)
    found = bootstrap(ranking, groups, 200, seed, method)
    values = measures(ranking) | {"median_rank": ranking.rank}
    for name, interval in found.items():
        assert np.isfinite(interval).all(), name
        least, most = values[name].min(), values[name].max()
        assert least - 1e-9 <= interval.low <= interval.high <= most + 1e-9, name
        assert least - 1e-9 <= interval.value <= most + 1e-9, name
    assert found == bootstrap(ranking, groups, 200, seed, method)
