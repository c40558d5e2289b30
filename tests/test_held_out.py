"""Nothing that the encoders learn from may be in what they are measured on: no text, no voice, no speaker, no clip."""

from __future__ import annotations

import concurrent.futures
import csv
import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from clasp_lib.corpus import brown, normalise_text, pocket_brown, split_by_text
from clasp_lib.errors import ClaspError
from clasp_lib.pretraining import clips as recipe_clips
from clasp_lib.pretraining import measure
from clasp_lib.pretraining.clips import (
    HEARD_AGAIN,
    HELD_OUT,
    Clips,
    gather,
    read_sentences,
    read_training_recordings,
    speak,
)
from clasp_lib.synthesis import VARIANTS, Utterance, Voice, draw_voices

TRAINING_RECORDINGS = ("kathleen_en", "common_voice_en")
EVERYONE = [*VARIANTS["train"], *VARIANTS["validation"], *VARIANTS["test"]]


def normalised(texts: Sequence[str]) -> set[str]:
    found = {normalise_text(text) for text in texts}
    assert found and "" not in found
    return found


def column(file: Path, name: str) -> list[str]:
    with open(file, encoding="utf-8", newline="") as table:
        return [row[name] for row in csv.DictReader(table)]


POCKET = {split: normalised([s.text for s in part]) for split, part in split_by_text(pocket_brown()).items()}


# What the recipe gathers -------------------------------------------------------------------------------------------


class Badge:
    """An engine whose clips hold the number of the voice instead of its sound."""

    def __init__(self, sampling_rate: int) -> None:
        self.sampling_rate = sampling_rate

    def utter(self, text: str, voice: Voice) -> Utterance:
        return Utterance(np.full(4, EVERYONE.index(voice.variant) / 1000, np.float32), [], [])


def voices_of(clips: Clips) -> set[str]:
    return {EVERYONE[round(samples[0] / 32.767)] for samples in clips.samples if len(samples) == 4}


@pytest.fixture(scope="module")
def gathered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Clips, dict[str, Clips]]:
    """`gather`, whole, over a small table of sentences and two folders of recordings: one speaker, and four."""
    folder = tmp_path_factory.mktemp("gathered")
    words = ("rain", "snow", "hail", "fog", "wind", "sun", "frost", "thunder")
    with gzip.open(folder / "sentences.tsv.gz", "wt", encoding="utf-8") as file:
        file.write("source\ttext\n")
        file.writelines(f"a\tFirst came {one}, then {two}.\n" for one in words for two in words)
    for name, speakers in (("alone", ["ann"] * 3), ("many", ["ann", "bob", "bob", "cid", "cid", "cid", "dee", "dee"])):
        (folder / name).mkdir()
        with open(folder / name / "metadata.csv", "w", encoding="utf-8") as file:
            file.write("file,text,speaker\n")
            file.writelines(f"{i}.wav,{name} {speaker} says {i},{speaker}\n" for i, speaker in enumerate(speakers))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe_clips, "ESpeak", Badge)
        patch.setattr(recipe_clips, "HELD_OUT", 20)
        patch.setattr(recipe_clips, "load_audio", lambda file: np.ones(5, np.float32))
        patch.setattr(concurrent.futures, "ProcessPoolExecutor", concurrent.futures.ThreadPoolExecutor)
        recordings = [folder / "alone", folder / "many"]
        return gather(folder / "sentences.tsv.gz", 40, recordings, folder / "clips", 1)


def test_training_clips_are_spoken_in_training_voices_only(gathered: tuple[Clips, dict[str, Clips]]) -> None:
    train, held_out = gathered
    assert voices_of(train) == set(VARIANTS["train"])
    assert set() < voices_of(held_out["synthetic"]) <= set(VARIANTS["validation"])
    assert not set(VARIANTS["train"]) & {voice.variant for voice in draw_voices("test", 500)}


def test_of_pocket_brown_only_the_training_texts_are_learnt(gathered: tuple[Clips, dict[str, Clips]]) -> None:
    train, held_out = gathered
    learnt = normalised(train.texts)
    assert learnt >= POCKET["train"] and len(POCKET["train"]) > 2_000
    assert not learnt & (POCKET["validation"] | POCKET["test"])
    assert min(map(len, POCKET.values())) > 300
    assert not normalised(held_out["synthetic"].texts) & POCKET["train"]


def test_no_text_and_no_speaker_is_learnt_and_held_out(gathered: tuple[Clips, dict[str, Clips]]) -> None:
    train, held_out = gathered
    assert {name: len(clips) for name, clips in held_out.items()} == {"synthetic": 20, "many": 3}
    for name, clips in held_out.items():
        assert not normalised(train.texts) & normalised(clips.texts), name
    assert {text.split()[1] for text in held_out["many"].texts} == {"ann", "bob"}  # the rarer half
    learnt = [text for text in train.texts if text.startswith(("alone", "many"))]
    assert {text.split()[1] for text in learnt if text.startswith("many")} == {"cid", "dee"}
    assert len(learnt) == HEARD_AGAIN * (3 + 5) and len(train) - len(learnt) >= 40 + 3 * len(POCKET["train"])


