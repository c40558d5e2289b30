"""Measures of retrieval: pure functions of vectors and ids.

A query's positives are all candidates that carry its id. Its rank is that of its best positive among the candidates
that do not. Candidates that score exactly alike tie, and a rule says what a tie is worth:

- "expected", the default: each measure's expectation if ties were broken by lot, exactly (McSherry and Najork 2008,
  "Computing information retrieval performance measures efficiently in the presence of tied scores").
  HITS@k is the chance that a positive is among the first k, MRR the mean of 1 / rank over all orders, nDCG@k and MAP
  likewise. The rank is 1 + the negatives above + half of those that tie: the expected rank of any one best positive. A
  system that gives all candidates one score is thus worth exactly a guess, in every measure.
- "optimistic": of those that tie, positives come first.
- "skip": as the published evaluation has it: a query whose top hit, the first of
  the highest scores, is wrong and ties with a right one is left out; the others count as "optimistic". The number of
  queries then differs from system to system: only for comparison with published figures.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch

from clasp_lib.arrays import number_array
from clasp_lib.errors import ClaspError
from clasp_lib.significance import Interval, bootstrap_groups

MEASURES = ("hits_at_1", "hits_at_5", "hits_at_10", "mrr", "mean_rank", "median_rank", "ndcg_at_10", "map")
"""What reports hold."""

TIES = ("expected", "optimistic", "skip")
"""The rules for candidates that score alike; see above."""

_CELLS = 2**22  # scores held at once: 16 MB
_FEW = 8  # positives of a query that are counted one by one; of more, the row is sorted


class Ranking(NamedTuple):
    """What each query's answer is worth.

    Attributes:
        rank: of the best positive, (queries,). ndcg_at_10: (queries,). average_precision: (queries,), its mean is MAP.
        tied: negatives and positives that score as the best positive does, (queries, 2); only where chance decides.
        ndcg_at: nDCG at further k, (queries,) each.
        kept: numbers of the queries that count, (kept,), where the rule left some out; all arrays have that length.
    """

    rank: np.ndarray
    ndcg_at_10: np.ndarray
    average_precision: np.ndarray | None = None
    tied: np.ndarray | None = None
    ndcg_at: Mapping[int, np.ndarray] = MappingProxyType({})
    kept: np.ndarray | None = None


def rank_queries(
    query_vectors: np.ndarray,
    candidate_vectors: np.ndarray,
    query_ids: Sequence[Hashable],
    candidate_ids: Sequence[Hashable],
    chunk_size: int | None = None,
    device: str | torch.device = "cpu",
    ties: str = "expected",
    cutoffs: Sequence[int] = (),
) -> Ranking:
    """Rank all candidates for each query by the dot product, without ever holding the whole score matrix.

    Args:
        query_vectors: (queries, d). candidate_vectors: (candidates, d). Normalise both for cosine. Candidates of equal
            vectors tie, whatever the rounding of a matrix product.
        query_ids, candidate_ids: equal ids are positives; an id may occur several times on either side.
        chunk_size: queries whose scores are held at once; None: as many as make 16 MB.
        device: where the scores are computed.
        ties: "expected", "optimistic" or "skip"; see above.
        cutoffs: further k for HITS@k and nDCG@k.

    Raises:
        ClaspError: shapes do not fit, values are not finite, a query has no positive, an unknown rule, or all queries
            are left out.
    """
    if ties not in TIES:
        raise ClaspError(f"ties {ties!r} is no rule. Choose from {', '.join(TIES)}.")
    if any(k < 1 for k in cutoffs):
        raise ClaspError(f"cutoffs: {list(cutoffs)}; each must be at least 1.")
    queries, candidates = checked_vectors(query_vectors, candidate_vectors, query_ids, candidate_ids)
    codes: dict[Hashable, int] = {}
    candidate_codes = np.array([codes.setdefault(i, len(codes)) for i in candidate_ids])
    orphans = [i for i in query_ids if i not in codes]
    if orphans:
        raise ClaspError(f"query_ids: {len(orphans)} of them have no candidate with the same id, e.g. {orphans[0]!r}.")
    query_codes = np.array([codes[i] for i in query_ids])
    ks = dict.fromkeys([10, *cutoffs])
    parts = [
        _worth(block, ks, ties, len(candidates))
        for block in _blocks(queries, candidates, query_codes, candidate_codes, chunk_size, device, ties == "skip")
    ]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    kept = None
    if ties == "skip":
        kept = np.flatnonzero(~found["lost"])
        if len(kept) == 0:
            raise ClaspError("ties: the rule 'skip' leaves out every query, since each one's top hit is a wrong tie.")
        found = {name: values[kept] for name, values in found.items()}
    return Ranking(
        found["rank"],
        found["ndcg_at_10"],
        found["average_precision"],
        np.stack([found["wrong"], found["right"]], 1) if ties == "expected" else None,
        MappingProxyType({k: found[f"ndcg_at_{k}"] for k in ks if k in cutoffs}),
        kept,
    )


def hits_at(ranking: Ranking, k: int) -> np.ndarray:
    """HITS@k of each query, `(queries,)`: 1 if a positive is among the first k, or the chance of that under ties."""
    if ranking.tied is None:
        return (ranking.rank <= k).astype(float)
    wrong, right = ranking.tied.T
    above = ranking.rank - 1 - wrong / 2
    hits = (above < k).astype(float)
    some = np.flatnonzero((above < k) & (above + wrong >= k))  # where chance decides
    hits[some] = 0.0
    for place, chance in _first_places(wrong[some], right[some], k):
        hits[some] += chance * (above[some] + place < k)
    return hits


def reciprocal_rank(ranking: Ranking) -> np.ndarray:
    """1 / rank of each query, `(queries,)`, or its mean over all orders of what ties."""
    reciprocal = 1 / ranking.rank
    if ranking.tied is None:
        return reciprocal
    some = np.flatnonzero(ranking.tied[:, 0] > 0)
    if len(some):
        cases = np.column_stack([ranking.rank[some] - 1 - ranking.tied[some, 0] / 2, ranking.tied[some]])
        cases, case = np.unique(cases, axis=0, return_inverse=True)  # a few, of which many queries are
        above, wrong, right = cases.T
        mean = np.zeros(len(cases))
        for place, chance in _first_places(wrong, right):
            mean += chance / (above + place + 1)
        reciprocal[some] = mean[case.reshape(-1)]
    return reciprocal


def per_query(ranking: Ranking) -> dict[str, np.ndarray]:
    """The measures whose mean over queries is reported, each `(queries,)`; those of further k at the end."""
    values = {f"hits_at_{k}": hits_at(ranking, k) for k in (1, 5, 10)}
    values |= {"mrr": reciprocal_rank(ranking), "mean_rank": ranking.rank, "ndcg_at_10": ranking.ndcg_at_10}
    if ranking.average_precision is not None:
        values["map"] = ranking.average_precision
    for k, ndcg in ranking.ndcg_at.items():
        values |= {f"hits_at_{k}": hits_at(ranking, k), f"ndcg_at_{k}": ndcg}
    return values


def bootstrap(
    ranking: Ranking, groups: Sequence[Hashable], resamples: int = 1_000, seed: int = 0, method: str = "bca"
) -> dict[str, Interval]:
    """Every measure of `MEASURES`, and those of further k, with a 95% bootstrap interval; see `bootstrap_groups`.

    Whole groups are drawn with replacement: pass the sentence of each query that was asked, since several recordings of
    one sentence are not independent.
    """
    if ranking.kept is not None:
        groups = [groups[i] for i in ranking.kept]
    medians = {"median_rank": ranking.rank}
    results = bootstrap_groups(per_query(ranking), groups, resamples, seed, method, medians)
    return {name: results[name] for name in dict.fromkeys([*MEASURES, *results]) if name in results}


def checked_vectors(
    query_vectors: np.ndarray, candidate_vectors: np.ndarray, query_ids: Sequence, candidate_ids: Sequence
) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries (n, d) and candidates (m, d) as float32, if they can be ranked.

    Raises:
        ClaspError: no numbers, shapes that do not fit, no rows, another number of ids, or values that are not finite.
    """
    out = []
    for name, vectors, ids in (("query", query_vectors, query_ids), ("candidate", candidate_vectors, candidate_ids)):
        array = number_array(f"{name}_vectors", vectors, "(n, d)", np.float32)
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


