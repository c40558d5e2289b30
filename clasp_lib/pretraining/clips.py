"""Training clips for the pocket encoders: sentences spoken by synthesizers, and human recordings, on disk as int16.

Clips live in shards of 1 000, each written whole or not at all, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import concurrent.futures
import csv
import gzip
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from clasp_lib.audio import SAMPLING_RATE, load_audio
from clasp_lib.corpus import Split, pocket_brown, split_by_text
from clasp_lib.errors import DatasetError
from clasp_lib.folders import replacing, write_whole
from clasp_lib.pretraining.synthesizers import Festival, Person, Pico, draw_people
from clasp_lib.synthesis import ESpeak, Mark, Utterance, Voice, draw_voices
from clasp_lib.tables import read_csv

SHARD = 1_000
HELD_OUT, HELD_OUT_SPEAKERS = 500, 60
HEARD_AGAIN = 8
"""How often recordings of people are among the training clips, to give them more weight."""

OTHER_ENGINES: dict[str, type[Pico] | type[Festival]] = {"pico": Pico, "festival": Festival}
"""Synthesizers besides eSpeak NG that training clips may come from."""


@dataclass(frozen=True)
class Clips:
    """Spoken sentences: `samples[i]` is a memory-mapped int16 array at 16 kHz, `texts[i]` what is said.

    `phones[i]` and `words[i]` say when (see `clasp_lib.synthesis.Mark`); they are empty where nobody knows.
    """

    samples: list[np.ndarray]
    texts: list[str]
    phones: list[list[Mark]]
    words: list[list[Mark]]

    def __len__(self) -> int:
        return len(self.texts)

    def __add__(self, other: Clips) -> Clips:
        return Clips(
            self.samples + other.samples,
            self.texts + other.texts,
            self.phones + other.phones,
            self.words + other.words,
        )

    def repeated(self, times: int) -> Clips:
        """The same clips several times over, to give a small set more weight."""
        return Clips(self.samples * times, self.texts * times, self.phones * times, self.words * times)

    def chosen(self, numbers: Iterable[int]) -> Clips:
        """The clips of these numbers."""
        some = list(numbers)
        return Clips(
            [self.samples[i] for i in some],
            [self.texts[i] for i in some],
            [self.phones[i] for i in some],
            [self.words[i] for i in some],
        )

    @property
    def hours(self) -> float:
        return sum(map(len, self.samples)) / SAMPLING_RATE / 3600


NOTHING = Clips([], [], [], [])


def gather(
    sentences: Path, n: int, recordings: Sequence[Path], folder: Path, workers: int, others: Sequence[str] = ()
) -> tuple[Clips, dict[str, Clips]]:
    """All that the encoders learn from, and what is held out to measure them on, by name.

    Training: `n` sentences in eSpeak NG's training voices and a fifth of them once more by each of the `others` (names
    in `OTHER_ENGINES`), Pocket Brown's training texts in three training voices each, and eight times over the
    recordings of all but the rarer speakers. Held out: 500 other sentences in validation voices, and the rarer
    speakers: 60 of those of a folder, or half of them if there are fewer than 120.
    """
    texts = read_sentences(sentences, n + HELD_OUT, seed=0)
    own = [sentence.text for sentence in split_by_text(pocket_brown())["train"]]
    train = speak(texts[:-HELD_OUT], "train", folder, 0, workers)
    for seed in (1, 2, 3):
        train = train + speak(own, "train", folder, seed, workers)
    for number, engine in enumerate(others):
        train = train + speak(texts[number:-HELD_OUT:5], "train", folder, 0, workers, engine)
    held_out = {"synthetic": speak(texts[-HELD_OUT:], "validation", folder, 0, workers)}
    for path in recordings:
        part, kept = read_training_recordings(path, HELD_OUT_SPEAKERS)
        train = train + part.repeated(HEARD_AGAIN)
        if len(kept):
            held_out[path.name] = kept
    return train, held_out


def read_sentences(path: Path, n: int, seed: int) -> list[str]:
    """Draw `n` distinct sentences of 3 to 18 words, without digits, from a gzipped table with a column `text`."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        texts = {
            row["text"]: None
            for row in rows
            if 3 <= len(row["text"].split()) <= 18
            and row["text"].isascii()
            and not re.search(r"\d|\b[A-Z]{2,}\b", row["text"])
        }
    order = np.random.default_rng(seed).permutation(len(texts))[:n]
    pool = list(texts)
    return [pool[i] for i in order]


