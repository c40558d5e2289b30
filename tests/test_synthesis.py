"""A clip is a function of text and voice alone, in whatever process and order; speakers belong to one split."""

from __future__ import annotations

import concurrent.futures
import itertools
import multiprocessing

import numpy as np
import pytest

from clasp_lib.corpus import SPLITS
from clasp_lib.errors import ClaspError, MissingDependencyError, TextError
from clasp_lib.synthesis import ACCENTS, VARIANTS, ESpeak, Voice, draw_voices

TEXT = "Seven grey geese crossed the road."


def test_a_clip_does_not_depend_on_what_was_spoken_before() -> None:
    engine = ESpeak()
    voices = [Voice("en-us", "m3"), Voice("en-gb-scotland", "whisper", 150, 60), Voice("en", "klatt")]
    first = [engine.synthesize(TEXT, voice) for voice in voices]
    for voice in reversed(voices):
        engine.synthesize("Something else altogether was said, and at length!", voice)
    again = [ESpeak().synthesize(TEXT, voice) for voice in reversed(voices)][::-1]
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(first[0][:10_000], first[2][:10_000])


def test_a_clip_does_not_depend_on_the_process() -> None:
    engine = ESpeak()
    voices = [Voice("en-us", "f2", 160), Voice("en", "whisper"), Voice("en-029", "Andrea", 200, 35)]
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        elsewhere = list(pool.map(engine.synthesize, [TEXT] * 3, voices))
    for voice, samples in zip(voices, elsewhere, strict=True):
        np.testing.assert_array_equal(samples, engine.synthesize(TEXT, voice))


@pytest.mark.parametrize("split", SPLITS)
def test_every_speaker_has_a_sound_of_its_own(split: str) -> None:
    engine = ESpeak()
    sounds = {variant: engine.synthesize("Hello there.", Voice("en-us", variant)) for variant in VARIANTS[split]}
    for samples in sounds.values():
        assert samples.dtype == np.float32 and samples.ndim == 1
        assert 0.3 < len(samples) / engine.sampling_rate < 3
        assert 0.02 < np.abs(samples).max() <= 1
    for (a, x), (b, y) in itertools.combinations(sounds.items(), 2):
        assert not np.array_equal(x, y), (a, b)  # an unknown speaker would be replaced by the default one


def test_every_accent_speaks_every_split() -> None:
    engine = ESpeak()
    for accent in ACCENTS:
        samples = [engine.synthesize("Hello there.", Voice(accent, VARIANTS[split][0])) for split in SPLITS]
        assert all(len(s) > 0.3 * engine.sampling_rate for s in samples)


def test_speakers_belong_to_one_split() -> None:
    everyone = [variant for split in SPLITS for variant in VARIANTS[split]]
    assert len(everyone) == len(set(everyone))
    drawn = {split: {voice.name for voice in draw_voices(split, 2000)} for split in SPLITS}
    assert not drawn["train"] & drawn["validation"] | drawn["train"] & drawn["test"]
    assert not drawn["validation"] & drawn["test"]


@pytest.mark.parametrize("split", SPLITS)
def test_draws_are_deterministic_and_even(split: str) -> None:
    n = 3 * len(VARIANTS[split])
    voices = draw_voices(split, n, seed=5)
    assert voices == draw_voices(split, n, seed=5)
    assert voices != draw_voices(split, n, seed=6)
    assert {voice.variant for voice in voices} == set(VARIANTS[split])
    assert max(np.unique([voice.variant for voice in voices], return_counts=True)[1]) == 3
    assert all(140 <= voice.rate <= 210 and 30 <= voice.pitch <= 70 for voice in voices)
    assert draw_voices(split, 0) == []


def test_rate_and_pitch_are_heard() -> None:
    engine = ESpeak()

    def speak(rate: int, pitch: int) -> np.ndarray:
        return engine.synthesize(TEXT, Voice("en-us", "m3", rate, pitch))

    assert len(speak(210, 50)) < 0.8 * len(speak(140, 50))
    assert not np.array_equal(speak(175, 30), speak(175, 70))


def test_the_sampling_rate_is_the_one_asked_for() -> None:
    low, high = (ESpeak(rate).synthesize(TEXT, Voice("en-us", "m3")) for rate in (8_000, 22_050))
    assert len(low) / 8_000 == pytest.approx(len(high) / 22_050, abs=0.001)


def test_silence_around_the_sentence_is_short() -> None:
    samples = ESpeak().synthesize(TEXT, Voice("en-us", "m3"))
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    assert loud[0] < 0.15 * 16_000 and len(samples) - loud[-1] < 0.15 * 16_000


@pytest.mark.parametrize("text", ["", "   ", "...", "—?!", None, 5])
def test_a_text_without_anything_to_say_is_refused(text: object) -> None:
    with pytest.raises(TextError, match="letter or digit"):
        ESpeak().synthesize(text, Voice("en-us", "m3"))  # type: ignore[arg-type]


@pytest.mark.parametrize("voice", [Voice("xx", "m3"), Voice("en-us", "nobody"), Voice("", "m3"), Voice("en-us", "")])
def test_an_unknown_voice_is_refused_by_name(voice: Voice) -> None:
    with pytest.raises(ClaspError) as caught:
        ESpeak().synthesize(TEXT, voice)
    assert repr(voice.name) in str(caught.value)


def test_a_missing_engine_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clasp_lib.synthesis.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'clasp-lib\[pocket\]'"):
        ESpeak()
