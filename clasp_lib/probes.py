"""What can a straight line read from vectors? Linear probes, judged on sentences that they were not fitted on.

A probe (Alain and Bengio 2016) is ridge regression on standardised vectors: onto a number, or onto one column for each
class, of which the largest counts. Its penalty is chosen inside the part that it is fitted on, by the error on
sentences left out one after the other. What it cannot read may still be there, but not plainly.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from clasp_lib.arrays import number_array
from clasp_lib.errors import ClaspError
from clasp_lib.significance import Interval, bootstrap_groups
from clasp_lib.significance.resampling import number_groups

PENALTIES = tuple(10.0**power for power in range(7))
"""From 1 to a million: what the square of each weight costs."""


@dataclass(frozen=True, eq=False)
class Probe:
    """What a probe read.

    Attributes:
        measure: "accuracy" for classes, "r2" for numbers.
        score: with its 95% interval over sentences. chance: the share of the commonest class, or 0 for numbers.
        control: the score for shuffled labels (after Hewitt and Liang 2019). It should be no better than chance.
        scores: what each item adds to the score, (n,), in the order given: their mean is the score, so that two
            probes of the same items can be compared pair by pair.
        groups: sentences, of `n` items.
    """

    measure: str
    n: int
    groups: int
    score: Interval
    chance: float
    control: Interval
    scores: np.ndarray


def probe(
    vectors: np.ndarray,
    labels: Sequence,
    groups: Sequence[Hashable],
    seed: int = 0,
    folds: int = 5,
    resamples: int = 1_000,
) -> Probe:
    """Read `labels` from `vectors` with a straight line, fold by fold; no group is in two folds.

    Accuracy is the share of right answers. R² is 1 - A / B, with A the mean squared error and B that of always giving
    the training folds' mean. An item adds 1 - (a - (A / B) (b - B)) / B to it, with its own squared errors a and b:
    what the score owes to it to first order, so that a bootstrap of these knows that B, too, is an estimate.

    Args:
        vectors: (n, d). labels: n names or booleans are classes, n numbers are numbers.
        groups: the sentence of each item.
        seed: of the folds, the shuffled labels and the bootstrap.
        folds: each holds about as many groups of every class, or of every size of the number.

    Raises:
        ClaspError: shapes that do not fit, values that are not finite, labels that are all equal, or fewer groups than
            folds.
    """
    x, y = number_array("vectors", vectors, "(n, d)"), np.asarray(labels)
    codes = _check(x, y, groups, folds)
    classes, numbers = np.unique(y, return_inverse=True)
    is_number = y.dtype.kind in "iuf"
    values = y.astype(float) if is_number else numbers.reshape(-1)  # (n,)
    rng = np.random.default_rng(seed)
    fold = _folds(values, codes, folds, rng)  # (n,)
    both = (values, _shuffled(values, codes, rng))
    targets = [v[:, None] if is_number else np.eye(len(classes))[v] for v in both]  # (n, 1 or classes) each
    found = [np.empty_like(t) for t in targets]
    usual = np.empty(len(x))
    for number in range(folds):
        train, test = fold != number, fold == number
        usual[test] = values[train].mean()
        centre, scale = x[train].mean(0), x[train].std(0)
        scale[scale == 0] = 1.0
        lines = _fit((x[train] - centre) / scale, [t[train] for t in targets], codes[train])
        for out, (weights, offset) in zip(found, lines):
            out[test] = (x[test] - centre) / scale @ weights + offset
    if is_number:
        scores, control = (_shares(v, f[:, 0], usual) for v, f in zip(both, found))
    else:
        scores, control = ((f.argmax(1) == v).astype(float) for v, f in zip(both, found))
    intervals = bootstrap_groups({"score": scores, "control": control}, codes.tolist(), resamples, seed)
    chance = 0.0 if is_number else float(np.bincount(values).max() / len(values))
    measure = "r2" if is_number else "accuracy"
    return Probe(measure, len(x), int(codes.max()) + 1, intervals["score"], chance, intervals["control"], scores)


def _check(x: np.ndarray, y: np.ndarray, groups: Sequence[Hashable], folds: int) -> np.ndarray:
    """Groups numbered from 0: (n,)."""
    if x.ndim != 2 or not np.isfinite(x).all():
        raise ClaspError(f"vectors: have shape {x.shape}; give finite numbers, shape (n, d).")
    if y.ndim != 1 or not len(x) == len(y) == len(groups):
        raise ClaspError(f"{len(x)} vectors, {len(y)} labels, {len(groups)} groups: give one label and group for each.")
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise ClaspError("labels: hold NaN or infinite values.")
    if len(np.unique(y)) < 2:
        raise ClaspError("labels: are all equal, so that there is nothing to read.")
    codes = number_groups(groups, len(x))
    count = int(codes.max()) + 1
    if folds < 2 or count < folds:
        raise ClaspError(f"folds: {folds} for {count} groups; give at least 2, and no more than there are groups.")
    return codes


def _folds(values: np.ndarray, codes: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """The fold of each item: groups in the order of their values, ties by lot, each next few dealt to all folds."""
    _, first = np.unique(codes, return_index=True)
    order = np.lexsort((rng.random(len(first)), values[first]))
    rounds = -(-len(first) // folds)
    dealt = np.concatenate([rng.permutation(folds) for _ in range(rounds)])[: len(first)]
    fold = np.empty(len(first), int)
    fold[order] = dealt
    return fold[codes]


def _shuffled(values: np.ndarray, codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each group gets another one's value, or each item another one's where they differ within groups."""
    _, first = np.unique(codes, return_index=True)
    if (values == values[first][codes]).all():
        return rng.permutation(values[first])[codes]
    return rng.permutation(values)


