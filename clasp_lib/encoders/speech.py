"""Waveform to vector: a frozen self-supervised speech encoder, averaged over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from tqdm import tqdm

from clasp_lib.encoders.checkpoints import digest_of, resolve
from clasp_lib.errors import AudioError, CheckpointError


class SpeechEncoder:
    """Any HuBERT or wav2vec2 of transformers: last hidden states, mean over the frames of the clip, as in CLASP.

    A clip's vector does not depend on the clips beside it. Padding is masked in the attention and left out of the mean;
    an encoder whose convolutions use group norm would still hear the padding, so its batches hold clips of one length.

    Args:
        name: "pocket-hubert", a local folder, or a hub id such as "facebook/hubert-large-ls960-ft".
        layer: which hidden states to average: -1 is the last layer, 0 what enters the first one.
        device: "cuda", "cpu", ...; the GPU where there is one if not given.

    Raises:
        CheckpointError: no such checkpoint, or not a HuBERT or wav2vec2.
    """

    def __init__(self, name: str, *, layer: int = -1, device: str | torch.device | None = None) -> None:
        from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

        self.name, self.layer = name, layer
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        folder = resolve(name)
        try:
            config = AutoConfig.from_pretrained(folder)
            if config.model_type not in ("hubert", "wav2vec2"):
                raise CheckpointError(f"{name}: is a {config.model_type!r} model; a HuBERT or wav2vec2 is needed.")
            self._extractor = AutoFeatureExtractor.from_pretrained(folder)
            model = AutoModel.from_pretrained(folder, dtype=torch.float32)
        except CheckpointError:
            raise
        except Exception as error:  # transformers, safetensors and the hub each raise their own kinds
            raise CheckpointError(f"{name}: cannot be loaded as a speech encoder ({error}).") from error
        if not -config.num_hidden_layers - 1 <= layer <= config.num_hidden_layers:
            raise CheckpointError(f"{name}: has {config.num_hidden_layers} layers, so there is no layer {layer}.")
        self._model = model.to(self.device).eval().requires_grad_(False)
        self._last_layer: int = config.num_hidden_layers
        self._one_length = config.feat_extract_norm == "group"
        self.dimension: int = config.hidden_size
        self.sampling_rate: int = self._extractor.sampling_rate
        self.min_samples = _receptive_field(config.conv_kernel, config.conv_stride)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(p.numel() for p in self._model.parameters())

    @cached_property
    def digest(self) -> str:
        """Of the weights; features and indexes are only as good as long as it stays."""
        return digest_of(self._model)

    def encode(self, waves: Sequence[np.ndarray], batch_size: int = 16, show_progress_bar: bool = False) -> np.ndarray:
        """Waves at `sampling_rate`, each `(samples,)`, to float32 vectors `(n, dimension)`, in the order given."""
        vectors = np.zeros((len(waves), self.dimension), np.float32)
        with tqdm(total=len(waves), desc="speech", unit="clip", disable=not show_progress_bar) as bar:
            for batch in self._batches(waves, batch_size):
                states, frames = self._states([waves[i] for i in batch], self.layer)
                for row, i in enumerate(batch):
                    vectors[i] = states[row, : frames[row]].float().mean(0).cpu().numpy()
                bar.update(len(batch))
        return vectors

    def frames(self, wave: np.ndarray) -> np.ndarray:
        """The hidden states of one clip before they are averaged: float32 `(frames, dimension)`."""
        states, _ = self._states([wave], self.layer)
        return states[0].float().cpu().numpy()

    @torch.inference_mode()
    def _states(self, waves: list[np.ndarray], layer: int) -> tuple[torch.Tensor, list[int]]:
        """Hidden states (clips, frames, dimension) of a padded batch, and how many frames of each clip are real."""
        for wave in waves:
            if len(wave) < self.min_samples:
                raise AudioError(
                    f"clip of {len(wave)} samples: {self.name} needs at least {self.min_samples} for its first frame."
                )
        inputs = self._extractor(
            waves, sampling_rate=self.sampling_rate, padding=True, return_attention_mask=True, return_tensors="pt"
        )
        values, mask = inputs["input_values"].to(self.device), inputs["attention_mask"].to(self.device)
        frames = self._model._get_feat_extract_output_lengths(mask.sum(1)).tolist()
        last = layer in (-1, self._last_layer)
        out = self._model(values, attention_mask=None if self._one_length else mask, output_hidden_states=not last)
        return (out.last_hidden_state if last else out.hidden_states[layer]), frames

    def _batches(self, waves: Sequence[np.ndarray], batch_size: int) -> Iterator[list[int]]:
        """Indices of clips that run together: similar lengths, or the same length where padding would be heard."""
        order = sorted(range(len(waves)), key=lambda i: -len(waves[i]))
        batch: list[int] = []
        for i in order:
            if len(batch) == batch_size or (batch and self._one_length and len(waves[i]) != len(waves[batch[0]])):
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch


def _receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Samples that the first frame of stacked convolutions sees."""
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples
