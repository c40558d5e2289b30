"""Broken arguments of every `clasp` command: wrong usage is exit code 2 and says what would be right; what shows only
when the command runs is exit code 1 and one line. Never a traceback, and nothing is left half done."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import RATE, Clip, Encoders, tiny_model

from clasp_lib import CLASP, SpeechIndex
from clasp_lib.cli import COMMANDS, main
from hard.conftest import Ended, check_message, within

GROUP = "bad arguments"


@pytest.fixture(scope="module")
def model(encoders: Encoders, tmp_path_factory: pytest.TempPathFactory) -> CLASP:
    """A model that is named by its folder, beside which all other things are."""
    model, folder = tiny_model(encoders), tmp_path_factory.mktemp("arguments") / "model"
    model.save_pretrained(folder)
    model.name = str(folder)
    return model


@pytest.fixture(scope="module")
def place(model: CLASP, clips: list[Clip]) -> Path:
    """A folder with the model, recordings, an index of them, and things that are none of these."""
    folder = Path(str(model.name)).parent
    (folder / "recordings").mkdir()
    rows = ["file,text,year"]
    for i, clip in enumerate(clips[:3]):
        soundfile.write(folder / "recordings" / f"{i}.wav", clip.samples, RATE)
        rows.append(f'{i}.wav,"{clip.text}",{1990 + i}')
    (folder / "recordings" / "metadata.csv").write_text("\n".join(rows), "utf-8")
    SpeechIndex.build(model, folder / "recordings", folder=folder / "made")
    soundfile.write(folder / "one.wav", clips[0].samples, RATE)
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    (folder / "notes.txt").write_text("no recording", "utf-8")
    (folder / "latin.txt").write_bytes("café\n".encode("latin-1"))
    (folder / "gaps.txt").write_text("rain\n\nsnow\n", "utf-8")
    (folder / "thesis").mkdir()
    (folder / "thesis" / "chapter.txt").write_text("years of work", "utf-8")
    return folder


@pytest.fixture(autouse=True)
def here(model: CLASP, place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands are given beside these things, and leave them as they are; the model is loaded once."""
    load = CLASP.from_pretrained

    def from_pretrained(name: str, **options: Any) -> CLASP:
        known = os.path.abspath(name) == model.name and options.get("device") is None
        return model if known else load(name, **options)

    monkeypatch.setattr(CLASP, "from_pretrained", from_pretrained)
    monkeypatch.chdir(place)
    monkeypatch.setenv("CLASP_CACHE", str(place / "cache"))
    before = seen(place)
    yield
    assert seen(place) == before, "something was left behind, or is gone"


def seen(folder: Path) -> list[tuple[str, int]]:
    files = (
        file for file in folder.rglob("*") if file.is_file() and file.name != ".lock" and "cache" not in file.parts
    )
    return sorted((str(file), file.stat().st_size) for file in files)


# Wrong usage -------------------------------------------------------------------------------------------------------

