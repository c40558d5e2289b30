"""From a folder of recordings to all that a report holds."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from clasp_lib.audio import load_audio
from clasp_lib.errors import ClaspError, DatasetError, OnError
from clasp_lib.evaluation import RetrievalReport, evaluate_both_directions, evaluate_retrieval, first_rows
from clasp_lib.metrics import Ranking, bootstrap, rank_queries
from clasp_lib.model import CLASP
from clasp_lib.protocols import (
    evaluate_groups,
    evaluate_soft,
    length_groups,
    merge_duplicates,
    pool_curve,
    wrong_candidates,
)
from clasp_lib.protocols.pools import POOLS
from clasp_lib.provenance import provenance
from clasp_lib.report.leaks import check_leaks, read_table
from clasp_lib.speech_brown import read_recordings
from clasp_lib.transcription import Recogniser

Side: TypeAlias = "tuple[np.ndarray, np.ndarray, list[Hashable], list[Hashable]]"
"""Vectors of queries and of candidates, and the ids of both."""

FORMAT = 1
"""Of `report.json`; a reader refuses what it does not know."""

EXAMPLES = 10
"""Queries of the worst ranks that are listed."""

DRAWS = 10
"""Small pools drawn for each query."""

ENOUGH_SPEAKERS = 10
"""Of fewer, a bootstrap over speakers says little."""

SEVERAL = "(several)"
"""The group of a text whose recordings belong to different ones."""


@dataclass(frozen=True)
class Report:
    """What a model is worth on a folder of recordings, and all that is needed to judge that.

    Attributes:
        made: command, date, commit, machine, versions. model: name, fingerprint, configuration.
        recordings: folder, clips, texts, seconds, speakers (their number), languages and categories with their clips.
        settings: seed, ties, method, resamples, draws.
        skipped: recordings left out: file, reason. duplicates: texts that several recordings share.
        leaks: what was looked for in the training data and found; None: nothing was looked for.
        retrieval: both directions in the whole pool.
        pools, curve: by direction, measures in drawn pools, and their exact mean over all pools of a size.
        groups: by column ("category", "language", "length", "speaker"), then by direction. A speaker is a number.
        other_speakers: measures with intervals that draw whole speakers instead of texts, speech to text; None: fewer
            than `ENOUGH_SPEAKERS` of them.
        examples: by direction, the queries of the worst ranks; None: not kept.
        transcripts: beside a transcript pipeline (`clasp_lib.pipelines.compare_pipelines`); None: no recogniser.
    """

    made: dict[str, Any]
    model: dict[str, Any]
    recordings: dict[str, Any]
    settings: dict[str, Any]
    skipped: list[dict[str, str]]
    duplicates: dict[str, int]
    leaks: dict[str, Any] | None
    retrieval: dict[str, RetrievalReport]
    pools: dict[str, list[dict[str, Any]]]
    curve: dict[str, list[dict[str, Any]]]
    groups: dict[str, dict[str, list[dict[str, Any]]]]
    other_speakers: dict[str, Any] | None
    examples: dict[str, list[dict[str, Any]]] | None
    transcripts: dict[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold, all digits."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"format": FORMAT, **values, "retrieval": {way: r.to_dict() for way, r in self.retrieval.items()}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Report:
        """The inverse of `to_dict`.

        Raises:
            DatasetError: another format, or fields that are missing or unknown.
        """
        if values.get("format") != FORMAT:
            raise DatasetError(f"report: has the format {values.get('format')!r}; this version reads {FORMAT}.")
        if unlike := {field.name for field in fields(cls)} ^ (set(values) - {"format"}):
            raise DatasetError(f"report: {', '.join(sorted(unlike))}: missing or unknown. Evaluate again.")
        read = {name: value for name, value in values.items() if name != "format"}
        read["retrieval"] = {way: RetrievalReport.from_dict(r) for way, r in values["retrieval"].items()}
        return cls(**read)

    def __str__(self) -> str:
        head = f"{self.model['name']} on {self.recordings['folder']}: {self.recordings['clips']} recordings"
        return "\n\n".join([head, *(f"{way.replace('_', ' ')}: {found}" for way, found in self.retrieval.items())])


def evaluate_folder(
    model: CLASP,
    folder: str | Path,
    *,
    name: str = "",
    seed: int = 0,
    ties: str = "expected",
    method: str = "bca",
    resamples: int = 1_000,
    on_error: OnError = "raise",
    train: Sequence[str | Path] = (),
    allow_leaks: bool | Sequence[str] = False,
    recogniser: Recogniser | None = None,
    cost: bool = True,
    examples: int = EXAMPLES,
    command: Sequence[str] = (),
) -> Report:
    """Measure a model in every way of this library on a folder of recordings with a `metadata.csv`.

    The table has the columns `file` and `text`, and may have `category`, `language` and `speaker`. Recordings of equal
    texts are right answers of each other. `ties` and `method` hold for the whole pool; drawn pools, curves and groups
    break ties as if by lot ("expected"), with BCa intervals.

    Args:
        name: of the model, for the report.
        on_error: "raise" stops at the first recording that cannot be read; "skip" lists it in the report.
        train: what the model was trained on: folders of recordings, or saved datasets, of which the splits train and
            validation count. A test that shares texts, nearly equal texts, or speakers with them is refused.
        allow_leaks: True, or the names of columns that may be shared ("text", "near text", "speaker", "voice").
        recogniser: if given, a transcript pipeline is measured beside the model, whose texts are spelled as in the one
            language of the table, or in English; cost: its and the model's cost, too.
        examples: how many of the worst queries are kept, with their texts.
        command: what was run, for the report.

    Raises:
        DatasetError: the table is not what it should be, no recording is left, or the test was seen in training.
        AudioError: a recording that cannot be read.
        ClaspError: an unknown rule or method.
    """
    folder = Path(folder)
    settings: dict[str, Any] = {"seed": seed, "ties": ties, "method": method, "resamples": resamples}
    if seed < 0:
        raise ClaspError(f"seed: {seed}; give 0 or more.")
    evaluate_retrieval(np.eye(2), np.eye(2), range(2), range(2), **settings)  # a wrong rule must not cost an hour
    leaks = check_leaks(train, folder, allow_leaks)  # nor a leak
    dataset, skipped = read_recordings(folder, on_error=on_error)
    if not len(dataset):
        raise DatasetError(f"{folder}: none of its {len(skipped)} recordings can be read, e.g. {skipped[0].reason}")
    files, texts, seconds = list(dataset["id"]), list(dataset["text"]), np.array(dataset["duration"], float)
    ids = merge_duplicates(texts, range(len(texts))).ids
    table = {row["file"].strip(): row for row in read_table(folder)}
    columns = {name: [(table[file].get(name) or "").strip() for file in files] for name in ("category", "language")}
    columns["speaker"] = _numbered(list(dataset["voice"]))
    first = first_rows(ids)
    speech = model.encode_speech(list(dataset["audio"]), show_progress_bar=sys.stderr.isatty())
    text = model.encode_text([texts[i] for i in first.values()])  # (texts, d)
    place = {i: row for row, i in enumerate(first)}
    sides: dict[str, Side] = {
        "text_to_speech": (text, speech, list(first), ids),
        "speech_to_text": (speech, text, ids, list(first)),
    }
    paired = text[[place[i] for i in ids]]  # (clips, d)
    retrieval = evaluate_both_directions(speech, paired, ids, **settings, device=model.device)
    rankings = {way: rank_queries(*side, device=model.device) for way, side in sides.items()}
    pools, curve = {}, {}
    for way, side in sides.items():
        wrong = wrong_candidates(side[2], side[3])
        whole = int(wrong.min()) + 1
        possible = [pool for pool in POOLS if pool <= whole]
        drawn = evaluate_soft(*side, possible, DRAWS, seed, resamples) if possible else {}
        pools[way] = [_plain(found) for found in drawn.values()]
        exact = pool_curve(rankings[way], wrong, side[2], resamples=resamples, seed=seed) if whole >= 2 else []
        curve[way] = [_plain(found) for found in exact]
    transcripts = None
    if recogniser is not None:
        from clasp_lib.pipelines import compare_pipelines  # only then: it brings the recognisers along

        waves = [load_audio(item) for item in dataset["audio"]]
        spoken = set(columns["language"]) - {""}
        language = spoken.pop() if len(spoken) == 1 else "en"
        found = compare_pipelines(model, recogniser, waves, texts, ids, seed=seed, cost=cost, language=language)
        transcripts = {"recogniser": recogniser.name, "language": language, **found}
    return Report(
        _made(command),
        {"name": name, "fingerprint": model.fingerprint, "config": model.config},
        {
            "folder": "/".join(part for part in folder.parts[-2:] if part.strip("/.")) or folder.resolve().name,
            "clips": len(files),
            "texts": len(first),
            "seconds": round(float(seconds.sum()), 1),
            "speakers": len(set(columns["speaker"]) - {""}),
            **{plural: dict(Counter(columns[one])) for one, plural in _PLURALS.items()},
        },
        settings | {"draws": DRAWS},
        [{"file": clip.id, "reason": clip.reason} for clip in skipped],
        _duplicates(ids),
        leaks,
        retrieval,
        pools,
        curve,
        _groups(sides, columns, seconds, texts, seed),
        _other_speakers(rankings["speech_to_text"], columns["speaker"], seed),
        {way: _worst(way, sides[way], rankings[way], files, texts, examples) for way in sides} if examples else None,
        transcripts,
    )


_PLURALS = {"language": "languages", "category": "categories"}


def _groups(
    sides: Mapping[str, Side],
    columns: Mapping[str, Sequence[str]],
    seconds: np.ndarray,
    texts: Sequence[str],
    seed: int,
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Both directions for each column of which there are two groups or more."""
    ids = sides["speech_to_text"][2]
    first = first_rows(ids)
    of_queries = {name: {"text_to_speech": _shared(of, ids), "speech_to_text": of} for name, of in columns.items()}
    of_queries["length"] = {
        "text_to_speech": [f"{part} letters" for part in length_groups([len(texts[i]) for i in first.values()])],
        "speech_to_text": [f"{part} s" for part in length_groups(seconds.round(1).tolist())],
    }
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name, of in of_queries.items():
        if len(set(of["speech_to_text"])) > 1:
            found[name] = {
                way: [
                    _plain(group) | {"small": group.small} for group in evaluate_groups(*sides[way], of[way], seed=seed)
                ]
                for way in sides
            }
    return found


