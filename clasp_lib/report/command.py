"""The command line: `clasp evaluate FOLDER --model MODEL --output REPORT`."""

from __future__ import annotations

import argparse
from pathlib import Path

from clasp_lib.console import (
    add_model_options,
    add_output_options,
    check_device,
    load_model,
    no_loading_bars,
    print_json,
    remark,
)
from clasp_lib.metrics import TIES
from clasp_lib.model import SHIPPED
from clasp_lib.report.charts import require_matplotlib
from clasp_lib.report.files import check_output, write_report
from clasp_lib.report.measure import EXAMPLES, evaluate_folder
from clasp_lib.significance import METHODS
from clasp_lib.transcription import load_recogniser

ABOUT = "Measure a model on a folder of recordings, and write a report: JSON, Markdown, and a page with plots."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` takes."""
    table = "holds recordings and metadata.csv with the columns file and text, perhaps category, language and speaker"
    parser.add_argument("folder", type=Path, help=table)
    output = "a folder, new or of an older report, which is replaced (default %(default)s)"
    parser.add_argument("--output", type=Path, default=Path("report"), help=output)
    unread = "what to do with a recording that cannot be read: stop (default), or list it in the report"
    parser.add_argument("--on-error", choices=("raise", "skip"), default="raise", help=unread)
    learnt = (
        "what the model has learnt from, recordings or saved datasets: a test that shares texts or speakers is refused"
    )
    parser.add_argument("--train", type=Path, nargs="+", default=[], metavar="FOLDER", help=learnt)
    allowed = "score it all the same, and say so; of some kinds only: text, 'near text', speaker, voice"
    parser.add_argument("--allow-leaks", nargs="*", metavar="COLUMN", help=allowed)
    beside = "measure a transcript pipeline beside the model, such as pocket-ctc"
    parser.add_argument("--recogniser", metavar="NAME", help=beside)
    parser.add_argument("--no-cost", action="store_true", help="with a recogniser: do not measure time and memory")
    parser.add_argument("--no-examples", action="store_true", help="keep no texts and no file names in the report")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap and of drawn pools (default %(default)s)")
    ties = "candidates of equal score, in the whole pool (default %(default)s)"
    parser.add_argument("--ties", choices=TIES, default="expected", help=ties)
    parser.add_argument("--method", choices=METHODS, default="bca", help="of the intervals (default %(default)s)")
    parser.add_argument("--resamples", type=int, default=1_000, help="of the bootstrap (default %(default)s)")
    add_model_options(parser, "pocket")
    add_output_options(parser, "the report, as report.json holds it")


def run(args: argparse.Namespace) -> int:
    """Evaluate, write the report, print the short table. The report says that `args.line` was run."""
    require_matplotlib()
    check_output(args.output)
    check_device(args.device)
    with no_loading_bars():
        recogniser = load_recogniser(args.recogniser, device=args.device) if args.recogniser else None
    model = load_model(args.model, args.device)
    report = evaluate_folder(
        model,
        args.folder,
        name=args.model if args.model in SHIPPED else Path(args.model).name,
        seed=args.seed,
        ties=args.ties,
        method=args.method,
        resamples=args.resamples,
        on_error=args.on_error,
        train=args.train,
        allow_leaks=False if args.allow_leaks is None else (args.allow_leaks or True),
        recogniser=recogniser,
        cost=not args.no_cost,
        examples=0 if args.no_examples else EXAMPLES,
        command=args.line,
    )
    write_report(report, args.output)
    if args.json:
        print_json(report.to_dict())
    else:
        print(f"{report}\n\n{args.output / 'report.html'}")
    if report.skipped:
        remark(f"left out, as the report lists: {len(report.skipped)}")
    return 0
