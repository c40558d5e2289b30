"""`python -m clasp_lib.ablation SPEC.toml --folder WORK --output record.json`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from clasp_lib.ablation.record import run_ablation
from clasp_lib.ablation.specification import read_ablation
from clasp_lib.console import at_least_one, finish
from clasp_lib.provenance import write_record


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: its exit code, as `clasp_lib.console` has them."""
    parser = argparse.ArgumentParser(prog="python -m clasp_lib.ablation", description="Train, compare, record.")
    parser.add_argument("spec", type=Path, help="a TOML file, such as clasp_lib/pocket/ablation.toml")
    parser.add_argument("--folder", type=Path, required=True, help="for what is finished; started again, it goes on")
    parser.add_argument("--output", type=Path, required=True, help="the record, JSON")
    processes = "processes (default: one for each CPU, or one for the GPU)"
    parser.add_argument("--workers", type=at_least_one, metavar="N", help=processes)
    parser.set_defaults(run=run, quiet=False, goes_on=True)
    given = sys.argv[1:] if arguments is None else list(arguments)
    line = ["python", "-m", "clasp_lib.ablation", *given]
    return finish(lambda: parser.parse_args(given), line, program=arguments is None)


def run(args: argparse.Namespace) -> int:
    """Write the record and print the verdicts."""
    record = run_ablation(read_ablation(args.spec), args.folder, args.workers)
    write_record(args.output, record)
    for question in record["questions"]:
        print(f"{question['name']}: {question['verdict']} (p {question['corrected']:.4f}, corrected)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
