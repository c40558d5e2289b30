"""Measures of retrieval: pure functions of vectors and ids.

A query's positives are all candidates that carry its id. Its rank is that of its best positive:
1 + the negatives that score higher + half of the negatives that tie with it, the expected rank if ties are broken by
lot. (The published evaluation skips some tied queries altogether.)
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from clasp_lib.errors import ClaspError

MEASURES = ("hits_at_1", "hits_at_5", "hits_at_10", "mrr", "mean_rank", "median_rank", "ndcg_at_10")


class Interval(NamedTuple):
    """A measure and its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 3 if abs(self.value) < 10 else 1
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


class Ranking(NamedTuple):
    """What a query's answer is worth: `rank` of the best positive and `ndcg_at_10`, each `(queries,)`."""

    rank: np.ndarray
    ndcg_at_10: np.ndarray


def rank_queries(
    query_vectors: np.ndarray,
    candidate_vectors: np.ndarray,
    query_ids: Sequence[Hashable],
    candidate_ids: Sequence[Hashable],
    chunk_size: int = 1024,
    device: str | torch.device = "cpu",
) -> Ranking:
    """Rank all candidates for each query by the dot product, without ever holding the whole score matrix.

    Args:
        query_vectors: (queries, d). candidate_vectors: (candidates, d). Normalise both for cosine.
        query_ids, candidate_ids: equal ids are positives; an id may occur several times on either side.
        chunk_size: queries whose scores are held at once.
        device: where the scores are computed.

    Raises:
        ClaspError: shapes do not fit, values are not finite, or a query has no positive.
    """
    queries, candidates = _checked(query_vectors, candidate_vectors, query_ids, candidate_ids)
    codes: dict[Hashable, int] = {}
    for i in candidate_ids:
        codes.setdefault(i, len(codes))
    orphans = [i for i in query_ids if i not in codes]
    if orphans:
        raise ClaspError(f"query_ids: {len(orphans)} of them have no candidate with the same id, e.g. {orphans[0]!r}.")
    queries, candidates = queries.to(device), candidates.to(device)
    query_codes = torch.tensor([codes[i] for i in query_ids], device=device)
    candidate_codes = torch.tensor([codes[i] for i in candidate_ids], device=device)
    positives = torch.bincount(candidate_codes, minlength=len(codes))  # (ids,)
    top = min(10, len(candidates))
    discounts = 1 / torch.log2(torch.arange(2, top + 2, device=device).double())  # (top,)
    ideal = torch.cumsum(discounts, 0)  # of 1, 2, ... positives
    ranks, ndcgs = [], []
    for start in range(0, len(queries), chunk_size):
        scores = queries[start : start + chunk_size] @ candidates.T  # (chunk, candidates)
        mine = query_codes[start : start + chunk_size, None]  # (chunk, 1)
        right = candidate_codes[None] == mine  # (chunk, candidates)
        best = scores.masked_fill(~right, -torch.inf).amax(1, keepdim=True)  # (chunk, 1)
        above = ((scores > best) & ~right).sum(1)
        tied = ((scores == best) & ~right).sum(1)
        ranks.append(1 + above.double() + tied.double() / 2)
        found = right.gather(1, scores.topk(top, dim=1).indices).double()  # (chunk, top)
        most = positives[mine[:, 0]].clamp(max=top)
        ndcgs.append((found * discounts).sum(1) / ideal[most - 1])
    return Ranking(torch.cat(ranks).cpu().numpy(), torch.cat(ndcgs).cpu().numpy())


def per_query(ranking: Ranking) -> dict[str, np.ndarray]:
    """The measures whose mean over queries is reported, each `(queries,)`: HITS@k is rank <= k, MRR is 1 / rank."""
    values = {f"hits_at_{k}": (ranking.rank <= k).astype(float) for k in (1, 5, 10)}
    return {**values, "mrr": 1 / ranking.rank, "mean_rank": ranking.rank, "ndcg_at_10": ranking.ndcg_at_10}


def bootstrap(
    ranking: Ranking, groups: Sequence[Hashable], resamples: int = 1_000, seed: int = 0
) -> dict[str, Interval]:
    """Every measure of `MEASURES` with a 95% percentile interval (Efron and Tibshirani 1993, chapter 13).

    Whole groups are drawn with replacement: pass the sentence of each query, since several recordings of one sentence
    are not independent.
    """
    numbers = {group: n for n, group in enumerate(dict.fromkeys(groups))}
    codes = np.array([numbers[group] for group in groups])  # (queries,)
    n_groups = codes.max() + 1
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=resamples).astype(
        float
    )  # (resamples, groups)
    sizes = np.bincount(codes)
    results = {}
    for name, values in per_query(ranking).items():
        sums = np.bincount(codes, weights=values)  # (groups,)
        means = (counts @ sums) / (counts @ sizes)  # (resamples,)
        results[name] = Interval(float(values.mean()), *map(float, np.percentile(means, [2.5, 97.5])))
    order = np.argsort(ranking.rank, kind="stable")
    below = np.cumsum(counts[:, codes[order]], axis=1)  # (resamples, queries): how many are at most this far down
    median = ranking.rank[order][(below < below[:, -1:] / 2).sum(1)]
    low, high = np.percentile(median, [2.5, 97.5])
    results["median_rank"] = Interval(float(np.median(ranking.rank)), float(low), float(high))
    return {name: results[name] for name in MEASURES}


def _checked(
    query_vectors: np.ndarray, candidate_vectors: np.ndarray, query_ids: Sequence, candidate_ids: Sequence
) -> tuple[torch.Tensor, torch.Tensor]:
    out = []
    for name, vectors, ids in (("query", query_vectors, query_ids), ("candidate", candidate_vectors, candidate_ids)):
        array = np.asarray(vectors, dtype=np.float32)
        if array.ndim != 2 or len(array) == 0:
            raise ClaspError(f"{name}_vectors: have shape {array.shape}; give at least one row, shape (n, d).")
        if len(array) != len(ids):
            raise ClaspError(f"{name}_vectors: have {len(array)} rows, but there are {len(ids)} {name}_ids.")
        if not np.isfinite(array).all():
            raise ClaspError(f"{name}_vectors: hold NaN or infinite values.")
        out.append(torch.from_numpy(array))
    if out[0].shape[1] != out[1].shape[1]:
        raise ClaspError(f"query vectors are {out[0].shape[1]} wide, candidate vectors {out[1].shape[1]}.")
    return out[0], out[1]
