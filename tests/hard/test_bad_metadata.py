"""Broken tables of recordings at every door that reads one: `read_recordings`, `SpeechIndex.build`, `evaluate_folder`,
`clasp index` and `clasp index --metadata`. Each is refused by file and line."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
from conftest import RATE, Clip

from clasp_lib import CLASP, SpeechIndex
from clasp_lib.cli.index import _read_table
from clasp_lib.errors import ClaspError, DatasetError
from clasp_lib.report import evaluate_folder
from clasp_lib.speech_brown import build_speech_brown, load_dataset, read_recordings
from clasp_lib.tables import read_csv
from hard.conftest import Ended, check_message, within

GROUP = "bad metadata"


class Table(NamedTuple):
    """A table, and what must be said of it: as one for a dataset, and as one for an index; None where it is right."""

    content: bytes
    dataset: str | None
    index: str | None


def table(text: str, dataset: str | None, index: str | None = "the same", encoding: str = "utf-8") -> Table:
    return Table(text.encode(encoding), dataset, dataset if index == "the same" else index)


LINES = "file,text\n0.wav,one\n1.wav,two\n"
CELLS = "has another number of cells than the first line.*double quotes"
NO_TABLE = "cannot be read as a UTF-8 table"
OUTSIDE = "line 2.*leads out of the folder|line 2.*no path inside the folder"

TABLES = {
    # Columns
    "no file column": table(
        "name,text\n0.wav,x\n", "lacks the column file; it has name, text", "needs a column 'file'"
    ),
    "no text column": table("file,words\n0.wav,x\n", "lacks the column text; it has file, words", None),
    "no header": table("0.wav,x\n1.wav,y\n", "lacks the column file and text", "needs a column 'file'"),
    "semicolons": table("file;text\n0.wav;x\n", "lacks the column file and text", "needs a column 'file'"),
    "tabs": table("file\ttext\n0.wav\tx\n", "lacks the column file and text", "needs a column 'file'"),
    "spaces in the header": table(" file , text\n0.wav,x\n", "lacks the column file and text", "needs a column 'file'"),
    "capitals in the header": table("File,Text\n0.wav,x\n", "lacks the column file and text", "needs a column 'file'"),
    "a column twice": table("file,text,text\n0.wav,x,y\n", "two columns 'text'. Rename one"),
    "file column twice": table("file,text,file\n0.wav,x,1.wav\n", "two columns 'file'. Rename one"),
    "nothing": table("", "lacks the column file and text; it has none", "needs a column 'file'"),
    "white space alone": table("\n\n \n", "lacks the column", "needs a column 'file'"),
    "header alone": table("file,text\n", "has a header and no rows", "and a row for each recording"),
    # Cells
    "a comma that is not quoted": table("file,text\n0.wav,rain, again\n", f"line 2.*{CELLS}"),
    "a cell is missing": table("file,text\n0.wav\n", f"line 2.*{CELLS}"),
    "a later row is short": table("file,text\n0.wav,x\n\n1.wav\n", f"line 4.*{CELLS}"),
    "a quote that does not end": table('file,text\n0.wav,"x\n1.wav,y\n', NO_TABLE),
    "letters after a quote": table('file,text\n0.wav,"x"y\n', NO_TABLE),
    "no file name": table("file,text\n ,x\n", "line 2.*'file' must be filled", "line 2.*names no file"),
    "no text": table("file,text\n0.wav, \n", "line 2.*'text' hold a letter or digit", None),
    "text of emoji": table("file,text\n0.wav,🌧🌧\n", "line 2.*'text' hold a letter or digit.*🌧", None),
    "text of dots": table("file,text\n0.wav,...\n", "line 2.*'text' hold a letter or digit", None),
    "text of invisible signs": table("file,text\n0.wav,\u200b\u200f\n", "line 2.*'text' hold a letter or digit", None),
    "a huge cell": table(f"file,text\n0.wav,{'x' * 200_000}\n", f"{NO_TABLE}.*field larger than field limit"),
    "a huge name": table(f"file,text\n{'x' * 5_000}.wav,x\n", "line 2|no such file|cannot be opened"),
    "a huge header": table("x" * 200_000, NO_TABLE),
    # Encodings
    "latin-1": table("file,text\n0.wav,café\n", NO_TABLE, encoding="latin-1"),
    "UTF-16 with a mark": table(LINES, NO_TABLE, encoding="utf-16"),
    "UTF-16 without a mark": table(LINES, "NUL byte. Save the table as plain UTF-8", encoding="utf-16-le"),
    "half a character": Table(b"file,text\n0.wav,caf\xc3\n", NO_TABLE, NO_TABLE),
    "NUL in a name": table("file,text\n0\0.wav,x\n", "line 2.*NUL byte. Save the table as plain UTF-8"),
    "NUL in a text": table("file,text\n0.wav,x\0y\n", "line 2.*NUL byte. Save the table as plain UTF-8"),
    "NUL in the header": table("file,text\0\n0.wav,x\n", "line 1.*NUL byte. Save the table as plain UTF-8"),
    "a recording in its place": Table(b"RIFF\x24\x00\x00\x00WAVEfmt ", "lacks the column|NUL byte", "NUL byte|needs"),
    # Files
    "the same file twice": table(f"{LINES}0.wav,three\n", "line 4.*'0.wav' stands in the table twice"),
    "the same file in disguise": table(f"{LINES}./0.wav,three\n", "line 4.*'./0.wav' stands in the table twice"),
    "a path out of the folder": table("file,text\n../outside.wav,x\n", OUTSIDE),
    "a path out and back": table("file,text\n../recordings/../outside.wav,x\n", OUTSIDE),
    "an absolute path": table("file,text\n/etc/hostname,x\n", OUTSIDE),
    "a link out of the folder": table("file,text\nlink.wav,x\n", OUTSIDE),
    "a folder of links out of it": table("file,text\nabove/outside.wav,x\n", OUTSIDE),
    "a folder for a file": table("file,text\nabove/recordings,x\n", f"{OUTSIDE}|is not a regular file"),
    "the folder itself": table("file,text\n.,x\n", "is not a regular file"),
    "a file that is missing": table("file,text\nnone.wav,x\n", "none.wav: there is no such file"),
    "a loop of links": table("file,text\nloop.wav,x\n", f"{OUTSIDE}|no such file|cannot be opened"),
    "the table itself": table("file,text\nmetadata.csv,x\n", "metadata.csv: is not audio that can be read"),
    # What an index keeps
    "an id twice": table("file,text,id\n0.wav,x,a\n1.wav,y,a\n", None, "ids: 'a' occurs twice"),
    "a name that is taken": table("file,text,digest\n0.wav,x,a\n", None, "line 2.*metadata has the name 'digest'"),
    # Right, if odd
    "a mark of UTF-8": table(LINES, None, encoding="utf-8-sig"),
    "lines of Windows": table(LINES.replace("\n", "\r\n"), None),
    "lines of an old Macintosh": table(LINES.replace("\n", "\r"), None),
    "no line break at the end": table(LINES.strip(), None),
    "empty lines": table("\n" + LINES.replace("\n", "\n\n"), None),
    "a text of two lines": table('file,text\n0.wav,"one\ntwo"\n', None),
    "a column without a name": table("file,text,\n0.wav,x,\n", None),
    "a thousand columns": table(f"file,text,{','.join(f'c{i}' for i in range(1_000))}\n0.wav,x{',1' * 1_000}\n", None),
    "numbers that are none": table("file,text,year\n0.wav,x,nan\n1.wav,y,inf\n", None),
    "a number beyond 64 bits": table(f"file,text,year\n0.wav,x,{10**30}\n", None),
    "a formula of a spreadsheet": table("file,text\n0.wav,\"=cmd|' /C calc'!A0 x\"\n", None),
}


FAULTS_OF_A_RECORDING = (
    *("a file that is missing", "a huge name", "a loop of links", "a folder for a file", "the folder itself"),
    "the table itself",
)


@pytest.fixture(scope="module")
def recordings(clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two recordings, some links that lead out of it, and as yet no table."""
    folder = tmp_path_factory.mktemp("tables") / "recordings"
    folder.mkdir()
    for number in range(2):
        soundfile.write(folder / f"{number}.wav", clips[number].samples, RATE)
    soundfile.write(folder.parent / "outside.wav", clips[2].samples, RATE)
    if os.name != "nt":
        (folder / "link.wav").symlink_to(folder.parent / "outside.wav")
        (folder / "above").symlink_to(folder.parent)
        (folder / "loop.wav").symlink_to("loop.wav")
    return folder


