"""The rows of a matrix that are nearest to a query: the interface of all backends, and the exact one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch

from clasp_lib.encoders.checkpoints import chosen_device
from clasp_lib.errors import ClaspError

ROUNDING = 2e-6
"""More than float32 sums of up to some thousand products of unit vectors can be off, whatever their order."""

_SPARE = 16  # candidates beyond k, so that the order by rounded scores is seldom in doubt
_QUERIES = 256  # at once
_CELLS, _BLOCK = 2**22, (2**12, 2**16)  # scores held at once (16 MB), least and most rows of a block
_GROUP = 32  # columns of scores that are looked at together
_GATHERED = 2**21  # numbers of candidates' vectors held at once (8 MB)
_SPARSE = 0.5  # of a block's rows: where fewer are allowed, they are picked before they are scored


class Nearest(Protocol):
    """Vectors, numbered by their rows, of which the nearest to a query can be found."""

    name: str

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The `k` rows with the highest cosine, best first; equal cosines in order of their rows.

        Args:
            queries: (q, d) float32 unit vectors.
            allowed: (n,) bool, the rows that may be found; all if not given.

        Returns:
            Scores (q, k) float32 and rows (q, k) int64; where there are fewer, -inf and -1.

        Raises:
            ClaspError: a wrong width, dtype or length, or `k` below 1.
        """
        ...