USAGE: list[tuple[list[str], str]] = [
    ([], "arguments are required: COMMAND"),
    (["nope"], "invalid choice: 'nope'"),
    (["seek"], "invalid choice: 'seek'"),
    (["--quiet"], "required: COMMAND|unrecognized"),
    ([""], "invalid choice: ''"),
    (["index"], "required: INDEX"),
    (["index", "made"], "give recordings or folders, or --remove ID"),
    (["index", "made", "recordings", "--backend", "magic"], "invalid choice: 'magic'"),
    (["index", "made", "recordings", "--on-error", "ignore"], "invalid choice: 'ignore'"),
    (["index", "made", "recordings", "--batch-size", "0"], "'0': give a whole number of at least 1"),
    (["index", "made", "recordings", "--batch-size", "-3"], "'-3': give a whole number|expected one argument"),
    (["index", "made", "recordings", "--batch-size", "2.5"], "'2.5': give a whole number"),
    (["index", "made", "recordings", "--batch-size", "many"], "'many': give a whole number"),
    (["index", "made", "recordings", "--batch-size", ""], "'': give a whole number"),
    (["index", "made", "--remove"], "--remove: expected at least one argument"),
    (["index", "made", "recordings", "--back", "exact"], "unrecognized arguments: --back"),
    (["index", "made", "recordings", "--quiet", "--progress"], "not allowed with"),
    (["search"], "required: INDEX"),
    (["search", "made"], "give a query: a text, or --speech FILE"),
    (["search", "made", "rain", "--speech", "one.wav"], "give a query: a text, or --speech FILE"),
    (["search", "made", "rain", "snow"], "unrecognized arguments: snow"),
    (["search", "made", "rain", "-k", "0"], "'0': give a whole number of at least 1"),
    (["search", "made", "rain", "-k", "nan"], "'nan': give a whole number"),
    (["search", "made", "rain", "-k", "1e3"], "'1e3': give a whole number"),
    (["search", "made", "rain", "-k", "²"], "'²': give a whole number"),
    (["search", "made", "rain", "--where", "year"], "'year': expected KEY=VALUE"),
    (["search", "made", "rain", "--where", "=1990"], "'=1990': expected KEY=VALUE"),
    (["search", "made", "rain", "--where", "year="], "'year=': expected KEY=VALUE"),
    (["search", "made", "rain", "--where", "year=.."], "a range is FROM..TO"),
    (["search", "made", "rain", "--where", "year=1..2..3"], "a range is FROM..TO"),
    (["search", "made", "rain", "--where", "year=1,,2"], "a value is missing beside a comma"),
    (["search", "made", "rain", "--where", 'year="1990'], "a double quote without its other one"),
    (["search", "made", "rain", "--where", "year=1", "--where", "year=2"], "'year' is given twice"),
    (["locate"], "required: RECORDING, QUERY"),
    (["locate", "one.wav"], "required: QUERY"),
    (["locate", "one.wav", "rain", "--raw", "16000"], "--raw is for samples from stdin"),
    (["locate", "-", "rain", "--raw", "fast"], "'fast': give a whole number"),
    (["locate", "one.wav", "rain", "--window", "long"], "'long': give a number of seconds"),
    (["locate", "one.wav", "rain", "--silence", "never"], "'never': give a number of seconds"),
    (["locate", "one.wav", "rain", "-k", "-1"], "give a whole number|expected one argument"),
    (["encode"], "one of the arguments --text --speech --texts-file is required"),
    (["encode", "--text"], "--text: expected at least one argument"),
    (["encode", "--text", "rain", "--speech", "one.wav"], "not allowed with"),
    (["encode", "--text", "rain", "--output", "x.csv"], "'x.csv': the name ends in one of .safetensors"),
    (["encode", "--text", "rain", "--output", "x"], "'x': the name ends in one of"),
    (["encode", "--text", "rain", "--output", ""], "'': the name ends in one of"),
    (["evaluate"], "required: folder"),
    (["evaluate", "recordings", "--ties", "lucky"], "invalid choice: 'lucky'"),
    (["evaluate", "recordings", "--method", "guess"], "invalid choice: 'guess'"),
    (["evaluate", "recordings", "--seed", "one"], "invalid int value: 'one'"),
    (["evaluate", "recordings", "--resamples", "1.5"], "invalid int value: '1.5'"),
    (["evaluate", "recordings", "--on-error", "ignore"], "invalid choice: 'ignore'"),
    (["demo", "--port", "0"], "'0': give a whole number of at least 1"),
    (["demo", "--port", "65536"], "'65536': ports end at 65535"),
    (["demo", "--port", "http"], "'http': give a whole number"),
    (["demo", "--language", "tlh"], "invalid choice: 'tlh'"),
    (["demo", "--max-mb", "many"], "invalid float value: 'many'"),
    (["demo", "made", "other"], "unrecognized arguments: other"),
    (["train"], "required: folder"),
    (["train", "new", "--loss", "hinge"], "invalid choice: 'hinge'"),
    (["train", "new", "--profile", "pockt"], "invalid choice: 'pockt'"),
    (["train", "new", "--epochs", "1.5"], "invalid int value: '1.5'"),
    (["train", "new", "--precision", "float8"], "invalid choice: 'float8'"),
    (["train", "new", "--speed", "3"], "unrecognized arguments: --speed"),
]


@pytest.mark.parametrize("line", [line for line, _ in USAGE], ids=" ".join)
def test_wrong_usage_is_code_2(line: list[str], capsys: pytest.CaptureFixture[str], ended: Ended) -> None:
    wanted = next(said for known, said in USAGE if known == line)
    with pytest.raises(SystemExit) as stopped:
        main(line)
    shown = capsys.readouterr()
    assert stopped.value.code == 2 and shown.out == "" and shown.err.startswith("usage: clasp")
    check_message(shown.err.splitlines()[-1], re.compile(wanted))
    ended(GROUP, f"clasp {' '.join(line)}", "usage error")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_what_it_does_not_know(
    command: str, capsys: pytest.CaptureFixture[str], ended: Ended
) -> None:
    for line in ([command, "--nope"], [command, "--model"], [command, "--json=5"], [command, *["x"] * 5, "--\0"]):
        if command == "train" and "--model" in line:
            continue  # which has none
        with pytest.raises(SystemExit) as stopped:
            main(line)
        shown = capsys.readouterr()
        assert stopped.value.code == 2 and shown.out == "" and "Traceback" not in shown.err
        ended(GROUP, f"{line!r}", "usage error")


