"""Commands end as they should: exit codes, one line for an error, nothing after a reader has gone."""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clasp_lib import ClaspError, __version__
from clasp_lib.cli import COMMANDS, main
from clasp_lib.cli.search import read_condition
from clasp_lib.console import at_least_one, clock, finish, one_line

NOT_WINDOWS = pytest.mark.skipif(os.name == "nt", reason="signals and pipes of POSIX")


def started(code: str, **options) -> subprocess.Popen:
    """A process that runs code in which `finish` and its friends are there."""
    head = "import argparse, os, signal, sys, time, warnings\nfrom clasp_lib.console import *\n"
    head += "def command(run, **known):\n"
    head += "    args = argparse.Namespace(run=run, quiet=False, progress=False, json=False)\n"
    head += "    args.__dict__.update(known)\n"
    head += "    sys.exit(finish(lambda: args, ['clasp', 'index', 'my index'], program=True))\n"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    # A shell's background job ignores Ctrl-C, and what it starts inherits that.
    return subprocess.Popen([sys.executable, "-c", head + code], **pipes, preexec_fn=_interruptible)


def _interruptible() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_help_and_version_need_no_heavy_library() -> None:
    code = """
import sys
from clasp_lib.cli import main
for line in (["--help"], ["--version"], *([name, "--help"] for name in %r)):
    try:
        main(line)
    except SystemExit as ended:
        assert ended.code == 0, line
print("imported:", {"torch", "transformers", "numpy", "soundfile", "gradio", "matplotlib"} & set(sys.modules))
""" % [name for name in COMMANDS if name not in ("evaluate", "train")]
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.endswith("imported: set()\n")
    assert f"clasp {__version__}\n" in ended.stdout


def test_the_help_lists_every_command_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    for name, about in COMMANDS.items():
        assert [line for line in lines if re.fullmatch(f" +{name} +{re.escape(about)}", line)]


