"""What each disturbance does to a wave, measured on the wave."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from conftest import Clip

from clasp_lib.disturbances import (
    CODECS,
    DISTURBANCES,
    MP3_RATES,
    babble,
    bit_rate,
    check_strength,
    clipping,
    coded,
    disturb,
    hum,
    mp3,
    opus,
    reverberation,
    silence,
    speech_level,
    speed,
    telephone,
    truncation,
    white_noise,
)
from clasp_lib.errors import AudioError, ClaspError

RATE = 16_000


def talk(seconds: float = 2.0, seed: int = 0, pitch: float = 120.0) -> np.ndarray:
    """Something like speech: a buzz in syllables with hiss, at an ordinary level, with pauses of digital silence."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    buzz = sum(np.sin(2 * np.pi * pitch * k * time + rng.uniform(0, 6)) / k for k in range(1, 40))
    syllables = np.maximum(np.sin(2 * np.pi * 3 * time), 0) ** 0.5
    wave = syllables * (buzz + 0.3 * rng.standard_normal(len(time)))
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)


OTHERS = [talk(1.3, seed, pitch) for seed, pitch in ((5, 90.0), (6, 150.0), (7, 210.0))]


def decibels(power: float, reference: float) -> float:
    return 10 * np.log10(power / reference)


def power_between(wave: np.ndarray, low: float, high: float) -> float:
    """Energy of the wave in a band of frequencies in Hz."""
    spectrum = np.abs(np.fft.rfft(wave.astype(float) * np.hanning(len(wave)))) ** 2
    frequency = np.fft.rfftfreq(len(wave), 1 / RATE)
    return float(spectrum[(frequency >= low) & (frequency < high)].sum())


@pytest.mark.parametrize("name", ["white noise", "babble", "hum 50 Hz", "hum 60 Hz"])
@pytest.mark.parametrize("ratio", [20.0, 0.0, -5.0])
def test_the_signal_to_noise_ratio_is_the_one_asked_for(name: str, ratio: float) -> None:
    wave = talk()
    added = disturb(wave, name, ratio, (0, 1), OTHERS).wave.astype(float) - wave
    assert decibels(speech_level(wave), np.square(added).mean()) == pytest.approx(ratio, abs=0.1)


def test_the_level_of_speech_is_that_of_what_is_said_and_not_of_the_pauses() -> None:
    loud = np.full(3_200, 0.5, np.float32)
    assert speech_level(loud) == pytest.approx(0.25)
    assert speech_level(np.concatenate([np.zeros(6_400, np.float32), loud, np.zeros(1_000, np.float32)])) == 0.25
    half = np.concatenate([loud, loud * 10 ** (-20 / 20)])  # 20 dB below the loudest: still speech
    assert speech_level(half) == pytest.approx(0.25 * (1 + 0.01) / 2)
    murmur = np.concatenate([loud, loud * 10 ** (-40 / 20)])  # 40 dB below: a pause
    assert speech_level(murmur) == pytest.approx(0.25)
    assert speech_level(loud[:100]) == pytest.approx(0.25)  # shorter than a frame


def test_silence_around_a_sentence_does_not_change_how_much_noise_it_gets() -> None:
    wave = talk()
    padded = np.pad(wave, 16_000)
    short, long = (white_noise(w, 10, np.random.default_rng(0)) - w for w in (wave, padded))
    assert decibels(np.square(short).mean(), np.square(long).mean()) == pytest.approx(0, abs=0.01)


def test_the_same_clip_gets_the_same_noise_at_every_strength() -> None:
    wave = talk()
    soft, loud = (disturb(wave, "white noise", s, (3, 4)).wave.astype(float) - wave for s in (20, 0))
    assert np.corrcoef(soft, loud)[0, 1] > 0.9999
    other = disturb(wave, "white noise", 0, (3, 5)).wave.astype(float) - wave
    assert abs(np.corrcoef(loud, other)[0, 1]) < 0.05


