"""Waveform to picture to vector: a frozen EfficientNet looks at the spectrogram."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

from clasp_lib.audio import SAMPLING_RATE
from clasp_lib.encoders.checkpoints import Frozen, Precision, autocast, chosen_device, resolve
from clasp_lib.encoders.drawing import PICTURE_RATE, draw, draw_with_matplotlib
from clasp_lib.errors import CheckpointError, ClaspError, brief

MEL_BANDS, WINDOW, HOP, FLOOR_DB, SECONDS = 128, 400, 160, 80.0, 10.0
"""The clean picture path: 25 ms window and 10 ms hop at 16 kHz, 80 dB of range, 10 seconds."""

DRAWINGS = ("mel", "matplotlib", "tensor")
"""What the encoder can look at: the clean picture path, the reference's picture, and the same drawn by torch."""

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


class SpectrogramEncoder(Frozen):
    """Any EfficientNet of timm, or one of torchvision as in the reference, on the picture of the spectrogram.

    Its vector is what the classifier puts out, before any softmax, as in CLASP (Abootorabi and Asgari 2025).

    Args:
        name: "pocket-efficientnet", a local folder as timm saves it for the hub, "hf-hub:..." or a timm model name; or
            "torchvision/efficientnet_b7" and its like, with the weights "IMAGENET1K_V1", or the path of such a file,
            whose name begins as the published "efficientnet_b7_lukemelas-c5b4e57e.pth" does, with the model's.
        drawing: "mel" is the clean picture path. "matplotlib" is the picture of CLASP's authors,
            shown as it shows it: blue first, 0 to 255, neither resized nor normalised. "tensor" is the same picture
            without tick labels and frame, which takes much less time to draw.
        device: the GPU where there is one if not given.
        precision: see `clasp_lib.encoders.checkpoints.autocast`.

    Raises:
        CheckpointError: no such checkpoint, or a damaged one.
        ClaspError: a drawing that is not known.
    """

    def __init__(
        self,
        name: str,
        *,
        drawing: str = "mel",
        device: str | torch.device | None = None,
        precision: Precision = "float32",
    ) -> None:
        if drawing not in DRAWINGS:
            raise ClaspError(f"drawing {drawing!r} is not known. Choose one of {', '.join(map(repr, DRAWINGS))}.")
        self.name, self.drawing, self.precision = name, drawing, precision
        self.device = chosen_device(device)
        load = _from_torchvision if name.startswith("torchvision/") or name.endswith(".pth") else _from_timm
        model, self.size, mean, std, self.dimension = load(name)
        self._input = f"{self.size}, mean {mean}, deviation {std}" if drawing == "mel" else "0 to 255"
        model = model.to(self.device).eval().requires_grad_(False)
        self._model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mean = torch.tensor(mean, device=self.device)[:, None, None]  # (3, 1, 1)
        self.std = torch.tensor(std, device=self.device)[:, None, None]
        self.sampling_rate = SAMPLING_RATE if drawing == "mel" else PICTURE_RATE

    @property
    def identity(self) -> dict[str, str | int | bool]:
        """All that its vectors depend on, besides the sound."""
        return {
            "encoder": "picture",
            "weights": self.digest,
            "drawing": self.drawing,
            "input": self._input,
            "precision": self.precision,
        }

    @torch.inference_mode()
    def encode(self, waves: Sequence[np.ndarray], batch_size: int = 16, show_progress_bar: bool = False) -> np.ndarray:
        """Waves at `sampling_rate`, each `(samples,)`, to float32 vectors `(n, dimension)`, in the order given.

        Raises:
            MissingDependencyError: the drawing is "matplotlib", which is not installed.
        """
        vectors = np.zeros((len(waves), self.dimension), np.float32)
        starts = range(0, len(waves), batch_size)
        for start in tqdm(starts, desc="picture", unit="batch", disable=not show_progress_bar):
            for rows, pixels in self._pixels(waves[start : start + batch_size]):
                vectors[[start + row for row in rows]] = self.encode_pixels(pixels)
        return vectors

    @torch.inference_mode()
    def encode_pixels(self, pixels: torch.Tensor) -> np.ndarray:
        """Pictures as they are, float (n, 3, height, width), to float32 vectors `(n, dimension)`.

        `encode` hands over those of the clean path less `mean` and divided by `std`, those of the reference as bytes.
        """
        few = len(pixels) if self.device.type == "cuda" else _CPU_BATCH
        with autocast(self.device, self.precision):
            parts = [self._model(part.to(self.device, memory_format=torch.channels_last)) for part in pixels.split(few)]
        return torch.cat(parts).float().cpu().numpy()

    def _pixels(self, waves: Sequence[np.ndarray]) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
        """What the model is shown, float (clips, 3, height, width), and which of the waves: those of one size."""
        if self.drawing == "mel":
            grey = torch.stack([picture(wave, self.size, self.device) for wave in waves])  # (clips, height, width)
            yield range(len(waves)), (grey[:, None] - self.mean) / self.std
        elif self.drawing == "tensor":
            yield range(len(waves)), _blue_first(draw(waves, self.device))
        else:
            drawn = [draw_with_matplotlib(wave) for wave in waves]
            for size in dict.fromkeys(image.shape for image in drawn):
                rows = [row for row, image in enumerate(drawn) if image.shape == size]
                images = torch.from_numpy(np.stack([drawn[row] for row in rows]))
                yield rows, _blue_first(images.to(self.device))


