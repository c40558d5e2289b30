"""What the explorer's page is made of: the test clips, what the shipped models make of them, and the queries.

`explorer_data.py` writes it down.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

QUERIES = Path(__file__).with_name("explorer_queries.tsv")
"""Queries that were written for the page: about which clip (empty: about none), and the query."""

RATE = 16_000
SAMPLES_OF_A_CATEGORY = 5  # of which the exact and the shortened text are queries
GERMAN = 12
WINDOW_S, HOP_S = 1.0, 0.5
WINDOWED_OF_A_CATEGORY = 4  # clips of which the gate is read window by window; it takes most of the time


class Query(NamedTuple):
    """What is asked. `about` is the row of the clip that is meant, or -1."""

    text: str
    kind: str
    about: int


@dataclass(frozen=True)
class Gates:
    """The picture's part of the weight of a gated fusion, 0 to 1.

    Attributes:
        share: (clips,) of all weight. dimensions: (clips, d) the same for each dimension by itself.
        windows: by the row of a clip, the share in each window, cut from the clip and read as if it were a clip.
    """

    share: np.ndarray
    dimensions: np.ndarray
    windows: Mapping[int, np.ndarray]


@dataclass(frozen=True)
class Material:
    """All that the page is made of, computed but not yet written. Every list has an entry for each clip.

    Attributes:
        waves: samples at 16 kHz. texts, categories, voices: what the dataset says.
        before, after, search: (clips, d) unit vectors: the speech encoder's mean, the gated fusion, the best model.
        queries: what may be asked, and query_vectors (queries, d) in the space of `search`.
    """

    waves: Sequence[np.ndarray]
    texts: Sequence[str]
    categories: Sequence[str]
    voices: Sequence[str]
    before: np.ndarray
    after: np.ndarray
    search: np.ndarray
    queries: Sequence[Query]
    query_vectors: np.ndarray
    gates: Gates
    models: Mapping[str, str]


def gather() -> Material:
    """Run the shipped models over the test clips; what the cache holds is not computed again."""
    import torch

    from clasp_lib import CLASP, get_profile
    from clasp_lib.audio import load_audio
    from clasp_lib.features import extract_features
    from clasp_lib.training import fuse

    profile = get_profile("pocket")
    clips = profile.dataset()["test"]
    waves = [load_audio(audio, RATE) for audio in clips["audio"]]
    names = {"gate": profile.models["gating"]["name"], "search": profile.models["search"]["name"]}
    gated, best = (CLASP.from_pretrained(name, device="cpu") for name in names.values())
    heard, found = (
        extract_features(
            clips, model.speech_encoder, model.spectrogram_encoder, model.text_encoder, profile.cache / "features"
        )
        for model in (gated, best)
    )
    reading = gated.fusion.read(torch.from_numpy(heard.speech), torch.from_numpy(heard.picture))  # type: ignore[operator]

    def windows(wave: np.ndarray) -> np.ndarray:
        pieces = cut(wave)
        speech, picture = gated.speech_encoder.encode(pieces), gated.spectrogram_encoder.encode(pieces)
        return 1 - gated.fusion.read(torch.from_numpy(speech), torch.from_numpy(picture)).share.numpy()  # type: ignore[operator]

    some = first_of_each(heard.categories, WINDOWED_OF_A_CATEGORY)
    queries = collect_queries(heard.sentence_ids, heard.texts, heard.categories)
    return Material(
        waves=waves,
        texts=heard.texts,
        categories=heard.categories,
        voices=heard.voices,
        before=unit(heard.speech),
        after=fuse(gated.fusion, heard),
        search=fuse(best.fusion, found),
        queries=queries,
        query_vectors=best.encode_text([query.text for query in queries], show_progress_bar=False),
        gates=Gates(
            1 - reading.share.numpy(), 1 - reading.dimensions.numpy(), {row: windows(waves[row]) for row in some}
        ),
        models=names | {"encoder": gated.speech_encoder.name},
    )


def collect_queries(ids: Sequence[str], texts: Sequence[str], categories: Sequence[str]) -> list[Query]:
    """Exact texts, shortened ones, German ones, and those that were written for the page, no text twice."""
    from clasp_lib.corpus import pocket_translations
    from clasp_lib.hard_negatives import delete_words

    row_of = {name: row for row, name in enumerate(ids)}
    rng = np.random.default_rng(0)
    rows = first_of_each(categories, 2 * SAMPLES_OF_A_CATEGORY)
    queries = [Query(texts[row], "exact text", row) for row in rows[::2]]
    queries += [Query(delete_words(texts[row], rng, 0.5), "half of the words", row) for row in rows[1::2]]
    german = [(name, text) for name, text in pocket_translations()["de"].items() if name in row_of]
    queries += [Query(text, "in German", row_of[name]) for name, text in german[:GERMAN]]
    with open(QUERIES, encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file, delimiter="\t"):
            if not line["about"]:
                short = len(line["query"].split()) <= 2
                queries.append(Query(line["query"], "a word or two" if short else "any sentence", -1))
            elif line["about"] in row_of:
                queries.append(Query(line["query"], "in other words", row_of[line["about"]]))
    return list({query.text: query for query in queries}.values())


def first_of_each(categories: Sequence[str], count: int) -> list[int]:
    """The rows of the first `count` clips of each category, in the order of rows."""
    seen: dict[str, int] = {}
    rows = []
    for row, name in enumerate(categories):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] <= count:
            rows.append(row)
    return rows


def cut(wave: np.ndarray) -> list[np.ndarray]:
    """Windows of a clip, all of one length: what a gate makes of them then differs by what is heard, not by length."""
    length, hop = round(WINDOW_S * RATE), round(HOP_S * RATE)
    return [wave[start : start + length] for start in range(0, max(len(wave) - length, 0) + 1, hop)]


def unit(vectors: np.ndarray) -> np.ndarray:
    """(n, d), each row brought to length one."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
