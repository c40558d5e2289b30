"""`clasp locate`: where in a long recording is something said?"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from clasp_lib.console import (
    add_model_options,
    add_output_options,
    at_least_one,
    clock,
    load_model,
    one_line,
    print_json,
    shows_progress,
)

if TYPE_CHECKING:
    import numpy as np

ABOUT = """Find the moments of a recording of any length in which something like a text is said. Prints for each its
score (the cosine with the text), and from where to where it lasts, best first. The recording is read and encoded once,
however many texts there are, and its length does not matter for the memory that it takes.

RECORDING - is read from stdin to its end: a file (WAV, FLAC, MP3, Ogg), or, with --raw RATE, bare samples (16 bits,
signed, little-endian, one channel), as a recorder or ffmpeg writes them into a pipe."""

EXAMPLES = (
    'clasp locate talk.wav "the price of bread"',
    'clasp locate talk.wav "the price of bread" "a storm is coming" -k 1 --json',
    'clasp locate - "the price of bread" < talk.wav',
    'ffmpeg -i film.mp4 -f s16le -ac 1 -ar 16000 - | clasp locate - "the price of bread" --raw 16000',
)

CUTTING: dict[str, tuple[float, str]] = {
    "silence_s": (0.14, "a pause that parts two pieces of speech; none: silences are passed over"),
    "shortest_s": (0.3, "the shortest window, a run of consecutive pieces"),
    "longest_s": (10.0, "the longest window"),
    "window_s": (5.0, "windows that a piece without silences is cut into"),
    "hop_s": (1.0, "how far such windows are apart"),
}
"""The fields of `clasp_lib.localization.Cutting`, here so that help does not wait for torch; a test compares them."""

_BLOCK_SECONDS = 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` takes."""
    parser.add_argument("recording", metavar="RECORDING", help="a file, or - for stdin")
    parser.add_argument("queries", nargs="+", metavar="QUERY", help="texts")
    parser.add_argument("-k", type=at_least_one, default=3, metavar="N", help="moments a query (default %(default)s)")
    parser.add_argument("--raw", type=at_least_one, metavar="RATE", help="stdin holds bare samples, so many a second")
    parser.add_argument("--batch-size", type=at_least_one, default=16, metavar="N", help="default %(default)s")
    add_model_options(parser)
    group = parser.add_argument_group("windows, in seconds")
    for field, (default, meaning) in CUTTING.items():
        kind = _seconds_or_none if field == "silence_s" else _seconds
        flag, explained = f"--{field.removesuffix('_s')}", f"{meaning} (default %(default)s)"
        group.add_argument(flag, dest=field, type=kind, default=default, metavar="S", help=explained)
    document = "with the keys recording, model, duration_s, queries [query, moments [score, start_s, end_s]]"
    add_output_options(parser, document)
    parser.set_defaults(wrong=parser.error)


def run(args: argparse.Namespace) -> int:
    """Encode the recording, then look for each query."""
    if args.raw and args.recording != "-":
        args.wrong("--raw is for samples from stdin: name the recording -")
    from clasp_lib.localization import Cutting, encode_recording

    cutting = Cutting(**{field: getattr(args, field) for field in CUTTING})
    model = load_model(args.model, args.device)
    model.encode_text(args.queries)  # an empty one is refused before an hour is encoded
    with _source(args.recording, args.raw) as source:
        encoded = encode_recording(
            model,
            source,
            sampling_rate=args.raw or 16_000,
            cutting=cutting,
            batch_size=args.batch_size,
            show_progress_bar=shows_progress(args),
        )
    found = [(query, encoded.locate(query, args.k)) for query in args.queries]
    if args.json:
        queries = [
            {
                "query": query,
                "moments": [{"score": m.score, "start_s": m.start_s, "end_s": m.end_s} for m in moments],
            }
            for query, moments in found
        ]
        about = {"recording": args.recording, "model": args.model, "duration_s": encoded.duration_s}
        print_json(about | {"queries": queries})
        return 0
    for query, moments in found:
        if len(found) > 1:
            print(f"{one_line(query)}:")
        for moment in moments:
            print(f"{moment.score:.3f}  {clock(moment.start_s)}-{clock(moment.end_s)}")
    return 0


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number of seconds") from None


def _seconds_or_none(text: str) -> float | None:
    return None if text == "none" else _seconds(text)


@contextlib.contextmanager
def _source(recording: str, raw: int | None) -> Iterator[str | Path | Iterable[np.ndarray]]:
    """What `encode_recording` reads: a path, or chunks. A file on stdin is kept on disk as long as it is needed."""
    if recording != "-":
        yield recording
    elif raw:
        yield _samples(sys.stdin.buffer, raw * _BLOCK_SECONDS)
    else:
        with tempfile.TemporaryDirectory(prefix="clasp-") as folder:
            file = Path(folder, "stdin")
            with open(file, "wb") as copy:
                shutil.copyfileobj(sys.stdin.buffer, copy)
            yield file


def _samples(stream: BinaryIO, size: int) -> Iterator[np.ndarray]:
    """Chunks of about `size` samples as they come; half a sample at the very end is no sound."""
    import numpy as np

    rest = b""
    while data := stream.read1(2 * size):  # type: ignore[attr-defined]
        data = rest + data
        whole = len(data) // 2 * 2
        rest = data[whole:]
        if whole:
            yield np.frombuffer(data[:whole], "<i2").astype(np.float32) / 32_768
