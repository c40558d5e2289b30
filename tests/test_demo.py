"""The demo without a browser: what it answers, what it refuses, what it keeps, and for how long."""

from __future__ import annotations

import builtins
import os
import re
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from conftest import RATE, Clip, Encoders, tiny_model

from clasp_lib import SpeechIndex
from clasp_lib.audio import AudioItem
from clasp_lib.demo import Limits, build_demo, launch_demo
from clasp_lib.demo.collection import ready_made
from clasp_lib.demo.desk import Desk
from clasp_lib.demo.limits import Door, Refused
from clasp_lib.demo.recordings import Recording, Visitors
from clasp_lib.demo.texts import LANGUAGES, TEXTS, clock, number, say
from clasp_lib.demo.view import hits_view, moments_view, notice, source_view
from clasp_lib.errors import ClaspError, MissingDependencyError
from clasp_lib.index import Hit
from clasp_lib.localization import Moment

if TYPE_CHECKING:
    from clasp_lib import CLASP

EVIL = """<script>alert(1)</script>"'><img src=x onerror=alert(2)> ${1+1} {{value}} `"""


class Elements(HTMLParser):
    """Reads HTML as a browser would, and keeps each element with its attributes, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def files(clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("collection")
    for i, clip in enumerate(clips):
        soundfile.write(folder / f"{i}.wav", clip.samples, RATE)
    return [folder / f"{i}.wav" for i in range(len(clips))]


@pytest.fixture(scope="module")
def index(model: CLASP, clips: list[Clip], files: list[Path]) -> SpeechIndex:
    known = [{"category": "odd" if i % 2 else "even", "name": f"clip {i}", "year": 1990 + i} for i in range(len(clips))]
    return SpeechIndex.build(model, files, texts=[clip.text for clip in clips], metadata=known)


@pytest.fixture
def desk(model: CLASP, index: SpeechIndex, tmp_path: Path) -> Desk:
    limits = Limits(upload_mb=2, recording_minutes=0.5, spoken_query_seconds=5, query_characters=50, hits=4)
    return Desk(model, index, limits, tmp_path / "uploads")


def upload(desk: Desk, samples: np.ndarray, name: str = "mine.wav") -> str:
    """As Gradio leaves it: in a folder of its own."""
    folder = desk.uploads / f"{len(list(desk.uploads.glob('*')))}"
    folder.mkdir(parents=True)
    soundfile.write(folder / name, samples, RATE)
    return str(folder / name)


def joined(clips: list[Clip]) -> np.ndarray:
    return np.concatenate([np.concatenate([clip.samples, np.zeros(RATE, np.float32)]) for clip in clips])


# What is said


def test_every_language_says_everything() -> None:
    assert set(LANGUAGES.values()) == set(TEXTS)
    for language, texts in TEXTS.items():
        assert texts.keys() == TEXTS["en"].keys(), language
        for key, text in texts.items():
            assert text.strip(), (language, key)
            fields = [sorted(re.findall(r"{(\w+)}", t)) for t in (text, TEXTS["en"][key])]
            assert fields[0] == fields[1], (language, key)


def test_persian_is_written_with_persian_letters() -> None:
    for key, text in TEXTS["fa"].items():
        assert re.search(r"[\u0600-\u06ff]", text), f"{key}: {text!r} is not Persian"
        assert not re.search(r"[يكىةٱ٠-٩]", text), f"{key}: {text!r} has letters or digits of Arabic"
        assert not re.search(r"[?;,]", text), f"{key}: {text!r} has Latin punctuation"
    for text in TEXTS["en"].values():
        assert not re.search(r"[\u0600-\u06ff]", text)


def test_every_text_is_used() -> None:
    import clasp_lib.demo

    sources = "".join(file.read_text("utf-8") for file in Path(clasp_lib.demo.__file__).parent.glob("*.py"))
    sources = sources[: sources.index("TEXTS: dict")] + sources[sources.index("_PERSIAN_DIGITS") :]
    made = {f"{tab}_query" for tab in ("search", "moment")}
    made |= {f"{title}_{part}" for title in ("spoken", "recording") for part in ("drop", "privacy")}
    made |= {"search", "moment", "spoken", "recording"} | {key for key in TEXTS["en"] if key.startswith("column_")}
    assert [key for key in TEXTS["en"] if key not in made and not re.search(f"""["']{key}["']""", sources)] == []


def test_numbers_are_written_in_the_language_and_names_are_not() -> None:
    assert number("fa", 12.5) == "۱۲.۵"
    assert number("fa", "1:02") == "۱:۰۲"
    assert number("fa", "track 12.wav") == "track 12.wav"
    assert number("en", 12) == "12"
    assert [clock(s) for s in (0, 61.9, 3723)] == ["0:00", "1:01", "1:02:03"]
    assert clock(61.96, 1) == "1:01.9"


# What is shown


def test_nothing_of_a_stranger_becomes_html(files: list[Path]) -> None:
    hit = Hit(0.5, str(files[0]), 0.0, 1.0, EVIL, {"category": EVIL, "n": 3})
    nameless = Hit(0.5, f"/nowhere/{EVIL.replace('/', '')}.wav", 2.0, 3.0)
    windows: Any = None
    recording = Recording(EVIL, Path("/nowhere/at/all/recording.wav"), 9.0, np.ones(180), windows)
    recording.moments = [Moment(1.0, 2.0, 0.5)]
    for language in TEXTS:
        views = hits_view(language, [hit, nameless]), moments_view(language, recording), notice(language, EVIL)
        for view in views:
            page = Elements(view)
            tags = {tag for tag, _ in page.elements}
            assert not tags & {"script", "img"}
            names = {name for _, attributes in page.elements for name in attributes}
            assert not {name for name in names if name.startswith("on")}
            assert "alert(1)" in view


def test_a_hit_can_be_heard_and_no_path_is_told(files: list[Path], clips: list[Clip]) -> None:
    view = hits_view("en", [Hit(0.25, str(files[1]), 0.5, 1.5, None, {"category": "news"})])
    page = Elements(view)
    (audio,) = page.all("audio")
    assert (audio["src"] or "").startswith("data:audio/mpeg;base64,") and audio["aria-label"] == "1.wav"
    assert "1.wav" in page.text and "news" in page.text and "0.25" in page.text
    assert "0:00.5 – 0:01.5" in page.text
    assert str(files[1].parent) not in view


def test_a_hit_whose_file_is_gone_says_so(tmp_path: Path) -> None:
    page = Elements(hits_view("en", [Hit(0.1, str(tmp_path / "gone.wav"), 0, 1, "a text")]))
    assert not page.all("audio") and TEXTS["en"]["no_sound"] in page.text


def test_only_the_stretch_of_a_long_file_is_sent(tmp_path: Path) -> None:
    import base64
    import io

    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "long.wav", 0.1 * rng.standard_normal(60 * RATE), RATE)
    view = hits_view("en", [Hit(0.1, str(tmp_path / "long.wav"), 40.0, 42.0, "a text")])
    data = base64.b64decode((Elements(view).all("audio")[0]["src"] or "").split(",")[1])
    samples, rate = soundfile.read(io.BytesIO(data))
    assert len(samples) / rate == pytest.approx(2.0, abs=0.2)


