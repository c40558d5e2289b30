"""A clip is a function of text and voice alone, in whatever process and order; speakers belong to one split."""

from __future__ import annotations

import concurrent.futures
import itertools
import multiprocessing

import numpy as np
import pytest

from clasp_lib.corpus import SPLITS
from clasp_lib.errors import ClaspError, MissingDependencyError, TextError
from clasp_lib.synthesis import ACCENTS, VARIANTS, ESpeak, Flite, Mark, Voice, draw_voices

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


def test_engines_draw_their_own_voices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ESpeak().voices("test", 7, seed=2) == draw_voices("test", 7, seed=2)
    monkeypatch.setattr("clasp_lib.synthesis.shutil.which", lambda name: "/usr/bin/flite")
    flite = Flite()
    assert [voice.variant for voice in flite.voices("test", 4)] == ["slt", "rms", "awb", "slt"]
    assert flite.voices("train", 0) == []
    with pytest.raises(ClaspError, match="only the split 'test'"):
        flite.voices("train", 1)


def test_the_drawn_voices_are_those_of_every_earlier_run() -> None:
    assert draw_voices("train", 2) == [Voice("en-us", "paul", 145, 45), Voice("en-gb-x-gbclan", "klatt5", 168, 62)]


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


# What is said when -------------------------------------------------------------------------------------------------

VOICES = [Voice("en-us", "m3"), Voice("en-gb-scotland", "whisper", 150, 60), Voice("en-029", "f2", 200, 35)]
TEXTS = {
    TEXT: ["Seven", "grey", "geese", "crossed", "the", "road"],
    "The fox's den is well-known, isn't it?": ["The", "fox's", "den", "is", "well-known", "isn't", "it"],
    "Rain.": ["Rain"],
    "The rain fell; nobody came! (Mother waited.)": ["The", "rain", "fell", "nobody", "came", "Mother", "waited"],
    'Café owners said: "Naïve guests drink tea."': ["Café", "owners", "said", "Naïve", "guests", "drink", "tea"],
}


@pytest.mark.parametrize("sampling_rate", [8_000, 16_000, 22_050])
@pytest.mark.parametrize("voice", VOICES, ids=lambda voice: voice.name)
def test_an_utterance_sounds_as_if_nobody_had_asked_for_its_marks(voice: Voice, sampling_rate: int) -> None:
    engine = ESpeak(sampling_rate)
    for text in TEXTS:
        spoken = engine.utter(text, voice)
        np.testing.assert_array_equal(spoken.samples, engine.synthesize(text, voice))
        for marks in (spoken.phones, spoken.words):
            starts = [mark.start for mark in marks]
            assert starts == sorted(starts) and starts[0] >= 0 and starts[-1] < len(spoken.samples)
            assert all(isinstance(start, int) for start in starts)


@pytest.mark.parametrize("voice", VOICES, ids=lambda voice: voice.name)
@pytest.mark.parametrize("text", TEXTS)
def test_words_are_marked_as_they_are_written(text: str, voice: Voice) -> None:
    words = ESpeak().utter(text, voice).words
    assert [mark.symbol for mark in words] == TEXTS[text]
    assert words[0].start < 0.15 * 16_000 and len({mark.start for mark in words}) == len(words)


@pytest.mark.parametrize(
    "text",
    [
        "Most of it was lost.",
        "Here and there we live in a barn.",
        "It was the house from where so much had come.",
        "They wanted to be heard, and no longer to be seen.",
        "Salt & pepper -- or nothing.",
    ],
)
def test_a_mark_is_a_whole_word_and_words_keep_their_order(text: str) -> None:
    """The engine speaks "most of" and other groups as one; a word without a mark is then no mistake, a piece of one is.

    Nor is a sign a word, even if it is spoken.
    """
    written = [word.strip(".,") for word in text.split() if word[0].isalpha()]
    marked = [mark.symbol for mark in ESpeak().utter(text, Voice("en-us", "m3")).words]
    rest = iter(written)
    assert all(word in rest for word in marked), marked
    assert len(marked) > 0.5 * len(written)


