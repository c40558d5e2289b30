"""`python -m clasp_lib.records`: measure anew what the result pages read."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from clasp_lib.console import finish
from clasp_lib.encoders.checkpoints import pocket_folder
from clasp_lib.profiles import get_profile
from clasp_lib.provenance import provenance, write_record

RECORDS = ("transcripts", "robustness", "shifts", "moments")
"""Each is a module of this package with a function `measure(profile, recordings, seed)`, and a file in `reports`.
That of `indexes` takes an hour and 20 GB: `benchmarks/indexes.py --vectors 1000000` makes it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: its exit code, as `clasp_lib.console` has them."""
    parser = argparse.ArgumentParser(prog="python -m clasp_lib.records", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RECORDS)}; all if none is given")
    parser.add_argument(
        "--recordings", action="append", default=[], metavar="NAME=FOLDER", help="held-out recordings of people"
    )
    parser.add_argument("--seed", type=int, default=0, help="of draws and intervals (default %(default)s)")
    parser.add_argument("--output", type=Path, help="folder for the records (default: the package's own)")
    parser.set_defaults(run=run, quiet=False, wrong=parser.error)
    given = sys.argv[1:] if arguments is None else list(arguments)
    line = ["python", "-m", "clasp_lib.records", *given]
    return finish(lambda: parser.parse_args(given), line, program=arguments is None)


def run(args: argparse.Namespace) -> int:
    """Write each record as soon as it is measured."""
    if unknown := [name for name in args.names if name not in RECORDS]:
        args.wrong(f"unknown: {', '.join(unknown)}. Choose from {', '.join(RECORDS)}")
    if odd := [pair for pair in args.recordings if not all(pair.partition("=")[::2])]:
        args.wrong(f"--recordings {odd[0]!r}: give a name, =, and a folder")
    folders = {name: Path(folder) for name, _, folder in (pair.partition("=") for pair in args.recordings)}
    output = args.output or pocket_folder("reports")
    for name in args.names or RECORDS:
        module = importlib.import_module(f"clasp_lib.records.{name}")
        typed = [f"python -m clasp_lib.records {name}", *(f"--recordings {of}=FOLDER" for of in folders)]
        record = module.measure(get_profile("pocket"), folders, args.seed)
        write_record(output / f"{name}.json", provenance(typed) | {"seed": args.seed} | record)
        print(f"{output / name}.json", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