def test_white_noise_is_as_strong_in_every_band() -> None:
    wave = talk(8)
    added = white_noise(wave, 0, np.random.default_rng(0)) - wave
    bands = [power_between(added, low, low + 1000) for low in range(0, 8000, 1000)]
    assert max(bands) / min(bands) < 1.2


def test_hum_is_the_mains_and_its_multiples_and_nothing_else() -> None:
    wave = talk(4)
    for mains in (50, 60):
        added = hum(wave, 0, np.random.default_rng(0), mains).astype(float) - wave
        lines = [power_between(added, mains * k - 2, mains * k + 2) for k in range(1, 11)]
        assert sum(lines) == pytest.approx(power_between(added, 0, 8001), rel=1e-3)
        assert lines[1] / lines[0] == pytest.approx(1 / 4, rel=0.01)
        assert lines[9] / lines[0] == pytest.approx(1 / 100, rel=0.01)


def test_babble_is_made_of_the_other_clips_equally_loud() -> None:
    wave = talk()
    quiet = [OTHERS[0], 0.01 * OTHERS[1]]  # recorded more softly, but heard as loud
    added = babble(wave, 0, np.random.default_rng(0), quiet).astype(float) - wave
    lines = [power_between(added, 90 - 4, 90 + 4), power_between(added, 150 - 4, 150 + 4)]
    assert 0.5 < lines[0] / lines[1] < 2
    assert power_between(added, 210 - 4, 210 + 4) < 0.05 * min(lines)
    with pytest.raises(AudioError, match="none are given"):
        babble(wave, 0, np.random.default_rng(0), [])


@pytest.mark.parametrize("seconds", [0.2, 0.5, 1.2])
def test_the_sound_of_a_room_decays_by_60_db_in_the_time_asked_for(seconds: float) -> None:
    click = np.zeros(3 * RATE, np.float32)
    click[0] = 1.0
    found = []
    for seed in range(8):
        response = reverberation(click, seconds, np.random.default_rng(seed)).astype(float)
        tail = response[1:]
        assert np.square(tail).sum() / response[0] ** 2 == pytest.approx(seconds / 0.5, rel=1e-3)
        left = 10 * np.log10(np.cumsum(np.square(tail[::-1]))[::-1][: int(seconds * RATE)])  # Schroeder 1965
        level = left - left[0]
        first, last = np.argmax(level < -5), np.argmax(level < -25)
        found.append(60 / -np.polyfit(np.arange(first, last) / RATE, level[first:last], 1)[0])
    assert np.mean(found) == pytest.approx(seconds, rel=0.03)


def test_a_room_keeps_length_and_level_and_starts_with_the_direct_sound() -> None:
    wave = talk()
    heard = reverberation(wave, 0.8, np.random.default_rng(0))
    assert len(heard) == len(wave)
    assert decibels(np.square(heard).mean(), np.square(wave).mean()) == pytest.approx(0, abs=0.01)
    correlation = np.correlate(heard.astype(float), wave.astype(float)[1000:-1000], "valid")
    assert np.argmax(correlation) == 1000


def test_a_telephone_passes_300_to_3400_hz() -> None:
    noise = 0.05 * np.random.default_rng(0).standard_normal(4 * RATE).astype(np.float32)
    heard = telephone(noise)

    def gain(low: float, high: float) -> float:
        return decibels(power_between(heard, low, high), power_between(noise, low, high))

    assert gain(500, 3000) == pytest.approx(0, abs=0.3)
    assert gain(290, 310) == pytest.approx(-3, abs=1)
    assert gain(3380, 3420) == pytest.approx(-3, abs=1)
    assert gain(20, 120) < -25  # what mu-law leaves there
    assert gain(4100, 8000) < -40
    assert len(heard) == len(noise)


def test_a_telephone_has_the_noise_of_8_bits_however_loud_the_speech_was() -> None:
    tone = np.sin(2 * np.pi * 1017 * np.arange(2 * RATE) / RATE).astype(np.float32)
    for amplitude in (1.0, 0.001):
        heard = telephone(amplitude * tone).astype(float)
        right = power_between(heard, 1007, 1027)
        assert 33 < decibels(right, power_between(heard, 0, 8000) - right) < 45  # G.711: about 38 dB
        assert right == pytest.approx(power_between(amplitude * tone, 1007, 1027), rel=0.02)
    once, often = (telephone(tone, calls) for calls in (1, 8))
    spectra = [decibels(power_between(w, 1007, 1027), power_between(w, 0, 1000)) for w in (once, often)]
    assert spectra[1] < spectra[0] - 3


