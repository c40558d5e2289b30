"""What the trainings of an ablation read: files that are made once, and shared by processes that map them to memory."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clasp_lib.ablation.specification import System
from clasp_lib.audio import SAMPLING_RATE, encode_audio, load_audio
from clasp_lib.corpus import SPLITS
from clasp_lib.encoders import SpectrogramEncoder, SpeechEncoder, TextEncoder
from clasp_lib.features import SHARD, Features, audio_keys, concatenate_features, extract_features, extract_frames
from clasp_lib.fusion import build_fusion
from clasp_lib.hard_negatives import hard_negatives
from clasp_lib.losses import build_loss
from clasp_lib.pretraining.augmentation import AUGMENTATIONS
from clasp_lib.profiles import Profile
from clasp_lib.run_state import load_state, save_state
from clasp_lib.vector_store import VectorStore

if TYPE_CHECKING:
    from datasets import Dataset

NEGATIVES = 4
"""Wrong versions of each text, for losses that need "negatives"."""

_FORMAT = 1
_VECTORS = ("speech", "picture", "text")
_SAID = ("sentence_ids", "texts", "categories", "voices")


def digest(what: Any) -> str:
    """A name that follows from numbers and words."""
    return hashlib.sha256(json.dumps([_FORMAT, what]).encode()).hexdigest()[:32]


class Data:
    """The pieces that trainings read, in a folder; the name of each follows from all that it depends on.

    Args:
        profile: whose dataset and encoders; its cache holds what the encoders said.
    """

    def __init__(self, profile: Profile, folder: Path) -> None:
        self.profile, self.folder, self.store = profile, folder, profile.cache / "features"
        self._dataset = profile.dataset()
        self.pairs: dict[str, int] = {split: len(self._dataset[split]) for split in SPLITS}
        self._clips: dict[str, list[str]] = {split: audio_keys(self._dataset[split]) for split in SPLITS}

    def pieces(self, systems: Sequence[System]) -> dict[System, dict[str, str]]:
        """For each system the files that its trainings read, by what they are; what is not there yet is made."""
        found = {}
        for name in dict.fromkeys(system.speech_encoder for system in systems):
            encoders = replace(self.profile, speech_encoder=name).encoders()
            piece = functools.cache(functools.partial(self._piece, encoders))
            for system in systems:
                if system.speech_encoder == name:
                    found[system] = {what: piece(what) for what in _wanted(system)}
        return found

    def _piece(self, encoders: tuple[SpeechEncoder, SpectrogramEncoder, TextEncoder], what: str) -> str:
        split, _, kind = what.partition(" ")
        rows = self._dataset[split]
        said = {name: list(rows[name]) for name in ("sentence_id", "text", "category", "voice")}
        recipe = [what, [encoder.identity for encoder in encoders], self._clips[split], said]
        file = self.folder / "data" / f"{digest([*recipe, NEGATIVES, self.profile.seed])}.safetensors"
        if not file.is_file():
            arrays, facts = self._made(encoders, split, kind)
            save_state(file, {name: torch.from_numpy(array) for name, array in arrays.items()}, facts)
        return file.name

    def _made(
        self, encoders: tuple[SpeechEncoder, SpectrogramEncoder, TextEncoder], split: str, kind: str
    ) -> tuple[dict[str, np.ndarray], Any]:
        """The arrays and facts of a piece."""
        rows, (speech, _, text) = self._dataset[split], encoders
        title = f"{split}, {Path(speech.name).name}"
        if kind == "negatives":
            return {kind: hard_negatives(list(rows["text"]), text, NEGATIVES, self.profile.seed)}, None
        if kind == "other":
            other = disturbed_features(rows, *encoders, folder=self.store, seed=self.profile.seed)
            return {"other_speech": other.speech, "other_picture": other.picture}, None
        if kind == "labels":
            return {kind: text.encode([name.replace("_", " ") for name in sorted(set(rows["category"]))])}, None
        if kind == "frames":  # they are large, and stay in their store
            extract_frames(rows, speech, self.store, description=f"{title}, frames")
            identity = speech.identity | {"encoder": "speech-frames"}
            return {}, {"identity": identity, "width": speech.dimension, "keys": self._clips[split]}
        found = extract_features(rows, *encoders, self.store, description=title)
        facts = {name: list(getattr(found, name)) for name in _SAID}
        return {name: getattr(found, name) for name in _VECTORS}, facts


def _wanted(system: System) -> list[str]:
    """The pieces that a system's trainings read: a split, and what of it."""
    fusion, loss = build_fusion(system.fusion, 64, 64, 64), build_loss(system.loss, 64)
    wanted = [*SPLITS, *(f"train {name}" for name in ("negatives", "other") if name in loss.needs)]
    if fusion.takes_frames:
        wanted += [f"{split} frames" for split in SPLITS]
    if system.fusion.startswith("label_"):
        wanted.append("train labels")
    return wanted