# What only shows when the command runs -----------------------------------------------------------------------------

MODEL = ["--model", "model"]
ERRORS: list[tuple[list[str], str]] = [
    (["index", "new", "nowhere"], "nowhere: there is no such file or folder"),
    (["index", "new", ""], ": there is no such file or folder"),
    (["index", "new", "a\0b"], "there is no such file or folder"),
    (["index", "new", "thesis", *MODEL], "holds no recordings"),
    (["index", "new", "notes.txt", *MODEL], "notes.txt: is not audio that can be read"),
    (["index", "new", "silent.wav", *MODEL], "silent.wav: is silent"),
    (["index", "new", "notes.txt", "--on-error", "skip", *MODEL], "1 recordings given, 1 skipped"),
    (["index", "thesis", "one.wav", *MODEL], "holds no index.json, so it is left alone (chapter.txt)"),
    (["index", "notes.txt", "one.wav", *MODEL], "notes.txt: no index can be made there"),
    (["index", "notes.txt/below", "one.wav", *MODEL], "notes.txt/below: no index can be made there"),
    (["index", "a\0b", "one.wav", *MODEL], "no index can be made there"),
    (["index", "nowhere", "--remove", "a"], "nowhere: there is no index"),
    (["index", "made", "one.wav", "--backend", "exact"], "was built for the backend 'auto', not 'exact'"),
    (["index", "new", "recordings", "--metadata", "nowhere.csv", *MODEL], "nowhere.csv: cannot be read as a UTF-8"),
    (["index", "new", "recordings", "--metadata", "thesis", *MODEL], "thesis: cannot be read as a UTF-8 table"),
    (["index", "new", "recordings", "--metadata", "notes.txt", *MODEL], "needs a column 'file'"),
    (["index", "new", "one.wav", "--model", "nowhere"], "'nowhere': is neither one of pocket"),
    (["index", "new", "one.wav", "--model", "thesis"], "is not a CLASP model"),
    (["index", "new", "one.wav", "--model", "notes.txt"], "'notes.txt': is neither one of pocket"),
    (["index", "new", "one.wav", "--model", ""], "is neither one of pocket|name of the model"),
    (["search", "made", "rain", "--model", ""], "'': is neither one of pocket"),
    (["demo", "--model", ""], "'': is neither one of pocket"),
    (["index", "new", "one.wav", "--device", "abacus", *MODEL], "device 'abacus': cannot be used"),
    (["index", "new", "one.wav", "--device", "meta", *MODEL], "device 'meta': cannot be used"),
    (["index", "new", "one.wav", "--device", "cuda:99", *MODEL], "device 'cuda:99': cannot be used"),
    (["search", "nowhere", "rain"], "nowhere: there is no index. Name a folder"),
    (["search", "thesis", "rain"], "thesis: there is no index"),
    (["search", "notes.txt", "rain"], "notes.txt/index.json: cannot be read|there is no index"),
    (["search", "", "rain"], "there is no index"),
    (["search", "http://host:99999", "rain"], "is no URL"),
    (["search", "nowhere.db", "rain"], "there is no such database"),
    (["search", "made", ""], "give a string with something in it"),
    (["search", "made", " \n"], "give a string with something in it"),
    (["search", "made", "\u200b"], "give a string with something in it"),
    (["search", "made", "caf\udce9"], "holds half a character"),
    (["search", "made", "--speech", "nowhere.wav"], "nowhere.wav: there is no such file"),
    (["search", "made", "--speech", "notes.txt"], "notes.txt: is not audio"),
    (["search", "made", "--speech", "silent.wav"], "silent.wav: is silent"),
    (["search", "made", "--speech", "thesis"], "thesis: is not a regular file"),
    (["search", "made", "--speech", ""], "is not a regular file|no such file"),
    (["search", "made", "rain", "--where", "month=3"], "no recording of the index has 'month'"),
    (["search", "made", "rain", "--where", "year=early"], "'year' holds int64 values, not such as 'early'"),
    (["search", "made", "rain", "--where", f"year={10**30}"], "'year' holds int64 values"),
    (["search", "made", "rain", "--where", "year=1e999"], "finite numbers"),
    (["search", "made", "rain", "--where", "year=1990..late"], "two numbers or two strings"),
    (["search", "made", "rain", "--where", "id=caf\udce9"], "'id' holds string values"),
    (["locate", "nowhere.wav", "rain", *MODEL], "nowhere.wav: there is no such file"),
    (["locate", "notes.txt", "rain", *MODEL], "notes.txt: is not audio"),
    (["locate", "silent.wav", "rain", *MODEL], "silent.wav: is silent throughout"),
    (["locate", "thesis", "rain", *MODEL], "thesis: is not a regular file"),
    (["locate", "one.wav", "", *MODEL], "give a string with something in it"),
    (["locate", "one.wav", "rain", " ", *MODEL], "text number 1"),
    (["locate", "one.wav", "rain", "--window", "0", *MODEL], "expected 0.1 <= hop_s <= window_s <= 60"),
    (["locate", "one.wav", "rain", "--window", "nan", *MODEL], "window_s is nan; give a number of seconds"),
    (["locate", "one.wav", "rain", "--hop", "inf", *MODEL], "hop_s is inf; give a number of seconds"),
    (["locate", "one.wav", "rain", "--silence", "-1", *MODEL], "silence_s is -1.0; give 0.1 to 10 seconds"),
    (["locate", "one.wav", "rain", "--longest", "1e9", *MODEL], "shortest_s <= longest_s <= 60"),
    (["locate", "-", "rain", *MODEL], "is empty (0 bytes)"),
    (["locate", "-", "rain", "--raw", "16000", *MODEL], "holds no samples"),
    (["locate", "-", "rain", "--raw", "1", *MODEL], "1 Hz is not plausible"),
    (["locate", "-", "rain", "--raw", "99999999", *MODEL], "99999999 Hz is not plausible"),
    (["encode", "--text", "", *MODEL], "give a string with something in it"),
    (["encode", "--text", "rain", "", *MODEL], "text number 1"),
    (["encode", "--text", "\udcff", *MODEL], "holds half a character"),
    (["encode", "--speech", "nowhere.wav", *MODEL], "nowhere.wav: there is no such file"),
    (["encode", "--speech", "one.wav", "notes.txt", *MODEL], "notes.txt: is not audio"),
    (["encode", "--texts-file", "nowhere.txt", *MODEL], "nowhere.txt"),
    (["encode", "--texts-file", "thesis", *MODEL], "thesis"),
    (["encode", "--texts-file", "latin.txt", *MODEL], "latin.txt: is not UTF-8"),
    (["encode", "--texts-file", "gaps.txt", *MODEL], "gaps.txt, line 2: is empty"),
    (["encode", "--texts-file", "-", *MODEL], "holds no texts"),
    (["encode", "--text", "rain", "--output", "notes.txt/x.npy", *MODEL], "notes.txt"),
    (["evaluate", "nowhere", *MODEL], "metadata.csv: cannot be read as a UTF-8 table"),
    (["evaluate", "thesis", *MODEL], "metadata.csv: cannot be read as a UTF-8 table"),
    (["evaluate", "recordings", "--output", "notes.txt", *MODEL], "notes.txt: is a file; name a folder"),
    (["evaluate", "recordings", "--output", "thesis", *MODEL], "thesis: holds chapter.txt"),
    (["evaluate", "recordings", "--seed", "-1", *MODEL], "seed: -1; give 0 or more"),
    (["evaluate", "recordings", "--resamples", "0", *MODEL], "resamples: 0; give at least 1"),
    (["evaluate", "recordings", "--train", "nowhere", *MODEL], "nowhere: holds neither metadata.csv nor"),
    (["evaluate", "recordings", "--train", "recordings", *MODEL], "--allow-leaks"),
    (["evaluate", "recordings", "--allow-leaks", *MODEL], "name that with train"),
    (["evaluate", "recordings", "--recogniser", "nobody", *MODEL], "nobody"),
    (["evaluate", "recordings", "--model", "nowhere"], "'nowhere': is neither one of pocket"),
    (["demo", "nowhere"], "nowhere: there is no index"),
    (["demo", "made", "--max-mb", "0"], "upload_mb is 0.0; give a number above zero"),
    (["demo", "made", "--max-minutes", "nan"], "recording_minutes is nan; give a number above zero"),
    (["demo", "made", "--max-minutes", "-5"], "recording_minutes is -5.0; give a number above zero"),
    (["demo", "made", "--model", "nowhere"], "'nowhere': is neither one of pocket"),
    (["train", "new", "--epochs", "0"], "epochs is 0; give 1 or more"),
    (["train", "new", "--learning-rate", "nan"], "learning_rate is nan; give"),
    (["train", "new", "--learning-rate", "inf"], "learning_rate is inf; give"),
    (["train", "new", "--seed", f"{2**70}"], "seed is 1180591620717411303424; give"),
    (["train", "new", "--fusion", "average"], "fusion 'average' is not known"),
    (["train", "new", "--fusion", "attention+gating", "--loss", "augmentation"], "takes frames"),
    (["train", "new", "--batch-size", "-1"], "batch_size is -1; give"),
]