@pytest.mark.parametrize("kilobits", MP3_RATES)
def test_mp3_takes_the_bit_rate_asked_for_and_stays_in_place(kilobits: int) -> None:
    wave = talk()
    heard, real = coded(wave, "MP3", kilobits)
    assert real == pytest.approx(kilobits)
    assert len(heard) == len(wave)
    correlation = np.correlate(heard.astype(float), wave.astype(float)[2000:-2000], "valid")
    assert abs(int(np.argmax(correlation)) - 2000) <= 1
    assert decibels(np.square(wave).sum(), np.square(wave - heard).sum()) > (2 if kilobits <= 16 else 8)


@pytest.mark.parametrize("kilobits", [6, 8, 12, 16, 24, 32, 64])
def test_opus_takes_about_the_bit_rate_asked_for_and_stays_in_place(kilobits: int, clips: list[Clip]) -> None:
    wave = np.concatenate([clip.samples for clip in clips])
    heard, real = coded(wave, "Opus", kilobits)
    assert real == pytest.approx(kilobits, rel=0.25)
    assert len(heard) == len(wave)
    correlation = np.correlate(heard.astype(float)[:40_000], wave.astype(float)[2_000:38_000], "valid")
    assert abs(int(np.argmax(correlation)) - 2000) <= 2


def test_fewer_bits_sound_worse() -> None:
    wave = talk()
    for codec, rates in (("MP3", (64, 24, 8)), ("Opus", (64, 16, 6))):
        left = [np.square(wave - coded(wave, codec, rate).wave).sum() for rate in rates]
        assert left == sorted(left)
        assert left[0] < 0.1 * np.square(wave).sum()


def test_the_bit_rate_is_that_of_the_stream_and_not_of_the_file() -> None:
    file = io.BytesIO()
    soundfile.write(file, talk(1), RATE, format="OGG", subtype="OPUS", compression_level=0.9999)
    data = file.getvalue()
    assert 4 < bit_rate(data) < 8
    assert len(data) * 8 / 1000 > bit_rate(data) + 1  # a second of speech: the container's share is large
    for strange in (b"RIFF and so on", b"", b"OggS", data[:100]):
        with pytest.raises(AudioError, match="neither MP3"):
            bit_rate(strange)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.4])
def test_the_share_of_clipped_samples_is_the_one_asked_for(share: float) -> None:
    wave = np.random.default_rng(0).standard_normal(20_000).astype(np.float32)
    heard = clipping(wave, share)
    threshold = np.abs(heard).max()
    assert (np.abs(wave) >= threshold).mean() == pytest.approx(share, abs=1e-4)
    assert (heard == np.clip(wave, -threshold, threshold)).all()


def test_a_wave_that_is_mostly_silent_is_not_clipped_to_nothing() -> None:
    wave = np.zeros(10_000, np.float32)
    wave[:1_000] = 0.5
    assert np.abs(clipping(wave, 0.05)).max() == 0.5
    with pytest.raises(AudioError, match="clip a smaller share"):
        clipping(wave, 0.5)


@pytest.mark.parametrize("factor", [0.7, 0.9, 1.1, 1.4])
def test_speed_changes_length_and_pitch_by_its_factor(factor: float) -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(2 * RATE) / RATE).astype(np.float32)
    heard = speed(tone, factor)
    assert len(heard) == pytest.approx(len(tone) / factor, abs=2)
    assert power_between(heard, 1000 * factor - 5, 1000 * factor + 5) > 0.99 * power_between(heard, 0, 8001)
    assert np.square(heard).mean() == pytest.approx(0.5, rel=0.02)


