"""What intervals and tests share: how things are drawn, how many at once, and what values are taken."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from clasp_lib.arrays import number_array
from clasp_lib.errors import ClaspError

RESAMPLES = 10_000
"""Resamples of a bootstrap, and draws of a randomisation test."""

CELLS = 4_000_000
"""Random numbers held at once: 32 MB."""


def draw_counts(n: int, resamples: int, rng: np.random.Generator, width: int | None = None) -> Iterator[np.ndarray]:
    """How often each of `n` is among `n` drawn with replacement: (chunk, n), until there are `resamples` rows.

    `width`: the numbers that a row takes in what follows, if more than `n`.
    """
    for rows in chunks(resamples, width or n):
        yield rng.multinomial(n, np.full(n, 1 / n), size=rows).astype(float)


def chunks(total: int, width: int) -> list[int]:
    """How many rows of `width` numbers to hold at once, so that they are `total` in the end."""
    size = max(1, CELLS // width)
    return [min(size, total - start) for start in range(0, total, size)]


def finite_values(name: str, values: np.ndarray | Sequence[float]) -> np.ndarray:
    """The values as floats, (n,), or an error that names them."""
    values = number_array(name, values, "(n,)")
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise ClaspError(f"{name}: have shape {values.shape}; give finite numbers, shape (n,), at least one.")
    return values


def number_groups(groups: Sequence[Hashable] | None, n: int) -> np.ndarray:
    """Groups numbered 0, 1, ... in the order in which they come first: (n,)."""
    if groups is None:
        return np.arange(n)
    if len(groups) != n:
        raise ClaspError(f"groups: {len(groups)} of them for {n} values; name the group of each value.")
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups])
