"""The two kinds of faiss index that are built here: how, when, and how large they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from clasp_lib.errors import MissingDependencyError
from clasp_lib.index.nearest import Exact

KINDS = {"hnsw": "faiss HNSW", "ivfpq": "faiss IVF-PQ"}
"""A graph of neighbours over vectors of one byte a number; clusters of vectors of an eighth of a byte a number."""

HNSW_UP_TO = 50_000
"""Rows up to which "auto" takes the graph. Measured on vectors like those of clips (`clasp_lib.records.indexes`)."""

LINKS, CONSTRUCTION = 32, 64
"""Of the graph: links of a row, twice as many on the lowest level, and candidates among which they are chosen."""

FEWEST = 1000
"""Rows that clusters need."""

ADDED = 2**15
"""Rows that are added at once."""


def choose_kind(rows: int) -> str:
    """What "auto" builds."""
    return "hnsw" if rows <= HNSW_UP_TO else "ivfpq"


def bytes_per_vector(kind: str, rows: int, dimension: int) -> float:
    """What an index holds in memory for each row, without the true vectors; the book checks it against faiss.

    The graph: one byte a number, 2 * `LINKS` links of four bytes on the lowest level and `LINKS` on each further one,
    which a row reaches with probability 1 / `LINKS`, and twelve bytes of level and offset. The clusters: half a byte
    for each four numbers, which come in blocks of 32 rows so that each cluster ends in one that is half empty, a number
    of eight bytes, and its share of the centres.
    """
    if kind == "hnsw":
        return dimension + 4 * LINKS * (2 + 1 / (LINKS - 1)) + 12
    share = clusters(rows) / rows
    return _subvectors(dimension) / 2 * (1 + 16 * share) + 8 + 4 * dimension * share


def clusters(rows: int) -> int:
    """How many for so many rows: about 4 sqrt(rows), a power of two, with at least 39 rows each, as faiss advises."""
    return max(1, min(2 ** round(np.log2(4 * rows**0.5)), rows // 39))


def _subvectors(dimension: int) -> int:
    """Pieces of a vector that get a code of four bits each: of four numbers where that is possible."""
    return next((dimension // size for size in (4, 3, 5, 2) if dimension % size == 0), dimension)


def new_index(kind: str, exact: Exact, rng: np.random.Generator) -> Any:
    """A trained faiss index without rows."""
    faiss, n, d = import_faiss(), len(exact), exact.dimension
    seed = int(rng.integers(2**31))
    if kind == "hnsw":
        index = faiss.IndexHNSWSQ(d, faiss.ScalarQuantizer.QT_8bit, LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.rng = CONSTRUCTION, faiss.RandomGenerator(seed)
        sample = 50_000
    else:
        lists = clusters(n)
        coarse = "_HNSW32" if lists > 2**14 else ""
        factory = f"IVF{lists}{coarse},PQ{_subvectors(d)}x4fs"
        index = faiss.index_factory(d, factory, faiss.METRIC_INNER_PRODUCT)
        for clustering in (index.cp, index.pq.cp):
            clustering.seed, clustering.min_points_per_centroid = seed, 1
        sample = max(40 * lists, 10_000)
    index.train(exact.take(np.sort(rng.choice(n, min(n, sample), replace=False))))
    return index


def add_rows(index: Any, array: np.ndarray) -> None:
    for start in range(0, len(array), ADDED):
        index.add(np.ascontiguousarray(array[start : start + ADDED]))


def import_faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingDependencyError("faiss is not installed. Run: pip install 'clasp-lib[search]'") from error
    return faiss
