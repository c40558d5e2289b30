"""faiss behind the interface of exact search: its recall is measured, its files are checked, filters hold."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clasp_lib.errors import ClaspError, DatasetError, MissingDependencyError
from clasp_lib.index import approximate
from clasp_lib.index.approximate import Approximate
from clasp_lib.index.faiss_kinds import HNSW_UP_TO, KINDS, bytes_per_vector, choose_kind, clusters
from clasp_lib.index.nearest import Exact

faiss = pytest.importorskip("faiss", reason="faiss is not installed; it is in the extra [search]")

WIDTH = 32


def clouds(rows: int, seed: int = 0) -> np.ndarray:
    """Unit vectors (rows, WIDTH) around a hundred centres, as voices of a hundred sentences."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((100, WIDTH))
    vectors = centres[rng.integers(100, size=rows)] + 0.5 * rng.standard_normal((rows, WIDTH))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return clouds(3000)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return clouds(200, seed=1)


@pytest.fixture(scope="module", params=list(KINDS))
def built(request: pytest.FixtureRequest, vectors: np.ndarray, queries: np.ndarray) -> Approximate:
    return Approximate.build(vectors, request.param, queries=queries)


def share_found(index: Approximate, queries: np.ndarray, k: int = 10, allowed: np.ndarray | None = None) -> float:
    truth = index.exact.search(queries, k, allowed)[1]
    found = index.search(queries, k, allowed)[1]
    return float((found[:, :, None] == truth[:, None, :]).any(1).mean())


def test_the_recall_that_is_told_holds_for_other_queries(built: Approximate) -> None:
    assert built.recall is not None and built.recall.reached and built.recall.rows == 3000
    assert built.recall.queries == 200 and not built.recall.made
    assert built.recall.low <= built.recall.value <= built.recall.high
    assert abs(share_found(built, clouds(200, seed=2)) - built.recall.value) < 0.05


def test_scores_are_exact_and_in_order(built: Approximate, vectors: np.ndarray, queries: np.ndarray) -> None:
    scores, rows = built.search(queries, 10)
    assert scores.dtype == np.float32 and rows.dtype == np.int64 and rows.min() >= 0
    assert np.allclose(scores, np.einsum("qd,qkd->qk", queries, vectors[rows]), atol=1e-6)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert all(len(set(row)) == 10 for row in rows)


def test_a_higher_goal_takes_more_effort(built: Approximate) -> None:
    kept = built.effort, built.depth, built.recall
    anywhere = np.random.default_rng(6).standard_normal((200, WIDTH)).astype(np.float32)
    anywhere /= np.linalg.norm(anywhere, axis=1, keepdims=True)
    found = []
    for goal in (0.5, 0.99):
        recall = built.tune(goal, anywhere)
        assert recall.reached and recall is built.recall
        found.append(built._cost(built.effort, built.depth))
    assert found[0] < found[1]
    built.effort, built.depth, built.recall = kept


def test_a_goal_that_is_not_reached_is_told(
    built: Approximate, queries: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = built.effort, built.depth, built.recall
    monkeypatch.setattr(Approximate, "_efforts", lambda self: [1])
    monkeypatch.setattr(approximate, "_DEPTHS", (10,))
    with pytest.warns(UserWarning, match=r"the goal is not reached, recall@10 0\.\d+ .*goal 0\.999"):
        recall = built.tune(0.999, queries)
    assert not recall.reached and built.recall is recall
    built.effort, built.depth, built.recall = kept


@pytest.mark.filterwarnings("ignore:faiss")  # uniform noise is the hardest there is: told, and not the matter here
def test_without_queries_they_are_made_and_lie_far_out(vectors: np.ndarray) -> None:
    index = Approximate.build(vectors, "hnsw")
    assert index.recall is not None and index.recall.made and index.recall.queries == 400
    made = index._made_queries(np.random.default_rng(0))
    assert np.allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)
    rows = np.sort(np.random.default_rng(0).choice(3000, 400, replace=False))
    assert np.allclose((made * vectors[rows]).sum(1), approximate.FAR, atol=1e-4)
    few = Approximate.build(vectors, "hnsw", queries=clouds(3, seed=4))
    assert few.recall is not None and few.recall.made  # three queries tell nothing


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_a_filter_holds_and_finds_about_as_much(
    built: Approximate, queries: np.ndarray, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approximate, "FILTERED_EXACTLY", (0, 0.0))  # so that faiss does the filtering
    allowed = np.random.default_rng(5).random(3000) < share
    rows = built.search(queries, 10, allowed)[1]
    assert allowed[rows[rows >= 0]].all()
    assert share_found(built, queries, allowed=allowed) > 0.9
    assert ((rows >= 0).sum(1) == min(10, allowed.sum())).all()


def test_where_a_filter_leaves_few_rows_the_answer_is_exact(built: Approximate, queries: np.ndarray) -> None:
    allowed = np.arange(3000) % 100 == 0
    for found, expected in zip(built.search(queries, 10, allowed), built.exact.search(queries, 10, allowed)):
        assert (found == expected).all()
    assert (built.search(queries, 4, np.zeros(3000, bool))[1] == -1).all()


