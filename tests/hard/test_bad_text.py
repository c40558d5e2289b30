"""Broken texts at every door that takes one: `encode_text`, `SpeechIndex.search`, `locate`, `clasp encode`, features,
the engine that speaks, and the demo. Odd ones are read: emoji alone, a megabyte, two directions at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Clip, Encoders

from clasp_lib import CLASP, SpeechIndex, locate
from clasp_lib.audio import encode_audio
from clasp_lib.cli.encode import _lines
from clasp_lib.corpus import Sentence, normalise_text, split_by_text
from clasp_lib.demo.desk import Desk
from clasp_lib.demo.limits import Limits, Refused
from clasp_lib.errors import TextError
from clasp_lib.features import extract_features
from clasp_lib.speech_brown import build_speech_brown, dataset_of
from clasp_lib.synthesis import ESpeak, Voice, check_speakable
from clasp_lib.text_normalisation import language_code, normalise, words
from hard.conftest import Ended, check_message, within

GROUP = "bad text"
EMPTY = "give a string with something in it"
HALF = "holds half a character. Decode it as UTF-8 again"

BROKEN: dict[str, tuple[Any, str]] = {
    "empty": ("", EMPTY),
    "spaces": ("   ", EMPTY),
    "line breaks": ("\n\r\n\t", EMPTY),
    "spaces of typesetters": ("\u2003\u00a0\u3000", EMPTY),
    "no width": ("\u200b\u200d\ufeff", EMPTY),
    "marks of direction": ("\u200f\u202e\u2066", EMPTY),
    "control characters": ("\x00\x07\x1b", EMPTY),
    "half a character": ("rain \ud83c", HALF),
    "the other half": ("\udf27 rain", HALF),
    "halves in the wrong order": ("\udf27\ud83c", HALF),
    "a name of the file system": ("caf\udce9", HALF),
    "half a character in a megabyte": ("rain " * 200_000 + "\ud800", HALF),
    "bytes": (b"rain", f"b'rain'; {EMPTY}"),
    "nothing": (None, f"None; {EMPTY}"),
    "number": (5, f"5; {EMPTY}"),
    "NaN, as tables have it": (float("nan"), f"nan; {EMPTY}"),
    "list": (["rain"], re.escape(f"['rain']; {EMPTY}")),
    "mapping": ({"text": "rain"}, EMPTY),
}
ODD = {
    "emoji": "🌧️🌧️☔",
    "a family of one sign": "👩‍👩‍👧‍👦",
    "a flag": "🇮🇷",
    "a megabyte": "the rain falls " * 70_000,
    "one word of a megabyte": "x" * 2**20,
    "mixed direction": "باران rain گشت falls דגל 雨",
    "direction turned by hand": "\u202erain\u202c falls",
    "a tower of marks": "r" + "\u0301" * 1_000 + "ain",
    "a NUL within": "rain\x00falls",
    "an escape of a terminal": "\x1b[31mrain\x1b[0m",
    "for private use": "\ue000\ue001",
    "not assigned": "\U000e0fff rain",
    "the last character": "\U0010ffff rain",
    "full width": "ｒａｉｎ",
    "mathematical": "𝓇𝒶𝒾𝓃",
    "ten thousand lines": "rain\n" * 10_000,
    "dots": "...",
    "markup": "<script>alert(1)</script>",
    "a query of a database": "'; DROP TABLE clips; --",
    "a path": "../../etc/passwd",
    "a template": "{0.__class__} %s ${HOME}",
    "tokens of the model": "[CLS] [SEP] [MASK] [PAD]",
}


@pytest.fixture(scope="module")
def index(model: CLASP, clips: list[Clip]) -> SpeechIndex:
    return SpeechIndex.build(model, [clip.samples for clip in clips[:2]])


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_text_is_refused_at_every_door(
    name: str, model: CLASP, index: SpeechIndex, clips: list[Clip], ended: Ended
) -> None:
    text, said = BROKEN[name]
    doors: dict[str, Callable[[], object]] = {
        "encode_text": lambda: model.encode_text(["fine", text]),
        "locate": lambda: locate(model, clips[0].samples, text),
    }
    if isinstance(text, str):
        doors["SpeechIndex.search"] = lambda: index.search(text)
    for door, call in doors.items():
        if door == "locate" and isinstance(text, dict):
            continue  # which is taken for a recording
        with within(60), ended.refused(GROUP, f"{name}: {door}", re.compile(said)) as caught:
            call()
        assert isinstance(caught.value, TextError)
        assert f"text number {1 if door == 'encode_text' else 0}" in str(caught.value)


LARGE = {"a megabyte", "one word of a megabyte"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in ODD])
def test_an_odd_text_is_read_at_every_door(
    name: str, model: CLASP, index: SpeechIndex, clips: list[Clip], ended: Ended
) -> None:
    with within(120):
        vectors = model.encode_text([ODD[name], "the rain falls"])
        assert np.isfinite(vectors).all() and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
        np.testing.assert_allclose(model.encode_text([ODD[name]])[0], vectors[0], atol=1e-4)  # alone, and beside others
        assert len(index.search(ODD[name], k=2)) == 2
        assert isinstance(normalise(ODD[name]), str) and isinstance(words(ODD[name]), list)
    ended(GROUP, name, "accepted")


@pytest.mark.parametrize(
    ("texts", "said"),
    [("rain", r"Wrap it: \['rain'\]"), (b"rain", "Wrap it"), (None, r"Wrap it: \[None\]"), (5, "list of texts")],
)
def test_what_is_no_list_of_texts_is_refused(texts: Any, said: str, model: CLASP, ended: Ended) -> None:
    with ended.refused(GROUP, f"{texts!r} for a list", re.compile(said)):
        model.encode_text(texts)


def test_a_megabyte_for_a_list_is_not_said_again(model: CLASP, ended: Ended) -> None:
    with ended.refused(GROUP, "a megabyte for a list", "Wrap it"):
        model.encode_text("rain " * 200_000)


def test_texts_come_from_whatever_gives_them_in_order(model: CLASP, ended: Ended) -> None:
    expected = model.encode_text(["rain", "snow"])
    for texts in (
        ("rain", "snow"),
        (text for text in ("rain", "snow")),
        np.array(["rain", "snow"]),
        {"rain": 1, "snow": 2},
    ):
        np.testing.assert_array_equal(model.encode_text(texts), expected)  # type: ignore[arg-type]
        ended(GROUP, f"texts in a {type(texts).__name__}", "accepted")


def test_features_leave_out_broken_texts_and_say_why(encoders: Encoders, clips: list[Clip], ended: Ended) -> None:
    """Half a character never gets so far: a table of Arrow holds UTF-8."""
    broken = {name: (text, said) for name, (text, said) in BROKEN.items() if isinstance(text, str) and said == EMPTY}
    audio = {"bytes": encode_audio(clips[0].samples, 16_000, "FLAC"), "path": "x.flac"}
    row = {"sentence_id": "s", "category": "", "voice": "", "duration": 1.0, "audio": audio}
    rows = [row | {"id": name, "text": text} for name, (text, _) in broken.items()]
    dataset = dataset_of([row | {"id": "good", "text": "rain"}, *rows])
    features = extract_features(dataset, *encoders, on_error="skip")
    assert [clip.id for clip in features.skipped] == list(broken) and features.texts == ["rain"]
    for clip in features.skipped:
        check_message(clip.reason, broken[clip.id][1])
        ended(GROUP, f"{clip.id}: extract_features, skip", "skipped with a report")
    with ended.refused(GROUP, "extract_features", EMPTY):
        extract_features(dataset, *encoders)


# Speaking ----------------------------------------------------------------------------------------------------------

UNSPEAKABLE: dict[str, Any] = {
    "empty": "",
    "dots": "...",
    "emoji": "🌧🌧",
    "no width": "\u200b",
    "marks alone": "\u0301\u0301",
    "half a character": "rain \ud83c",
    "a NUL within": "rain\x00falls",
    "bytes": b"rain",
    "nothing": None,
    "half a character in a megabyte": "rain " * 200_000 + "\ud800",
}


@pytest.mark.parametrize("name", UNSPEAKABLE)
def test_what_cannot_be_spoken_is_refused(name: str, ended: Ended) -> None:
    doors = {"check_speakable": check_speakable}
    if name != "half a character in a megabyte":  # of which an engine would speak for hours, were it let
        doors["ESpeak"] = lambda text: ESpeak().synthesize(text, Voice("en-us", "m1"))
    for door, call in doors.items():
        with ended.refused(GROUP, f"{name}: {door}", re.compile("letter or digit|half a character|NUL")) as caught:
            call(UNSPEAKABLE[name])
        assert isinstance(caught.value, TextError)


class Choir(ESpeak):
    """eSpeak NG in batches: spoken here, without processes of its own."""

    digest = "choir"

    def synthesize_batch(self, texts: list[str], voices: list[Voice]) -> list[np.ndarray | TextError]:
        clips: list[np.ndarray | TextError] = []
        for text, voice in zip(texts, voices, strict=True):
            try:
                clips.append(self.synthesize(text, voice))
            except TextError as error:
                clips.append(error)
        return clips


def test_a_dataset_leaves_out_what_cannot_be_spoken_and_says_why(ended: Ended) -> None:
    broken = {name: text for name, text in UNSPEAKABLE.items() if isinstance(text, str) and len(text) < 1_000}
    sentences = [Sentence("good", "The rain falls.", "news"), *(Sentence(n, t, "news") for n, t in broken.items())]
    options: dict[str, Any] = {"fractions": {"test": 1.0}, "shared_speakers": True}
    built = build_speech_brown(sentences, Choir(), on_error="skip", **options)
    assert built.dataset["test"]["sentence_id"] == ["good"]
    assert sorted(clip.id.removesuffix("-0") for clip in built.skipped) == sorted(broken)
    for clip in built.skipped:
        check_message(clip.reason, re.compile("letter or digit|half a character|NUL"))
        ended(GROUP, f"{clip.id}: build_speech_brown, skip", "skipped with a report")
    with ended.refused(GROUP, "build_speech_brown", re.compile("letter or digit|half a character|NUL")):
        build_speech_brown(sentences, Choir(), **options)


def test_texts_without_letters_are_dealt_like_any_other(ended: Ended) -> None:
    sentences = [Sentence(f"{i}", text, "news") for i, text in enumerate(["", "...", "🌧", "\ud800", "a", "A!", "b"])]
    dealt = split_by_text(sentences)
    assert sum(map(len, dealt.values())) == len(sentences)
    assert normalise_text("a") == normalise_text("A!") != normalise_text("b")
    for text in (None, 5, b"rain", ["rain"], float("nan")):
        with ended.refused(GROUP, f"normalise({text!r})", "give a string"):
            normalise(text)  # type: ignore[arg-type]


@pytest.mark.parametrize("code", ["", "Persian", "e", "eng1", "12", None, 5, "en\n", " en"])
def test_what_is_no_language_is_refused(code: Any, ended: Ended) -> None:
    for door, call in (("language_code", language_code), ("normalise", lambda code: normalise("rain", code))):
        if code is None and door == "normalise":
            continue  # which is what is for all
        with ended.refused(GROUP, f"language {code!r}: {door}", "is no language code", "'fa', 'zh-CN'"):
            call(code)


# A file of texts, as `clasp encode --texts-file` reads it ------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no texts. Give one on each line"),
        (b"rain\n\nsnow\n", "line 2: is empty"),
        (b"rain\n \t \n", "line 2: is empty"),
        ("café".encode("latin-1"), "is not UTF-8.*Save it as UTF-8"),
        ("rain".encode("utf-16"), "is not UTF-8.*Save it as UTF-8"),
        (b"rain \xed\xa0\x80", "is not UTF-8"),
    ],
)
def test_a_broken_file_of_texts_is_refused_by_line(content: bytes, said: str, tmp_path: Path, ended: Ended) -> None:
    (tmp_path / "queries.txt").write_bytes(content)
    with ended.refused(GROUP, f"texts file {content!r}", tmp_path / "queries.txt", re.compile(said)):
        _lines(str(tmp_path / "queries.txt"))


def test_a_file_of_texts_may_be_odd(tmp_path: Path, ended: Ended) -> None:
    for name, content in (("mark of UTF-8", b"\xef\xbb\xbfrain\nsnow"), ("lines of Windows", b"rain\r\nsnow\r\n")):
        (tmp_path / "queries.txt").write_bytes(content)
        assert _lines(str(tmp_path / "queries.txt")) == ["rain", "snow"]
        ended(GROUP, f"texts file: {name}", "accepted")


# The demo ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "Write what you are looking for"),
        (" \n", "Write what you are looking for"),
        ("x" * 301, "at most 300 characters"),
        ("x" * 2**20, "at most 300 characters"),
        ("\u200b", EMPTY),
        ("rain \ud83c", HALF),
        (None, "Write what you are looking for"),
        (5, "Write what you are looking for"),
    ],
)
def test_the_demo_refuses_a_broken_query(
    query: Any, said: str, index: SpeechIndex, tmp_path: Path, ended: Ended
) -> None:
    desk = Desk(index.model, index, Limits(), tmp_path)
    with ended.refused(GROUP, f"demo: {ascii(query)[:40]}", said):
        desk.search(query, 3, {})


@pytest.mark.parametrize("k", [float("nan"), float("inf"), None, "3", [1]])
def test_the_demo_refuses_a_number_of_answers_that_is_none(
    k: Any, index: SpeechIndex, tmp_path: Path, ended: Ended
) -> None:
    with ended.refused(GROUP, f"demo: {k!r} answers", "number of answers") as caught:
        Desk(index.model, index, Limits(), tmp_path).search("rain", k, {})
    assert isinstance(caught.value, Refused)


@pytest.mark.parametrize("k", [-5, 0, 0.4, 10**30, 1e9])
def test_the_demo_gives_as_many_answers_as_it_may(k: float, index: SpeechIndex, tmp_path: Path, ended: Ended) -> None:
    found = Desk(index.model, index, Limits(hits=1), tmp_path).search("rain", k, {})
    assert len(found) == 1
    ended(GROUP, f"demo: {k:g} answers", "accepted")