def speak(texts: list[str], split: Split, folder: Path, seed: int, workers: int, engine: str = "espeak") -> Clips:
    """Speak each text in a voice of `split`; shards go to `folder` and are reused when they are there.

    An engine other than eSpeak NG has voices for training only.
    """
    voices: Sequence[Voice | Person] = draw_voices(split, len(texts), seed)
    if engine != "espeak":
        voices = draw_people(OTHER_ENGINES[engine].SPEAKERS, len(texts), seed)
    stem = f"{split}-{seed}" if engine == "espeak" else f"{split}-{engine}-{seed}"
    jobs = [
        (engine, folder / f"{stem}-{start // SHARD:04d}", texts[start : start + SHARD], voices[start : start + SHARD])
        for start in range(0, len(texts), SHARD)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ProcessPoolExecutor(workers) as pool:
        done = pool.map(_speak_shard, *zip(*jobs, strict=True))
        list(tqdm(done, total=len(jobs), desc=f"speaking ({engine}, {split})"))
    return sum((_open_shard(stem) for _, stem, *_ in jobs), NOTHING)


def open_clips(folder: Path, split: Split, n: int) -> Clips:
    """`n` clips of a split that `speak` left in `folder`, taken evenly from all its engines and voices.

    Raises:
        DatasetError: there are fewer.
    """
    clips = sum((_open_shard(index.with_suffix("")) for index in sorted(folder.glob(f"{split}-*.json"))), NOTHING)
    if len(clips) < n:
        raise DatasetError(f"{folder}: holds {len(clips)} clips of {split}, fewer than the {n} asked for.")
    return clips.chosen(np.linspace(0, len(clips) - 1, n).astype(int))


def read_training_recordings(folder: Path, speakers_held_out: int = 0) -> tuple[Clips, Clips]:
    """Human recordings of a folder with `metadata.csv` (file, text, speaker): training clips, and those of the
    `speakers_held_out` speakers with the fewest clips (at most half of the speakers).

    Raises:
        DatasetError: no such table, or one without these columns. AudioError: a recording that cannot be read.
    """
    names, lines = read_csv(folder / "metadata.csv")
    if missing := {"file", "text", "speaker"} - set(names):
        raise DatasetError(f"{folder / 'metadata.csv'}: lacks the column {' and '.join(sorted(missing))}.")
    rows = [row for _, row in lines]
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["speaker"]] = counts.get(row["speaker"], 0) + 1
    held_out = set(sorted(counts, key=lambda s: (counts[s], s))[: min(speakers_held_out, len(counts) // 2)])
    parts = []
    for wanted in (False, True):
        chosen = [row for row in rows if (row["speaker"] in held_out) == wanted]
        samples = [(load_audio(folder / row["file"]) * 32767).astype(np.int16) for row in chosen]
        untimed: list[list[Mark]] = [[] for _ in chosen]
        parts.append(Clips(samples, [row["text"] for row in chosen], untimed, untimed))
    return parts[0], parts[1]


def _speak_shard(engine: str, stem: Path, texts: list[str], voices: Sequence[Any]) -> None:
    if stem.with_suffix(".json").exists() and _is_of(stem, texts):
        return
    spoken: list[Utterance]
    if engine == "espeak":
        espeak = ESpeak(SAMPLING_RATE)
        spoken = [espeak.utter(text, voice) for text, voice in zip(texts, voices, strict=True)]
    else:
        spoken = OTHER_ENGINES[engine]().utter_all(texts, voices)
    clips = [(np.clip(utterance.samples, -1, 1) * 32767).astype(np.int16) for utterance in spoken]
    with replacing(stem.with_suffix(".npy")) as file:
        np.save(file, np.concatenate(clips))
    index = {"texts": texts, "lengths": [len(c) for c in clips]}
    index |= {"phones": [u.phones for u in spoken], "words": [u.words for u in spoken]}
    write_whole(stem.with_suffix(".json"), json.dumps(index).encode())  # last: where it is, the shard is whole


def _is_of(stem: Path, texts: list[str]) -> bool:
    """Whether a shard holds these very texts, and in today's format."""
    index = json.loads(stem.with_suffix(".json").read_text("utf-8"))
    return index["texts"] == texts and "phones" in index


def _open_shard(stem: Path) -> Clips:
    index = json.loads(stem.with_suffix(".json").read_text("utf-8"))
    samples = np.load(stem.with_suffix(".npy"), mmap_mode="r")
    ends = np.cumsum(index["lengths"])
    phones, words = ([[Mark(*mark) for mark in clip] for clip in index[kind]] for kind in ("phones", "words"))
    return Clips(
        [samples[e - n : e] for e, n in zip(ends, index["lengths"], strict=True)], index["texts"], phones, words
    )