def test_a_large_part_of_all_rows_is_found_exactly(built: Approximate, queries: np.ndarray) -> None:
    assert (built.search(queries[:3], 500)[1] == built.exact.search(queries[:3], 500)[1]).all()


def test_more_than_ten_are_found_as_well(built: Approximate, queries: np.ndarray) -> None:
    assert share_found(built, queries, k=100) > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_added_rows_are_found(kind: str, vectors: np.ndarray, queries: np.ndarray) -> None:
    index = Approximate.build([vectors[:1000], vectors[1000:2000]], kind, queries=queries)
    index.add(vectors[2000:])
    assert len(index) == 3000 and index.recall is not None and index.recall.rows == 2000
    assert share_found(index, queries) > 0.85
    assert (index.search(vectors[2000:], 1)[1][:, 0] == np.arange(2000, 3000)).mean() > 0.95
    assert index.tune(queries=queries).rows == 3000
    with pytest.raises(ClaspError, match="widths"):
        index.add(np.ones((2, 5), np.float32))
    assert len(index) == index.index.ntotal == 3000


def test_the_same_rows_and_seed_give_the_same_index(
    built: Approximate, vectors: np.ndarray, queries: np.ndarray, tmp_path: Path
) -> None:
    again, other = (Approximate.build(vectors, built.kind, queries=queries, seed=seed) for seed in (0, 1))
    for name, index in (("one", built), ("again", again), ("other", other)):
        index.save(tmp_path / name)
    one, again_, other_ = ((tmp_path / name).read_bytes() for name in ("one", "again", "other"))
    assert one == again_
    assert one != other_
    assert (again.effort, again.depth, again.recall) == (built.effort, built.depth, built.recall)


def test_a_saved_index_answers_as_before(
    built: Approximate, vectors: np.ndarray, queries: np.ndarray, tmp_path: Path
) -> None:
    built.save(tmp_path / "nearest.faiss", digest="these")
    loaded = Approximate.load(tmp_path / "nearest.faiss", [vectors[:700], vectors[700:]], digest="these")
    assert (loaded.search(queries, 10)[1] == built.search(queries, 10)[1]).all()
    assert (loaded.kind, loaded.effort, loaded.depth, loaded.recall) == (
        built.kind,
        built.effort,
        built.depth,
        built.recall,
    )
    assert sorted(file.name for file in tmp_path.iterdir()) == ["nearest.faiss", "nearest.faiss.json"]


def test_rows_that_came_later_are_added_to_a_saved_index(
    vectors: np.ndarray, queries: np.ndarray, tmp_path: Path
) -> None:
    for kind in KINDS:
        Approximate.build(vectors[:2000], kind, queries=queries).save(tmp_path / kind)
        loaded = Approximate.load(tmp_path / kind, [vectors[:1500], vectors[1500:]])
        assert loaded.added == 1000 and loaded.recall is not None and loaded.recall.rows == 2000
        assert (loaded.search(vectors[2000:], 1)[1][:, 0] == np.arange(2000, 3000)).mean() > 0.95
        loaded.save(tmp_path / kind)
        assert Approximate.load(tmp_path / kind, vectors).added == 0


def test_a_damaged_file_is_not_read(built: Approximate, vectors: np.ndarray, tmp_path: Path) -> None:
    file = tmp_path / "nearest.faiss"
    built.save(file)
    whole = file.read_bytes()
    for broken in (whole[:-1], whole[:100] + bytes([whole[100] ^ 1]) + whole[101:], b""):
        file.write_bytes(broken)
        with pytest.raises(DatasetError, match="checksum"):
            Approximate.load(file, vectors)
    file.unlink()
    with pytest.raises(DatasetError, match="cannot be opened"):
        Approximate.load(file, vectors)


@pytest.mark.parametrize(
    "change", [{"format": 99}, {"kind": "pickle"}, {"effort": None}, {"recall": {"strange": 1}}, {"sha256": 3}]
)
def test_a_strange_description_is_refused(
    built: Approximate, vectors: np.ndarray, tmp_path: Path, change: dict
) -> None:
    file = tmp_path / "nearest.faiss"
    built.save(file)
    beside = tmp_path / "nearest.faiss.json"
    beside.write_text(json.dumps(json.loads(beside.read_text("utf-8")) | change), "utf-8")
    with pytest.raises(DatasetError):
        Approximate.load(file, vectors)
    for text in ("", "[]", "{}"):
        beside.write_text(text, "utf-8")
        with pytest.raises(DatasetError, match="cannot be opened"):
            Approximate.load(file, vectors)


def test_an_index_of_other_vectors_is_refused(built: Approximate, vectors: np.ndarray, tmp_path: Path) -> None:
    file = tmp_path / "nearest.faiss"
    built.save(file, digest="these")
    for others, digest, what in (
        (vectors[:-1], "these", "rows"),
        (clouds(3000, seed=8), "these", "sample"),
        (vectors, "those", "digest"),
        (np.ascontiguousarray(vectors[:, :16]), "these", "dimension"),
    ):
        with pytest.raises(DatasetError, match=rf"other vectors \(.*{what}"):
            Approximate.load(file, others, digest)


