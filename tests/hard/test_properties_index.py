"""Laws of an index and of stored vectors: what a dictionary and a sort would give, after whatever was done to them."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from clasp_lib.errors import ClaspError
from clasp_lib.index.entries import Entry, check_metadata, entries_of, table_of
from clasp_lib.index.filters import allowed_rows, check_where
from clasp_lib.index.local import LocalStore
from clasp_lib.index.nearest import Exact
from clasp_lib.index.store import about_model
from clasp_lib.vector_store import VectorStore
from hard.properties import holds

WIDTH = 3
ABOUT = about_model("tiny", "f" * 32, WIDTH)
EXACT_NUMBERS = 2**53  # beyond it, whole numbers and fractions cannot be told apart in a comparison

KINDS: dict[str, st.SearchStrategy[Any]] = {
    "year": st.integers(1985, 1995),
    "count": st.integers(-EXACT_NUMBERS, EXACT_NUMBERS),
    "level": st.floats(-2, 2, allow_nan=False),
    "who": st.sampled_from(["anna", "Anna", "béla", "", "0"]),
    "clean": st.booleans(),
}


@st.composite
def tables(draw: st.DrawFn) -> list[Entry]:
    """Entries some of whose metadata is not known."""
    count = draw(st.integers(1, 12))
    entries = []
    for i in range(count):
        known = {name: draw(st.one_of(st.none(), kind)) for name, kind in KINDS.items()}
        text = draw(st.sampled_from([None, "said", "Said"]))
        entries.append(Entry(f"clip {i}", f"/{i}", i / 2, i + 1.0, text, check_metadata(known, "clip")))
    return entries


_SECONDS = st.floats(0, 6, allow_nan=False)


@st.composite
def conditions(draw: st.DrawFn) -> tuple[str, Any]:
    """A name and a condition of its kind."""
    name = draw(st.sampled_from([*KINDS, "id", "text", "start_s"]))
    own = {"id": st.sampled_from(["clip 0", "clip 7"]), "text": st.sampled_from(["said", ""]), "start_s": _SECONDS}
    values = (KINDS | own)[name]
    form = draw(st.sampled_from(["equal", "one of", "range"]))
    if form == "equal":
        return name, draw(values)
    if form == "one of":
        return name, draw(st.lists(values, min_size=1, max_size=3))
    low, high = draw(st.one_of(st.none(), values)), draw(values)
    return name, (low, high) if name != "clean" else draw(values)


def fulfils(entry: Entry, name: str, condition: Any) -> bool:
    """The same in Python's own words."""
    value = entry.metadata.get(name) if name in KINDS else getattr(entry, name)
    if value is None:
        return False
    if isinstance(condition, tuple):
        low, high = condition
        return (low is None or value >= low) and (high is None or value <= high)
    return value in condition if isinstance(condition, list) else value == condition


@holds(40, entries=tables(), wanted=st.lists(conditions(), min_size=1, max_size=3))
def test_a_filter_allows_what_fulfils_all_of_its_conditions(
    entries: list[Entry], wanted: list[tuple[str, Any]]
) -> None:
    where = dict(wanted)
    table = table_of(entries)
    assert entries_of(table) == entries
    known = {name for entry in entries for name in entry.metadata} | {"id", "text", "start_s"}
    if not set(where) <= known:
        try:
            allowed_rows(table, check_where(where))
        except ClaspError as error:
            assert "no recording of the index has" in str(error)
            return
        raise AssertionError("a name that nobody has was not refused")
    expected = [all(fulfils(entry, *pair) for pair in where.items()) for entry in entries]
    assert allowed_rows(table, check_where(where)).tolist() == expected


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=4),
    st.text(alphabet="\ud800\udfff\0a", max_size=3),
    st.binary(max_size=2),
    st.dates(),
)
STRANGE = st.one_of(
    ANYTHING, st.lists(ANYTHING, max_size=3), st.tuples(ANYTHING, ANYTHING), st.frozensets(st.booleans())
)


@holds(80, entries=tables(), where=st.dictionaries(st.one_of(st.sampled_from(sorted(KINDS)), ANYTHING), STRANGE))
def test_whatever_stands_in_a_filter_is_understood_or_refused(entries: list[Entry], where: dict[Any, Any]) -> None:
    try:
        allowed = allowed_rows(table_of(entries), check_where(where))
    except ClaspError as error:
        assert str(error).startswith("where")
    else:
        assert allowed.dtype == bool and allowed.shape == (len(entries),)


@holds(40, known=st.dictionaries(st.one_of(st.text(max_size=3), ANYTHING), STRANGE, max_size=4))
def test_whatever_is_given_as_metadata_comes_back_or_is_refused(known: dict[Any, Any]) -> None:
    try:
        checked = check_metadata(known, "clip.wav")
        entries = [Entry("clip.wav", "/clip.wav", 0.0, 1.0, None, checked)]
        table = table_of(entries)
    except ClaspError as error:
        assert "metadata" in str(error)
    else:
        assert entries_of(table) == entries
        assert set(checked) <= set(known)


# Stores ------------------------------------------------------------------------------------------------------------


def unit(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32)
    return vector / np.linalg.norm(vector)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True)),
        st.tuples(st.just("remove"), st.lists(st.integers(0, 9), max_size=3)),
        st.tuples(st.just("open again"), st.just([])),
    ),
    max_size=8,
)


