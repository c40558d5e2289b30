"""The reference's picture: decibels as librosa has them, matplotlib as librosa uses it, torch as matplotlib draws."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from conftest import RATE, Clip

from clasp_lib.audio import resample
from clasp_lib.encoders.drawing import (
    HEIGHT,
    PICTURE_RATE,
    WIDTH,
    _clock,
    _drawn,
    draw,
    draw_with_matplotlib,
    reference_decibels,
)
from clasp_lib.errors import MissingDependencyError


@pytest.fixture(scope="module")
def waves(clips: list[Clip]) -> list[np.ndarray]:
    """Spoken clips of mixed lengths, then what has only one sign of decibels: a faint clip and loud noise."""
    spoken = [resample(clip.samples, RATE, PICTURE_RATE) for clip in clips]
    noise = 0.3 * np.random.default_rng(0).standard_normal(PICTURE_RATE).astype(np.float32)
    return [*spoken, 1e-4 * spoken[0], noise]


@pytest.fixture(scope="module")
def plain(waves: list[np.ndarray]) -> list[np.ndarray]:
    return [draw_with_matplotlib(wave, labels=False) for wave in waves]


def difference(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Mean over all values, of 0 to 255, and share of the pixels in which a colour is off by more than 8."""
    off = np.abs(a.astype(int) - b.astype(int))
    return off.mean(), (off.max(axis=-1) > 8).mean()


def colours_of(image: np.ndarray) -> set[int]:
    """Each colour once, as red * 65536 + green * 256 + blue."""
    return set(np.unique(image.astype(int) @ [65_536, 256, 1]).tolist())


