"""Index, search, locate, encode and demo on the command line, with a tiny model."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import RATE, Clip, Encoders, tiny_model
from safetensors import safe_open

from clasp_lib import CLASP
from clasp_lib.cli import COMMANDS, main
from clasp_lib.cli.locate import CUTTING
from clasp_lib.console import SEARCH_MODEL
from clasp_lib.demo import Limits
from clasp_lib.index import SpeechIndex, stored_model
from clasp_lib.index.local import LocalStore
from clasp_lib.localization import Cutting, encode_recording

NOT_WINDOWS = pytest.mark.skipif(os.name == "nt", reason="signals and pipes of POSIX")


@pytest.fixture(scope="module")
def model(encoders: Encoders) -> CLASP:
    return tiny_model(encoders)


@pytest.fixture(scope="module")
def saved(model: CLASP, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def other(encoders: Encoders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with other weights."""
    folder = tmp_path_factory.mktemp("other")
    tiny_model(encoders, seed=1).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def workplace(model: CLASP, clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder as the examples of the help have it; the model for search is a tiny one."""
    load = CLASP.from_pretrained

    def from_pretrained(name: str | Path, **options: Any) -> CLASP:
        if name != SEARCH_MODEL:
            return load(name, **options)
        model.name = SEARCH_MODEL
        return model

    monkeypatch.setattr(CLASP, "from_pretrained", from_pretrained)
    monkeypatch.chdir(tmp_path)
    Path("recordings").mkdir()
    rows = ["file,text,category,year"]
    for i, clip in enumerate(clips):
        soundfile.write(f"recordings/{i}.wav", clip.samples, RATE)
        rows.append(f'{i}.wav,"{clip.text}",{"news" if i % 2 else "weather"},{1989 + i}')
    Path("recordings/metadata.csv").write_text("\n".join(rows), "utf-8")
    Path("about.csv").write_text("\n".join(["file,category", *(f"recordings/{i}.wav,x" for i in range(4))]), "utf-8")
    soundfile.write("talk.wav", talk(clips), RATE)
    soundfile.write("one.wav", clips[0].samples, RATE)
    soundfile.write("question.wav", clips[1].samples, RATE)
    Path("queries.txt").write_text("a storm is coming\nbread has become dear\n", "utf-8")
    yield tmp_path


def talk(clips: list[Clip]) -> np.ndarray:
    """Half a second of near silence around each clip."""
    pause = np.random.default_rng(0).normal(0, 1e-4, RATE // 2).astype(np.float32)
    return np.concatenate([pause, *(part for clip in clips for part in (clip.samples, pause))])


@pytest.fixture
def says(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a line, checks its exit code and gives what it wrote: to stdout, and for a failure to stderr."""

    def run(line: str, code: int = 0) -> str:
        assert main(shlex.split(line)) == code, capsys.readouterr().err
        shown = capsys.readouterr()
        if code:
            assert shown.out == "" and shown.err.splitlines()[-1].startswith("error: ")
        return shown.err if code else shown.out

    return run


@pytest.fixture
def parsed(says: Callable[..., str]) -> Callable[[str], Any]:
    return lambda line: json.loads(says(f"{line} --json"))


# Help --------------------------------------------------------------------------------------------------------------


def examples(name: str) -> list[str]:
    """The lines after "examples:" in the help of a command."""
    with pytest.raises(SystemExit) as ended, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", io.StringIO())
        help = sys.stdout
        try:
            main([name, "--help"])
        finally:
            shown = help.getvalue()  # type: ignore[attr-defined]
    assert ended.value.code == 0
    found = shown.partition("\nexamples:\n")[2].splitlines()
    assert found and all(line.startswith("  ") for line in found), name
    return [line.strip() for line in found]


SLOW = pytest.param("evaluate", marks=pytest.mark.slow)  # measures what a recogniser costs


@pytest.mark.parametrize("name", ["index", "search", "locate", "encode", "demo", SLOW])
def test_the_examples_of_the_help_work(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = []
    page = SimpleNamespace(is_running=False, close=lambda verbose: None)
    monkeypatch.setattr("clasp_lib.demo.launch_demo", lambda *given, **named: shown.append(given) or page)
    if name in ("search", "demo"):
        assert main(["index", "my_index", "recordings"]) == 0
    for line in examples(name):
        command = line.rpartition(" | ")[2]
        words = shlex.split(command)
        assert words[:2] == ["clasp", name]
        expanded = [str(file) for word in words[2:] for file in (sorted(Path().glob(word)) if "*" in word else [word])]
        stdin = Path("talk.wav").read_bytes()
        if "<" in expanded:
            stdin = Path(expanded[-1]).read_bytes()
            expanded = expanded[: expanded.index("<")]
        elif "--raw" in expanded:
            stdin = stdin[44:]
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin))))
        capsys.readouterr()
        assert main([name, *expanded]) == 0, (line, capsys.readouterr().err)
        assert capsys.readouterr().out or name == "demo"
    assert len(shown) == (2 if name == "demo" else 0)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_and_the_same_options_for_output(name: str) -> None:
    assert any(line.startswith(f"clasp {name}") or f"clasp {name} " in line for line in examples(name))
    module = import_module(f"clasp_lib.cli.{name}")
    assert module.__doc__.startswith(f"`clasp {name}")


