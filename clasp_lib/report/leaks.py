"""Has the model seen this test? The leak check of the report, on folders as people have them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clasp_lib.errors import ClaspError, DatasetError
from clasp_lib.protocols import refuse_leaks
from clasp_lib.speech_brown import load_dataset
from clasp_lib.tables import read_csv


def check_leaks(train: Sequence[str | Path], test: Path, allow: bool | Sequence[str]) -> dict[str, Any] | None:
    """What training and test share, or an error; None if there is nothing to look into."""
    if not train:
        if allow:
            raise ClaspError("allow_leaks: says what may be shared with the training data; name that with train.")
        return None
    learnt = [row for folder in train for row in _training_table(Path(folder))]
    tested: list[dict[str, Any]] = [
        {**row, "voice": row.get("speaker")} for row in read_table(test)
    ]  # `read_recordings` calls a speaker a voice
    # A column without any value is not checked, and the report must not say that it was.
    names = ["text", *(n for n in ("speaker", "voice") if all(any(row.get(n) for row in t) for t in (learnt, tested)))]
    known, asked = ([{name: row.get(name) for name in names} for row in rows] for rows in (learnt, tested))
    try:
        leaks = refuse_leaks(known, asked, allow=allow)
    except DatasetError as error:
        raise DatasetError(f"{test}: {error} On the command line: --allow-leaks, perhaps with names.") from error
    allowed = sorted(leak.column for leak in leaks.found)
    return {"train": [Path(folder).resolve().name for folder in train], **leaks.to_dict(), "allowed": allowed}


def _training_table(folder: Path) -> list[dict[str, Any]]:
    """Texts and speakers of a folder of recordings, or texts and voices of a saved dataset without its test."""
    if (folder / "metadata.csv").is_file():
        return [{"text": row["text"], "speaker": row.get("speaker")} for row in read_table(folder)]
    if not (folder / "dataset_dict.json").is_file():
        raise DatasetError(
            f"{folder}: holds neither metadata.csv nor dataset_dict.json. Name a folder of training data."
        )
    dataset = load_dataset(folder)
    learnt = [split for split in dataset if split != "test"]
    return [
        {"text": text, "voice": voice}
        for split in learnt
        for text, voice in zip(dataset[split]["text"], dataset[split]["voice"])
    ]


def read_table(folder: Path) -> list[dict[str, str]]:
    """The rows of `metadata.csv`, whose cells are not looked at: `read_recordings` does that."""
    file = folder / "metadata.csv"
    names, rows = read_csv(file)
    if not {"file", "text"} <= set(names):
        raise DatasetError(f"{file}: must have the columns file and text; it has {', '.join(names) or 'none'}.")
    return [row for _, row in rows]