def test_a_write_that_fails_leaves_the_old_index(
    built: Approximate, vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "nearest.faiss"
    built.save(file)

    def fail(index: object, name: str) -> None:
        Path(name).write_bytes(b"half")
        raise RuntimeError("no room")

    monkeypatch.setattr(faiss, "write_index", fail)
    with pytest.raises(RuntimeError):
        built.save(file)
    assert len(Approximate.load(file, vectors)) == 3000
    assert len(list(tmp_path.iterdir())) == 2


def test_the_kind_is_chosen_by_size() -> None:
    assert [choose_kind(rows) for rows in (1, HNSW_UP_TO, HNSW_UP_TO + 1)] == [
        "hnsw",
        "hnsw",
        "ivfpq",
    ]
    assert Approximate.build(clouds(200), queries=clouds(60, seed=1)).kind == "hnsw"


def test_the_bytes_of_an_index_are_as_computed(built: Approximate, vectors: np.ndarray) -> None:
    held = len(faiss.serialize_index(built.index)) / len(vectors)
    assert bytes_per_vector(built.kind, len(vectors), WIDTH) == pytest.approx(held, rel=0.15)


def test_clusters_grow_with_the_root_of_the_rows() -> None:
    assert [clusters(rows) for rows in (10, 1000, 10_000, 10**6, 10**8)] == [1, 25, 256, 4096, 32768]


def test_queries_that_are_strange_to_the_rows_do_not_stop_the_search(vectors: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        index = Approximate.build(np.concatenate([vectors[:1]] * 1200), "hnsw")  # all rows equal
    scores, rows = index.search(clouds(2, seed=3), 5)
    assert (rows >= 0).all() and np.allclose(scores, scores[:, :1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "lsh"}, "choose one of auto, hnsw, ivfpq"),
        ({"recall": 1.0}, "search exactly"),
        ({"queries": np.ones((60, 5), np.float32)}, "5 numbers each, the vectors 32"),
        ({"vectors": np.ones((0, WIDTH), np.float32)}, "there are none"),
        ({"vectors": clouds(100), "kind": "ivfpq"}, "at least 1000 rows"),
    ],
)
def test_what_cannot_be_built_is_refused(vectors: np.ndarray, arguments: dict, message: str) -> None:
    with pytest.raises(ClaspError, match=message):
        Approximate.build(**({"vectors": vectors} | arguments))


def test_a_search_that_does_not_fit_is_refused_here_too(built: Approximate) -> None:
    with pytest.raises(ClaspError, match="k is 0"):
        built.search(clouds(1), 0)


def test_without_faiss_the_extra_is_named(vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingDependencyError, match=r"clasp-lib\[search\]"):
        Approximate.build(vectors, "hnsw")


def test_exact_search_needs_no_faiss(vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert Exact(vectors, "cpu").search(vectors[:1], 1)[1][0, 0] == 0


def test_an_index_in_a_folder_keeps_its_graph_and_mends_it(
    vectors: np.ndarray, queries: np.ndarray, tmp_path: Path
) -> None:
    """The way of `clasp_lib.index.local`: built once, brought up to date, built anew where it is damaged."""
    from clasp_lib.index.entries import Entry
    from clasp_lib.index.local import LocalStore
    from clasp_lib.index.store import about_model

    def rows(store: LocalStore) -> list[list[int]]:
        return [[int(entry.id) for _, entry in found] for found in store.search(queries, 10, None)]

    entries = [Entry(str(i), f"{i}.wav", 0.0, 1.0, f"text {i}") for i in range(3000)]
    store = LocalStore.create(tmp_path / "index", about_model("m", "f", WIDTH), "hnsw")
    store.encode_texts = lambda texts: queries[: len(texts)]
    store.add(entries[:2500], vectors[:2500])
    found = store.nearest()
    assert isinstance(found, Approximate) and found.recall is not None and not found.recall.made
    answers = rows(store)
    store.close()

    opened = LocalStore.open(tmp_path / "index")
    opened.encode_texts = lambda texts: queries[: len(texts)]
    assert rows(opened) == answers
    opened.add(entries[2500:], vectors[2500:])
    opened.remove(["0", "1", "2"])
    truth = Exact(vectors[3:], "cpu").search(queries, 10)[1] + 3
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows(opened), truth.tolist())]) > 0.9
    assert not {row for answer in rows(opened) for row in answer} & {0, 1, 2}
    opened.close()

    (file,) = (tmp_path / "index").glob("*.faiss")
    file.write_bytes(file.read_bytes()[:1000])
    again = LocalStore.open(tmp_path / "index")
    again.encode_texts = lambda texts: queries[: len(texts)]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows(again), truth.tolist())]) > 0.9
    again.close()
    assert file.stat().st_size > 1000  # written anew
