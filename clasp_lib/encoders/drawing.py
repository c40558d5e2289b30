"""The picture that the reference shows to its EfficientNet: drawn by matplotlib as there, and by torch, much faster.

CLASP's authors let `librosa.display.specshow` draw decibels over a logarithmic frequency axis.
What that does was read in librosa 0.11.0 and compared with it, pixel by pixel, under matplotlib 3.11.2. The colours
belong to the clip: blue to red ("coolwarm") if its 2nd percentile lies below 0 dB and its 98th above, black to yellow
("magma") if not, as in a faint clip; the ends of the colour map are the clip's own lowest and highest value.
"""

from __future__ import annotations

import base64
import io
import math
import threading
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from clasp_lib.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURE_RATE = 22_050
"""Sampling rate of what is drawn, in Hz."""

HEIGHT, WIDTH = 426, 564
"""The spectrogram itself, in pixels: what tick labels leave of the reference's canvas of 640 x 480."""

_N_FFT, _HOP, _FAINTEST, _RANGE_DB = 2048, 512, 1e-10, 80.0  # _FAINTEST: a power, -100 dB
_BIN = PICTURE_RATE / _N_FFT  # width of a bin in Hz
_LINEAR_BELOW = 440 * 2 ** (-33 / 12)  # the note C2, 65.4 Hz: the axis is linear below and has 2 as its base above
_LOCK = threading.Lock()  # matplotlib's settings are global


def reference_decibels(wave: np.ndarray | torch.Tensor, device: str | torch.device = "cpu") -> torch.Tensor:
    """Spectrogram of `(samples,)` at 22 050 Hz, in dB relative to 1 and at most 80 below its maximum: (1025, frames).

    The short-time Fourier transform is that of librosa 0.10 and later: Hann window of 2048 samples, hop 512, centred
    frames, zeros beyond the ends. It is computed in double precision, so that the faintest points agree too.
    """
    power = _power(torch.as_tensor(wave, device=device).double()[None])[0].mT  # (bins, frames)
    decibels = 10 * power.clamp_min(_FAINTEST).log10()
    return decibels.clamp_min(decibels.max() - _RANGE_DB).float()


def draw(waves: Sequence[np.ndarray | torch.Tensor], device: str | torch.device = "cpu") -> torch.Tensor:
    """Spectrogram pictures without ticks or frame, one for each wave `(samples,)` at 22 050 Hz.

    Each clip fills the whole width and has its own colours, whatever its length and the clips beside it. A pixel shows
    the bin and frame at its centre; nothing is averaged: at 5 kHz a row of pixels spans seven bins and shows one. That
    is what matplotlib draws without `labels`, to 0.01 of 255 on average and 0.05 % of pixels off by more than 8, save
    where a pixel's centre is the edge between two frames: here the left one is shown, there rounding errors decide.

    Returns:
        uint8 (n, 426, 564, 3), RGB, on `device`; in memory the three colours lie one after the other, as models want.
    """
    device = torch.device(device)
    pictures = torch.empty(len(waves), 3, HEIGHT, WIDTH, dtype=torch.uint8, device=device)
    together = 1 if device.type == "cpu" else 16  # what belongs to one clip fits into a CPU's cache
    for start in range(0, len(waves), together):
        batch = _drawn(waves[start : start + together], device)
        pictures[start : start + together] = batch.permute(0, 3, 2, 1)
    return pictures.permute(0, 2, 3, 1)


@torch.inference_mode()
def _drawn(waves: Sequence[np.ndarray | torch.Tensor], device: torch.device) -> torch.Tensor:
    """The pictures of `draw`, column by column: uint8 (clips, width, height, 3)."""
    lengths = torch.tensor([len(wave) for wave in waves], device=device)
    signals = torch.zeros(len(waves), int(lengths.max()), device=device)
    for signal, wave in zip(signals, waves, strict=True):
        signal[: len(wave)] = torch.as_tensor(wave)
    power = _power(signals)  # (n, frames, bins)
    frames = lengths // _HOP + 1
    padding = torch.arange(power.shape[1], device=device) >= frames[:, None]  # (n, frames)
    highest = power.amax((1, 2)).clamp_min(_FAINTEST)  # (n,)
    lowest = power.amin(2).masked_fill(padding, torch.inf).amin(1)
    lowest = torch.maximum(lowest, highest * 10 ** (-_RANGE_DB / 10)).clamp_min(_FAINTEST)
    shown = power.index_select(2, _bin_of_row().to(device))  # (n, frames, height)
    above = power.sub_(1).sign_().sum(2).masked_fill(padding, 0).sum(1)  # points above 0 dB less those below
    points = frames * power.shape[2]
    two_signs = (lowest < 1) & (above.abs() < points - 0.04 * (points - 1))  # so 2 % and more at either end

    low = lowest.log10()[:, None, None]
    scale = 256 / (highest.log10()[:, None, None] - low).clamp_min(1e-9)
    level = shown.clamp_min_(lowest[:, None, None]).log10_().sub_(low).mul_(scale).clamp_max_(255)
    level = level.int().add_(256 * (~two_signs).int()[:, None, None])
    cells = _colours().to(device).index_select(0, level.flatten()).view(-1, HEIGHT)  # (n * frames, height)
    centres = 2 * torch.arange(WIDTH, device=device) + 1  # of the columns, in half pixels
    columns = (centres * frames[:, None] - 1) // (2 * WIDTH)  # (n, width); -1: the left one
    columns += power.shape[1] * torch.arange(len(waves), device=device)[:, None]
    pixels = cells.index_select(0, columns.flatten()).view(torch.uint8)  # (n * width, height * 4)
    return pixels.view(-1, WIDTH, HEIGHT, 4)[..., :3]


