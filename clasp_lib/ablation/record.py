"""From a specification to a record: train everything, then say what holds for other sentences and other seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clasp_lib.ablation.data import Data
from clasp_lib.ablation.runs import Job, Result, run_jobs
from clasp_lib.ablation.specification import Ablation, Cell, Question, System, cells, parse_ablation
from clasp_lib.errors import ClaspError
from clasp_lib.profiles import get_profile
from clasp_lib.provenance import provenance
from clasp_lib.significance import PairedComparison, compare_systems, estimate, holm

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.05
"""A difference counts as shown if its corrected p-value is at most this."""

_MEASURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mrr": lambda ranks: 1 / ranks,
    "hits_at_1": lambda ranks: (ranks <= 1).astype(float),
    "mean_rank": lambda ranks: ranks,
}


def run_ablation(ablation: Ablation, folder: str | Path, workers: int | None = None) -> dict[str, Any]:
    """Train what is not in the folder yet, and make the record.

    First each learning rate is tried for each system, so that none is at a disadvantage because another one's suits it
    badly; the best mean validation MRR wins, the first of equals. Then all seeds are trained with it.

    Returns:
        Command, date, commit, machine, versions; `spec`; `pairs` of each split; `rows`, one a training; `tuning`, one a
        system and learning rate; `systems`, MRR and HITS@1 (speech to text) with intervals over items, seeds and both;
        `questions`, differences of MRR (speech to text), intervals, p-values and verdicts.

    Raises:
        ClaspError: a training failed, or an encoder cannot be loaded.
    """
    folder = Path(folder)
    data = Data(get_profile(ablation.profile), folder)
    pieces = data.pieces(list(ablation.systems))
    tried = cells(ablation) if len(ablation.learning_rates) > 1 else []
    tuning = _tuning(tried, run_jobs(_jobs(ablation, tried, pieces, data), workers, "learning rates"))
    rates = dict.fromkeys(ablation.systems, ablation.learning_rates[0])
    rates |= {_system(row): row["learning_rate"] for row in tuning if row["chosen"]}
    wanted = cells(ablation, rates)
    results = dict(zip(wanted, run_jobs(_jobs(ablation, wanted, pieces, data), workers, "trainings"), strict=True))
    return {
        **provenance(["python", "-m", "clasp_lib.ablation", ablation.name]),
        "spec": dict(ablation.spec),
        "default": ablation.default._asdict(),
        "pairs": data.pairs,
        "rows": [_row(cell, result) | {"pairs": data.pairs["train"]} for cell, result in results.items()],
        "tuning": tuning,
        "systems": [_system_row(system, results) for system in ablation.systems],
        "questions": _answers(ablation.questions, results),
    }


def recompute(
    record: Mapping[str, Any],
    n: int,
    seed: int,
    folder: str | Path,
    workers: int | None = None,
    only: Callable[[Mapping[str, Any]], bool] | None = None,
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Train `n` of a record's rows again, drawn by `seed`: pairs of the recorded row and the one found now.

    Args:
        folder: a fresh one: what it holds already would only be read.
        only: says of a row whether it may be drawn, e.g. `lambda row: "+" not in row["fusion"]`.

    Raises:
        ClaspError: fewer than `n` rows may be drawn.
    """
    rows = [row for row in record["rows"] if only is None or only(row)]
    if not 1 <= n <= len(rows):
        raise ClaspError(f"n is {n}; of {len(record['rows'])} rows of the record {len(rows)} may be drawn.")
    drawn = [rows[i] for i in sorted(np.random.default_rng(seed).choice(len(rows), n, replace=False))]
    ablation = parse_ablation(record["spec"], "record")
    data = Data(get_profile(ablation.profile), Path(folder))
    pieces = data.pieces(list(dict.fromkeys(map(_system, drawn))))
    wanted = [Cell(*_system(row), row["seed"], row["learning_rate"]) for row in drawn]
    results = run_jobs(_jobs(ablation, wanted, pieces, data), workers, "recomputed")
    found = [_row(*pair) | {"pairs": data.pairs["train"]} for pair in zip(wanted, results, strict=True)]
    return list(zip(drawn, found, strict=True))


def to_frame(record: Mapping[str, Any]) -> pd.DataFrame:
    """The trainings of a record as a tidy table: one row each, one column a measure."""
    import pandas as pd

    return pd.DataFrame(record["rows"])