def only(folder: Path, content: bytes) -> Path:
    (folder / "metadata.csv").write_bytes(content)
    return folder


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_read_or_refused_by_file_and_line(name: str, model: CLASP, recordings: Path, ended: Ended) -> None:
    content, dataset, index = TABLES[name]
    if "link" in name and os.name == "nt":
        pytest.skip("links of POSIX")
    only(recordings, content)
    doors = {
        "read_recordings": (lambda: read_recordings(recordings), dataset),
        "evaluate_folder": (lambda: evaluate_folder(model, recordings), dataset),
        "SpeechIndex.build": (lambda: SpeechIndex.build(model, recordings), index),
    }
    for door, (call, said) in doors.items():
        if said is not None:
            with within(60), ended.refused(GROUP, f"{name}: {door}", re.compile(said, re.DOTALL)) as caught:
                call()
            assert str(recordings) in str(caught.value) or "occurs twice" in said
        elif door != "evaluate_folder":
            assert call()
            ended(GROUP, f"{name}: {door}", "accepted")


def test_a_table_is_no_less_broken_where_recordings_may_be_skipped(
    model: CLASP, recordings: Path, ended: Ended
) -> None:
    """Only a recording may be left out: a table that says something else than was meant is not guessed at."""
    for name, (content, dataset, _) in TABLES.items():
        only(recordings, content)
        if dataset is not None and name not in FAULTS_OF_A_RECORDING:
            with ended.refused(GROUP, f"{name}: read_recordings, skip", recordings, re.compile(dataset, re.DOTALL)):
                read_recordings(recordings, on_error="skip")
    only(recordings, b"file,text\n0.wav,one\nnone.wav,two\nmetadata.csv,three\n.,four\n")
    found, skipped = read_recordings(recordings, on_error="skip")
    built = SpeechIndex.build(model, recordings, on_error="skip")
    assert found["id"] == ["0.wav"] and len(built) == 1
    for left_out in (skipped, built.skipped):
        for clip, said in zip(left_out, ("no such file", "is not audio", "regular file"), strict=True):
            check_message(clip.reason, said)
            ended(GROUP, f"{said}: skip", "skipped with a report")


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_a_table_that_is_no_file_is_refused(model: CLASP, recordings: Path, tmp_path: Path, ended: Ended) -> None:
    os.mkfifo(tmp_path / "metadata.csv")
    with within(20), ended.refused(GROUP, "a pipe for a table", tmp_path, "not a regular file"):
        read_recordings(tmp_path)
    with within(20), ended.refused(GROUP, "a device for a table", "/dev/zero", "not a regular file"):
        read_csv(Path("/dev/zero"))
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "metadata.csv").mkdir()
    with ended.refused(GROUP, "a folder for a table", tmp_path / "metadata.csv", "cannot be read"):
        read_recordings(tmp_path)
    with ended.refused(GROUP, "a folder that is missing", tmp_path / "none", "cannot be read"):
        read_recordings(tmp_path / "none")
    with ended.refused(GROUP, "a folder that is missing: index", tmp_path / "none", "there is no such folder"):
        SpeechIndex.build(model, tmp_path / "none")
    with ended.refused(GROUP, "a file for a folder", "0.wav", "cannot be read"):
        read_recordings(recordings / "0.wav")
    with ended.refused(GROUP, "a NUL in the folder", "cannot be read"):
        read_recordings("a\0b")