def equal_rows(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the rows that repeat an earlier one, and of the first of their kind, (copies,) each.

    Copy the scores of the first: equal candidates must tie, but the same sum may round differently by column.

    Args:
        vectors: (n, d), float32.
    """
    odd = np.random.default_rng(0).integers(2**63, size=vectors.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    hashes = np.empty(len(vectors), np.uint64)
    for start in range(0, len(vectors), 1024):
        bits = (vectors[start : start + 1024] + np.float32(0)).view(np.uint32)  # + 0 makes -0 the same as 0
        hashes[start : start + 1024] = (bits * odd).sum(1, dtype=np.uint64)
    _, first, number = np.unique(hashes, return_index=True, return_inverse=True)
    copies = np.flatnonzero(first[number] != np.arange(len(vectors)))
    return copies, first[number][copies]


class _Block(NamedTuple):
    """Positives of some queries that score alike, block by block, the best of each query first: `(blocks,)` each.

    query: its row in the chunk. above: candidates that score higher. size: candidates of this score. right: positives
    of it. before: positives that score higher. lost: whether the query's top hit is wrong and ties, `(rows,)`.
    """

    query: np.ndarray
    above: np.ndarray
    size: np.ndarray
    right: np.ndarray
    before: np.ndarray
    lost: np.ndarray


def _blocks(
    queries: torch.Tensor,
    candidates: torch.Tensor,
    query_codes: np.ndarray,
    candidate_codes: np.ndarray,
    chunk_size: int | None,
    device: str | torch.device,
    find_lost: bool,
) -> Iterator[_Block]:
    """Score a chunk of queries after the other, and count for each positive what scores higher and what the same."""
    copies, originals = (torch.from_numpy(a).to(device) for a in equal_rows(candidates.numpy()))
    queries, candidates = queries.to(device), candidates.to(device)
    by_code = np.argsort(candidate_codes, kind="stable")
    sizes = np.bincount(candidate_codes)
    starts = np.cumsum(sizes) - sizes
    rows = chunk_size or max(1, _CELLS // len(candidates))
    buffer = torch.empty(min(rows, len(queries)), len(candidates), device=device)
    for start in range(0, len(queries), rows):
        chunk = queries[start : start + rows]
        mine = query_codes[start : start + rows]
        scores = torch.mm(chunk, candidates.T, out=buffer[: len(chunk)])  # (rows, candidates)
        if len(copies):
            scores[:, copies] = scores[:, originals]
        positives = sizes[mine]  # (rows,)
        first = np.cumsum(positives) - positives  # (rows,): where each row's pairs begin
        row = np.repeat(np.arange(len(mine)), positives)  # (pairs,)
        column = by_code[np.arange(len(row)) + (starts[mine] - first)[row]]  # (pairs,)
        at = torch.from_numpy(row).to(device), torch.from_numpy(column).to(device)
        score = scores[at]  # (pairs,)
        above, same = _count(scores, score, positives, first)
        height = score.cpu().numpy()
        if not np.isfinite(height).all():
            raise ClaspError("query_vectors, candidate_vectors: are so large that their dot products overflow.")
        order = np.lexsort((-height, row))  # each row's positives, the best first
        row, height, above, same = row[order], height[order], above[order], same[order]
        begins = np.flatnonzero(np.r_[True, (row[1:] != row[:-1]) | (height[1:] != height[:-1])])  # (blocks,)
        right = np.diff(np.r_[begins, len(row)])
        lost = np.zeros(len(mine), bool)
        if find_lost:
            top = scores.argmax(1).cpu().numpy()  # (rows,), the first of the highest
            lost = (above[first] == 0) & (candidate_codes[top] != mine)
        yield _Block(row[begins], above[begins], same[begins], right, begins - first[row[begins]], lost)


def _count(
    scores: torch.Tensor, score: torch.Tensor, positives: np.ndarray, first: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each pair, of `score` (pairs,): how many of its row's `scores` are higher, and how many equal."""
    above = torch.empty(len(score), dtype=torch.int64, device=scores.device)
    same = torch.empty_like(above)
    for j in range(min(int(positives.max()), _FEW)):
        some = np.flatnonzero((positives > j) & (positives <= _FEW))
        if len(some):
            pair = torch.from_numpy(first[some] + j).to(scores.device)
            block = scores if len(some) == len(scores) else scores[torch.from_numpy(some).to(scores.device)]
            limit = score[pair, None]
            if block.device.type == "cpu":  # numpy needs half of torch's time, and waits for no other thread
                numbers, bounds = block.numpy(), limit.numpy()
                above[pair] = torch.from_numpy(np.count_nonzero(numbers > bounds, axis=1))
                same[pair] = torch.from_numpy(np.count_nonzero(numbers == bounds, axis=1))
            else:
                above[pair], same[pair] = (block > limit).sum(1), (block == limit).sum(1)
    many = np.flatnonzero(positives > _FEW)
    if len(many):
        ordered = scores[torch.from_numpy(many).to(scores.device)].sort(1).values  # (many, candidates)
        row = np.repeat(np.arange(len(many)), positives[many])  # (pairs,)
        place = np.arange(len(row)) - np.repeat(np.cumsum(positives[many]) - positives[many], positives[many])
        at = torch.from_numpy(row).to(scores.device), torch.from_numpy(place).to(scores.device)
        pair = torch.from_numpy(first[many][row] + place).to(scores.device)
        limits = ordered.new_zeros(len(many), int(positives.max()))  # (many, most)
        limits[at] = score[pair]
        not_above = torch.searchsorted(ordered, limits, right=True)[at]
        above[pair] = scores.shape[1] - not_above
        same[pair] = not_above - torch.searchsorted(ordered, limits)[at]
    return above.cpu().numpy(), same.cpu().numpy()


def _worth(block: _Block, ks: Mapping[int, None], ties: str, candidates: int) -> dict[str, np.ndarray]:
    """From what is above each block of positives to the measures of each query, `(rows,)` each."""
    query, above, size, right, before, lost = block
    n = len(lost)
    best = np.flatnonzero(np.r_[True, query[1:] != query[:-1]])  # (rows,): the best block of each
    wrong = (size - right)[best]
    by_chance = ties == "expected"
    spread = size if by_chance else right  # the places over which a block's positives are spread
    positives = np.bincount(query, weights=right, minlength=n)  # (rows,)
    found = {"rank": 1 + above[best] + (wrong / 2 if by_chance else 0.0), "wrong": wrong, "right": right[best]}
    for k in ks:
        discounts = np.r_[0, np.cumsum(1 / np.log2(np.arange(2, min(k, candidates) + 2)))]  # of the first 0, 1, ...
        last = len(discounts) - 1
        gain = right / spread * (discounts[np.minimum(above + spread, last)] - discounts[np.minimum(above, last)])
        ideal = discounts[np.minimum(positives.astype(int), last)]
        found[f"ndcg_at_{k}"] = np.minimum(np.bincount(query, weights=gain, minlength=n) / ideal, 1.0)
    # At place i of a block, before + 1 + (i - above - 1) * density of the first i are right, if the i-th is.
    harmonic = np.r_[0, np.cumsum(1 / np.arange(1, candidates + 1))]
    density = np.where(spread > 1, (right - 1) / np.maximum(spread - 1, 1), 0.0)
    precisions = density * spread + (before + 1 - density * (above + 1)) * (harmonic[above + spread] - harmonic[above])
    precisions = np.where(spread > 1, precisions, (before + 1) / (above + 1))  # without the rounding of a difference
    precision = np.bincount(query, weights=right / spread * precisions, minlength=n) / positives
    return found | {"average_precision": np.minimum(precision, 1.0), "lost": lost}


def _first_places(wrong: np.ndarray, right: np.ndarray, places: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """The chance that the first of `right` positives stands on place 0, 1, ... among `wrong` negatives: (cases,)."""
    last = int(wrong.max(initial=-1))
    before = np.ones(len(wrong))  # that all places so far are wrong
    for place in range(last + 1 if places is None else min(last + 1, places)):
        left = np.maximum(wrong - place, 0)
        yield place, before * right / (left + right)
        before = before * left / (left + right)