@pytest.mark.parametrize("language", TEXTS)
def test_moments_are_marked_where_they_are_and_can_be_reached_by_keyboard(language: str) -> None:
    windows: Any = None
    recording = Recording("mine.wav", Path("/nowhere/at/all/recording.wav"), 20.0, np.ones(400), windows)
    recording.moments = [Moment(5.0, 10.0, 0.5), Moment(0.0, 2.0, 0.25)]
    page = Elements(moments_view(language, recording))
    marks = [a for a in page.all("button") if "clasp-mark" in (a["class"] or "")]
    rows = [a for a in page.all("button") if "clasp-row" in (a["class"] or "")]
    assert [a["style"] for a in marks] == ["left:25.000%;width:25.000%", "left:0.000%;width:10.000%"]
    assert [(a["data-start"], a["data-end"]) for a in marks] == [("5.000", "10.000"), ("0.000", "2.000")]
    assert [(a["data-start"], a["data-end"]) for a in rows] == [("5.000", "10.000"), ("0.000", "2.000")]
    for attributes in [*marks, *rows]:
        start = number(language, clock(float(attributes["data-start"] or "nan")))
        assert start in (attributes["aria-label"] or "") and attributes["type"] == "button"
    wave = next(a for _, a in page.elements if a.get("class") == "clasp-wave")
    section = page.all("section")[0]
    assert wave["dir"] == "ltr", "time runs from left to right in every language"
    assert section["dir"] == {"en": "ltr", "fa": "rtl"}[language]
    assert page.all("svg")[0]["aria-label"] and page.all("audio")[0]["src"]


