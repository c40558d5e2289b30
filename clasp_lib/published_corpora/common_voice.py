"""Common Voice, from the folder of a downloaded release: tables and MP3 files."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from clasp_lib.corpus import clean_as_reference, normalise_text
from clasp_lib.errors import AudioError, DatasetError, OnError
from clasp_lib.published_corpora.clips import Clip, collect
from clasp_lib.speech_brown import Build

TABLES = {"train": "train", "dev": "validation", "test": "test", "validated": "validated"}
"""The tables of a release that hold checked clips, and what their splits are called here."""


def read_common_voice(
    folder: str | Path,
    *,
    tables: Sequence[str] = ("train", "dev", "test"),
    limit: Mapping[str, int] | None = None,
    seed: int | None = 0,
    clean: bool = False,
    on_error: OnError = "raise",
) -> Build:
    """Common Voice (Ardila et al. 2020, arXiv 1912.06670) from the folder of one language of a downloaded release.

    The corpus has left the hub: download it from Mozilla and unpack it. A speaker is in one of train, dev and test
    only; whether a sentence is, `leaking_texts` counts. The clips stay MP3 and lie in memory.

    `voice` is a number that means nothing outside of the dataset: no speaker id of Common Voice leaves its tables.
    Speakers are numbered within one call, so load in one call what is to be compared.

    Args:
        folder: such as `cv-corpus-17.0-2024-03-15/en`, with `train.tsv` ... and `clips/`.
        tables: "train", "dev", "test" (their splits are called train, validation, test), or "validated", which holds
            those three and more.
        limit: how many clips to take of a table at most; clips that are skipped do not count. The reference has
            `{"train": 50_000}`.
        seed: of the draw among the clips if there is a limit. None takes the first of the table, as the reference
            does; the tables are sorted by speaker. (The reference also passed over 51 clips after each 5 000, and over
            those that failed, so its very choice cannot be had.)
        clean: apply `clean_as_reference` to the texts.
        on_error: see `read_speech_brown`. The reference had 178 211 of the 232 975 clips of its train table at hand.

    Raises:
        DatasetError: the folder of clips or a table is missing or makes no sense, or `tables` or `limit` does not.
        AudioError, TextError: a clip that is missing or cannot be used, with `on_error="raise"`.
    """
    from datasets import DatasetDict

    folder, limit = Path(folder), limit or {}
    if unknown := set(tables) - set(TABLES):
        raise DatasetError(f"tables {sorted(unknown)}: choose from {', '.join(TABLES)}.")
    if set(limit) - set(tables) or min(limit.values(), default=1) < 1:
        raise DatasetError(f"limit {dict(limit)}: give a number of at least 1 for some of {', '.join(tables)}.")
    if not (folder / "clips").is_dir():
        raise DatasetError(f"{folder}: has no folder 'clips'. Give the folder of one language, such as '.../en'.")
    speakers: dict[str, int] = {}
    dataset, skipped = DatasetDict(), []
    for table in tables:
        clips, most = _clips(folder, table, speakers, clean), limit.get(table)
        if most is not None and seed is not None:
            clips = [clips[row] for row in np.random.default_rng(seed).permutation(len(clips))]
        dataset[TABLES[table]], left_out = collect(clips, table, total=len(clips), most=most, on_error=on_error)
        skipped += left_out
    return Build(dataset, skipped)


def _clips(folder: Path, table: str, speakers: dict[str, int], clean: bool) -> list[Clip]:
    file, clips = folder / f"{table}.tsv", []
    try:
        with open(file, encoding="utf-8", newline="") as lines:
            # Quotes are part of the text: a single one must not swallow the lines that follow it.
            reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            if missing := {"client_id", "path", "sentence"} - set(reader.fieldnames or ()):
                raise DatasetError(f"{file}: lacks the columns {', '.join(sorted(missing))}.")
            for number, row in enumerate(reader, 2):
                name = row["path"] or ""
                if not row["client_id"] or not name or Path(name).name != name or "\0" in name:
                    raise DatasetError(f"{file}, line {number}: 'client_id' and 'path' (a file name) must be filled.")
                name = name if name.endswith(".mp3") else f"{name}.mp3"  # early releases leave it out
                speaker = speakers.setdefault(row["client_id"], len(speakers))
                text = _unquoted(row["sentence"] or "")
                text = clean_as_reference(text) if clean else text
                read = partial(_read, folder / "clips" / name)
                clips.append(Clip(name, normalise_text(text) or text, text, "", f"speaker-{speaker}", name, read))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{file}: cannot be read as a table of Common Voice ({error}).") from error
    return clips


def _unquoted(field: str) -> str:
    """Undo the quoting of some releases: the whole field in quotes and those inside doubled, or backslashes."""
    if whole := re.fullmatch(r'"((?:[^"]|"")*)"', field):
        field = whole[1].replace('""', '"')
    return field.replace('\\"', '"').strip()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror}), although the table names it.") from error
