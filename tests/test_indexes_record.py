"""What the chapter on indexes reads: how its vectors are made, that a stopped run goes on, and what the record says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from clasp_lib import get_profile
from clasp_lib.encoders.checkpoints import pocket_folder
from clasp_lib.index.faiss_kinds import bytes_per_vector
from clasp_lib.records import indexes
from clasp_lib.records.index_vectors import BLOCK, Base, base_vectors, mixtures, shape_of, write_mixtures
from clasp_lib.records.indexes import GOAL, Part, measure, of, parts, run_part

RECORD = pocket_folder("reports") / "indexes.json"


@pytest.fixture(scope="module")
def record() -> dict:
    return json.loads(RECORD.read_text("utf-8"))


def units(rows: int, width: int = 16, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, width)) + 0.5
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_a_block_can_be_made_again_without_the_others(tmp_path: Path) -> None:
    base = units(50)
    stored = write_mixtures(tmp_path / "made.npy", base, BLOCK + 300, seed=7)
    assert stored.shape == (BLOCK + 300, 16) and stored.dtype == np.float32
    assert (stored[BLOCK:] == mixtures(base, 1, seed=7, rows=300)).all()
    assert (mixtures(base, 1, seed=7)[:300] == stored[BLOCK:]).all()
    assert not (mixtures(base, 1, seed=8, rows=300) == stored[BLOCK:]).any(1).all()
    assert np.allclose(np.linalg.norm(stored, axis=1), 1, atol=1e-5)


def test_made_vectors_are_not_copies_and_lie_where_the_base_lies() -> None:
    base = units(400)
    made = mixtures(base, 0, rows=2000)
    assert (made @ base.T).max(1).mean() < 0.99
    assert made.mean(0) @ base.mean(0) / np.linalg.norm(made.mean(0)) / np.linalg.norm(base.mean(0)) > 0.95


@pytest.mark.parametrize("dimension", [2, 5])
def test_the_intrinsic_dimension_is_that_of_the_data(dimension: int) -> None:
    rng = np.random.default_rng(0)
    flat = np.zeros((5000, 20), np.float32)
    flat[:, 0] = 1
    flat[:, 1 : 1 + dimension] = 0.05 * rng.standard_normal((5000, dimension))  # a small cap: nearly flat
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    found = shape_of(flat[:200], flat[200:])
    assert found["dimension"] == pytest.approx(dimension, rel=0.15)
    assert found["nearest"] >= found["tenth"] >= found["any"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As after the first step of a measurement, with a small base."""
    base = Base(units(200), units(60, seed=1), units(300, seed=2))
    np.savez(tmp_path / "base.npz", **base._asdict())
    write_mixtures(tmp_path / "vectors-1500.npy", base.clips, 1500)
    return tmp_path


def test_exact_search_is_timed_beside_the_bare_product(folder: Path) -> None:
    found = run_part(Part("exact", 1500, True), folder, 1500)
    assert list(found["queries"]) == ["1", "16", "64", "256"]
    for row in found["queries"].values():
        assert row["ratio"] == pytest.approx(row["exact_s"] / row["bare_s"])


def test_an_index_is_built_kept_and_asked(folder: Path) -> None:
    pytest.importorskip("faiss", reason="faiss is not installed; it is in the extra [search]")
    built = run_part(Part("hnsw build", 1500, False), folder, 1500)
    assert built["index_bytes"] == (folder / "hnsw-1500.faiss").stat().st_size
    asked = run_part(Part("hnsw queries", 1500, True), folder, 1500)
    for name in ("clips", "texts"):
        assert asked[name]["recall"] > 0.85 and asked[name]["one_ms"] > 0 and asked[name]["effort"] >= 16


def test_a_finished_part_is_not_measured_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run: list[Part] = []

    def pretend(part: Part, folder: Path, rows: int) -> None:
        run.append(part)
        (folder / part.file).write_text(json.dumps({"queries": len(run)}), "utf-8")

    monkeypatch.setattr(indexes, "_in_process", pretend)
    profile = get_profile("pocket")
    first = measure(profile, {}, folder=folder, rows=1500)
    assert run == list(parts(1500)) and {part.rows for part in run} == {1000, 1500}
    run.clear()
    assert measure(profile, {}, folder=folder, rows=1500)["parts"] == first["parts"] and not run
    measure(profile, {}, folder=folder, rows=1500, again=True)
    assert run == [part for part in parts(1500) if part.timing]


def test_what_was_stopped_is_not_a_result() -> None:
    rows = [{"part": "a", "rows": 10, "x": 1}, {"part": "a", "rows": 20, "stopped_after_s": 5.0}]
    assert of({"parts": rows}, "a") == {10: rows[0]}
    assert of({"parts": rows}, "b") == {}


# The record ------------------------------------------------------------------------------------------------------


def test_the_record_goes_to_a_million(record: dict) -> None:
    assert list(of(record, "exact")) == list(indexes.SIZES)
    for kind in ("hnsw", "ivfpq"):
        assert set(of(record, f"{kind} build")) == set(of(record, f"{kind} queries")) == set(indexes.SIZES)


def test_the_recall_of_the_record_is_as_asked(record: dict) -> None:
    """On queries that did not choose the effort, so a little below the goal may happen by chance."""
    for kind in ("hnsw", "ivfpq"):
        for part in of(record, f"{kind} queries").values():
            for name in ("clips", "texts"):
                assert part[name]["recall"] > GOAL - 0.01
            assert part["texts at the effort of clips"] < part["clips"]["recall"]


def test_the_bytes_of_the_record_are_those_of_the_arithmetic(record: dict) -> None:
    for kind in ("hnsw", "ivfpq"):
        for rows, part in of(record, f"{kind} build").items():
            if rows < 10_000:
                continue  # what every index holds, whatever its size, counts there
            assert bytes_per_vector(kind, rows, record["width"]) == pytest.approx(part["index_bytes"] / rows, rel=0.1)


def test_the_made_vectors_of_the_record_lie_like_real_ones(record: dict) -> None:
    shape = record["shape"]
    for real, made in (
        ("clips of the base", "made vectors, as many"),
        ("texts, base", "texts, made vectors, as many"),
    ):
        assert abs(shape[real]["nearest"] - shape[made]["nearest"]) < 0.05
        assert abs(shape[real]["tenth"] - shape[made]["tenth"]) < 0.05
        assert shape[made]["dimension"] == pytest.approx(shape[real]["dimension"], rel=0.25)


@pytest.mark.slow
def test_a_slice_of_the_vectors_is_made_again(record: dict) -> None:
    """Encodes all clips with both models unless they are cached: about four minutes of one core."""
    base = base_vectors(get_profile("pocket"))
    assert len(base.clips) == record["base"]
    slice_ = record["slice"]
    made = mixtures(base.clips, slice_["block"], record["seed"], slice_["rows"])
    assert np.allclose(made.sum(1), slice_["sums"], atol=1e-3)
    shape = shape_of(base.asked_texts, base.clips)
    assert shape == pytest.approx(record["shape"]["texts, base"], rel=1e-2)
