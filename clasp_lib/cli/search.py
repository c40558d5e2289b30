"""`clasp search`: the recordings of an index that are nearest to a text, or to a recording."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clasp_lib.console import (
    add_model_options,
    add_output_options,
    at_least_one,
    clock,
    load_model,
    one_line,
    print_json,
    remark,
    without_password,
)
from clasp_lib.errors import ClaspError

if TYPE_CHECKING:
    from clasp_lib.index import Hits
    from clasp_lib.model import CLASP

ABOUT = """Find recordings of an index by what is said in them. Prints for each its score (the cosine with the query),
its file, from where to where in it, and its text where that is known, best first.

Conditions: --where KEY=VALUE is about what the index knows of a recording: its metadata, or its file, id, text, start_s
and end_s. VALUE is a number, true, false or a text; a,b is any of several; 1990..2000, 1990.. and ..2000 are from and
to, inclusive. What stands in double quotes is a text, whatever it looks like. All conditions must hold."""

EXAMPLES = (
    'clasp search my_index "a storm is coming"',
    'clasp search my_index "a storm is coming" -k 3 --where category=news,weather --where year=1990..2000',
    "clasp search my_index --speech question.wav --json",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` takes."""
    parser.add_argument("index", metavar="INDEX", help="a folder that `clasp index` made, or a Milvus address")
    parser.add_argument("query", nargs="?", metavar="QUERY", help="a text")
    parser.add_argument("--speech", metavar="FILE", help="a recording instead of a text")
    parser.add_argument("-k", type=at_least_one, default=5, metavar="N", help="hits (default %(default)s)")
    conditions = "a condition on what is known of the recordings; may be repeated"
    parser.add_argument("--where", action=_Conditions, default={}, metavar="KEY=VALUE", help=conditions)
    add_model_options(parser, None, "the one that built the index")
    document = "with the keys index, model, query, speech, hits [score, file, start_s, end_s, text, metadata]"
    add_output_options(parser, document)
    parser.set_defaults(wrong=parser.error)


def run(args: argparse.Namespace) -> int:
    """Search and print."""
    if (args.query is None) == (args.speech is None):
        args.wrong("give a query: a text, or --speech FILE")
    from clasp_lib.index import SpeechIndex

    name, model = model_of(args.index, args.model, args.device)
    index = SpeechIndex.load(args.index, model)
    hits = index.search(args.query if args.speech is None else Path(args.speech), args.k, where=args.where or None)
    if args.json:
        found = [
            {
                "score": hit.score,
                "file": hit.file,
                "start_s": hit.start_s,
                "end_s": hit.end_s,
                "text": hit.text,
                "metadata": dict(hit.metadata),
            }
            for hit in hits
        ]
        about = {"index": without_password(args.index), "model": name, "query": args.query, "speech": args.speech}
        print_json(about | {"hits": found})
    else:
        _print(hits)
    if not hits:
        remark("nothing was found: no recording fulfils all conditions." if args.where else "the index is empty.")
    return 0


def model_of(index: str, name: str | None, device: str | None) -> tuple[str, CLASP]:
    """The model that built an index, or the one asked for, and its name.

    Raises:
        ClaspError: no such index; one whose model has no name, where none is given; no such model.
    """
    from clasp_lib.index import stored_model

    stored = stored_model(index)
    if (name := stored.name if name is None else name) is None:
        raise ClaspError(f"{index}: does not know the name of the model that built it. Name it with --model.")
    return name, load_model(name, device)


def _print(hits: Hits) -> None:
    """A line for each: columns of equal width, the text last."""
    rows = [
        (f"{hit.score:.3f}", _short(hit.file), f"{clock(hit.start_s)}-{clock(hit.end_s)}", one_line(hit.text or ""))
        for hit in hits
    ]
    files, times = (max((len(row[column]) for row in rows), default=0) for column in (1, 2))
    for score, file, time, text in rows:
        print(f"{score}  {file:{files}}  {time:{times}}  {text}".rstrip())


def _short(file: str) -> str:
    """A file below the folder where the command was given, as seen from there."""
    here = os.path.join(os.getcwd(), "")
    return one_line(file.removeprefix(here))


class _Conditions(argparse.Action):
    """Collects `--where KEY=VALUE`."""

    def __call__(self, parser: Any, namespace: Any, value: Any, option: str | None = None) -> None:
        key, equals, wanted = value.partition("=")
        if not (key and equals and wanted):
            raise argparse.ArgumentError(self, f"{value!r}: expected KEY=VALUE")
        known = getattr(namespace, self.dest)
        if key in known:
            raise argparse.ArgumentError(self, f"{key!r} is given twice; any of several values: {key}=a,b")
        try:
            setattr(namespace, self.dest, {**known, key: read_condition(wanted)})
        except ValueError as error:
            raise argparse.ArgumentError(self, f"{value!r}: {error}") from error


_PIECES = re.compile(r'"(?:[^"\\]|\\.)*"|\.\.|,|[^",.]+|\.')


def read_condition(text: str) -> Any:
    """What stands after `KEY=`: a value, a list of values, or a pair (from, to) with perhaps None at one end.

    Raises:
        ValueError: quotes that do not end, a value that is missing, or more than two ends.
    """
    pieces = _PIECES.findall(text)
    if "".join(pieces) != text:
        raise ValueError('a double quote without its other one; as a letter it is \\" between double quotes')
    if ".." in pieces:
        at = pieces.index("..")
        low, high = ("".join(part) for part in (pieces[:at], pieces[at + 1 :]))
        if not low + high or {"..", ","} & {*pieces[:at], *pieces[at + 1 :]}:
            raise ValueError(
                "a range is FROM..TO, FROM.. or ..TO; put a text with dots or commas between double quotes"
            )
        return (_value(low) if low else None, _value(high) if high else None)
    values = [""]
    for piece in pieces:
        values = [*values, ""] if piece == "," else [*values[:-1], values[-1] + piece]
    if not all(values):
        raise ValueError("a value is missing beside a comma")
    read = [_value(value) for value in values]
    return read if len(read) > 1 else read[0]


def _value(text: str) -> str | int | float | bool:
    if text in ("true", "false"):
        return text == "true"
    if text[0] == text[-1] == '"' and len(text) > 1:
        return text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", text, re.IGNORECASE):
        return float(text)
    return text
