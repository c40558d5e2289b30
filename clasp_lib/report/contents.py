"""What a report says, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clasp_lib.evaluation import RetrievalReport
from clasp_lib.metrics import Interval
from clasp_lib.protocols.groups import SMALL_GROUP
from clasp_lib.report.blocks import MEASURES, WAYS, Block, Cell, Note, Plot, Section, Table
from clasp_lib.report.charts import interval_plot, pool_plot
from clasp_lib.report.measure import Report
from clasp_lib.report.transcripts import beside_transcripts

WARNING = (
    "A score without its pool means nothing: the first of 10 is easier to hit than the first of 10 000. Compare scores "
    "only where the pool is the same, and two models only on the same recordings, pair by pair."
)

MOST_GROUPS = 12
"""Groups of one kind that are shown; `report.json` has all."""

FEWEST = 5
"""Texts of a group that is shown: the interval of fewer is a false promise."""


def title(report: Report) -> str:
    """One line for the head of the page."""
    return f"{report.model['name'] or 'A model'} on {report.recordings['folder']}"


def sections(report: Report) -> list[Section]:
    """All that a report has to say."""
    found = [_summary(report), _small_pools(report), *_groups(report), beside_transcripts(report), _trust(report)]
    return [section for section in [*found, _examples(report), _meaning(), _made(report)] if section is not None]


def _summary(report: Report) -> Section:
    said, pools = report.recordings, {way: found.candidates for way, found in report.retrieval.items()}
    texts, speech = (report.retrieval[way] for way in WAYS)
    lines: list[Block] = [
        f"{_count(said['clips'], 'recording')} of {_count(said['texts'], 'text')}, "
        f"{_time(said['seconds'])}{_speakers(said)}. "
        f"Given a text, a right recording is the first of {pools['text_to_speech']:,} for "
        f"{_percent(texts.hits_at_1)} of the texts. Given a recording, its text is the first of "
        f"{pools['speech_to_text']:,} for {_percent(speech.hits_at_1)} of the recordings. Brackets hold 95% intervals: "
        "what other sentences of the same kind might have given.",
        "Text → speech: a text is the query, and recordings are searched. Speech → text: the other way round.",
        *_all_alike(report.retrieval),
        Note(WARNING),
        _directions(report.retrieval),
    ]
    shares = ("hits_at_1", "hits_at_5", "hits_at_10", "mrr", "ndcg_at_10", "map")
    series = {
        WAYS[way]: {MEASURES[name][0]: getattr(found, name) for name in shares if getattr(found, name) is not None}
        for way, found in report.retrieval.items()
    }
    alt = "Shares with 95% intervals. " + ". ".join(
        f"{way}: {', '.join(f'{name} {value}' for name, value in values.items())}" for way, values in series.items()
    )
    lines.append(
        Plot(
            f"Measures in the whole pool, with 95% intervals; dotted: HITS@1 of a guess ({texts.chance:.3g}).",
            alt,
            lambda name, said: interval_plot(name, said, series, "share, 95% interval", texts.chance),
        )
    )
    return Section("In short", lines)


def _all_alike(found: Mapping[str, RetrievalReport]) -> list[Block]:
    """An interval without width looks like certainty: what it leaves room for (the rule of three, 3 / n)."""
    return [
        f"{WAYS[way]}: {'all' if report.hits_at_1.value else 'none'} of {report.groups or report.n:,} texts hit, and "
        f"the interval has no width. The true share may still be {min(1.0, 3 / (report.groups or report.n)):.0%} away."
        for way, report in found.items()
        if report.hits_at_1.low == report.hits_at_1.high
    ]


def _directions(found: Mapping[str, RetrievalReport]) -> Table:
    rows: list[list[Cell]] = [
        ["queries", *(report.n for report in found.values())],
        ["different texts", *(report.groups or "?" for report in found.values())],
        ["candidates (pool)", *(report.candidates for report in found.values())],
        ["HITS@1 of a guess", *(f"{report.chance:.4f}" for report in found.values())],
    ]
    for name, (label, _) in MEASURES.items():
        values = [getattr(report, name) for report in found.values()]
        if None not in values:
            rows.append([label, *values])
    return Table(["measure", *(WAYS[way] for way in found)], rows, "Every candidate is ranked for every query.")


def _small_pools(report: Report) -> Section | None:
    if not any(report.curve.values()):
        return None
    blocks: list[Block] = [
        "The same queries among fewer wrong candidates. The curve is the exact mean over all pools of a size; in the "
        f"table, pools are drawn {report.settings['draws']} times for each query, as papers do that call this "
        "“soft” evaluation."
    ]
    curves = {WAYS[way]: rows for way, rows in report.curve.items() if rows}
    told = []
    for way, curve in curves.items():
        ends = [f"{Interval(**point['hits_at_1'])} among {point['pool']:,}" for point in (curve[0], curve[-1])]
        told.append(f"{way}: HITS@1 falls from {' to '.join(ends)}")
    blocks.append(
        Plot(
            "HITS@1 against the size of the pool, with 95% intervals for other queries.",
            ". ".join(told) + ". Dotted: a guess.",
            lambda name, alt: pool_plot(name, alt, curves, "hits_at_1", "HITS@1"),
        )
    )
    rows: list[list[Cell]] = [
        [WAYS[way], pool["pool"], pool["n"], *(Interval(**pool[name]) for name in ("hits_at_1", "mrr"))]
        for way, drawn in report.pools.items()
        for pool in drawn
    ]
    if rows:
        blocks.append(Table(["direction", "pool", "n", "HITS@1", "MRR"], rows, "Drawn pools."))
    else:
        blocks.append("There are fewer than ten candidates, too few to draw a pool of ten.")
    return Section("Smaller pools", blocks)


def _groups(report: Report) -> list[Section]:
    found = []
    for column, ways in report.groups.items():
        blocks: list[Block] = [
            "Each group's queries against the whole pool: how hard they are, not how good a collection of them is."
        ]
        if column == "speaker":
            blocks += _speakers_said(report)
        hidden = 0
        for way, groups in ways.items():
            enough = [group for group in groups if group["sentences"] >= FEWEST]
            largest = sorted(enough, key=lambda group: -group["n"])[:MOST_GROUPS]
            shown = [group for group in groups if group in largest]
            hidden = max(hidden, len(groups) - len(shown))
            if not shown:
                continue
            rows: list[list[Cell]] = [
                [_group(group), group["n"], group["sentences"]]
                + [Interval(**group["measures"][name]) for name in ("hits_at_1", "mrr")]
                for group in shown
            ]
            if len(shown) > 1:
                blocks.append(_group_plot(column, way, shown))
            pool = f"{WAYS[way]}, pool {report.retrieval[way].candidates:,}."
            blocks.append(Table([column, "n", "texts", "HITS@1", "MRR"], rows, pool))
        if any(isinstance(block, Table) for block in blocks):
            blocks.append(f"* fewer than {SMALL_GROUP} texts: read the interval, and even that may be too narrow.")
        if hidden:
            blocks.append(
                f"{_count(hidden, 'group')} of fewer than {FEWEST} texts, or beyond the {MOST_GROUPS} largest, in "
                "report.json only."
            )
        found.append(Section(f"By {column}", blocks))
    return found


def _speakers_said(report: Report) -> list[Block]:
    said: list[Block] = ["Speakers are numbered by how many recordings they have; no name or key is kept."]
    if report.other_speakers:
        hits, mrr = (Interval(**report.other_speakers[name]) for name in ("hits_at_1", "mrr"))
        said.append(
            "Would it hold for other people? With intervals that draw whole speakers instead of texts, "
            f"{WAYS['speech_to_text']}: HITS@1 {hits}, MRR {mrr}, n {report.recordings['clips']:,} recordings of "
            f"{report.recordings['speakers']:,} speakers."
        )
    return said


def _group_plot(column: str, way: str, groups: Sequence[Mapping[str, Any]]) -> Plot:
    values = {f"{_short(_group(group))} ({group['n']})": Interval(**group["measures"]["mrr"]) for group in groups}
    alt = f"MRR by {column}, {WAYS[way]}: " + ", ".join(f"{name} {value}" for name, value in values.items())
    return Plot(
        f"MRR by {column}, {WAYS[way]}, with the number of queries.",
        alt,
        lambda name, said: interval_plot(name, said, {WAYS[way]: values}, "MRR, 95% interval"),
    )


def _trust(report: Report) -> Section:
    """Duplicates, leaks, what was left out."""
    blocks: list[Block] = []
    same = report.duplicates
    if same["texts"]:
        blocks.append(
            f"{_count(same['texts'], 'text')} of more than one recording ({same['clips']:,} together, at most "
            f"{same['most']} of one). Each is one text: all its recordings are right answers, and intervals draw them "
            "together."
        )
    else:
        blocks.append("No text occurs twice (case, punctuation and spaces aside).")
    leaks = report.leaks
    if leaks is None:
        blocks.append(
            Note(
                "Nothing was checked for leaks: this report does not know what the model was trained on. If it has "
                "seen these texts or speakers, the scores flatter it."
            )
        )
    else:
        named = ", ".join(leaks["train"])
        blocks.append(f"Checked against the training data ({named}): {', '.join(leaks['checked'])}.")
        if leaks["unchecked"]:
            blocks.append(f"Not checked, since one side does not have it: {', '.join(leaks['unchecked'])}.")
        shared = [f"{name} ({of['shared']:,} shared, in {of['rows']:,} of {of['n']:,} recordings)"
                  for name, of in leaks["found"].items()]  # fmt: skip
        if shared:
            blocks.append(Note(f"The test has been seen in training, and was scored because that was allowed: "
                               f"{', '.join(shared)}."))  # fmt: skip
        else:
            blocks.append("Nothing is shared.")
    if report.skipped:
        rows = [[clip["file"], clip["reason"]] for clip in report.skipped]
        blocks.append(Table(["left out", "why"], rows, f"Left out: {_count(len(rows), 'recording')}."))
    else:
        blocks.append("No recording was left out.")
    return Section("Can it be trusted?", blocks)


def _examples(report: Report) -> Section | None:
    if report.examples is None:
        return None
    blocks: list[Block] = []
    for way, rows in report.examples.items():
        if rows:
            cells = [[f"{row['rank']:g}", row["text"], row["found"], row["file"]] for row in rows]
            blocks.append(Table(["rank", "asked", "found first", "file"], cells, f"{WAYS[way]}."))
    if not blocks:
        return None
    return Section("The worst queries", ["What was asked, and what came first instead.", *blocks], True, True)


def _meaning() -> Section:
    interval = (
        "If the test were made anew from sentences of the same kind, about 19 of 20 such intervals would hold the "
        "model's true score. It says nothing of other kinds of speech. One without width is no certainty: all queries "
        "came out alike, and n of them leave room for a share of about 3 / n that was not met."
    )
    rows: list[list[Cell]] = [[label, said] for label, said in MEASURES.values()]
    rows.append(["interval", interval])
    return Section("What the measures mean", [Table(["measure", "what it says"], rows)])


def _made(report: Report) -> Section:
    made, model, settings = report.made, report.model, report.settings
    encoders = ("fusion", "speech_encoder", "spectrogram_encoder", "text_encoder")
    ties = {
        "expected": "as if broken by lot",
        "optimistic": "for the right answer",
        "skip": "left out where the first answer is a wrong tie",
    }
    rows: list[list[Cell]] = [
        ["command", made["command"] or "(from Python)"],
        ["date", made["date"]],
        ["commit", made["commit"]],
        ["machine", made["machine"]],
        ["versions", ", ".join(f"{name} {version}" for name, version in made["versions"].items())],
        ["model", f"{model['name']}, fingerprint {model['fingerprint']}"],
    ]
    rows += [[name.replace("_", " "), str(model["config"][name])] for name in encoders if name in model["config"]]
    rows += [
        ["seed", str(settings["seed"])],
        ["ties", f"{settings['ties']} ({ties[settings['ties']]})"],
        ["intervals", f"bootstrap over texts, {settings['method']}, {settings['resamples']:,} resamples"],
    ]
    for name in ("languages", "categories"):
        counts = {group or "(not given)": n for group, n in report.recordings[name].items()}
        rows.append([name, ", ".join(f"{group} {n:,}" for group, n in counts.items())])
    return Section("How this was made", [Table(["what", "value"], rows)])


def _group(group: Mapping[str, Any]) -> str:
    return f"{group['group']}{' *' if group['small'] else ''}"


def _short(text: str, most: int = 24) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _percent(interval: Interval) -> str:
    return f"{interval.value:.0%} [{interval.low:.0%}, {interval.high:.0%}]"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _speakers(said: Mapping[str, Any]) -> str:
    return f", {_count(said['speakers'], 'speaker')}" if said["speakers"] else ""


def _count(n: int, thing: str) -> str:
    return f"{n:,} {thing}{'' if n == 1 else 's'}"
