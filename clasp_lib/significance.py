"""Would it hold for other sentences, and for other seeds? Intervals and tests on scores of trained systems.

A system is trained with several seeds, and each training answers the same queries: its scores are `(seeds, items)`, say
the reciprocal rank of each sentence. Both are samples: other sentences would give another mean, other seeds as well.
All functions are pure, and repeat exactly for the same `seed` of their own random numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clasp_lib.errors import ClaspError
from clasp_lib.metrics import Interval

RESAMPLES = 10_000
"""Resamples of a bootstrap, and draws of a randomisation test."""

EXACT = 14
"""Of so many numbers or fewer, all ways to flip their signs are tried; of more, `RESAMPLES` of them are drawn."""

_CELLS = 4_000_000  # random numbers held at once: 32 MB


@dataclass(frozen=True)
class Estimate:
    """A mean with three 95% intervals: for other sentences, for other seeds, and for both at once."""

    items: Interval
    seeds: Interval
    both: Interval

    @property
    def value(self) -> float:
        """The mean over all seeds and items."""
        return self.items.value

    def to_dict(self) -> dict[str, Any]:
        """`{"value", "items", "seeds", "both"}`, the intervals as `[low, high]`."""
        intervals = {name: list(getattr(self, name)[1:]) for name in ("items", "seeds", "both")}
        return {"value": self.value, **intervals}


@dataclass(frozen=True)
class PairedComparison:
    """What two systems differ by, on the same items and with the same seeds: the mean of `first - second`.

    Attributes:
        p_items, p_seeds: of sign-flip tests over the items and over the seeds, two-sided.
    """

    difference: Estimate
    p_items: float
    p_seeds: float

    @property
    def p_value(self) -> float:
        """The larger of the two: the claim is that the difference holds for other sentences **and** for other seeds.

        A test of "at least one of the two is chance", which is rejected where both are (the intersection-union test,
        Berger 1982).
        """
        return max(self.p_items, self.p_seeds)


def interval_over_items(scores: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The mean, and a percentile bootstrap over the items, each averaged over the seeds (Efron and Tibshirani 1993).

    Args:
        scores: (seeds, items), at least two items.
    """
    scores = _checked(scores, items=2)
    items = scores.mean(0)  # (items,)
    rng = np.random.default_rng(seed)
    means = [drawn @ items / len(items) for drawn in _draws(len(items), resamples, rng)]
    return _percentiles(scores, np.concatenate(means))


def interval_over_seeds(scores: np.ndarray) -> Interval:
    """The mean, and Student's t interval on the means of the seeds.

    Args:
        scores: (seeds, items), at least two seeds.
    """
    from scipy.stats import t

    scores = _checked(scores, seeds=2)
    means = scores.mean(1)  # (seeds,)
    half = t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means))
    value = float(scores.mean())
    return Interval(value, value - float(half), value + float(half))


