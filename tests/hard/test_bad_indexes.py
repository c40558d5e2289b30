"""Broken indexes: folders, forged manifests, faiss files, and addresses of databases. Each is refused by name; what can
be made anew from what is whole is made anew."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Clip, Encoders, tiny_model

from clasp_lib import CLASP, SpeechIndex
from clasp_lib.errors import ClaspError, DatasetError
from clasp_lib.index import Entry, stored_model
from clasp_lib.index.approximate import Approximate
from clasp_lib.index.local import LocalStore
from clasp_lib.index.milvus_connection import parse_address
from clasp_lib.index.store import about_model
from hard.conftest import Ended, within

GROUP = "bad indexes"


@pytest.fixture(scope="module")
def built(model: CLASP, clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of two parts, one recording of which was removed."""
    folder = tmp_path_factory.mktemp("indexes") / "good"
    index = SpeechIndex.build(model, [clip.samples for clip in clips[:3]], ids=["a", "b", "c"], folder=folder)
    index.add([clip.samples for clip in clips[3:]], ids=["d", "e", "f"])
    index.remove("a")
    return folder


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """A copy that may be broken."""
    return Path(shutil.copytree(built, tmp_path / "index"))


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "index.json").read_text("utf-8"))


def forged(folder: Path, **changes: Any) -> None:
    """A manifest that says something else, and carries the checksum of what it says."""
    said = {name: value for name, value in (manifest(folder) | changes).items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    (folder / "index.json").write_text(json.dumps(said | {"sha256": digest}), "utf-8")


def without(folder: Path, name: str) -> None:
    said = manifest(folder)
    del said[name]
    (folder / "index.json").write_text(json.dumps(said), "utf-8")
    forged(folder)


def parts(folder: Path, number: int, value: Any) -> None:
    """Forge one field of the first part: 0 its name, 1 its entries, 2 and 3 its checksums."""
    segments = manifest(folder)["segments"]
    segments[0][number] = value
    forged(folder, segments=segments)


def named(folder: Path, **changes: Any) -> None:
    forged(folder, model=manifest(folder)["model"] | changes)


def first(folder: Path, ending: str) -> Path:
    return folder / f"{manifest(folder)['segments'][0][0]}{ending}"


def exchanged(folder: Path, ending: str, content: bytes) -> None:
    """Another file for a part, and its checksum in the manifest."""
    first(folder, ending).write_bytes(content)
    parts(folder, 2 if ending == ".safetensors" else 3, hashlib.sha256(content).hexdigest())


def vectors_of(array: np.ndarray, name: str = "vectors") -> bytes:
    from safetensors.numpy import save

    return save({name: array})


def table_of(columns: dict[str, list]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


INDEX = "index.json"
DAMAGED = "cannot be read|has changed since it was written|cannot be read .*Build it again|do not fit"

FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "an empty folder": (lambda f: [file.unlink() for file in f.iterdir()], "there is no index. Name a folder"),
    "no manifest": (lambda f: (f / INDEX).unlink(), "there is no index. Name a folder"),
    "a folder for the manifest": (lambda f: ((f / INDEX).unlink(), (f / INDEX).mkdir()), "cannot be read"),
    "an empty manifest": (lambda f: (f / INDEX).write_bytes(b""), "cannot be read.*Build the index again"),
    "half a manifest": (lambda f: (f / INDEX).write_bytes((f / INDEX).read_bytes()[:99]), "cannot be read"),
    "a manifest in latin-1": (lambda f: (f / INDEX).write_bytes(b'{"format": "\xe9"}'), "cannot be read"),
    "a manifest of a hundred thousand lists": (lambda f: (f / INDEX).write_text("[" * 100_000), "cannot be read"),
    "a list for a manifest": (lambda f: (f / INDEX).write_text("[]"), "is not an index. Name the folder"),
    "a number for a manifest": (lambda f: (f / INDEX).write_text("3"), "is not an index"),
    "another program's manifest": (lambda f: (f / INDEX).write_text('{"name": "x"}'), "is not an index"),
    "a manifest that was edited": (
        lambda f: (f / INDEX).write_text(json.dumps(manifest(f) | {"removed": []})),
        "has changed since it was written",
    ),
    "a manifest without its checksum": (
        lambda f: (f / INDEX).write_text(json.dumps({k: v for k, v in manifest(f).items() if k != "sha256"})),
        "has changed since it was written",
    ),
    "a later format": (lambda f: forged(f, format=99), "has format 99; this version reads"),
    "a format of words": (lambda f: forged(f, format="two"), "has format two; this version reads"),
    "a format of lists": (lambda f: forged(f, format=[2]), "has format"),
    "no model": (lambda f: without(f, "model"), "does not say which model built it"),
    "a model of numbers": (lambda f: forged(f, model=3), "does not say which model built it"),
    "a model of a list": (lambda f: forged(f, model=["pocket"]), "does not say which model built it"),
    "a model with another field": (lambda f: named(f, colour="red"), "does not say which model built it"),
    "a model whose name is a number": (lambda f: named(f, name=5), "does not say which model built it, but"),
    "a model whose mark is nothing": (lambda f: named(f, fingerprint=None), "does not say which model built it, but"),
    "a width of words": (lambda f: named(f, dimension="24"), "does not say which model built it, but"),
    "another width": (lambda f: named(f, dimension=25), r"holds vectors of shape \(3, 24\), not of 25"),
    "no parts": (lambda f: without(f, "segments"), "is not complete"),
    "parts that are a number": (lambda f: forged(f, segments=3), "is not complete"),
    "parts that are numbers": (lambda f: forged(f, segments=[3]), "is not complete"),
    "a part of one field": (lambda f: forged(f, segments=[["x"]]), "is not complete"),
    "a part outside the folder": (lambda f: parts(f, 0, "../good/part"), "names a part '../good/part', which is none"),
    "an absolute part": (lambda f: parts(f, 0, "/etc/passwd"), "names a part '/etc/passwd', which is none"),
    "a part with a NUL": (lambda f: parts(f, 0, "a\0b"), "which is none of its own"),
    "a part that is a number": (lambda f: parts(f, 0, 7), "names a part 7, which is none"),
    "a part that is a list": (lambda f: parts(f, 0, ["x"]), "which is none of its own"),
    "a part that is not there": (lambda f: parts(f, 0, "0" * 20), "a part of the index cannot be read"),
    "more entries than there are": (lambda f: parts(f, 1, 4), "the parts of .* do not fit"),
    "a trillion entries": (lambda f: parts(f, 1, 10**12), "the parts of .* do not fit"),
    "entries below zero": (lambda f: parts(f, 1, -3), "the parts of .* do not fit"),
    "entries of words": (lambda f: parts(f, 1, "three"), "the parts of .* do not fit"),
    "a checksum of words": (lambda f: parts(f, 2, "none"), "has changed since it was written"),
    "a checksum of nothing": (lambda f: parts(f, 3, None), "has changed since it was written"),
    "rows that are not there removed": (lambda f: forged(f, removed=[99]), "removes rows that are not there"),
    "rows below zero removed": (lambda f: forged(f, removed=[-1]), "removes rows that are not there"),
    "a trillionth row removed": (lambda f: forged(f, removed=[10**12]), "removes rows that are not there"),
    "a row beyond 64 bits removed": (lambda f: forged(f, removed=[10**30]), "is not complete"),
    "rows of words removed": (lambda f: forged(f, removed=["a"]), "is not complete"),
    "rows of lists removed": (lambda f: forged(f, removed=[[0]]), "removes rows that are not there"),
    "no generation": (lambda f: without(f, "generation"), "is not complete"),
    "a generation of words": (lambda f: forged(f, generation="first"), "is not complete"),
    "a way to search that is not known": (lambda f: forged(f, backend="magic"), "backend 'magic': choose one of"),
    "a way to search that is a list": (lambda f: forged(f, backend=["exact"]), "choose one of"),
    "no way to search": (lambda f: without(f, "backend"), "is not complete"),
    "vectors are missing": (lambda f: first(f, ".safetensors").unlink(), "a part of the index cannot be read"),
    "entries are missing": (lambda f: first(f, ".parquet").unlink(), "a part of the index cannot be read"),
    "empty vectors": (lambda f: first(f, ".safetensors").write_bytes(b""), "has changed since it was written"),
    "empty entries": (lambda f: first(f, ".parquet").write_bytes(b""), "has changed since it was written"),
    "vectors of text": (lambda f: exchanged(f, ".safetensors", b"<html>" * 99), "a part of the index cannot be read"),
    "entries of text": (lambda f: exchanged(f, ".parquet", b"<html>" * 99), "a part of the index cannot be read"),
    "vectors of another name": (
        lambda f: exchanged(f, ".safetensors", vectors_of(np.zeros((3, 24), np.float32), "rows")),
        "a part of the index cannot be read",
    ),
    "vectors of another kind": (
        lambda f: exchanged(f, ".safetensors", vectors_of(np.zeros((3, 24)))),
        "do not fit",
    ),
    "vectors of another width": (
        lambda f: exchanged(f, ".safetensors", vectors_of(np.zeros((3, 8), np.float32))),
        r"holds vectors of shape \(3, 8\), not of 24",
    ),
    "vectors without width": (
        lambda f: exchanged(f, ".safetensors", vectors_of(np.zeros(3, np.float32))),
        r"holds vectors of shape \(3,\), not of 24",
    ),
    "too few vectors": (
        lambda f: exchanged(f, ".safetensors", vectors_of(np.zeros((2, 24), np.float32))),
        "do not fit",
    ),
    "entries without ids": (lambda f: exchanged(f, ".parquet", table_of({"file": ["x"] * 3})), "do not fit"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_broken_index_is_refused(name: str, folder: Path, model: CLASP, clips: list[Clip], ended: Ended) -> None:
    spoil, said = FOLDERS[name]
    spoil(folder)
    before = sorted(file.name for file in folder.iterdir())
    with within(60), ended.refused(GROUP, f"index folder, {name}: load", re.compile(said, re.DOTALL)) as caught:
        SpeechIndex.load(folder, model)
    assert str(folder) in str(caught.value) or "choose one of" in said
    if before and (folder / INDEX).exists():
        with ended.refused(GROUP, f"index folder, {name}: build", re.compile(f"{said}|holds no index.json")):
            SpeechIndex.build(model, [clips[0].samples], folder=folder)
        assert sorted(file.name for file in folder.iterdir() if file.name != ".lock") == [
            name for name in before if name != ".lock"
        ]


def test_the_copy_itself_is_whole(folder: Path, model: CLASP, ended: Ended) -> None:
    forged(folder)
    index = SpeechIndex.load(folder, model)
    assert len(index) == 5 and {entry.id for entry in index.entries} == set("bcdef")
    ended(GROUP, "index folder, its own manifest written anew", "accepted")


def test_what_names_the_model_alone_is_refused_as_well(folder: Path, ended: Ended) -> None:
    for name in (
        "half a manifest",
        "no model",
        "a model whose name is a number",
        "a later format",
        "a list for a manifest",
    ):
        copy = Path(shutil.copytree(folder, folder.parent / name))
        FOLDERS[name][0](copy)
        with ended.refused(GROUP, f"index folder, {name}: stored_model", copy, re.compile(FOLDERS[name][1])):
            stored_model(copy)


PLACES: dict[str, Callable[[Path], Path]] = {
    "a file": lambda tmp: tmp / "file",
    "below a file": lambda tmp: tmp / "file" / "index",
    "a folder of something else": lambda tmp: tmp / "thesis",
    "a NUL in the name": lambda tmp: tmp / "a\0b",
    "a name that is too long": lambda tmp: tmp / ("x" * 300),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_place_where_no_index_can_be_is_refused(
    name: str, model: CLASP, clips: list[Clip], tmp_path: Path, ended: Ended
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    place = PLACES[name](tmp_path)
    doors: dict[str, Callable[[], object]] = {
        "build": lambda: SpeechIndex.build(model, [clips[0].samples], folder=place),
        "load": lambda: SpeechIndex.load(place, model),
        "save": lambda: SpeechIndex.build(model, [clips[0].samples]).save(place),
        "stored_model": lambda: stored_model(place),
    }
    for door, call in doors.items():
        with ended.refused(GROUP, f"place, {name}: {door}", place) as caught:
            call()
        assert isinstance(caught.value, DatasetError)
    assert (tmp_path / "file").read_text() == "mine"
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "thesis"]


def test_an_index_of_another_model_or_way_to_search_is_refused(
    folder: Path, encoders: Encoders, model: CLASP, clips: list[Clip], ended: Ended
) -> None:
    other = tiny_model(encoders, seed=1)
    for door, call in (
        ("load", lambda: SpeechIndex.load(folder, other)),
        ("build", lambda: SpeechIndex.build(other, [clips[0].samples], folder=folder)),
    ):
        with ended.refused(
            GROUP, f"index of another model: {door}", folder, "built with another model", "build the index"
        ):
            call()
    with ended.refused(GROUP, "index of another backend", folder, "was built for the backend 'auto', not 'hnsw'"):
        SpeechIndex.build(model, [clips[0].samples], folder=folder, backend="hnsw")
    for backend in ("", "magic", None, 5):
        with ended.refused(GROUP, f"backend {backend!r}", f"backend {backend!r}: choose one of"):
            SpeechIndex.build(model, [clips[0].samples], backend=backend)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cut": 5}, "cut is 5; give True, or how to cut"),
        ({"cut": "yes"}, "cut is 'yes'; give True, or how to cut"),
        ({"batch_size": 0}, "batch_size is 0; give a whole number"),
        ({"batch_size": None}, "batch_size is None; give a whole number"),
        ({"batch_size": "16"}, "batch_size is '16'; give a whole number"),
        ({"on_error": "ignore"}, "on_error 'ignore': choose"),
    ],
)
def test_a_setting_of_an_index_that_makes_no_sense_is_refused(
    options: dict, said: str, model: CLASP, clips: list[Clip], tmp_path: Path, ended: Ended
) -> None:
    with ended.refused(GROUP, f"SpeechIndex.build({options})", said):
        SpeechIndex.build(model, [clips[0].samples], folder=tmp_path / "index", **options)


def test_nothing_to_index_is_said(model: CLASP, tmp_path: Path, ended: Ended) -> None:
    with ended.refused(GROUP, "nothing to index", "nothing to index: no recordings were given"):
        SpeechIndex.build(model, [])
    with ended.refused(GROUP, "nothing that can be read", "1 recordings given, 1 skipped", "no such file"):
        SpeechIndex.build(model, [tmp_path / "none.wav"], on_error="skip")
    with ended.refused(GROUP, "a folder of nothing", tmp_path, "holds no recordings", ".wav"):
        SpeechIndex.build(model, tmp_path)


# faiss -------------------------------------------------------------------------------------------------------------

ROWS = np.random.default_rng(0).standard_normal((1_200, 24)).astype(np.float32)
ROWS /= np.linalg.norm(ROWS, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def approximate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("faiss")
    file = tmp_path_factory.mktemp("faiss") / "nearest.faiss"
    Approximate.build(ROWS, "hnsw").save(file, "these")
    return file


def beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def said(file: Path, **changes: Any) -> None:
    """A note that says something else, and carries the checksum of what it says."""
    note = json.loads(beside(file).read_text("utf-8")) | changes
    note.pop("note_sha256")
    note["note_sha256"] = hashlib.sha256(json.dumps(note, sort_keys=True).encode()).hexdigest()
    beside(file).write_text(json.dumps(note), "utf-8")


def retold(file: Path, content: bytes) -> None:
    """Another file, and its checksum beside it."""
    file.write_bytes(content)
    said(file, sha256=hashlib.sha256(content).hexdigest())


FAISS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda f: f.unlink(), "cannot be opened"),
    "empty": (lambda f: f.write_bytes(b""), "is damaged"),
    "cut off": (lambda f: f.write_bytes(f.read_bytes()[:-9]), "is damaged"),
    "one byte changed": (lambda f: f.write_bytes(f.read_bytes()[:-1] + b"?"), "is damaged"),
    "a folder": (lambda f: (f.unlink(), f.mkdir()), "cannot be opened"),
    "nothing beside it": (lambda f: beside(f).unlink(), "cannot be opened"),
    "no JSON beside it": (lambda f: beside(f).write_text("{"), "cannot be opened"),
    "a list beside it": (lambda f: beside(f).write_text("[]"), "cannot be opened"),
    "lists without end beside it": (lambda f: beside(f).write_text("[" * 100_000), "cannot be opened"),
    "a later format": (lambda f: said(f, format=99), r"is of another version \(99\)"),
    "a kind that is not known": (lambda f: said(f, kind="tree"), "is of another version"),
    "a kind that is a list": (lambda f: said(f, kind=[]), "is of another version"),
    "an effort of words": (lambda f: said(f, effort="much"), "cannot be opened"),
    "a recall of words": (lambda f: said(f, recall="good"), "cannot be opened"),
    "a recall of other fields": (lambda f: said(f, recall={"value": 1}), "cannot be opened"),
    "rows of words": (lambda f: said(f, rows="all"), "cannot be opened"),
    "other rows": (lambda f: said(f, rows=5), "was built of other vectors"),
    "more rows": (lambda f: said(f, rows=10**9), "was built of other vectors"),
    "another width": (lambda f: said(f, dimension=25), r"was built of other vectors \(dimension\)"),
    "another collection": (lambda f: said(f, digest="those"), r"was built of other vectors \(digest\)"),
    "other numbers": (lambda f: said(f, sample="0" * 64), r"was built of other vectors \(sample\)"),
    "text, with its checksum": (lambda f: retold(f, b"<html>" * 99), "cannot be read"),
    "nothing, with its checksum": (lambda f: retold(f, b""), "cannot be read"),
    "half, with its checksum": (lambda f: retold(f, f.read_bytes()[: f.stat().st_size // 2]), "cannot be read"),
}


@pytest.mark.parametrize("name", FAISS)
def test_a_broken_file_of_faiss_is_refused(name: str, approximate: Path, tmp_path: Path, ended: Ended) -> None:
    spoil, wanted = FAISS[name]
    for file in (approximate, beside(approximate)):
        shutil.copy(file, tmp_path)
    file = tmp_path / approximate.name
    spoil(file)
    with within(60), ended.refused(GROUP, f"faiss file: {name}", file, re.compile(wanted), "Build the index again"):
        Approximate.load(file, ROWS, "these")


def test_a_broken_file_of_faiss_in_an_index_is_made_anew(tmp_path: Path, ended: Ended) -> None:
    pytest.importorskip("faiss")
    store = LocalStore.create(tmp_path / "index", about_model(None, "mark", 24), "hnsw")
    store.add([Entry(f"{i}", f"{i}.wav", 0.0, 1.0) for i in range(300)], ROWS[:300])
    answers = store.search(ROWS[:5], 3)
    for name in ("empty", "one byte changed", "nothing beside it", "other numbers", "a kind that is a list", "missing"):
        FAISS[name][0](tmp_path / "index" / "nearest.faiss")
        again = LocalStore.open(tmp_path / "index")
        assert [[e.id for _, e in hits] for hits in again.search(ROWS[:5], 3)] == [
            [e.id for _, e in h] for h in answers
        ]
        assert again.nearest().added == 0 and (tmp_path / "index" / "nearest.faiss").is_file()  # type: ignore[attr-defined]
        ended(GROUP, f"faiss file in an index: {name}", "resumed")


# Addresses ---------------------------------------------------------------------------------------------------------

ADDRESSES = {
    "no database": ("recordings", "is no Milvus database. Give a path that ends in .db or a URL"),
    "nothing": ("", "is no Milvus database"),
    "no host": ("http://", "give http://[user:password@]host:19530"),
    "a port alone": ("http://:19530", "give http://[user:password@]host"),
    "a port of words": ("http://host:milvus", "is no URL"),
    "a port beyond all": ("http://host:99999", "is no URL"),
    "half an address of six": ("http://[::1", "is no URL"),
    "three names": ("http://host/a/b/c", "give http://[user:password@]host"),
    "a question": ("http://host/a?b=c", "give http://[user:password@]host"),
    "a fragment": ("http://host/a#b", "give http://[user:password@]host"),
    "a name with a hyphen": ("http://host/my-clips", "'my-clips' is no name in Milvus; use letters, digits and _"),
    "a name that begins with a digit": ("http://host/1a", "'1a' is no name in Milvus"),
    "a name that climbs": ("http://host/../etc", "'..' is no name in Milvus"),
    "a name in disguise": ("http://host/%2e%2e%2fetc", "is no name in Milvus"),
    "a name of three hundred letters": (f"http://host/{'a' * 300}", "is no name in Milvus"),
    "a query of a database": ("http://host/a';drop", "is no name in Milvus"),
}


@pytest.mark.parametrize("name", ADDRESSES)
def test_an_address_that_is_none_is_refused(name: str, model: CLASP, ended: Ended) -> None:
    address, wanted = ADDRESSES[name]
    with ended.refused(GROUP, f"address, {name}: parse_address", wanted):
        parse_address(address)
    if address.startswith("http"):
        with ended.refused(GROUP, f"address, {name}: SpeechIndex.load", wanted) as caught:
            SpeechIndex.load(address, model)
        assert isinstance(caught.value, ClaspError)


def test_a_password_in_a_wrong_address_is_not_said_again(ended: Ended) -> None:
    for address in ("http://me:s3cret@host:99999", "http://me:s3cret@host/my-clips", "http://me:s3cret@host/a/b/c"):
        with ended.refused(GROUP, "a password in a wrong address", "***@host") as caught:
            parse_address(address)
        assert "s3cret" not in str(caught.value)


def test_a_database_that_is_none_is_refused(model: CLASP, clips: list[Clip], tmp_path: Path, ended: Ended) -> None:
    pytest.importorskip("milvus_lite")
    (tmp_path / "text.db").write_text("this is no database")
    (tmp_path / "file").write_text("mine")
    for name, place, wanted in (
        ("missing", tmp_path / "none.db", "there is no such database"),
        ("a file", tmp_path / "text.db", "is a file; a database of Milvus Lite 3 is a folder"),
        ("below a file", tmp_path / "file" / "x.db", "no database can be made there|there is no such database"),
    ):
        with within(60), ended.refused(GROUP, f"database, {name}: load", place, re.compile(wanted)):
            SpeechIndex.load(place, model)
        if name != "missing":
            with within(60), ended.refused(GROUP, f"database, {name}: build", place, re.compile(wanted)):
                SpeechIndex.build(model, [clips[0].samples], folder=place)
    assert (tmp_path / "text.db").read_text() == "this is no database" and os.listdir(tmp_path / "..")
