"""Waveform to picture to vector: a frozen EfficientNet looks at the spectrogram."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

from clasp_lib.audio import SAMPLING_RATE
from clasp_lib.encoders.checkpoints import digest_of, resolve
from clasp_lib.errors import CheckpointError

MEL_BANDS, WINDOW, HOP, FLOOR_DB, SECONDS = 128, 400, 160, 80.0, 10.0
"""The clean picture path: 25 ms window and 10 ms hop at 16 kHz, 80 dB of range, 10 seconds."""

_N_FFT = 1024  # longer than the window, so that the lowest mel bands do not fall between two bins


def log_mel(wave: np.ndarray | torch.Tensor, device: str | torch.device = "cpu") -> torch.Tensor:
    """Log-mel spectrogram of `(samples,)` at 16 kHz: `(128, frames)` in dB below the loudest point, 0 down to -80."""
    signal = torch.as_tensor(wave, dtype=torch.float32, device=device)
    window = torch.hann_window(WINDOW, device=device)
    if len(signal) < _N_FFT:
        signal = functional.pad(signal, (0, _N_FFT - len(signal)))
    spectrum = torch.stft(signal, _N_FFT, HOP, WINDOW, window, return_complex=True)  # (bins, frames)
    mel = _filters().to(device).T @ spectrum.abs().square()  # (bands, frames)
    decibels = 10 * torch.log10(mel.clamp_min(1e-30))  # far below the floor, however faint the clip
    return (decibels - decibels.max()).clamp_min(-FLOOR_DB)


def picture(wave: np.ndarray | torch.Tensor, size: tuple[int, int], device: str | torch.device = "cpu") -> torch.Tensor:
    """The spectrogram as a grey picture, low frequencies at the bottom: `(height, width)` in [0, 1].

    The clip is cut, or filled up with the floor, to 10 seconds, so that time has the same scale in every picture.
    """
    mel = log_mel(wave, device)
    frames = round(SECONDS * SAMPLING_RATE / HOP)
    mel = functional.pad(mel[:, :frames], (0, max(0, frames - mel.shape[1])), value=-FLOOR_DB)
    grey = (mel.flip(0) / FLOOR_DB + 1)[None, None]  # (1, 1, bands, frames)
    return functional.interpolate(grey, size, mode="bilinear", antialias=True)[0, 0]


class SpectrogramEncoder:
    """Any EfficientNet of timm on the picture of the spectrogram.

    Its vector is what the classifier puts out, before any softmax, as in CLASP (Abootorabi and Asgari 2025).

    Args:
        name: "pocket-efficientnet", a local folder as timm saves it for the hub, "hf-hub:..." or a timm model name.
        device: the GPU where there is one if not given.

    Raises:
        CheckpointError: no such checkpoint.
    """

    def __init__(self, name: str, *, device: str | torch.device | None = None) -> None:
        import timm

        self.name = name
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        source = resolve(name)
        try:
            folder = Path(source)
            model = timm.create_model(f"local-dir:{folder}" if folder.is_dir() else source, pretrained=True)
        except Exception as error:  # timm and the hub raise many kinds, RuntimeError and OSError among them
            raise CheckpointError(f"{name}: cannot be loaded as a picture encoder ({error}).") from error
        self._model = model.to(self.device).eval().requires_grad_(False)
        data = timm.data.resolve_data_config(model=model)
        self.size: tuple[int, int] = tuple(data["input_size"][1:])
        self._mean = torch.tensor(data["mean"], device=self.device)[:, None, None]  # (3, 1, 1)
        self._std = torch.tensor(data["std"], device=self.device)[:, None, None]
        self.dimension = int(model.num_classes or model.num_features)  # type: ignore[arg-type]
        self.sampling_rate = SAMPLING_RATE

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(p.numel() for p in self._model.parameters())

    @cached_property
    def digest(self) -> str:
        """Of the weights; features and indexes are only as good as long as it stays."""
        return digest_of(self._model)

    @torch.inference_mode()
    def encode(self, waves: Sequence[np.ndarray], batch_size: int = 16, show_progress_bar: bool = False) -> np.ndarray:
        """Waves at 16 kHz, each `(samples,)`, to float32 vectors `(n, dimension)`."""
        vectors = np.zeros((len(waves), self.dimension), np.float32)
        starts = range(0, len(waves), batch_size)
        for start in tqdm(starts, desc="picture", unit="batch", disable=not show_progress_bar):
            batch = waves[start : start + batch_size]
            grey = torch.stack([picture(wave, self.size, self.device) for wave in batch])  # (clips, height, width)
            pixels = (grey[:, None] - self._mean) / self._std  # (clips, 3, height, width)
            vectors[start : start + len(batch)] = self._model(pixels).float().cpu().numpy()
        return vectors


@cache
def _filters() -> torch.Tensor:
    from transformers.audio_utils import mel_filter_bank

    bank = mel_filter_bank(
        _N_FFT // 2 + 1, MEL_BANDS, 20.0, SAMPLING_RATE / 2, SAMPLING_RATE, norm="slaney", mel_scale="slaney"
    )
    return torch.from_numpy(bank).float()  # (bins, bands)
