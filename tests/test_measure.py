"""The table of all systems on all tests: what is asked of each, and how the record and the card are written."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Clip

from clasp_lib import CLASP, ClaspError
from clasp_lib.corpus import normalise_text
from clasp_lib.errors import TextError
from clasp_lib.pretraining.measure import (
    GOALS,
    TRANSCRIPT,
    HeldOut,
    brown_sentences,
    measure,
    shortfalls,
    spoken,
    table,
    update_card,
)
from clasp_lib.synthesis import ESpeak, Flite, Voice, draw_voices


class Parrot:
    """A recogniser that hears everything right, but for one clip of which it hears nothing."""

    sampling_rate = 16_000

    def __init__(self, texts: list[str], deaf_to: int) -> None:
        self.texts, self.deaf_to = texts, deaf_to

    def transcribe(self, waves: list[np.ndarray], batch_size: int) -> list[str]:
        return ["" if i == self.deaf_to else text.lower() for i, text in enumerate(self.texts[: len(waves)])]


@pytest.fixture(scope="module")
def test_set(clips: list[Clip]) -> HeldOut:
    texts = [clip.text for clip in clips]
    texts[-1] = texts[0]  # one text said twice
    return HeldOut([clip.samples for clip in clips], texts, [normalise_text(text) for text in texts])


@pytest.fixture(scope="module")
def found(model: CLASP, test_set: HeldOut) -> dict[str, Any]:
    parrot: Any = Parrot(test_set.texts, deaf_to=2)
    return measure({"one": model, "two": model}, parrot, test_set)


def test_every_system_is_asked_in_both_directions(found: dict[str, Any], test_set: HeldOut) -> None:
    assert list(found["systems"]) == [TRANSCRIPT, "one", "two"]
    distinct = len(set(test_set.ids))
    for both in found["systems"].values():
        assert (both["speech_to_text"]["n"], both["speech_to_text"]["candidates"]) == (len(test_set.ids), distinct)
        assert (both["text_to_speech"]["n"], both["text_to_speech"]["candidates"]) == (distinct, len(test_set.ids))
    assert found["clips"] == len(test_set.waves)


def test_a_good_recogniser_finds_its_text_and_a_deaf_one_counts_as_an_error(
    found: dict[str, Any], test_set: HeldOut
) -> None:
    hits = found["systems"][TRANSCRIPT]["speech_to_text"]["hits_at_1"]["value"]
    assert hits >= 1 - 1 / len(test_set.ids) - 1e-9
    words = sum(len(text.split()) for text in test_set.texts)
    expected = len(test_set.texts[2].split()) / words
    assert found["transcription"]["word_error_rate"]["value"] == pytest.approx(expected)


def test_systems_are_compared_in_pairs(found: dict[str, Any], test_set: HeldOut) -> None:
    rows = {(row["first"], row["second"], row["measure"]): row for row in found["comparisons"]}
    assert set(rows) == {
        (a, b, m) for a, b in ((TRANSCRIPT, "one"), (TRANSCRIPT, "two"), ("one", "two")) for m in ("hits_at_1", "mrr")
    }
    same = rows["one", "two", "mrr"]
    assert same["difference"]["value"] == 0 and same["p_value"] == 1
    assert all(row["n"] == len(set(test_set.ids)) for row in rows.values())
    json.dumps(found)


def test_the_vectors_are_those_of_the_model(model: CLASP, test_set: HeldOut) -> None:
    from clasp_lib.pretraining.measure import _vectors

    np.testing.assert_allclose(
        _vectors({"a": model}, test_set.waves)["a"], model.encode_speech(test_set.waves), atol=1e-4
    )


def record_of(found: dict[str, Any]) -> dict[str, Any]:
    return {"seed": 0, "tests": {"pocket_brown_test": found}}


def test_the_card_gets_the_tables_and_keeps_the_rest(found: dict[str, Any], tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("before\n<!-- measured -->\nold\n<!-- /measured -->\nafter\n", encoding="utf-8")
    update_card(card, record_of(found))
    text = card.read_text("utf-8")
    assert text.startswith("before\n<!-- measured -->\n") and text.endswith("<!-- /measured -->\nafter\n")
    assert "old" not in text
    for row in (*table(record_of(found)), *shortfalls(record_of(found))):
        assert f"| {' | '.join(row.values())} |" in text
    update_card(card, record_of(found))
    assert card.read_text("utf-8") == text


def test_a_goal_is_held_against_the_best_model_not_the_transcript(found: dict[str, Any]) -> None:
    (row,) = shortfalls(record_of(found))
    value = max(found["systems"][name]["speech_to_text"]["hits_at_1"]["value"] for name in ("one", "two"))
    assert row["best"] in ("one", "two") and row["goal"] == f"{GOALS['pocket_brown_test']:.2f}"
    assert row["verdict"] == f"missed by {GOALS['pocket_brown_test'] - value:.2f}"


def test_brown_sentences_are_plain_and_distinct(tmp_path: Path) -> None:
    sentences = [
        "The/at cat/nn sat/vbd down/rp there/rb ./.",
        "the/at cat/nn sat/vbd down/rp there/rb !/.",
        "He/pps paid/vbd $5/nns for/in all/abn of/in it/ppo ./.",
        "Too/ql short/jj ./.",
        "A/at dog/nn ,/, it/pps seems/vbz ,/, barked/vbd ./.",
    ]
    with zipfile.ZipFile(tmp_path / "brown.zip", "w") as archive:
        archive.writestr("brown/cats.txt", "ca01 news\n")
        archive.writestr("brown/ca01", "\n\n".join(sentences))
    drawn = brown_sentences(tmp_path / "brown.zip", 10)
    assert sorted(drawn) == ["A dog, it seems, barked.", "The cat sat down there."]
    assert brown_sentences(tmp_path / "brown.zip", 1) == brown_sentences(tmp_path / "brown.zip", 2)[:1]


def test_sentences_are_spoken_in_their_voices() -> None:
    texts, voices = ["One fish.", "Two fish."], draw_voices("test", 2, 5)
    made = spoken(texts, ESpeak(), voices)
    for wave, text, voice in zip(made.waves, texts, voices, strict=True):
        np.testing.assert_array_equal(wave, ESpeak().synthesize(text, voice))
    assert made.ids == ["one fish", "two fish"]


# The other synthesizer ---------------------------------------------------------------------------------------------


@pytest.fixture
def flite() -> Flite:
    if shutil.which("flite") is None:
        pytest.skip("the program flite is not installed")
    return Flite()


def test_flite_speaks_in_three_voices(flite: Flite) -> None:
    waves = [flite.synthesize("Nobody had asked the baker.", Voice("en-us", name)) for name in Flite.VOICES]
    for wave in waves:
        assert wave.dtype == np.float32 and 16_000 < len(wave) < 64_000 and 0.01 < wave.std() < 1
    assert len({len(wave) for wave in waves}) == 3


def test_flite_refuses_what_it_cannot_say(flite: Flite) -> None:
    with pytest.raises(TextError):
        flite.synthesize("...", Voice("en-us", "slt"))
    with pytest.raises(ClaspError, match="choose from"):
        flite.synthesize("Hello.", Voice("en-us", "f3"))


def test_without_flite_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ClaspError, match="apt-get install flite"):
        Flite()
