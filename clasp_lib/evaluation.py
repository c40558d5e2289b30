"""How good is a model? Protocols on top of `clasp_lib.metrics`, and reports that remember how they were made.

`python -m clasp_lib.evaluation FOLDER` measures a model on any folder of recordings with a `metadata.csv`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clasp_lib.errors import ClaspError
from clasp_lib.metrics import MEASURES, Interval, bootstrap, per_query, rank_queries
from clasp_lib.model import CLASP
from clasp_lib.speech_brown import read_recordings


@dataclass(frozen=True)
class RetrievalReport:
    """Measures of one direction of retrieval, each with its 95% interval.

    Attributes:
        n: queries. candidates: what each query is ranked against. seed: of the bootstrap.
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

    @property
    def chance(self) -> float:
        """HITS@1 of a guess, if each query has one right answer."""
        return 1 / self.candidates

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers: measures as `{"value", "low", "high"}`."""
        measures = {name: getattr(self, name)._asdict() for name in MEASURES}
        return {"n": self.n, "candidates": self.candidates, "seed": self.seed, **measures}

    def to_json(self) -> str:
        """The report as JSON, all digits."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RetrievalReport:
        """The inverse of `to_dict`."""
        measures = {name: Interval(**values[name]) for name in MEASURES}
        return cls(values["n"], values["candidates"], values["seed"], **measures)

    def __str__(self) -> str:
        lines = [f"{self.n} queries, {self.candidates} candidates, chance HITS@1 {self.chance:.4f}"]
        return "\n".join(lines + [f"  {name:<12} {getattr(self, name)}" for name in MEASURES])


@dataclass(frozen=True)
class Comparison:
    """The difference of two systems on the same queries: mean of `first - second`, its interval, and a p-value."""

    measure: str
    n: int
    difference: Interval
    p_value: float


def evaluate_retrieval(
    query_vectors: np.ndarray,
    candidate_vectors: np.ndarray,
    query_ids: Sequence[Hashable],
    candidate_ids: Sequence[Hashable],
    seed: int = 0,
) -> RetrievalReport:
    """Rank all candidates for each query; every candidate with the query's id is right.

    Vectors are compared by the dot product: L2-normalise them for cosine, as `CLASP.encode_*` do. Intervals are
    percentile bootstraps of 1 000 resamples over ids. See `clasp_lib.metrics` for ranks under ties.

    Raises:
        ClaspError: shapes that do not fit, values that are not finite, a query without a right answer.
    """
    ranking = rank_queries(query_vectors, candidate_vectors, query_ids, candidate_ids)
    return RetrievalReport(len(query_ids), len(candidate_ids), seed, **bootstrap(ranking, query_ids, seed=seed))


def evaluate_both_directions(
    speech_vectors: np.ndarray, text_vectors: np.ndarray, sentence_ids: Sequence[Hashable], seed: int = 0
) -> dict[str, RetrievalReport]:
    """Text to speech and speech to text, for paired vectors (row i of both belongs to `sentence_ids[i]`).

    A text that occurs several times is one text: it stands among the queries and among the candidates once.
    """
    first: dict[Hashable, int] = {}
    for i, sentence in enumerate(sentence_ids):
        first.setdefault(sentence, i)
    texts, text_ids = text_vectors[list(first.values())], list(first)
    return {
        "text_to_speech": evaluate_retrieval(texts, speech_vectors, text_ids, sentence_ids, seed),
        "speech_to_text": evaluate_retrieval(speech_vectors, texts, sentence_ids, text_ids, seed),
    }


def compare(
    first_vectors: np.ndarray,
    second_vectors: np.ndarray,
    candidate_vectors: np.ndarray,
    ids: Sequence[Hashable],
    measure: str = "mrr",
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Two systems' vectors for the same queries against the same candidates: paired difference of a measure.

    The interval is a percentile bootstrap over queries; the p-value a two-sided randomisation test that flips signs
    (Fisher 1935). `ids` are those of queries and candidates alike, and each occurs once.
    """
    values = [per_query(rank_queries(v, candidate_vectors, ids, ids)) for v in (first_vectors, second_vectors)]
    if measure not in values[0]:
        raise ClaspError(f"measure {measure!r} is not known. Choose from {', '.join(values[0])}.")
    difference = values[0][measure] - values[1][measure]  # (queries,)
    rng = np.random.default_rng(seed)
    n = len(difference)
    means = np.array([difference[rng.integers(n, size=n)].mean() for _ in range(resamples)])
    flips = np.array([(difference * rng.choice((-1.0, 1.0), n)).mean() for _ in range(resamples)])
    p_value = (1 + (np.abs(flips) >= abs(difference.mean()) - 1e-12).sum()) / (1 + resamples)
    low, high = np.percentile(means, [2.5, 97.5])
    return Comparison(measure, n, Interval(float(difference.mean()), float(low), float(high)), float(p_value))


def evaluate_folder(model: CLASP, folder: str | Path, seed: int = 0) -> dict[str, RetrievalReport]:
    """Both directions on the recordings of a folder with `metadata.csv` (file, text); see `read_recordings`."""
    dataset, _ = read_recordings(folder)
    speech = model.encode_speech(list(dataset["audio"]), show_progress_bar=sys.stderr.isatty())
    return evaluate_both_directions(
        speech, model.encode_text(list(dataset["text"])), list(dataset["sentence_id"]), seed
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: print the measures, or an error and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m clasp_lib.evaluation", description=evaluate_folder.__doc__)
    parser.add_argument("folder", type=Path, help="holds recordings and metadata.csv with the columns file and text")
    parser.add_argument("--model", default="pocket", help="'pocket', a folder, or a hub id (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    args = parser.parse_args(arguments)
    try:
        reports = evaluate_folder(CLASP.from_pretrained(args.model), args.folder, args.seed)
    except ClaspError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps({name: report.to_dict() for name, report in reports.items()}, indent=2))
    else:
        print("\n\n".join(f"{name.replace('_', ' ')}: {report}" for name, report in reports.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
