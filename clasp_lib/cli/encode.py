"""`clasp encode`: texts or recordings to vectors, in a file or on stdout."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from clasp_lib.console import (
    add_model_options,
    add_output_options,
    at_least_one,
    load_model,
    print_json,
    shows_progress,
)
from clasp_lib.errors import ClaspError, TextError

if TYPE_CHECKING:
    import numpy as np

ABOUT = """Write the vectors of texts or recordings: a row of length one for each, in the order given. The cosine of two
rows is their dot product.

Without --output, each vector is a line of JSON on stdout, with its text or file.

Files: .safetensors holds the tensor "vectors" (n, d), and as metadata "model", "fingerprint" and "items", the texts
or files as a JSON list; .npy holds the numbers alone; .jsonl holds the lines. An older file gives way when all is
known."""

EXAMPLES = (
    'clasp encode --text "a storm is coming" "bread has become dear"',
    "clasp encode --speech recordings/*.wav --output speech.safetensors",
    "clasp encode --texts-file queries.txt --output queries.npy",
)

FORMATS = (".safetensors", ".npy", ".jsonl")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` takes."""
    what = parser.add_argument_group("what to encode").add_mutually_exclusive_group(required=True)
    what.add_argument("--text", nargs="+", metavar="TEXT")
    what.add_argument("--speech", nargs="+", metavar="FILE", help="recordings of at most a minute")
    what.add_argument("--texts-file", metavar="FILE", help="a text on each line, UTF-8; - for stdin")
    parser.add_argument("--output", type=_output, metavar="FILE", help=f"to write; ends in {', '.join(FORMATS)}")
    parser.add_argument("--batch-size", type=at_least_one, default=16, metavar="N", help="default %(default)s")
    add_model_options(parser)
    document = "with the keys model, dimension, count, output, and, without --output, items [text or file, vector]"
    add_output_options(parser, document)


def run(args: argparse.Namespace) -> int:
    """Encode, then write or print."""
    kind = "file" if args.speech else "text"
    items: list[str] = args.speech or args.text or _lines(args.texts_file)
    model = load_model(args.model, args.device)
    encode = model.encode_speech if args.speech else model.encode_text
    vectors = encode(items, batch_size=args.batch_size, show_progress_bar=shows_progress(args))  # (n, d)
    rows = [{kind: item, "vector": _numbers(vector)} for item, vector in zip(items, vectors, strict=True)]
    about = {"model": args.model, "dimension": model.dimension, "count": len(items), "output": None}
    if args.output is None and args.json:
        print_json(about | {"items": rows})
    elif args.output is None:
        print(_json_lines(rows), end="")
    else:
        _write(args.output, vectors, items, _json_lines(rows), model.fingerprint, args.model)
        about["output"] = str(args.output)
        print_json(about) if args.json else print(f"{args.output}: {len(items)} vectors of {model.dimension}")
    return 0


def _output(name: str) -> Path:
    if Path(name).suffix not in FORMATS:
        raise argparse.ArgumentTypeError(f"{name!r}: the name ends in one of {', '.join(FORMATS)}")
    return Path(name)


def _lines(name: str) -> list[str]:
    """The texts of a file.

    Raises:
        ClaspError: there is none, or it is not UTF-8. TextError: a line is empty.
    """
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        texts = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ClaspError(f"{name}: is not UTF-8 ({error}). Save it as UTF-8.") from error
    if not texts:
        raise ClaspError(f"{name}: holds no texts. Give one on each line.")
    for number, text in enumerate(texts, 1):
        if not text.strip():
            raise TextError(f"{name}, line {number}: is empty. Each line is a text of its own.")
    return texts


def _numbers(vector: np.ndarray) -> list[float]:
    """Of float32, the fewest digits that give it back."""
    return [float(str(value)) for value in vector]


def _json_lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def _write(output: Path, vectors: np.ndarray, items: list[str], lines: str, fingerprint: str, model: str) -> None:
    import io

    import numpy as np
    from safetensors.numpy import save

    from clasp_lib.folders import write_whole

    if output.suffix == ".jsonl":
        data = lines.encode("utf-8", "backslashreplace")
    elif output.suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, vectors, allow_pickle=False)
        data = buffer.getvalue()
    else:
        known = {"model": model, "fingerprint": fingerprint, "items": json.dumps(items)}
        data = save({"vectors": vectors}, metadata=known)
    write_whole(output, data)
