"""What a dataset says of itself on the hub, with every number counted from it, and the way there."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from clasp_lib.corpus import CATEGORIES, SPLITS, normalise_text
from clasp_lib.errors import DatasetError
from clasp_lib.speech_brown import columns

if TYPE_CHECKING:
    from datasets import DatasetDict

CLIPS_IN_A_FILE = 5_000
"""Of a parquet file on the hub: with 40 kB a clip that is 200 MB."""

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def dataset_card(
    dataset: DatasetDict, *, name: str, texts: str, engine: str, engine_licence: str, licence: str = "other"
) -> str:
    """The README.md of a spoken dataset: its front matter for the hub, then prose and tables.

    Args:
        name: the title.
        texts: where the sentences come from, and their terms.
        engine: what spoke them.
        engine_licence: of the engine's weights.
        licence: of the dataset as a whole, by the hub's identifiers ("mit", "cc0-1.0", "other", ...).

    Raises:
        DatasetError: an argument is empty, or the dataset has no clips or other columns.
    """
    given = {"name": name, "texts": texts, "engine": engine, "engine_licence": engine_licence, "licence": licence}
    if empty := [argument for argument, value in given.items() if not value.strip()]:
        raise DatasetError(f"{' and '.join(empty)}: must not be empty; a reader of the card needs to know.")
    for split, part in dataset.items():
        if set(part.column_names) != set(columns()):
            raise DatasetError(f"split {split!r}: has the columns {', '.join(part.column_names)}; see speech_brown.")
    clips = sum(len(part) for part in dataset.values())
    if not clips:
        raise DatasetError("dataset: has no clips, so there is nothing to say of it.")
    read = {split: {c: list(part[c]) for c in part.column_names if c != "audio"} for split, part in dataset.items()}
    everything = {c: list(itertools.chain(*(part[c] for part in read.values()))) for c in next(iter(read.values()))}
    counted = [(split, _counts(part)) for split, part in read.items()] + [("all", _counts(everything))]
    table = ["| split | clips | hours | sentences | speakers |", "|---|---|---|---|---|"]
    table += [f"| {split} | {' | '.join(counts)} |" for split, counts in counted]
    by_category = {split: Counter(part["category"]) for split, part in read.items()}
    present = sorted(set(everything["category"]), key=lambda c: (c not in CATEGORIES, c))
    categories = [f"| category | {' | '.join(read)} |", f"|---|{'---|' * len(read)}"]
    categories += [f"| {c or '(none)'} | {' | '.join(f'{n[c]:,}' for n in by_category.values())} |" for c in present]
    for part in read.values():
        part["normalised"] = [normalise_text(text) for text in part["text"]]
    repeated, shared = _shared(read, "normalised"), _shared(read, "voice")
    speakers = (
        f"Splits share speakers ({', '.join(sorted(shared))}), so a test on it says nothing of unknown voices."
        if shared
        else "No speaker is in two splits."
    )
    size = next((label for limit, label in _SIZES if clips < limit), "n>1M")
    files = "".join(f"  - split: {split}\n    path: data/{split}-*\n" for split in read)
    return (
        f"---\npretty_name: {json.dumps(name)}\nlanguage:\n- en\nlicense: {licence}\nsize_categories:\n- {size}\n"
        f"task_categories:\n- automatic-speech-recognition\ntags:\n- audio\n- speech-retrieval\n- synthetic\n"
        f"configs:\n- config_name: default\n  data_files:\n{files}---\n\n"
        f"# {name}\n\n"
        f"Sentences and how they sound: {clips:,} clips, {sum(everything['duration']) / 3600:,.1f} hours, "
        f"{len(set(everything['sentence_id'])):,} sentences in {len(present)} categories, "
        f"{len(set(everything['voice'])):,} speakers.\n\n" + "\n".join(table) + "\n\n"
        f"- **Sentences:** {texts}\n- **Speech:** {engine}\n- **Licence of the engine's weights:** {engine_licence}\n\n"
        f"{f'{len(repeated):,} texts are' if repeated else 'No text is'} in two splits (letters and digits compared, "
        f"not case or punctuation). {speakers}\n\n"
        "## Categories\n\n" + "\n".join(categories) + "\n\n"
        "## Columns\n\n"
        "`id` (unique), `sentence_id` (shared by all recordings of one sentence), `text`, `category`, `voice`, "
        "`duration` in seconds, and `audio`: the bytes of a file and its name.\n\n"
        "## Limits\n\n"
        "The speech is synthetic: clean, read, in few ways of speaking, without hesitation, noise or room. The engine "
        "mispronounces names and abbreviations, and nobody has listened to every clip. Results on it are no evidence "
        "for recordings of people.\n"
    )


def push_to_hub(
    dataset: DatasetDict, repo_id: str, card: str, *, private: bool = True, shared_speakers: bool = False
) -> None:
    """Upload a dataset with its card, as parquet files in one commit; who is logged in is the hub's own matter.

    Args:
        card: what `dataset_card` wrote, read and found good.
        private: whether only you and your organisation see it.
        shared_speakers: allow a dataset whose splits share speakers.

    Raises:
        DatasetError: there is no train, validation or test; one of them is empty; a text or a speaker is in two.
    """
    if set(dataset) != set(SPLITS) or not all(len(part) for part in dataset.values()):
        sizes = ", ".join(f"{split} ({len(part)} clips)" for split, part in dataset.items())
        raise DatasetError(f"dataset: has {sizes or 'no splits'}; a dataset is published with {', '.join(SPLITS)}.")
    read = {
        split: {"voice": list(part["voice"]), "text": [normalise_text(text) for text in part["text"]]}
        for split, part in dataset.items()
    }
    for column in ("text",) if shared_speakers else ("text", "voice"):
        if shared := sorted(_shared(read, column)):
            raise DatasetError(
                f"dataset: {len(shared)} {column}s are in two splits, e.g. {shared[0]!r}; "
                "what is learnt from it would be tested on what is known. Build it with build_speech_brown."
            )
    with tempfile.TemporaryDirectory() as folder:
        write_files(dataset, card, folder)
        _upload(repo_id, folder, private)


def write_files(dataset: DatasetDict, card: str, folder: str | Path) -> None:
    """Lay out what the hub shows: README.md, and `data/<split>-<number>-of-<count>.parquet`."""
    folder = Path(folder)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for split, part in dataset.items():
        count = max(1, -(-len(part) // CLIPS_IN_A_FILE))
        for i in range(count):
            clips = part.select(range(i * CLIPS_IN_A_FILE, min(len(part), (i + 1) * CLIPS_IN_A_FILE)))
            clips.to_parquet(str(folder / "data" / f"{split}-{i:05d}-of-{count:05d}.parquet"))
    (folder / "README.md").write_text(card, "utf-8")


def _upload(repo_id: str, folder: str, private: bool) -> None:
    """The one step that needs a network."""
    import huggingface_hub

    hub = huggingface_hub.HfApi()
    hub.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    if private and not hub.repo_info(repo_id, repo_type="dataset").private:
        raise DatasetError(f"{repo_id}: is there already and public. Choose another name, or pass private=False.")
    # Files of an earlier upload with other numbers would be read as well.
    hub.upload_folder(repo_id=repo_id, folder_path=folder, repo_type="dataset", delete_patterns="data/*.parquet")


def _counts(part: dict[str, list]) -> list[str]:
    """Clips, hours, sentences, speakers."""
    hours = f"{sum(part['duration']) / 3600:,.1f}"
    return [f"{len(part['id']):,}", hours, *(f"{len(set(part[column])):,}" for column in ("sentence_id", "voice"))]


def _shared(read: dict[str, dict[str, list]], column: str) -> set[str]:
    """Values of a column that occur in more than one split."""
    return {v for a, b in itertools.combinations(read.values(), 2) for v in set(a[column]) & set(b[column])}