def _fit(x: np.ndarray, targets: Sequence[np.ndarray], codes: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each target (n, columns) the weights (d, columns) and offset (columns,) of the ridge regression.

    The penalty is that of the least squared error when each group in turn is left out. With the matrix H that takes the
    targets to the fitted values, and residuals e, these errors are (I - H_gg)^-1 e_g, without fitting again
    (Golub, Heath and Wahba 1979 for single rows).
    """
    n = len(x)
    u, squares = _principal(x)  # (n, r), (r,)
    offsets = [t.mean(0) for t in targets]
    columns = np.cumsum([t.shape[1] for t in targets])[:-1]
    centred = np.concatenate([t - offset for t, offset in zip(targets, offsets)], axis=1)  # (n, all columns)
    turned = u.T @ centred  # (r, all columns)
    members = np.argsort(codes, kind="stable")
    _, starts, sizes = np.unique(codes[members], return_index=True, return_counts=True)
    alike = [members[starts[sizes == size][:, None] + np.arange(size)] for size in np.unique(sizes)]  # (groups, size)
    blocks = [(rows, u[rows]) for rows in alike]
    best = [(np.inf, 0.0)] * len(targets)
    for penalty in PENALTIES:
        kept = squares / (squares + penalty)  # (r,)
        residuals = centred - u @ (kept[:, None] * turned)
        error = np.zeros(residuals.shape[1])
        for rows, block in blocks:
            left = np.eye(rows.shape[1]) - 1 / n - block * kept @ block.swapaxes(1, 2)  # (groups, size, size)
            error += (np.linalg.solve(left, residuals[rows]) ** 2).sum((0, 1))
        best = [min(old, (float(e.sum()), penalty)) for old, e in zip(best, np.split(error, columns))]
    return [
        (x.T @ (u / (squares + penalty) @ part), offset)
        for (_, penalty), part, offset in zip(best, np.split(turned, columns, axis=1), offsets)
    ]


def _principal(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left singular vectors (n, r) of centred rows, and the squares of the singular values (r,)."""
    if len(x) <= x.shape[1]:
        squares, u = np.linalg.eigh(x @ x.T)
        kept = squares > 1e-10 * squares[-1]
        return u[:, kept], squares[kept]
    squares, v = np.linalg.eigh(x.T @ x)
    kept = squares > 1e-10 * squares[-1]
    return x @ (v[:, kept] / np.sqrt(squares[kept])), squares[kept]


def _shares(values: np.ndarray, found: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """What each item adds to R²; see `probe`."""
    error, without = (values - found) ** 2, (values - usual) ** 2  # (n,) each
    scale = without.mean()
    return 1 - (error - error.mean() / scale * (without - scale)) / scale
