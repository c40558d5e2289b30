"""Mutants of an index's files: it is found to be damaged, or it answers exactly as before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hard.conftest import Ended
from hard.hammer import Hammer, Reader, hammer_on, in_two_parts
from hard.mutants import json_mutant, mutant

WIDTH = 8


def unit(n: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((n, WIDTH)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def made(folder: Path) -> None:
    """Two segments, a removed entry, texts, and metadata of three kinds."""
    from clasp_lib.index.entries import Entry
    from clasp_lib.index.local import LocalStore
    from clasp_lib.index.store import about_model

    store = LocalStore.create(folder, about_model("tiny", "f" * 32, WIDTH))
    for part in range(2):
        entries = [
            Entry(f"{part}-{i}", f"/{i}.flac", 0.0, i + 1.0, f"text {i}", {"year": i, "who": "ä", "on": i > 2}, "d")
            for i in range(6)
        ]
        store.add(entries, unit(6, part))
    store.remove(["0-3"])


def _part(folder: Path, pattern: str) -> Reader:
    """One file of an index is hurt, the rest is whole."""
    from clasp_lib.index.local import LocalStore

    whole, place = folder / "whole", folder / "index"
    made(whole)
    shutil.copytree(whole, place)
    files = sorted(whole.glob(pattern))
    target = place / files[0].name
    queries = unit(3, 9)
    store = LocalStore.open(whole)
    truth = store.entries(), store.search(queries, 4), store.search(queries, 4, {"year": (1, 3), "on": [True, False]})

    def read(data: bytes) -> None:
        target.write_bytes(data)
        opened = LocalStore.open(place)
        assert opened.entries() == truth[0]
        assert opened.search(queries, 4) == truth[1]
        assert opened.search(queries, 4, {"year": (1, 3), "on": [True, False]}) == truth[2]

    return Reader([file.read_bytes() for file in files], read, (str(place),))


def index_manifest(folder: Path) -> Reader:
    """Every other mutant has the right checksum, and is at worst another index."""
    from clasp_lib.index import manifest
    from clasp_lib.index.local import LocalStore

    reader = _part(folder, "index.json")
    documents = [json.loads(file) for file in reader.files]

    def make(number: int) -> bytes:
        if number % 2 == 0:
            return mutant(reader.files, number)
        changed = json_mutant(documents, number)
        return json.dumps({**changed, "sha256": manifest._digest(changed)}).encode()

    def read(data: bytes) -> None:
        try:
            forged = json.loads(data) not in documents and manifest._digest(json.loads(data)) in data.decode()
        except (ValueError, AttributeError, RecursionError):
            forged = False
        if not forged:
            return reader.read(data)
        (folder / "index" / "index.json").write_bytes(data)
        opened = LocalStore.open(folder / "index")
        for where in (None, {"year": (1, 3)}):
            assert len(opened.search(unit(2, 9), 4, where)) == 2
        assert len(opened.entries()) == len(opened) == len(opened.vectors())

    return reader._replace(read=read, make=make)


def index_vectors(folder: Path) -> Reader:
    return _part(folder, "*.safetensors")


def index_entries(folder: Path) -> Reader:
    return _part(folder, "*.parquet")


def _approximate(folder: Path, pattern: str) -> Reader:
    from clasp_lib.index.approximate import Approximate

    vectors, queries = unit(400, 1), unit(5, 2)
    for seed in range(2):
        Approximate.build(vectors, "hnsw", seed=seed).save(folder / f"whole-{seed}.faiss", "of these")
        shutil.copyfile(folder / f"whole-{seed}.faiss", folder / f"nearest-{seed}.faiss")
    whole = Approximate.load(folder / "whole-0.faiss", vectors, "of these").search(queries, 3)
    files = sorted(folder.glob(pattern))
    valid = [file.read_bytes() for file in files]
    target = folder / files[0].name.replace("whole-0", "mutant")
    for file in folder.glob("whole-0*"):
        shutil.copyfile(file, folder / file.name.replace("whole-0", "mutant"))

    def read(data: bytes) -> None:
        target.write_bytes(data)
        loaded = Approximate.load(folder / "mutant.faiss", vectors, "of these")
        scores, rows = loaded.search(queries, 3)
        assert rows.shape == (5, 3) and len(loaded) == 400
        if data in valid:
            np.testing.assert_array_equal(scores, whole[0])
            np.testing.assert_array_equal(rows, whole[1])
        str(loaded.recall)

    return Reader(valid, read, ("mutant.faiss",))


def faiss_index(folder: Path) -> Reader:
    """The graph itself, which has a checksum beside it."""
    return _approximate(folder, "whole-?.faiss")


def faiss_note(folder: Path) -> Reader:
    """What is written beside the graph: of which rows it is, and how hard to search."""
    from clasp_lib.index import approximate

    reader = _approximate(folder, "whole-?.faiss.json")
    notes = [{k: v for k, v in json.loads(file).items() if k != "note_sha256"} for file in reader.files]

    def make(number: int) -> bytes:
        if number % 2 == 0:
            return mutant(reader.files, number)
        changed = json_mutant(notes, number)
        return json.dumps({**changed, "note_sha256": approximate._note_sha256(changed)}).encode()

    return reader._replace(make=make)


READERS = ("index_manifest", "index_vectors", "index_entries", "faiss_index", "faiss_note")


@in_two_parts
@pytest.mark.parametrize("kind", READERS)
def test_no_mutant_of_an_index_does_harm(kind: str, numbers: range, hammer: Hammer, ended: Ended) -> None:
    if kind.startswith("faiss"):
        pytest.importorskip("faiss")
    counts = hammer_on(hammer, f"hard.test_fuzz_indexes:{kind}", numbers, ended)
    assert counts["refused"] > len(numbers) / 10


def test_an_index_whose_graph_is_hurt_answers_with_a_new_one(tmp_path: Path) -> None:
    """The graph follows from the vectors: who loses it loses time alone."""
    faiss = pytest.importorskip("faiss")
    faiss.omp_set_num_threads(1)  # several compete for the links of a graph
    from clasp_lib.index.entries import Entry
    from clasp_lib.index.local import LocalStore
    from clasp_lib.index.store import about_model

    store = LocalStore.create(tmp_path / "index", about_model(None, "f" * 32, WIDTH), "hnsw")
    store.add([Entry(str(i), f"/{i}", 0.0, 1.0) for i in range(300)], unit(300, 0))
    before = store.search(unit(4, 1), 3)
    note = tmp_path / "index" / "nearest.faiss.json"
    for change in ({"effort": 0}, {"effort": -7}, {"depth": 0}, {"kind": "ivfpq"}, {"rows": 10**9}):
        note.write_text(json.dumps(json.loads(note.read_text("utf-8")) | change), "utf-8")
        assert LocalStore.open(tmp_path / "index").search(unit(4, 1), 3) == before
    (tmp_path / "index" / "nearest.faiss").write_bytes(b"IHNs" + b"\xff" * 64)
    assert LocalStore.open(tmp_path / "index").search(unit(4, 1), 3) == before
