"""The card counts what it says; nothing that would mislead is uploaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from clasp_lib import dataset_card as module
from clasp_lib.corpus import SPLITS, normalise_text
from clasp_lib.dataset_card import dataset_card, push_to_hub, write_files
from clasp_lib.errors import DatasetError
from clasp_lib.speech_brown import columns

if TYPE_CHECKING:
    from datasets import DatasetDict

ABOUT = {"name": "Tom's Speech: Brown", "texts": "Sentences of a test.", "engine": "A hum.", "engine_licence": "MIT"}


def made(clips: dict[str, list[tuple[str, str, str]]]) -> DatasetDict:
    """A dataset of (text, voice, category) for each split; every clip lasts half an hour."""
    from datasets import Dataset, DatasetDict
    from datasets.table import InMemoryTable

    result = DatasetDict()
    for split, entries in clips.items():
        rows = []
        for i, (text, voice, category) in enumerate(entries):
            row: dict = {"id": f"{split}{i}", "sentence_id": normalise_text(text), "text": text, "category": category}
            audio = {"bytes": bytes([i, 1, 2]), "path": f"{i}.ogg"}
            rows.append(row | {"voice": voice, "duration": 1800.0, "audio": audio})
        result[split] = Dataset(InMemoryTable.from_pylist(rows, schema=columns().arrow_schema))
    return result


@pytest.fixture
def clips() -> dict[str, list[tuple[str, str, str]]]:
    return {
        "train": [("One.", "a", "news"), ("One.", "b", "news"), ("Two!", "a", "humor"), ("Three", "b", "news")],
        "validation": [("Four", "c", "news")],
        "test": [("Five", "d", "humor"), ("Six", "e", "travel")],
    }


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool, dict[str, bytes]]]:
    """What would have been sent: the name, whether it is private, and the files."""
    sent: list[tuple[str, bool, dict[str, bytes]]] = []

    def upload(repo_id: str, folder: str, private: bool) -> None:
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}
        sent.append((repo_id, private, files))

    monkeypatch.setattr(module, "_upload", upload)
    return sent


# The card ----------------------------------------------------------------------------------------------------------


def test_the_card_counts_what_it_says(clips: dict) -> None:
    card = dataset_card(made(clips), **ABOUT, licence="cc0-1.0")
    _, front, prose = card.split("---\n", 2)
    about = yaml.safe_load(front)
    assert about["pretty_name"] == ABOUT["name"] and about["license"] == "cc0-1.0"
    assert about["size_categories"] == ["n<1K"] and about["language"] == ["en"]
    assert [entry["split"] for entry in about["configs"][0]["data_files"]] == list(SPLITS)
    assert "7 clips, 3.5 hours, 6 sentences in 3 categories, 5 speakers" in prose
    for row in (
        *("| train | 4 | 2.0 | 3 | 2 |", "| validation | 1 | 0.5 | 1 | 1 |", "| test | 2 | 1.0 | 2 | 2 |"),
        *("| all | 7 | 3.5 | 6 | 5 |", "| humor | 1 | 0 | 1 |", "| news | 3 | 1 | 0 |", "| travel | 0 | 0 | 1 |"),
    ):
        assert row in prose.splitlines()
    assert prose.index("| humor") < prose.index("| news") < prose.index("| travel")  # Brown's first
    for said in (ABOUT["texts"], ABOUT["engine"], "MIT", "No text is in two splits", "No speaker is in two splits"):
        assert said in prose
    assert "## Limits" in prose


def test_the_card_owns_up_to_what_is_shared(clips: dict) -> None:
    clips["test"] += [("four!", "a", "news")]
    card = dataset_card(made(clips), **ABOUT)
    assert "1 texts are in two splits" in card and "Splits share speakers (a)" in card


@pytest.mark.parametrize("argument", list(ABOUT))
def test_the_card_needs_to_be_told_what_cannot_be_counted(clips: dict, argument: str) -> None:
    with pytest.raises(DatasetError, match=f"{argument}: must not be empty"):
        dataset_card(made(clips), **ABOUT | {argument: " "})


def test_a_dataset_without_clips_or_columns_has_no_card(clips: dict) -> None:
    with pytest.raises(DatasetError, match="no clips"):
        dataset_card(made({split: [] for split in SPLITS}), **ABOUT)
    with pytest.raises(DatasetError, match="'train'"):
        dataset_card(made(clips).remove_columns("voice"), **ABOUT)


# Uploading ---------------------------------------------------------------------------------------------------------


def test_what_is_uploaded_can_be_read_again(
    clips: dict, uploads: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(module, "CLIPS_IN_A_FILE", 3)
    dataset = made(clips)
    card = dataset_card(dataset, **ABOUT)
    push_to_hub(dataset, "me/speech-brown", card, private=False)
    ((name, private, files),) = uploads
    assert (name, private) == ("me/speech-brown", False)
    parquet = [f"data/train-0000{i}-of-00002.parquet" for i in range(2)]
    parquet += [f"data/{split}-00000-of-00001.parquet" for split in ("validation", "test")]
    assert set(files) == {"README.md", *parquet} and files["README.md"].decode() == card
    write_files(dataset, card, tmp_path / "repository")
    again = datasets.load_dataset(str(tmp_path / "repository"), cache_dir=str(tmp_path / "cache"))
    assert {split: part.to_dict() for split, part in again.items()} == {s: p.to_dict() for s, p in dataset.items()}
    assert again["train"].features == columns()


def test_a_dataset_is_private_unless_it_is_said_otherwise(clips: dict, uploads: list) -> None:
    push_to_hub(made(clips), "me/speech-brown", "card")
    assert uploads[0][1] is True


def test_a_dataset_without_its_splits_is_not_uploaded(clips: dict, uploads: list) -> None:
    without = {split: entries for split, entries in clips.items() if split != "test"}
    for bad in (without, clips | {"test": []}, clips | {"extra": clips["test"]}, {}):
        with pytest.raises(DatasetError, match="published with train, validation, test"):
            push_to_hub(made(bad), "me/speech-brown", "card")
    assert uploads == []


@pytest.mark.parametrize("shared", [("ONE", "f", "news"), ("Seven", "a", "news")], ids=["text", "voice"])
@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_dataset_that_shares_texts_or_speakers_is_not_uploaded(
    clips: dict, uploads: list, shared: tuple[str, str, str], split: str
) -> None:
    clips[split].append(shared)
    with pytest.raises(DatasetError, match=r"1 (texts|voices) are in two splits, e.g. '(one|a)'"):
        push_to_hub(made(clips), "me/speech-brown", "card")
    assert uploads == []
    if shared[0] == "Seven":
        push_to_hub(made(clips), "me/speech-brown", "card", shared_speakers=True)
        assert len(uploads) == 1


class Hub:
    """Takes the calls of `_upload` and says that every repository is public."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool, exist_ok: bool) -> None:
        self.calls.append("create")

    def repo_info(self, repo_id: str, *, repo_type: str) -> Hub:
        return self

    private = False

    def upload_folder(self, *, repo_id: str, folder_path: str, repo_type: str, delete_patterns: str) -> None:
        self.calls.append("upload")


def test_a_private_dataset_does_not_go_to_a_public_place(clips: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    with pytest.raises(DatasetError, match="public"):
        push_to_hub(made(clips), "me/speech-brown", "card", private=True)
    assert hub.calls == ["create"]
    push_to_hub(made(clips), "me/speech-brown", "card", private=False)
    assert hub.calls == ["create", "create", "upload"]
