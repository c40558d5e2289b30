"""Search: the nearest first, an index that is whole or not there, hits that can be heard."""

from __future__ import annotations

import base64
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import Clip, Encoders, tiny_model

from clasp_lib import CLASP, Hit, SpeechIndex
from clasp_lib.audio import encode_audio
from clasp_lib.errors import AudioError, ClaspError, DatasetError, TextError
from clasp_lib.index import Entry, stored_model
from clasp_lib.index.local import LocalStore
from clasp_lib.index.store import about_model
from clasp_lib.localization import encode_recording


@pytest.fixture(scope="module")
def files(clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    paths = [folder / f"clip {i}.flac" for i in range(len(clips))]
    for path, clip in zip(paths, clips, strict=True):
        path.write_bytes(encode_audio(clip.samples, 16_000, "FLAC"))
    return paths


@pytest.fixture(scope="module")
def index(model: CLASP, files: list[Path], clips: list[Clip]) -> SpeechIndex:
    metadata = [{"number": i} for i in range(len(files))]
    return SpeechIndex.build(model, files, texts=[clip.text for clip in clips], metadata=metadata)


# Searching ---------------------------------------------------------------------------------------------------------


def test_hits_come_nearest_first(index: SpeechIndex, model: CLASP, files: list[Path], clips: list[Clip]) -> None:
    query = "A parrot learned to count."
    cosines = model.similarity(model.encode_text([query]), model.encode_speech(files))[0]
    order = np.argsort(-cosines)
    hits = index.search(query, k=4)
    assert [hit.metadata["number"] for hit in hits] == order[:4].tolist()
    for hit, i in zip(hits, order, strict=False):
        assert hit.score == pytest.approx(cosines[i], abs=1e-5)
        assert hit.file == str(files[i]) and hit.text == clips[i].text
        assert hit.start_s == 0 and hit.end_s == pytest.approx(len(clips[i].samples) / 16_000)
    assert isinstance(hits[0], Hit) and len(index) == 6


def test_a_recording_finds_itself(index: SpeechIndex, files: list[Path], clips: list[Clip]) -> None:
    for query in (files[3], clips[3].samples, {"bytes": files[3].read_bytes(), "path": "elsewhere.flac"}):
        best = index.search(query, k=1)[0]
        assert best.file == str(files[3]) and best.score == pytest.approx(1, abs=1e-3)


def test_k_may_be_larger_than_the_collection(index: SpeechIndex) -> None:
    hits = index.search("anything", k=100)
    assert len(hits) == 6 and len({hit.file for hit in hits}) == 6
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert [h.file for h in index.search("anything", k=2)] == [h.file for h in hits[:2]]


def test_equal_scores_keep_the_order_of_the_collection(model: CLASP) -> None:
    vectors = np.zeros((5, model.dimension), np.float32)
    vectors[:, 0] = 1.0  # sums of one term: equal to the last bit, whatever order they are added in
    store = LocalStore.create(None, about_model(None, model.fingerprint, model.dimension))
    store.add([Entry(f"{i}", f"item {i}", 0.0, 1.0) for i in range(5)], vectors)
    index = SpeechIndex(model, store)
    assert [hit.file for hit in index.search("anything", k=5)] == [f"item {i}" for i in range(5)]


def test_a_search_that_makes_no_sense_is_refused(index: SpeechIndex) -> None:
    for k in (0, -1, 1.5, None, "3"):
        with pytest.raises(ClaspError, match="k is"):
            index.search("anything", k=k)  # type: ignore[arg-type]
    for query in ("", "  "):
        with pytest.raises(TextError):
            index.search(query)
    with pytest.raises(AudioError, match="no such file"):
        index.search(Path("nowhere.wav"))


# Building ----------------------------------------------------------------------------------------------------------


def test_bad_recordings_are_refused_or_reported(model: CLASP, files: list[Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"not audio")
    items = [files[0], bad, files[1], np.zeros(16_000, np.float32), tmp_path / "missing.wav"]
    with pytest.raises(AudioError, match=r"bad\.wav"):
        SpeechIndex.build(model, items[:3])
    index = SpeechIndex.build(model, items, texts=list("abcde"), on_error="skip")
    assert [s.id for s in index.skipped] == [str(bad), "item 3", str(tmp_path / "missing.wav")]
    assert "silent" in index.skipped[1].reason and "no such file" in index.skipped[2].reason
    assert [entry.text for entry in index.entries] == ["a", "c"]
    np.testing.assert_allclose(index.vectors, model.encode_speech(files[:2]), atol=1e-4)
    with pytest.raises(ClaspError, match="1 recordings given, 1 skipped"):
        SpeechIndex.build(model, [bad], on_error="skip")


def test_lists_that_do_not_fit_are_refused(model: CLASP, files: list[Path]) -> None:
    with pytest.raises(ClaspError, match="texts: has 1 entries for 6"):
        SpeechIndex.build(model, files, texts=["one"])
    with pytest.raises(ClaspError, match="metadata: has 0 entries for 6"):
        SpeechIndex.build(model, files, metadata=[])
    with pytest.raises(ClaspError, match="nothing to index"):
        SpeechIndex.build(model, [])


def test_order_is_kept_over_chunks(
    model: CLASP, index: SpeechIndex, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clasp_lib.index.speech_index._CHUNK", 2)
    again = SpeechIndex.build(model, files)
    np.testing.assert_allclose(again.vectors, index.vectors, atol=1e-4)
    assert [entry.file for entry in again.entries] == [str(f) for f in files]


# Saving and loading ------------------------------------------------------------------------------------------------


def test_a_saved_index_finds_the_same(index: SpeechIndex, model: CLASP, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "index"
    index.save(folder)
    index.save(folder)  # replaces
    loaded = SpeechIndex.load(folder, model)
    assert loaded.search("a query", k=6) == index.search("a query", k=6)
    np.testing.assert_array_equal(loaded.vectors, index.vectors)
    assert [p.name for p in folder.parent.iterdir()] == ["index"]


def test_an_index_of_another_model_is_refused(index: SpeechIndex, encoders: Encoders, tmp_path: Path) -> None:
    index.save(tmp_path / "index")
    for other in (tiny_model(encoders, seed=1), tiny_model(encoders, "gating")):
        with pytest.raises(DatasetError, match="built with another model"):
            SpeechIndex.load(tmp_path / "index", other)


def test_a_failed_save_leaves_the_old_index(
    index: SpeechIndex, model: CLASP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "index"
    index.save(folder)

    def full(file: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("clasp_lib.index.segments.write_whole", full)
        for target in (folder, tmp_path / "another"):
            with pytest.raises(DatasetError, match="No space left"):
                index.save(target)
    assert [p.name for p in tmp_path.iterdir()] == ["index"]
    assert len(SpeechIndex.load(folder, model)) == 6


def test_a_folder_of_something_else_is_not_replaced(index: SpeechIndex, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DatasetError, match=r"no index\.json"):
        index.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_damaged_index_is_replaced_by_a_save(index: SpeechIndex, model: CLASP, tmp_path: Path) -> None:
    index.save(tmp_path / "index")
    (tmp_path / "index" / "index.json").write_text("{")
    with pytest.raises(DatasetError, match=r"index\.json: cannot be read"):
        SpeechIndex.load(tmp_path / "index", model)
    index.save(tmp_path / "index")
    assert len(SpeechIndex.load(tmp_path / "index", model)) == 6


def test_an_index_says_which_model_built_it(index: SpeechIndex, model: CLASP, tmp_path: Path) -> None:
    index.save(tmp_path / "index")
    assert stored_model(tmp_path / "index") == (None, model.fingerprint, model.dimension)
    model.save_pretrained(tmp_path / "model")
    named = CLASP.from_pretrained(tmp_path / "model", device="cpu")
    SpeechIndex.build(named, [np.sin(np.arange(16_000) / 9)], folder=tmp_path / "second")
    assert stored_model(tmp_path / "second").name == str(tmp_path / "model")


# Growing in a folder -------------------------------------------------------------------------------------------------


class Counted:
    """How many recordings a model has encoded."""

    def __init__(self, model: CLASP, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clips, real = 0, model.encode_speech

        def encode(items: list, *args: object, **options: object) -> np.ndarray:
            self.clips += len(items)
            return real(items, *args, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(model, "encode_speech", encode)


def test_what_is_there_is_not_encoded_again(
    model: CLASP, files: list[Path], clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = [Path(shutil.copy(file, tmp_path)) for file in files]
    counted, folder = Counted(model, monkeypatch), tmp_path / "index"
    SpeechIndex.build(model, mine[:4], folder=folder)
    index = SpeechIndex.build(model, mine, folder=folder)
    assert counted.clips == 6 and len(index) == 6
    assert index.add(mine) == (0, 6, [])
    mine[2].write_bytes(encode_audio(clips[5].samples, 16_000, "FLAC"))  # another recording under an old name
    assert index.add(mine, texts=["new text", *[None] * 5]) == (2, 4, [])  # and another text
    assert counted.clips == 8 and len(index) == 6
    again = SpeechIndex.load(folder, model)
    by_file = {entry.file: entry.text for entry in again.entries}
    assert by_file[str(mine[0])] == "new text" and by_file[str(mine[3])] is None
    best = again.search(clips[5].samples, k=2)
    assert {hit.file for hit in best} == {str(mine[2]), str(mine[5])} and best[1].score > 0.999
    assert again.remove([mine[0], str(mine[1]), "nothing"]) == 2
    assert len(SpeechIndex.load(folder, model)) == 4


def test_a_stopped_build_goes_on(
    model: CLASP, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clasp_lib.index.speech_index._CHUNK", 2)
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"not audio")
    with pytest.raises(AudioError, match=r"bad\.wav"):
        SpeechIndex.build(model, [*files[:4], bad, files[4]], folder=tmp_path / "index")
    assert len(SpeechIndex.load(tmp_path / "index", model)) == 4
    counted = Counted(model, monkeypatch)
    assert len(SpeechIndex.build(model, files, folder=tmp_path / "index")) == 6
    assert counted.clips == 2


def test_an_index_may_grow_in_memory(model: CLASP, files: list[Path], clips: list[Clip]) -> None:
    index = SpeechIndex.build(model, files[:2])
    assert index.add([clips[2].samples, {"array": clips[3].samples, "sampling_rate": 16_000}]) == (2, 0, [])
    assert index.add([clips[2].samples]) == (0, 1, [])  # the same sound
    assert index.add([clips[2].samples, clips[2].samples]) == (1, 1, [])  # meant to be there twice
    assert len(index) == 5
    assert index.remove(files[0]) == 1 and len(index) == 4
    hits = index.search("anything", k=4)
    assert sum(isinstance(hit.audio, np.ndarray | dict) for hit in hits) == 3


def test_arrays_may_have_another_rate(model: CLASP, clips: list[Clip]) -> None:
    slow = SpeechIndex.build(model, [clips[0].samples], sampling_rate=8_000)
    assert slow.entries[0].end_s == pytest.approx(len(clips[0].samples) / 8_000)
    expected = model.encode_speech([clips[0].samples], 8_000)
    np.testing.assert_allclose(slow.vectors, expected, atol=1e-5)


def test_ids_name_recordings(model: CLASP, files: list[Path]) -> None:
    index = SpeechIndex.build(model, files[:3], ids=["a", "b", "c"])
    assert [entry.id for entry in index.entries] == ["a", "b", "c"]
    assert index.remove("b") == 1 and index.remove(files[0]) == 0  # an id takes the place of the file
    for ids, message in ((["a", "a", "b"], "'a' occurs twice"), (["a", "", "b"], "its id is ''"), (["a"], "1 entries")):
        with pytest.raises(ClaspError, match=message):
            SpeechIndex.build(model, files[:3], ids=ids)


def test_an_index_in_a_folder_is_for_one_model_and_one_backend(
    model: CLASP, encoders: Encoders, files: list[Path], tmp_path: Path
) -> None:
    SpeechIndex.build(model, files[:1], folder=tmp_path / "index", backend="exact")
    with pytest.raises(DatasetError, match="another model"):
        SpeechIndex.build(tiny_model(encoders, seed=1), files, folder=tmp_path / "index")
    with pytest.raises(DatasetError, match="for the backend 'exact', not 'faiss'"):
        SpeechIndex.build(model, files, folder=tmp_path / "index", backend="faiss")
    with pytest.raises(ClaspError, match="on_error 'ignore'"):
        SpeechIndex.build(model, files, on_error="ignore")  # type: ignore[arg-type]


# Folders and datasets ----------------------------------------------------------------------------------------------


def test_a_folder_is_searched_for_recordings(model: CLASP, files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    shutil.copy(files[0], tmp_path / "b.flac")
    shutil.copy(files[1], tmp_path / "deep" / "a.FLAC")
    (tmp_path / "notes.txt").write_text("not a recording")
    (tmp_path / "._b.flac").write_text("left by another system")
    index = SpeechIndex.build(model, tmp_path)
    assert [entry.file for entry in index.entries] == [str(tmp_path / "b.flac"), str(tmp_path / "deep" / "a.FLAC")]
    (tmp_path / "empty").mkdir()
    for place, message in ((tmp_path / "empty", "holds no recordings"), (tmp_path / "none", "no such folder")):
        with pytest.raises(DatasetError, match=message):
            SpeechIndex.build(model, place)
    with pytest.raises(AudioError, match="is one file"):
        SpeechIndex.build(model, str(files[0]))


def test_a_table_says_what_the_recordings_are(model: CLASP, files: list[Path], tmp_path: Path) -> None:
    for i in range(3):
        shutil.copy(files[i], tmp_path / f"{i}.flac")
    (tmp_path / "metadata.csv").write_text(
        'file,text,year,room,loud,id\n0.flac,"one, two",1990,007,0.5,x\n1.flac,,,012,1,y\n2.flac,three,2001,,,z\n'
    )
    index = SpeechIndex.build(model, tmp_path)
    assert [(e.id, e.text, dict(e.metadata)) for e in index.entries] == [
        ("x", "one, two", {"year": 1990, "room": "007", "loud": 0.5}),
        ("y", None, {"room": "012", "loud": 1.0}),
        ("z", "three", {"year": 2001}),
    ]
    assert [hit.file for hit in index.search("a", where={"year": (None, 1995)})] == [str(tmp_path / "0.flac")]
    with pytest.raises(ClaspError, match="texts: belongs to a list"):
        SpeechIndex.build(model, tmp_path, texts=["a"])
    for table, message in (
        ("name\n0.flac\n", "needs a column 'file'"),
        ("file\n", "a row for each"),
        ("file\n../x.flac\n", "no path inside"),
        ("file,text\n0.flac,a,b\n", "another number of cells"),
        ("file,text\n0.flac\n", "another number of cells"),
        ("file,digest\n0.flac,a\n", "'digest'"),
        ("file,id\n0.flac,a\n1.flac,a\n", "'a' occurs twice"),
        ("file\nmissing.flac\n", "no such file"),
    ):
        (tmp_path / "metadata.csv").write_text(table)
        with pytest.raises(ClaspError, match=message):
            SpeechIndex.build(model, tmp_path)
    (tmp_path / "metadata.csv").write_bytes(b"file\n\xff\xfe\n")
    with pytest.raises(DatasetError, match="cannot be read"):
        SpeechIndex.build(model, tmp_path)


def test_a_dataset_is_indexed_with_what_it_knows(
    model: CLASP, files: list[Path], clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import Audio, Dataset, DatasetDict

    columns = {
        "audio": [{"bytes": file.read_bytes(), "path": file.name} for file in files],
        "text": [clip.text for clip in clips],
        "category": ["news", "lore"] * 3,
        "words": [len(clip.text.split()) for clip in clips],
        "duration": [1.0] * 6,
    }
    dataset = Dataset.from_dict(columns).cast_column("audio", Audio(decode=False))
    index = SpeechIndex.build(model, dataset, folder=tmp_path / "index")
    assert [entry.text for entry in index.entries] == columns["text"]
    assert dict(index.entries[1].metadata) == {"category": "lore", "words": len(clips[1].text.split())}
    assert index.entries[1].end_s == pytest.approx(len(clips[1].samples) / 16_000)
    hits = index.search(clips[2].text, k=2, where={"category": "news"})
    assert {hit.metadata["category"] for hit in hits} == {"news"}
    assert hits._repr_html_().count("<audio") == 2
    counted = Counted(model, monkeypatch)
    named = dataset.add_column("id", [f"id {i}" for i in range(6)])  # type: ignore[call-arg]
    SpeechIndex.build(model, named.select(range(4)), folder=tmp_path / "named")
    SpeechIndex.build(model, named, folder=tmp_path / "named")
    assert counted.clips == 6
    decoding = SpeechIndex.build(model, named.cast_column("audio", Audio(16_000)).select(range(1)))
    np.testing.assert_allclose(decoding.vectors, index.vectors[:1], atol=1e-4)
    for wrong, message in (
        (DatasetDict(test=dataset), "dataset\\['test'\\]"),
        (dataset.remove_columns("audio"), "no column 'audio'"),
        (dataset.add_column("id", ["a"] * 6), "'a' twice"),  # type: ignore[call-arg]
    ):
        with pytest.raises(DatasetError, match=message):
            SpeechIndex.build(model, wrong)


def test_metadata_that_cannot_be_kept_is_refused(model: CLASP, files: list[Path]) -> None:
    for metadata in (
        {"when": object()},
        {"a": [1]},
        {"a": {}},
        {"a": float("inf")},
        {"": 1},
        {3: 1},
        {"text": "x"},
        "x",
    ):
        with pytest.raises(DatasetError, match="metadata"):
            SpeechIndex.build(model, files[:1], metadata=[metadata])  # type: ignore[list-item]
    index = SpeechIndex.build(model, files[:1], metadata=[{"n": np.int64(3), "x": np.float32(0.5), "none": None}])
    assert dict(index.entries[0].metadata) == {"n": 3, "x": 0.5}


# Long recordings -----------------------------------------------------------------------------------------------------


def test_a_long_recording_may_be_indexed_in_windows(model: CLASP, clips: list[Clip], tmp_path: Path) -> None:
    long = tmp_path / "long.flac"
    pause = np.random.default_rng(0).normal(0, 1e-4, 16_000).astype(np.float32)
    samples = np.concatenate([part for clip in clips[:5] for part in (clip.samples, pause)])
    long.write_bytes(encode_audio(samples, 16_000, "FLAC"))
    index = SpeechIndex.build(model, [long], metadata=[{"show": "one"}], cut=True)
    assert len(index) >= 5 and {entry.id for entry in index.entries} == {str(long)}
    encoded = encode_recording(model, long)
    np.testing.assert_allclose(index.vectors, encoded.vectors, atol=1e-5)
    (best,) = index.search(clips[1].samples, k=1, where={"show": "one"})
    start = (len(clips[0].samples) + 16_000) / 16_000
    assert best.start_s < start + 0.5 and best.end_s > start
    assert best._repr_html_().count("<audio") == 1
    assert index.add([long], metadata=[{"show": "one"}], cut=True) == (0, 1, [])
    assert index.add([long], metadata=[{"show": "one"}]) == (1, 0, [])  # uncut, it is another entry in its place
    assert len(index) == 1 and index.remove(long) == 1


# Hearing -----------------------------------------------------------------------------------------------------------


def test_hits_can_be_heard_and_hide_no_markup(model: CLASP, files: list[Path], clips: list[Clip]) -> None:
    nasty = "<script>alert(\"1\")</script> & 'quotes'"
    index = SpeechIndex.build(model, [files[0], clips[1].samples], texts=[nasty, "plain"])
    html = index.search("anything", k=2)._repr_html_()
    assert html.count("<audio controls") == 2
    assert "<script" not in html and html.count("&lt;script&gt;") == 2  # in the text and in the label
    assert 'alert("' not in html
    sounds = [base64.b64decode(data) for data in re.findall(r"data:audio/mpeg;base64,([^\"]+)", html)]
    assert len(sounds) == 2 and all(len(sound) > 1000 for sound in sounds)


def test_a_hit_whose_file_is_gone_still_shows_its_text() -> None:
    html = Hit(0.5, "/nowhere/clip.flac", 0.0, 1.0, "what was <said>")._repr_html_()
    assert "<audio" not in html and "what was &lt;said&gt;" in html and "0.50" in html
    assert "/nowhere/clip.flac" in Hit(0.5, "/nowhere/clip.flac", 0.0, 1.0)._repr_html_()