def draw_with_matplotlib(wave: np.ndarray, *, labels: bool = True) -> np.ndarray:
    """Spectrogram picture of one wave `(samples,)` at 22 050 Hz as the reference has it: uint8 (height, width, 3), RGB.

    The canvas has 640 x 480 pixels and is cropped to what was drawn on it, so the size, about 450 x 610, depends a
    little on the tick labels. Without `labels` there are neither ticks nor frame, and the picture is 426 x 564.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib import style
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("matplotlib draws this picture. Run: pip install matplotlib") from error
    from PIL import Image

    file = io.BytesIO()
    with _LOCK, style.context("default"):  # whatever theme the caller's own figures have
        figure = Figure(figsize=(6.4, 4.8) if labels else (WIDTH / 100, HEIGHT / 100), dpi=100)
        axes = figure.add_subplot() if labels else figure.add_axes((0, 0, 1, 1))
        _show(axes, reference_decibels(wave).numpy())
        if labels:
            figure.tight_layout()
        else:
            axes.set_axis_off()
        crop = "tight" if labels else None
        figure.savefig(file, format="png", bbox_inches=crop, pad_inches=0, pil_kwargs={"compress_level": 0})
    return np.array(Image.open(file).convert("RGB"))


def _show(axes: Axes, decibels: np.ndarray) -> None:
    """What `specshow(decibels, x_axis="time", y_axis="log")` puts on the axes, without the names of the axes."""
    from matplotlib import ticker

    low, high = np.percentile(decibels, [2, 98])
    bins, frames = decibels.shape
    span = frames * _HOP / PICTURE_RATE  # seconds, from the left edge of the first cell to the right of the last
    times, frequencies = np.arange(frames) * _HOP / PICTURE_RATE, np.arange(bins) * _BIN  # centres of the cells
    colours = "coolwarm" if low < 0 < high else "magma"
    axes.pcolormesh(times, frequencies, decibels, shading="nearest", cmap=colours)
    axes.set_yscale("symlog", base=2, linthresh=_LINEAR_BELOW, linscale=0.5)
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda seconds, _: _clock(seconds, span)))
    axes.xaxis.set_major_locator(ticker.MaxNLocator(steps=[1, 1.5, 5, 6, 10]))
    axes.yaxis.set_major_formatter(ticker.ScalarFormatter())


def _clock(seconds: float, span: float) -> str:
    """A tick label as librosa writes it on an axis `span` seconds long."""
    if span > 60:
        return f"{int(seconds / 60)}:{int(seconds % 60):02d}"
    return f"{seconds:.2g}" if span >= 1 else f"{seconds:.3f}"


def _power(signals: torch.Tensor) -> torch.Tensor:
    """Squared magnitudes (n, frames, 1025) of the transform of `(n, samples)`."""
    window = torch.hann_window(_N_FFT, dtype=signals.dtype, device=signals.device)
    spectrum = torch.stft(signals, _N_FFT, _HOP, window=window, pad_mode="constant", return_complex=True)
    squares = torch.view_as_real(spectrum.mT).square_()  # (n, frames, 1025, 2), real and imaginary part
    return squares[..., 0] + squares[..., 1]


@cache
def _bin_of_row() -> torch.Tensor:
    """Which bin each row of pixels shows, from the top: (height,)."""
    # matplotlib's "symlog": the frequency itself up to the threshold, then as much again for every octave
    top = _LINEAR_BELOW * (1 + math.log2((PICTURE_RATE + _BIN) / 2 / _LINEAR_BELOW))
    bottom = -_BIN / 2  # the lowest cell is centred on 0 Hz
    heights = top - (torch.arange(HEIGHT, dtype=torch.float64) + 0.5) / HEIGHT * (top - bottom)
    hertz = torch.where(heights < _LINEAR_BELOW, heights, _LINEAR_BELOW * 2 ** (heights / _LINEAR_BELOW - 1))
    return (hertz / _BIN).round().long()


@cache
def _colours() -> torch.Tensor:
    """Both colour maps, one after the other, four bytes a colour (red, green, blue, 0) in one number: int32 (512,)."""
    maps = np.frombuffer(base64.b64decode(_COLOURS), np.uint8).reshape(512, 3)
    return torch.from_numpy(np.pad(maps, ((0, 0), (0, 1)))).view(torch.int32).flatten()


# matplotlib's coolwarm and magma, 256 x 3 bytes each in base 64, so that it is not needed for `draw`
_COLOURS = (
    "O0zAPE7CPVDDPlHFP1PGQFXIQlfJQ1jLRFrMRVzORl7PSF/RSWHSSmPTS2TVTGbWTmjYT2nZUGvaUW3bU27dVHDeVXLfVnPgWHXhWXfjWnjkW3rlXX"
    "zmXn3nX3/oYYDpYoLqY4TrZIXsZoftZ4juaIrvaovva43wbI/xbpDyb5LzcJPzcpX0c5b1dZf2dpn2d5r3eZz4ep34e5/5faD5fqH6gKP6gaT7gqb7"
    "hKf8haj8hqn8iKv9iaz9i639jK/+jbD+j7H+kLL+krT+k7X+lLb/lrf/l7j/mLn/mrv/m7z/nb3/nr7/n7//ocD/osH/o8L+pcP+psT+p8X+qcb9qs"
    "f9q8j9rcn9rsn8r8r8scv8ssz7s837tc36ts76t8/5udD5utD4u9H4vNL3vtL2v9P2wNT1wdT0w9X0xNXzxdbyxtbxx9fwydfwytjvy9juzNntzdns"
    "ztrrz9rq0drp0tvo09vn1Nvm1dvl1tzk19zj2Nzi2dzh2tzg29ze3N3d3dzc3tzb39vZ4NvY4drW4trV49nT5NnS5djR5tfP59fO6NbM6dXL6tXJ6t"
    "TI69PG7NPF7dLD7dHC7tDA78+/78698M278c268cy48su38sq18sm088iy88ex9Mav9MWt9cSs9cKq9cGp9cCn9r+m9r6k9r2i97yh97qf97me97ic"
    "97eb97WZ97SX97OW97GU97CT96+R962Q96yO96qM96mL96iJ96aI9qWG9qOF9qKD9aCB9Z+A9Z1+9Zx99Jp79Jh685d485V385R18pJ08pBy8Y9x8Y"
    "1v8Itu8Ips74hr7oZp7oRo7YNm7IFl7H9j631i6ntg6Xpf6Xhd6HZc53Rb5nJZ5XBY5G5W42xV42tU4mlS4WdR4GVP32NO3mFN3V9L3F1K2lpJ2VhH"
    "2FZG11RF1lJE1VBC1E5B0ktA0Uk/0Ec9z0U8zUI7zEA6yz44yjs3yDg2xzY1xTM0xDAywy4xwSswwCgvviQuvR8tuxssuhYruBIqtw0otQkntAQmAA"
    "AEAQAFAQEGAQEIAgEJAgILAgINAwMPAwMSBAQUBQQWBgUYBgUaBwYcCAceCQcgCggiCwkkDAkmDQopDgsrEAstEQwvEg0xEw00FA42FQ44Fg87GA89"
    "GRA/GhBCHBBEHRFHHhFJIBFLIRFOIhFQJBJTJRJVJxJYKRFaKhFcLBFfLRFhLxFjMRFlMxBnNBBpNhBrOBBsOQ9uOw9wPQ9xPw9yQA90Qg91RA92RR"
    "B3RxB4SRB4ShB5TBF6ThF7TxJ7URJ8UhN8VBN9VhR9VxV+WRV+WhZ+XBZ/XRd/Xxh/YBiAYhmAZBqAZRqAZxuAaByBahyBax2BbR2Bbh6BcB+Bch+B"
    "cyCBdSGBdiGBeCKBeSKCeyOCfCOCfiSCgCWCgSWBgyaBhCaBhieBiCeBiSiBiymBjCmBjiqBkCqBkSuBkyuAlCyAliyAmC2AmS2Amy5/nC5/ni9/oC"
    "9/oTB+ozB+pTF+pjF9qDJ9qjN9qzN8rTR8rjR7sDV7sjV7szZ6tTZ6tzd5uDd5ujh4vDl4vTl3vzp3wDp2wjt1xDx1xTx0xz1zyD5zyj5yzD9xzUBx"
    "z0Bw0EFv0kJv00Nu1URt1kVs2EVs2UZr20dq3Ehp3klo30po4Exn4k1m405l5E9k5VBk51Jj6FNi6VRi6lZh61dg7Fhg7Vpf7lte711e8F9e8WBd8m"
    "Jd8mRc82Vc9Gdc9Glc9Wtc9mxc9m5c93Bc93Jc+HRc+HZc+Xhd+Xld+Xtd+n1e+n9e+oFf+4Nf+4Vg+4dh/Ilh/Ipi/Ixj/I5k/JBl/ZJm/ZRn/ZZo"
    "/Zhp/Zpq/Ztr/p1s/p9t/qFu/qNv/qVx/qdy/qlz/qp0/qx2/q53/rB4/rJ6/rR7/rZ8/rd+/rl//ruB/r2C/r+E/sGF/sKH/sSI/saK/siM/sqN/s"
    "yP/s2Q/s+S/tGU/tOV/tWX/teZ/tia/dqc/dye/d6g/eCh/eKj/eOl/eWn/eep/emq/eus/Oyu/O6w/PCy/PK0/PS2/Pa4/Pe5/Pm7/Pu9/P2/"
)