def _jobs(
    ablation: Ablation, wanted: Sequence[Cell], pieces: Mapping[System, Mapping[str, str]], data: Data
) -> list[Job]:
    return [Job(cell, ablation.settings, pieces[cell.system], data.folder, data.store) for cell in wanted]


def _system(row: Mapping[str, Any]) -> System:
    return System(*(row[name] for name in System._fields))


def _tuning(tried: Sequence[Cell], results: Sequence[Result]) -> list[dict[str, Any]]:
    """Mean validation MRR of each system with each learning rate, and which one was chosen."""
    found: dict[System, dict[float, list[float]]] = {}
    for cell, result in zip(tried, results, strict=True):
        rates = found.setdefault(cell.system, {})
        rates.setdefault(cell.learning_rate, []).append(result.facts["validation_mrr"])
    rows = []
    for system, rates in found.items():
        means = {rate: float(np.mean(values)) for rate, values in rates.items()}
        best = max(means, key=lambda rate: means[rate])
        for rate, mean in means.items():
            rows.append({**system._asdict(), "learning_rate": rate, "validation_mrr": mean, "chosen": rate == best})
    return rows


def _row(cell: Cell, result: Result) -> dict[str, Any]:
    """A training in one line."""
    measured = {
        f"{way}_{name}": float(measure(ranks).mean())
        for way, ranks in result.ranks.items()
        for name, measure in _MEASURES.items()
    }
    return cell._asdict() | result.facts | measured


def _scores(system: System, results: Mapping[Cell, Result], measure: str) -> np.ndarray:
    """(seeds, sentences), speech to text: of several clips of a sentence the mean, since they are not independent."""
    scores = []
    for cell, result in results.items():
        if cell.system == system:
            values = _MEASURES[measure](result.ranks["speech_to_text"])  # (clips,)
            clips = np.bincount(result.sentences)
            scores.append(np.bincount(result.sentences, values) / clips)
    return np.array(scores)


def _system_row(system: System, results: Mapping[Cell, Result]) -> dict[str, Any]:
    scores = {measure: _scores(system, results, measure) for measure in ("mrr", "hits_at_1")}
    seeds, sentences = scores["mrr"].shape
    estimates = {measure: estimate(values).to_dict() for measure, values in scores.items()}
    return {**system._asdict(), "seeds": seeds, "sentences": sentences, **estimates}


def _answers(questions: Sequence[Question], results: Mapping[Cell, Result]) -> list[dict[str, Any]]:
    """Each question with the difference of MRR, over the seeds that both systems have; all p-values are one family."""
    found = []
    for question in questions:
        first, second = (_scores(system, results, "mrr") for system in question[1:])
        seeds = min(len(first), len(second))
        found.append((question, seeds, first.shape[1], compare_systems(first[:seeds], second[:seeds])))
    corrected = holm([comparison.p_value for *_, comparison in found])
    return [
        {
            "name": question.name,
            "first": question.first._asdict(),
            "second": question.second._asdict(),
            "measure": "mrr",
            "seeds": seeds,
            "sentences": sentences,
            "difference": comparison.difference.to_dict(),
            "p_items": comparison.p_items,
            "p_seeds": comparison.p_seeds,
            "p_value": comparison.p_value,
            "corrected": p,
            "verdict": verdict(question, comparison, p, seeds, len(found)),
        }
        for (question, seeds, sentences, comparison), p in zip(found, corrected, strict=True)
    ]


def verdict(question: Question, comparison: PairedComparison, corrected: float, seeds: int, family: int) -> str:
    """What the numbers say, in words; systems are named by what they differ in."""
    pairs = [(a, b) for a, b in zip(question.first, question.second, strict=True) if a != b]
    first, second = (" with ".join(names) for names in zip(*pairs, strict=True))
    if corrected <= LEVEL:
        return f"{first} is {'better' if comparison.difference.value > 0 else 'worse'} than {second}"
    if comparison.p_value <= LEVEL:
        reason = f"among {family} questions, chance alone may do as much"
    elif 2 / 2**seeds > LEVEL:
        reason = f"{seeds} seeds are too few to show anything"
    else:
        doubts = {"other sentences": comparison.p_items, "other seeds": comparison.p_seeds}
        reason = f"{' and '.join(name for name, p in doubts.items() if p > LEVEL)} may decide otherwise"
    return f"not shown that {first} and {second} differ: {reason}"
