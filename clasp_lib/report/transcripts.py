"""The part of a report that sets the model beside a transcript pipeline: what it finds, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clasp_lib.evaluation import RetrievalReport
from clasp_lib.metrics import Interval
from clasp_lib.report.blocks import MEASURES, WAYS, Block, Cell, Section, Table
from clasp_lib.report.measure import Report


def beside_transcripts(report: Report) -> Section | None:
    """The section, or None if no recogniser was given."""
    found = report.transcripts
    if found is None:
        return None
    blocks: list[Block] = [
        f"The other way to search speech: recognise the words (here with {found['recogniser']}), then compare texts. "
        "The oracle's transcripts are the true texts, spelled as a recogniser would: what is then missing is not the "
        "recogniser's fault."
    ]
    if rates := found.get("transcription"):
        said = [f"{name.replace('_', ' ')} {Interval(**value)}" for name, value in rates.items() if _is_interval(value)]
        blocks.append(f"The transcripts' {' and '.join(said)}.")
    columns = found["columns"]
    for way, label in WAYS.items():
        reports = {name: RetrievalReport.from_dict(ways[way]) for name, ways in columns.items() if way in ways}
        rows = [[n, r.n, r.hits_at_1, r.mrr, r.mean_rank] for n, r in reports.items()]
        pool = next(iter(reports.values())).candidates
        blocks.append(Table(["system", "n", "HITS@1", "MRR", "mean rank"], rows, f"{label}, pool {pool:,}."))
    if comparisons := found.get("comparisons"):
        rows = [
            [
                f"{row['first']} minus {row['second']}",
                f"{MEASURES.get(row['measure'], (row['measure'],))[0]}"
                + (f", {WAYS.get(row['direction'], row['direction'])}" if "direction" in row else ""),
                row["n"],
                Interval(**row["difference"]),
                f"{row.get('p_holm', row['p_value']):.4f}",
            ]
            for row in comparisons
        ]
        corrected = "corrected for the number of comparisons (Holm)" if "p_holm" in comparisons[0] else "not corrected"
        head = ["difference", "measure", "n", "value", "p"]
        blocks.append(Table(head, rows, f"Paired differences, query by query; p-values {corrected}."))
    if found.get("costs"):
        blocks += _costs(found["costs"])
    return Section("Beside a transcript pipeline", blocks)


def _costs(costs: Mapping[str, Any]) -> list[Block]:
    """What `clasp_lib.costs.measure_costs` found: each system, then each stage."""
    where = f"{costs['device']}, {costs['threads']} threads, batches of {costs['batch_size']}"
    systems: list[list[Cell]] = []
    stages: list[list[Cell]] = []
    timed: dict[str, str] = {}
    for name, of in costs["columns"].items():
        memory = [_bytes(of["peak_memory"]["whole"])] if "peak_memory" in of else []
        milliseconds = [_milliseconds(of[phase]["seconds"]) for phase in ("index", "query")]
        sizes = [f"{of['whole']['parameters'] / 1e6:.2f} M", _bytes(of["whole"]["bytes"])]
        systems.append([name, *milliseconds, *sizes, *memory])
        for stage, taken in of["index"]["stages"].items():
            timed.setdefault(stage, " ".join([_milliseconds(taken["value"]), f"[{_milliseconds(taken['low'])},",
                                              f"{_milliseconds(taken['high'])}]"]))  # fmt: skip
    for stage, size in costs["stages"].items():
        stages.append([stage, timed.get(stage, ""), f"{size['parameters'] / 1e6:.2f} M", _bytes(size["bytes"])])
    head = ["system", "a clip", "a text query", "parameters", "on disk", *["peak memory"][: len(systems[0]) - 5]]
    about = (
        f"What each costs, with every stage counted, on the first {costs['clips']} clips ({costs['seconds']:.0f} s; "
        f"{where}); medians of {costs['passes']} passes."
    )
    index = "Stage by stage: a clip that enters the index, the median pass with the fastest and the slowest."
    return [Table(head, systems, about), Table(["stage", "a clip", "parameters", "on disk"], stages, index)]


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"


def _bytes(count: float) -> str:
    return f"{count / 1e6:,.1f} MB"


def _is_interval(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == {"value", "low", "high"}
