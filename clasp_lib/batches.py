"""Rows of stored features for each step of training: from the device's memory if they fit there, else read ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch

from clasp_lib.corpus import normalise_text
from clasp_lib.errors import ClaspError
from clasp_lib.features import Features
from clasp_lib.pooling import Frames, pad_frames


class Batch(NamedTuple):
    """Some rows of the features, on the device.

    Attributes:
        speech: (n, speech width), or frames for a fusion that takes them. picture: (n, picture width).
        text: (n, width). columns: what else the loss has asked for, by name, n rows each.
    """

    speech: torch.Tensor | Frames
    picture: torch.Tensor
    text: torch.Tensor
    columns: dict[str, torch.Tensor]


class Table:
    """Features laid out for training.

    Args:
        needs: names of columns besides speech, picture and text. "sentences" and "categories" are numbered here,
            "other" stands for `other_speech` and `other_picture`, and the rest is taken from `features.columns`.
        frames: whether speech is given frame by frame.
        resident: whether all rows are held on the device; None decides by its free memory, and takes back a yes that
            another program has made wrong. Frames never are.

    Raises:
        ClaspError: features without a column that is needed, or without frames.
    """

    def __init__(
        self,
        features: Features,
        device: torch.device,
        needs: Sequence[str] = (),
        frames: bool = False,
        resident: bool | None = None,
    ) -> None:
        self.device, self._length = device, len(features)
        self._frames = features.frames if frames else None
        if frames and features.frames is None:
            raise ClaspError("this fusion takes frames: give features with `frames`, from `extract_frames`.")
        if frames and "other" in needs:
            raise ClaspError("this loss compares two versions of a clip; it has none for a fusion that takes frames.")
        arrays = {"picture": features.picture, "text": features.text}
        if not frames:
            arrays["speech"] = features.speech
        for name in needs:
            arrays |= _column(name, features)
        size = sum(array.nbytes for array in arrays.values())
        self.resident = _fits(size, arrays.values(), device) if resident is None else resident
        self._tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        if self.resident:
            try:
                self._tensors = {name: tensor.to(device) for name, tensor in self._tensors.items()}
            except torch.OutOfMemoryError as error:
                if resident:
                    raise ClaspError(
                        f"{device}: has too little memory for {size / 2**30:.1f} GiB of features. Leave resident out, "
                        "or give False: they are then read ahead."
                    ) from error
                self.resident = False

    def __len__(self) -> int:
        return self._length

    def rows(self, numbers: np.ndarray) -> Batch:
        """The rows of these numbers, in this order."""
        chosen = torch.from_numpy(np.ascontiguousarray(numbers))
        if self.resident:
            chosen = chosen.to(self.device, non_blocking=True)
        found = {name: self._sent(tensor[chosen]) for name, tensor in self._tensors.items()}
        if self._frames is not None:
            padded = pad_frames([self._frames[i] for i in numbers])
            speech: torch.Tensor | Frames = Frames(*map(self._sent, padded))
        else:
            speech = found.pop("speech")
        return Batch(speech, found.pop("picture"), found.pop("text"), found)

    def batches(self, order: Iterable[np.ndarray]) -> Iterator[Batch]:
        """One batch for each array of row numbers; what is not resident is read while the one before is at work."""
        if self.resident and self._frames is None:
            yield from map(self.rows, order)
        else:
            yield from _ahead(self.rows, order)

    def _sent(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.device == self.device or self.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)


class SentenceOrder:
    """In which order the clips come: every sentence once an epoch, in one of its takes; no sentence twice in a batch.

    An epoch's order follows from the seed and the epoch's number alone, so that a run can go on anywhere.
    """

    def __init__(self, sentence_ids: Sequence[str], batch_size: int, seed: int) -> None:
        numbers = _numbered(sentence_ids)
        self._rows = np.argsort(numbers, kind="stable")  # (clips,) sentence by sentence
        self._takes = np.bincount(numbers)  # (sentences,)
        self._starts = np.cumsum(self._takes) - self._takes
        self.batch_size, self._seed = min(batch_size, len(self._takes)), seed

    def __len__(self) -> int:
        """Steps in an epoch. What is left over after the last full batch waits for another epoch."""
        return len(self._takes) // self.batch_size

    def epoch(self, number: int) -> np.ndarray:
        """Row numbers, (steps, batch_size)."""
        rng = np.random.default_rng([self._seed, number])
        drawn = self._starts + rng.integers(self._takes)  # (sentences,)
        order = rng.permutation(self._rows[drawn])
        return order[: len(self) * self.batch_size].reshape(len(self), self.batch_size)


def _column(name: str, features: Features) -> dict[str, np.ndarray]:
    if name == "sentences":
        return {name: _numbered([normalise_text(text) for text in features.texts])}
    if name == "categories":
        return {name: np.unique(features.categories, return_inverse=True)[1].astype(np.int64)}
    wanted = ("other_speech", "other_picture") if name == "other" else (name,)
    missing = [column for column in wanted if column not in features.columns]
    if missing:
        raise ClaspError(f"this loss needs the column {missing[0]!r}; the features have {list(features.columns)}.")
    return {column: features.columns[column] for column in wanted}


def _numbered(names: Sequence[str]) -> np.ndarray:
    """Equal names, equal numbers, in the order of their first appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)


def _fits(size: int, arrays: Iterable[np.ndarray], device: torch.device) -> bool:
    """Half of a GPU's free memory may be filled; on a CPU, what was left in files stays there."""
    if device.type == "cuda":
        return size < torch.cuda.mem_get_info(device)[0] / 2
    return not any(isinstance(array, np.memmap) for array in arrays)


def _ahead(read: Callable[[np.ndarray], Batch], order: Iterable[np.ndarray]) -> Iterator[Batch]:
    with ThreadPoolExecutor(1) as thread:
        waiting = None
        for numbers in order:
            waiting, ready = thread.submit(read, numbers), waiting
            if ready is not None:
                yield ready.result()
        if waiting is not None:
            yield waiting.result()
