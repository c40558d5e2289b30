"""Comparisons: tests of differences between systems, paired, and corrected for how many they are."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from clasp_lib.arrays import number_array
from clasp_lib.errors import ClaspError
from clasp_lib.significance.intervals import Estimate, Interval, bootstrap_groups, estimate
from clasp_lib.significance.resampling import RESAMPLES, chunks, finite_values, number_groups

EXACT = 14
"""Of so many numbers or fewer, all ways to flip their signs are tried; of more, `RESAMPLES` of them are drawn."""


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same queries: the mean of `first - second`, its 95% interval, and a p-value.

    Attributes:
        measure: what was compared. n: queries. groups: sentences, which were drawn and flipped whole.
        p_value: of a two-sided randomisation test. resamples, seed, method: of the interval and the test.
        family, p_holm: comparisons made at once, and the p-value corrected for their number (Holm 1979).
    """

    measure: str
    n: int
    difference: Interval
    p_value: float
    groups: int
    resamples: int
    seed: int
    method: str
    family: int
    p_holm: float

    def __str__(self) -> str:
        corrected = f", {self.p_holm:.4f} as one of {self.family}" if self.family > 1 else ""
        return f"{self.measure} {self.difference}, p {self.p_value:.4f}{corrected} (n {self.n}, groups {self.groups})"


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


def sign_flip_test(differences: np.ndarray, draws: int = RESAMPLES, seed: int = 0) -> float:
    """p-value, two-sided, of paired differences `(n,)` whose signs would be chance (Fisher 1935).

    How often is the mean at least as far from zero as the one found, if each sign is flipped by a coin? For `EXACT`
    numbers or fewer all flips are counted, so that p is at least 2 / 2^n; else `draws` are drawn and the one found
    counts as one of them.
    """
    differences = finite_values("differences", differences)
    n = len(differences)
    found = abs(differences.sum()) - 1e-9 * np.abs(differences).sum()  # sums in another order differ by rounding
    if n <= EXACT:
        signs = 1.0 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)  # (2^n, n)
        return float((np.abs(signs @ differences) >= found).mean())
    rng = np.random.default_rng(seed)
    beyond = 0
    for size in chunks(draws, n):
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
    first, second = number_array("first", first, "(seeds, items)"), number_array("second", second, "(seeds, items)")
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


def compare_paired(
    first: np.ndarray,
    second: np.ndarray,
    groups: Sequence[Hashable] | None = None,
    measure: str = "",
    resamples: int = RESAMPLES,
    seed: int = 0,
    method: str = "bca",
) -> Comparison:
    """Two systems' values of a measure for the same queries: paired difference, interval, randomisation test.

    The test swaps the two systems' answers to all queries of a group at once, which flips the sign of the group's
    summed difference: `sign_flip_test` of these sums. If the systems were equal, either order would be as likely.

    Args:
        first, second: (n,), entry by entry the same query.
        groups: the sentence of each query; None: each query is its own.

    Raises:
        ClaspError: no pairs, values that are not finite, or an unknown method.
    """
    first, second = finite_values("first", first), finite_values("second", second)
    if first.shape != second.shape:
        raise ClaspError(f"first and second have {len(first)} and {len(second)} values; give pairs, the same queries.")
    codes = number_groups(groups, len(first))
    difference = first - second  # (n,)
    interval = bootstrap_groups({measure: difference}, codes.tolist(), resamples, seed, method)[measure]
    p = sign_flip_test(np.bincount(codes, weights=difference), resamples, seed)
    return Comparison(measure, len(first), interval, p, int(codes.max()) + 1, resamples, seed, method, 1, p)


def compare_family(
    systems: Mapping[str, np.ndarray],
    groups: Sequence[Hashable] | None = None,
    measure: str = "",
    against: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    method: str = "bca",
) -> dict[tuple[str, str], Comparison]:
    """All pairs of systems, or each system `against` one of them, with p-values corrected for their number by Holm.

    Args:
        systems: each one's values of a measure for the same queries, (n,). The rest as in `compare_paired`.

    Returns:
        By (first, second), in the order of `systems`.
    """
    if against is not None and against not in systems:
        raise ClaspError(f"against: {against!r} is none of the systems {', '.join(systems)}.")
    pairs = list(combinations(systems, 2) if against is None else ((s, against) for s in systems if s != against))
    found = [compare_paired(systems[a], systems[b], groups, measure, resamples, seed, method) for a, b in pairs]
    corrected = holm([comparison.p_value for comparison in found])
    return {
        pair: replace(comparison, family=len(pairs), p_holm=p) for pair, comparison, p in zip(pairs, found, corrected)
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of one family, corrected for how many they are (Holm 1979), in the order given.

    The smallest is multiplied by their number n, the next by n - 1 and so on; none falls below one that is smaller, or
    rises above 1. Those at most 0.05 hold a family-wise error rate of 5%, whatever their dependence.
    """
    p = number_array("p_values", p_values, "(n,)")
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ClaspError("p_values: must be numbers from 0 to 1 in one list.")
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected.tolist()