def _blue_first(images: torch.Tensor) -> torch.Tensor:
    """RGB bytes (clips, height, width, 3) to what OpenCV would have read, as floats (clips, 3, height, width)."""
    return images.flip(-1).permute(0, 3, 1, 2).float()


_CPU_BATCH = 8
"""Pictures that a CPU gets at once: with more, what the layers pass on leaves its cache, and all is slower by half."""

_Loaded: TypeAlias = tuple[torch.nn.Module, tuple[int, int], Sequence[float], Sequence[float], int]
"""A model, the size of its input, the mean and deviation of its normalisation, and the width of its vectors."""


def _from_timm(name: str) -> _Loaded:
    import timm

    source = resolve(name)
    try:
        folder = Path(source)
        model = timm.create_model(f"local-dir:{folder}" if folder.is_dir() else source, pretrained=True)
    except Exception as error:  # timm and the hub raise many kinds, RuntimeError and OSError among them
        raise CheckpointError(f"{name}: cannot be loaded as a picture encoder ({brief(error)}).") from error
    data = timm.data.resolve_data_config(model=model)
    dimension = int(model.num_classes or model.num_features)  # type: ignore[arg-type]
    return model, tuple(data["input_size"][1:]), data["mean"], data["std"], dimension


def _from_torchvision(name: str) -> _Loaded:
    from torchvision import models

    known, is_file = models.list_models(include="efficientnet_*"), name.endswith(".pth")
    wanted = Path(name).stem if is_file else name.removeprefix("torchvision/")
    kind = next((k for k in known if wanted == k or (is_file and re.match(f"{k}[_-]", wanted))), None)
    if kind is None:
        raise CheckpointError(f"{name}: does not name a model that can be used here. Choose one of {', '.join(known)}.")
    published = models.get_model_weights(kind)["IMAGENET1K_V1"]
    file = Path(name) if is_file else Path(torch.hub.get_dir(), "checkpoints", Path(published.url).name)
    options: dict[str, Any] = {"map_location": "cpu", "weights_only": True}
    try:
        if is_file:
            state = torch.load(file, **options)
        else:
            state = torch.hub.load_state_dict_from_url(published.url, check_hash=True, **options)
    except OSError as error:  # no such file, no network
        raise CheckpointError(f"{name}: there are no weights at {file}, nor could they be had ({error}).") from error
    except Exception as error:  # its text is left out: torch advises to open the file as a pickle
        raise CheckpointError(
            f"{name}: {file} cannot be opened as weights ({type(error).__name__}). Delete it and download it again."
        ) from error
    with torch.device("meta"):  # no random weights first, which take longer than reading
        model = models.get_model(kind)
    try:
        model.load_state_dict(state, strict=True, assign=True)
    except Exception as error:  # RuntimeError, TypeError, ... by what the file holds
        raise CheckpointError(f"{name}: {file} does not hold the weights of torchvision's {kind}.") from error
    preset = published.transforms()
    size = preset.crop_size[0]
    return model.float(), (size, size), preset.mean, preset.std, model.classifier[-1].out_features


@cache
def _filters() -> torch.Tensor:
    from transformers.audio_utils import mel_filter_bank

    bank = mel_filter_bank(
        _N_FFT // 2 + 1, MEL_BANDS, 20.0, SAMPLING_RATE / 2, SAMPLING_RATE, norm="slaney", mel_scale="slaney"
    )
    return torch.from_numpy(bank).float()  # (bins, bands)
