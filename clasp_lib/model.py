"""CLASP: three frozen encoders and a trained fusion behind `encode_speech` and `encode_text`."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import ModelCard, ModelHubMixin, hf_hub_download
from tqdm import tqdm

from clasp_lib.arrays import number_array
from clasp_lib.audio import AudioItem, describe, load_audio
from clasp_lib.convert import PUBLISHED, PUBLISHED_WEIGHTS, read_published, read_saved
from clasp_lib.encoders import SpectrogramEncoder, SpeechEncoder, TextEncoder
from clasp_lib.encoders.checkpoints import digest_of, is_hub_id, pocket_folder, with_less_at_once
from clasp_lib.errors import AudioError, CheckpointError, ClaspError, brief
from clasp_lib.folders import reported
from clasp_lib.fusion import Fusion
from clasp_lib.model_card import CARD, SENTENCE_TRANSFORMERS
from clasp_lib.pooling import pad_frames

SHIPPED = {
    "pocket": "ctc-concatenation",
    "pocket-concatenation": "ctc-concatenation",
    "pocket-gating": "ctc-gating",
    "pocket-speech-only": "ctc-speech-only",
    "pocket-linear": "ctc-linear",
    "pocket-search": "search-concatenation",
    "pocket-search-speech-only": "search-speech-only",
    "pocket-search-linear": "search-linear",
}
"""Models that travel inside the package, and their folders under `clasp_lib/pocket`.

