"""An index in a folder: whole or as it was, one writer at a time, every damage noticed."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from clasp_lib.errors import ClaspError, DatasetError
from clasp_lib.index.entries import Entry
from clasp_lib.index.local import LocalStore
from clasp_lib.index.store import about_model, model_of

WIDTH = 8
ABOUT = about_model("tiny", "f" * 32, WIDTH)


def unit(n: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((n, WIDTH)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def some(names: list[str], **metadata: object) -> list[Entry]:
    return [Entry(name, f"/{name}.flac", 0.0, 1.5, f"text of {name}", metadata, f"digest {name}") for name in names]  # type: ignore[arg-type]


def names(n: int, start: int = 0) -> list[str]:
    return [f"clip {i}" for i in range(start, start + n)]


def found(store: LocalStore, query: np.ndarray, k: int = 3) -> list[str]:
    return [entry.id for _, entry in store.search(query[None], k)[0]]


@pytest.fixture(params=["memory", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LocalStore:
    return LocalStore.create(None if request.param == "memory" else tmp_path / "index", ABOUT)


# What it keeps -----------------------------------------------------------------------------------------------------


def test_entries_come_back_as_they_were(store: LocalStore) -> None:
    entries = [
        Entry("a", "/a.flac", 0.0, 1.25, "said", {"year": 1990, "who": "anna", "clean": True}, "1"),
        Entry("b", "/b.flac", 3.5, 4.0, None, {"year": 2001}, "2"),
        Entry("c", "/چ\n.flac", 0.0, 1.0, "Über ‮ق", {}, "3"),
    ]
    vectors = unit(3)
    store.add(entries, vectors)
    assert store.entries() == entries and len(store) == 3
    np.testing.assert_array_equal(store.vectors(), vectors)
    assert store.known() == {"a": "1", "b": "2", "c": "3"}
    (answers,) = store.search(vectors[1:2], 2)
    assert answers[0][1] == entries[1] and answers[0][0] == pytest.approx(1, abs=1e-6)
    if store.folder is not None:
        again = LocalStore.open(store.folder)
        assert again.entries() == entries and again.about == ABOUT
        np.testing.assert_array_equal(again.vectors(), vectors)
    assert model_of(store.about, "it") == ("tiny", "f" * 32, WIDTH)


def test_an_empty_store_finds_nothing(store: LocalStore) -> None:
    assert store.search(unit(2), 5) == [[], []] and store.entries() == [] and store.vectors().shape == (0, WIDTH)
    store.add([], np.zeros((0, WIDTH), np.float32))
    assert len(store) == 0 and store.remove(["a"]) == 0


def test_a_recording_that_comes_again_takes_its_place(store: LocalStore) -> None:
    store.add([Entry("a", "/a", 0, 1, digest="old"), Entry("a", "/a", 1, 2, digest="old")], unit(2))
    store.add(some(["b"]), unit(1, 1))
    store.add([Entry("a", "/a", 0, 5, digest="new")], unit(1, 2))
    assert [(e.id, e.end_s) for e in store.entries()] == [("b", 1.5), ("a", 5)]
    assert store.known() == {"b": "digest b", "a": "new"}
    assert sorted(found(store, unit(1, 2)[0], 10)) == ["a", "b"]


def test_what_is_removed_is_not_found(store: LocalStore) -> None:
    vectors = unit(40)
    store.add(some(names(40)), vectors)
    assert store.remove(["clip 3", "clip 5", "no such clip"]) == 2  # few: marked
    assert len(store) == 38 and found(store, vectors[3])[0] != "clip 3"
    np.testing.assert_array_equal(store.vectors(), np.delete(vectors, [3, 5], axis=0))
    assert store.remove(names(20)) == 18  # many: written anew
    assert [e.id for e in store.entries()] == names(20, 20)
    np.testing.assert_array_equal(store.vectors(), vectors[20:])
    assert found(store, vectors[30])[0] == "clip 30"
    assert store.remove(names(40)) == 20 and len(store) == 0 and store.search(unit(1), 3) == [[]]
    store.add(some(["back"]), unit(1))
    if store.folder is not None:
        assert [e.id for e in LocalStore.open(store.folder).entries()] == ["back"]


def test_many_small_parts_become_few(store: LocalStore) -> None:
    vectors = unit(90)
    for i in range(90):
        store.add(some([f"clip {i}"]), vectors[i : i + 1])
    assert [e.id for e in store.entries()] == names(90)
    np.testing.assert_array_equal(store.vectors(), vectors)
    assert len(store._arrays) < 20
    if store.folder is not None:
        assert len(list(store.folder.glob("*.safetensors"))) == len(store._arrays)  # nothing is left lying about


def test_metadata_of_two_kinds_is_refused_and_nothing_is_stored(store: LocalStore) -> None:
    store.add(some(["a"], year=1990), unit(1))
    store.add(some(["b"], year=1990.5), unit(1))  # numbers are one kind
    with pytest.raises(DatasetError, match=r"'year': is a number here and text there"):
        store.add(some(["c"], year="1991"), unit(1))
    with pytest.raises(DatasetError, match="'fine'"):
        store.add([*some(["c"], fine=True), *some(["d"], fine=1)], unit(2))
    assert store.known().keys() == {"a", "b"}
    if store.folder is not None:
        assert LocalStore.open(store.folder).known().keys() == {"a", "b"}


def test_a_backend_that_is_not_known_is_refused() -> None:
    with pytest.raises(ClaspError, match="backend 'annoy'"):
        LocalStore.create(None, ABOUT, "annoy")


# Filters -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library() -> LocalStore:
    store = LocalStore.create(None, ABOUT)
    facts = [
        {"category": "news", "year": 1961, "clean": True},
        {"category": "news", "year": 1990, "clean": False},
        {"category": "lore", "year": 2001},
        {"category": "lore"},
        {"year": 1999.5, "speaker": "anna"},
    ]
    entries = [Entry(f"{i}", f"/{i}", i * 10.0, i * 10.0 + 5, f"t{i}", known, "") for i, known in enumerate(facts)]  # type: ignore[arg-type]
    store.add(entries, unit(5))
    return store


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"category": "news"}, "01"),
        ({"category": ["news", "lore"]}, "0123"),
        ({"category": {"lore"}}, "23"),
        ({"year": 1990}, "1"),
        ({"year": (1990, None)}, "124"),
        ({"year": (None, 1990)}, "01"),
        ({"year": (1990, 2000)}, "14"),
        ({"year": [1961, 2001]}, "02"),
        ({"clean": True}, "0"),
        ({"clean": False}, "1"),
        ({"category": "news", "year": (1980, None)}, "1"),
        ({"start_s": (15, 35)}, "23"),
        ({"end_s": (None, 6.0)}, "0"),
        ({"id": "3"}, "3"),
        ({"file": ["/1", "/4"]}, "14"),
        ({"text": ("t1", "t3")}, "123"),
        ({"speaker": "bela"}, ""),
        ({}, "01234"),
    ],
    ids=str,
)
def test_a_filter_lets_through_what_fulfils_it(library: LocalStore, where: dict, expected: str) -> None:
    (answers,) = library.search(unit(1, 9), 10, where)
    assert "".join(sorted(entry.id for _, entry in answers)) == expected
    scores = [score for score, _ in answers]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"categry": "news"}, "no recording of the index has 'categry'; they have category, clean"),
        ({"year": "1990"}, "'year' holds double values"),
        ({"category": 3}, "'category' holds string values"),
        ({"category": []}, "one of nothing"),
        ({"year": (1,)}, "two ends"),
        ({"year": (None, None)}, "two ends"),
        ({"year": (1, "2")}, "two numbers or two strings"),
        ({"year": (True, None)}, "no order"),
        ({"year": float("nan")}, "compare with"),
        ({"year": None}, "compare with"),
        ({"year": {"gte": 3}}, "compare with"),
        ({"year": [[1]]}, "compare with"),
        ({1: 2}, "the name 1"),
        ("category = news", "where is a str"),
    ],
    ids=str,
)
def test_a_filter_that_makes_no_sense_is_refused(library: LocalStore, where: dict, message: str) -> None:
    with pytest.raises(ClaspError, match=message):
        library.search(unit(1), 3, where)


# Whole, or as it was -----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = LocalStore.create(tmp_path / "index", ABOUT)
    store.add(some(names(5), year=1), unit(5))
    store.add(some(names(5, 5)), unit(5, 1))
    return tmp_path / "index"


def test_any_changed_byte_is_noticed(folder: Path) -> None:
    """Every byte of the manifest, and many of each part."""
    LocalStore.open(folder)
    for file in sorted(folder.iterdir()):
        if file.name == ".lock":
            continue
        whole = file.read_bytes()
        step = 1 if file.suffix == ".json" else 97
        for i in range(0, len(whole), step):
            file.write_bytes(whole[:i] + bytes([whole[i] ^ 4]) + whole[i + 1 :])
            with pytest.raises(DatasetError) as caught:
                LocalStore.open(folder)
            assert str(folder) in str(caught.value)
        for damaged in (whole[:-1], b"", whole + b" "):
            if file.suffix == ".json" and damaged == whole + b" ":
                continue  # white space says nothing
            file.write_bytes(damaged)
            with pytest.raises(DatasetError):
                LocalStore.open(folder)
        file.unlink()
        with pytest.raises(DatasetError):
            LocalStore.open(folder)
        file.write_bytes(whole)
    assert len(LocalStore.open(folder)) == 10


def test_a_full_disk_leaves_the_index_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import clasp_lib.index.manifest as manifest

    store, real = LocalStore.open(folder), manifest.write_whole

    def full(file: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write_whole", full)
        with pytest.raises(DatasetError, match="No space left"):
            store.add(some(["new"]), unit(1))
        with pytest.raises(DatasetError, match="No space left"):
            store.remove(["clip 1"])
    assert len(store) == len(LocalStore.open(folder)) == 10  # in memory, too
    assert manifest.write_whole is real
    store.add(some(["new"]), unit(1))
    assert len(LocalStore.open(folder)) == 11
    assert len(list(folder.glob("*.parquet"))) == 3  # what the failed attempt wrote is gone


def test_a_later_or_foreign_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    manifest = json.loads((folder / "index.json").read_text())
    for change, message in (
        ({"format": 99}, "format 99"),
        ({"model": {}}, "which model"),
        ({"model": 3}, "which model"),
    ):
        (folder / "index.json").write_text(json.dumps(manifest | change))
        with pytest.raises(DatasetError, match=message):
            LocalStore.open(folder)
    for text in ("[]", "3", '{"a": 1}'):
        (folder / "index.json").write_text(text)
        with pytest.raises(DatasetError, match="is not an index"):
            LocalStore.open(folder)
    with pytest.raises(DatasetError, match="there is no index"):
        LocalStore.open(tmp_path / "nowhere")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(DatasetError, match=r"left alone \(chapter\.txt\)"):
        LocalStore.create(tmp_path / "thesis", ABOUT)
    assert [file.name for file in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]


# Two processes -----------------------------------------------------------------------------------------------------


def test_the_second_writer_is_turned_away_and_loses_nothing(folder: Path) -> None:
    one, two = LocalStore.open(folder), LocalStore.open(folder)
    with one.writing():
        with pytest.raises(DatasetError, match="another process is writing"):
            two.add(some(["two"]), unit(1))
        one.add(some(["one"]), unit(1))
    with pytest.raises(DatasetError, match="has changed this index since"):
        two.add(some(["two"]), unit(1))
    two = LocalStore.open(folder)
    two.add(some(["two"]), unit(1))
    assert {"one", "two"} < LocalStore.open(folder).known().keys()


def test_whoever_makes_an_index_second_does_not_empty_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both looked into the folder while it was empty; the other one was faster."""
    folder = tmp_path / "index"
    real = LocalStore.writing

    def late(store: LocalStore) -> object:
        monkeypatch.setattr(LocalStore, "writing", real)
        LocalStore.create(folder, ABOUT).add(some(["first"]), unit(1))
        return real(store)

    monkeypatch.setattr(LocalStore, "writing", late)
    with pytest.raises(DatasetError, match="has changed this index since"):
        LocalStore.create(folder, ABOUT)
    assert list(LocalStore.open(folder).known()) == ["first"]


