"""How good is a model? Measures of vectors in both directions, and reports that remember how they were made.

`clasp_lib.report` measures a model on a whole folder of recordings.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from clasp_lib.errors import ClaspError
from clasp_lib.metrics import MEASURES, Interval, bootstrap, per_query, rank_queries
from clasp_lib.significance import Comparison, compare_paired

if TYPE_CHECKING:
    import torch

Direction: TypeAlias = Literal["text_to_speech", "speech_to_text"]
DIRECTIONS: tuple[Direction, Direction] = ("text_to_speech", "speech_to_text")
"""Who asks, and what is searched."""


@dataclass(frozen=True)
class RetrievalReport:
    """Measures of one direction of retrieval, each with its 95% interval.

    Attributes:
        n: queries that count. candidates: what each query is ranked against. seed: of the bootstrap.
        map: None in records from before it was measured.
        groups: sentences, which the bootstrap drew. ties, resamples, method: see `rank_queries` and `bootstrap_groups`;
            a record from before they were kept has the defaults of its time.
    """

    n: int
    candidates: int
    seed: int
    hits_at_1: Interval
    hits_at_5: Interval
    hits_at_10: Interval
    mrr: Interval
    mean_rank: Interval
    median_rank: Interval
    ndcg_at_10: Interval
    map: Interval | None = None
    groups: int | None = None
    ties: str = "expected"
    resamples: int = 1_000
    method: str = "percentile"

    @property
    def chance(self) -> float:
        """HITS@1 of a guess, if each query has one right answer."""
        return 1 / self.candidates

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and names: measures as `{"value", "low", "high"}`; what is None is left out."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: value._asdict() if isinstance(value, Interval) else value
            for name, value in values.items()
            if value is not None
        }

    def to_json(self) -> str:
        """The report as JSON, all digits."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RetrievalReport:
        """The inverse of `to_dict`."""
        read: dict[str, Any] = {n: Interval(**value) if n in MEASURES else value for n, value in values.items()}
        return cls(**read)

    def __str__(self) -> str:
        lines = [f"{self.n} queries, {self.candidates} candidates, chance HITS@1 {self.chance:.4f}"]
        found = {name: getattr(self, name) for name in MEASURES}
        return "\n".join(lines + [f"  {name:<12} {value}" for name, value in found.items() if value is not None])


def evaluate_retrieval(
    query_vectors: np.ndarray,
    candidate_vectors: np.ndarray,
    query_ids: Sequence[Hashable],
    candidate_ids: Sequence[Hashable],
    seed: int = 0,
    ties: str = "expected",
    method: str = "bca",
    resamples: int = 1_000,
    device: str | torch.device = "cpu",
) -> RetrievalReport:
    """Rank all candidates for each query; every candidate with the query's id is right.

    Vectors are compared by the dot product: L2-normalise them for cosine, as `CLASP.encode_*` do. Intervals are
    bootstraps over ids; see `clasp_lib.significance.bootstrap_groups` for `method`, and `clasp_lib.metrics` for `ties`.

    Raises:
        ClaspError: shapes that do not fit, values that are not finite, a query without a right answer, unknown names.
    """
    ranking = rank_queries(query_vectors, candidate_vectors, query_ids, candidate_ids, device=device, ties=ties)
    counted = query_ids if ranking.kept is None else [query_ids[i] for i in ranking.kept]
    made: dict[str, Any] = {"groups": len(set(counted)), "ties": ties, "resamples": resamples, "method": method}
    made |= bootstrap(ranking, query_ids, resamples, seed, method)
    return RetrievalReport(len(ranking.rank), len(candidate_ids), seed, **made)


def evaluate_both_directions(
    speech_vectors: np.ndarray,
    text_vectors: np.ndarray,
    sentence_ids: Sequence[Hashable],
    seed: int = 0,
    ties: str = "expected",
    method: str = "bca",
    resamples: int = 1_000,
    device: str | torch.device = "cpu",
) -> dict[str, RetrievalReport]:
    """Text to speech and speech to text, for paired vectors (row i of both belongs to `sentence_ids[i]`).

    A text that occurs several times is one text: it stands among the queries and among the candidates once. The rest as
    in `evaluate_retrieval`.
    """
    first = first_rows(sentence_ids)
    texts, text_ids = text_vectors[list(first.values())], list(first)
    settings: dict[str, Any] = {"seed": seed, "ties": ties, "method": method, "resamples": resamples, "device": device}
    return {
        "text_to_speech": evaluate_retrieval(texts, speech_vectors, text_ids, sentence_ids, **settings),
        "speech_to_text": evaluate_retrieval(speech_vectors, texts, sentence_ids, text_ids, **settings),
    }


def first_rows(sentence_ids: Sequence[Hashable]) -> dict[Hashable, int]:
    """Each id and the first row that has it, in the order of the rows."""
    first: dict[Hashable, int] = {}
    for i, sentence in enumerate(sentence_ids):
        first.setdefault(sentence, i)
    return first


def compare(
    first_vectors: np.ndarray,
    second_vectors: np.ndarray,
    candidate_vectors: np.ndarray,
    ids: Sequence[Hashable],
    measure: str = "mrr",
    resamples: int = 10_000,
    seed: int = 0,
    candidate_ids: Sequence[Hashable] | None = None,
    ties: str = "expected",
    method: str = "bca",
) -> Comparison:
    """Two systems' vectors for the same queries against the same candidates: paired difference of a measure.

    Queries of one id are one group: drawn together, and swapped together. See `compare_paired`, and `compare_family`
    for more than two systems.

    Args:
        ids: of the queries. candidate_ids: None: the candidates' ids are those of the queries, row by row.
        measure: any of `per_query`, thus not the median. ties: "expected" or "optimistic": under "skip" the systems
            would answer different queries.
    """
    if ties == "skip":
        raise ClaspError("ties: 'skip' leaves out other queries for each system, so that there are no pairs.")
    right = ids if candidate_ids is None else candidate_ids
    systems = (first_vectors, second_vectors)
    values = [per_query(rank_queries(v, candidate_vectors, ids, right, ties=ties)) for v in systems]
    if measure not in values[0]:
        raise ClaspError(f"measure {measure!r} is not known. Choose from {', '.join(values[0])}.")
    return compare_paired(values[0][measure], values[1][measure], ids, measure, resamples, seed, method)
