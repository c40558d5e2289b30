"""`clasp demo`: search and locate in a web page."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from dataclasses import replace

from clasp_lib.cli.search import model_of
from clasp_lib.console import (
    SEARCH_MODEL,
    add_model_options,
    add_output_options,
    at_least_one,
    load_model,
    print_json,
    without_password,
)
from clasp_lib.demo.limits import Limits
from clasp_lib.demo.texts import LANGUAGES

ABOUT = """Open a web page on this computer that searches a collection, and finds moments in recordings that you bring.

Without INDEX it searches clips of the profile's dataset, which are indexed at the first start. The page is for this
computer alone, unless --host or --share opens it to others: then everybody who reaches it can upload recordings. Ctrl-C
ends it."""

EXAMPLES = (
    "clasp demo",
    "clasp demo my_index --port 7861 --language fa --open",
)

_LIMITS = Limits()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` takes."""
    parser.add_argument(
        "index", nargs="?", metavar="INDEX", help="a folder that `clasp index` made, or a Milvus address"
    )
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 answers whoever reaches it (default %(default)s)")
    parser.add_argument("--port", type=_port, metavar="N", help="default: the first free one from 7860")
    parser.add_argument("--share", action="store_true", help="ask gradio.live for a public address")
    languages = tuple(LANGUAGES.values())
    parser.add_argument("--language", choices=languages, default="en", help="of the interface (default %(default)s)")
    parser.add_argument("--open", action="store_true", help="show the page in the web browser of this computer")
    parser.add_argument(
        "--max-minutes",
        type=float,
        default=_LIMITS.recording_minutes,
        metavar="N",
        help="longest recording that may be uploaded (default %(default)g)",
    )
    parser.add_argument(
        "--max-mb", type=float, default=_LIMITS.upload_mb, metavar="N", help="largest one (default %(default)g)"
    )
    add_model_options(parser, None, f"the one that built the index, or {SEARCH_MODEL}")
    add_output_options(parser, "with the keys url, share_url, index, model, once the page is there")


def _port(text: str) -> int:
    if (port := at_least_one(text)) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r}: ports end at 65535")
    return port


def run(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    from clasp_lib.demo import launch_demo

    limits = replace(_LIMITS, recording_minutes=args.max_minutes, upload_mb=args.max_mb)
    index, name = None, SEARCH_MODEL if args.model is None else args.model
    if args.index is None:
        model = load_model(name, args.device)
    else:
        from clasp_lib.index import SpeechIndex

        name, model = model_of(args.index, args.model, args.device)
        index = SpeechIndex.load(args.index, model)
    with contextlib.redirect_stdout(sys.stderr) if args.json else contextlib.nullcontext():
        page = launch_demo(
            model,
            index,
            host=args.host,
            port=args.port,
            share=args.share,
            limits=limits,
            language=args.language,
            open_browser=args.open,
            block=False,
        )
    if args.json:
        place = args.index and without_password(args.index)
        print_json({"url": page.local_url, "share_url": page.share_url, "index": place, "model": name})
        sys.stdout.flush()
    try:
        while page.is_running:
            time.sleep(0.5)
    finally:
        page.close(verbose=False)
    return 0
