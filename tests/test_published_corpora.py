"""Published corpora come in as they were published: every known layout, nothing replaced, what is left out is named."""

from __future__ import annotations

import collections
import io
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from clasp_lib.audio import encode_audio, load_audio
from clasp_lib.corpus import CATEGORIES, Sentence, brown, leaking_texts, split_by_text
from clasp_lib.errors import AudioError, DatasetError, TextError
from clasp_lib.published_corpora import (
    deal_clips,
    read_common_voice,
    read_fleurs,
    read_speech_brown,
    speech_brown_sentences,
    true_categories,
)
from clasp_lib.speech_brown import columns, load_dataset, save_dataset

RATE = 22_050


def tone(number: int, rate: int = RATE) -> np.ndarray:
    """A clip that is known by its pitch, 0.2 s long and longer with each number."""
    return (np.sin(np.arange(rate // 5 + 100 * number) * (0.05 + number / 50)) / 2).astype(np.float32)


@cache
def wav(number: int, rate: int = RATE) -> bytes:
    """The clip in a file of 32-bit samples; kept, because the file holds the time at which it was made."""
    file = io.BytesIO()
    soundfile.write(file, tone(number, rate), rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


# Speech Brown ------------------------------------------------------------------------------------------------------

TEXTS = {1: "The dog barked.", 2: "It is a ; cat ;", 3: "the DOG barked!", 4: ")", 5: "Rain fell."}
PARTS = {1: (1, 2, 3), 2: (4, 5)}


def write_speech_brown(
    folder: Path, *, key: str = "file_path", top: str = "", sounds: dict[int, bytes | None] | None = None
) -> Path:
    """Five clips in two parts, laid out as on the hub; `sounds` replaces clips, or takes them out of their zip."""
    folder.mkdir(parents=True, exist_ok=True)
    sounds = {number: wav(number) for number in TEXTS} | (sounds or {})
    entries = {
        part: [{"id": n, key: f"dataset/part{part}/audios/audio_{n}.wav", "text": TEXTS[n]} for n in numbers]
        for part, numbers in PARTS.items()
    }
    labels = [
        entry | {"category": "news" if entry["id"] < 4 else "lore"} for part in entries.values() for entry in part
    ]
    (folder / "global_metadata.json").write_text(json.dumps(labels))
    localized = {f"part{part}": entries[part] for part in entries}
    (folder / "localized_metadata.json").write_text(json.dumps(localized))
    for part, numbers in PARTS.items():
        with zipfile.ZipFile(folder / f"dataset_part{part}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.mkdir(f"{top}audios")
            archive.writestr(f"{top}audios/stray.txt", "not in the metadata")
            for number in numbers:
                if (sound := sounds[number]) is not None:
                    archive.writestr(f"{top}audios/audio_{number}.wav", sound)
    return folder


@pytest.mark.parametrize("key", ["file_path", "audio_file_path"])
@pytest.mark.parametrize("top", ["", "dataset_part1/", "./dataset/part1/"])
def test_speech_brown_is_read_part_by_part_from_each_layout(tmp_path: Path, key: str, top: str) -> None:
    source = write_speech_brown(tmp_path / "corpus", key=key, top=top)
    parts = list(read_speech_brown(source, (1, 2)))
    assert [len(clips) for clips, _ in parts] == [3, 2] and all(skipped == [] for _, skipped in parts)
    clips = parts[0][0]
    assert clips.features == columns()
    assert clips["id"] == ["speech_brown-1", "speech_brown-2", "speech_brown-3"]
    assert clips["text"] == [TEXTS[1], TEXTS[2], TEXTS[3]]
    assert clips["category"] == ["news"] * 3 and parts[1][0]["category"] == ["lore"] * 2
    assert set(clips["voice"]) == {"tacotron2"}
    for number, clip in enumerate(clips, 1):
        assert clip["audio"] == {"bytes": wav(number), "path": f"audio_{number}.wav"}  # as it was published
        assert clip["duration"] == pytest.approx(len(tone(number)) / RATE)


def test_copies_of_a_sentence_share_their_sentence_id(tmp_path: Path) -> None:
    source = write_speech_brown(tmp_path)
    (first, _), (second, _) = read_speech_brown(source, (1, 2))
    ids = [*first["sentence_id"], *second["sentence_id"]]
    assert ids[0] == ids[2]
    assert len(set(ids)) == 4 and all(ids)  # the bracket has one, too


@pytest.mark.parametrize(("audio_format", "magic", "error"), [("FLAC", b"fLaC", 1e-4), ("OGG", b"OggS", 0.05)])
def test_clips_can_be_made_smaller(tmp_path: Path, audio_format: str, magic: bytes, error: float) -> None:
    ((clips, _),) = read_speech_brown(write_speech_brown(tmp_path), (1,), audio_format=audio_format)
    for number, clip in enumerate(clips, 1):
        assert clip["audio"]["bytes"][:4] == magic
        assert clip["audio"]["path"] == f"audio_{number}.{audio_format.lower()}"
        assert len(clip["audio"]["bytes"]) < len(wav(number))
        assert np.abs(load_audio(clip["audio"], RATE) - tone(number)).max() < error


def test_a_part_of_many_blocks_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_speech_brown(tmp_path)
    ((whole, _),) = read_speech_brown(source, (1,))
    monkeypatch.setattr("clasp_lib.published_corpora.clips._BLOCK", 2)
    ((blocks, _),) = read_speech_brown(source, (1,))
    assert blocks.to_dict() == whole.to_dict()


def damaged(sound: bytes) -> bytes:
    return sound[: len(sound) // 2]


UNUSABLE = {
    "missing": (None, DatasetError, "holds no audio_2.wav"),
    "empty": (b"", AudioError, "audio_2.wav"),
    "not audio": (b"RIFF of another kind", AudioError, "audio_2.wav"),
    "truncated": (damaged(wav(2)), AudioError, "truncated"),
}


@pytest.mark.parametrize(("sound", "error", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_clip_that_cannot_be_used_is_refused_or_reported(
    tmp_path: Path, sound: bytes | None, error: type[Exception], message: str
) -> None:
    source = write_speech_brown(tmp_path, sounds={2: sound})
    with pytest.raises(error, match=message):
        next(read_speech_brown(source, (1,)))
    clips, skipped = next(read_speech_brown(source, (1,), on_error="skip"))
    assert clips["id"] == ["speech_brown-1", "speech_brown-3"]
    assert [s.id for s in skipped] == ["speech_brown-2"] and message in skipped[0].reason


def test_a_part_without_a_usable_clip_is_empty_and_says_why(tmp_path: Path) -> None:
    clips, skipped = next(
        read_speech_brown(write_speech_brown(tmp_path, sounds={4: None, 5: None}), (2,), on_error="skip")
    )
    assert len(clips) == 0 and clips.features == columns() and len(skipped) == 2


def test_a_damaged_entry_of_a_zip_is_refused_by_name(tmp_path: Path) -> None:
    source = write_speech_brown(tmp_path)
    zipped = source / "dataset_part1.zip"
    data = bytearray(zipped.read_bytes())
    start = data.find(b"audios/audio_2.wav") + 200
    data[start : start + 50] = bytes(50)
    zipped.write_bytes(data)
    with pytest.raises(AudioError, match=r"dataset_part1\.zip: audios/audio_2\.wav is damaged"):
        next(read_speech_brown(source, (1,)))
    clips, skipped = next(read_speech_brown(source, (1,), on_error="skip"))
    assert len(clips) == 2 and skipped[0].id == "speech_brown-2"


def test_a_name_that_is_twice_in_a_zip_is_refused(tmp_path: Path) -> None:
    source = write_speech_brown(tmp_path)
    with zipfile.ZipFile(source / "dataset_part1.zip", "a") as archive:
        archive.writestr("other/audio_2.wav", wav(5))
    with pytest.raises(DatasetError, match="where the metadata names one file"):
        next(read_speech_brown(source, (1,)))


def edit(name: str, change: Callable[[str], str]) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(change((folder / name).read_text()))


BAD_CORPORA = {
    "no metadata": (lambda f: (f / "global_metadata.json").unlink(), "holds no global_metadata.json"),
    "no JSON": (edit("localized_metadata.json", lambda text: text[:-5]), "localized_metadata.json: is not"),
    "a list of parts": (edit("localized_metadata.json", lambda _: "[]"), "localized_metadata.json: is not"),
    "parts without numbers": (edit("localized_metadata.json", lambda t: t.replace("part1", "one")), "is not the meta"),
    "no text": (edit("localized_metadata.json", lambda t: t.replace('"text"', '"words"', 1)), "KeyError: 'text'"),
    "no path": (edit("localized_metadata.json", lambda t: t.replace("file_path", "f")), "audio_file_path"),
    "no category": (edit("global_metadata.json", lambda t: t.replace("category", "genre", 1)), "global.*'category'"),
    "unknown clip": (edit("global_metadata.json", lambda t: t.replace('"id": 2', '"id": 99')), "KeyError: 2"),
    "no zip": (lambda f: (f / "dataset_part1.zip").unlink(), "holds no dataset_part1.zip"),
    "no zip but a page": (lambda f: (f / "dataset_part1.zip").write_bytes(b"<html>"), "not a zip"),
    "clip twice": (edit("localized_metadata.json", lambda t: t.replace('"id": 2', '"id": 1')), "speech_brown-1 twice"),
}


@pytest.mark.parametrize(("spoil", "message"), BAD_CORPORA.values(), ids=BAD_CORPORA)
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_corpus_that_makes_no_sense_is_refused(
    tmp_path: Path, spoil: Callable[[Path], object], message: str, on_error: str
) -> None:
    source = write_speech_brown(tmp_path)
    spoil(source)
    with pytest.raises(DatasetError, match=message):
        list(read_speech_brown(source, (1,), on_error=on_error))


def test_wrong_arguments_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    source = write_speech_brown(tmp_path)
    with pytest.raises(DatasetError, match="no part 3; its parts are 1, 2"):
        read_speech_brown(source, (1, 3))
    with pytest.raises(DatasetError, match="choose 'FLAC' or 'OGG'"):
        read_speech_brown(source, (1,), audio_format="MP4", on_error="skip")
    with pytest.raises(DatasetError, match="neither a folder nor an id"):
        read_speech_brown(tmp_path / "no" / "such" / "folder")


def test_sentences_are_split_before_their_clips_arrive(tmp_path: Path) -> None:
    source = write_speech_brown(tmp_path / "corpus")
    sentences = speech_brown_sentences(source)
    assert [(s.id, s.text) for s in sentences] == [(f"speech_brown-{n}", text) for n, text in TEXTS.items()]
    splits = split_by_text(sentences[:4], {"train": 0.5, "test": 0.5})
    dealt = [deal_clips(clips, splits) for clips, _ in read_speech_brown(source, (1, 2))]
    for split in splits:
        assert sorted(i for part in dealt for i in part[split]["id"]) == sorted(s.id for s in splits[split])
    save_dataset(dealt[0], tmp_path / "saved")
    assert load_dataset(tmp_path / "saved")["train"].to_dict() == dealt[0]["train"].to_dict()


def test_the_true_category_goes_by_number_and_not_by_text() -> None:
    sentences = [
        Sentence("ca01-1", "No.", "news"),
        Sentence("cb01-1", "Rain.", "editorial"),
        Sentence("cc01", "No.", "lore"),
    ]
    clips = [Sentence("speech_brown-3", "No.", "lore"), Sentence("speech_brown-1", "No.", "lore")]
    assert true_categories(clips, sentences) == ["lore", "news"]
    assert true_categories([Sentence("speech_brown-2", "A longer one.", "news")], sentences) == [""]
    for number in ("0", "4", "x"):
        with pytest.raises(DatasetError, match="none of the 3 sentences"):
            true_categories([Sentence(f"speech_brown-{number}", "No.", "news")], sentences)


def test_published_labels_are_the_first_category_that_holds_the_text(test_data: Path) -> None:
    """The defect of the published labels, from Brown itself: all 15 numbers of the published table come out."""
    path = test_data / "brown" / "brown.zip"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    sentences = brown(path)
    first: dict[str, str] = {}
    for sentence in sentences:
        first[sentence.text] = min(sentence.category, first.get(sentence.text, "z"))
    published = [Sentence(f"speech_brown-{n}", s.text, first[s.text]) for n, s in enumerate(sentences, 1)]
    counts = collections.Counter(s.category for s in published)
    table = [4832, 6869, 2972, 4174, 2712, 4036, 998, 7215, 4643, 3817, 4460, 1575, 1669, 4276, 925]
    assert [counts[category] for category in CATEGORIES] == table
    assert true_categories(published, sentences) == [s.category for s in sentences]


# The hub -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], list[str]]:
    """Let a folder stand for a dataset of the hub; downloads are links to blobs, as in its cache, and are listed."""
    from huggingface_hub.errors import EntryNotFoundError

    def serve(folder: Path) -> list[str]:
        downloads: list[str] = []

        def download(repo_id: str, filename: str, *, repo_type: str, revision: str | None) -> str:
            downloads.append(f"{repo_type}s/{repo_id}@{revision or 'main'}/{filename}")
            if not (folder / filename).is_file():
                raise EntryNotFoundError(f"404: {filename}")
            blob, link = tmp_path / "blobs" / filename.replace("/", "-"), tmp_path / "snapshot" / filename
            for path in (blob, link):
                path.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                blob.write_bytes((folder / filename).read_bytes())
                link.symlink_to(os.path.relpath(blob, link.parent))
            return str(link)

        monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
        return downloads

    return serve


@pytest.mark.parametrize("delete", [False, True])
def test_one_part_at_a_time_is_downloaded_and_deleted_if_asked(
    tmp_path: Path, hub: Callable[[Path], list[str]], delete: bool
) -> None:
    downloads = hub(write_speech_brown(tmp_path / "remote"))
    parts = read_speech_brown(parts=(1, 2), delete_downloads=delete)
    prefix = "datasets/llm-lab/SpeechBrown@main/"
    assert sorted(downloads) == [f"{prefix}global_metadata.json", f"{prefix}localized_metadata.json"]
    for part in (1, 2):
        clips, _ = next(parts)
        assert downloads[2:] == [f"{prefix}dataset_part{n}.zip" for n in range(1, part + 1)]
        for folder in ("blobs", "snapshot"):
            assert (tmp_path / folder / f"dataset_part{part}.zip").exists() is not delete
        assert len(load_audio(clips[0]["audio"]))  # what was read stays
    assert list(parts) == []


def test_a_zip_that_failed_stays_for_the_next_attempt(tmp_path: Path, hub: Callable[[Path], list[str]]) -> None:
    hub(write_speech_brown(tmp_path / "remote", sounds={2: None}))
    with pytest.raises(DatasetError, match="holds no audio_2"):
        next(read_speech_brown(parts=(1,), delete_downloads=True))
    assert (tmp_path / "snapshot" / "dataset_part1.zip").exists()


def test_files_of_a_local_folder_are_never_deleted(tmp_path: Path) -> None:
    source = write_speech_brown(tmp_path)
    assert len(list(read_speech_brown(source, (1, 2), delete_downloads=True))) == 2
    assert (source / "dataset_part1.zip").is_file() and (source / "dataset_part2.zip").is_file()


def test_a_hub_that_does_not_answer_is_not_the_end_of_a_corpus(
    tmp_path: Path, hub: Callable[[Path], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    hub(write_fleurs(tmp_path / "remote", shards=2))
    answer = huggingface_hub.hf_hub_download

    def fail(repo_id: str, filename: str, **options: Any) -> str:
        if filename.endswith("0001.parquet"):
            raise LocalEntryNotFoundError("the network went away")
        return answer(repo_id, filename, **options)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(DatasetError, match=r"test/0001\.parquet \(the network went away\)"):
        read_fleurs(splits=("test",))


# FLEURS ------------------------------------------------------------------------------------------------------------

FLOWERS = [(7, "1.wav", "two people"), (9, "2.wav", "it rains"), (7, "3.wav", "two people")]


def write_fleurs(
    folder: Path,
    rows: Sequence[tuple[int, str, str]] = FLOWERS,
    *,
    language: str = "en_us",
    split: str = "test",
    shards: int = 1,
    sounds: dict[int, bytes | None] | None = None,
) -> Path:
    """Parquet files with the columns of the hub's conversion; a recording that `sounds` gives as None is null."""
    import pyarrow as pa
    import pyarrow.parquet

    records = [
        {
            "id": number,
            "num_samples": 3200,
            "path": f"/cache/extracted/0a1b/{split}/{name}",
            "audio": {"bytes": (sounds or {}).get(i, wav(i, 16_000)), "path": name},
            "transcription": text,
            "raw_transcription": f"{text.capitalize()}.",
            "gender": i % 2,
            "lang_id": 19,
            "language": "English",
            "lang_group_id": 0,
        }
        for i, (number, name, text) in enumerate(rows)
    ]
    (folder / language / split).mkdir(parents=True)
    size = -(-len(records) // shards)
    for shard in range(shards):
        table = pa.Table.from_pylist(records[shard * size : (shard + 1) * size])
        pyarrow.parquet.write_table(table, folder / language / split / f"{shard:04d}.parquet")
    return folder


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """English in three splits, the test split in two files."""
    folder = tmp_path / "fleurs"
    write_fleurs(folder, [(1, "4.wav", "a boat"), (1, "5.wav", "a boat")], split="train")
    write_fleurs(folder, [(2, "6.wav", "a hat")], split="validation")
    return write_fleurs(folder, shards=2)


def test_fleurs_keeps_its_splits_and_several_recordings_share_a_sentence(flowers: Path) -> None:
    dataset, skipped = read_fleurs(flowers)
    assert {split: len(part) for split, part in dataset.items()} == {"train": 2, "validation": 1, "test": 3}
    assert skipped == []
    test = dataset["test"]
    assert test.features == columns()
    assert test["id"] == ["en_us/test/1.wav", "en_us/test/2.wav", "en_us/test/3.wav"]
    assert test["sentence_id"] == ["fleurs-7", "fleurs-9", "fleurs-7"]
    assert test["text"] == ["two people", "it rains", "two people"]
    assert set(test["voice"]) == {""} == set(test["category"])
    for number, clip in enumerate(test):
        assert clip["audio"] == {"bytes": wav(number, 16_000), "path": f"{number + 1}.wav"}
        assert clip["duration"] == pytest.approx(len(tone(number, 16_000)) / 16_000)
    assert leaking_texts(test["text"], dataset["train"]["text"]) == []


def test_fleurs_gives_the_raw_text_and_smaller_clips_if_asked(flowers: Path) -> None:
    dataset = read_fleurs(flowers, splits=("validation",), raw=True, audio_format="FLAC").dataset
    assert list(dataset) == ["validation"] and dataset["validation"]["text"] == ["A hat."]
    assert dataset["validation"][0]["audio"]["bytes"][:4] == b"fLaC"


def test_translations_of_a_sentence_share_its_id(flowers: Path) -> None:
    write_fleurs(flowers, [(9, "8.wav", "es regnet")], language="de_de")
    english, german = (read_fleurs(flowers, name, splits=("test",)).dataset["test"] for name in ("en_us", "de_de"))
    assert german["sentence_id"][0] == english["sentence_id"][1]
    assert not set(german["id"]) & set(english["id"])


def test_fleurs_comes_from_the_parquet_branch_of_the_hub(tmp_path: Path, hub: Callable[[Path], list[str]]) -> None:
    downloads = hub(write_fleurs(tmp_path / "remote", shards=2))
    assert len(read_fleurs(splits=("test",)).dataset["test"]) == 3
    prefix = "datasets/google/fleurs@refs/convert/parquet/en_us/test/"
    assert downloads == [f"{prefix}0000.parquet", f"{prefix}0001.parquet", f"{prefix}0002.parquet"]
    with pytest.raises(DatasetError, match=r"holds no english/test/0000\.parquet.*'en_us'"):
        read_fleurs(language="english", splits=("test",))


def test_a_recording_of_fleurs_that_cannot_be_used_is_refused_or_reported(tmp_path: Path) -> None:
    rows = [*FLOWERS, (8, "4.wav", " "), (8, "5.wav", "fine")]
    folder = write_fleurs(tmp_path, rows, sounds={1: None, 2: damaged(wav(2, 16_000))})
    with pytest.raises(AudioError, match=r"2\.wav"):
        read_fleurs(folder, splits=("test",))
    dataset, skipped = read_fleurs(folder, splits=("test",), on_error="skip")
    assert dataset["test"]["id"] == ["en_us/test/1.wav", "en_us/test/5.wav"]
    assert [s.id for s in skipped] == ["en_us/test/2.wav", "en_us/test/3.wav", "en_us/test/4.wav"]
    assert "not empty" in skipped[0].reason
    assert "truncated" in skipped[1].reason and "no text" in skipped[2].reason


def test_files_of_fleurs_that_make_no_sense_are_refused(flowers: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    first = flowers / "en_us" / "test" / "0000.parquet"
    good = first.read_bytes()
    for content in (b"", b"<html>", good[:-100]):
        first.write_bytes(content)
        with pytest.raises(DatasetError, match=r"0000\.parquet: is not a Parquet file"):
            read_fleurs(flowers, splits=("test",), on_error="skip")
    pyarrow.parquet.write_table(pa.table({"id": [1], "audio": [None]}), first)
    with pytest.raises(DatasetError, match="lacks the columns path, transcription"):
        read_fleurs(flowers, splits=("test",))
    pyarrow.parquet.write_table(
        pa.table({"id": [1], "path": ["a.wav"], "audio": ["sound"], "transcription": ["x"]}), first
    )
    with pytest.raises(DatasetError, match="is not a Parquet file of FLEURS"):
        read_fleurs(flowers, splits=("test",), on_error="skip")
    first.write_bytes(good)
    (first.parent / "0001.parquet").rename(first.parent / "0002.parquet")
    with pytest.raises(DatasetError, match=r"0001\.parquet is missing"):
        read_fleurs(flowers, splits=("test",))
    with pytest.raises(DatasetError, match="splits train, validation, test"):
        read_fleurs(flowers, splits=("dev",))


# Common Voice ------------------------------------------------------------------------------------------------------

HEADER = ("client_id", "path", "sentence", "up_votes", "down_votes", "age", "gender", "accents", "locale")
VOICES = {
    "train": [("c0ffee", "cv_1.mp3", "First."), ("c0ffee", "cv_2.mp3", "Second."), ("facade", "cv_3", "Third.")],
    "dev": [("decade", "cv_4.mp3", "Fourth.")],
    "test": [("beaded", "cv_5.mp3", "Fifth."), ("beaded", "cv_6.mp3", "first")],
}


def write_table(folder: Path, table: str, rows: Sequence[Sequence[str]]) -> None:
    lines = ["\t".join(HEADER), *("\t".join([*row, *"20", "", "", "", "en"]) for row in rows)]
    (folder / f"{table}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """The folder of one language of a release: three tables and six MP3 files."""
    folder = tmp_path / "cv-corpus-0.0" / "en"
    (folder / "clips").mkdir(parents=True)
    for table, rows in VOICES.items():
        write_table(folder, table, rows)
    for number in range(1, 7):
        (folder / "clips" / f"cv_{number}.mp3").write_bytes(encode_audio(tone(number, 32_000), 32_000, "MP3"))
    return folder


def test_common_voice_keeps_the_splits_of_its_tables(release: Path) -> None:
    dataset, skipped = read_common_voice(release)
    assert {split: part["id"] for split, part in dataset.items()} == {
        "train": ["cv_1.mp3", "cv_2.mp3", "cv_3.mp3"],
        "validation": ["cv_4.mp3"],
        "test": ["cv_5.mp3", "cv_6.mp3"],
    }
    assert skipped == []
    for part in dataset.values():
        assert part.features == columns() and set(part["category"]) == {""}
        for clip in part:
            assert clip["audio"]["bytes"] == (release / "clips" / clip["id"]).read_bytes()
            assert clip["duration"] == pytest.approx(len(load_audio(clip["audio"])) / 16_000, abs=1e-3)
    assert dataset["test"]["sentence_id"][1] == dataset["train"]["sentence_id"][0]
    assert leaking_texts(dataset["test"]["text"], dataset["train"]["text"]) == ["first"]


def test_no_speaker_id_leaves_the_tables_and_speakers_stay_apart(release: Path) -> None:
    dataset = read_common_voice(release).dataset
    voices = {split: part["voice"] for split, part in dataset.items()}
    assert voices["train"][0] == voices["train"][1] != voices["train"][2]
    assert len({voice for part in voices.values() for voice in part}) == 4
    kept = repr([part.to_dict() for part in dataset.values()])
    assert not any(row[0] in kept for rows in VOICES.values() for row in rows)


def test_validated_is_a_split_of_its_own(release: Path) -> None:
    write_table(release, "validated", [row for rows in VOICES.values() for row in rows])
    dataset = read_common_voice(release, tables=("validated",)).dataset
    assert list(dataset) == ["validated"] and len(dataset["validated"]) == 6


def test_a_missing_clip_is_refused_or_reported(release: Path) -> None:
    (release / "clips" / "cv_2.mp3").unlink()
    (release / "clips" / "cv_5.mp3").write_bytes(b"")
    with pytest.raises(AudioError, match=r"cv_2\.mp3: cannot be read \(No such file"):
        read_common_voice(release)
    dataset, skipped = read_common_voice(release, on_error="skip")
    assert [s.id for s in skipped] == ["cv_2.mp3", "cv_5.mp3"]
    assert len(dataset["train"]) == 2 and dataset["test"]["id"] == ["cv_6.mp3"]


def test_a_limit_draws_by_its_seed_and_does_not_count_what_is_skipped(release: Path) -> None:
    def drawn(seed: int | None) -> list[str]:
        part = read_common_voice(release, limit={"train": 2}, seed=seed, on_error="skip").dataset["train"]
        return list(part["id"])

    assert drawn(None) == ["cv_1.mp3", "cv_2.mp3"]  # as the reference does
    assert drawn(3) == drawn(3) and len({tuple(drawn(seed)) for seed in range(8)}) > 2
    (release / "clips" / "cv_1.mp3").unlink()
    assert drawn(None) == ["cv_2.mp3", "cv_3.mp3"]
    assert all(len(drawn(seed)) == 2 for seed in range(4))
    assert len(read_common_voice(release, limit={"test": 99}, tables=("test",)).dataset["test"]) == 2


def test_texts_are_cleaned_as_the_reference_does_if_asked(release: Path) -> None:
    assert read_common_voice(release, tables=("dev",), clean=True).dataset["validation"]["text"] == ["fourth"]


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ('"""Yes,"" she said."', '"Yes," she said.'),
        ('\\"Yes,\\" she said.', '"Yes," she said.'),
        ('"Yes," she said, "no."', '"Yes," she said, "no."'),
        ('It is 5" wide.', 'It is 5" wide.'),
        ("# no comment", "# no comment"),
    ],
)
def test_quotes_in_a_table_are_text(release: Path, field: str, text: str) -> None:
    write_table(release, "dev", [("decade", "cv_4.mp3", field), ("decade", "cv_5.mp3", "The next line.")])
    assert read_common_voice(release, tables=("dev",)).dataset["validation"]["text"] == [text, "The next line."]


@pytest.mark.parametrize(
    "row", [("", "cv_4.mp3", "x"), ("a", "", "x"), ("a", "../cv_4.mp3", "x"), ("a", "/etc/cv.mp3", "x"), ("a",)]
)
def test_a_bad_line_of_a_table_is_refused_by_number(release: Path, row: tuple[str, ...]) -> None:
    (release / "dev.tsv").write_text("client_id\tpath\tsentence\n" + "\t".join(row) + "\n")
    with pytest.raises(DatasetError, match=r"dev\.tsv, line 2"):
        read_common_voice(release, tables=("dev",), on_error="skip")


def test_a_line_without_a_sentence_is_refused_or_reported(release: Path) -> None:
    write_table(release, "dev", [("decade", "cv_4.mp3", " "), ("decade", "cv_5.mp3", "Fine.")])
    with pytest.raises(TextError, match=r"cv_4\.mp3: has no text"):
        read_common_voice(release, tables=("dev",))
    assert [s.id for s in read_common_voice(release, tables=("dev",), on_error="skip").skipped] == ["cv_4.mp3"]


def test_a_release_that_makes_no_sense_is_refused(release: Path) -> None:
    with pytest.raises(DatasetError, match="no folder 'clips'"):
        read_common_voice(release.parent)
    with pytest.raises(DatasetError, match=r"validated\.tsv: cannot be read"):
        read_common_voice(release, tables=("validated",))
    with pytest.raises(DatasetError, match="choose from train, dev, test, validated"):
        read_common_voice(release, tables=("other",))
    for limit in ({"train": 0}, {"validation": 5}):
        with pytest.raises(DatasetError, match="limit"):
            read_common_voice(release, limit=limit)
    (release / "dev.tsv").write_text("path\tsentence\ncv_4.mp3\tx\n")
    with pytest.raises(DatasetError, match="lacks the columns client_id"):
        read_common_voice(release, tables=("dev",))
    (release / "dev.tsv").write_bytes("client_id\tpath\tsentence\na\tcv_4.mp3\tcafé\n".encode("latin-1"))
    with pytest.raises(DatasetError, match=r"dev\.tsv: cannot be read"):
        read_common_voice(release, tables=("dev",))
    write_table(release, "dev", [("a", "cv_4.mp3", "x"), ("a", "cv_4", "y")])
    with pytest.raises(DatasetError, match=r"cv_4\.mp3 twice"):
        read_common_voice(release, tables=("dev",), on_error="skip")
