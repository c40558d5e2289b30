"""`python -m clasp_lib.ablation SPEC.toml --folder WORK --output record.json`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from clasp_lib.ablation.record import run_ablation
from clasp_lib.ablation.specification import read_ablation
from clasp_lib.errors import ClaspError
from clasp_lib.provenance import write_record


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: write the record and print the verdicts, or an error and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m clasp_lib.ablation", description="Train, compare, record.")
    parser.add_argument("spec", type=Path, help="a TOML file, such as clasp_lib/pocket/ablation.toml")
    parser.add_argument("--folder", type=Path, required=True, help="for what is finished; started again, it goes on")
    parser.add_argument("--output", type=Path, required=True, help="the record, JSON")
    parser.add_argument("--workers", type=int, help="processes (default: one for each CPU, or one for the GPU)")
    args = parser.parse_args(arguments)
    if args.workers is not None and args.workers < 1:
        parser.error("--workers must be at least 1")
    try:
        record = run_ablation(read_ablation(args.spec), args.folder, args.workers)
        write_record(args.output, record)
    except (ClaspError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for question in record["questions"]:
        print(f"{question['name']}: {question['verdict']} (p {question['corrected']:.4f}, corrected)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
