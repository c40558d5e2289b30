"""Localisation: pieces between silences, windows of them, the same however the sound comes, and the planted moment."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from conftest import Clip

from clasp_lib import CLASP, Moment, get_profile, locate
from clasp_lib.audio import load_audio, resample
from clasp_lib.errors import AudioError, ClaspError, TextError
from clasp_lib.localization import (
    Cutting,
    WithTranscript,
    best_moments,
    encode_recording,
    stream_windows,
)
from clasp_lib.localization.cutting import BLOCK_S, INAUDIBLE, Pieces, Window, frame_levels, threshold
from clasp_lib.localization.moments import LENGTH_WEIGHT
from clasp_lib.localization.windows import PAUSE_RATIO, PAUSE_S, cut
from clasp_lib.moments import join_all

RATE = 16_000
FIXED = Cutting(silence_s=None, window_s=4.0, hop_s=1.0)


class ToneFinder:
    """Stands in for a model: a window is as near to the query as the share of its energy at 1 000 Hz."""

    speech_encoder = SimpleNamespace(sampling_rate=RATE, name="tones")
    dimension = 2

    def __init__(self) -> None:
        self.windows: list[int] = []

    def encode_text(self, texts: list[str], batch_size: int = 64, show_progress_bar: bool | None = None) -> np.ndarray:
        return np.tile(np.array([[1.0, 0.0]], np.float32), (len(texts), 1))

    def encode_speech(
        self,
        items: list[np.ndarray],
        sampling_rate: int = RATE,
        batch_size: int = 16,
        show_progress_bar: bool | None = None,
    ) -> np.ndarray:
        self.windows += [len(item) for item in items]
        out = []
        for item in items:
            at = np.arange(len(item)) / sampling_rate
            tone = 2 * np.abs(np.mean(item * np.exp(-2j * np.pi * 1000 * at))) ** 2
            share = min(1.0, float(tone / np.mean(item**2)))
            out.append((share, np.sqrt(1 - share**2)))
        return np.array(out, np.float32)


def sound(seconds: float, *stretches: tuple[float, float], pitch: float = 300, rate: int = RATE) -> np.ndarray:
    """Faint noise with a hum of `pitch` Hz at the given stretches."""
    at = np.arange(round(seconds * rate)) / rate
    samples = 0.001 * np.random.default_rng(0).standard_normal(len(at))
    for start, end in stretches:
        samples += np.where((at >= start) & (at < end), 0.3 * np.sin(2 * np.pi * pitch * at), 0)
    return samples.astype(np.float32)


def babble(seconds: float, seed: int = 0) -> np.ndarray:
    """Bursts of noise between pauses, of all lengths and levels: what speech is to the cutter."""
    rng = np.random.default_rng(seed)
    samples = 0.001 * rng.standard_normal(round(seconds * RATE))
    at = 0.0
    while at < seconds:
        length, pause = rng.choice([0.05, 0.4, 1.5, 4.0, 14.0], p=[0.1, 0.4, 0.3, 0.15, 0.05]), rng.exponential(0.4)
        part = slice(round(at * RATE), round((at + length) * RATE))
        samples[part] += rng.uniform(0.02, 0.3) * rng.standard_normal(len(samples[part]))
        at += length + pause
    return samples.astype(np.float32)


def divided(samples: np.ndarray, rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """The same in chunks of random lengths, some of them empty."""
    return np.split(samples, np.sort(rng.integers(0, len(samples) + 1, count)))


def windows(samples: np.ndarray | list[np.ndarray], cutting: Cutting | None = None) -> list[Window]:
    chunks = [samples] if isinstance(samples, np.ndarray) else samples
    return [window for block in cut(chunks, RATE, cutting or Cutting()) for window in block]


def seconds(found: list[Window]) -> list[tuple[float, float]]:
    return [(window.start / RATE, window.end / RATE) for window in found]


def close(found: list[tuple[float, float]], expected: list[tuple[float, float]]) -> bool:
    """Equal but for the margin around a piece and the length of a frame."""
    return len(found) == len(expected) and np.allclose(found, expected, atol=0.061)


# Pieces ------------------------------------------------------------------------------------------------------------


def test_the_level_of_a_frame_is_in_decibels_of_full_scale() -> None:
    assert frame_levels(np.full(640, 0.1), 320) == pytest.approx([-20, -20])
    assert frame_levels(np.full(400, 0.1), 320) == pytest.approx([-20, -20])  # the last one is shorter, not fainter
    assert frame_levels(np.zeros(320), 320) == pytest.approx([INAUDIBLE])


def test_the_threshold_lies_between_floor_and_speech() -> None:
    assert -60 < threshold(-60, -20) < -20
    assert threshold(INAUDIBLE, -20) == -55  # what is 35 dB below speech is none
    assert threshold(-30, -26) == INAUDIBLE == threshold(INAUDIBLE, INAUDIBLE)  # nothing can be told apart


def test_pieces_are_what_lies_between_pauses_and_a_click_is_none() -> None:
    samples = sound(9, (1, 2), (2.3, 3), (5, 5.04), (6, 8))
    finder = Pieces(RATE, 0.14)
    found = [(piece.start / RATE, piece.end / RATE) for piece in finder.add(samples, True) if piece.closed]
    assert close(found, [(1, 2), (2.3, 3), (6, 8)])
    assert all(a <= 1.001 and b >= 1.999 for a, b in found[:1])  # a margin outside, nothing lost inside


@pytest.mark.parametrize("noise", [1e-5, 1e-3, 1e-2])
@pytest.mark.parametrize("gain", [0.01, 0.1, 1.0])
def test_the_threshold_follows_level_and_noise(noise: float, gain: float) -> None:
    speech = sound(30, (3, 5), (9.5, 10.5), (19, 21), (28, 30)) - sound(30)
    samples = gain * (speech + noise * np.random.default_rng(1).standard_normal(len(speech)))
    found = windows(samples.astype(np.float32), Cutting(longest_s=2.5))
    assert close(seconds(found), [(3, 5), (9.5, 10.5), (19, 21), (28, 30)])


def test_a_short_last_block_is_judged_by_what_came_before() -> None:
    samples = sound(10.3, (1, 2))  # the last 0.3 s alone have no contrast
    assert close(seconds(windows(samples)), [(1, 2)])


# Windows -----------------------------------------------------------------------------------------------------------


def test_windows_are_runs_of_pieces_up_to_the_longest() -> None:
    samples = sound(14, (1, 3), (4, 6), (7, 9), (12, 13))
    runs = [(1, 3), (1, 6), (4, 6), (1, 9), (4, 9), (7, 9), (7, 13), (12, 13)]
    assert close(seconds(windows(samples, Cutting(longest_s=8.2))), runs)
    shorter = Cutting(longest_s=1.5, window_s=1.5)  # pieces of two seconds are too long: stretches, up to their ends
    stretches = [(start, start + 1.5) for at in (1, 4, 7) for start in (at, at + 0.5)]
    assert close(seconds(windows(samples, shorter)), [*stretches, (12, 13)])


def test_a_window_holds_no_pause_much_longer_than_those_around_it() -> None:
    pause, around = 0.4, 0.4 / PAUSE_RATIO
    for before, kept in ((around + 0.1, True), (around - 0.04, False)):
        a, b = (1, 2), (2 + pause, 3 + pause)
        next_one = (b[1] + 1, b[1] + 2)
        first = (0, 1 - before)
        found = seconds(windows(sound(8, first, a, b, next_one), Cutting(longest_s=2.6)))
        assert any(close([window], [(a[0], b[1])]) for window in found) is kept
    wide = sound(9, (0, 1), (1 + PAUSE_S + 0.1, 3), (5.5, 6))  # a long pause inside, but half a second may end anything
    assert any(close([window], [(1.6, 6)]) for window in seconds(windows(wide)))


def test_speech_without_pauses_is_cut_into_overlapping_stretches() -> None:
    found = seconds(windows(sound(40, (2, 33.5)), Cutting(window_s=5, hop_s=2)))
    starts = [start for start, _ in found]
    assert starts[0] == pytest.approx(2, abs=0.05) and found[-1][1] == pytest.approx(33.5, abs=0.05)
    assert all(end - start == pytest.approx(5) for start, end in found)
    assert np.diff(starts[:-1]) == pytest.approx(2) and 0 < starts[-1] - starts[-2] <= 2


@pytest.mark.parametrize("length", [0.4, 2.0, 4.0, 7.31, 64.003])
@pytest.mark.parametrize(("window_s", "hop_s"), [(2.0, 0.5), (2.0, 2.0), (5.0, 1.0), (1.5, 0.4)])
def test_without_silences_windows_cover_the_recording(length: float, window_s: float, hop_s: float) -> None:
    samples = babble(length)
    covered = np.full(len(samples), np.nan, np.float32)
    found = windows(samples, Cutting(silence_s=None, window_s=window_s, hop_s=hop_s))
    for window in found:
        np.testing.assert_array_equal(window.samples, samples[window.start : window.end])  # it is where it says it is
        covered[window.start : window.end] = window.samples
        assert len(window.samples) == min(len(samples), round(window_s * RATE))
    np.testing.assert_array_equal(covered, samples)
    starts = [window.start for window in found]
    assert starts == sorted(set(starts))
    assert all(b - a <= hop_s * RATE + 1 for a, b in itertools.pairwise(starts))


@pytest.mark.parametrize("cutting", [Cutting(), FIXED, Cutting(longest_s=3, window_s=2, hop_s=0.5, silence_s=0.3)])
@pytest.mark.parametrize("seed", range(4))
def test_windows_do_not_depend_on_the_chunks(cutting: Cutting, seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = babble(rng.uniform(5, 95), seed)
    whole = windows(samples, cutting)
    assert len(whole) > 3
    for count in (3, 40, 2_000):
        found = windows(divided(samples, rng, count), cutting)
        assert [w[:2] for w in found] == [w[:2] for w in whole]
        for window, other in zip(found, whole, strict=True):
            np.testing.assert_array_equal(window.samples, other.samples)
    for window in whole:
        np.testing.assert_array_equal(window.samples, samples[window.start : window.end])
    ends = [(window.end, window.start) for window in whole]
    assert ends == sorted(set(ends))


@pytest.mark.parametrize("cutting", [Cutting(), FIXED, Cutting(silence_s=2.0)])
def test_windows_come_soon_and_little_is_kept(cutting: Cutting) -> None:
    samples, size = babble(300, 3), RATE // 4
    given = 0

    def live() -> Iterator[np.ndarray]:
        nonlocal given
        for start in range(0, len(samples), size):
            given = min(len(samples), start + size)
            yield samples[start:given]

    unbroken = cutting.longest_s - cutting.window_s if cutting.silence_s else 0  # until speech is known to be
    wait = BLOCK_S + max(PAUSE_S, cutting.silence_s or 0, unbroken) + 0.25 + 0.1  # a chunk, and the margins of a piece
    for block in cut(live(), RATE, cutting):
        for window in block:
            assert given - window.end <= wait * RATE
            held = window.samples.base if window.samples.base is not None else window.samples
            assert held.nbytes <= 4 * RATE * (2 * BLOCK_S + 2 * cutting.longest_s)


# Moments -----------------------------------------------------------------------------------------------------------


def planted(length: float, *tones: tuple[float, float]) -> np.ndarray:
    """Somebody hums every three seconds, and here and there the tone is heard that is looked for."""
    hums = [(at, at + 2.0) for at in np.arange(0.5, length - 2.5, 3)]
    hums = [(a, b) for a, b in hums if all(b < start - 0.3 or a > end + 0.3 for start, end in tones)]
    return sound(length, *hums) + sound(length, *tones, pitch=1000) - sound(length)


def test_the_planted_moment_is_found() -> None:
    found = locate(ToneFinder(), planted(60, (31, 35)), "the tone", k=3)
    assert close([found[0][:2]], [(31, 35)])
    assert found[0].score == pytest.approx(1, abs=0.05)
    assert [m.score for m in found] == sorted((m.score for m in found), reverse=True)
    assert isinstance(found[0], Moment) and all(isinstance(value, float) for value in found[0])


def test_moments_that_overlap_are_one_moment() -> None:
    found = locate(ToneFinder(), planted(90, (10, 14), (70, 74)), "the tone", k=5)
    assert sorted(round(m.start_s) for m in found[:2]) == [10, 70] and len(found) == 5
    for one, other in itertools.combinations(found, 2):
        shared = min(one.end_s, other.end_s) - max(one.start_s, other.start_s)
        assert shared <= 0.5 * min(one.end_s - one.start_s, other.end_s - other.start_s)
    assert len(locate(ToneFinder(), sound(5, (1, 2)), "the tone", k=50)) == 1


def test_the_best_of_overlapping_windows_stands_for_its_moment() -> None:
    start, end = np.array([0.0, 2, 2.1, 8, 0]), np.array([4.0, 6, 6, 9, 20])
    found = best_moments(start, end, np.array([0.3, 0.9, 0.8, 0.5, 0.7]), 5)
    assert [m[:2] for m in found] == [(2, 6), (8, 9), (0, 4)]  # half of the first is shared: it is one of its own
    tied = best_moments(start, end, np.zeros(5), 2)
    assert [m[:2] for m in tied] == [(0, 4), (2, 6)]


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_file_an_array_and_chunks_give_the_same(rate: int, tmp_path: Path) -> None:
    samples = sound(75, (3, 8), (12, 40), (60, 61), rate=rate) + sound(75, (52, 56), pitch=1000, rate=rate)
    path = tmp_path / "long.wav"
    soundfile.write(path, samples, rate, subtype="FLOAT")
    chunks = divided(samples, np.random.default_rng(0), 300)
    items = [
        path,
        str(path),
        samples,
        {"array": samples, "sampling_rate": rate},
        {"bytes": path.read_bytes(), "path": None},
        {"bytes": None, "path": str(path)},
        chunks,
        iter(chunks),
    ]
    first, *others = [encode_recording(ToneFinder(), item, sampling_rate=rate) for item in items]
    assert close([first.locate("the tone", k=1)[0][:2]], [(52, 56)]) and first.duration_s == pytest.approx(75, abs=1e-3)
    for other in others:
        for name in ("start_s", "end_s", "vectors", "duration_s"):
            np.testing.assert_array_equal(getattr(first, name), getattr(other, name))


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_live_sound_gives_what_the_recording_gives(model: CLASP, clips: list[Clip], rate: int) -> None:
    pause = np.zeros(5_000, np.float32)
    long = np.concatenate([part for clip in 2 * clips for part in (pause, clip.samples)])
    samples = long if rate == RATE else resample(long, RATE, rate)
    offline = encode_recording(model, samples, sampling_rate=rate)
    rng = np.random.default_rng(rate)
    for count in (5, 700):
        live = list(stream_windows(model, divided(samples, rng, count), rate))
        assert [w.start_s for w in live] == offline.start_s.tolist()
        assert [w.end_s for w in live] == offline.end_s.tolist()
        np.testing.assert_array_equal(np.stack([w.vector for w in live]), offline.vectors)
    query = clips[1].text
    assert offline.locate(query) == locate(model, divided(samples, rng, 50), query, sampling_rate=rate)


def test_a_window_is_out_before_the_sound_ends(model: CLASP, clips: list[Clip]) -> None:
    pause, given = np.zeros(RATE, np.float32), [0]

    def live() -> Iterator[np.ndarray]:
        while True:  # a microphone has no end
            for clip in clips:
                given[0] += 1
                yield np.concatenate([clip.samples, pause])

    first = next(stream_windows(model, live()))
    assert first.vector.shape == (model.dimension,) and given[0] < 8


def test_a_window_has_the_score_of_its_samples(model: CLASP, clips: list[Clip]) -> None:
    """Windows are encoded as clips are: what lies beside them changes nothing."""
    samples = np.concatenate([part for clip in clips for part in (np.zeros(8_000, np.float32), clip.samples)])
    encoded = encode_recording(model, samples)
    parts = [samples[round(a * RATE) : round(b * RATE)] for a, b in zip(encoded.start_s, encoded.end_s, strict=True)]
    np.testing.assert_allclose(encoded.vectors, model.encode_speech(parts), atol=1e-4)
    text = clips[3].text
    np.testing.assert_allclose(
        encoded.scores(text), model.similarity(model.encode_text([text]), encoded.vectors)[0], atol=1e-6
    )
    assert len(encoded) == len(encoded.start_s) == len(encoded.end_s)


def test_a_recording_is_encoded_once_for_many_queries(clips: list[Clip]) -> None:
    finder = ToneFinder()
    encoded = encode_recording(finder, planted(60, (31, 35)))
    count = len(finder.windows)
    assert count == len(encoded) > 10
    assert [encoded.locate(text, k=2) for text in ("one", "two")] == 2 * [encoded.locate("three", k=2)]
    assert len(finder.windows) == count


def test_a_query_may_be_spoken(model: CLASP, clips: list[Clip], tmp_path: Path) -> None:
    samples = np.concatenate([part for clip in clips for part in (np.zeros(8_000, np.float32), clip.samples)])
    encoded = encode_recording(model, samples)
    path = tmp_path / "query.wav"
    soundfile.write(path, clips[3].samples, RATE, subtype="FLOAT")
    asked = encoded.locate(path)
    assert asked == encoded.locate(clips[3].samples) == locate(model, samples, path)
    assert asked == encoded.locate({"array": clips[3].samples, "sampling_rate": RATE})
    scores = encoded.vectors @ model.encode_speech([path])[0]
    assert asked == best_moments(encoded.start_s, encoded.end_s, scores, 3)
    assert encoded.locate(str(path)) != asked  # a string is always a text


def test_silence_is_passed_over() -> None:
    samples = sound(40, (33, 37), pitch=1000)
    samples[: 30 * RATE] = 0
    for cutting in (None, FIXED):
        finder = ToneFinder()
        assert round(locate(finder, samples, "the tone", k=1, cutting=cutting)[0].start_s) == 33
        assert len(finder.windows) == (1 if cutting is None else 10)  # of 37; those that start at 27 s and later


@pytest.mark.parametrize("cutting", [None, FIXED])
def test_noise_alone_gives_moments_and_no_error(cutting: Cutting | None) -> None:
    found = locate(ToneFinder(), sound(35), "the tone", cutting=cutting)
    assert len(found) == 3 and all(m.score < 0.1 for m in found)


def test_an_expected_length_decides_between_windows_as_near() -> None:
    samples = planted(60, (10, 12), (31, 37))
    for length_s, at in ((2, 10), (6, 31), (5.0, 31)):
        for found in (
            locate(ToneFinder(), samples, "the tone", length_s=length_s),
            encode_recording(ToneFinder(), samples).locate("the tone", length_s=length_s),
        ):
            assert found[0].start_s == pytest.approx(at, abs=0.1)
            cost = LENGTH_WEIGHT * np.log((found[0].end_s - found[0].start_s) / length_s) ** 2
            assert found[0].score == pytest.approx(1 - cost, abs=0.05)
    for bad in (0, -1.0, float("nan"), float("inf"), "2"):
        with pytest.raises(ClaspError, match="length_s is"):
            locate(ToneFinder(), samples, "the tone", length_s=bad)  # type: ignore[arg-type]


# Persian -----------------------------------------------------------------------------------------------------------


def test_a_persian_query_is_taken(model: CLASP, clips: list[Clip]) -> None:
    samples = np.concatenate([part for clip in clips for part in (np.zeros(8_000, np.float32), clip.samples)])
    assert len(locate(model, samples, "کتاب‌های من کجاست؟")) == 3


# With a transcript -------------------------------------------------------------------------------------------------


class Letters:
    """A recogniser that reads a letter in a tone of 1 000 Hz, and nothing elsewhere."""

    name, sampling_rate = "letters", RATE

    def transcribe(self, waves: list[np.ndarray], batch_size: int = 16, show_progress_bar: bool = False) -> list[str]:
        return ["tone" if share > 0.5 else "" for share, _ in ToneFinder().encode_speech(waves)]


def test_a_transcript_is_added_to_what_is_heard(model: CLASP, clips: list[Clip]) -> None:
    waves = [clip.samples for clip in clips[:3]] + [sound(1, (0, 1), pitch=1000)]
    both = WithTranscript(model, Letters(), weight=0.5)
    heard, read = model.encode_speech(waves), model.encode_text([".", ".", ".", "tone"])
    expected = heard + 0.5 * read
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(both.encode_speech(waves), expected, atol=1e-5)
    np.testing.assert_array_equal(both.encode_text(["a query"]), model.encode_text(["a query"]))
    silent = WithTranscript(model, Letters(), weight=0)
    np.testing.assert_allclose(silent.encode_speech(waves), heard, atol=1e-6)
    assert len(locate(both, planted(20, (8, 10)), "tone")) == 3


def test_a_transcript_that_does_not_fit_is_refused(model: CLASP) -> None:
    with pytest.raises(ClaspError, match="weight is -1"):
        WithTranscript(model, Letters(), weight=-1)
    slow = Letters()
    slow.sampling_rate = 8_000
    with pytest.raises(ClaspError, match="letters hears 8000 Hz"):
        WithTranscript(model, slow)


# Bad input ---------------------------------------------------------------------------------------------------------


def test_silence_throughout_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "silent.wav"
    soundfile.write(path, np.zeros(20 * RATE), RATE)
    faint = 1e-7 * np.random.default_rng(0).standard_normal(20 * RATE).astype(np.float32)
    for cutting in (None, FIXED):
        with pytest.raises(AudioError, match=r"silent\.wav: is silent throughout"):
            locate(ToneFinder(), path, "the tone", cutting=cutting)
        for bad in (np.zeros(20 * RATE, np.float32), [np.zeros(20 * RATE, np.float32)], [faint]):
            with pytest.raises(AudioError, match="silent"):
                locate(ToneFinder(), bad, "the tone", cutting=cutting)


def test_bad_chunks_are_named_by_their_number() -> None:
    good = [sound(1, (0, 1)) for _ in range(9)]
    broken = [chunk.copy() for chunk in good]
    broken[7][5] = np.nan
    for chunks, message in (
        (broken, "chunk number 7: holds NaN"),
        ([*good[:2], np.ones((2, 100))], r"chunk number 2: has shape \(2, 100\)"),
        ([np.ones(10, bool)], "chunk number 0: holds bool"),
        ([0.1, 0.2], "chunk number 0: is a float"),
        (["one", "two"], "chunk number 0: is a str"),
        ([], "holds no samples"),
        (iter([]), "holds no samples"),
        ([np.zeros(0, np.float32)], "holds no samples"),
        ([good[0][:100]], "too short"),
    ):
        with pytest.raises(AudioError, match=message):
            encode_recording(ToneFinder(), chunks)  # type: ignore[arg-type]
    for rate, message in ((0, "0 Hz"), (16_000.0, "whole number"), (True, "whole number"), (None, "None")):
        with pytest.raises(AudioError, match=message):
            list(stream_windows(ToneFinder(), good, rate))  # type: ignore[arg-type]


def test_integer_chunks_are_pulse_code() -> None:
    samples = sound(12, (3, 5), pitch=1000)
    pulses = np.round(samples * 32_767).astype(np.int16)
    assert [m[:2] for m in locate(ToneFinder(), np.split(pulses, 6), "the tone")] == [
        m[:2] for m in locate(ToneFinder(), samples, "the tone")
    ]


@pytest.mark.parametrize("k", [0, -1, 2.0, True, "3"])
def test_a_number_of_moments_that_makes_no_sense_is_refused(k: object) -> None:
    encoded = encode_recording(ToneFinder(), sound(6, (1, 2)))
    for ask in (lambda: locate(ToneFinder(), sound(6), "the tone", k), lambda: encoded.locate("the tone", k)):  # type: ignore[arg-type]
        with pytest.raises(ClaspError, match="k is"):
            ask()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"silence_s": 0}, "silence_s is 0"),
        ({"silence_s": 0.05}, r"silence_s is 0\.05"),
        ({"shortest_s": 0}, "shortest_s 0"),
        ({"shortest_s": 4, "longest_s": 3}, "shortest_s 4"),
        ({"longest_s": 61}, "longest_s 61"),
        ({"window_s": 0}, "window_s 0"),
        ({"hop_s": 0}, "hop_s 0"),
        ({"hop_s": 6.0}, r"hop_s 6\.0"),
        ({"window_s": 61.0}, r"window_s 61\.0"),
        ({"window_s": float("nan")}, "window_s is nan"),
        ({"hop_s": "1"}, "hop_s is '1'"),
        ({"hop_s": True}, "hop_s is True"),
    ],
)
def test_a_cutting_that_makes_no_sense_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ClaspError, match=message):
        Cutting(**options)


def test_a_bad_recording_or_query_is_refused(model: CLASP, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("not audio")
    whole = tmp_path / "whole.wav"
    soundfile.write(whole, sound(30, (2, 3)), RATE)
    (tmp_path / "broken.wav").write_bytes(whole.read_bytes()[:-20_000])
    for bad, message in (
        (tmp_path / "missing.wav", "missing.wav"),
        (tmp_path / "text.wav", "text.wav"),
        (tmp_path / "broken.wav", "truncated"),
        (None, "None"),
        (7, "int object"),
        (np.ones((2, 30_000), np.float32), "one channel"),
    ):
        with pytest.raises(AudioError, match=message.replace(".", r"\.")):
            locate(model, bad, "a query")  # type: ignore[arg-type]
    for query in (" ", None):
        with pytest.raises(TextError):
            locate(model, sound(6, (1, 2)), query)  # type: ignore[arg-type]
    with pytest.raises(AudioError, match=r"missing\.wav"):
        locate(model, sound(6, (1, 2)), tmp_path / "missing.wav")


# An hour -----------------------------------------------------------------------------------------------------------

_MEASURE = """
import json, re, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from clasp_lib import CLASP
from clasp_lib.localization import encode_recording
model = CLASP.from_pretrained("pocket-search-linear", device="cpu")
def peak():  # of this process alone; ru_maxrss would begin with that of the process that started it
    return int(re.search("VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
loaded = peak()
before = time.process_time()
encoded = encode_recording(model, sys.argv[1], show_progress_bar=False)
print(json.dumps({"loaded": loaded, "peak": peak(), "n": len(encoded),
                  "duration_s": encoded.duration_s, "cpu_s": time.process_time() - before}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_an_hour_is_encoded_in_less_than_a_gigabyte(tmp_path: Path) -> None:
    """The whole process, libraries and model included; and it grows by little more than one batch."""
    clips = get_profile("pocket").dataset()["test"]
    waves = [load_audio(item) for item in clips["audio"]]
    path = tmp_path / "hour.flac"
    joined = [one for seed in range(2) for one in join_all(waves, list(clips["text"]), minutes=5, seed=seed)]
    lasts = np.cumsum([one.duration_s for one in joined])
    with soundfile.SoundFile(path, "w", 44_100, 1) as file:
        for one in joined[: int(np.searchsorted(lasts, 3_600)) + 1]:
            file.write(resample(one.samples, RATE, 44_100))
    run = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(path)],
        capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    found = json.loads(run.stdout.splitlines()[-1])
    print(found)
    assert found["duration_s"] > 3_590 and 1_500 < found["n"] < 5_000
    assert found["peak"] - found["loaded"] < 150_000  # kilobytes; the samples alone would take 230 000
    assert found["peak"] < 1_048_576
