"""The synthesizers that only the pretraining recipe speaks with."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from clasp_lib.errors import ClaspError, MissingDependencyError
from clasp_lib.pretraining import clips as recipe_clips
from clasp_lib.pretraining import synthesizers
from clasp_lib.pretraining.clips import OTHER_ENGINES, speak
from clasp_lib.pretraining.synthesizers import Festival, Person, Pico, draw_people
from clasp_lib.synthesis import Flite, Mark, trimmed

TEXTS = ['The old man said, "It\'s late".', "A <b>cat</b> & a dog.", "Why (not)?"]


def engine(name: str) -> Pico | Festival:
    try:
        return OTHER_ENGINES[name]()
    except MissingDependencyError as error:
        pytest.skip(f"{error} It is needed to pretrain only.")


@pytest.mark.parametrize("name", OTHER_ENGINES)
def test_an_engine_speaks_as_each_person(name: str) -> None:
    speaker = engine(name)
    first, second = speaker.SPEAKERS
    people = [Person(first, 175, 50, 1.0), Person(second, 140, 60, 0.9), Person(first, 210, 40, 1.1)]
    spoken = speaker.utter_all(TEXTS, people)
    for utterance in spoken:
        assert utterance.samples.dtype == np.float32 and 0.02 < np.abs(utterance.samples).max() <= 1
        assert 0.3 < len(utterance.samples) / 16_000 < 6 and utterance.phones == []
    again = speaker.utter_all(TEXTS, people)
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(spoken, again, strict=True))
    small, tall = (speaker.utter_all([TEXTS[0]], [people[0]._replace(throat=t)])[0].samples for t in (1.15, 0.85))
    assert len(tall) / len(small) == pytest.approx(1.15 / 0.85, rel=0.02)
    slow = speaker.utter_all([TEXTS[0]], [people[0]._replace(rate=140)])[0].samples
    assert len(slow) > 1.1 * len(spoken[0].samples)


def test_festival_tells_when_words_begin() -> None:
    people = [Person("kal_diphone", 175, 50, 1.0), Person("kal_diphone", 175, 50, 0.8)]
    level, lower = engine("festival").utter_all([TEXTS[0]] * 2, people)
    assert [mark.symbol for mark in level.words] == ["The", "old", "man", "said", "It's", "late"]
    starts = [mark.start for mark in level.words]
    assert starts[0] == 0 and starts == sorted(starts) and starts[-1] < len(level.samples)
    np.testing.assert_allclose([mark.start for mark in lower.words], np.array(starts) / 0.8, atol=4)
    assert starts[4] - starts[3] > 0.3 * 16_000  # "said" and the pause after it


def test_people_differ_and_can_be_drawn_again() -> None:
    people = draw_people(("a", "b"), 200, seed=3)
    assert [person.speaker for person in people] == ["a", "b"] * 100
    assert people == draw_people(("a", "b"), 200, seed=3) != draw_people(("a", "b"), 200, seed=4)
    for values, (low, high) in zip(
        list(zip(*people, strict=True))[1:], [(140, 210), (30, 70), (0.82, 1.15)], strict=True
    ):
        assert low <= min(values) < low + 0.1 * (high - low) and high - 0.1 * (high - low) < max(values) <= high


def test_the_test_synthesizer_shares_no_voice() -> None:
    """Flite measures whether an encoder has learnt more than the engines that it was trained on."""
    trained_on = {speaker.split("_")[0] for kind in OTHER_ENGINES.values() for speaker in kind.SPEAKERS}
    assert trained_on.isdisjoint(Flite.VOICES)


def test_shards_of_engines_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Recorder:
        SPEAKERS = ("one",)

        def utter_all(self, texts: list[str], people: list[Person]) -> list[synthesizers.Utterance]:
            return [
                synthesizers.Utterance(np.full(len(text), 0.5, np.float32), [], [Mark(0, person.speaker)])
                for text, person in zip(texts, people, strict=True)
            ]

    monkeypatch.setitem(OTHER_ENGINES, "pico", Recorder)
    monkeypatch.setattr(
        recipe_clips.concurrent.futures, "ProcessPoolExecutor", recipe_clips.concurrent.futures.ThreadPoolExecutor
    )
    plain = speak(TEXTS, "train", tmp_path, 0, 1)
    other = speak(TEXTS, "train", tmp_path, 0, 1, "pico")
    assert other.texts == plain.texts == TEXTS and [len(s) for s in other.samples] == list(map(len, TEXTS))
    assert other.words == [[Mark(0, "one")]] * 3 and set(other.samples[0].tolist()) == {16383}
    assert sorted(p.name for p in tmp_path.glob("*.json")) == ["train-0-0000.json", "train-pico-0-0000.json"]
    assert recipe_clips.open_clips(tmp_path, "train", 6).texts == TEXTS * 2


@pytest.mark.parametrize(("kind", "advice"), [(Pico, "pip install ttspico"), (Festival, "apt-get install festival")])
def test_a_missing_engine_is_named(kind: type, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesizers.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingDependencyError, match=advice):
        kind()


def test_a_missing_voice_is_an_error() -> None:
    with pytest.raises(ClaspError, match="Festival failed"):
        engine("festival").utter_all(["Hello."], [Person("nobody", 175, 50, 1.0)])


def test_silence_around_speech_is_cut() -> None:
    clip = np.concatenate([np.zeros(5_000), np.ones(800), np.full(900, 0.02), np.zeros(9_000)]).astype(np.float32)
    samples, first = trimmed(clip, 16_000)
    assert first == 5_000 - 1_600 and len(samples) == 1_600 + 1_700 + 1_600 - 1
    assert len(trimmed(np.zeros(100, np.float32), 16_000)[0]) == 0
    whole, first = trimmed(np.ones(100, np.float32), 16_000)
    assert first == 0 and len(whole) == 100