def case(line: list[str]) -> str:
    return "clasp " + " ".join(part[:40] for part in line).encode("ascii", "backslashreplace").decode()


@pytest.mark.parametrize("number", range(len(ERRORS)), ids=[ascii(case(line)) for line, _ in ERRORS])
def test_what_cannot_be_done_is_one_line_and_code_1(
    number: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    ended: Ended,
) -> None:
    line, wanted = ERRORS[number]
    line = [str(tmp_path / "new") if part == "new" else part for part in line]
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO()))
    with within(120):
        assert main(line) == 1
    shown = capsys.readouterr()
    told = [part for part in shown.err.splitlines() if part.startswith("error: ")]
    assert shown.out == "" and len(told) == 1 and "Traceback" not in shown.err
    check_message(told[0], re.compile("|".join(map(re.escape, wanted.split("|")))))
    ended(GROUP, case(ERRORS[number][0]), "refused")


def test_what_is_left_out_is_said_and_the_rest_is_done(
    place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, ended: Ended
) -> None:
    made = str(tmp_path / "new")
    line = ["index", made, "one.wav", "notes.txt", "silent.wav", "--on-error", "skip", *MODEL]
    assert main(line) == 0
    shown = capsys.readouterr()
    for said in ("skipped: " + str(place / "notes.txt"), "skipped: " + str(place / "silent.wav")):
        assert said in shown.err.replace("skipped: notes", f"skipped: {place}/notes").replace(
            "skipped: silent", f"skipped: {place}/silent"
        )
        ended(GROUP, "clasp index --on-error skip", "skipped with a report")
    assert "1 added, 0 unchanged, 0 removed, 2 skipped; 1 recordings" in shown.out