@holds(8, steps=STEPS, where=st.sampled_from([None, {"even": True}]), query=st.integers(100, 105))
def test_a_store_is_a_dictionary_that_can_be_searched(
    steps: list[tuple[str, list[int]]], where: Any, query: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for place in (None, Path(folder) / "index"):
            _obeys(LocalStore.create(place, ABOUT), steps, where, unit(query))


def _obeys(store: LocalStore, steps: list[tuple[str, list[int]]], where: Any, query: np.ndarray) -> None:
    truth: dict[str, tuple[Entry, np.ndarray]] = {}
    for moment, (what, numbers) in enumerate(steps):
        if what == "add":
            entries = [Entry(f"{i}", f"/{i}", 0.0, moment + 1.0, None, {"even": i % 2 == 0}, "d") for i in numbers]
            vectors = [unit(1000 * moment + i) for i in numbers]
            store.add(entries, np.stack(vectors))
            for entry, vector in zip(entries, vectors, strict=True):
                truth.pop(entry.id, None)
                truth[entry.id] = entry, vector
        elif what == "remove":
            ids = {f"{i}" for i in numbers}
            assert store.remove(ids) == len(ids & set(truth))
            for id in ids:
                truth.pop(id, None)
        elif store.folder is not None:
            store = LocalStore.open(store.folder)
        assert len(store) == len(truth) and store.entries() == [entry for entry, _ in truth.values()]
        assert store.known() == dict.fromkeys(truth, "d")
        for (_, vector), kept in zip(truth.values(), store.vectors(), strict=True):
            np.testing.assert_array_equal(vector, kept)
        _answers(store, [pair for pair in truth.values() if not where or pair[0].metadata["even"]], where, query)


def _answers(store: LocalStore, expected: list[tuple[Entry, np.ndarray]], where: Any, query: np.ndarray) -> None:
    if where and not len(store):
        return  # nobody has such a name
    scores = [float(np.float64(vector) @ np.float64(query)) for _, vector in expected]
    order = sorted(range(len(expected)), key=lambda i: -np.float32(scores[i]))[:4]
    (found,) = store.search(query[None], 4, where)
    assert [entry for _, entry in found] == [expected[i][0] for i in order]
    assert all(math.isclose(score, scores[i], abs_tol=1e-6) for (score, _), i in zip(found, order, strict=True))


@holds(16, seed=st.integers(0, 999), n=st.integers(1, 60), k=st.integers(1, 8), parts=st.integers(1, 3))
def test_the_nearest_rows_are_those_of_a_sort(seed: int, n: int, k: int, parts: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-2, 3, (n, 4)).astype(np.float32)  # many are equal
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    queries = vectors[rng.integers(n, size=3)] + 0
    allowed = rng.random(n) < 0.6 if seed % 2 else None
    arrays = [np.ascontiguousarray(part) for part in np.array_split(vectors, parts)]
    scores, rows = Exact(arrays, "cpu").search(queries, k, allowed)
    exact = (queries.astype(np.float64) @ vectors.astype(np.float64).T).astype(np.float32)  # (3, n)
    for i in range(3):
        there = [row for row in range(n) if allowed is None or allowed[row]]
        best = sorted(there, key=lambda row: (-exact[i, row], row))[:k]
        kept = rows[i][rows[i] >= 0]
        assert len(kept) == len(best) and (rows[i][len(kept) :] == -1).all()
        np.testing.assert_allclose(scores[i][: len(best)], exact[i, best], atol=1e-6)
        assert sorted(kept) == sorted(best) or math.isclose(exact[i, kept[-1]], exact[i, best[-1]], abs_tol=1e-6)
        order = list(zip(-scores[i][: len(kept)], kept, strict=True))
        assert order == sorted(order)  # equal scores come in order of their rows


@st.composite
def shards(draw: st.DrawFn) -> list[tuple[dict[str, np.ndarray], dict[str, str]]]:
    """Rows and failures of some shards; a key may come again."""
    found = []
    for _ in range(draw(st.integers(1, 3))):
        keys = draw(st.lists(st.text(max_size=6), unique=True, max_size=4))
        counts = [draw(st.integers(0 if i else 1, 3)) for i in range(len(keys))]
        seed = draw(st.integers(0, 999))
        rows = {
            key: np.random.default_rng([seed, i]).standard_normal((n, WIDTH)).astype(np.float32)
            for i, (key, n) in enumerate(zip(keys, counts, strict=True))
        }
        found.append((rows, draw(st.dictionaries(st.text(max_size=3), st.text(max_size=5), max_size=2))))
    return found


@holds(8, parts=shards())
def test_stored_vectors_come_back_bit_by_bit(parts: list[tuple[dict[str, np.ndarray], dict[str, str]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        identity = {"encoder": "speech", "weights": "w"}
        store = VectorStore(folder, identity, WIDTH)
        memory = VectorStore(None, identity, WIDTH)
        for rows, failed in parts:
            store.add(rows, failed)
            memory.add(rows, failed)
        truth = {key: rows for part, _ in parts for key, rows in part.items()}
        once = {key: [part[key] for part, _ in parts if key in part] for key in truth}
        again: Callable[[], VectorStore] = lambda: VectorStore(folder, identity, WIDTH)  # noqa: E731
        for opened in (store, memory, again()):
            assert len(opened) == len(truth)
            assert opened.failed == {key: why for _, failed in parts for key, why in failed.items()} or len(parts) > 1
            for key, versions in once.items():
                kept = opened.read_all_rows(key).numpy()
                assert any(np.array_equal(kept, rows) for rows in versions), key
            some = [key for key, versions in once.items() if all(len(rows) for rows in versions)]
            assert opened.read(some).shape == (len(some), WIDTH)
        assert again().verify() <= len(parts)
