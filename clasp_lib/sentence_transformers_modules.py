"""A CLASP model as a `SentenceTransformer`: the evaluators and benchmarks of that ecosystem then run on it.

    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer("folder", trust_remote_code=True)    # a folder that CLASP.save_pretrained wrote
    model = as_sentence_transformer(CLASP.from_pretrained("pocket"))  # or any CLASP model, without the flag
    model.encode(["a query"]), model.encode(["one.flac", "two.mp3"])

`clasp_lib.mteb_task` takes it on to MTEB.

sentence-transformers 5 loads such a folder without the flag. From version 6.0 on it asks for `trust_remote_code=True`
wherever a folder names a module that is not its own, one of an installed package included, and on purpose so: a folder
shall not choose what is imported (huggingface/sentence-transformers, pull requests 3860 and 3935). Version 6.2 has no
place where a package could announce its modules: there are no entry points, the only names that need no flag begin with
`sentence_transformers.`, and its table of known classes is private, "not as a way around the flag". Hence the flag, or
`as_sentence_transformer`, where the import is the caller's own. The folder holds no code: what is allowed to run is
this file, or whatever else `modules.json` names, so look into it first if the folder is a stranger's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sentence_transformers
import torch

from clasp_lib.audio import AudioItem
from clasp_lib.errors import ClaspError, MissingDependencyError
from clasp_lib.model import CLASP

try:
    if tuple(map(int, sentence_transformers.__version__.split(".")[:2])) < (5, 6):
        raise ImportError(f"version {sentence_transformers.__version__} is installed")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import InputModule, Router
except ImportError as error:
    raise MissingDependencyError(
        "a CLASP model as a SentenceTransformer needs sentence-transformers 5.6 or newer, which routes texts and "
        f"recordings ({error}). Run: pip install -U sentence-transformers"
    ) from error


def as_sentence_transformer(model: CLASP) -> SentenceTransformer:
    """The same model with the interface of sentence-transformers; the weights are shared, not copied.

    `encode` takes texts, or recordings as `CLASP.encode_speech` does (arrays and tensors at 16 kHz), one kind a call.
    sentence-transformers takes a string for a recording if it ends like one (".wav", ".flac", ...) and such a file is
    there, and for a text otherwise. A prompt is put before texts only. The vectors are those of CLASP, frozen: nothing
    can be trained through them. It encodes in one process: HuBERT's networks cannot be pickled for a pool of them.
    """
    return SentenceTransformer(modules=[ClaspRouter(model)], device=str(model.device), similarity_fn_name="cosine")


class _Route(InputModule):
    """One way into a CLASP model; its networks are registered, so that they move from device to device."""

    modality: str

    def __init__(self, clasp: CLASP, networks: Mapping[str, torch.nn.Module]) -> None:
        super().__init__()
        self.clasp = clasp
        for name, network in networks.items():
            self.add_module(name, network)

    @property
    def modalities(self) -> list[Any]:
        return [self.modality]

    def get_embedding_dimension(self) -> int:
        return self.clasp.dimension

    def save(self, output_path: str, *arguments: Any, **options: Any) -> None:
        """A route is saved with its model."""
        self.clasp.save_pretrained(output_path)


class TextRoute(_Route):
    """Texts to unit vectors."""

    modality = "text"

    def __init__(self, clasp: CLASP) -> None:
        super().__init__(clasp, {"encoder": clasp.text_encoder._model})

    @property
    def tokenizer(self) -> Any:  # type: ignore[override]
        """That of the text encoder."""
        return self.clasp.text_encoder._model.tokenizer

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **options: Any) -> dict[str, Any]:
        texts = [item["text"] if isinstance(item, Mapping) else item for item in inputs]
        return {"texts": [prompt + text if prompt and isinstance(text, str) else text for text in texts]}

    def forward(self, features: dict[str, Any], **options: Any) -> dict[str, Any]:
        texts = features["texts"]
        vectors = self.clasp.encode_text(texts, batch_size=len(texts), show_progress_bar=False)
        features["sentence_embedding"] = torch.from_numpy(vectors).to(_device_of(self))  # (n, d)
        return features


class SpeechRoute(_Route):
    """Recordings to unit vectors."""

    modality = "audio"

    def __init__(self, clasp: CLASP) -> None:
        networks = {"speech": clasp.speech_encoder._model, "picture": clasp.spectrogram_encoder._model}
        super().__init__(clasp, {**networks, "fusion": clasp.fusion})

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **options: Any) -> dict[str, Any]:
        return {"recordings": [_recording(item) for item in inputs]}

    def forward(self, features: dict[str, Any], **options: Any) -> dict[str, Any]:
        device, recordings = _device_of(self), features["recordings"]
        for part in (self.clasp, self.clasp.speech_encoder, self.clasp.spectrogram_encoder):
            part.device = device  # the networks may have been moved since; the inputs must follow
        vectors = self.clasp.encode_speech(recordings, batch_size=len(recordings), show_progress_bar=False)
        features["sentence_embedding"] = torch.from_numpy(vectors).to(device)  # (n, d)
        return features


class ClaspRouter(Router):
    """The only module of such a `SentenceTransformer`: its `Router`, with a route for texts and one for recordings.

    A folder names it in `modules.json`; weights and configuration are those of `CLASP.save_pretrained`.
    """

    def __init__(self, clasp: CLASP) -> None:
        super().__init__({"text": [TextRoute(clasp)], "audio": [SpeechRoute(clasp)]}, allow_empty_key=False)
        self.clasp = clasp

    def preprocess(  # type: ignore[override]
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        task: str | None = None,
        modality: Any = None,
        **options: Any,
    ) -> dict[str, Any]:
        """As in `Router`, which would take the keys of a bare recording for kinds of tasks, and knows no `Path`."""
        named = [{"audio": item} if _is_bare_recording(item) else item for item in inputs]
        return super().preprocess(named, prompt=prompt, task=task, modality=modality, **options)

    def save(self, output_path: str, *arguments: Any, **options: Any) -> None:
        """Write the CLASP model; `SentenceTransformer.save_pretrained` adds its own files and card."""
        self.clasp.save_pretrained(output_path)

    @classmethod
    def load(  # type: ignore[override]
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        backend: str = "torch",
        **options: Any,
    ) -> ClaspRouter:
        """Called by `SentenceTransformer(folder)`, which then moves the networks to its device.

        Raises:
            CheckpointError: not a CLASP model.
            ClaspError: options of `SentenceTransformer` that a CLASP model does not have, such as `model_kwargs`.
        """
        unknown = [name for name, value in options.items() if value]
        if backend != "torch" or subfolder or unknown:
            asked = ", ".join(
                [*unknown, *[f"backend={backend!r}"] * (backend != "torch"), *[subfolder] * bool(subfolder)]
            )
            raise ClaspError(f"{model_name_or_path}: a CLASP model cannot be loaded with {asked}. Leave it out.")
        # The whole path: a folder called "pocket" is that folder here, not the model that ships.
        name = Path(model_name_or_path).resolve() if os.path.isdir(model_name_or_path) else model_name_or_path
        clasp = CLASP.from_pretrained(
            name,
            device="cpu",
            revision=revision,
            cache_dir=cache_folder,
            local_files_only=local_files_only,
            token=token,
        )
        return cls(clasp)


def _device_of(route: _Route) -> torch.device:
    return next(route.parameters()).device


def _is_bare_recording(item: Any) -> bool:
    return isinstance(item, Path) or (isinstance(item, Mapping) and not item.keys().isdisjoint({"array", "bytes"}))


def _recording(item: Any) -> AudioItem:
    """What `CLASP.encode_speech` takes, of all that sentence-transformers takes for audio."""
    if isinstance(item, Mapping) and "audio" in item:
        item = item["audio"]
    if isinstance(item, torch.Tensor):
        return item.detach().cpu().numpy()
    if hasattr(item, "get_all_samples"):  # a decoder of torchcodec
        samples = item.get_all_samples()
        return {"array": samples.data.mean(0).numpy(), "sampling_rate": samples.sample_rate}  # (samples,)
    return item