def _shared(groups: Sequence[str], ids: Sequence[Hashable]) -> list[str]:
    """The group of each text: that of its recordings, if they have one."""
    of: dict[Hashable, set[str]] = {}
    for group, i in zip(groups, ids):
        of.setdefault(i, set()).add(group)
    return [next(iter(found)) if len(found) == 1 else SEVERAL for found in of.values()]


def _numbered(speakers: Sequence[str]) -> list[str]:
    """Speakers as numbers, who speaks most first; nobody's name or key is kept."""
    counted = Counter(speaker for speaker in speakers if speaker)
    number = {speaker: str(n) for n, (speaker, _) in enumerate(counted.most_common(), 1)}
    return [number.get(speaker, "") for speaker in speakers]


def _other_speakers(ranking: Ranking, speakers: Sequence[str], seed: int) -> dict[str, Any] | None:
    """Would it hold for other people? Who is not known counts as somebody else each time."""
    if len(set(speakers) - {""}) < ENOUGH_SPEAKERS:
        return None
    groups = [speaker or f"row {row}" for row, speaker in enumerate(speakers)]
    return _plain(bootstrap(ranking, groups, seed=seed))


def _worst(
    way: str, side: Side, ranking: Ranking, files: Sequence[str], texts: Sequence[str], count: int
) -> list[dict[str, Any]]:
    """The queries of the worst ranks, and what the model put first in place of the right answer."""
    queries, candidates, query_ids, candidate_ids = side
    to_speech = way == "text_to_speech"
    first = list(first_rows(candidate_ids if to_speech else query_ids).values())  # the first recording of each text
    query_clips, candidate_clips = (first, range(len(files))) if to_speech else (range(len(files)), first)
    worst = []
    for row in np.argsort(-ranking.rank, kind="stable")[:count]:
        if ranking.rank[row] > 1:
            clip, found = query_clips[row], candidate_clips[int(np.argmax(candidates @ queries[row]))]
            said = {"file": files[clip], "text": texts[clip], "found": texts[found]}
            worst.append({"rank": float(ranking.rank[row]), **said})
    return worst


def _duplicates(ids: Sequence[Hashable]) -> dict[str, int]:
    counts = Counter(ids)
    several = [count for count in counts.values() if count > 1]
    return {"texts": len(several), "clips": sum(several), "most": max(counts.values())}


def _made(command: Sequence[str]) -> dict[str, Any]:
    """Command, date, commit of the library, machine and versions."""
    packages = ("clasp-lib", "torch", "transformers", "sentence-transformers", "timm", "numpy")
    versions = {"Python": platform.python_version(), **{name: _version(name) for name in packages}}
    return {**provenance([shlex.join(command)]), "versions": versions}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _plain(found: Any) -> Any:
    """A dataclass of numbers and intervals as plain dictionaries."""
    if is_dataclass(found):
        return {field.name: _plain(getattr(found, field.name)) for field in fields(found)}
    if isinstance(found, dict):
        return {name: _plain(value) for name, value in found.items()}
    return found._asdict() if hasattr(found, "_asdict") else found
