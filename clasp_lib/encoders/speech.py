"""Waveform to vector: a frozen self-supervised speech encoder, averaged over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from clasp_lib.encoders.checkpoints import Frozen, Precision, autocast, check_complete, chosen_device, quiet, resolve
from clasp_lib.errors import AudioError, CheckpointError, brief


class SpeechModel(Frozen):
    """A HuBERT or wav2vec2 of transformers, loaded and frozen: what `SpeechEncoder` and `Transcriber` share.

    Args:
        name: "pocket-ctc", a local folder, or a hub id such as "facebook/hubert-large-ls960-ft".
        kind: the class of transformers that loads it.
        device: "cuda", "cpu", ...; the GPU where there is one if not given.
        precision: see `clasp_lib.encoders.checkpoints.autocast`.

    Raises:
        CheckpointError: no such checkpoint, or not a HuBERT or wav2vec2.
    """

    def __init__(
        self, name: str, kind: str, device: str | torch.device | None, precision: Precision = "float32"
    ) -> None:
        import transformers

        self.name, self.precision = name, precision
        self.device = chosen_device(device)
        folder = resolve(name)
        try:
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
            if config.model_type not in ("hubert", "wav2vec2"):
                raise CheckpointError(f"{name}: is a {config.model_type!r} model; a HuBERT or wav2vec2 is needed.")
            self._extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False)
            model = _load(getattr(transformers, kind), folder, name)
        except CheckpointError:
            raise
        except Exception as error:  # transformers, safetensors and the hub each raise their own kinds
            raise CheckpointError(f"{name}: cannot be loaded as a speech encoder ({brief(error)}).") from error
        self._model = model.to(self.device).eval().requires_grad_(False)
        self.layers: int = config.num_hidden_layers
        self._one_length = config.feat_extract_norm == "group"
        self.sampling_rate: int = self._extractor.sampling_rate
        self.min_samples = _receptive_field(config.conv_kernel, config.conv_stride)

    @torch.inference_mode()
    def _outputs(self, waves: list[np.ndarray], **options: bool) -> tuple[Any, list[int]]:
        """What the model says of a padded batch, and how many frames of each clip are real."""
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
        with autocast(self.device, self.precision):
            return self._model(values, attention_mask=None if self._one_length else mask, **options), frames

    def _batches(self, waves: Sequence[np.ndarray], batch_size: int) -> Iterator[list[int]]:
        """Indices of clips that run together: similar lengths, or the same length where padding would be heard.

        Long clips come in smaller batches, which never hold more than `batch_size` times `_USUAL_SECONDS` of sound.
        """
        order = sorted(range(len(waves)), key=lambda i: -len(waves[i]))
        limit = batch_size * _USUAL_SECONDS * self.sampling_rate
        batch: list[int] = []
        for i in order:
            longest = len(waves[batch[0]]) if batch else 0
            full = len(batch) == batch_size or (len(batch) + 1) * longest > limit
            if batch and (full or (self._one_length and len(waves[i]) != longest)):
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch


class SpeechEncoder(SpeechModel):
    """Any HuBERT or wav2vec2 of transformers: last hidden states, mean over the frames of the clip, as in CLASP.

    A clip's vector does not depend on the clips beside it. Padding is masked in the attention and left out of the mean;
    an encoder whose convolutions use group norm would still hear the padding, so its batches hold clips of one length.

    Args:
        name: "pocket-ctc", a local folder, or a hub id such as "facebook/hubert-large-ls960-ft".
        layer: which hidden states to average: -1 is the last layer, 0 what enters the first one.
        reference: encode as the notebooks of CLASP's authors do: the clip divided by its peak, alone, without a mask.
        device: "cuda", "cpu", ...; the GPU where there is one if not given.
        precision: see `clasp_lib.encoders.checkpoints.autocast`; the mean is taken in float32 either way.

    Raises:
        CheckpointError: no such checkpoint, or not a HuBERT or wav2vec2.
    """

    def __init__(
        self,
        name: str,
        *,
        layer: int = -1,
        reference: bool = False,
        device: str | torch.device | None = None,
        precision: Precision = "float32",
    ) -> None:
        super().__init__(name, "AutoModel", device, precision)
        if not -self.layers - 1 <= layer <= self.layers:
            raise CheckpointError(f"{name}: has {self.layers} layers, so there is no layer {layer}.")
        self.layer, self.reference = layer, reference
        self.dimension: int = self._model.config.hidden_size

    @property
    def identity(self) -> dict[str, str | int | bool]:
        """All that its vectors depend on, besides the sound."""
        return {
            "encoder": "speech",
            "weights": self.digest,
            "layer": self.layer,
            "reference": self.reference,
            "normalised": bool(getattr(self._extractor, "do_normalize", False)),
            "precision": self.precision,
        }

    def encode(self, waves: Sequence[np.ndarray], batch_size: int = 16, show_progress_bar: bool = False) -> np.ndarray:
        """Waves at `sampling_rate`, each `(samples,)`, to float32 vectors `(n, dimension)`, in the order given."""
        vectors = np.zeros((len(waves), self.dimension), np.float32)
        for i, states in self._states(waves, batch_size, show_progress_bar):
            vectors[i] = states.mean(0).cpu().numpy()
        return vectors

    def frames(
        self, waves: Sequence[np.ndarray], batch_size: int = 16, show_progress_bar: bool = False
    ) -> list[np.ndarray]:
        """The hidden states before they are averaged: float32 `(frames, dimension)` for each wave, in order."""
        found = dict(self._states(waves, batch_size, show_progress_bar))
        return [found[i].cpu().numpy() for i in range(len(waves))]

    def encode_layers(self, waves: Sequence[np.ndarray], batch_size: int = 16) -> np.ndarray:
        """The vectors of all layers in one pass, lowest first: float32 `(layers + 1, n, dimension)`."""
        vectors = np.zeros((self.layers + 1, len(waves), self.dimension), np.float32)
        for batch in self._batches(waves, batch_size):
            out, frames = self._outputs([waves[i] for i in batch], output_hidden_states=True)
            for layer, states in enumerate((*out.hidden_states[:-1], out.last_hidden_state)):
                for row, i in enumerate(batch):
                    vectors[layer, i] = states[row, : frames[row]].float().mean(0).cpu().numpy()
        return vectors

    def _states(
        self, waves: Sequence[np.ndarray], batch_size: int, show_progress_bar: bool
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """The number of each clip and its hidden states (frames, dimension) in float32, longest clips first."""
        last = self.layer in (-1, self.layers)
        if self.reference:
            waves, batch_size = [wave / np.abs(wave).max() for wave in waves], 1
        with tqdm(total=len(waves), desc="speech", unit="clip", disable=not show_progress_bar) as bar:
            for batch in self._batches(waves, batch_size):
                out, frames = self._outputs([waves[i] for i in batch], output_hidden_states=not last)
                states = out.last_hidden_state if last else out.hidden_states[self.layer]  # (clips, frames, dimension)
                for row, i in enumerate(batch):
                    yield i, states[row, : frames[row]].float()
                bar.update(len(batch))


_USUAL_SECONDS = 15


def _load(kind: Any, folder: str, name: str) -> Any:
    """The model in single precision. A head that it has no use for is left out; a part that it lacks is an error."""
    with quiet():
        model, report = kind.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
    missing = [key for key in report["missing_keys"] if not key.endswith("masked_spec_embed")]  # training's
    if any(key.startswith("lm_head.") for key in missing):
        raise CheckpointError(f"{name}: has no CTC head, so it cannot transcribe. Choose one that has it.")
    check_complete(name, missing)
    return model


def _receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Samples that the first frame of stacked convolutions sees."""
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples
