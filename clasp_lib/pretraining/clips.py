"""Training clips for the pocket encoders: sentences spoken by eSpeak NG, and human recordings, on disk as int16.

Clips live in shards of 1 000, each written whole or not at all, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import concurrent.futures
import csv
import gzip
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from clasp_lib.audio import SAMPLING_RATE, load_audio
from clasp_lib.corpus import Split
from clasp_lib.errors import DatasetError
from clasp_lib.synthesis import ESpeak, Voice, draw_voices

SHARD = 1_000


@dataclass(frozen=True)
class Clips:
    """Spoken sentences: `samples[i]` is a memory-mapped int16 array at 16 kHz, `texts[i]` what is said."""

    samples: list[np.ndarray]
    texts: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def __add__(self, other: Clips) -> Clips:
        return Clips(self.samples + other.samples, self.texts + other.texts)

    def repeated(self, times: int) -> Clips:
        """The same clips several times over, to give a small set more weight."""
        return Clips(self.samples * times, self.texts * times)

    @property
    def hours(self) -> float:
        return sum(map(len, self.samples)) / SAMPLING_RATE / 3600


def spelled(text: str) -> str:
    """What CTC learns to write: lower-case letters and apostrophes, words separated by one space."""
    return " ".join(re.findall(r"[a-z]+(?:'[a-z]+)*", text.lower().replace("’", "'")))


def read_sentences(path: Path, n: int, seed: int, min_words: int = 3, max_words: int = 18) -> list[str]:
    """Draw `n` distinct sentences without digits from a gzipped table with a column `text`."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        texts = {
            row["text"]: None
            for row in rows
            if min_words <= len(row["text"].split()) <= max_words
            and row["text"].isascii()
            and not re.search(r"\d|\b[A-Z]{2,}\b", row["text"])
        }
    order = np.random.default_rng(seed).permutation(len(texts))[:n]
    pool = list(texts)
    return [pool[i] for i in order]


def speak(texts: list[str], split: Split, folder: Path, seed: int, workers: int) -> Clips:
    """Speak each text in a voice of `split`; shards go to `folder` and are reused when they are there."""
    voices = draw_voices(split, len(texts), seed)
    jobs = [
        (folder / f"{split}-{seed}-{start // SHARD:04d}", texts[start : start + SHARD], voices[start : start + SHARD])
        for start in range(0, len(texts), SHARD)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ProcessPoolExecutor(workers) as pool:
        list(tqdm(pool.map(_speak_shard, *zip(*jobs, strict=True)), total=len(jobs), desc=f"speaking ({split})"))
    parts = [_open_shard(stem) for stem, *_ in jobs]
    return Clips([s for part in parts for s in part.samples], [t for part in parts for t in part.texts])


def open_clips(folder: Path, split: Split, n: int) -> Clips:
    """The first `n` clips of a split that `speak` left in `folder`.

    Raises:
        DatasetError: there are fewer.
    """
    parts = [_open_shard(index.with_suffix("")) for index in sorted(folder.glob(f"{split}-*.json"))]
    samples, texts = [s for part in parts for s in part.samples], [t for part in parts for t in part.texts]
    if len(texts) < n:
        raise DatasetError(f"{folder}: holds {len(texts)} clips of {split}, fewer than the {n} asked for.")
    return Clips(samples[:n], texts[:n])


def read_training_recordings(folder: Path, speakers_held_out: int = 0) -> tuple[Clips, Clips]:
    """Human recordings of a folder with `metadata.csv` (file, text, speaker): training clips, and those of the
    `speakers_held_out` speakers with the fewest clips (at most half of the speakers)."""
    with open(folder / "metadata.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["speaker"]] = counts.get(row["speaker"], 0) + 1
    held_out = set(sorted(counts, key=lambda s: (counts[s], s))[: min(speakers_held_out, len(counts) // 2)])
    parts = []
    for wanted in (False, True):
        chosen = [row for row in rows if (row["speaker"] in held_out) == wanted]
        samples = [(load_audio(folder / row["file"]) * 32767).astype(np.int16) for row in chosen]
        parts.append(Clips(samples, [row["text"] for row in chosen]))
    return parts[0], parts[1]


def _speak_shard(stem: Path, texts: list[str], voices: list[Voice]) -> None:
    if stem.with_suffix(".json").exists():
        return
    engine = ESpeak(SAMPLING_RATE)
    clips = [
        (np.clip(engine.synthesize(text, voice), -1, 1) * 32767).astype(np.int16)
        for text, voice in zip(texts, voices, strict=True)
    ]
    with open(f"{stem}.npy.tmp", "wb") as file:
        np.save(file, np.concatenate(clips))
    os.replace(f"{stem}.npy.tmp", stem.with_suffix(".npy"))
    Path(f"{stem}.json.tmp").write_text(json.dumps({"texts": texts, "lengths": [len(c) for c in clips]}))
    os.replace(f"{stem}.json.tmp", stem.with_suffix(".json"))  # last: its presence says that the shard is whole


def _open_shard(stem: Path) -> Clips:
    index = json.loads(stem.with_suffix(".json").read_text())
    samples = np.load(stem.with_suffix(".npy"), mmap_mode="r")
    ends = np.cumsum(index["lengths"])
    return Clips([samples[e - n : e] for e, n in zip(ends, index["lengths"], strict=True)], index["texts"])