Those with "search" in their name stand on a speech encoder that was shown the sentence space; the others do not.
"""

_CONFIG, _WEIGHTS, _CARD_FILE = "config.json", "model.safetensors", "README.md"
_CHUNK = 512  # clips decoded at once: bounds the memory of a long list of paths


class CLASP(
    ModelHubMixin,
    library_name="clasp-lib",
    tags=["speech-retrieval", "speech-text", "clasp"],
    pipeline_tag="feature-extraction",
    license="mit",
):
    """Speech and text in one space.

        model = CLASP.from_pretrained("pocket")
        speech = model.encode_speech(["one.flac", "two.mp3"])
        text = model.encode_text(["a query"])
        model.similarity(text, speech)

    Args:
        fusion: the trained part.
        speech_encoder, spectrogram_encoder, text_encoder: frozen; saved by name, not by weight.
        fusion_name: the fusion's name, as `clasp_lib.fusion.build_fusion` takes it.
        name: what `from_pretrained` was called with; an index that the model builds remembers it.

    Raises:
        ClaspError: the widths of fusion and encoders do not fit.
    """

    def __init__(
        self,
        fusion: Fusion,
        speech_encoder: SpeechEncoder,
        spectrogram_encoder: SpectrogramEncoder,
        text_encoder: TextEncoder,
        fusion_name: str,
        name: str | None = None,
    ) -> None:
        widths = {
            "speech_width": speech_encoder.dimension,
            "picture_width": spectrogram_encoder.dimension,
            "width": text_encoder.dimension,
        }
        if fusion.config != widths:
            raise ClaspError(f"the fusion was built for {fusion.config}, the encoders give {widths}.")
        self.fusion, self.fusion_name, self.name = fusion.eval(), fusion_name, name
        self.speech_encoder, self.spectrogram_encoder, self.text_encoder = (
            speech_encoder,
            spectrogram_encoder,
            text_encoder,
        )
        self.dimension = text_encoder.dimension
        self.device = speech_encoder.device
        self.fusion.to(self.device)

    @property
    def config(self) -> dict[str, Any]:
        """What `save_pretrained` writes beside the weights."""
        return {
            "model_type": "clasp",
            "fusion": self.fusion_name,
            "fusion_config": self.fusion.config,
            "speech_encoder": self.speech_encoder.name,
            "speech_layer": self.speech_encoder.layer,
            "speech_reference": self.speech_encoder.reference,
            "spectrogram_encoder": self.spectrogram_encoder.name,
            "drawing": self.spectrogram_encoder.drawing,
            "text_encoder": self.text_encoder.name,
        }

    @property
    def fingerprint(self) -> str:
        """Changes whenever a weight does, of the fusion or of an encoder; an index remembers it.

        Encoders in another precision leave it as it is: they round, and may search what others have indexed.
        """
        encoders = (self.speech_encoder, self.spectrogram_encoder, self.text_encoder)
        parts = [json.dumps(self.config, sort_keys=True), digest_of(self.fusion), *(e.digest for e in encoders)]
        return hashlib.sha256("|".join(parts).encode()).hexdigest()[:32]

    def encode_speech(
        self,
        items: Sequence[AudioItem],
        sampling_rate: int = 16_000,
        batch_size: int = 16,
        show_progress_bar: bool | None = None,
    ) -> np.ndarray:
        """Recordings to L2-normalised float32 vectors `(n, dimension)`, in the order given.

        A clip's vector does not depend on the other clips of its batch.

        Args:
            items: paths, 1-D arrays at `sampling_rate` Hz, `{"array", "sampling_rate"}` or `{"bytes", "path"}`, mixed
                at will.
            show_progress_bar: None shows one for more than two batches.

        Raises:
            AudioError: an item is missing, damaged, silent, too short or too long; the message names it.
        """
        if isinstance(items, str | bytes | Path | Mapping) or (isinstance(items, np.ndarray) and items.ndim != 2):
            raise AudioError(f"{describe(items)}: encode_speech takes a list of recordings. Wrap it: [item].")
        if not (hasattr(items, "__len__") and hasattr(items, "__getitem__")):
            raise AudioError(f"{describe(items)}: encode_speech takes a list of recordings. Make one: list(items).")
        check_batch_size(batch_size)
        vectors = np.zeros((len(items), self.dimension), np.float32)
        show = len(items) > 2 * batch_size if show_progress_bar is None else show_progress_bar
        with tqdm(total=len(items), desc="speech", unit="clip", disable=not show) as bar:
            for start in range(0, len(items), _CHUNK):
                chunk = items[start : start + _CHUNK]
                encode = functools.partial(self._encode_chunk, chunk, sampling_rate)
                vectors[start : start + len(chunk)], batch_size = with_less_at_once(encode, batch_size, "encode_speech")
                bar.update(len(chunk))
        return vectors

    def encode_text(
        self, texts: Sequence[str], batch_size: int = 64, show_progress_bar: bool | None = None
    ) -> np.ndarray:
        """Texts to L2-normalised float32 vectors `(m, dimension)`.

        Raises:
            TextError: a text is empty or not a string.
        """
        if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
            raise ClaspError(f"encode_text takes a list of texts. Wrap it: [{brief(texts)}].")
        texts = list(texts)
        check_batch_size(batch_size)
        show = len(texts) > 2 * batch_size if show_progress_bar is None else show_progress_bar
        encode = functools.partial(self.text_encoder.encode, texts, show_progress_bar=show)
        return with_less_at_once(encode, batch_size, "encode_text")[0]

    def similarity(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Cosine of each row of `a` (m, d) with each row of `b` (n, d): float32 (m, n).

        Raises:
            ClaspError: the vectors are not of this model's width, or hold what is no finite number.
        """
        one, two = (
            checked_matrix(vectors, self.dimension, f"{which} argument of similarity")
            for which, vectors in (("first", a), ("second", b))
        )
        return (_unit(one) @ _unit(two).T).astype(np.float32)

    @torch.inference_mode()
    def _encode_chunk(self, items: Sequence[AudioItem], sampling_rate: int, batch_size: int) -> np.ndarray:
        """Items to unit vectors; each encoder gets them at its own rate, resampled from the recording itself."""
        heard = self.speech_encoder.sampling_rate
        waves = [load_audio(item, heard, source_rate=sampling_rate) for item in items]
        for item, wave in zip(items, waves, strict=True):
            if len(wave) < self.speech_encoder.min_samples:
                raise AudioError(
                    f"{describe(item)}: lasts {len(wave) / heard:.3f} s, less than "
                    f"one frame of {self.speech_encoder.name}."
                )
        seen = waves
        if (drawn := self.spectrogram_encoder.sampling_rate) != heard:
            seen = [load_audio(item, drawn, source_rate=sampling_rate) for item in items]
        picture = torch.from_numpy(self.spectrogram_encoder.encode(seen, batch_size)).to(self.device)
        if self.fusion.takes_frames:
            return self._fused_frames(waves, picture, batch_size)
        speech = torch.from_numpy(self.speech_encoder.encode(waves, batch_size)).to(self.device)
        return _unit(self.fusion(speech, picture).float().cpu().numpy())

    def _fused_frames(self, waves: Sequence[np.ndarray], picture: torch.Tensor, batch_size: int) -> np.ndarray:
        """The same with a fusion that takes frames, which are large: those of one batch at a time."""
        vectors = np.zeros((len(waves), self.dimension), np.float32)
        order = sorted(range(len(waves)), key=lambda i: -len(waves[i]))  # similar lengths: little to fill up
        for batch in (order[start : start + batch_size] for start in range(0, len(order), batch_size)):
            clips = self.speech_encoder.frames([waves[i] for i in batch], batch_size)
            frames = pad_frames([torch.from_numpy(clip) for clip in clips]).to(self.device)
            vectors[batch] = _unit(self.fusion(frames, picture[batch]).float().cpu().numpy())
        return vectors

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The card that `save_pretrained` writes where there is none yet."""
        return ModelCard(CARD.format(**self.config, dimension=self.dimension))

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        config: Any = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write the fusion, its configuration and, where there is none, a card into a folder.

        What is in the folder stays as it is until all new files are complete. sentence-transformers can load it, too:
        see `clasp_lib.sentence_transformers_modules`. The other arguments are the hub's.
        """
        folder = Path(save_directory)
        with reported(folder, CheckpointError):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder) as unfinished:
                super().save_pretrained(unfinished, config=config, model_card_kwargs=model_card_kwargs)
                card = [] if (folder / _CARD_FILE).exists() else [_CARD_FILE]
                for file in [_WEIGHTS, _CONFIG, *SENTENCE_TRANSFORMERS, *card]:
                    os.replace(Path(unfinished, file), folder / file)
        if not push_to_hub:
            return None
        return self.push_to_hub(
            repo_id or folder.name, config=config, model_card_kwargs=model_card_kwargs, **push_to_hub_kwargs
        )

    def _save_pretrained(self, save_directory: Path) -> None:
        from safetensors.torch import save_file

        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.fusion.state_dict().items()}
        save_file(weights, save_directory / _WEIGHTS, metadata={"format": "pt"})
        for file, content in {_CONFIG: self.config, **SENTENCE_TRANSFORMERS}.items():
            (save_directory / file).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        shutil.copymode(save_directory / _CONFIG, save_directory / _WEIGHTS)  # safetensors' are the owner's alone

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        name: str | Path,
        *,
        weights_name: str | None = None,
        speech_encoder: str | None = None,
        spectrogram_encoder: str | None = None,
        text_encoder: str | None = None,
        device: str | torch.device | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> CLASP:
        """Load one of `SHIPPED` ("pocket" is the default), a folder that `save_pretrained` wrote, or a hub id.

        "llm-lab/CLASP", or a folder that holds its files, gives the model that CLASP's authors published, on the
        encoders it was trained with. `clasp_lib.convert` reads their pickles; matplotlib draws the pictures.

        Args:
            weights_name: a pickle of the authors to read, one of `clasp_lib.convert.PUBLISHED_WEIGHTS`; the first of
                them that is there if not given.
            speech_encoder, spectrogram_encoder, text_encoder: other names for the encoders that the model names, such
                as folders with copies of them.
            device: where all parts run; the GPU where there is one if not given. The rest is the hub's.

        Raises:
            CheckpointError: nothing there, or not a CLASP model.
        """
        if not isinstance(name, str | Path):
            raise CheckpointError(f"model {brief(name)}: give a name such as 'pocket', a folder, or a hub id.")
        folder = pocket_folder(SHIPPED[str(name)]) if name in SHIPPED else Path(name)
        local = name in SHIPPED or (name != "" and os.path.isdir(folder))  # which no name is too long for
        if weights_name is None and local:
            weights_name = _published_in(folder)
        elif weights_name is None and name == PUBLISHED:
            weights_name = PUBLISHED_WEIGHTS[0]
        wanted = (weights_name,) if weights_name else (_CONFIG, _WEIGHTS)
        if local:
            files = {file: folder / file for file in wanted}
        elif isinstance(name, Path) or not is_hub_id(name):  # the hub need not be asked
            raise CheckpointError(
                f"{str(name)!r}: is neither one of {', '.join(SHIPPED)}, nor a folder, nor an id on the hub, which "
                "looks like 'owner/name'."
            )
        else:
            try:
                options: Any = {
                    "revision": revision,
                    "cache_dir": cache_dir,
                    "force_download": force_download,
                    "token": token,
                }
                files = {
                    file: Path(hf_hub_download(str(name), file, local_files_only=local_files_only, **options))
                    for file in wanted
                }
            except Exception as error:  # the hub raises a dozen kinds, of which few are OSErrors
                raise CheckpointError(
                    f"{str(name)!r}: is neither one of {', '.join(SHIPPED)}, nor a folder, nor a model on the hub "
                    f"with {' and '.join(wanted)} ({error})."
                ) from error
        try:
            if weights_name:
                config, fusion = read_published(files[weights_name])
            else:
                config, fusion = read_saved(files[_CONFIG], files[_WEIGHTS])
            speech = SpeechEncoder(
                speech_encoder or config["speech_encoder"],
                layer=config["speech_layer"],
                reference=config.get("speech_reference", False),
                device=device,
            )
            picture = SpectrogramEncoder(
                spectrogram_encoder or config["spectrogram_encoder"],
                drawing=config.get("drawing", "mel"),
                device=device,
            )
            text = TextEncoder(text_encoder or config["text_encoder"], device=device)
        except CheckpointError as error:
            if name in SHIPPED:  # whose folder says nothing to who asked for it
                raise CheckpointError(f"{name}: {error}") from error
            raise
        except ClaspError:
            raise
        except Exception as error:  # json, safetensors and torch each raise their own kinds
            raise CheckpointError(f"{name}: is not a CLASP model that can be loaded ({error}).") from error
        # An index finds a folder again from everywhere, even if it was made with a name such as "../model".
        known_as = os.path.abspath(folder) if local and name not in SHIPPED else str(name)
        return cls(fusion, speech, picture, text, config["fusion"], known_as)


def _published_in(folder: Path) -> str | None:
    """The first of the published files in a folder that has no configuration."""
    if (folder / _CONFIG).exists():
        return None
    return next((file for file in PUBLISHED_WEIGHTS if (folder / file).is_file()), None)


def checked_matrix(vectors: Any, width: int, name: str) -> np.ndarray:
    """Vectors as float32 `(n, width)`; `name` is what a message calls them.

    Raises:
        ClaspError: another shape, or values that are no finite numbers.
    """
    matrix = number_array(name, vectors, f"(n, {width})", np.float32)
    if matrix.ndim != 2 or matrix.shape[1] != width:
        raise ClaspError(f"{name}: has shape {matrix.shape}; expected (n, {width}).")
    if not np.isfinite(matrix).all():
        raise ClaspError(f"{name}: holds NaN or infinite values; expected finite numbers, as encode_* give them.")
    return matrix


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length one."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def check_batch_size(batch_size: int) -> None:
    """Raise a ClaspError for what is no number of items."""
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ClaspError(f"batch_size is {batch_size!r}; give a whole number of at least 1.")