class Exact:
    """All cosines, by a matrix product.

    Vectors stay where they are, also in a memory-mapped file, and are read a block at a time; on a GPU they are copied
    there once. The product decides in float32 who is near the top; those are scored once more in float64, so that the
    answer depends neither on the number of queries, nor on blocks, threads or the device, and equal vectors score
    equally.
    """

    name = "exact"

    def __init__(self, vectors: np.ndarray | Sequence[np.ndarray], device: str | torch.device | None = None) -> None:
        """
        Args:
            vectors: (n, d) float32 unit vectors, or several such arrays that follow each other; not copied.
            device: where to compute; the GPU where there is one if not given.

        Raises:
            ClaspError: another dtype, or shapes that do not fit.
        """
        self.arrays = checked_arrays(vectors)
        self._starts = np.cumsum([0, *map(len, self.arrays)])  # (arrays + 1,)
        self.dimension = self.arrays[0].shape[1] if self.arrays else 0
        self.device = chosen_device(device)
        with warnings.catch_warnings():  # torch warns of an array that must not be written to, which nobody does
            warnings.simplefilter("ignore", UserWarning)
            self._tensors = [torch.from_numpy(array).to(self.device) for array in self.arrays]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The vectors (m, d) of some rows (m,)."""
        if len(self.arrays) == 1:
            return self.arrays[0][rows]
        out = np.empty((len(rows), self.dimension), np.float32)
        places = np.searchsorted(self._starts, rows, side="right") - 1  # (m,): which array
        for place in np.unique(places):
            here = places == place
            out[here] = self.arrays[place][rows[here] - self._starts[place]]
        return out

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `Nearest.search`."""
        check_search(queries, k, allowed, len(self), self.dimension)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        rows = np.full((len(queries), k), -1, np.int64)
        spread = min(k + _SPARE, len(self))
        for start in range(0, len(queries) if spread else 0, _QUERIES):
            part = np.ascontiguousarray(queries[start : start + _QUERIES])  # (q, d)
            values, candidates = self._candidates(part, spread, allowed)  # (q, spread) each
            best_scores, best_rows = self.rescored(part, candidates, k)  # (q, min(k, spread)) each
            width = best_rows.shape[1]
            if spread < len(self) and width == k:
                # Candidates beyond the last one that was kept may have been as good: then nobody is left out.
                close = np.isfinite(values[:, -1]) & (values[:, -1] >= values[:, k - 1] - ROUNDING)  # (q,)
                for i in np.flatnonzero(close):
                    found = self._all_above(part[i : i + 1], k, values[i, k - 1] - ROUNDING, allowed)
                    best_scores[i], best_rows[i] = found
            scores[start : start + len(part), :width] = best_scores
            rows[start : start + len(part), :width] = best_rows
        return scores, rows

    def rescored(self, queries: np.ndarray, candidates: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The `k` best of each query's candidates, scored exactly.

        Args:
            queries: (q, d). candidates: rows (q, m), -1 for none.

        Returns:
            Scores and rows, (q, min(k, m)) each, ordered as `Nearest.search` says.
        """
        q, m = candidates.shape
        out_scores, out_rows = np.empty((q, min(k, m)), np.float32), np.empty((q, min(k, m)), np.int64)
        step = max(1, _GATHERED // max(1, m * self.dimension))
        for start in range(0, q, step):
            rows, part = candidates[start : start + step], queries[start : start + step]  # (s, m), (s, d)
            vectors = self.take(np.maximum(rows, 0).ravel()).reshape(*rows.shape, -1)  # (s, m, d)
            if m > 4 * k:
                rough = np.where(rows < 0, -np.inf, (vectors @ part[:, :, None])[:, :, 0])  # (s, m), in float32
                least = np.partition(rough, m - k, axis=1)[:, m - k, None] - ROUNDING  # (s, 1)
                width = int((rough >= least).sum(1).max())  # at least k: nobody who may be among them is left out
                near = np.argpartition(-rough, width - 1, axis=1)[:, :width]  # (s, width)
                rows, vectors = np.take_along_axis(rows, near, 1), np.take_along_axis(vectors, near[:, :, None], 1)
            scores = np.einsum("sd,smd->sm", part.astype(np.float64), vectors.astype(np.float64)).astype(np.float32)
            scores[rows < 0] = -np.inf
            order = np.lexsort((rows, -scores), axis=1)[:, :k]  # (s, min(k, m))
            out_scores[start : start + step] = np.take_along_axis(scores, order, 1)
            out_rows[start : start + step] = np.take_along_axis(rows, order, 1)
        return out_scores, out_rows

    @torch.inference_mode()
    def _candidates(self, queries: np.ndarray, count: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """The `count` highest float32 scores of each query and their rows, (q, count) each, highest first."""
        asked = torch.from_numpy(queries).to(self.device)  # (q, d)
        values = torch.full((len(queries), count), -torch.inf, device=self.device)  # (q, count)
        rows = torch.full((len(queries), count), -1, device=self.device)
        for vectors, numbers, mask in self._blocks(len(queries), allowed):
            scores = asked @ vectors.T  # (q, block)
            if mask is not None:
                scores.masked_fill_(~mask, -torch.inf)
            best, columns = _highest(scores, count)  # (q, best) each
            values, rows = torch.cat([values, best], 1), torch.cat([rows, numbers[columns]], 1)
            values, kept = values.topk(count)  # (q, count)
            rows = rows.gather(1, kept)
        rows[values == -torch.inf] = -1
        return values.cpu().numpy(), rows.cpu().numpy()

    @torch.inference_mode()
    def _all_above(
        self, query: np.ndarray, k: int, least: float, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The `k` best for one query (1, d), of all rows that score at least `least`: scores and rows (k,)."""
        asked, rows = torch.from_numpy(query).to(self.device), np.empty(0, np.int64)
        for vectors, numbers, mask in self._blocks(_CELLS // _BLOCK[0], allowed):  # small: all of one may be kept
            near = (asked @ vectors.T)[0] >= least  # (block,)
            found = numbers[near if mask is None else near & mask].cpu().numpy()
            if len(found):
                scores, best = self.rescored(query, np.concatenate([rows, found])[None], k)
                rows = best[0]
        return scores[0], rows

    def _blocks(
        self, queries: int, allowed: np.ndarray | None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
        """Vectors (block, d), their rows (block,), and which of them may be found (block,), None for all."""
        size = min(max(_CELLS // queries, _BLOCK[0]), _BLOCK[1])
        for tensor, start in zip(self._tensors, self._starts, strict=False):
            for first in range(0, len(tensor), size):
                vectors = tensor[first : first + size]
                begin = int(start) + first
                numbers, mask = torch.arange(begin, begin + len(vectors), device=self.device), None
                if allowed is not None:
                    mask = torch.from_numpy(allowed[begin : begin + len(vectors)]).to(self.device)
                    share = mask.float().mean().item()
                    if share == 0:
                        continue
                    if share < _SPARSE:
                        vectors, numbers, mask = vectors[mask], numbers[mask], None
                yield vectors, numbers, mask


def _highest(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The highest scores of each row (q, n) and their columns, (q, min(count, n)) each.

    The `count` highest lie in the `count` groups of columns with the highest maxima: most are never sorted.
    """
    q, n = scores.shape
    if n % _GROUP or n < 4 * count * _GROUP:
        best = scores.topk(min(count, n))
        return best.values, best.indices
    groups = scores.view(q, -1, _GROUP)  # (q, groups, group)
    chosen = groups.amax(-1).topk(count, sorted=False).indices  # (q, count)
    inside = groups.gather(1, chosen[:, :, None].expand(-1, -1, _GROUP)).flatten(1)  # (q, count * group)
    best = inside.topk(count)
    columns = chosen.gather(1, best.indices // _GROUP) * _GROUP + best.indices % _GROUP
    return best.values, columns


def checked_arrays(vectors: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
    """One or several arrays (n, d) as a list of those that have rows.

    Raises:
        ClaspError: not float32, not contiguous, or shapes that do not fit.
    """
    arrays = [vectors] if isinstance(vectors, np.ndarray) else list(vectors)
    for array in arrays:
        if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.ndim != 2 or array.shape[1] == 0:
            what = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise ClaspError(f"vectors: are {what}; give float32 of shape (n, d).")
        if array.shape[1] != arrays[0].shape[1]:
            raise ClaspError(f"vectors: have widths {arrays[0].shape[1]} and {array.shape[1]}; give one model's.")
        if not array.flags.c_contiguous:
            raise ClaspError("vectors: are a view of other numbers; pass them through numpy.ascontiguousarray.")
    return [array for array in arrays if len(array)]


def check_search(queries: np.ndarray, k: int, allowed: np.ndarray | None, rows: int, dimension: int) -> None:
    """Whether the arguments of `Nearest.search` fit `rows` vectors of `dimension` numbers.

    Raises:
        ClaspError: they do not.
    """
    if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
        raise ClaspError(f"k is {k!r}; give a whole number of at least 1.")
    if not isinstance(queries, np.ndarray) or queries.ndim != 2 or queries.dtype != np.float32:
        what = (
            f"{queries.dtype} of shape {queries.shape}" if isinstance(queries, np.ndarray) else type(queries).__name__
        )
        raise ClaspError(f"queries: are {what}; give float32 of shape (q, d).")
    if rows and queries.shape[1] != dimension:
        raise ClaspError(
            f"queries: have {queries.shape[1]} numbers each, the vectors {dimension}. Encode both with one model."
        )
    if allowed is not None and (allowed.shape != (rows,) or allowed.dtype != bool):
        raise ClaspError(f"allowed: is {allowed.dtype} of shape {allowed.shape}; give bool of shape ({rows},).")