def test_the_help_of_locate_knows_the_cutting() -> None:
    assert {field: default for field, (default, _) in CUTTING.items()} == asdict(Cutting())


# Index -------------------------------------------------------------------------------------------------------------


def test_an_index_is_made_and_brought_up_to_date(says: Callable[..., str], clips: list[Clip]) -> None:
    assert says("index made recordings") == ("made: 6 added, 0 unchanged, 0 removed, 0 skipped; 6 recordings\n")
    assert stored_model("made").name == SEARCH_MODEL
    assert says("index made recordings one.wav") == ("made: 1 added, 6 unchanged, 0 removed, 0 skipped; 7 recordings\n")
    soundfile.write("one.wav", clips[3].samples, RATE)
    assert says("index made one.wav one.wav").startswith("made: 1 added, 0 unchanged")
    assert says("index made --remove one.wav recordings/0.wav").startswith("made: 0 added, 0 unchanged, 2 removed")
    assert len(SpeechIndex.load("made", CLASP.from_pretrained(SEARCH_MODEL))) == 5
    assert "6 recordings" in says("index made recordings --remove recordings/1.wav")


def test_the_index_is_the_one_that_the_library_makes(says: Callable[..., str], model: CLASP) -> None:
    says("index made recordings")
    ours, theirs = SpeechIndex.load("made", model), SpeechIndex.build(model, "recordings")
    np.testing.assert_array_equal(ours.vectors, theirs.vectors)
    assert ours.entries == theirs.entries
    assert ours.entries[1].metadata == {"category": "news", "year": 1990}


