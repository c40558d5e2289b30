"""Laws of sound: how a recording arrives changes nothing, what is stored comes back, windows lie where they say."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import assume
from hypothesis import strategies as st

from clasp_lib.audio import encode_audio, load_audio, resample, stream_audio, stream_chunks
from clasp_lib.errors import ClaspError
from clasp_lib.localization.cutting import Cutting, Window
from clasp_lib.localization.moments import OVERLAP, best_moments
from clasp_lib.localization.windows import cut
from hard.properties import holds

RATE = 1_000  # Hz: little work, and every length in seconds is a whole number of samples


@st.composite
def recordings(draw: st.DrawFn, longest_s: int = 45) -> np.ndarray:
    """Speech-like noise, silences, hiss and clicks in any order, float32 (samples,) at `RATE`."""
    stretches = draw(
        st.lists(
            st.tuples(st.sampled_from(["speech", "silence", "hiss", "click"]), st.integers(1, 1200)),
            min_size=1,
            max_size=14,
        )
    )
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    parts = []
    for kind, hundredths in stretches:
        length = 10 if kind == "click" else hundredths * RATE // 100
        level = {"speech": 0.3, "silence": 0.0, "hiss": 0.003, "click": 0.8}[kind]
        parts.append(level * rng.standard_normal(length))
    return np.concatenate(parts)[: longest_s * RATE].astype(np.float32)


@st.composite
def cuttings(draw: st.DrawFn) -> Cutting:
    """Any that is allowed."""

    def tenths(least: int, most: int) -> float:
        return draw(st.integers(least, most)) / 10

    shortest, further, hop = draw(st.integers(1, 30)), draw(st.integers(0, 50)), draw(st.integers(1, 60))
    window = tenths(max(shortest, hop), 80)
    silence = draw(st.one_of(st.none(), st.sampled_from([0.1, 0.14, 0.3, 1.0])))
    return Cutting(silence, shortest / 10, (shortest + further) / 10, window, hop / 10)


def pieces(samples: np.ndarray, cuts: Iterable[int]) -> list[np.ndarray]:
    """The same samples in chunks, some of which may be empty."""
    return np.split(samples, sorted(min(c, len(samples)) for c in cuts))


def found(chunks: Iterable[np.ndarray], cutting: Cutting) -> list[Window]:
    return [window for windows in cut(chunks, RATE, cutting) for window in windows]


CUTS = st.lists(st.integers(0, 45 * RATE), max_size=8)


@holds(24, samples=recordings(), cutting=cuttings(), cuts=CUTS)
def test_windows_lie_in_the_recording_and_do_not_depend_on_its_chunks(
    samples: np.ndarray, cutting: Cutting, cuts: list[int]
) -> None:
    whole = found([samples], cutting)
    for window in whole:
        assert 0 <= window.start < window.end <= len(samples)
        np.testing.assert_array_equal(window.samples, samples[window.start : window.end])
        length = (window.end - window.start) / RATE
        most = max(cutting.window_s, 0 if cutting.silence_s is None else cutting.longest_s)
        assert cutting.shortest_s - 1e-9 <= length <= most + 1e-9
    ends = [(window.end, window.start) for window in whole]
    assert len(set(ends)) == len(ends)
    divided = found(pieces(samples, cuts), cutting)
    assert [window[:2] for window in divided] == [window[:2] for window in whole]
    for one, other in zip(divided, whole, strict=True):
        np.testing.assert_array_equal(one.samples, other.samples)


@holds(16, samples=recordings(), cutting=cuttings())
def test_no_long_stretch_of_speech_is_in_no_window(samples: np.ndarray, cutting: Cutting) -> None:
    """Where somebody speaks on for longer than the shortest window and its margins, some window has heard it."""
    heard = np.zeros(len(samples), bool)
    for window in found([samples], cutting):
        heard[window.start : window.end] = True
    loud = np.abs(samples) > 0.05
    steps = np.flatnonzero(np.diff(np.r_[0, np.convolve(loud, np.ones(21), "same") > 0, 0]))
    for start, end in zip(steps[::2], steps[1::2], strict=True):  # runs without a pause of 20 ms
        if end - start > (max(cutting.shortest_s, cutting.hop_s) + 0.2) * RATE:
            assert heard[start:end].any(), f"nothing of {start} to {end}"


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = draw(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20), st.integers(-5, 5)), max_size=30))
    start, length, score = (np.array(column, float) for column in zip(*rows, strict=True)) if rows else np.zeros((3, 0))
    return start, start + length, score


@holds(40, windows=scored(), k=st.integers(1, 6))
def test_moments_are_the_best_windows_that_do_not_overlap(
    windows: tuple[np.ndarray, np.ndarray, np.ndarray], k: int
) -> None:
    start, end, score = windows
    best = best_moments(start, end, score, k)
    assert len(best) <= min(k, len(start)) and (len(best) > 0) == (len(start) > 0)
    assert [m.score for m in best] == sorted((m.score for m in best), reverse=True)

    def shared(one: tuple, other: tuple) -> float:
        return min(one[1], other[1]) - max(one[0], other[0])

    def about_the_same(one: tuple, other: tuple) -> bool:
        return shared(one, other) > OVERLAP * min(one[1] - one[0], other[1] - other[0])

    for i, moment in enumerate(best):
        assert not any(about_the_same(moment, other) for other in best[:i])
    if len(best) < k:  # nothing is left that could stand beside them
        for window in zip(start, end, score, strict=True):
            assert any(about_the_same(window, moment) for moment in best)
    assert best_moments(start, end, score, k + 1)[: len(best)] == best


SOUNDS = st.builds(
    lambda n, seed, level: (level * np.random.default_rng(seed).standard_normal(n)).astype(np.float32),
    st.integers(900, 6_000),
    st.integers(0, 99),
    st.sampled_from([1e-3, 0.1, 0.3]),
)
RATES = st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100])


@holds(16, samples=SOUNDS, rate=RATES, target=RATES, cuts=st.lists(st.integers(0, 6_000), max_size=6))
def test_sound_in_chunks_is_the_same_sound(samples: np.ndarray, rate: int, target: int, cuts: list[int]) -> None:
    whole = np.concatenate([np.zeros(0, np.float32), *stream_chunks([samples], rate, target)])
    parts = np.concatenate([np.zeros(0, np.float32), *stream_chunks(pieces(samples, cuts), rate, target)])
    np.testing.assert_array_equal(parts, whole)
    at_once = resample(samples, rate, target)
    both = min(len(whole), len(at_once))
    np.testing.assert_allclose(whole[:both], at_once[:both], atol=1e-5)
    assert abs(len(whole) - len(samples) * target / rate) <= 2


@holds(12, samples=SOUNDS, rate=RATES, format=st.sampled_from(["WAV", "FLAC"]), block=st.integers(1, 40))
def test_lossless_files_give_back_what_was_stored(samples: np.ndarray, rate: int, format: str, block: int) -> None:
    assume(len(samples) >= 0.05 * rate)
    item = {"bytes": encode_audio(samples, rate, format), "path": f"sound.{format.lower()}"}
    loaded = load_audio(item, rate)
    np.testing.assert_allclose(loaded, np.clip(samples, -1, 1), atol=1 / 32_000)
    streamed = np.concatenate(list(stream_audio(item, block / 100, rate)))
    np.testing.assert_array_equal(streamed, loaded)
    again = load_audio({"bytes": encode_audio(loaded, rate, format)}, rate)
    np.testing.assert_allclose(again, loaded, atol=1 / 32_000)


@holds(24, samples=SOUNDS, kind=st.sampled_from([np.int8, np.int16, np.int32, np.float32, np.float64]), rate=RATES)
def test_arrays_of_all_kinds_are_the_same_sound(samples: np.ndarray, kind: type, rate: int) -> None:
    assume(len(samples) >= 0.05 * rate)
    samples = np.clip(samples, -0.99, 0.99)
    whole = np.issubdtype(kind, np.integer)
    scale = -float(np.iinfo(kind).min) if whole else 1.0
    array = np.round(samples.astype(np.float64) * scale).astype(kind) if whole else samples.astype(kind)
    assume(np.ptp(array) > 0)
    loaded = load_audio(array, rate, source_rate=rate)
    assert loaded.dtype == np.float32
    np.testing.assert_allclose(loaded, samples, atol=0.51 / scale + 1e-6 if whole else 1e-7)


@pytest.mark.parametrize("seconds", [3.0, 7.5])
def test_a_piece_between_the_longest_window_and_a_stretch_is_one_window(seconds: float) -> None:
    """It is too long for a run of pieces and too short for a stretch of `window_s`: it is taken as it is."""
    rng = np.random.default_rng(0)
    speech = 0.3 * rng.standard_normal(round(seconds * RATE))
    samples = np.concatenate([np.zeros(RATE), speech, np.zeros(RATE)]).astype(np.float32)
    for hop_s in (0.5, 8.0):
        (window,) = found([samples], Cutting(longest_s=2.0, window_s=8.0, hop_s=hop_s))
        assert abs(window.start - RATE) <= 60 and abs(window.end - (1 + seconds) * RATE) <= 60


def test_windows_that_could_never_be_made_are_refused() -> None:
    with pytest.raises(ClaspError, match=r"shortest_s 6\.0 .*window_s 5\.0"):
        Cutting(shortest_s=6.0, longest_s=10.0)