def test_clips_on_disk_are_not_taken_for_other_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second run with more clips learns what the first one held out, so its held-out clips must be others."""
    monkeypatch.setattr(recipe_clips, "ESpeak", Badge)
    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", concurrent.futures.ThreadPoolExecutor)
    texts = [f"Sentence about {word}." for word in ("rain", "snow", "hail", "fog", "wind")]
    assert speak(texts[3:], "validation", tmp_path, 0, 1).texts == texts[3:]
    try:
        found = speak(texts[:2], "validation", tmp_path, 0, 1).texts
    except ClaspError:  # a refusal is as good as speaking anew
        return
    assert found == texts[:2]


# The developers' data ----------------------------------------------------------------------------------------------


def there(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"CLASP_TEST_DATA names a folder without this part of the developers' data: {path}")
    return path


@pytest.fixture(scope="module")
def sentences(test_data: Path) -> Path:
    return there(test_data / "public_domain" / "sentences.tsv.gz")


@pytest.fixture(scope="module")
def public_domain(sentences: Path) -> set[str]:
    """All of them, whatever the recipe draws."""
    with gzip.open(sentences, "rt", encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    assert len(texts) > 50_000
    return normalised(texts)


@pytest.fixture(scope="module")
def whole_brown(test_data: Path) -> set[str]:
    texts = {normalise_text(sentence.text) for sentence in brown(there(test_data / "brown" / "brown.zip"))} - {""}
    assert len(texts) > 50_000
    return texts


@pytest.fixture(scope="module")
def recordings(test_data: Path) -> Path:
    return there(test_data / "real_speech")


@pytest.fixture(scope="module")
def tested(recordings: Path) -> dict[str, set[str]]:
    """The texts of the recordings that are for testing only."""
    tables = {f.parent.name: f for f in there(recordings / "common_voice_100").glob("*/metadata.csv")}
    assert {"en", "fa", "zh-CN"} <= set(tables)
    return {
        **{language: normalised(column(table, "text")) for language, table in tables.items()},
        "long": normalised(column(there(recordings / "long_recordings") / "segments.csv", "text")),
    }


@pytest.fixture(scope="module")
def learnt_recordings(recordings: Path) -> dict[str, set[str]]:
    return {name: normalised(column(there(recordings / name) / "metadata.csv", "text")) for name in TRAINING_RECORDINGS}


def test_no_training_text_is_in_the_brown_corpus(
    public_domain: set[str], whole_brown: set[str], learnt_recordings: dict[str, set[str]]
) -> None:
    assert not public_domain & whole_brown and not POCKET["train"] & whole_brown
    for name, texts in learnt_recordings.items():
        assert not texts & whole_brown, name


def test_no_training_text_is_among_the_sentences_that_the_record_is_about(
    public_domain: set[str], test_data: Path
) -> None:
    """They are drawn from the same corpus, but written a little differently."""
    drawn = normalised(measure.brown_sentences(there(test_data / "brown" / "brown.zip"), 1_500))
    assert len(drawn) == 1_500 and not drawn & (public_domain | POCKET["train"])


def test_the_public_domain_sentences_are_not_in_what_is_held_out(
    public_domain: set[str], tested: dict[str, set[str]], learnt_recordings: dict[str, set[str]]
) -> None:
    for name, texts in tested.items():
        assert not public_domain & texts, name
    for split in ("validation", "test"):
        assert not public_domain & POCKET[split], split
    assert not public_domain & learnt_recordings["common_voice_en"]  # half of its speakers are held out


def test_whatever_is_drawn_to_learn_is_not_drawn_to_measure(sentences: Path) -> None:
    """The draw is by text as written; the same words with other punctuation would be the same sentence."""
    drawn = read_sentences(sentences, 1_000_000, seed=0)
    assert len(drawn) > 50_000 + HELD_OUT
    assert len(normalised(drawn)) == len(drawn) and not normalised(drawn) & POCKET["train"]


def test_the_training_recordings_are_not_in_what_is_held_out(
    learnt_recordings: dict[str, set[str]], tested: dict[str, set[str]], recordings: Path
) -> None:
    speakers, files = (
        set(column(recordings / "common_voice_100" / "en" / "metadata.csv", name))
        for name in ("speaker", "original_sha256")
    )
    for name, texts in learnt_recordings.items():
        table = recordings / name / "metadata.csv"
        for other, held_out in tested.items():
            assert not texts & held_out, (name, other)
        assert not texts & (POCKET["validation"] | POCKET["test"]), name
        assert len(set(column(table, "speaker")) - {""}) >= 1 and not set(column(table, "speaker")) & speakers, name
        assert "" not in files and not set(column(table, "original_sha256")) & files, name


@pytest.mark.parametrize("name", TRAINING_RECORDINGS)
def test_no_speaker_is_both_learnt_and_held_out(
    name: str, recordings: Path, learnt_recordings: dict[str, set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real tables; the audio is not read."""
    folder = there(recordings / name)
    speaker_of = dict(zip(column(folder / "metadata.csv", "file"), column(folder / "metadata.csv", "speaker")))
    names = sorted(set(speaker_of.values()))

    def load_audio(file: Path) -> np.ndarray:
        return np.array([names.index(speaker_of[file.relative_to(folder).as_posix()]) / 32767 + 1e-7])

    monkeypatch.setattr(recipe_clips, "load_audio", load_audio)
    train, held_out = read_training_recordings(folder, speakers_held_out=60)
    speakers = [{int(samples[0]) for samples in part.samples} for part in (train, held_out)]
    assert not speakers[0] & speakers[1] and speakers[0] | speakers[1] == set(range(len(names)))
    assert len(speakers[1]) == min(60, len(names) // 2)
    assert len(train) + len(held_out) == len(speaker_of)
    assert not normalised(train.texts) & {normalise_text(text) for text in held_out.texts}
    others = set.union(*(texts for other, texts in learnt_recordings.items() if other != name))
    assert not others & {normalise_text(text) for text in held_out.texts}