def read_features(folder: Path, store: Path, pieces: Mapping[str, str], split: str) -> Features:
    """A split as `Features`, with the columns and frames that are among the pieces; read once a process."""
    arrays, facts = _read(folder / "data" / pieces[split])
    columns = {
        name: tensor.numpy()
        for kind in ("negatives", "other")
        if (file := pieces.get(f"{split} {kind}"))
        for name, tensor in _read(folder / "data" / file)[0].items()
    }
    frames = _frames(folder / "data" / file, store) if (file := pieces.get(f"{split} frames")) else None
    speech, picture, text = (arrays[name].numpy() for name in _VECTORS)
    sentence_ids, texts, categories, voices = (facts[name] for name in _SAID)
    return Features(speech, picture, text, sentence_ids, texts, categories, voices, columns=columns, frames=frames)


def read_labels(folder: Path, pieces: Mapping[str, str]) -> torch.Tensor:
    """The text vectors of the categories' names, in alphabetical order: (categories, width)."""
    return _read(folder / "data" / pieces["train labels"])[0]["labels"]


_read = functools.cache(load_state)


@functools.cache
def _frames(file: Path, store: Path) -> list[torch.Tensor]:
    _, facts = _read(file)
    stored = VectorStore(store, facts["identity"], facts["width"])
    return [stored.read_all_rows(key) for key in facts["keys"]]


def disturbed_features(
    dataset: Dataset,
    speech_encoder: SpeechEncoder,
    spectrogram_encoder: SpectrogramEncoder,
    text_encoder: TextEncoder,
    folder: str | Path | None = None,
    seed: int = 0,
) -> Features:
    """Features of the same clips, each through one of the seven disturbances of `clasp_lib.pretraining.augmentation`.

    Which one, and how, follows from the seed and the clip's number.
    """
    from datasets import Dataset as Made

    ways, parts = list(AUGMENTATIONS.values()), []
    for start in range(0, len(dataset), SHARD):
        rows = dataset.select(range(start, min(start + SHARD, len(dataset))))
        waves = [torch.from_numpy(load_audio(item, SAMPLING_RATE)) for item in rows["audio"]]
        waves = [wave / wave.std() for wave in waves]
        files = []
        for number, wave in enumerate(waves):
            rng = np.random.default_rng([seed, start + number])
            heard = ways[rng.integers(len(ways))](wave, rng, waves)
            files.append(encode_audio((0.9 * heard / heard.abs().max()).numpy(), SAMPLING_RATE, "FLAC"))
        audio = [{"bytes": data, "path": f"{name}.flac"} for name, data in zip(rows["id"], files, strict=True)]
        kept = {name: rows[name] for name in ("id", "sentence_id", "text", "category", "voice")}
        changed = Made.from_dict({"audio": audio, **kept})
        title = f"disturbed {start} to {start + len(rows)} of {len(dataset)}"
        encoders = (speech_encoder, spectrogram_encoder, text_encoder)
        parts.append(extract_features(changed, *encoders, folder, description=title))
    return concatenate_features(parts)