def test_truncation_and_silence_change_the_length_and_no_sample() -> None:
    wave = talk()
    assert (truncation(wave, 0.25) == wave[:24_000]).all() and len(truncation(wave, 0.25)) == 24_000
    padded = silence(wave, 0.5)
    assert len(padded) == len(wave) + RATE
    assert (padded[8_000:-8_000] == wave).all() and not padded[:8_000].any() and not padded[-8_000:].any()
    with pytest.raises(AudioError, match=r"leaves 0\.04"):
        truncation(wave, 0.98)


@pytest.mark.parametrize("name", list(DISTURBANCES))
def test_every_disturbance_repeats_exactly_and_leaves_its_input_alone(name: str) -> None:
    wave = talk()
    before = wave.copy()
    for strength in DISTURBANCES[name].strengths:
        heard, real = disturb(wave, name, strength, (1, 2), OTHERS)
        again = disturb(wave, name, strength, (1, 2), OTHERS)
        assert heard.dtype == np.float32 and heard.ndim == 1 and np.isfinite(heard).all()
        assert (heard == again.wave).all() and real == again.strength
        assert not np.shares_memory(heard, wave)
        assert real == strength or name in CODECS
    assert (wave == before).all()


@pytest.mark.parametrize("name", list(DISTURBANCES))
def test_a_louder_recording_is_disturbed_alike(name: str) -> None:
    strength = DISTURBANCES[name].strengths[1]
    soft = disturb(talk(), name, strength, (1, 2), OTHERS).wave
    loud = disturb(10 * talk(), name, strength, (1, 2), OTHERS).wave
    assert np.square(loud - 10 * soft).mean() < 1e-4 * np.square(loud).mean()
    assert np.abs(loud).max() > 1  # not cut at full scale


def test_each_disturbance_changes_more_when_it_is_stronger() -> None:
    wave = talk()
    for name in ("white noise", "babble", "hum 50 Hz", "hum 60 Hz", "reverberation", "telephone", "MP3", "Opus"):
        left = []
        for strength in DISTURBANCES[name].strengths:
            left.append(np.square(disturb(wave, name, strength, (1, 2), OTHERS).wave - wave).sum())
        assert left == sorted(left), name


def test_a_strength_that_cannot_be_is_refused() -> None:
    wave = talk()
    with pytest.raises(ClaspError, match=r"'wind' is not known\. Choose from white noise"):
        disturb(wave, "wind", 1)
    with pytest.raises(ClaspError, match="MP3: strength 20; choose one of 8, 16, 24"):
        mp3(wave, 20)
    with pytest.raises(ClaspError, match=r"telephone: strength 1\.5"):
        telephone(wave, 1.5)
    with pytest.raises(ClaspError, match=r"Opus: strength 5; give 6 to 256 \(kbit/s\)"):
        opus(wave, 5)
    with pytest.raises(ClaspError, match="white noise: strength nan"):
        check_strength("white noise", float("nan"))
    with pytest.raises(ClaspError, match="hum 55 Hz"):
        hum(wave, 0, np.random.default_rng(0), 55)
    with pytest.raises(ClaspError, match="codec 'AAC'"):
        coded(wave, "AAC", 64)
    with pytest.raises(ClaspError, match="key: is"):
        disturb(wave, "white noise", 0, (-1,))
    for name, kind in DISTURBANCES.items():
        for strength in kind.strengths:
            check_strength(name, strength)


@pytest.mark.parametrize(
    ("wave", "said"),
    [
        (np.zeros(RATE, np.float32), "silent"),
        (np.zeros(0, np.float32), "empty"),
        (np.full(RATE, np.nan, np.float32), "NaN"),
        (np.zeros((2, RATE), np.float32), r"\(2, 16000\)"),
        (np.ones(RATE, np.int16), "float"),
        ([0.1, 0.2], "list"),
    ],
)
def test_a_wave_that_is_none_is_refused(wave: np.ndarray, said: str) -> None:
    for name, kind in DISTURBANCES.items():
        with pytest.raises(AudioError, match=said):
            disturb(wave, name, kind.strengths[0], (0,), OTHERS)
