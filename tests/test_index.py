"""Search: the nearest first, an index that is whole or not there, hits that can be heard."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import Clip, Encoders, tiny_model

from clasp_lib import CLASP, Hit, SpeechIndex
from clasp_lib.audio import encode_audio
from clasp_lib.errors import AudioError, ClaspError, DatasetError, TextError


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
    index = SpeechIndex(model, vectors, [{"file": f"item {i}", "start_s": 0.0, "end_s": 1.0} for i in range(5)])
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
        SpeechIndex.build(model, items)
    index = SpeechIndex.build(model, items, texts=list("abcde"), on_error="skip")
    assert [s.id for s in index.skipped] == [str(bad), "item 3", str(tmp_path / "missing.wav")]
    assert "silent" in index.skipped[1].reason and "no such file" in index.skipped[2].reason
    assert [entry["text"] for entry in index.entries] == ["a", "c"]
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
    monkeypatch.setattr("clasp_lib.index._CHUNK", 2)
    again = SpeechIndex.build(model, files)
    np.testing.assert_allclose(again.vectors, index.vectors, atol=1e-4)
    assert [entry["file"] for entry in again.entries] == [str(f) for f in files]


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
    index: SpeechIndex, model: CLASP, clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "index"
    index.save(folder)
    odd = SpeechIndex.build(model, [clips[0].samples], metadata=[{"when": object()}])
    with pytest.raises(DatasetError, match="metadata"):
        odd.save(folder)

    def fail(tensors: dict, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.numpy.save_file", fail)
        for target in (folder, tmp_path / "another"):
            with pytest.raises(OSError, match="no space left"):
                index.save(target)
    assert [p.name for p in tmp_path.iterdir()] == ["index"]
    assert len(SpeechIndex.load(folder, model)) == 6


def test_a_folder_of_something_else_is_not_replaced(index: SpeechIndex, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DatasetError, match=r"no index\.json"):
        index.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_damaged_index_is_refused_by_name(index: SpeechIndex, model: CLASP, tmp_path: Path) -> None:
    good = tmp_path / "good"
    index.save(good)
    about = json.loads((good / "index.json").read_text())

    def damage(name: str) -> Path:
        shutil.copytree(good, tmp_path / name)
        return tmp_path / name

    (damage("no-list") / "index.json").unlink()
    (damage("no-vectors") / "vectors.safetensors").unlink()
    vectors = damage("truncated") / "vectors.safetensors"
    vectors.write_bytes(vectors.read_bytes()[:-8])
    (damage("not-json") / "index.json").write_text("{")
    (damage("other-json") / "index.json").write_text("[]")
    (damage("entries-missing") / "index.json").write_text(json.dumps(about | {"entries": about["entries"][:2]}))
    (damage("entries-odd") / "index.json").write_text(json.dumps(about | {"entries": 6}))
    (damage("later-format") / "index.json").write_text(json.dumps(about | {"format": 99}))
    (tmp_path / "empty").mkdir()
    for folder in [p for p in tmp_path.iterdir() if p != good] + [tmp_path / "missing"]:
        with pytest.raises(DatasetError) as caught:
            pytest.fail(f"{folder.name}: {len(SpeechIndex.load(folder, model))} entries were read")
        assert str(caught.value).startswith(str(folder))


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