def test_decibels_follow_the_definition(waves: list[np.ndarray]) -> None:
    window = np.hanning(2049)[:-1]
    for wave in waves:
        padded = np.pad(wave.astype(np.float64), 1024)
        frames = [padded[start : start + 2048] * window for start in range(0, len(wave) + 1, 512)]
        expected = 10 * np.log10(np.maximum(np.abs(np.fft.rfft(frames).T) ** 2, 1e-10))
        found = reference_decibels(wave).numpy()
        assert found.shape == (1025, 1 + len(wave) // 512) and found.dtype == np.float32
        np.testing.assert_allclose(found, np.maximum(expected, expected.max() - 80), atol=1e-3)


def test_torch_draws_what_matplotlib_draws(waves: list[np.ndarray], plain: list[np.ndarray]) -> None:
    drawn = draw(waves)
    assert drawn.shape == (len(waves), HEIGHT, WIDTH, 3) and drawn.dtype == torch.uint8
    for ours, theirs in zip(drawn.numpy(), plain, strict=True):
        assert theirs.shape == (HEIGHT, WIDTH, 3)
        mean, share = difference(ours, theirs)
        assert mean < 0.01 and share < 0.0005


@pytest.mark.parametrize("frames", [3, 16, 47, 564, 1000])
def test_each_number_of_frames_fills_the_picture(frames: int, waves: list[np.ndarray]) -> None:
    wave = np.resize(np.concatenate(waves[:6]), (frames - 1) * 512 + 7)
    mean, share = difference(draw([wave])[0].numpy(), draw_with_matplotlib(wave, labels=False))
    assert mean < 0.01 and share < 0.0005


def test_a_picture_does_not_depend_on_the_clips_beside_it(waves: list[np.ndarray]) -> None:
    together = _drawn(waves, torch.device("cpu")).transpose(1, 2)  # in one batch, as on a GPU
    assert torch.equal(draw(waves), together)  # on a CPU, one by one
    for i, wave in enumerate(waves):
        assert torch.equal(draw([wave])[0], together[i])
    assert not torch.equal(together[0], together[1])
    assert draw([]).shape == (0, HEIGHT, WIDTH, 3)


def test_the_colour_map_is_chosen_by_the_signs_of_the_decibels(waves: list[np.ndarray]) -> None:
    import matplotlib

    maps = {}
    for name in ("coolwarm", "magma"):
        maps[name] = colours_of(np.floor(matplotlib.colormaps[name](np.arange(256))[:, :3] * 255 + 0.5))
    drawn = draw([*waves, 3 * waves[0], waves[1] * 1e-3, 1e3 * waves[2]])
    names = [next(name for name in maps if colours_of(image.numpy()) <= maps[name]) for image in drawn]
    assert names == ["coolwarm"] * 6 + ["magma", "magma", "coolwarm", "magma", "magma"]
    assert torch.equal(drawn[0], drawn[8])  # loudness changes the picture only through the map
    assert colours_of(drawn[0].numpy()) >= {0x3B4CC0, 0xB40426}  # both ends


def test_octaves_have_one_height_and_low_tones_are_at_the_bottom() -> None:
    time = np.arange(PICTURE_RATE) / PICTURE_RATE
    hertz = [
        4 * PICTURE_RATE / 512 * 2**octave for octave in range(5)
    ]  # the middle of a bin; higher up, some have no row
    noise = 0.05 * np.random.default_rng(0).standard_normal(PICTURE_RATE)
    drawn = draw([0.5 * np.sin(2 * np.pi * f * time) + noise for f in hertz]).float()
    red = (drawn[:, :, WIDTH // 2, 0] - drawn[:, :, WIDTH // 2, 2]).numpy()  # (tones, height)
    rows = np.array([np.mean(np.flatnonzero(tone == tone.max())) for tone in red])
    assert all(np.diff(rows) < 0)
    octaves = np.log2(11_030.38 / 65.406) + 1 + 5.38 / 65.406  # the part below 65.4 Hz is as high as one of them
    np.testing.assert_allclose(-np.diff(rows), HEIGHT / octaves, atol=3)


def test_the_labelled_picture_has_ticks_around_the_plain_one(waves: list[np.ndarray], plain: list[np.ndarray]) -> None:
    labelled = draw_with_matplotlib(waves[3])
    assert labelled.dtype == np.uint8 and labelled.shape[2] == 3
    assert 445 <= labelled.shape[0] <= 455 and 600 <= labelled.shape[1] <= 615
    left = labelled.shape[1] - WIDTH
    inside, theirs = labelled[5 : HEIGHT - 5, left + 2 : -5], plain[3][5 : HEIGHT - 5, 2:-5]
    assert np.corrcoef(inside.ravel(), theirs.ravel())[0, 1] > 0.95
    margin = labelled[:, : left - 5].reshape(-1, 3)
    assert (margin == 255).all(1).mean() > 0.8 and (margin == 0).all(1).any()  # black on white


def test_the_reader_s_theme_and_figures_are_left_alone(waves: list[np.ndarray]) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    expected = draw_with_matplotlib(waves[2])
    with matplotlib.rc_context({"font.size": 20, "figure.facecolor": "black", "savefig.dpi": 50, "axes.grid": True}):
        before = dict(matplotlib.rcParams)
        np.testing.assert_array_equal(draw_with_matplotlib(waves[2]), expected)
        assert dict(matplotlib.rcParams) == before
    gc.collect()
    alive = sum(type(thing) is Figure for thing in gc.get_objects())
    draw_with_matplotlib(waves[2])
    gc.collect()
    assert sum(type(thing) is Figure for thing in gc.get_objects()) == alive
    if "matplotlib.pyplot" in sys.modules:
        assert not sys.modules["matplotlib.pyplot"].get_fignums()


def test_threads_may_draw_at_once(waves: list[np.ndarray]) -> None:
    one_by_one = [draw_with_matplotlib(wave) for wave in waves[:3]]
    with ThreadPoolExecutor(3) as pool:
        for alone, together in zip(one_by_one, pool.map(draw_with_matplotlib, waves[:3]), strict=True):
            np.testing.assert_array_equal(alone, together)


def test_only_matplotlib_s_picture_needs_matplotlib(waves: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert draw(waves[:1]).float().std() > 10
    with pytest.raises(MissingDependencyError, match="pip install matplotlib"):
        draw_with_matplotlib(waves[0])


@pytest.mark.parametrize(
    ("seconds", "span", "label"), [(1.5, 60, "1.5"), (15, 60, "15"), (0.05, 0.9, "0.050"), (75, 90, "1:15")]
)
def test_times_are_written_as_librosa_does(seconds: float, span: float, label: str) -> None:
    assert _clock(seconds, span) == label


@pytest.fixture
def reference() -> Iterator[object]:
    """librosa, whose pictures these are, and pyplot's canvas as the reference uses it: one for all clips."""
    pytest.importorskip("librosa", reason="librosa, the reference's own way to draw, is not installed")
    import matplotlib

    matplotlib.use("Agg")
    import librosa.display
    import matplotlib.pyplot as plt

    plt.figure()
    yield librosa
    plt.close()


def test_pictures_are_those_of_librosa(waves: list[np.ndarray], reference: object) -> None:
    import io

    import matplotlib.pyplot as plt
    from PIL import Image

    for wave in waves:
        decibels = reference.amplitude_to_db(np.abs(reference.stft(wave)))  # type: ignore[attr-defined]
        np.testing.assert_allclose(reference_decibels(wave).numpy(), decibels, atol=1e-3)
        plt.clf()
        reference.display.specshow(decibels, x_axis="time", y_axis="log")  # type: ignore[attr-defined]
        plt.xlabel("")
        plt.ylabel("")
        plt.tight_layout()
        file = io.BytesIO()
        plt.savefig(file, bbox_inches="tight", pad_inches=0)
        theirs, ours = np.asarray(Image.open(file).convert("RGB")), draw_with_matplotlib(wave)
        assert theirs.shape == ours.shape
        assert difference(ours, theirs)[0] < 0.001  # a colour may be off by one where decibels are by 1e-5
