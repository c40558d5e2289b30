"""Speech Brown as it was published: ten zips of WAV files and two files of metadata."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from clasp_lib.corpus import Sentence, Split, normalise_text
from clasp_lib.errors import AudioError, DatasetError, OnError, Skipped
from clasp_lib.published_corpora.clips import AudioFormat, Clip, check_format, collect, find_file

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

HUB_ID = "llm-lab/SpeechBrown"


def speech_brown_sentences(source: str | Path = HUB_ID) -> list[Sentence]:
    """The sentences of Speech Brown, from its metadata alone, without any audio.

    Their ids are those of the clips, and the category is the published one (see `true_categories`). Split them with
    `split_by_text` or `reference_split` before any part is downloaded, then deal each part with `deal_clips`.

    Raises:
        DatasetError: as `read_speech_brown`.
    """
    return [Sentence(e.id, e.text, e.category) for entries in _metadata(source).values() for e in entries]


def read_speech_brown(
    source: str | Path = HUB_ID,
    parts: Sequence[int] = range(1, 11),
    *,
    audio_format: AudioFormat | None = None,
    delete_downloads: bool = False,
    on_error: OnError = "raise",
) -> Iterator[tuple[Dataset, list[Skipped]]]:
    """Speech Brown, one part after the other, so that the disk of a Colab machine suffices for a corpus of 30 GB.

    A part has 5 520 clips (the tenth 5 493), about 10 hours of speech. Its zip takes 2.1 to 3.3 GB of disk and is
    never unpacked: each clip is read out of it. The clips of a part lie in memory, 88 kB for a second of 32-bit
    samples at 22.05 kHz, so about 3.3 GB as published; as 16-bit FLAC (25 kB/s) about 0.9 GB, as Ogg Vorbis (7.5 kB/s)
    0.3 GB. Reading a part takes one core about a minute, three for Ogg. These are computed: from the hub's file sizes,
    from tokens a clip, and from rates measured on other synthetic speech.

    Args:
        source: an id on the hub, or a local folder with `localized_metadata.json`, `global_metadata.json` and
            `dataset_part1.zip` ... as published. Clips are found by their file name: whether a path begins with
            `dataset/part1/` or `dataset_part1/`, and which folders are in the zip, does not matter. Entries of a zip
            that the metadata does not name are left alone.
        parts: which parts, in this order.
        audio_format: re-encode as "FLAC" or "OGG", samples beyond [-1, 1] clipped; None keeps the files.
        delete_downloads: take a zip that came from the hub off the disk when its part has been read. Files of a local
            folder are never deleted.
        on_error: "raise" stops at the first clip that cannot be used; "skip" reports it.

    Returns:
        For each part its clips and what was skipped. `sentence_id` is the normalised text, which copies share;
        `category` is the published label; the one `voice` is "tacotron2".

    Raises:
        DatasetError: a file is missing or is not what it should be; a part that does not exist; a clip that the zip
            lacks, with `on_error="raise"`.
        AudioError, TextError: a clip that cannot be used, with `on_error="raise"`.
    """
    check_format(audio_format)
    metadata = _metadata(source)
    if unknown := [part for part in parts if part not in metadata]:
        raise DatasetError(f"{source}: has no part {unknown[0]}; its parts are {', '.join(map(str, metadata))}.")
    return (_read_part(source, part, metadata[part], audio_format, delete_downloads, on_error) for part in parts)


def true_categories(clips: Sequence[Sentence], sentences: Sequence[Sentence]) -> list[str]:
    """Brown's own category of sentences of Speech Brown, whose published labels were looked up by text.

    Clip number n says sentence n of Brown: both keep its order and leave out sentences of more than 47 tokens. The
    answer is "" where the text is another one, as for the eight that the makers replaced by longer sentences.

    Args:
        clips: from `speech_brown_sentences`.
        sentences: from `clasp_lib.corpus.brown`.

    Raises:
        DatasetError: a clip has a number for which there is no sentence.
    """
    categories = []
    for clip in clips:
        number = clip.id.rpartition("-")[2]
        if not number.isdecimal() or not 1 <= int(number) <= len(sentences):
            raise DatasetError(f"clip {clip.id!r}: is none of the {len(sentences)} sentences. Give all of Brown.")
        sentence = sentences[int(number) - 1]
        categories.append(sentence.category if sentence.text == clip.text else "")
    return categories


def deal_clips(clips: Dataset, splits: Mapping[Split, Sequence[Sentence]]) -> DatasetDict:
    """Deal clips to the splits that their ids were dealt to; clips of no split are left out.

    Args:
        splits: from `split_by_text` or `reference_split`, of sentences whose ids are those of the clips.
    """
    from datasets import DatasetDict

    split_of = {sentence.id: split for split, part in splits.items() for sentence in part}
    rows: dict[Split, list[int]] = {split: [] for split in splits}
    for row, clip in enumerate(clips["id"]):
        if clip in split_of:
            rows[split_of[clip]].append(row)
    return DatasetDict({split: clips.select(rows[split]) for split in splits})


_MOST_BYTES = 100_000_000
"""That a clip may unpack to; a minute of sound is a few megabytes."""


class _Entry(NamedTuple):
    id: str
    text: str
    category: str
    file: str


def _metadata(source: str | Path) -> dict[int, list[_Entry]]:
    """The clips of each part. Parts and texts stand in one of the two files, categories in the other."""
    labels, file = _required(source, "global_metadata.json"), _required(source, "localized_metadata.json")
    parts: dict[int, list[_Entry]] = {}
    here = labels
    try:
        categories = {entry["id"]: entry["category"] for entry in json.loads(labels.read_text("utf-8"))}
        here = file
        for key, entries in json.loads(file.read_text("utf-8")).items():
            parts[int(key.removeprefix("part"))] = [
                _Entry(
                    f"speech_brown-{int(entry['id'])}",
                    entry["text"].strip(),
                    categories[entry["id"]],
                    # The card calls it `audio_file_path`, the files `file_path`.
                    PurePosixPath(entry["file_path"] if "file_path" in entry else entry["audio_file_path"]).name,
                )
                for entry in entries
            ]
    except (OSError, AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DatasetError(
            f"{here}: is not the metadata of Speech Brown ({type(error).__name__}: {error}). Download both files again."
        ) from error
    return parts


def _required(source: str | Path, name: str) -> Path:
    if (file := find_file(source, name)) is None:
        raise DatasetError(f"{source}: holds no {name}. Give the folder with the files as they were published.")
    return file


def _read_part(
    source: str | Path,
    part: int,
    entries: Sequence[_Entry],
    audio_format: AudioFormat | None,
    delete_downloads: bool,
    on_error: OnError,
) -> tuple[Dataset, list[Skipped]]:
    file = _required(source, f"dataset_part{part}.zip")
    try:
        archive = zipfile.ZipFile(file)
    except (OSError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{file}: is not a zip that can be opened ({error}). Download it again.") from error
    with archive:
        members: dict[str, list[str]] = {}
        for name in archive.namelist():
            members.setdefault(PurePosixPath(name).name, []).append(name)
        clips = (
            # A few sentences are nothing but a bracket: they have only their text to go by.
            Clip(id_, normalise_text(text) or text, text, category, "tacotron2", name, partial(_unzip, archive, found))
            for id_, text, category, name in entries
            for found in [members.get(name, [name])]
        )
        result = collect(clips, file.name, total=len(entries), audio_format=audio_format, on_error=on_error)
    if delete_downloads and not Path(source).is_dir():
        blob = file.resolve()  # the hub's cache keeps a link to it
        file.unlink()
        blob.unlink(missing_ok=True)
    return result


def _unzip(archive: zipfile.ZipFile, names: Sequence[str]) -> bytes:
    """An entry of a zip, which must be the only one of its name."""
    if len(names) > 1:
        raise DatasetError(f"{archive.filename}: holds {' and '.join(names)}, where the metadata names one file.")
    try:
        if (size := archive.getinfo(names[0]).file_size) > _MOST_BYTES:
            raise AudioError(
                f"{archive.filename}: {names[0]} would unpack to {size / 1e6:,.0f} MB, and a clip has "
                f"{_MOST_BYTES / 1e6:,.0f} MB at most. Download the zip again."
            )
        return archive.read(names[0])
    except KeyError as error:
        raise DatasetError(f"{archive.filename}: holds no {names[0]}, which the metadata names.") from error
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise AudioError(f"{archive.filename}: {names[0]} is damaged ({error}). Download the zip again.") from error
