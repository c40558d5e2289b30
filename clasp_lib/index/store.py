"""Where an index keeps vectors and what they stand for: in memory or a folder (`local`), or a database (`milvus`)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from clasp_lib.errors import DatasetError, brief
from clasp_lib.index.entries import Entry
from clasp_lib.index.filters import Where

FORMAT = 2


class ModelName(NamedTuple):
    """The model that built an index: what it was loaded as, its fingerprint, and the width of its vectors."""

    name: str | None
    fingerprint: str
    dimension: int


class Store(Protocol):
    """What `SpeechIndex` needs of a place. Vectors are float32 of unit length."""

    about: dict[str, Any]

    def __len__(self) -> int:
        """How many entries there are."""

    def known(self) -> dict[str, str]:
        """The recordings that are there: by id, their digest."""

    def add(self, entries: Sequence[Entry], vectors: np.ndarray) -> None:
        """Keep entries and their vectors (n, dimension), all or none of them; recordings of the same ids give way."""

    def remove(self, ids: Collection[str]) -> int:
        """Forget recordings; returns how many of them there were."""

    def search(self, queries: np.ndarray, k: int, where: Where | None = None) -> list[list[tuple[float, Entry]]]:
        """For each query (q, dimension) the `k` nearest entries that fulfil a filter, best first, with their cosine."""

    def vectors(self) -> np.ndarray:
        """All vectors (n, dimension), in the order in which they came."""

    def entries(self) -> list[Entry]:
        """All entries, likewise."""

    def close(self) -> None:
        """Let go of files and connections."""


def about_model(name: str | None, fingerprint: str, dimension: int) -> dict[str, Any]:
    """What a store remembers of the model that fills it."""
    return {"format": FORMAT, "model": {"name": name, "fingerprint": fingerprint, "dimension": dimension}}


def model_of(about: Any, place: object) -> ModelName:
    """Which model filled a store.

    Raises:
        DatasetError: written by another version, or not by this library.
    """
    if not isinstance(about, dict) or "format" not in about:
        raise DatasetError(f"{place}: is not an index. Name the folder or the address that one was built in.")
    if about["format"] != FORMAT:
        raise DatasetError(f"{place}: has format {about['format']}; this version reads {FORMAT}. Build it again.")
    try:
        known = ModelName(**about["model"])
    except (KeyError, TypeError) as error:
        raise DatasetError(f"{place}: does not say which model built it ({error}). Build it again.") from error
    kinds = (str | None, str, int)
    if not all(isinstance(value, kind) for value, kind in zip(known, kinds, strict=True)):
        raise DatasetError(f"{place}: does not say which model built it, but {brief(known)}. Build it again.")
    return known
