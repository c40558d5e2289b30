"""An index in Milvus Lite, and in a Milvus server that other processes use at the same time."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clasp_lib.errors import ClaspError, DatasetError, MissingDependencyError
from clasp_lib.index import milvus_collection, milvus_connection
from clasp_lib.index.entries import Entry
from clasp_lib.index.milvus import MOST_HITS, MilvusStore, is_milvus
from clasp_lib.index.milvus_connection import parse_address
from clasp_lib.index.milvus_filter import expression
from clasp_lib.index.store import about_model

pytest.importorskip("pymilvus", reason="pymilvus is not installed: pip install 'clasp-lib[search]'")
pytest.importorskip("milvus_lite", reason="milvus-lite is not installed: pip install 'clasp-lib[search]'")

WIDTH = 8
ABOUT = about_model("a model", "its fingerprint", WIDTH)
CHILD = """
import sys, numpy as np
from clasp_lib.index.entries import Entry
from clasp_lib.index.milvus import MilvusStore
from clasp_lib.index.store import about_model
"""


def unit(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, WIDTH), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def clips(count: int, start: int = 0, **metadata: Any) -> list[Entry]:
    numbers = range(start, start + count)
    return [Entry(f"clip {i}", f"clips/{i}.flac", 0.0, 1.5, f"text {i}", metadata, f"digest {i}") for i in numbers]


def found(hits: list[tuple[float, Entry]]) -> list[str]:
    return [entry.id for _, entry in hits]


def run(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Another process that has the library; its output is read line by line."""
    command = [sys.executable, "-c", CHILD + code, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MilvusStore]:
    store = MilvusStore.create(str(tmp_path / "index.db"), ABOUT)
    yield store
    store.close()


