"""The command line: `clasp COMMAND ...`, also as `python -m clasp_lib COMMAND ...`.

Each command is a module of this package with `ABOUT`, `EXAMPLES`, `add_arguments(parser)` and `run(args) -> int`. It is
imported when it is called, and imports what is heavy when it runs, so that help comes at once; only `train` reads its
options off the training itself.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import textwrap
from collections.abc import Sequence

from clasp_lib import __version__
from clasp_lib.console import finish

COMMANDS = {
    "index": "make an index of recordings, or bring one up to date",
    "search": "find recordings of an index by text or speech",
    "locate": "find the moment in a long recording",
    "encode": "write the vectors of texts or recordings",
    "evaluate": "measure a model on a folder of recordings, and write a report",
    "demo": "search and locate in a web page on this computer",
    "train": "train a fusion on a profile's dataset",
}

_EXAMPLES = (
    "clasp index my_index recordings",
    'clasp search my_index "a storm is coming"',
    'clasp locate talk.wav "the price of bread"',
    "clasp search --help",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and give its exit code; see `clasp_lib.console`.

    Raises:
        SystemExit: after help and version (0), or for wrong usage (2).
    """
    if arguments is None:
        for stream in (sys.stdout, sys.stderr):  # texts of all languages, also into a file on Windows
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
        if "--progress" not in sys.argv and not sys.stderr.isatty():
            os.environ.setdefault("TQDM_DISABLE", "1")  # before anything imports tqdm: no bar of any library
    given = sys.argv[1:] if arguments is None else list(arguments)
    return finish(lambda: _parsed(given), ["clasp", *given], program=arguments is None)


def _parsed(given: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command, with its `run`, and the line that was typed."""
    if not given or given[0] not in COMMANDS:
        parser = _all_commands()
        parser.parse_args(given)  # shows help or version, or says what is wrong
        parser.error("the first argument is the command")
    name, *rest = given
    module = importlib.import_module(f"clasp_lib.cli.{name}")
    parser = _parser(f"clasp {name}", module.ABOUT, module.EXAMPLES)
    module.add_arguments(parser)
    parser.set_defaults(run=module.run, line=["clasp", *given])
    return parser.parse_args(rest)


def _all_commands() -> argparse.ArgumentParser:
    """Every command by its name and one line; no argument of any of them."""
    parser = _parser("clasp", "Search speech with text, without transcribing it.", _EXAMPLES)
    parser.add_argument("--version", action="version", version=f"clasp {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, about in COMMANDS.items():
        commands.add_parser(name, help=about)
    return parser


def _parser(program: str, about: str, examples: Sequence[str]) -> argparse.ArgumentParser:
    epilog = "\n".join(["examples:", *(f"  {line}" for line in examples)])
    return argparse.ArgumentParser(
        prog=program, description=about, epilog=epilog, formatter_class=_Paragraphs, allow_abbrev=False
    )


class _Paragraphs(argparse.HelpFormatter):
    """Wraps paragraphs, and leaves those with indented lines as they are: such lines can be copied into a terminal."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.split("\n\n")
        return "\n\n".join(part if "\n  " in part else textwrap.fill(part, width) for part in paragraphs)
