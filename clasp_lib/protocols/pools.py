"""How hard is the question? Candidates that are drawn ("soft" evaluation) instead of the whole pool ("hard").

A pool of m is a query's right candidates and m - 1 wrong ones, so that every query meets equally many wrong ones,
however many right ones it has. A drawn pool is a lottery ticket: `PoolReport.spread` says how much that matters, and
`clasp_lib.protocols.pool_size` gives the mean over all pools that could be drawn. Ties are broken as if by lot, as in
`clasp_lib.metrics`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from clasp_lib.errors import ClaspError
from clasp_lib.metrics import Ranking, checked_vectors, equal_rows, hits_at, reciprocal_rank
from clasp_lib.significance import Interval, bootstrap_groups

POOLS = (10, 100, 1000)
"""Sizes of drawn pools; the reference's "soft" evaluation takes 100 (REFERENCE.md, 6)."""

POOL_MEASURES = ("hits_at_1", "hits_at_5", "hits_at_10", "mrr", "mean_rank")

_CELLS = 4_000_000  # scores and drawn candidates held at once
_BLOCK = 512  # queries whose candidates are drawn from one stream of random numbers


@dataclass(frozen=True)
class PoolReport:
    """Measures in pools of one size, each with its 95% interval for other sentences.

    Attributes:
        pool: one right place and pool - 1 wrong candidates. n: queries.
        draws: pools drawn for each query; 0 if the measures are expectations over all pools.
        spread: standard deviation of HITS@1 from draw to draw; 0 for expectations and for a single draw.
    """

    pool: int
    n: int
    draws: int
    seed: int
    spread: float
    hits_at_1: Interval
    hits_at_5: Interval
    hits_at_10: Interval
    mrr: Interval
    mean_rank: Interval

    @property
    def chance(self) -> float:
        """HITS@1 of a guess, if each query has one right answer."""
        return 1 / self.pool


def wrong_candidates(query_ids: Sequence[Hashable], candidate_ids: Sequence[Hashable]) -> np.ndarray:
    """How many candidates do not carry each query's id: (queries,) int64."""
    counts: dict[Hashable, int] = {}
    for i in candidate_ids:
        counts[i] = counts.get(i, 0) + 1
    return len(candidate_ids) - np.array([counts.get(i, 0) for i in query_ids], np.int64)


def check_pools(pools: Sequence[int], wrong: np.ndarray) -> None:
    """Raise a ClaspError unless every pool is a whole number from 2 to what each query can fill."""
    most = int(wrong.min()) + 1
    if not len(pools):
        raise ClaspError("pools: are empty; give at least one size.")
    if bad := [pool for pool in pools if not 2 <= pool <= most or pool != int(pool)]:
        raise ClaspError(f"pools: {bad[0]} is not possible; give whole numbers from 2 to {most}, the whole pool.")


