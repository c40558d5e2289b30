"""A score without its pool means nothing: what it would be in a smaller pool, exactly; in a larger one, by forecast."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from clasp_lib.errors import ClaspError
from clasp_lib.metrics import Ranking
from clasp_lib.protocols.pools import POOL_MEASURES, PoolReport, check_pools
from clasp_lib.significance import Interval, bootstrap_groups
from clasp_lib.significance.resampling import number_groups

MAX_EXTRAPOLATION = 4
"""How many times the measured pool `extrapolate` may go. In the worlds of its slow test, whose truth is known, 94 to 99
of 100 intervals held it at two and at four times."""

FEWEST = 200
"""Wrong candidates that `extrapolate` needs to see how the score falls."""


@dataclass(frozen=True)
class Extrapolation:
    """What a measure may be in a pool larger than the measured one.

    Attributes:
        pool: the size asked for. measured: the pool that the ranks are from. n: queries.
        score: the estimate, and its interval: a bootstrap over groups, widened by `missed`.
        missed: the relative error of the same step, taken from a smaller pool to the measured one.
    """

    measure: str
    pool: int
    measured: int
    n: int
    seed: int
    score: Interval
    missed: float


def expected_scores(ranking: Ranking, wrong: np.ndarray | int, pool: int) -> dict[str, np.ndarray]:
    """Each query's measures in a pool of m: the exact mean over all ways to draw its m - 1 wrong candidates.

    Of M wrong candidates a stand above the best positive; the number X of them that are drawn is hypergeometric:

        P(X = x) = C(a, x) C(M - a, m - 1 - x) / C(M, m - 1)
        HITS@k   = P(X < k)
        MRR      = E[1 / (1 + X)] = (M + 1 - (M + 1 - a - m) P(X = 0)) / ((a + 1) m)
        rank     = 1 + (m - 1) a / M

    The MRR follows from C(a, x) / (1 + x) = C(a + 1, x + 1) / (a + 1) and Vandermonde's identity. Where candidates tie
    with the best positive, a is one of several numbers, and the mean is taken over them too.

    Args:
        ranking: in the whole pool, from `rank_queries`. pool: m, at most M + 1.
        wrong: M, for all queries or for each (`wrong_candidates`).

    Returns:
        `POOL_MEASURES`, each (queries,). Rounding: below 1e-7 for 10 000 candidates, 1e-3 for a million.

    Raises:
        ClaspError: a rank outside 1 to M + 1, a ranking that leaves out queries, or a pool that is not possible.
    """
    wrong = _checked_wrong(ranking, wrong)
    check_pools([pool], wrong)
    return _expected(ranking, wrong, pool)


def pool_curve(
    ranking: Ranking,
    wrong: np.ndarray | int,
    groups: Sequence[Hashable],
    pools: Sequence[int] | None = None,
    resamples: int = 1_000,
    seed: int = 0,
) -> list[PoolReport]:
    """How measures fall as the pool grows: the exact expectation for each size (`expected_scores`), without drawing.

    Args:
        ranking, wrong: see `expected_scores`.
        groups: the sentence of each query; intervals are those of `bootstrap_groups` over them. They say what other
            queries would change, not what other candidates would.
        pools: default about three sizes for each doubling, from 2 to the largest that every query fills.
    """
    wrong = _checked_wrong(ranking, wrong)
    sizes = _grid(2, int(wrong.min()) + 1, 3) if pools is None else list(pools)
    check_pools(sizes, wrong)
    values = {f"{name} {pool}": v for pool in sizes for name, v in _expected(ranking, wrong, pool).items()}
    found = bootstrap_groups(values, groups, resamples, seed)
    return [
        PoolReport(pool, len(ranking.rank), 0, seed, 0.0, **{name: found[f"{name} {pool}"] for name in POOL_MEASURES})
        for pool in sizes
    ]


def extrapolate(
    ranking: Ranking,
    wrong: np.ndarray | int,
    groups: Sequence[Hashable],
    pool: int,
    measure: str = "mrr",
    resamples: int = 1_000,
    seed: int = 0,
) -> Extrapolation:
    """What a measure may be in a pool up to `MAX_EXTRAPOLATION` times the measured one: a forecast, no measurement.

    A parabola is fitted to the logarithm of the score against the logarithm of the pool, from a thirtieth of the
    measured pool on. (A straight line is too hopeful: the curve bends down.) The same step is then taken to the
    measured pool, from one that is smaller by the same factor; by what it misses there, the percentile interval is
    widened on both sides. A score never rises with the pool, so neither does the estimate. All this supposes that the
    further candidates are of the kind of those at hand.

    Raises:
        ClaspError: a pool that is not larger, or too much larger; fewer than `FEWEST` wrong candidates; another measure
            than "hits_at_1" or "mrr"; no query with a hit.
    """
    wrong = _checked_wrong(ranking, wrong)
    whole = int(wrong.min()) + 1
    if measure not in ("hits_at_1", "mrr"):
        raise ClaspError(f"measure {measure!r}: only hits_at_1 and mrr are extrapolated.")
    if whole <= FEWEST:
        raise ClaspError(
            f"wrong: {whole - 1} candidates are too few to see how the score falls; give {FEWEST} or more."
        )
    if not whole < pool <= MAX_EXTRAPOLATION * whole:
        raise ClaspError(
            f"pool={pool}: the ranks are from pools of {whole}; extrapolate to more than that and to at most "
            f"{MAX_EXTRAPOLATION * whole}. Below, use pool_curve; above, measure with more candidates."
        )
    before = round(whole * whole / pool)  # the pool from which the same step leads to the whole
    near, far = (_grid(max(2, top // 30), top, 2) for top in (before, whole))
    sizes = sorted({*near, *far})
    values = np.stack([_expected(ranking, wrong, size)[measure] for size in sizes])  # (sizes, queries)
    curves = _resampled(values, groups, resamples, seed)  # (1 + resamples, sizes), the first as measured
    if curves[0, -1] <= 0:
        raise ClaspError(f"ranking: {measure} is 0, and nothing can be said of larger pools.")
    logs = np.log(np.maximum(curves, 0.5 / len(ranking.rank)))  # a resample without a hit counts as half a hit
    tested = _parabola(near, logs[:1, [sizes.index(size) for size in near]], whole)[0]
    missed = tested - logs[0, -1]
    found = _parabola(far, logs[:, [sizes.index(size) for size in far]], pool)  # (1 + resamples,)
    found = np.minimum(found, logs[:, -1])
    low, high = np.percentile(found[1:], [2.5, 97.5])
    ends = np.exp([found[0], low - abs(missed), min(high + abs(missed), 0.0)])
    score = Interval(*map(float, ends))
    return Extrapolation(measure, pool, whole, len(ranking.rank), seed, score, float(np.expm1(missed)))


def _expected(ranking: Ranking, wrong: np.ndarray, pool: int) -> dict[str, np.ndarray]:
    """See `expected_scores`. Queries of equal counts are computed once."""
    ties = np.tile((0, 1), (len(wrong), 1)) if ranking.tied is None else ranking.tied  # (queries, 2)
    above = np.round(ranking.rank - 1 - ties[:, 0] / 2)
    cases, back = np.unique(np.column_stack([above, ties, wrong]), axis=0, return_inverse=True)
    back = back.reshape(-1)
    # One row for each number of tied wrong candidates that may come before the first tied right one.
    row = np.repeat(np.arange(len(cases)), cases[:, 1].astype(int) + 1)  # (rows,)
    first = np.concatenate([[0], np.cumsum(cases[:, 1].astype(int) + 1)[:-1]])
    before = np.arange(len(row)) - first[row]
    a, tied, right, m_wrong = cases[row].T
    weight = np.exp(_log_choose(tied - before + right - 1, right - 1) - _log_choose(tied + right, right))  # (rows,)
    a = a + before
    x = np.arange(10)[:, None]
    log_chance = _log_choose(a, x) + _log_choose(m_wrong - a, pool - 1 - x) - _log_choose(m_wrong, pool - 1)
    below = np.minimum(np.cumsum(np.exp(log_chance), 0), 1.0)  # (10, rows): P(X <= x)
    mrr = (m_wrong + 1 - (m_wrong + 1 - a - pool) * below[0]) / ((a + 1) * pool)
    found = [np.bincount(row, weights=weight * values) for values in (below[0], below[4], below[9], mrr)]
    found.append(
        1 + (pool - 1) * (cases[:, 0] + cases[:, 1] / 2) / cases[:, 3]
    )  # the rank as `clasp_lib.metrics` has it
    return {name: values[back] for name, values in zip(POOL_MEASURES, found)}


def _log_choose(n: np.ndarray, k: np.ndarray | int) -> np.ndarray:
    """The logarithm of "n choose k", -inf where k is negative or above n."""
    from scipy.special import gammaln

    n, k = np.broadcast_arrays(n, k)
    possible = (k >= 0) & (k <= n)
    n, k = np.where(possible, n, 0), np.where(possible, k, 0)
    return np.where(possible, gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0), -np.inf)


def _grid(low: int, high: int, per_doubling: int) -> list[int]:
    """Whole numbers from `low` to `high`, both included, in about equal ratios."""
    points = 2 + round(per_doubling * np.log2(high / low))
    return np.unique(np.geomspace(low, high, points).round().astype(int)).tolist()


def _parabola(pools: Sequence[int], logs: np.ndarray, at: int) -> np.ndarray:
    """A least-squares parabola over log(pool) through each row of (rows, pools), and its value at another: (rows,)."""
    x = np.log(pools) - np.log(pools[-1])
    return (logs @ np.linalg.pinv(np.vander(x, 3)).T) @ np.vander([np.log(at / pools[-1])], 3)[0]


def _resampled(values: np.ndarray, groups: Sequence[Hashable], resamples: int, seed: int) -> np.ndarray:
    """Means over queries of each row of (k, queries), then those of resamples of whole groups: (1 + resamples, k)."""
    codes = number_groups(groups, values.shape[1])  # (queries,)
    sizes = np.bincount(codes)  # (groups,)
    sums = np.stack([np.bincount(codes, weights=row) for row in values], 1)  # (groups, k)
    rng = np.random.default_rng(seed)
    even = np.full(len(sizes), 1 / len(sizes))
    curves = [values.mean(1)]
    for _ in range(resamples):
        count = rng.multinomial(len(sizes), even)
        curves.append((count @ sums) / (count @ sizes))
    return np.stack(curves)


def _checked_wrong(ranking: Ranking, wrong: np.ndarray | int) -> np.ndarray:
    rank = ranking.rank
    if ranking.kept is not None:
        raise ClaspError("ranking: leaves out queries (ties='skip'); rank with ties='expected'.")
    if np.shape(wrong) not in ((), rank.shape):
        raise ClaspError(
            f"wrong: has shape {np.shape(wrong)}; give one number, or one for each of {len(rank)} queries."
        )
    wrong = np.broadcast_to(np.asarray(wrong, float), rank.shape)
    if not ((wrong >= 1) & (rank >= 1) & (rank <= wrong + 1)).all():  # NaN is refused too
        raise ClaspError("ranking: ranks must be from 1 to one more than the wrong candidates, at least one of them.")
    return wrong
