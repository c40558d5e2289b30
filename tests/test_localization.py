"""Localisation: windows cover the whole recording, and the planted moment is found."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from conftest import Clip

from clasp_lib import CLASP, Moment, locate
from clasp_lib.errors import AudioError, ClaspError, TextError
from clasp_lib.localization import _overlap, _windows

RATE = 16_000


class ToneFinder:
    """Stands in for a model: a window is as near to the query as the share of its energy at 1 000 Hz."""

    speech_encoder = SimpleNamespace(sampling_rate=RATE)

    def __init__(self) -> None:
        self.windows: list[int] = []

    def encode_text(self, texts: list[str]) -> np.ndarray:
        return np.tile(np.array([[1.0, 0.0]], np.float32), (len(texts), 1))

    def encode_speech(
        self, items: list[np.ndarray], sampling_rate: int, batch_size: int, show_progress_bar: bool
    ) -> np.ndarray:
        self.windows += [len(item) for item in items]
        out = []
        for item in items:
            time = np.arange(len(item)) / sampling_rate
            tone = 2 * np.abs(np.mean(item * np.exp(-2j * np.pi * 1000 * time))) ** 2
            share = min(1.0, float(tone / np.mean(item**2)))
            out.append((share, np.sqrt(1 - share**2)))
        return np.array(out, np.float32)


def recording(seconds: float, *tones: tuple[float, float]) -> np.ndarray:
    """Faint noise with a tone of 1 000 Hz at the given stretches."""
    time = np.arange(round(seconds * RATE)) / RATE
    samples = 0.01 * np.random.default_rng(0).standard_normal(len(time))
    for start, end in tones:
        samples += np.where((time >= start) & (time < end), 0.3 * np.sin(2 * np.pi * 1000 * time), 0)
    return samples.astype(np.float32)


# Windows -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.4, 2.0, 5.0, 7.31, 64.003])
@pytest.mark.parametrize(("window_s", "hop_s"), [(2.0, 0.5), (2.0, 2.0), (5.0, 1.0), (1.5, 0.4)])
def test_windows_cover_the_recording(seconds: float, window_s: float, hop_s: float, tmp_path: Path) -> None:
    samples = recording(seconds)
    path = tmp_path / "long.wav"
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    for source in (samples, path):
        covered = np.full(len(samples), np.nan, np.float32)
        windows = list(_windows(source, RATE, window_s, hop_s))
        for start, wave in windows:
            first = round(start * RATE)
            np.testing.assert_array_equal(wave, samples[first : first + len(wave)])  # it is where it says it is
            covered[first : first + len(wave)] = wave
            assert len(wave) == min(len(samples), round(window_s * RATE))
        np.testing.assert_array_equal(covered, samples)
        starts = [start for start, _ in windows]
        assert starts == sorted(set(starts))
        assert all(b - a <= hop_s + 1e-9 for a, b in itertools.pairwise(starts))


def test_overlap_is_measured_against_the_shorter_one() -> None:
    assert _overlap(Moment(0, 4, 0), Moment(2, 6, 0)) == 0.5
    assert _overlap(Moment(0, 10, 0), Moment(4, 6, 0)) == 1
    assert _overlap(Moment(0, 4, 0), Moment(4, 8, 0)) == 0 == _overlap(Moment(0, 1, 0), Moment(7, 8, 0))


# Moments -----------------------------------------------------------------------------------------------------------


def test_the_planted_moment_is_found() -> None:
    found = locate(ToneFinder(), recording(60, (31, 35)), "the tone", k=3, window_s=4, hop_s=1)
    assert (found[0].start_s, found[0].end_s) == (31, 35)
    assert found[0].score == pytest.approx(1, abs=0.05)
    assert [m.score for m in found] == sorted((m.score for m in found), reverse=True)
    assert isinstance(found[0], Moment)


def test_moments_that_overlap_are_one_moment() -> None:
    found = locate(ToneFinder(), recording(90, (10, 14), (70, 74)), "the tone", k=5, window_s=4, hop_s=0.5)
    assert sorted(m.start_s for m in found[:2]) == [10, 70]
    for i, moment in enumerate(found):
        assert all(_overlap(moment, other) <= 0.5 for other in found[:i])
    assert len(found) == 5
    assert len(locate(ToneFinder(), recording(5, (1, 2)), "the tone", k=50, window_s=4, hop_s=0.5)) == 1


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_file_and_an_array_give_the_same(rate: int, tmp_path: Path) -> None:
    time = np.arange(75 * rate) / rate
    samples = (0.02 * np.sin(2 * np.pi * 313 * time) + np.where((time >= 52) & (time < 56), 0.3, 0)).astype(np.float32)
    samples *= np.where((time >= 52) & (time < 56), np.sin(2 * np.pi * 1000 * time), 1).astype(np.float32)
    path = tmp_path / "long.wav"
    soundfile.write(path, samples, rate, subtype="FLOAT")
    items = [path, str(path), {"array": samples, "sampling_rate": rate}, {"bytes": path.read_bytes(), "path": None}]
    found = [locate(ToneFinder(), item, "the tone", k=2, window_s=4, hop_s=1) for item in items]
    assert found[0][0].start_s == 52
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert one == pytest.approx(two, abs=1e-3)


def test_silence_is_passed_over() -> None:
    samples = recording(40, (33, 37))
    samples[: 30 * RATE] = 0
    finder = ToneFinder()
    assert locate(finder, samples, "the tone", k=1, window_s=4, hop_s=1)[0].start_s == 33
    assert len(finder.windows) == 10  # of 37; those that start at 27 s and later
    with pytest.raises(AudioError, match="silent"):
        locate(finder, np.zeros(20 * RATE, np.float32), "the tone")


def test_a_silent_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "silent.wav"
    soundfile.write(path, np.zeros(20 * RATE), RATE)
    with pytest.raises(AudioError, match="silent"):
        locate(ToneFinder(), path, "the tone")


def test_a_real_model_reads_a_long_recording(model: CLASP, clips: list[Clip], tmp_path: Path) -> None:
    """One of the windows is exactly a clip, and its score is the cosine of clip and query."""
    clip = clips[1].samples[: len(clips[1].samples) // 2 * 2]
    others = np.tile(np.concatenate([c.samples for c in clips[2:5]]), 3)
    path = tmp_path / "long.wav"
    soundfile.write(path, np.concatenate([others[: 2 * len(clip)], clip, others]), RATE, subtype="FLOAT")
    window_s = len(clip) / RATE
    found = locate(model, path, clips[1].text, k=100, window_s=window_s, hop_s=window_s)
    scores = {round(m.start_s / window_s, 3): m.score for m in found}
    expected = model.similarity(model.encode_text([clips[1].text]), model.encode_speech([clip]))[0, 0]
    assert scores[2.0] == pytest.approx(expected, abs=1e-4)
    assert len(found) >= 6 and len({round(score, 4) for score in scores.values()}) > 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k is 0"),
        ({"k": 2.0}, r"k is 2\.0"),
        ({"window_s": 0}, "window_s 0"),
        ({"hop_s": 0}, "hop_s 0"),
        ({"hop_s": 6.0}, r"hop_s 6\.0"),
        ({"window_s": 61.0}, r"window_s 61\.0"),
        ({"window_s": float("nan")}, "window_s nan"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ClaspError, match=message):
        locate(ToneFinder(), recording(6), "the tone", **options)


def test_a_bad_recording_or_query_is_refused(model: CLASP, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("not audio")
    for bad, message in (
        (tmp_path / "missing.wav", "missing.wav"),
        (tmp_path / "text.wav", "text.wav"),
        (None, "None"),
    ):
        with pytest.raises(AudioError, match=message.replace(".", r"\.")):
            locate(model, bad, "a query")  # type: ignore[arg-type]
    with pytest.raises(TextError):
        locate(model, recording(6), " ")