@pytest.mark.parametrize("line", [[], ["nope"], ["--quiet"], ["--", "search"], ["search", "a", "b", "--nope"]])
def test_wrong_usage_is_code_2(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(line)
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("usage: clasp")


def test_an_error_is_one_line_and_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    def ends(error: BaseException) -> tuple[int, str]:
        def run(_: argparse.Namespace) -> int:
            raise error

        code = finish(lambda: argparse.Namespace(run=run, quiet=False), ["clasp"])
        return code, capsys.readouterr().err

    assert ends(ClaspError("one.wav: is\nsilent \x1b[2J.")) == (1, "error: one.wav: is silent [2J.\n")
    assert ends(PermissionError(13, "no", "x")) == (1, "error: [Errno 13] no: 'x'\n")
    assert ends(KeyboardInterrupt()) == (130, "stopped.\n")
    assert ends(BrokenPipeError()) == (141, "")
    with pytest.raises(ZeroDivisionError):  # a defect of the program shows its trace
        ends(ZeroDivisionError())


def test_quiet_leaves_results_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    def run(args: argparse.Namespace) -> int:
        print("remark", file=sys.stderr)
        print("result")
        assert not sys.stderr.isatty()
        raise ClaspError("wrong")

    for quiet, err in ((True, "error: wrong\n"), (False, "remark\nerror: wrong\n")):
        assert finish(lambda quiet=quiet: argparse.Namespace(run=run, quiet=quiet), ["clasp"]) == 1
        shown = capsys.readouterr()
        assert (shown.out, shown.err) == ("result\n", err)


@NOT_WINDOWS
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_in_order(number: int, tmp_path: Path) -> None:
    unfinished = tmp_path / "unfinished"
    code = f"""
def run(args):
    try:
        open({str(unfinished)!r}, "w").close()
        print("begun", flush=True)
        time.sleep(60)
    finally:
        os.unlink({str(unfinished)!r})
command(run, goes_on=True)
"""
    process = started(code)
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert out == b"" and err.decode() == (
        "stopped; what is finished is kept, and the same line goes on: clasp index 'my index'\n"
    )
    assert not unfinished.exists()


@NOT_WINDOWS
def test_who_is_impatient_sees_no_trace() -> None:
    code = """
def run(args):
    try:
        print("begun", flush=True)
        time.sleep(60)
    finally:
        print("cleaning", flush=True)
        time.sleep(60)
command(run)
"""
    process = started(code)
    for expected in (b"begun\n", b"cleaning\n"):
        assert process.stdout.readline() == expected
        process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == b"" and process.returncode == -signal.SIGINT


@NOT_WINDOWS
def test_a_signal_during_the_imports_is_no_trace() -> None:
    code = "def prepare():\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(60)\nsys.exit(finish(prepare, []))"
    process = started(code)
    assert process.communicate(timeout=60) == (b"", b"stopped.\n") and process.returncode == 130


def test_the_handlers_of_whoever_calls_are_given_back() -> None:
    def handlers() -> list[object]:
        return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def run(_: argparse.Namespace) -> int:
        seen.append(handlers())
        raise KeyboardInterrupt

    seen: list[list[object]] = []
    before = handlers()
    assert finish(lambda: argparse.Namespace(run=run, quiet=False), ["clasp"]) == 130
    assert seen[0][1] is not before[1] and handlers() == before


@NOT_WINDOWS
def test_a_reader_that_goes_is_no_error() -> None:
    process = started("def run(args):\n    for i in range(10**6): print(i)\n    return 0\ncommand(run)")
    assert process.stdout.readline() == b"0\n"
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait(timeout=60) == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_results_that_cannot_be_written_are_an_error() -> None:
    with open("/dev/full", "w") as full:
        process = started("def run(args):\n    print('lost')\n    return 0\ncommand(run)", stdout=full)
        err = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 1 and err.count("\n") == 1 and "No space left" in err


def test_letters_are_not_lost_where_stdout_has_few_of_them() -> None:
    code = "import sys\nsys.argv = ['clasp', '--help']\nfrom clasp_lib.cli import main, COMMANDS\n"
    code += "COMMANDS['index'] = 'نمایه \\udcff'\nmain()"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert ended.returncode == 0 and "نمایه \\udcff" in ended.stdout.decode("utf-8")


def test_bars_of_all_libraries_are_shown_to_terminals_only() -> None:
    code = """
import sys
from types import SimpleNamespace
from clasp_lib.cli import main
from clasp_lib.console import add_output_options

def run(args):
    from tqdm import tqdm
    return len(list(tqdm(range(3), "a library at work"))) - 3

add = lambda parser: add_output_options(parser, "")
sys.modules["clasp_lib.cli.encode"] = SimpleNamespace(ABOUT="", EXAMPLES=("",), add_arguments=add, run=run)
sys.argv = ["clasp", "encode", *sys.argv[1:]]
sys.exit(main())
"""
    for options, shown in (([], False), (["--quiet"], False), (["--progress"], True)):
        ended = subprocess.run([sys.executable, "-c", code, *options], capture_output=True, text=True, check=True)
        assert ("a library at work" in ended.stderr) is shown, options


def test_seconds_are_shown_as_players_do() -> None:
    shown = [clock(seconds) for seconds in (0, 7.25, 59.999, 61.5, 760, 3723.456, 36000)]
    assert shown == ["0:00.00", "0:07.25", "1:00.00", "1:01.50", "12:40.00", "1:02:03.46", "10:00:00.00"]


def test_texts_from_outside_stay_on_their_line() -> None:
    assert one_line("a\tb\r\nc \x1b]0;title\x07 \x9b d ") == "a b c ]0;title d"
    assert one_line("می‌روم") == "می‌روم", "the half-space is a letter's business"


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "many", "²"])
def test_a_number_below_one_is_wrong_usage(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="at least 1"):
        at_least_one(text)


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("news", "news"),
        ("a,b", ["a", "b"]),
        ("1990", 1990),
        ("1990.5", 1990.5),
        ("-1.5e3", -1500.0),
        ("true", True),
        ("True", "True"),
        ("1990..2000", (1990, 2000)),
        ("1990..", (1990, None)),
        ("..0.5", (None, 0.5)),
        ("2020-01-01..2020-12-31", ("2020-01-01", "2020-12-31")),
        ('"1990"', "1990"),
        ('"a,b","c..d"', ["a,b", "c..d"]),
        ('"say \\"yes\\""', 'say "yes"'),
        ("talk.wav", "talk.wav"),
        ("1,2.5", [1, 2.5]),
        ("nan", "nan"),
        ("1_000", "1_000"),
        ("a=b", "a=b"),
        ("خبر", "خبر"),
    ],
)
def test_a_condition_is_read(text: str, condition: object) -> None:
    read = read_condition(text)
    assert read == condition and type(read) is type(condition)


@pytest.mark.parametrize("text", ["..", "a,,b", "a,", ",", '"a', 'a"', "1..2..3", "1,2..3"])
def test_a_condition_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_condition(text)
