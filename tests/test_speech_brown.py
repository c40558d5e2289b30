"""The dataset: the same whoever builds it, nothing shared between splits, whole on disk or not there."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import Clip

from clasp_lib.audio import encode_audio, load_audio
from clasp_lib.corpus import SPLITS, Sentence, Split, normalise_text, pocket_brown
from clasp_lib.errors import AudioError, ClaspError, DatasetError, Skipped, TextError
from clasp_lib.speech_brown import Build, build_speech_brown, load_dataset, read_recordings, save_dataset
from clasp_lib.synthesis import BatchSynthesizer, ESpeak, Synthesizer, Voice, draw_voices

FRACTIONS = {"train": 0.5, "validation": 0.25, "test": 0.25}
VOICES = {"train": 2, "validation": 1, "test": 1}


class Hoarse:
    """An engine that cannot say one word, and hums all others. Here, because a process pool must find it by name."""

    sampling_rate = 16_000

    def voices(self, split: Split, n: int, seed: int = 0) -> list[Voice]:
        return draw_voices(split, n, seed)

    def synthesize(self, text: str, voice: Voice) -> np.ndarray:
        if "forbidden" in text:
            raise TextError(f"text {text!r}: cannot be said.")
        return np.sin(np.arange(1600 * len(text.split())) * voice.pitch / 500).astype(np.float32) / 2


@pytest.fixture(scope="module")
def sentences() -> list[Sentence]:
    return [s for s in pocket_brown() if s.category in ("news", "humor")][::30]


def build(sentences: Sequence[Sentence], workers: int = 1, **options: object) -> Build:
    return build_speech_brown(
        sentences, ESpeak(), voices_per_sentence=VOICES, fractions=FRACTIONS, seed=3, workers=workers, **options
    )


@pytest.fixture(scope="module")
def built(sentences: list[Sentence]) -> Build:
    return build(sentences)


# Building ----------------------------------------------------------------------------------------------------------


def test_the_columns_say_what_they_hold(built: Build, sentences: list[Sentence]) -> None:
    said = {s.id: s for s in sentences}
    assert list(built.dataset) == list(SPLITS) and built.skipped == []
    for split, part in built.dataset.items():
        assert part.column_names == ["id", "sentence_id", "text", "category", "voice", "audio", "duration"]
        assert len(part) == VOICES[split] * len(set(part["sentence_id"]))
        for row in part:
            sentence = said[row["sentence_id"]]
            assert (row["text"], row["category"]) == (sentence.text, sentence.category)
            assert row["audio"]["bytes"][:4] == b"OggS"
            assert len(load_audio(row["audio"])) / 16_000 == pytest.approx(row["duration"], abs=0.01)
    ids = [i for part in built.dataset.values() for i in part["id"]]
    assert len(ids) == len(set(ids)) == sum(len(part) for part in built.dataset.values())
    assert {s for part in built.dataset.values() for s in part["sentence_id"]} == set(said)


def test_no_text_and_no_speaker_is_in_two_splits(built: Build) -> None:
    for column in ("text", "voice"):
        seen: set[str] = set()
        for part in built.dataset.values():
            values = set(part[column])
            if column == "text":
                values = {normalise_text(text) for text in values}
            assert values and not values & seen
            seen |= values


def test_the_dataset_does_not_depend_on_the_number_of_workers(
    built: Build, sentences: list[Sentence], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clasp_lib.speech_brown._CHUNK", 3)
    by_two = build(sentences, workers=2)
    for split in SPLITS:
        assert by_two.dataset[split].to_dict() == built.dataset[split].to_dict()


def test_a_sentence_that_cannot_be_spoken_is_reported() -> None:
    sentences = [Sentence(f"s{i}", f"number {i} is spoken {'twice ' * i}", "news") for i in range(6)]
    sentences.insert(2, Sentence("bad", "this is forbidden", "news"))
    options = {"fractions": {"train": 1.0}, "workers": 1, "voices_per_sentence": {"train": 2}}
    result = build_speech_brown(sentences, Hoarse(), on_error="skip", **options)
    assert [s.id for s in result.skipped] == ["bad-0", "bad-1"]
    assert all("forbidden" in s.reason for s in result.skipped)
    assert len(result.dataset["train"]) == 12 and "bad" not in result.dataset["train"]["sentence_id"]
    with pytest.raises(TextError, match="forbidden"):
        build_speech_brown(sentences, Hoarse(), **options)


# In batches, and resumed ------------------------------------------------------------------------------------------


class Choir(Hoarse):
    """The same in batches; it counts what it speaks, and gives out when it is told to."""

    def __init__(self, breath: int = 10**9, digest: str = "choir") -> None:
        self.breath, self.digest = breath, digest
        self.batches: list[list[str]] = []

    def synthesize_batch(self, texts: Sequence[str], voices: Sequence[Voice]) -> list[np.ndarray | ClaspError]:
        self.breath -= 1
        if self.breath < 0:
            raise KeyboardInterrupt
        self.batches.append(list(texts))
        clips: list[np.ndarray | ClaspError] = []
        for text, voice in zip(texts, voices, strict=True):
            try:
                clips.append(self.synthesize(text, voice))
            except TextError as error:
                clips.append(error)
        return clips


def chorus(sentences: Sequence[Sentence], engine: Synthesizer, folder: Path | None = None, **options: object) -> Build:
    settings = {"voices_per_sentence": VOICES, "fractions": FRACTIONS, "batch_size": 2, "workers": 2} | options
    return build_speech_brown(sentences, engine, folder=folder, **settings)  # type: ignore[arg-type]


def contents(build: Build) -> dict:
    return {split: part.to_dict() for split, part in build.dataset.items()} | {"skipped": build.skipped}


def test_batches_hold_similar_lengths_and_give_what_one_by_one_gives(sentences: list[Sentence]) -> None:
    choir = Choir()
    assert isinstance(choir, BatchSynthesizer) and not isinstance(Hoarse(), BatchSynthesizer)
    together = chorus(sentences, choir)
    assert contents(together) == contents(chorus(sentences, Hoarse(), workers=1))
    assert max(map(len, choir.batches)) == 2
    lengths = [[len(text) for text in batch] for batch in choir.batches]
    apart = np.mean([max(batch) - min(batch) for batch in lengths])
    assert apart < 0.5 * np.std([length for batch in lengths for length in batch])


@pytest.mark.parametrize("stops_after", [0, 3, 7])
def test_a_stopped_build_goes_on_where_it_was(
    sentences: list[Sentence], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops_after: int
) -> None:
    monkeypatch.setattr("clasp_lib.speech_brown._BATCHES", 2)
    sentences = [*sentences, Sentence("bad", "this is forbidden", "news")]
    folder, undisturbed = tmp_path / "work", Choir()
    whole = contents(chorus(sentences, undisturbed, on_error="skip"))
    assert len(whole["skipped"]) >= 1
    with pytest.raises(KeyboardInterrupt):
        chorus(sentences, Choir(breath=stops_after), folder, on_error="skip")
    rest = Choir()
    assert contents(chorus(sentences, rest, folder, on_error="skip")) == whole
    repeated = stops_after % 2  # a shard is two batches
    assert len(rest.batches) == len(undisturbed.batches) - stops_after + repeated
    idle = Choir(breath=0)
    assert contents(chorus(sentences, idle, folder, on_error="skip")) == whole
    assert not [path for path in folder.iterdir() if path.suffix not in (".arrow", ".json")]


def test_a_stopped_build_of_processes_goes_on_where_it_was(
    sentences: list[Sentence], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clasp_lib import speech_brown

    monkeypatch.setattr("clasp_lib.speech_brown._CHUNK", 4)
    whole = contents(chorus(sentences, Hoarse()))
    keep, kept = speech_brown._Shard.keep, []

    def killed(shard: object, rows: list, skipped: list) -> None:
        if len(kept) == 2:
            raise KeyboardInterrupt
        kept.append(len(rows))
        keep(shard, rows, skipped)  # type: ignore[arg-type]

    monkeypatch.setattr(speech_brown._Shard, "keep", killed)
    with pytest.raises(KeyboardInterrupt):
        chorus(sentences, Hoarse(), tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.arrow")}
    assert len(before) == 2
    monkeypatch.setattr(speech_brown._Shard, "keep", keep)
    assert contents(chorus(sentences, Hoarse(), tmp_path)) == whole
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.arrow")}.items()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"audio_format": "WAV"},
        {"batch_size": 3},
        {"engine": Choir(digest="another")},
        {"on_error": "skip"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_shards_of_another_recipe_are_not_taken(sentences: list[Sentence], tmp_path: Path, change: dict) -> None:
    chorus(sentences, Choir(), tmp_path)
    engine = change.get("engine") or Choir()
    options = {name: value for name, value in change.items() if name != "engine"}
    again = chorus(sentences, engine, tmp_path, **options)
    assert sum(len(batch) for batch in engine.batches) == sum(len(part) for part in again.dataset.values())
    changed = [Sentence(s.id, s.text + " Really.", s.category) for s in sentences]
    assert all(text.endswith("Really.") for text in chorus(changed, Choir(), tmp_path).dataset["test"]["text"])


def test_a_damaged_shard_is_named(sentences: list[Sentence], tmp_path: Path) -> None:
    chorus(sentences, Choir(), tmp_path)
    shard = sorted(tmp_path.glob("*.arrow"))[0]
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(DatasetError, match=shard.name):
        chorus(sentences, Choir(), tmp_path)


def test_a_batch_that_cannot_be_spoken_stops_the_build(tmp_path: Path) -> None:
    sentences = [Sentence(f"s{i}", f"number {i} is {'forbidden' if i == 3 else 'spoken'}", "news") for i in range(6)]
    options = {"fractions": {"train": 1.0}}
    with pytest.raises(TextError, match="forbidden"):
        chorus(sentences, Choir(), tmp_path, **options)
    assert list(tmp_path.iterdir()) == []
    skipped = chorus(sentences, Choir(), tmp_path, on_error="skip", **options)
    assert [clip.id for clip in skipped.skipped] == ["s3-0", "s3-1"]
    assert isinstance(skipped.skipped[0], Skipped)


class Soloist(Choir):
    """One voice for everything."""

    def voices(self, split: Split, n: int, seed: int = 0) -> list[Voice]:
        return [Voice("en-us", "solo")] * n


def test_an_engine_with_one_speaker_needs_leave(sentences: list[Sentence]) -> None:
    with pytest.raises(DatasetError, match=r"en-us\+solo.*train and in validation.*shared_speakers=True"):
        chorus(sentences, Soloist())
    dataset = chorus(sentences, Soloist(), shared_speakers=True).dataset
    assert {voice for part in dataset.values() for voice in part["voice"]} == {"en-us+solo"}
    assert chorus(sentences, Soloist(), fractions={"train": 1.0}).dataset["train"].num_rows == 2 * len(sentences)


# Saving and loading ------------------------------------------------------------------------------------------------


def test_a_dataset_comes_back_from_disk(built: Build, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "dataset"
    save_dataset(built.dataset, folder)
    save_dataset(built.dataset, folder)  # replaces what is there
    loaded = load_dataset(folder)
    for split in SPLITS:
        assert loaded[split].to_dict() == built.dataset[split].to_dict()
    assert [p.name for p in folder.parent.iterdir()] == ["dataset"]


def test_a_split_may_be_empty(tmp_path: Path) -> None:
    sentences = [Sentence("one", "only one sentence", "news")]
    dataset = build_speech_brown(sentences, Hoarse(), fractions={"train": 1.0}, workers=1).dataset
    save_dataset(dataset, tmp_path / "dataset")
    assert {split: len(part) for split, part in load_dataset(tmp_path / "dataset").items()} == {
        "train": 1,
        "validation": 0,
        "test": 0,
    }


def test_a_failed_save_leaves_the_old_dataset(built: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "dataset"
    save_dataset(built.dataset, folder)

    def fail(self: object, path: str, **_: object) -> None:
        (Path(path) / "train").mkdir()
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("datasets.DatasetDict.save_to_disk", fail)
        for target in (folder, tmp_path / "another"):
            with pytest.raises(DatasetError, match=r"cannot be written .no space left"):
                save_dataset(built.dataset, target)
    assert [p.name for p in tmp_path.iterdir()] == ["dataset"]
    assert load_dataset(folder)["test"]["id"] == built.dataset["test"]["id"]


def test_a_folder_of_something_else_is_not_replaced(built: Build, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DatasetError, match=r"no dataset_dict\.json"):
        save_dataset(built.dataset, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_damaged_dataset_is_refused_by_name(built: Build, tmp_path: Path) -> None:
    good = tmp_path / "good"
    save_dataset(built.dataset, good)
    arrow = next(p.relative_to(good) for p in (good / "test").glob("*.arrow"))

    def damage(name: str) -> Path:
        shutil.copytree(good, tmp_path / name)
        return tmp_path / name

    (damage("no-index") / "dataset_dict.json").unlink()
    (damage("bad-index") / "dataset_dict.json").write_text("{")
    (damage("no-rows") / arrow).unlink()
    (damage("truncated") / arrow).write_bytes((good / arrow).read_bytes()[:100])
    (damage("noise") / arrow).write_bytes(bytes(1000))
    (damage("no-state") / "test" / "state.json").unlink()
    built.dataset["test"].save_to_disk(str(tmp_path / "one-split"))
    type(built.dataset)({"test": built.dataset["test"].remove_columns("voice")}).save_to_disk(str(tmp_path / "columns"))
    (tmp_path / "a-file").write_text("x")
    (tmp_path / "empty").mkdir()
    folders = [p for p in tmp_path.iterdir() if p.name != "good"]
    for folder in [*folders, tmp_path / "missing"]:
        with pytest.raises(DatasetError) as caught:
            pytest.fail(f"{folder.name}: {load_dataset(folder)}")
        assert str(caught.value).startswith(str(folder))


# Recordings --------------------------------------------------------------------------------------------------------


def write_table(folder: Path, rows: Sequence[Sequence[str]], encoding: str = "utf-8") -> None:
    with open(folder / "metadata.csv", "w", encoding=encoding, newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture
def recordings(tmp_path: Path, clips: list[Clip]) -> Path:
    """A folder with three recordings and no table yet."""
    folder = tmp_path / "recordings"
    (folder / "audio").mkdir(parents=True)
    for number, clip in enumerate(clips[:3]):
        (folder / "audio" / f"{number}.ogg").write_bytes(encode_audio(clip.samples, 16_000, "OGG"))
    return folder


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_recordings_enter_with_the_usual_columns(recordings: Path, encoding: str, clips: list[Clip]) -> None:
    rows = [["speaker", "text", "file"]]
    rows += [
        ["ann", "Café, “twice”!", "audio/0.ogg"],
        ["", "café twice", "audio/1.ogg"],
        ["bob", "Once", "audio/2.ogg"],
    ]
    write_table(recordings, rows, encoding)
    dataset, skipped = read_recordings(recordings)
    assert skipped == []
    assert dataset["text"] == ["Café, “twice”!", "café twice", "Once"]
    assert dataset["sentence_id"][0] == dataset["sentence_id"][1] != dataset["sentence_id"][2]
    assert dataset["voice"] == ["ann", "", "bob"] and dataset["category"] == ["", "", ""]
    for row, clip in zip(dataset, clips, strict=False):
        assert row["duration"] == pytest.approx(len(clip.samples) / 16_000)
        assert len(load_audio(row["audio"])) == len(clip.samples)


BAD_TABLES = {
    "no text column": ([["file", "words"], ["audio/0.ogg", "x"]], "lacks the column text"),
    "no columns": ([["a"], ["b"]], "lacks the column file and text"),
    "nothing": ([], "lacks the column"),
    "no rows": ([["file", "text"]], "no rows"),
    "empty text": ([["file", "text"], ["audio/0.ogg", " "]], "line 2"),
    "text without a letter": ([["file", "text"], ["audio/0.ogg", "..."]], "line 2"),
    "empty file": ([["file", "text"], ["", "x"]], "line 2"),
    "short row": ([["file", "text"], ["audio/0.ogg"]], "line 2"),
    "file twice": ([["file", "text"], ["audio/0.ogg", "x"], ["audio/0.ogg", "y"]], "line 3.*twice"),
    "file twice in disguise": ([["file", "text"], ["audio/0.ogg", "x"], ["audio/./0.ogg", "y"]], "line 3.*twice"),
    "path out of the folder": ([["file", "text"], ["../outside.wav", "x"]], "out of the folder"),
    "absolute path": ([["file", "text"], ["/etc/hostname", "x"]], "out of the folder"),
    "NUL in the path": ([["file", "text"], ["audio\0/0.ogg", "x"]], "metadata.csv"),
}


@pytest.mark.parametrize(("rows", "message"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_a_bad_table_is_refused_by_line(recordings: Path, rows: list[list[str]], message: str) -> None:
    (recordings.parent / "outside.wav").write_bytes((recordings / "audio" / "0.ogg").read_bytes())
    write_table(recordings, rows)
    for on_error in ("raise", "skip"):
        with pytest.raises(DatasetError, match=message) as caught:
            read_recordings(recordings, on_error=on_error)
        assert str(recordings / "metadata.csv") in str(caught.value)


def test_a_link_out_of_the_folder_is_refused(recordings: Path) -> None:
    (recordings.parent / "outside.ogg").write_bytes((recordings / "audio" / "0.ogg").read_bytes())
    (recordings / "link.ogg").symlink_to(recordings.parent / "outside.ogg")
    write_table(recordings, [["file", "text"], ["link.ogg", "x"]])
    with pytest.raises(DatasetError, match="out of the folder"):
        read_recordings(recordings)


@pytest.mark.parametrize(
    "content", [None, "file,text\naudio/0.ogg,café\n".encode("latin-1"), b"\xff\xfe" + "file".encode("utf-16-le")]
)
def test_a_table_that_cannot_be_read_is_refused(recordings: Path, content: bytes | None) -> None:
    if content is not None:
        (recordings / "metadata.csv").write_bytes(content)
    with pytest.raises(DatasetError, match="UTF-8"):
        read_recordings(recordings)


def test_a_bad_recording_is_refused_or_reported(recordings: Path) -> None:
    data = (recordings / "audio" / "0.ogg").read_bytes()
    (recordings / "audio" / "cut.ogg").write_bytes(data[: len(data) // 2])
    rows = [["file", "text"], ["audio/0.ogg", "one"], ["audio/cut.ogg", "two"], ["audio/none.ogg", "three"]]
    write_table(recordings, rows)
    with pytest.raises(AudioError, match=r"cut\.ogg"):
        read_recordings(recordings)
    dataset, skipped = read_recordings(recordings, on_error="skip")
    assert dataset["id"] == ["audio/0.ogg"]
    assert [s.id for s in skipped] == ["audio/cut.ogg", "audio/none.ogg"]
    assert "truncated" in skipped[0].reason and "no such file" in skipped[1].reason


def test_the_real_recordings_have_a_good_table(test_data: Path) -> None:
    folder = test_data / "real_speech" / "common_voice_100" / "en"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    dataset, skipped = read_recordings(folder)
    assert len(dataset) == 100 and skipped == []
    assert len(set(dataset["sentence_id"])) > 90