@contextlib.contextmanager
def _serving(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A Milvus server in a process of its own, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(folder), "--host", "127.0.0.1"]
    with subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as it:
        try:
            for _ in range(300):
                assert it.poll() is None, "the server ended"
                with socket.socket() as client:
                    if client.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield it, f"http://127.0.0.1:{port}"
        finally:
            it.kill()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one that serves all tests."""
    with _serving(tmp_path_factory.mktemp("server") / "data.db") as (_, address):
        yield address


def test_an_address_is_a_path_that_ends_in_db_or_a_url() -> None:
    assert is_milvus("index.db") and is_milvus(Path("a/index.db")) and is_milvus("https://example.org")
    assert not is_milvus("index") and not is_milvus("a.db/index")
    assert parse_address("index.db").uri == str(Path("index.db").absolute())
    assert str(parse_address("http://example.org")) == "http://example.org:19530/clasp"
    whole = parse_address("https://anna:se%2Fcret@example.org:443/books/spoken_1")
    assert (whole.uri, whole.database, whole.collection) == ("https://example.org:443", "books", "spoken_1")
    assert whole.token == "anna:se/cret"


@pytest.mark.parametrize(
    "address", ["index", "http://", "http://a:b@host:port", "http://a:b@host/1a", "http://a:b@host/a/b/c", "http://h?x"]
)
def test_a_wrong_address_is_explained_without_its_password(address: str) -> None:
    with pytest.raises(ClaspError, match=r"http://.*host") as caught:
        parse_address(address)
    assert "a:b" not in str(caught.value)


def test_the_token_comes_from_the_environment_and_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILVUS_TOKEN", "anna:secret")
    place = parse_address("http://127.0.0.1:1/clips")
    assert place.token == "anna:secret"
    assert "secret" not in f"{place} {place!r}"
    assert parse_address("http://bela:other@127.0.0.1:1").token == "bela:other"
    explained = milvus_connection._explained(place, Exception("auth check failure for anna:secret, or secret"))
    assert "secret" not in explained and "MILVUS_TOKEN" in explained


def test_what_is_added_comes_back_in_order(store: MilvusStore) -> None:
    assert (len(store), store.known(), store.entries(), store.vectors().shape) == (0, {}, [], (0, WIDTH))
    store.add([], np.zeros(0, np.float32))
    entries, vectors = clips(5, category="news", year=1990, loud=True, score=0.5), unit(5)
    entries[3] = Entry("clip 3", "clips/3.flac", 0.25, 9.75)
    store.add(entries[:2], vectors[:2])
    store.add(entries[2:], vectors[2:])
    assert len(store) == 5 and store.entries() == entries
    np.testing.assert_array_equal(store.vectors(), vectors)
    assert store.known() == {"clip 3": ""} | {f"clip {i}": f"digest {i}" for i in (0, 1, 2, 4)}


def test_a_search_gives_cosines_best_first_as_the_bare_product_does(store: MilvusStore) -> None:
    vectors, queries = unit(700), unit(3, seed=1)
    store.add(clips(700), vectors)
    scores = queries @ vectors.T  # (3, 700)
    for hits, row in zip(store.search(queries, 10), scores, strict=True):
        assert found(hits) == [f"clip {i}" for i in np.argsort(-row)[:10]]
        np.testing.assert_allclose([score for score, _ in hits], np.sort(row)[::-1][:10], rtol=1e-5)


def test_equal_scores_stand_in_the_order_in_which_they_came(store: MilvusStore) -> None:
    for start in (4, 2, 0):
        store.add(clips(2, start), np.eye(WIDTH, dtype=np.float32)[[0, 0]])  # products without rounding
    assert found(store.search(unit(1), 9)[0]) == [f"clip {i}" for i in (4, 5, 2, 3, 0, 1)]


def test_a_recording_that_comes_again_gives_way_with_all_its_parts(store: MilvusStore) -> None:
    windows = [Entry("long", "long.flac", float(i), i + 2.0, digest="old") for i in range(3)]
    store.add([*windows, *clips(2)], unit(5))
    assert len(store) == 5 and store.known()["long"] == "old"
    store.add([Entry("long", "long.flac", 0.0, 7.0, digest="new")], unit(1, seed=1))
    assert [entry.id for entry in store.entries()] == ["clip 0", "clip 1", "long"]
    assert store.known()["long"] == "new"
    np.testing.assert_array_equal(store.vectors()[-1], unit(1, seed=1)[0])


def test_remove_forgets_recordings_and_counts_those_that_were_there(store: MilvusStore) -> None:
    windows = [Entry("long", "long.flac", float(i), i + 2.0) for i in range(3)]
    store.add([*windows, *clips(3)], unit(6))
    assert store.remove(["long", "clip 1", "clip 1", "nobody"]) == 2
    assert store.remove(["long"]) == 0
    assert [entry.id for entry in store.entries()] == ["clip 0", "clip 2"]
    assert "long" not in found(store.search(unit(1), 9)[0])


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"category": "news"}, {0, 3, 6, 9}),
        ({"category": ["news", "humor"]}, {0, 1, 3, 4, 6, 7, 9}),
        ({"year": (1997, None)}, {7, 8, 9}),
        ({"year": (None, 1991), "category": "news"}, {0}),
        ({"year": (1993, 1994.5)}, {3, 4}),
        ({"year": 1992.0}, {2}),
        ({"loud": True}, {0, 2, 4, 6, 8}),
        ({"loud": False, "gain": (-2, -0.5)}, {3, 5}),
        ({"id": ["clip 2", "clip 5"]}, {2, 5}),
        ({"file": "clips/4.flac"}, {4}),
        ({"text": "text 6"}, {6}),
        ({"start_s": (2, 3)}, {2, 3}),
        ({"end_s": 5.5}, {4}),
        ({"mixed": 5}, {5}),
        ({"mixed": "even"}, {0, 2, 4, 6, 8}),
        ({"نام": "آوا"}, {7}),
        ({"nothing": "there"}, set()),
    ],
)
def test_a_filter_finds_what_fulfils_it(server: str, where: dict[str, Any], expected: set[int]) -> None:
    store = MilvusStore.open_or_create(f"{server}/filters", ABOUT)
    if not len(store):
        for i, entry in enumerate(clips(10)):
            metadata: dict[str, Any] = {"category": ["news", "humor", "lore"][i % 3], "year": 1990 + i}
            metadata |= {"loud": i % 2 == 0, "gain": i / 2 - 3.5, "mixed": i if i % 2 else "even"}
            metadata |= {"نام": "آوا"} if i == 7 else {}
            part = Entry(entry.id, entry.file, float(i), i + 1.5, entry.text, metadata)
            store.add([part], unit(1, seed=i))
    assert {int(name.split()[1]) for name in found(store.search(unit(1), 20, where)[0])} == expected
    store.close()


NASTY = [
    'a "quoted" word',
    "it's",
    "back\\slash",
    "ends with \\",
    'ends with \\"',
    "two\nlines\r\n\ttab",
    'x" or clasp_row >= 0 or text == "x',
    'x"] or true or id in ["x',
    "{id} %s $meta",
    "سلام «دنیا» 你好 🎧",
    "",
]


def test_no_text_escapes_from_its_place_in_a_filter(store: MilvusStore) -> None:
    entries = [Entry(f"id {text}", f"{i}.flac", 0, 1, text, {"said": text}) for i, text in enumerate(NASTY)]
    store.add(entries, unit(len(NASTY)))
    assert store.entries() == entries
    for entry in entries:
        conditions: dict[str, Any] = {"text": entry.text, "said": [entry.text], "id": [entry.id], "file": entry.file}
        for name, condition in conditions.items():
            assert found(store.search(unit(1), 20, {name: condition})[0]) == [entry.id], name
    assert store.remove([entry.id for entry in entries[:6]]) == 6 and store.entries() == entries[6:]


def test_a_filter_is_refused_before_the_database_sees_it() -> None:
    assert expression(None) == expression({}) == ""
    assert expression({"year": (1, None), "x y": ["a"]}) == '$meta["year"] >= 1 and ($meta["x y"] == "a")'
    refused: list[dict[str, Any]] = [
        {'a"] == 1 or $meta["b': 1},
        {"a\\": 1},
        {"clasp_row": (0, None)},
        {"start_s": "soon"},
        {"text": 5},
        {"year": 2**63},
        {"said": "\ud800"},
        {"year": float("nan")},
        {"year": []},
    ]
    for where in refused:
        with pytest.raises(ClaspError):
            expression(where)


def test_what_milvus_cannot_hold_is_refused_and_nothing_changes(store: MilvusStore) -> None:
    store.add(clips(1), unit(1))
    for entry in (
        Entry("a", "a.flac", 0, 1, "long " * 20_000),
        Entry("a", "a.flac", 0, 1, metadata={'"': 1}),
        Entry("a", "a.flac", 0, 1, metadata={"clasp_part": 1}),
        Entry("a", "a.flac", 0, 1, metadata={"n": 2**63}),
        Entry("a", "\ud800.flac", 0, 1),
    ):
        with pytest.raises(ClaspError, match=r"a\.flac|Milvus cannot|not valid Unicode"):
            store.add([*clips(1), entry], unit(2, seed=1))
    np.testing.assert_array_equal(store.vectors(), unit(1))


def test_numbers_that_make_no_sense_are_refused(store: MilvusStore) -> None:
    with pytest.raises(ClaspError, match=r"need \(2, 8\)"):
        store.add(clips(2), unit(3))
    with pytest.raises(ClaspError, match=r"queries, 8\)"):
        store.search(np.zeros((1, 9)), 1)
    for k in (0, -1, MOST_HITS + 1, 2.0, True):
        with pytest.raises(ClaspError, match="1 to 16384"):
            store.search(unit(1), k)  # type: ignore[arg-type]
    with pytest.raises(ClaspError, match="choose one of FLAT, HNSW"):
        store.build_index("best")
    with pytest.raises(ClaspError, match="Milvus Lite has no such index"):
        store.build_index("DISKANN")
    store.close()
    with pytest.raises(ClaspError, match="was closed"):
        len(store)


def test_an_index_is_built_kept_and_dropped(tmp_path: Path) -> None:
    address = str(tmp_path / "index.db")
    store = MilvusStore.create(address, ABOUT)
    store.add(clips(300), unit(300))
    expected = [found(hits) for hits in store.search(unit(5, seed=1), 10)]
    for kind in ("HNSW", "IVF_FLAT"):
        store.build_index(kind)
        store.close()
        store = MilvusStore.open(address, effort=1024)
        assert store.kind == kind
        store.add(clips(1, 300), -unit(1))
        assert found(store.search(-unit(1), 1)[0]) == ["clip 300"] and store.remove(["clip 300"]) == 1
        assert [found(hits) for hits in store.search(unit(5, seed=1), 10)] == expected
    store.build_index()
    assert store.kind == "FLAT"
    assert [found(hits) for hits in store.search(unit(5, seed=1), 10)] == expected
    store.close()


def test_what_is_not_there_or_not_an_index_is_refused(tmp_path: Path, server: str) -> None:
    from pymilvus import MilvusClient

    address = str(tmp_path / "index.db")
    with pytest.raises(DatasetError, match="no such database"):
        MilvusStore.open(address)
    assert not Path(address).exists()
    MilvusStore.create(address, ABOUT).close()
    with pytest.raises(DatasetError, match="has an index already"):
        MilvusStore.create(address, ABOUT)
    (tmp_path / "file.db").write_text("an older version kept a file here")
    with pytest.raises(DatasetError, match="is a file"):
        MilvusStore.open_or_create(str(tmp_path / "file.db"), ABOUT)
    with pytest.raises(DatasetError, match="holds no collection 'nobody'"):
        MilvusStore.open(f"{server}/nobody")
    client = MilvusClient(server)
    client.create_collection("foreign", dimension=WIDTH)
    client.close()
    with pytest.raises(DatasetError, match="was not made by this library"):
        MilvusStore.open_or_create(f"{server}/foreign", ABOUT)


def test_a_second_store_in_this_process_shares_the_database(store: MilvusStore) -> None:
    other = MilvusStore.open(str(store._address))
    assert other.about == ABOUT
    store.add(clips(3), unit(3))
    assert len(other) == 3 and other.remove(["clip 0"]) == 1
    other.close()
    store.add(clips(1), unit(1))
    assert [entry.id for entry in store.entries()] == ["clip 1", "clip 2", "clip 0"]


def test_a_second_process_is_told_of_the_lock_and_sees_everything_afterwards(store: MilvusStore) -> None:
    store.add(clips(3), unit(3))
    address = str(store._address)
    code = "s = MilvusStore.open(sys.argv[1]); print(len(s), sorted(s.known())); s.close()"
    out, error = run(code, address).communicate()
    assert not out and "another process has the database open" in error and "milvus-lite server" in error
    store.close()
    out, error = run(code, address).communicate()
    assert out == "3 ['clip 0', 'clip 1', 'clip 2']\n", error


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    address = str(tmp_path / "index.db")
    code = """