def test_what_cannot_be_read_stops_or_is_left_out(says: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.wav").write_bytes(b"not sound")
    assert "broken.wav" in says("index made one.wav broken.wav", 1)
    assert main(["index", "other", "one.wav", "broken.wav", "--on-error", "skip", "--json"]) == 0
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert document["added"] == 1 and document["recordings"] == 1
    [skipped] = document["skipped"]
    assert "broken.wav" in skipped["id"] and f"skipped: {skipped['reason']}\n" in shown.err
    assert main(["index", "other", "broken.wav", "--on-error", "skip", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


TABLE = """file,text,id,speaker,age
recordings/0.wav,Hello,zero,anna,7
1.wav,,one,bela,
"""


def test_a_table_beside_the_recordings_is_read(
    parsed: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("about.csv").write_text(TABLE, "utf-8")
    Path("recordings/metadata.csv").unlink()
    assert main(["index", "made", "recordings", "--metadata", "about.csv"]) == 0
    assert "about.csv: has no row for 4 of 6 recordings" in capsys.readouterr().err
    [hit] = parsed("search made hello --where speaker=anna")["hits"]
    assert hit["text"] == "Hello" and hit["metadata"] == {"speaker": "anna", "age": 7}
    [hit] = parsed("search made hello --where id=one")["hits"]
    assert hit["text"] is None and hit["metadata"] == {"speaker": "bela"}
    assert parsed("index made --remove zero")["removed"] == 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, "cannot be read"),
        ("name\nx\n", "needs a column 'file'"),
        ("file,a\nx,1,2\n", "line 2"),
        ("file\n", "a row"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(table: str | None, message: str, says: Callable[..., str]) -> None:
    if table is not None:
        Path("table.csv").write_text(table, "utf-8")
    assert message in says("index made recordings --metadata table.csv", 1)
    assert not Path("made").exists()


def test_windows_are_indexed(parsed: Callable[[str], Any], says: Callable[..., str]) -> None:
    made = parsed("index talks talk.wav --cut")
    assert made["added"] == made["recordings"] == 1 and made["entries"] > 6
    assert f"1 recordings in {made['entries']} windows" in says("index talks talk.wav --cut")
    hit = parsed("search talks rain -k 1")["hits"][0]
    assert hit["file"].endswith("talk.wav") and 0 < hit["start_s"] < hit["end_s"]


def test_what_cannot_be_indexed_is_said(says: Callable[..., str], other: Path) -> None:
    assert "nowhere" in says("index made nowhere", 1)
    assert not Path("made").exists()
    assert "there is no index" in says("index made --remove a", 1)
    says("index made one.wav")
    assert "another model" in says(f"index made one.wav --model {other}", 1)
    assert "was built for the backend" in says("index made one.wav --backend faiss", 1)
    assert "recordings" in says("index recordings one.wav", 1) and len(list(Path("recordings").iterdir())) == 7
    assert "'abacus'" in says("index made one.wav --device abacus", 1)


def test_a_model_in_a_folder_is_found_from_everywhere(
    saved: Path, parsed: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Path("made").absolute()
    parsed(f"index made one.wav --model {os.path.relpath(saved)}")
    assert stored_model("made").name == str(saved)
    monkeypatch.chdir(saved.parent)
    assert parsed(f"search {made} rain")["model"] == str(saved)


def test_one_process_at_a_time_may_write(says: Callable[..., str]) -> None:
    says("index made recordings")
    with LocalStore.open("made").writing():
        assert "another process is writing" in says("index made one.wav", 1)
        assert "6 recordings" not in says("search made rain")
    assert "made: 1 added, 0 unchanged" in says("index made one.wav")


def test_an_index_in_milvus_is_the_same(parsed: Callable[[str], Any], says: Callable[..., str]) -> None:
    for package in ("pymilvus", "milvus_lite"):
        pytest.importorskip(package)
    assert says("index made.db recordings").startswith("made.db: 6 added")
    assert says("index made.db recordings one.wav").startswith("made.db: 1 added, 6 unchanged")
    assert says("index made.db recordings one.wav").startswith("made.db: 0 added, 7 unchanged")
    assert parsed("index made.db --remove one.wav")["removed"] == 1
    says("index made recordings")
    line = "rain -k 2 --where category=news --where year=1990.."
    ours, theirs = (parsed(f"search {place} {line}")["hits"] for place in ("made.db", "made"))
    assert [hit["file"] for hit in ours] == [hit["file"] for hit in theirs] and len(ours) == 2
    assert ours[0]["score"] == pytest.approx(theirs[0]["score"], abs=1e-4)


CHILD = """
import os, signal, sys
from clasp_lib.demo import Limits
from clasp_lib.index import speech_index
from clasp_lib.index.local import LocalStore
from clasp_lib.cli import main

speech_index._CHUNK = 2
add, calls = LocalStore.add, []

def interrupted(self, entries, vectors):
    calls.append(entries)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.%s)
    add(self, entries, vectors)

LocalStore.add = interrupted
sys.exit(main(sys.argv[1:]))
"""


@NOT_WINDOWS
@pytest.mark.parametrize(
    ("name", "code"), [("SIGINT", 130), pytest.param("SIGTERM", 143, marks=pytest.mark.slow), ("SIGKILL", -9)]
)
def test_a_stopped_index_goes_on(name: str, code: int, saved: Path, says: Callable[..., str]) -> None:
    from test_cli_console import _interruptible

    line = ["index", "made", "recordings", "--model", str(saved)]
    options = {"capture_output": True, "text": True, "preexec_fn": _interruptible}
    ended = subprocess.run([sys.executable, "-c", CHILD % name, *line], **options)
    assert ended.returncode == code and ended.stdout == "", ended.stderr
    if name != "SIGKILL":
        said = f"stopped; what is finished is kept, and the same line goes on: {shlex.join(['clasp', *line])}"
        assert ended.stderr.splitlines() == [said], "no progress where stderr is no terminal, and no trace"
    assert says(shlex.join(line)) == "made: 4 added, 2 unchanged, 0 removed, 0 skipped; 6 recordings\n"
    assert not [file for file in Path("made").iterdir() if "tmp" in file.name or "new" in file.name]


# Search ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def made(says: Callable[..., str]) -> str:
    says("index made recordings")
    return "made"


def test_a_search_prints_what_the_library_finds(made: str, model: CLASP, says: Callable[..., str]) -> None:
    hits = SpeechIndex.load(made, model).search("the ferry", 3)
    lines = says("search made 'the ferry' -k 3").splitlines()
    assert len(lines) == 3
    for hit, line in zip(hits, lines, strict=True):
        score, file, time, text = re.split(" {2,}", line, maxsplit=3)
        assert (score, file, text) == (f"{hit.score:.3f}", os.path.relpath(hit.file), hit.text)
        assert time == f"0:00.00-0:{hit.end_s:05.2f}"


def test_the_document_of_a_search_is_as_the_help_says(made: str, model: CLASP, parsed: Callable[[str], Any]) -> None:
    hits = SpeechIndex.load(made, model).search("the ferry", 2)
    document = parsed("search made 'the ferry' -k 2")
    assert list(document) == ["index", "model", "query", "speech", "hits"]
    assert document["model"] == SEARCH_MODEL and document["query"] == "the ferry" and document["speech"] is None
    for hit, row in zip(hits, document["hits"], strict=True):
        assert list(row) == ["score", "file", "start_s", "end_s", "text", "metadata"]
        assert row == {key: getattr(hit, key) for key in row}


def test_speech_finds_itself(made: str, parsed: Callable[[str], Any]) -> None:
    document = parsed("search made --speech question.wav -k 1")
    assert document["query"] is None and document["speech"] == "question.wav"
    assert document["hits"][0]["file"].endswith(f"recordings{os.sep}1.wav")
    assert document["hits"][0]["score"] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        (["category=news"], {1, 3, 5}),
        (["category=news,weather", "year=1990..1991"], {1, 2}),
        (["year=1993.."], {4, 5}),
        (["year=1989"], {0}),
        (['text="Rain."'], {2}),
    ],
)
def test_conditions_hold(conditions: list[str], found: set[int], made: str, parsed: Callable[[str], Any]) -> None:
    where = " ".join(f"--where {shlex.quote(condition)}" for condition in conditions)
    hits = parsed(f"search made rain -k 10 {where}")["hits"]
    assert {int(Path(hit["file"]).stem) for hit in hits} == found


def test_nothing_found_is_no_error(made: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["search", made, "rain", "--where", "year=..1900"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err == "nothing was found: no recording fulfils all conditions.\n"


def test_a_search_that_cannot_be_is_refused(made: str, says: Callable[..., str], other: Path) -> None:
    assert "there is no index" in says("search nowhere rain", 1)
    assert "'mood'" in says("search made rain --where mood=good", 1)
    assert "another model" in says(f"search made rain --model {other}", 1)
    assert "neither one of pocket" in says("search made rain --model nobodys/model", 1)
    assert "something in it" in says("search made ''", 1)
    for line in ("made", "made rain --speech one.wav", "made rain --where a", "made rain --where =b", "made rain -k 0"):
        with pytest.raises(SystemExit) as ended:
            main(["search", *shlex.split(line)])
        assert ended.value.code == 2
    with pytest.raises(SystemExit):
        main(["search", made, "rain", "--where", "a=1", "--where", "a=2"])


def test_a_damaged_index_is_noticed(made: str, says: Callable[..., str]) -> None:
    [vectors] = Path(made).glob("*.safetensors")
    data = bytearray(vectors.read_bytes())
    data[-1] ^= 1
    vectors.write_bytes(data)
    assert "checksum" in says("search made rain", 1)
    assert "checksum" in says("index made one.wav", 1)


def test_all_languages_are_written_as_they_are(says: Callable[..., str], clips: list[Clip]) -> None:
    Path("fa").mkdir()
    soundfile.write("fa/باران.wav", clips[2].samples, RATE)
    Path("fa/metadata.csv").write_text("file,text\nباران.wav,باران می‌بارد\n", "utf-8")
    says("index made fa")
    document = says("search made باران --json")
    assert '"text": "باران می‌بارد"' in document and json.loads(document)["query"] == "باران"
    assert "باران می‌بارد\n" in says("search made باران")


# Evaluate ----------------------------------------------------------------------------------------------------------


def test_an_evaluation_prints_its_report_as_json(parsed: Callable[[str], Any]) -> None:
    document = parsed(f"evaluate recordings --output report --model {SEARCH_MODEL}")
    written = json.loads(Path("report/report.json").read_text("utf-8"))
    assert document == written and document["recordings"]["clips"] == 6
    assert document["made"]["command"] == f"clasp evaluate recordings --output report --model {SEARCH_MODEL} --json"


# Demo --------------------------------------------------------------------------------------------------------------


def test_the_demo_is_given_what_was_asked_for(
    model: CLASP, made: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, Any] = {}
    closed = []

    def launch(model: CLASP, index: SpeechIndex | None, **named: Any) -> SimpleNamespace:
        print("The demo is at ...")
        given.update(named, model=model, index=index)
        page = SimpleNamespace(local_url="http://127.0.0.1:7861/", share_url=None, is_running=False)
        page.close = lambda verbose: closed.append(page)
        return page

    monkeypatch.setattr("clasp_lib.demo.launch_demo", launch)
    capsys.readouterr()
    assert main(shlex.split("demo made --port 7861 --language fa --max-minutes 5 --max-mb 10 --json")) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {
        "url": "http://127.0.0.1:7861/",
        "share_url": None,
        "index": "made",
        "model": SEARCH_MODEL,
    }
    assert shown.err == "The demo is at ...\n" and len(closed) == 1
    assert len(given["index"]) == 6 and given["model"] is model
    assert given["host"] == "127.0.0.1" and given["share"] is False and given["open_browser"] is False
    assert (given["port"], given["language"], given["block"]) == (7861, "fa", False)
    assert (given["limits"].recording_minutes, given["limits"].upload_mb) == (5, 10)
    assert main(["demo"]) == 0 and given["index"] is None and given["limits"] == Limits()
    assert capsys.readouterr().out == "The demo is at ...\n"
    assert main(["demo", "--max-minutes", "0"]) == 1
    assert "recording_minutes is 0" in capsys.readouterr().err


# Locate ------------------------------------------------------------------------------------------------------------


def test_moments_are_those_of_the_library(model: CLASP, parsed: Callable[[str], Any], says: Callable[..., str]) -> None:
    encoded = encode_recording(model, "talk.wav")
    document = parsed("locate talk.wav rain 'the ferry' -k 2")
    assert list(document) == ["recording", "model", "duration_s", "queries"]
    assert document["duration_s"] == pytest.approx(encoded.duration_s)
    for query, found in zip(["rain", "the ferry"], document["queries"], strict=True):
        assert found["query"] == query
        assert found["moments"] == [
            {"score": m.score, "start_s": m.start_s, "end_s": m.end_s} for m in encoded.locate(query, 2)
        ]
    lines = says("locate talk.wav rain 'the ferry' -k 2").splitlines()
    assert lines[0] == "rain:" and lines[3] == "the ferry:" and len(lines) == 6
    assert re.fullmatch(r"-?\d\.\d{3}  0:\d\d\.\d\d-0:\d\d\.\d\d", lines[1])
    assert len(says("locate talk.wav rain -k 2").splitlines()) == 2


def test_stdin_is_the_same_as_the_file(parsed: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    data = Path("talk.wav").read_bytes()
    unsized = data[:4] + b"\xff\xff\xff\xff" + data[8:40] + b"\xff\xff\xff\xff" + data[44:]  # what ffmpeg pipes

    class Trickle(io.RawIOBase):
        """Gives odd numbers of bytes at a time."""

        def __init__(self, data: bytes) -> None:
            self.data = io.BytesIO(data)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            part = self.data.read(min(len(buffer), 3001))
            buffer[: len(part)] = part
            return len(part)

    def given(data: bytes, options: str = "") -> Any:
        stdin = io.TextIOWrapper(io.BufferedReader(Trickle(data), 3001))
        monkeypatch.setattr(sys, "stdin", stdin)
        return parsed(f"locate - rain {options}")

    expected = parsed("locate talk.wav rain") | {"recording": "-"}
    assert given(data) == expected
    assert given(unsized) == expected
    raw = given(data[44:] + b"\x01", "--raw 16000")
    assert raw["queries"][0]["query"] == "rain" and raw["duration_s"] == pytest.approx(expected["duration_s"])
    for a, b in zip(raw["queries"][0]["moments"], expected["queries"][0]["moments"], strict=True):
        assert a == pytest.approx(b, abs=1e-3)


def test_the_cutting_can_be_chosen(model: CLASP, parsed: Callable[[str], Any], says: Callable[..., str]) -> None:
    found = parsed("locate talk.wav rain --silence none --window 2 --hop 0.5 -k 1")["queries"][0]["moments"]
    cutting = Cutting(silence_s=None, window_s=2, hop_s=0.5)
    [moment] = encode_recording(model, "talk.wav", cutting=cutting).locate("rain", 1)
    assert found == [{"score": moment.score, "start_s": moment.start_s, "end_s": moment.end_s}]
    assert "hop_s" in says("locate talk.wav rain --hop 9 --window 2", 1)


def test_a_moment_that_cannot_be_is_refused(says: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no such file" in says("locate nowhere.wav rain", 1)
    assert "something in it" in says("locate talk.wav rain ' '", 1)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert "stdin" in says("locate - rain", 1)
    with pytest.raises(SystemExit) as ended:
        main(["locate", "talk.wav", "rain", "--raw", "16000"])
    assert ended.value.code == 2


# Encode ------------------------------------------------------------------------------------------------------------


def test_vectors_are_written_in_the_order_given(model: CLASP, says: Callable[..., str]) -> None:
    files = [f"recordings/{i}.wav" for i in (3, 0, 5)]
    vectors = model.encode_speech(files)
    line = f"encode --speech {' '.join(files)} --output"
    assert says(f"{line} a.safetensors") == "a.safetensors: 3 vectors of 24\n"
    with safe_open("a.safetensors", "np") as stored:
        np.testing.assert_array_equal(stored.get_tensor("vectors"), vectors)
        about = stored.metadata()
    assert json.loads(about["items"]) == files
    assert (about["model"], about["fingerprint"]) == (SEARCH_MODEL, model.fingerprint)
    says(f"{line} a.npy")
    np.testing.assert_array_equal(np.load("a.npy"), vectors)
    says(f"{line} new/a.jsonl")
    rows = [json.loads(row) for row in Path("new/a.jsonl").read_text("utf-8").splitlines()]
    assert [row["file"] for row in rows] == files
    np.testing.assert_array_equal(np.array([row["vector"] for row in rows], np.float32), vectors)


def test_texts_go_to_stdout_as_lines_or_as_one_document(
    model: CLASP, says: Callable[..., str], parsed: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [json.loads(row) for row in says("encode --text باران rain").splitlines()]
    assert [row["text"] for row in rows] == ["باران", "rain"]
    vectors = np.array([row["vector"] for row in rows], np.float32)
    np.testing.assert_array_equal(vectors, model.encode_text(["باران", "rain"]))
    document = parsed("encode --text باران rain")
    assert document == {"model": SEARCH_MODEL, "dimension": 24, "count": 2, "output": None, "items": rows}
    assert parsed("encode --text rain --output x.npy") == {
        "model": SEARCH_MODEL,
        "dimension": 24,
        "count": 1,
        "output": "x.npy",
    }
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\ufeffباران\r\nrain".encode())))
    assert [json.loads(row) for row in says("encode --texts-file -").splitlines()] == rows


def test_nothing_is_written_when_something_cannot_be_encoded(says: Callable[..., str]) -> None:
    Path("old.npy").write_bytes(b"old")
    assert "nowhere.wav" in says("encode --speech one.wav nowhere.wav --output old.npy", 1)
    Path("queries.txt").write_text("one\n\nthree\n")
    assert "queries.txt, line 2: is empty" in says("encode --texts-file queries.txt --output old.npy", 1)
    Path("queries.txt").write_bytes(b"\xff\xfe")
    assert "not UTF-8" in says("encode --texts-file queries.txt --output old.npy", 1)
    Path("queries.txt").write_bytes(b"")
    assert "holds no texts" in says("encode --texts-file queries.txt --output old.npy", 1)
    assert Path("old.npy").read_bytes() == b"old"
    for line in ("--text a --output a.pickle", "--text a --speech one.wav", "--output a.npy"):
        with pytest.raises(SystemExit) as ended:
            main(["encode", *line.split()])
        assert ended.value.code == 2


@NOT_WINDOWS
def test_it_runs_in_a_pipe_of_a_shell(saved: Path) -> None:
    """A process of its own: no bar of any library on stderr, and no trace when the reader goes after a line."""
    line = shlex.join([sys.executable, "-m", "clasp_lib", "encode", "--texts-file", "-", "--model", str(saved)])
    ended = subprocess.run(["sh", "-c", f"{line} | head -n 1"], input="rain\n" * 5_000, capture_output=True, text=True)
    assert json.loads(ended.stdout)["text"] == "rain" and ended.stderr == ""
