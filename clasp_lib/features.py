"""Run the frozen encoders once over a dataset and keep what they say.

Features are stored in shards, each named after what it was made from: the encoders and every byte of its clips. A
stopped run goes on with the first missing shard; a changed clip, text or encoder makes new ones.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from clasp_lib.audio import load_audio
from clasp_lib.encoders import SpectrogramEncoder, SpeechEncoder, TextEncoder
from clasp_lib.errors import DatasetError

if TYPE_CHECKING:
    from datasets import Dataset

SHARD = 512
"""Clips in one stored file: what a stopped run repeats at most."""

_FORMAT = "2"


@dataclass(frozen=True)
class Features:
    """Frozen vectors of `n` clips, and what the clips are.

    Attributes:
        speech: (n, speech width). picture: (n, picture width). text: (n, text width), L2-normalised.
        sentence_ids, texts, categories, voices: what the dataset says of each clip, n strings.
    """

    speech: np.ndarray
    picture: np.ndarray
    text: np.ndarray
    sentence_ids: list[str]
    texts: list[str]
    categories: list[str]
    voices: list[str]

    def __len__(self) -> int:
        return len(self.speech)


def extract_features(
    dataset: Dataset,
    speech_encoder: SpeechEncoder,
    spectrogram_encoder: SpectrogramEncoder,
    text_encoder: TextEncoder,
    folder: str | Path | None = None,
    batch_size: int = 32,
    description: str = "features",
) -> Features:
    """Encode every clip and text of `dataset`; with a `folder`, store the shards there and reuse what fits.

    Raises:
        AudioError, TextError: a clip or text cannot be encoded; what was finished before stays stored.
        DatasetError: no clips, or a damaged shard.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file, save_file

    if len(dataset) == 0:
        raise DatasetError(f"{description}: the dataset holds no clips.")
    encoders = (speech_encoder, spectrogram_encoder, text_encoder)
    base = "|".join([_FORMAT, str(speech_encoder.layer), *(f"{encoder.name}|{encoder.digest}" for encoder in encoders)])
    parts: list[dict[str, np.ndarray]] = []
    known: dict[str, np.ndarray] = {}  # a sentence spoken in several voices is read once
    with tqdm(total=len(dataset), desc=description, unit="clip") as bar:
        for start in range(0, len(dataset), SHARD):
            rows = dataset[start : start + SHARD]
            file = None if folder is None else Path(folder) / f"{_digest(base, rows)}.safetensors"
            if file is not None and file.is_file():
                try:
                    part = load_file(file)
                except (SafetensorError, OSError) as error:
                    raise DatasetError(f"{file}: is damaged ({error}). Delete it; it is then made again.") from error
            else:
                waves = [load_audio(audio, speech_encoder.sampling_rate) for audio in rows["audio"]]
                part = {
                    "speech": speech_encoder.encode(waves, batch_size),
                    "picture": spectrogram_encoder.encode(waves, batch_size),
                    "text": _encode_texts(rows["text"], text_encoder, known),
                }
                if file is not None:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    unfinished = file.with_suffix(f".{os.getpid()}.tmp")
                    try:
                        save_file(part, unfinished)
                        os.replace(unfinished, file)
                    finally:
                        unfinished.unlink(missing_ok=True)
            known |= zip(rows["text"], part["text"], strict=True)
            parts.append(part)
            bar.update(len(rows["text"]))
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in ("speech", "picture", "text")}
    return Features(
        arrays["speech"],
        arrays["picture"],
        arrays["text"],
        sentence_ids=list(dataset["sentence_id"]),
        texts=list(dataset["text"]),
        categories=list(dataset["category"]),
        voices=list(dataset["voice"]),
    )


def _encode_texts(texts: list[str], encoder: TextEncoder, known: dict[str, np.ndarray]) -> np.ndarray:
    """Vectors of `texts`, encoding only what is not known yet."""
    new = list(dict.fromkeys(text for text in texts if text not in known))
    vectors = known | dict(zip(new, encoder.encode(new), strict=True))
    return np.stack([vectors[text] for text in texts])


def _digest(base: str, rows: dict) -> str:
    digest = hashlib.sha256(base.encode())
    for text, audio in zip(rows["text"], rows["audio"], strict=True):
        data = audio["bytes"] if audio["bytes"] is not None else Path(audio["path"]).read_bytes()
        digest.update(json.dumps([text, len(data)]).encode())
        digest.update(data)
    return digest.hexdigest()[:32]