def test_ctrl_c_after_the_change_is_true_loses_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, real = LocalStore.open(folder), Path.iterdir

    def interrupted(path: Path) -> object:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # while parts that are no longer named are looked for
        patch.setattr(Path, "iterdir", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.add(some(["new"]), unit(1))
    assert Path.iterdir is real and "new" in store.known()
    store.add(some(["next"]), unit(1))
    assert {"new", "next"} < LocalStore.open(folder).known().keys()


def _write(folder: Path, name: str, answers: multiprocessing.Queue) -> None:
    kept, refused = 0, 0
    for i in range(25):
        while True:
            try:
                LocalStore.open(folder).add(some([f"{name} {i}"]), unit(1, i))
                kept += 1
                break
            except DatasetError as error:
                assert "another process" in str(error), error
                refused += 1
                time.sleep(0.001)
    answers.put((kept, refused))


def test_two_processes_that_write_at_once_lose_nothing(folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    workers = [context.Process(target=_write, args=(folder, name, answers)) for name in ("left", "right")]
    for worker in workers:
        worker.start()
    counts = [answers.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    assert [kept for kept, _ in counts] == [25, 25]
    store = LocalStore.open(folder)
    assert len(store) == 60
    assert {f"{name} {i}" for name in ("left", "right") for i in range(25)} < store.known().keys()


def test_a_killed_writer_leaves_an_index_and_no_lock(folder: Path) -> None:
    code = (
        "import sys; sys.path[:0] = [sys.argv[2]]\n"
        "from test_index_store import LocalStore, some, unit\n"
        "store = LocalStore.open(sys.argv[1]); i = 0\n"
        "with store.writing():\n"
        "    while True:\n"
        "        store.add(some([f'new {i}']), unit(1, i)); print(i, flush=True); i += 1\n"
    )
    if not hasattr(signal, "SIGKILL"):
        pytest.skip("this system has no SIGKILL")
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(folder), str(Path(__file__).parent)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    last = 0
    for line in writer.stdout:
        last = int(line)
        if last >= 40:
            os.kill(writer.pid, signal.SIGKILL)
            break
    last = max([last, *map(int, writer.stdout.read().split())])
    writer.wait()
    store = LocalStore.open(folder)  # checksums hold
    assert {f"new {i}" for i in range(last + 1)} <= store.known().keys() and len(store) in (last + 11, last + 12)
    store.add(some(["after"]), unit(1))
    assert "after" in LocalStore.open(folder).known()
    shutil.rmtree(folder)