s = MilvusStore.create(sys.argv[1], about_model("a model", "its fingerprint", 8))
for i in range(3):
    s.add([Entry(f"clip {i}", "x", 0, 1, digest="d")], np.eye(8, dtype=np.float32)[i : i + 1])
    print(i, flush=True)
sys.stdin.read()
"""
    with run(code, address) as writer:
        assert [writer.stdout.readline() for _ in range(3)] == ["0\n", "1\n", "2\n"]  # type: ignore[union-attr]
        os.kill(writer.pid, signal.SIGKILL)
    store = MilvusStore.open(address)
    assert store.known() == {f"clip {i}": "d" for i in range(3)}
    np.testing.assert_array_equal(store.vectors(), np.eye(8, dtype=np.float32)[:3])
    store.close()


def test_a_recording_that_was_cut_short_does_not_look_complete(
    store: MilvusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus_collection, "_MESSAGE_BYTES", 1_000)
    windows = [Entry("long", "long.flac", float(i), i + 2.0, digest="d") for i in range(20)]
    insert, sent = store._client.insert, []

    def fails(collection: str, rows: list[Any], **options: Any) -> Any:
        sent.append(len(rows))
        if len(sent) == 3:
            raise KeyboardInterrupt
        return insert(collection, rows, **options)

    monkeypatch.setattr(store._client, "insert", fails)
    with pytest.raises(KeyboardInterrupt):
        store.add(windows, unit(20))
    assert 0 < len(store) < 20 and store.known() == {}
    store.add(windows, unit(20))
    assert store.entries() == windows and store.known() == {"long": "d"}


def test_two_processes_use_one_server_at_the_same_time(server: str) -> None:
    address = f"{server}/shared"
    code = """
