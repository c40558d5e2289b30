"""How every command speaks: results on stdout, all else on stderr, one line for an error, and an exit code.

0: done. 1: an error. 2: wrong usage, as argparse says it. 130, 143: stopped by Ctrl-C or a request to end (SIGTERM).
141: whoever read the results has gone, as after `| head -1`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from clasp_lib.errors import ClaspError

if TYPE_CHECKING:
    from clasp_lib.model import CLASP

SEARCH_MODEL = "pocket-search-linear"
"""Of the models that ship, the best one for search."""


class _Terminated(KeyboardInterrupt):
    """SIGTERM: whatever cleans up after Ctrl-C cleans up after this."""


def add_output_options(parser: argparse.ArgumentParser, document: str) -> None:
    """`--json`, `--progress` and `--quiet`.

    Args:
        document: which keys the JSON document has.
    """
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help=f"print one JSON document, {document}")
    loudness = group.add_mutually_exclusive_group()
    loudness.add_argument("--progress", action="store_true", help="show progress also where stderr is no terminal")
    loudness.add_argument("--quiet", action="store_true", help="results and errors only: no progress, no remarks")


def add_model_options(parser: argparse.ArgumentParser, default: str | None = SEARCH_MODEL, meaning: str = "") -> None:
    """`--model` and `--device`, for `load_model`.

    Args:
        meaning: of a default of None.
    """
    which = f"one that ships, such as pocket-search-linear, a folder, or a hub id (default: {default or meaning})"
    parser.add_argument("--model", default=default, metavar="NAME", help=which)
    parser.add_argument("--device", help="where it runs: cpu, cuda, ... (default: the GPU where there is one)")


def at_least_one(text: str) -> int:
    """A whole number of 1 or more, for argparse."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number of at least 1")
    return int(text)


def load_model(name: str, device: str | None = None) -> CLASP:
    """A model, on a device that is checked first.

    Raises:
        CheckpointError: nothing there, or not a CLASP model.
        ClaspError: a device that cannot be used.
    """
    from clasp_lib.model import CLASP

    check_device(device)
    with no_loading_bars():
        return CLASP.from_pretrained(name, device=device)


@contextlib.contextmanager
def no_loading_bars() -> Iterator[None]:
    """transformers shows how it loads weights, terminal or not; that takes half a second. Downloads are shown."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def check_device(device: str | None) -> None:
    """Refuse a device before anything is loaded.

    Raises:
        ClaspError: torch does not know it, or cannot have it here.
    """
    from clasp_lib.encoders.checkpoints import chosen_device

    chosen_device(device)


def shows_progress(args: argparse.Namespace) -> bool:
    """Whether progress bars are wanted."""
    return args.progress or sys.stderr.isatty()


def remark(text: str) -> None:
    """One line for people, beside the results."""
    print(without_password(one_line(text)), file=sys.stderr)


def print_json(document: Any) -> None:
    """A document as people and programs read it: indented, letters as they are."""
    print(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))


def without_password(text: str) -> str:
    """A text in which addresses do not say who logs in, and how: http://***@host."""
    return re.sub(r"(?<=://)\S*@", "***@", text)


def one_line(text: str) -> str:
    """Text from outside for a terminal: no line breaks, and no control characters that would do something there."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", text).strip()


def clock(seconds: float) -> str:
    """Seconds as players show them: 0:07.25, 12:40.00, 1:02:03.50."""
    hundredths = round(seconds * 100)
    minutes, rest = divmod(hundredths, 6_000)
    hours, minutes = divmod(minutes, 60)
    clock = f"{minutes}:{rest / 100:05.2f}"
    return f"{hours}:{clock:0>8}" if hours else clock


def finish(prepare: Callable[[], argparse.Namespace], line: list[str], *, program: bool = False) -> int:
    """Run a command to its end, whatever end that is, and give its exit code.

    Args:
        prepare: parses, and gives the arguments, with the command's `run` among them. Where `goes_on` is, too, and
            true, a stopped command says that the same line goes on.
        line: what was typed.
        program: whether the process ends with this.

    Raises:
        SystemExit: from `prepare`.
    """
    hint, code = "stopped.", 1
    try:
        with _signals(program):
            args = prepare()
            if getattr(args, "goes_on", False):
                hint = f"stopped; what is finished is kept, and the same line goes on: {shlex.join(line)}"
            with _silence() if args.quiet else contextlib.nullcontext():
                code = args.run(args)
                sys.stdout.flush()
        return code
    except _Terminated:
        remark(hint)
        code = 128 + signal.SIGTERM
    except KeyboardInterrupt:
        remark(hint)
        code = 128 + signal.SIGINT
    except BrokenPipeError:
        code = 141  # 128 + SIGPIPE, which Windows does not have
    except (ClaspError, OSError) as error:
        remark(f"error: {error}")
        code = 1
    _flush_or_drop(sys.stdout)
    return code


@contextlib.contextmanager
def _signals(program: bool) -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does: from within, so that files are closed and temporary ones go.

    In a program the second signal ends it at once, and without the trace of whatever was being cleaned up.
    Under torchrun, where a process may wait for the others below Python, the first one does, as always.
    """
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    if not alone or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if program:
            for each in (signal.SIGINT, signal.SIGTERM):
                signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt if number == signal.SIGINT else _Terminated

    before: dict[signal.Signals, Any] = {signal.SIGTERM: signal.signal(signal.SIGTERM, stop)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where a shell has it ignored
        before[signal.SIGINT] = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is stop:
                signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Progress and remarks of all libraries go nowhere; it is no terminal, either."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


def _flush_or_drop(stream: Any) -> None:
    """What cannot be written is given up now: at its end Python would try again, and print a trace."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