def soft_scores(
    query_vectors: np.ndarray,
    candidate_vectors: np.ndarray,
    query_ids: Sequence[Hashable],
    candidate_ids: Sequence[Hashable],
    pools: Sequence[int] = POOLS,
    draws: int = 10,
    seed: int = 0,
) -> dict[int, dict[str, np.ndarray]]:
    """Measures of each query in pools of drawn wrong candidates: size of pool -> measure -> (draws, queries).

    Wrong candidates are drawn for each query anew, without replacement. Which ones depends on the ids, the seed and the
    number of the draw only, never on vectors: all systems meet the same candidates, and their scores may be compared
    pair by pair (`compare_paired` on the means over draws). A smaller pool is the beginning of a larger one. The whole
    score matrix is never held.

    Args:
        query_vectors: (queries, d). candidate_vectors: (candidates, d). Normalise both for cosine.
        query_ids, candidate_ids: equal ids are positives; an id may occur several times on either side.

    Raises:
        ClaspError: shapes do not fit, values are not finite, a query has no positive, a pool is smaller than 2 or
            needs more wrong candidates than a query has.
    """
    checked = checked_vectors(query_vectors, candidate_vectors, query_ids, candidate_ids)
    queries, candidates = (vectors.numpy() for vectors in checked)
    codes = {i: n for n, i in enumerate(dict.fromkeys(candidate_ids))}
    if orphans := [i for i in query_ids if i not in codes]:
        raise ClaspError(f"query_ids: {len(orphans)} of them have no candidate with the same id, e.g. {orphans[0]!r}.")
    if draws < 1:
        raise ClaspError(f"draws={draws}: draw at least one pool for each query.")
    query_codes = np.array([codes[i] for i in query_ids])
    candidate_codes = np.array([codes[i] for i in candidate_ids])
    wrong = wrong_candidates(query_ids, candidate_ids)
    check_pools(pools, wrong)
    n, total = len(queries), len(candidates)
    steps = min(total, max(pools) - 1 + int(total - wrong.min()))  # enough, even if all positives are among them
    copies, originals = equal_rows(candidates)
    above = {pool: np.empty((draws, n)) for pool in pools}
    tied = {pool: np.empty((draws, n)) for pool in pools}
    right_tied = np.empty(n)
    block = max(1, min(_BLOCK, _CELLS // total))
    for start in range(0, n, block):
        some = slice(start, start + block)
        scores = queries[some] @ candidates.T  # (block, candidates)
        scores[:, copies] = scores[:, originals]  # equal vectors tie, whatever the rounding
        right = candidate_codes == query_codes[some, None]  # (block, candidates)
        best = np.where(right, scores, -np.inf).max(1, keepdims=True)  # (block, 1)
        right_tied[some] = ((scores == best) & right).sum(1)
        kind = (scores > best) + 2 * (scores == best)  # 1 above, 2 tied, 0 below
        kind[right] = 0
        for draw in range(draws):
            order = _drawn(len(scores), total, steps, np.random.default_rng((seed, draw, start)))  # (block, steps)
            found = np.take_along_axis(kind, order, 1)
            number = np.cumsum(~np.take_along_axis(right, order, 1), 1)  # the first wrong one is 1
            for pool in pools:
                inside = number < pool
                above[pool][draw, some] = ((found == 1) & inside).sum(1)
                tied[pool][draw, some] = ((found == 2) & inside).sum(1)
    return {pool: _measures(above[pool], tied[pool], right_tied) for pool in pools}


def evaluate_soft(
    query_vectors: np.ndarray,
    candidate_vectors: np.ndarray,
    query_ids: Sequence[Hashable],
    candidate_ids: Sequence[Hashable],
    pools: Sequence[int] = POOLS,
    draws: int = 10,
    seed: int = 0,
    resamples: int = 1_000,
) -> dict[int, PoolReport]:
    """Every query against its positives and drawn wrong candidates (`soft_scores`): size of pool -> report.

    A query's score is its mean over the draws. Intervals are those of `bootstrap_groups` over ids.
    """
    found = soft_scores(query_vectors, candidate_vectors, query_ids, candidate_ids, pools, draws, seed)
    reports = {}
    for pool, scores in found.items():
        spread = float(scores["hits_at_1"].mean(1).std(ddof=1)) if draws > 1 else 0.0
        means = {name: values.mean(0) for name, values in scores.items()}
        intervals = bootstrap_groups(means, query_ids, resamples, seed)
        reports[pool] = PoolReport(pool, len(query_ids), draws, seed, spread, **intervals)
    return reports


def _drawn(rows: int, total: int, steps: int, rng: np.random.Generator) -> np.ndarray:
    """For each row the first `steps` of a random order of all candidates (Fisher and Yates): (rows, steps) int64."""
    order = np.tile(np.arange(total), (rows, 1))  # (rows, total)
    row = np.arange(rows)
    for step in range(steps):  # a loop over places, not over queries
        other = rng.integers(step, total, size=rows)
        here = order[:, step].copy()
        order[:, step] = order[row, other]
        order[row, other] = here
    return order[:, :steps]


def _measures(above: np.ndarray, tied: np.ndarray, right_tied: np.ndarray) -> dict[str, np.ndarray]:
    """`POOL_MEASURES` from what is above the best positive and what ties with it, each (draws, queries)."""
    rank = 1 + above.ravel() + tied.ravel() / 2
    ties = np.stack([tied.ravel(), np.broadcast_to(right_tied, tied.shape).ravel()], 1)
    ranking = Ranking(rank, np.full_like(rank, np.nan), tied=ties)
    values = [*(hits_at(ranking, k) for k in (1, 5, 10)), reciprocal_rank(ranking), rank]
    return {name: found.reshape(above.shape) for name, found in zip(POOL_MEASURES, values)}