s = MilvusStore.open_or_create(sys.argv[1], about_model("a model", "its fingerprint", 8))
print("ready", flush=True)
for line in sys.stdin:
    hits = s.search(np.eye(8, dtype=np.float32)[:1], 5)[0]
    print(len(s), [entry.id for _, entry in hits], flush=True)
    s.add([Entry(f"answer {line.strip()}", "x", 0, 1)], np.eye(8, dtype=np.float32)[1:2])
    print("added", flush=True)
"""
    with run(code, address) as reader:
        assert reader.stdin and reader.stdout and reader.stderr
        assert reader.stdout.readline() == "ready\n", reader.stderr.read()
        store = MilvusStore.open_or_create(address, ABOUT)
        for i in range(3):
            store.add(clips(1, i), np.eye(8, dtype=np.float32)[:1])
            print(i, file=reader.stdin, flush=True)
            assert reader.stdout.readline().startswith(f"{2 * i + 1} ['clip 0'"), "a strong reader sees every write"
            assert reader.stdout.readline() == "added\n"
            assert f"answer {i}" in store.known()
        reader.stdin.close()
    assert len(store) == 6 and store.remove(["answer 0", "clip 0"]) == 2 and len(store) == 4
    assert store.kind == "HNSW"
    store.close()


def test_more_recordings_are_known_than_a_server_answers_at_once(server: str) -> None:
    store = MilvusStore.create(f"{server}/many", ABOUT)
    count = 16_384 + 10
    store.add([Entry(f"{i}", "x", 0, 1, digest="d") for i in range(count)], unit(count))
    assert len(store) == count and store.known() == {f"{i}": "d" for i in range(count)}
    np.testing.assert_array_equal(store.vectors(), unit(count))
    store.close()


def test_a_server_that_dies_is_reported_once_and_calmly(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with _serving(tmp_path / "data.db") as (process, address):
        store = MilvusStore.create(address, ABOUT)
        store.add(clips(1), unit(1))
        process.kill()
        process.wait()
        for call in (lambda: store.search(unit(1), 1), lambda: store.add(clips(1, 1), unit(1)), store.known):
            with pytest.raises(DatasetError, match="no Milvus server answers"):
                call()
        store.close()
    assert capfd.readouterr().err == ""


def test_a_server_that_does_not_answer_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milvus_connection, "_CONNECT_S", 1.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        with pytest.raises(DatasetError, match="no Milvus server answers") as caught:
            MilvusStore.open(f"http://anna:secret@127.0.0.1:{port}")
    assert "secret" not in str(caught.value)
    with pytest.raises(DatasetError, match="no Milvus server answers"):
        MilvusStore.open(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("package", ["pymilvus", "milvus_lite"])
def test_without_the_extra_the_message_says_what_to_install(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'clasp-lib\[search\]'"):
        MilvusStore.create(str(tmp_path / "index.db"), ABOUT)