def test_punctuation_is_not_part_of_a_word() -> None:
    words = ESpeak().utter("“Rain,” she said — ‘cold’ rain…", Voice("en-us", "m3")).words
    assert [mark.symbol for mark in words] == ["Rain", "she", "said", "cold", "rain"]


@pytest.mark.parametrize("voice", VOICES, ids=lambda voice: voice.name)
def test_phones_are_sounds_or_pauses_without_stress(voice: Voice) -> None:
    for text in TEXTS:
        phones = ESpeak().utter(text, voice).phones
        assert len(phones) > len(TEXTS[text])
        for mark in phones:
            assert mark.symbol and not set(mark.symbol) & set("',%=| "), mark
            assert mark.symbol == "_" or not mark.symbol.startswith("_")
    assert [mark.symbol for mark in ESpeak().utter("See.", Voice("en-us", "m3")).phones][:2] == ["s", "i:"]


@pytest.mark.parametrize("voice", VOICES, ids=lambda voice: voice.name)
def test_a_comma_is_a_pause_and_a_pause_is_quiet(voice: Voice) -> None:
    engine = ESpeak()

    def pauses(text: str) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """The samples, and each pause between two words: first and last sample."""
        samples, phones, words = engine.utter(text, voice)
        ends = [mark.start for mark in phones[1:]]
        spans = [(mark.start, end) for mark, end in zip(phones, ends, strict=False) if mark.symbol == "_"]
        return samples, [span for span in spans if span[1] - span[0] > 800 and span[1] <= words[-1].start]

    samples, found = pauses("The geese came early, nobody fed them.")
    assert len(found) == 1 and pauses("The geese came early nobody fed them.")[1] == []
    start, end = found[0]
    assert np.abs(samples[start + 400 : end - 160]).max() < 0.05 * np.abs(samples).max()
    words = {mark.symbol: mark.start for mark in engine.utter("The geese came early, nobody fed them.", voice).words}
    assert words["early"] < start < end <= words["nobody"] + 800


@pytest.mark.parametrize("voice", [Voice("en-us", "m3"), Voice("en-gb-x-rp", "f4", 150)], ids=lambda voice: voice.name)
@pytest.mark.parametrize("silence", ["", "\n\n"])  # half a second that the clip leaves out
def test_phones_are_marked_where_they_sound(voice: Voice, silence: str) -> None:
    """An s hisses, a vowel does not: their spectra say which is which."""
    samples, phones, words = ESpeak().utter(silence + "The sea saw Sue see a sigh so soft.", voice)
    assert words[0].symbol == "The" and words[0].start < 0.12 * 16_000

    def hiss(mark: Mark, end: int) -> float:
        power = np.abs(np.fft.rfft(samples[mark.start : end])) ** 2
        return power[len(power) // 2 :].sum() / power.sum()  # above 4 kHz

    spans = [(mark, after.start) for mark, after in itertools.pairwise(phones) if after.start - mark.start > 400]
    hissing = [hiss(mark, end) for mark, end in spans if mark.symbol == "s"]
    singing = [hiss(mark, end) for mark, end in spans if mark.symbol[0] in "iuaoO"]
    assert len(hissing) >= 6 and len(singing) >= 6
    assert min(hissing) > 5 * max(singing)


def test_marks_are_at_the_same_moments_at_every_sampling_rate() -> None:
    for text in TEXTS:
        low, high = (ESpeak(rate).utter(text, VOICES[0]) for rate in (8_000, 22_050))
        for slow, fast in ((low.phones, high.phones), (low.words, high.words)):
            assert [mark.symbol for mark in slow] == [mark.symbol for mark in fast]
            moments = [np.array([mark.start for mark in marks]) for marks in (slow, fast)]
            np.testing.assert_allclose(moments[0] / 8_000, moments[1] / 22_050, atol=2e-4)


def test_marks_do_not_depend_on_what_was_spoken_before() -> None:
    engine = ESpeak()
    first = engine.utter(TEXT, VOICES[0])
    engine.utter("Something else altogether was said, and at length!", VOICES[1])
    again = engine.utter(TEXT, VOICES[0])
    assert (first.phones, first.words) == (again.phones, again.words)