def test_a_table_named_on_the_command_line_is_refused_by_line(recordings: Path, tmp_path: Path, ended: Ended) -> None:
    for name, said in (
        ("no file column", "needs a column 'file'"),
        ("a comma that is not quoted", CELLS),
        ("NUL in a name", "NUL byte"),
        ("the same file twice", "line 4.*stands in the table twice"),
        ("a huge cell", "field larger"),
        ("a column twice", "two columns 'text'"),
    ):
        file = tmp_path / "about.csv"
        file.write_bytes(TABLES[name].content)
        with ended.refused(GROUP, f"{name}: clasp index --metadata", file, re.compile(said, re.DOTALL)):
            _read_table(file, [recordings])


def test_a_word_for_errors_that_is_not_known_is_refused(model: CLASP, recordings: Path, ended: Ended) -> None:
    only(recordings, LINES.encode())
    for word in ("ignore", "", None, True):
        for door, call in (
            ("read_recordings", lambda word=word: read_recordings(recordings, on_error=word)),
            ("SpeechIndex.build", lambda word=word: SpeechIndex.build(model, recordings, on_error=word)),
            ("build_speech_brown", lambda word=word: build_speech_brown([], None, on_error=word)),  # type: ignore[arg-type]
        ):
            with ended.refused(GROUP, f"on_error {word!r}: {door}", repr(word), "choose 'raise' or 'skip'"):
                call()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"voices_per_sentence": {"exam": 2}}, "'exam': 2}: give numbers for train, validation, test"),
        ({"voices_per_sentence": {"train": -1}}, "give numbers for train"),
        ({"voices_per_sentence": {"train": 1.5}}, "give numbers for train"),
        ({"voices_per_sentence": {"train": "2"}}, "give numbers for train"),
        ({"workers": 0}, "workers is 0; give a whole number of at least 1"),
        ({"workers": -3}, "workers is -3"),
        ({"batch_size": 0}, "batch_size is 0; give a whole number of at least 1"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"fractions": {"train": 0.9}}, "sum to 1"),
        ({"fractions": {"train": 2.0, "test": -1.0}}, "sum to 1"),
        ({"fractions": {"train": float("nan"), "test": 0.5}}, "sum to 1"),
        ({"fractions": {"train": 0.5, "exam": 0.5}}, "sum to 1"),
    ],
)
def test_a_dataset_that_cannot_be_is_refused_before_anything_is_spoken(options: dict, said: str, ended: Ended) -> None:
    with ended.refused(GROUP, f"build_speech_brown({options})", said):
        build_speech_brown([], None, **options)  # type: ignore[arg-type]