def interval_over_both(scores: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The mean, and a bootstrap that draws seeds and items together (the pigeonhole bootstrap, Owen and Eckles 2012).

    A resample is the mean over all pairs of a drawn seed and a drawn item. It errs on the side of width: what seeds and
    items do only together counts up to three times. Of `n` seeds, `n - 1` are drawn with replacement, which makes the
    variance right however few they are (McCarthy and Snowden 1985); drawing `n` would lose a tenth of it for ten.

    Args:
        scores: (seeds, items), at least two of each.
    """
    scores = _checked(scores, seeds=2, items=2)
    n_seeds, n_items = scores.shape
    rng = np.random.default_rng(seed)
    seeds = rng.multinomial(n_seeds - 1, np.full(n_seeds, 1 / n_seeds), size=resamples) / (n_seeds - 1)
    by_seed = [drawn @ scores.T / n_items for drawn in _draws(n_items, resamples, rng)]  # (chunk, seeds) each
    return _percentiles(scores, (np.concatenate(by_seed) * seeds).sum(1))


def estimate(scores: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """The mean of `scores` (seeds, items) with all three intervals.

    Raises:
        ClaspError: fewer than two seeds or items, or scores that are not finite.
    """
    return Estimate(
        interval_over_items(scores, resamples, seed),
        interval_over_seeds(scores),
        interval_over_both(scores, resamples, seed),
    )


def sign_flip_test(differences: np.ndarray, draws: int = RESAMPLES, seed: int = 0) -> float:
    """p-value, two-sided, of paired differences `(n,)` whose signs would be chance (Fisher 1935).

    How often is the mean at least as far from zero as the one found, if each sign is flipped by a coin? For `EXACT`
    numbers or fewer all flips are counted, so that p is at least 2 / 2^n; else `draws` are drawn and the one found
    counts as one of them.
    """
    differences = np.asarray(differences, float)
    if differences.ndim != 1 or len(differences) == 0 or not np.isfinite(differences).all():
        raise ClaspError(f"differences: have shape {differences.shape}; give finite numbers, shape (n,).")
    n = len(differences)
    found = abs(differences.sum()) - 1e-9 * np.abs(differences).sum()  # sums in another order differ by rounding
    if n <= EXACT:
        signs = 1.0 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)  # (2^n, n)
        return float((np.abs(signs @ differences) >= found).mean())
    rng = np.random.default_rng(seed)
    beyond = 0
    for size in _chunks(draws, n):
        signs = 1.0 - 2 * rng.integers(2, size=(size, n), dtype=np.int8)  # (chunk, n)
        beyond += int((np.abs(signs @ differences) >= found).sum())
    return (1 + beyond) / (1 + draws)


def compare_systems(
    first: np.ndarray, second: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> PairedComparison:
    """Two systems on the same items, trained with the same seeds: the difference, its intervals and p-values.

    Args:
        first, second: scores (seeds, items), row by row the same seed, column by column the same item.

    Raises:
        ClaspError: scores of different shape, fewer than two seeds or items, or scores that are not finite.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.shape != second.shape:
        raise ClaspError(
            f"scores of shape {first.shape} and {second.shape} are no pairs; give the same seeds and items."
        )
    difference = first - second  # (seeds, items)
    return PairedComparison(
        estimate(difference, resamples, seed),
        p_items=sign_flip_test(difference.mean(0), resamples, seed),
        p_seeds=sign_flip_test(difference.mean(1), resamples, seed),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of one family, corrected for how many they are (Holm 1979), in the order given.

    The smallest is multiplied by their number n, the next by n - 1 and so on; none falls below one that is smaller, or
    rises above 1. Those at most 0.05 hold a family-wise error rate of 5%, whatever their dependence.
    """
    p = np.asarray(p_values, float)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ClaspError("p_values: must be numbers from 0 to 1 in one list.")
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected.tolist()


def _checked(scores: np.ndarray, seeds: int = 1, items: int = 1) -> np.ndarray:
    scores = np.asarray(scores, float)
    if scores.ndim != 2 or scores.shape[0] < seeds or scores.shape[1] < items:
        raise ClaspError(f"scores: have shape {scores.shape}; give (seeds, items), at least ({seeds}, {items}).")
    if not np.isfinite(scores).all():
        raise ClaspError("scores: hold NaN or infinite values.")
    return scores


def _draws(n: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each of `n` is among `n` drawn with replacement: (chunk, n), until there are `resamples` rows."""
    for rows in _chunks(resamples, n):
        yield rng.multinomial(n, np.full(n, 1 / n), size=rows).astype(float)


def _chunks(total: int, width: int) -> list[int]:
    """How many rows of `width` numbers to hold at once, so that they are `total` in the end."""
    size = max(1, _CELLS // width)
    return [min(size, total - start) for start in range(0, total, size)]


def _percentiles(scores: np.ndarray, means: np.ndarray) -> Interval:
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(scores.mean()), float(low), float(high))
