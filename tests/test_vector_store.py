"""Vectors come back by their keys, whole or not at all, from one folder or from several joined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clasp_lib.errors import DatasetError
from clasp_lib.vector_store import VectorStore, join_stores

SPEECH = {"encoder": "speech", "weights": "abc"}


def vectors(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    rows = np.random.default_rng(seed).standard_normal((n, 4)).astype(np.float32)
    return {f"{seed}-{i}": row for i, row in enumerate(rows)}


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("on_disk", [True, False])
def test_rows_come_back_in_the_order_asked_for(tmp_path: Path, on_disk: bool) -> None:
    one, two = vectors(3, 1), vectors(2, 2)
    store = VectorStore(tmp_path if on_disk else None, SPEECH, 4)
    store.add(one)
    store.add(two, failed={"bad": "is silent"})
    asked = ["2-1", "1-0", "1-2", "2-1"]
    for opened in [store, VectorStore(tmp_path, SPEECH, 4)] if on_disk else [store]:
        assert len(opened) == 5 and "bad" in opened and "1-0" in opened and "3-0" not in opened
        assert opened.failed == {"bad": "is silent"}
        np.testing.assert_array_equal(opened.read(asked), np.stack([(one | two)[key] for key in asked]))
        np.testing.assert_array_equal(opened.memory_mapped(asked), opened.read(asked))
        assert opened.read([]).shape == (0, 4)


def test_a_memory_mapped_matrix_is_written_once_and_stays_as_it_is(tmp_path: Path) -> None:
    store = VectorStore(tmp_path, SPEECH, 4)
    store.add(vectors(5))
    matrix = store.memory_mapped(["0-1", "0-3"])
    assert isinstance(matrix, np.memmap)
    before = files(tmp_path)
    matrix[:] = 0  # in memory only
    np.testing.assert_array_equal(store.memory_mapped(["0-1", "0-3"]), store.read(["0-1", "0-3"]))
    assert files(tmp_path) == before


def test_several_rows_of_a_key_stay_together(tmp_path: Path) -> None:
    frames = {"a": np.ones((3, 4)), "b": np.zeros((1, 4)), "c": np.full((2, 4), 2.0)}
    VectorStore(tmp_path, SPEECH, 4).add(frames)
    store = VectorStore(tmp_path, SPEECH, 4)
    for key, rows in frames.items():
        assert isinstance(store.read_all_rows(key), torch.Tensor)
        np.testing.assert_array_equal(store.read_all_rows(key).numpy(), rows)


def test_the_same_work_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        VectorStore(tmp_path / name, SPEECH, 4).add(vectors(3), failed={"bad": "is silent"})
    assert files(tmp_path / "one") == files(tmp_path / "two") != {}


def test_another_identity_is_another_store(tmp_path: Path) -> None:
    VectorStore(tmp_path, SPEECH, 4).add(vectors(2))
    assert len(VectorStore(tmp_path, SPEECH | {"layer": 3}, 4)) == 0
    assert len(VectorStore(tmp_path, SPEECH | {"encoder": "picture"}, 4)) == 0
    assert len(VectorStore(tmp_path, SPEECH, 4)) == 2


def test_joined_folders_hold_what_each_of_them_held(tmp_path: Path) -> None:
    VectorStore(tmp_path / "a", SPEECH, 4).add(vectors(3, 1))
    other = VectorStore(tmp_path / "b", SPEECH, 4)
    other.add(vectors(2, 2))
    other.add(vectors(3, 1))
    VectorStore(tmp_path / "b", SPEECH | {"encoder": "picture"}, 4).add(vectors(1, 3))
    assert join_stores([tmp_path / "a", tmp_path / "b"], tmp_path / "all") == 3  # the shard in both is one
    assert join_stores([tmp_path / "b"], tmp_path / "all") == 0
    joined = VectorStore(tmp_path / "all", SPEECH, 4)
    assert len(joined) == 5 and joined.verify() == 2
    np.testing.assert_array_equal(joined.read(["2-1"]), other.read(["2-1"]))
    with pytest.raises(DatasetError, match="holds no stored features"):
        join_stores([tmp_path / "nothing"], tmp_path / "all")


def test_a_shard_that_breaks_off_is_named(tmp_path: Path) -> None:
    VectorStore(tmp_path, SPEECH, 4).add(vectors(2))
    (shard,) = tmp_path.rglob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(DatasetError, match=rf"{shard.name}: is damaged .*Delete it"):
        VectorStore(tmp_path, SPEECH, 4)


def test_a_single_changed_bit_is_found(tmp_path: Path) -> None:
    store = VectorStore(tmp_path, SPEECH, 4)
    store.add(vectors(2))
    (shard,) = tmp_path.rglob("*.safetensors")
    data = bytearray(shard.read_bytes())
    data[-30] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DatasetError, match="has changed since it was written"):
        VectorStore(tmp_path, SPEECH, 4).verify()
    with pytest.raises(DatasetError, match="has changed since it was written"):
        join_stores([tmp_path], tmp_path / "joined")
    assert not (tmp_path / "joined").exists()


def test_a_shard_of_another_encoder_is_refused(tmp_path: Path) -> None:
    VectorStore(tmp_path, SPEECH, 4).add(vectors(2))
    other = VectorStore(tmp_path, SPEECH | {"layer": 1}, 4)
    (shard,) = tmp_path.rglob("*.safetensors")
    other.folder.mkdir()
    (other.folder / shard.name).write_bytes(shard.read_bytes())
    with pytest.raises(DatasetError, match="does not belong into this folder"):
        VectorStore(tmp_path, SPEECH | {"layer": 1}, 4)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError("no space left on device")

    store = VectorStore(tmp_path, SPEECH, 4)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(DatasetError, match=r"cannot be written .no space left"):
            store.add(vectors(2))
    assert files(tmp_path) == {} and len(store) == 0


def test_what_a_killed_run_left_is_swept_away_with_its_shard(tmp_path: Path) -> None:
    store = VectorStore(tmp_path, SPEECH, 4)
    store.add(vectors(2))
    (shard,) = tmp_path.rglob("*.safetensors")
    shard.rename(shard.with_suffix(".999.tmp"))  # killed before the renaming
    VectorStore(tmp_path, SPEECH, 4).add(vectors(2))
    assert [file.name for file in tmp_path.rglob("*.*") if file.is_file()] == [shard.name]