def test_the_waveform_is_loud_where_the_recording_is() -> None:
    windows: Any = None
    peaks = np.concatenate([np.full(300, 0.01), np.full(300, 0.5)])
    recording = Recording("mine.wav", Path("/nowhere/at/all/recording.wav"), 30.0, peaks, windows)
    path = Elements(moments_view("en", recording)).all("path")[0]["d"] or ""
    heights = [float(b) - float(a) for a, b in re.findall(r"M[\d.]+ ([\d.]+)V([\d.]+)", path)]
    assert min(heights[len(heights) // 2 :]) > 5 * max(heights[: len(heights) // 2])


def test_the_source_says_its_limits_to_the_browser() -> None:
    view = source_view("fa", Limits(upload_mb=3, recording_minutes=4), 240, "recording")
    attributes = Elements(view).all("div")[0]
    assert attributes["data-bytes"] == "3000000" and attributes["data-seconds"] == "240"
    assert attributes["data-too-large"] == say("fa", "too_large", most=3)


# What is answered


def test_a_search_finds_what_the_index_finds(desk: Desk, index: SpeechIndex, clips: list[Clip]) -> None:
    found = desk.search(clips[0].text, 3, {"category": []})
    assert [hit.file for hit in found] == [hit.file for hit in index.search(clips[0].text, 3)]


def test_a_search_stays_within_the_chosen_categories(desk: Desk) -> None:
    found = desk.search("a query", 4, {"category": ["odd"]})
    assert len(found) == 3 and {hit.metadata["category"] for hit in found} == {"odd"}


def test_filters_are_columns_of_few_texts(
    desk: Desk, model: CLASP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert desk.filters() == {"category": ["even", "odd"], "name": [f"clip {i}" for i in range(6)]}
    assert Desk(model, None, Limits(), tmp_path).filters() == {}
    monkeypatch.setattr("clasp_lib.demo.desk.MOST_ENTRIES", 5)
    assert desk.filters() == {}


def test_a_spoken_query_is_searched_and_deleted(desk: Desk, index: SpeechIndex, clips: list[Clip]) -> None:
    file = upload(desk, clips[1].samples)
    found = desk.search_by_speech(file, 2, {})
    assert [hit.file for hit in found] == [hit.file for hit in index.search(clips[1].samples, 2)]
    assert not os.path.exists(file)


def test_a_recording_is_encoded_once_for_all_queries(
    desk: Desk, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken = 0
    encode = desk.model.encode_speech

    def counted(items: list[AudioItem], *arguments: Any, **options: Any) -> np.ndarray:
        nonlocal spoken
        spoken += len(items)
        return encode(items, *arguments, **options)

    monkeypatch.setattr(desk.model, "encode_speech", counted)
    file = upload(desk, joined(clips))
    recording = desk.take("me", file, "mine.wav")
    once = spoken
    assert once > 0 and not os.path.exists(file)
    first = desk.find("me", "the ferry", 2).moments
    second = desk.find("me", "a parrot", 2).moments
    assert spoken == once
    assert len(first) == len(second) == 2 and recording.seconds == pytest.approx(len(joined(clips)) / RATE)


def test_visitors_do_not_hear_each_other(desk: Desk, clips: list[Clip]) -> None:
    mine = desk.take("me", upload(desk, joined(clips)), "mine.wav")
    yours = desk.take("you", upload(desk, joined(clips[:2])), "yours.wav")
    assert mine.file != yours.file and len(mine.file.parent.name) == 32
    assert desk.find("me", "the ferry", 1) is mine and desk.find("you", "the ferry", 1) is yours
    with pytest.raises(Refused, match="Choose a recording first"):
        desk.find("a third", "the ferry", 1)
    desk.leave("me")
    assert not mine.file.exists() and yours.file.exists()


def test_who_asks_while_the_recording_is_encoded_gets_the_answer(
    desk: Desk, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on = threading.Event(), threading.Event()
    encode = desk.model.encode_speech

    def slow(*arguments: Any, **options: Any) -> np.ndarray:
        began.set()
        go_on.wait(30)
        return encode(*arguments, **options)

    monkeypatch.setattr(desk.model, "encode_speech", slow)
    found: list[Recording] = []
    taking = threading.Thread(target=desk.take, args=("me", upload(desk, joined(clips)), "mine.wav"))
    taking.start()
    began.wait(30)
    asking = threading.Thread(target=lambda: found.append(desk.find("me", "the ferry", 1)))
    leaving = threading.Thread(target=desk.leave, args=("you",))
    asking.start()
    leaving.start()
    leaving.join(10)
    assert not leaving.is_alive(), "others do not wait"
    go_on.set()
    asking.join(30)
    taking.join(30)
    assert len(found) == 1 and len(found[0].moments) == 1


def test_a_visitors_next_recording_replaces_the_last_one(desk: Desk, clips: list[Clip]) -> None:
    first = desk.take("me", upload(desk, joined(clips)), "first.wav")
    second = desk.take("me", upload(desk, joined(clips)), "second.wav")
    assert not first.file.exists() and second.file.exists() and len(desk.visitors) == 1


def test_a_recording_goes_when_it_is_old_or_when_there_are_too_many(tmp_path: Path) -> None:
    now = 0.0
    visitors = Visitors(Limits(recordings=2, keep_minutes=1), clock=lambda: now)
    kept = []
    for name in "abc":
        folder = tmp_path / name
        folder.mkdir()
        (folder / "recording.wav").write_bytes(b"x")
        windows: Any = None
        kept.append(Recording(name, folder / "recording.wav", 1.0, np.ones(20), windows))
        visitors.put(name, kept[-1])
        now += 20
    assert visitors.get("a") is None and not kept[0].file.exists()
    assert visitors.get("b") is kept[1]  # used at 60 s
    now = 110.0
    assert visitors.get("c") is None and not kept[2].file.exists(), "it was used last at 40 s"
    assert visitors.get("b") is kept[1] and kept[1].file.exists()


# What is refused


@pytest.mark.parametrize(
    ("query", "key"),
    [("", "no_query"), (" \n", "no_query"), ("x" * 51, "query_too_long")],
    ids=("empty", "blank", "long"),
)
def test_a_query_that_is_empty_or_too_long_is_refused(desk: Desk, clips: list[Clip], query: str, key: str) -> None:
    desk.take("me", upload(desk, joined(clips)), "mine.wav")
    for ask in (lambda: desk.search(query, 3, {}), lambda: desk.find("me", query, 3)):
        with pytest.raises(Refused) as refused:
            ask()
        assert refused.value.key == key
        assert refused.value.text("fa") != refused.value.text("en") == str(refused.value)


def test_more_hits_than_allowed_are_not_given(desk: Desk) -> None:
    assert len(desk.search("a query", 1000, {})) == 4
    assert len(desk.search("a query", -3, {})) == 1


def test_a_recording_that_is_too_long_is_refused_and_nothing_stays(desk: Desk) -> None:
    rng = np.random.default_rng(0)
    noise = (0.1 * rng.standard_normal(31 * RATE)).astype(np.float32)
    for ask, key in ((desk.take, "too_long"), (desk.search_by_speech, "spoken_too_long")):
        file = upload(desk, noise)
        with pytest.raises(Refused) as refused:
            if ask == desk.take:
                desk.take("me", file, "mine.wav")
            else:
                desk.search_by_speech(file, 3, {})
        assert refused.value.key == key
    assert len(desk.visitors) == 0
    assert [path for path in desk.uploads.rglob("*") if path.is_file()] == []


def test_a_file_that_is_too_large_is_refused(desk: Desk) -> None:
    file = upload(desk, np.zeros(80 * RATE, np.float32) + 0.1)
    with pytest.raises(Refused, match="at most 2 MB"):
        desk.take("me", file, "mine.wav")


def test_what_is_no_sound_is_refused_without_telling_where_it_lies(desk: Desk) -> None:
    for i, content in enumerate((b"not audio at all", b"", b"RIFF\x00\x00")):
        folder = desk.uploads / f"bad{i}"
        folder.mkdir(parents=True)
        (folder / "mine.wav").write_bytes(content)
        with pytest.raises(Refused) as refused:
            desk.take("me", str(folder / "mine.wav"), "mine.wav")
        assert refused.value.key == "unreadable" and str(desk.uploads) not in str(refused.value)
    silent = upload(desk, np.zeros(3 * RATE, np.float32))
    with pytest.raises(Refused):
        desk.take("me", silent, "mine.wav")


def test_only_uploads_are_read(desk: Desk, files: list[Path], tmp_path: Path) -> None:
    desk.uploads.mkdir(parents=True)
    (desk.uploads / "link.wav").symlink_to(files[0])
    paths = (
        str(files[0]),
        "/etc/hostname",
        f"{desk.uploads}/../../{files[0].name}",
        "",
        str(desk.uploads / "link.wav"),
    )
    for path in (*paths, str(desk.uploads), str(desk.uploads / "missing.wav")):
        for ask in (
            lambda path=path: desk.take("me", path, "a.wav"),
            lambda path=path: desk.search_by_speech(path, 3, {}),
        ):
            with pytest.raises(Refused) as refused:
                ask()
            assert refused.value.key == "not_uploaded", path
    assert files[0].exists()


def test_those_who_come_when_all_places_are_taken_are_sent_away() -> None:
    door, inside, leave = Door(1, 1), threading.Barrier(2), threading.Event()
    done: list[str] = []

    def visit(name: str, first: bool) -> None:
        with door.entered():
            if first:
                inside.wait()
                leave.wait(30)
            done.append(name)

    one = threading.Thread(target=visit, args=("one", True))
    one.start()
    inside.wait()
    two = threading.Thread(target=visit, args=("two", False))
    two.start()
    while door._places._value:  # until the second one waits
        threading.Event().wait(0.01)
    with pytest.raises(Refused, match="Many people"), door.entered():
        pass
    assert done == []
    leave.set()
    one.join()
    two.join()
    assert done == ["one", "two"]
    with door.entered():
        pass


@pytest.mark.parametrize(
    "wrong", [{"upload_mb": 0}, {"jobs": -1}, {"hits": 2.5}, {"recording_minutes": float("nan")}, {"keep_minutes": "x"}]
)
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ClaspError, match=next(iter(wrong))):
        Limits(**wrong)


# The page


def test_the_page_asks_gradio_for_nothing_that_it_does_not_need(model: CLASP, index: SpeechIndex) -> None:
    page = build_demo(model, index)
    assert page.analytics_enabled is False and page.delete_cache is not None
    assert {fn.api_visibility for fn in page.fns.values() if fn.fn is not None and fn.targets[0][1] != "unload"} == {
        "private"
    }
    kinds = {type(block).__name__ for block in page.blocks.values()}
    assert not kinds & {"File", "Audio", "UploadButton", "Video", "Image", "FileExplorer"}, (
        "these read paths and addresses"
    )


def test_without_a_collection_there_is_only_the_second_tab(model: CLASP) -> None:
    tabs = [block.label for block in build_demo(model, language="fa").blocks.values() if type(block).__name__ == "Tab"]
    assert tabs == [TEXTS["fa"]["tab_moment"]]


def test_a_language_that_the_page_does_not_speak_is_refused(model: CLASP) -> None:
    with pytest.raises(ClaspError, match="'de'"):
        build_demo(model, language="de")


def test_an_index_of_another_model_is_refused(encoders: Encoders, index: SpeechIndex) -> None:
    with pytest.raises(ClaspError, match="another model"):
        build_demo(tiny_model(encoders, seed=1), index)


def test_without_gradio_the_error_names_the_extra(
    model: CLASP, index: SpeechIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == "gradio":
            raise ImportError(name)
        return load(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    for start in (build_demo, launch_demo):
        with pytest.raises(MissingDependencyError, match=r"\[demo\]"):
            start(model, index)


def test_the_ready_made_collection_is_made_once(
    model: CLASP, files: list[Path], clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import Dataset

    audio = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    rows = {"id": [f"clip-{i}" for i in range(len(files))], "text": [clip.text for clip in clips], "audio": audio}
    test = Dataset.from_dict({**rows, "category": ["odd", "even"] * 3, "voice": ["anna"] * 6})
    profile: Any = SimpleNamespace(cache=tmp_path, dataset=lambda: {"test": test})
    index = ready_made(model, profile)
    hit = index.search(clips[0].text, 1)[0]
    assert len(index) == 6 and hit.metadata["category"] in ("odd", "even") and Path(hit.file).is_file()
    assert hit.metadata["voice"] == "anna"
    assert hit.text in rows["text"] and not list(tmp_path.rglob("*.tmp"))

    def never(*arguments: Any, **options: Any) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(model, "encode_speech", never)
    assert np.array_equal(ready_made(model, profile).vectors, index.vectors)


@pytest.fixture(scope="module")
def address(model: CLASP, index: SpeechIndex) -> Iterator[str]:
    """A running page."""
    page = launch_demo(model, index, limits=Limits(upload_mb=0.1), block=False)
    yield page.local_url.rstrip("/")
    page.close(verbose=False)


def test_the_page_answers_on_this_machine_only_and_shares_nothing(
    model: CLASP, index: SpeechIndex, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import gradio

    told: dict[str, Any] = {}

    def launch(self: Any, **options: Any) -> None:
        told.update(options)
        self.local_url, self.share_url, self.is_running = "http://127.0.0.1:1/", None, False

    monkeypatch.setattr(gradio.Blocks, "launch", launch)
    monkeypatch.setattr("gradio.utils.colab_check", lambda: True)
    monkeypatch.setattr(gradio.Blocks, "close", lambda self, verbose: None)
    launch_demo(model, index)
    assert told["server_name"] == "127.0.0.1" and told["share"] is False and told["inline"] is True
    assert told["max_file_size"] == Limits().upload_bytes and "allowed_paths" not in told
    monkeypatch.setattr("gradio.utils.colab_check", lambda: False)
    launch_demo(model, index, host="0.0.0.0")
    assert told["inline"] is False
    printed = capsys.readouterr()
    assert "http://127.0.0.1:1/" in printed.out and "Everyone" in printed.err


def test_a_port_that_is_taken_is_a_clear_error(address: str, model: CLASP, index: SpeechIndex) -> None:
    with pytest.raises(ClaspError, match="port"):
        launch_demo(model, index, port=int(address.rsplit(":", 1)[1]), block=False)


def test_no_file_of_this_machine_can_be_read(address: str, files: list[Path]) -> None:
    import httpx

    here = Path(__file__).resolve()
    paths = [
        here,
        files[0],
        "/etc/passwd",
        f"../../../../../../..{here}",
        f"..%2f..%2f..%2f..%2f..{here}",
        "pyproject.toml",
    ]
    for path in paths:
        for route in ("gradio_api/file=", "file=", "gradio_api/file/", "static/", "assets/", "gradio_api/stream/"):
            answer = httpx.get(f"{address}/{route}{path}")
            assert answer.status_code in (400, 403, 404, 405), (route, path)
            assert "root:" not in answer.text and "test_no_file_of_this_machine" not in answer.text


def test_the_page_fetches_nothing_for_strangers(address: str) -> None:
    import httpx

    for path in (
        "gradio_api/file=http://example.org/a.wav",
        "gradio_api/file=https%3A//example.org",
        "proxy=http://x.org",
    ):
        assert httpx.get(f"{address}/{path}").status_code == 403, path
    assert httpx.get(address).status_code == 200


def test_an_upload_over_the_limit_is_refused_by_the_server(address: str) -> None:
    import httpx

    def send(size: int) -> int:
        return httpx.post(f"{address}/gradio_api/upload", files={"files": ("a.wav", bytes(size))}).status_code

    assert send(50_000) == 200 and send(200_000) == 413
