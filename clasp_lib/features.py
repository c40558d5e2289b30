"""Run the frozen encoders once over a dataset and keep what they say.

What each encoder said of a clip is stored by the digest of the clip's bytes (`clasp_lib.vector_store`). A stopped run
goes on where it was; added clips, a second dataset with some of the same clips, or another text encoder cost only what
is new.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from clasp_lib.audio import load_audio
from clasp_lib.encoders import SpectrogramEncoder, SpeechEncoder, TextEncoder
from clasp_lib.encoders.checkpoints import with_less_at_once
from clasp_lib.errors import ClaspError, DatasetError, OnError, Skipped, check_on_error
from clasp_lib.vector_store import VectorStore

if TYPE_CHECKING:
    from datasets import Dataset

SHARD = 512
"""Clips in one stored file: what a stopped run repeats at most."""

_NOT_FINITE = "the encoder gives NaN or infinite numbers. Half precision can overflow: give it precision='float32'."
_ARRAYS = ("speech", "picture", "text")
_OF_EACH = ("sentence_ids", "texts", "categories", "voices")


@dataclass(frozen=True)
class Features:
    """Frozen vectors of `n` clips, and what the clips are.

    Attributes:
        speech: (n, speech width). picture: (n, picture width). text: (n, text width), L2-normalised.
        sentence_ids, texts, categories, voices: what the dataset says of each clip, n strings.
        skipped: clips that were left out because they, or their texts, could not be encoded, and why.
        columns: further numbers by name, n rows each, that a loss asks for (`clasp_lib.losses.Loss.needs`).
        frames: for each clip (frames, speech width), from `extract_frames`, for a fusion that takes them.

    Raises:
        DatasetError: parts of different lengths.
    """

    speech: np.ndarray
    picture: np.ndarray
    text: np.ndarray
    sentence_ids: list[str]
    texts: list[str]
    categories: list[str]
    voices: list[str]
    skipped: list[Skipped] = field(default_factory=list)
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    frames: list[torch.Tensor] | None = None

    def __post_init__(self) -> None:
        parts = {name: getattr(self, name) for name in (*_ARRAYS, *_OF_EACH)} | dict(self.columns)
        if self.frames is not None:
            parts["frames"] = self.frames
        other = [f"{name} has {len(part)}" for name, part in parts.items() if len(part) != len(self.speech)]
        if other:
            raise DatasetError(f"features: speech has {len(self.speech)} rows, but {', '.join(other)}.")

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
    *,
    on_error: OnError = "raise",
    memory_mapped: bool = False,
    workers: int | None = None,
) -> Features:
    """Encode every clip and text of `dataset`; with a `folder`, store the vectors there and encode only what is new.

    Args:
        batch_size: clips that an encoder gets at once, fewer where a GPU's memory does not suffice; clips of similar
            length go together.
        on_error: "raise" stops at the first clip that cannot be encoded; "skip" leaves it out, and the store remembers
            why.
        memory_mapped: leave the vectors in files beside the stored ones, for what does not fit into memory.
        workers: threads that decode audio while an encoder works; default one for each CPU.

    Raises:
        AudioError, TextError: a clip or text cannot be encoded, with `on_error="raise"`; what was finished is stored.
        DatasetError: no clips, none that could be encoded, a damaged shard, or a folder that cannot be written.
        ClaspError: too little memory for a single clip.
    """
    check_on_error(on_error)
    if len(dataset) == 0:
        raise DatasetError(f"{description}: the dataset holds no clips.")
    clips, texts = audio_keys(dataset), [_digest(text.encode("utf-8", "surrogatepass")) for text in dataset["text"]]
    stores = []
    for encoder, keys in ((speech_encoder, clips), (spectrogram_encoder, clips), (text_encoder, texts)):
        store = VectorStore(folder, encoder.identity, encoder.dimension)
        title = f"{description}, {encoder.identity['encoder']}"
        fetch = _reader(dataset, encoder)
        _encode_missing(store, keys, fetch, _rows(encoder.encode, batch_size, title), title, on_error, workers)
        stores.append((store, keys))
    skipped, kept = [], []
    for row, name in enumerate(dataset["id"]):
        reasons = [store.failed[keys[row]] for store, keys in stores if keys[row] in store.failed]
        if not reasons:
            kept.append(row)
        elif on_error == "skip":
            skipped.append(Skipped(name, reasons[0]))
        else:  # an earlier run skipped it
            raise ClaspError(f"{name}: {reasons[0]}")
    if not kept:
        raise DatasetError(
            f"{description}: none of {len(dataset)} clips can be encoded. The first: {skipped[0].reason}"
        )
    read = VectorStore.memory_mapped if memory_mapped else VectorStore.read
    speech, picture, text = (read(store, [keys[row] for row in kept]) for store, keys in stores)
    said = dataset.select_columns(["sentence_id", "text", "category", "voice"]).select(kept)[:]
    return Features(speech, picture, text, said["sentence_id"], said["text"], said["category"], said["voice"], skipped)


def concatenate_features(parts: Sequence[Features]) -> Features:
    """The clips of several parts, one after the other, with the columns and frames that all of them have.

    Raises:
        DatasetError: no parts, or of different widths.
    """
    if not parts or any(len({getattr(part, name).shape[1] for part in parts}) > 1 for name in _ARRAYS):
        raise DatasetError("features can be joined if there are some and all come from the same encoders.")
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS}
    lists = {name: [entry for part in parts for entry in getattr(part, name)] for name in (*_OF_EACH, "skipped")}
    shared = [name for name in parts[0].columns if all(name in part.columns for part in parts)]
    columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in shared}
    frames = [clip for part in parts for clip in part.frames or ()]
    all_frames = frames if len(frames) == len(arrays["speech"]) else None
    return replace(parts[0], **arrays, **lists, columns=columns, frames=all_frames)  # type: ignore[arg-type]


def extract_frames(
    dataset: Dataset,
    speech_encoder: SpeechEncoder,
    folder: str | Path | None = None,
    batch_size: int = 32,
    description: str = "frames",
    *,
    workers: int | None = None,
) -> list[torch.Tensor]:
    """The speech encoder's hidden states before they are averaged: (frames, width) for each clip, memory-mapped.

    They are stored like the features, and are large: 50 frames a second of 1 024 numbers are 205 kB for each second.

    Raises:
        AudioError: a clip cannot be encoded; what was finished is stored.
    """
    keys = audio_keys(dataset)
    store = VectorStore(folder, speech_encoder.identity | {"encoder": "speech-frames"}, speech_encoder.dimension)
    fetch = _reader(dataset, speech_encoder)
    encode = _rows(speech_encoder.frames, batch_size, description)
    _encode_missing(store, keys, fetch, encode, description, "raise", workers)
    return [store.read_all_rows(key) for key in keys]


def audio_keys(dataset: Dataset) -> list[str]:
    """For each clip the digest of its file, byte by byte."""
    keys = []
    for audio in dataset["audio"]:
        keys.append(_digest(audio["bytes"] if audio["bytes"] is not None else Path(audio["path"]).read_bytes()))
    return keys


def _reader(dataset: Dataset, encoder: Any) -> Callable[[int], Any]:
    """A function that gives an encoder what it reads of a row: the text, or the samples at its own rate."""
    if encoder.identity["encoder"] == "text":
        return lambda row: dataset[row]["text"]
    return lambda row: load_audio(dataset[row]["audio"], encoder.sampling_rate)


def _rows(encode: Callable[..., Any], batch_size: int, title: str) -> Callable[[list], list[np.ndarray]]:
    """What an encoder says of items, in batches that fit into memory; those that follow are not larger."""

    def rows(items: list) -> list[np.ndarray]:
        nonlocal batch_size
        found, batch_size = with_less_at_once(lambda size: encode(items, size), batch_size, title)
        return list(found)

    return rows


def _encode_missing(
    store: VectorStore,
    keys: Sequence[str],
    fetch: Callable[[int], Any],
    encode: Callable[[list], list[np.ndarray]],
    description: str,
    on_error: OnError,
    workers: int | None,
) -> None:
    """Fill the store, one shard after the other; the next one is decoded while an encoder is busy with this one."""
    rows = {key: row for row, key in reversed(list(enumerate(keys)))}  # a clip that occurs twice is encoded once
    missing = [key for key in dict.fromkeys(keys) if key not in store]
    shards = [missing[start : start + SHARD] for start in range(0, len(missing), SHARD)]
    if not shards:
        return
    with (
        ThreadPoolExecutor(workers or os.cpu_count()) as pool,
        tqdm(total=len(missing), desc=description, unit="clip") as bar,
    ):
        ahead = [pool.submit(fetch, rows[key]) for key in shards[0]]
        for number, shard in enumerate(shards):
            now, ahead = ahead, []
            items, failed = _collected(shard, now, on_error)
            if number + 1 < len(shards):
                ahead = [pool.submit(fetch, rows[key]) for key in shards[number + 1]]
            try:
                found = dict(zip(items, encode(list(items.values())), strict=True)) if items else {}
            except ClaspError as error:
                if on_error == "raise" or _too_large(error):
                    for task in ahead:
                        task.cancel()
                    raise
                found = _one_by_one(items, encode, failed)
            for key in [key for key, vectors in found.items() if not np.isfinite(vectors).all()]:
                del found[key]
                failed[key] = _NOT_FINITE
                if on_error == "raise":
                    raise ClaspError(f"{description}, clip number {rows[key]}: {_NOT_FINITE}")
            store.add(found, failed)
            bar.update(len(shard))


def _collected(
    shard: Sequence[str], tasks: Sequence[Future], on_error: OnError
) -> tuple[dict[str, Any], dict[str, str]]:
    """What was decoded, and why the rest was not."""
    items, failed = {}, {}
    for key, task in zip(shard, tasks, strict=True):
        try:
            items[key] = task.result()
        except ClaspError as error:
            if on_error == "raise":
                raise
            failed[key] = str(error)
    return items, failed


def _one_by_one(
    items: dict[str, Any], encode: Callable[[list], list[np.ndarray]], failed: dict[str, str]
) -> dict[str, np.ndarray]:
    """Encode a shard of which something cannot be encoded."""
    found = {}
    for key, item in items.items():
        try:
            (found[key],) = encode([item])
        except ClaspError as error:
            if _too_large(error):
                raise
            failed[key] = str(error)
    return found


def _too_large(error: ClaspError) -> bool:
    """Whether memory did not suffice, which says nothing about the clip: it must not be remembered as a bad one."""
    return isinstance(error.__cause__, torch.OutOfMemoryError)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