def test_a_folder_that_is_no_dataset_is_refused(tmp_path: Path, ended: Ended) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "dataset_dict.json").write_text("this is no JSON")
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "dataset_dict.json").write_text("[]")
    (tmp_path / "climbing").mkdir()
    (tmp_path / "climbing" / "dataset_dict.json").write_text('{"splits": ["../../etc"]}')
    (tmp_path / "file").write_text("x")
    for name in ("empty", "text", "list", "climbing", "file", "none", "a\0b"):
        with ended.refused(GROUP, f"dataset folder: {name.encode()!r}", tmp_path, "Build it again") as caught:
            load_dataset(tmp_path / name)
        assert isinstance(caught.value, DatasetError)


METADATA = {
    "a list": ([1], "metadata is a list; give a mapping"),
    "a number for a name": ({5: "x"}, "has the name 5"),
    "an empty name": ({"": "x"}, "has the name ''"),
    "a name that is taken": ({"file": "x"}, "has the name 'file'"),
    "a list for a value": ({"a": [1]}, r"'a' is \[1\]; an index keeps strings"),
    "NaN": ({"a": float("nan")}, "'a' is nan; an index keeps strings, finite numbers"),
    "infinity": ({"a": np.inf}, "'a' is inf"),
    "an array": ({"a": np.zeros(2)}, "'a' is array"),
    "bytes": ({"a": b"x"}, "'a' is b'x'"),
    "a number beyond 64 bits": ({"a": 2**70}, "'a': holds what cannot be stored"),
    "half a character": ({"a": "\ud800"}, "half a character"),
    "half a character in a name": ({"\ud800": "a"}, "half a character"),
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata_that_no_index_can_keep_is_refused(name: str, model: CLASP, recordings: Path, ended: Ended) -> None:
    metadata, said = METADATA[name]
    with ended.refused(GROUP, f"metadata with {name}", re.compile(said)):
        SpeechIndex.build(model, [recordings / "0.wav"], metadata=[metadata])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"texts": "ab"}, "texts: is one string; give a list"),
        ({"texts": ["a"]}, "texts: has 1 entries for 2 recordings"),
        ({"texts": [5, None]}, "its text is a int; give a string or None"),
        ({"texts": ["\ud800", None]}, "is not UTF-8"),
        ({"ids": "ab"}, "ids: is one string"),
        ({"ids": ["a", "a"]}, "'a' occurs twice"),
        ({"ids": ["a", ""]}, "its id is ''"),
        ({"ids": ["a", 5]}, "its id is 5"),
        ({"ids": ["a", "\udfff"]}, "is not UTF-8"),
        ({"metadata": [{"a": 1}, {"a": "x"}]}, "metadata 'a': is a number here and text there"),
        ({"metadata": [{"a": 1}, {"a": True}]}, "metadata 'a': is a number here and true or false there"),
    ],
)
def test_what_is_said_of_recordings_must_fit(
    options: dict, said: str, model: CLASP, recordings: Path, ended: Ended
) -> None:
    case = ascii(f"SpeechIndex.build({options})")
    with ended.refused(GROUP, case, said) as caught:
        SpeechIndex.build(model, [recordings / "0.wav", recordings / "1.wav"], **options)
    assert isinstance(caught.value, ClaspError)