# As a program ------------------------------------------------------------------------------------------------------


def program(*line: str | bytes, **options: Any) -> subprocess.CompletedProcess:
    command: list[str | bytes] = [sys.executable, "-m", "clasp_lib", *line]
    return subprocess.run(command, capture_output=True, timeout=300, **options)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="arguments are bytes in POSIX alone")
def test_a_program_ends_with_one_line_whatever_bytes_it_is_given(place: Path, ended: Ended) -> None:
    for line in (
        ("search", "made", b"caf\xe9"),
        ("locate", b"caf\xe9.wav", "rain", *MODEL),
        ("encode", "--text", b"\xff\xfe", *MODEL),
        ("index", b"\xff", b"\xfe.wav", *MODEL),
        (b"\xff",),
    ):
        done = program(*line, cwd=place)
        told = done.stderr.decode("utf-8").splitlines()
        assert done.returncode in (1, 2) and done.stdout == b"" and b"Traceback" not in done.stderr
        assert "error: " in told[-1]
        ended(GROUP, f"clasp {line!r}", "usage error" if done.returncode == 2 else "refused")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="languages of a terminal of POSIX")
def test_a_program_in_a_terminal_of_ascii_says_what_it_found(place: Path, ended: Ended) -> None:
    locale = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    done = program("search", "made", "باران", "-k", "1", cwd=place, env=os.environ | locale)
    assert done.returncode == 0 and done.stdout.count(b"\n") == 1
    ended(GROUP, "clasp search in a terminal of ASCII", "accepted")


@pytest.mark.slow
def test_a_program_without_a_working_stdin_or_stdout_ends(place: Path, ended: Ended) -> None:
    checks: list[tuple[str, Callable[[], subprocess.CompletedProcess]]] = [
        ("stdin of nothing", lambda: program("locate", "-", "rain", *MODEL, cwd=place, stdin=subprocess.DEVNULL)),
        ("stdin of text", lambda: program("locate", "-", "rain", *MODEL, cwd=place, input=b"no recording" * 99)),
    ]
    for name, call in checks:
        done = call()
        assert done.returncode == 1 and b"Traceback" not in done.stderr and b"error: " in done.stderr
        ended(GROUP, f"clasp locate, {name}", "refused")
