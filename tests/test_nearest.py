"""Exact search: as a sort of all cosines says, whatever the number of queries, the blocks and the arrays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clasp_lib.errors import ClaspError
from clasp_lib.index import nearest
from clasp_lib.index.nearest import Exact


def units(rows: int, width: int = 24, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, width), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def sorted_rows(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """By all cosines in float64, rounded to float32, equal ones in order of their rows."""
    scores = (queries.astype(np.float64) @ vectors.T.astype(np.float64)).astype(np.float32)
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "_BLOCK", (64, 128))
    monkeypatch.setattr(nearest, "_QUERIES", 7)


@pytest.mark.parametrize("k", [1, 10, 200, 999])
@pytest.mark.usefixtures("small_blocks")
def test_the_nearest_rows_are_those_of_a_sort(k: int) -> None:
    vectors, queries = units(1000), units(20, seed=1)
    scores, rows = Exact(vectors, "cpu").search(queries, k)
    assert (rows == sorted_rows(vectors, queries, k)).all()
    assert scores.dtype == np.float32 and rows.dtype == np.int64
    assert np.allclose(scores, np.take_along_axis(queries @ vectors.T, rows, 1), atol=1e-6)


def test_groups_of_columns_do_not_hide_a_row() -> None:
    vectors, queries = units(60_000), units(3, seed=1)
    vectors[96:104] = queries[0] + 0.01 * units(8, seed=2)  # all in one group
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = Exact(vectors, "cpu").search(queries, 10)[1]
    assert set(range(96, 104)) <= set(rows[0])
    assert (rows == sorted_rows(vectors, queries, 10)).all()


def test_several_arrays_are_searched_as_one(tmp_path: Path) -> None:
    vectors, queries = units(500), units(5, seed=1)
    np.save(tmp_path / "part.npy", vectors[100:350])
    mapped = np.load(tmp_path / "part.npy", mmap_mode="r")
    parts = [vectors[:100], mapped, vectors[:0], vectors[350:]]
    whole, joined = (Exact(given, "cpu").search(queries, 50) for given in (vectors, parts))
    assert (whole[0] == joined[0]).all() and (whole[1] == joined[1]).all()


@pytest.mark.filterwarnings("error")
def test_a_file_that_is_mapped_for_reading_gives_no_warning(tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", units(50))
    Exact(np.load(tmp_path / "vectors.npy", mmap_mode="r"), "cpu").search(units(1), 3)


def test_the_vectors_are_not_copied() -> None:
    vectors = units(50)
    exact = Exact(vectors, "cpu")
    vectors[7] = units(1, seed=5)[0]
    assert exact.search(units(1, seed=5), 1)[1][0, 0] == 7


def test_a_query_gets_the_same_answer_alone_and_in_company() -> None:
    vectors, queries = units(5000), units(300, seed=1)
    exact = Exact(vectors, "cpu")
    scores, rows = exact.search(queries, 10)
    for i in (0, 17, 299):
        alone_scores, alone_rows = exact.search(queries[i : i + 1], 10)
        assert (alone_scores[0] == scores[i]).all() and (alone_rows[0] == rows[i]).all()


@pytest.mark.parametrize("copies", [3, 40, 700])
@pytest.mark.usefixtures("small_blocks")
def test_equal_vectors_score_equally_and_come_in_order(copies: int) -> None:
    vectors, query = units(1000), units(1, seed=1)
    where = np.sort(np.random.default_rng(2).choice(1000, copies, replace=False))
    vectors[where] = query
    scores, rows = Exact(vectors, "cpu").search(query, 20)
    assert (rows[0, : min(copies, 20)] == where[:20]).all()
    assert len(set(scores[0, : min(copies, 20)])) == 1
    assert (rows == sorted_rows(vectors, query, 20)).all()


@pytest.mark.parametrize("share", [0.9, 0.3, 0.01])
@pytest.mark.usefixtures("small_blocks")
def test_only_allowed_rows_are_found(share: float) -> None:
    vectors, queries = units(1000), units(9, seed=1)
    allowed = np.random.default_rng(3).random(1000) < share
    scores, rows = Exact(vectors, "cpu").search(queries, 10, allowed)
    numbers = np.flatnonzero(allowed)
    expected = numbers[sorted_rows(vectors[allowed], queries, 10)]
    width = expected.shape[1]
    assert (rows[:, :width] == expected).all()
    assert (rows[:, width:] == -1).all() and np.isneginf(scores[:, width:]).all()


def test_equal_vectors_among_the_allowed_come_in_order() -> None:
    vectors, query = units(1000), units(1, seed=1)
    vectors[200:900] = query
    allowed = np.arange(1000) % 3 == 0
    assert (Exact(vectors, "cpu").search(query, 5, allowed)[1][0] == [201, 204, 207, 210, 213]).all()


def test_where_nothing_can_be_found_there_are_no_rows() -> None:
    vectors, queries = units(30), units(2, seed=1)
    scores, rows = Exact(vectors, "cpu").search(queries, 4, np.zeros(30, bool))
    assert (rows == -1).all() and np.isneginf(scores).all()
    assert (Exact([], "cpu").search(queries, 4)[1] == -1).all()
    assert Exact(vectors, "cpu").search(queries[:0], 4)[0].shape == (0, 4)


def test_more_than_there_is_ends_in_minus_one() -> None:
    vectors, queries = units(3), units(2, seed=1)
    rows = Exact(vectors, "cpu").search(queries, 5)[1]
    assert (rows[:, :3] == sorted_rows(vectors, queries, 3)).all() and (rows[:, 3:] == -1).all()


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (units(3).astype(np.float64), "float64"),
        (units(3)[0], r"shape \(24,\)"),
        (units(4)[:, ::2], "ascontiguousarray"),
        ([units(3), units(3, 16)], "widths 24 and 16"),
        ([units(3), [[1.0]]], "list"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(vectors: np.ndarray, message: str) -> None:
    with pytest.raises(ClaspError, match=message):
        Exact(vectors, "cpu")


@pytest.mark.parametrize(
    ("queries", "k", "allowed", "message"),
    [
        (units(2, 16), 1, None, "16 numbers each, the vectors 24"),
        (units(2).astype(np.float16), 1, None, "float16"),
        (units(2)[0], 1, None, r"shape \(24,\)"),
        (units(2), 0, None, "k is 0"),
        (units(2), True, None, "k is True"),
        (units(2), 1, np.ones(9, bool), r"bool of shape \(10,\)"),
        (units(2), 1, np.arange(10), "int64"),
    ],
)
def test_a_search_that_does_not_fit_is_refused(queries: np.ndarray, k: int, allowed: object, message: str) -> None:
    with pytest.raises(ClaspError, match=message):
        Exact(units(10), "cpu").search(queries, k, allowed)


def test_memory_does_not_grow_with_the_queries() -> None:
    """All scores of 2 000 queries and 100 000 rows would be 800 MB."""
    code = """
import resource, sys
import numpy as np
from clasp_lib.index.nearest import Exact
vectors, queries = np.ones((100_000, 4), np.float32) / 2, np.ones((2_000, 4), np.float32) / 2
vectors[:, 0] = np.linspace(-0.5, 0.5, 100_000)
exact = Exact(vectors, "cpu")
exact.search(queries[:1], 5)
unit = 1 if sys.platform == "darwin" else 1024
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
exact.search(queries, 5)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit
assert grown < 300e6, grown
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
