"""Sentences to speak: Pocket Brown, which ships with the library, and the Brown corpus itself; and splits by text."""

from __future__ import annotations

import hashlib
import re
import unicodedata
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple

from clasp_lib.errors import DatasetError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

CATEGORIES = (
    *("adventure", "belles_lettres", "editorial", "fiction", "government", "hobbies", "humor", "learned"),
    *("lore", "mystery", "news", "religion", "reviews", "romance", "science_fiction"),
)
"""The 15 categories of the Brown corpus (Francis and Kucera 1979), by NLTK's names."""

MAX_BROWN_TOKENS = 47
"""Longest sentence that Speech Brown keeps: 55 173 of 57 340 remain."""


class Sentence(NamedTuple):
    """One sentence: `id` is unique in its corpus, `category` one of `CATEGORIES`."""

    id: str
    text: str
    category: str


def pocket_brown() -> list[Sentence]:
    """The original sentences of this project (CC0) in Brown's 15 categories, in a fixed order."""
    folder = resources.files("clasp_lib") / "pocket" / "brown"
    return [
        Sentence(f"{category}-{number:04d}", text, category)
        for category in CATEGORIES
        for number, text in enumerate((folder / f"{category}.txt").read_text("utf-8").splitlines(), 1)
    ]


def brown(path: str | Path) -> list[Sentence]:
    """The sentences of Speech Brown, out of NLTK's `brown.zip`: at most 47 tokens, cleaned by `join_brown_tokens`.

    Raises:
        DatasetError: the file is missing, not a zip, or not NLTK's Brown corpus.
    """
    sentences = []
    try:
        with zipfile.ZipFile(path) as archive:
            categories = dict(line.split()[:2] for line in archive.read("brown/cats.txt").decode("ascii").splitlines())
            for name, category in categories.items():
                lines = archive.read(f"brown/{name}").decode("ascii").splitlines()
                for number, line in enumerate((line for line in lines if line.strip()), 1):
                    tokens = [token.rpartition("/")[0] for token in line.split()]
                    if len(tokens) <= MAX_BROWN_TOKENS:
                        sentences.append(Sentence(f"{name}-{number:04d}", join_brown_tokens(tokens), category))
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DatasetError(
            f"{path}: is not NLTK's brown.zip ({error}). "
            "Get it with nltk.download('brown') and give the path of the zip."
        ) from error
    return sentences


def join_brown_tokens(tokens: Sequence[str]) -> str:
    """Tokens to text as Speech Brown does it: joined by spaces, no space before . ? ! and ". Brown's quoting stays."""
    return re.sub(r' ([.?!"])', r"\1", " ".join(tokens))


def normalise_text(text: str) -> str:
    """What decides whether two texts are the same: lower-case letters and digits, words separated by one space."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("'", "").replace("’", "")
    return " ".join(re.findall(r"[^\W_]+", folded))


def split_by_text(
    sentences: Sequence[Sentence], fractions: Mapping[Split, float] | None = None, seed: int = 0
) -> dict[Split, list[Sentence]]:
    """Deal sentences to train, validation and test so that no text is in two of them.

    Sentences with the same normalised text stay together. Each category is dealt by itself, in the order of a hash of
    seed and text: the result does not depend on the order of the sentences, nor on anything random.

    Args:
        fractions: share of each split; default 0.75, 0.10, 0.15.

    Raises:
        DatasetError: the fractions are negative, do not sum to one, or name another split.
    """
    fractions = fractions or {"train": 0.75, "validation": 0.10, "test": 0.15}
    if set(fractions) - set(SPLITS) or min(fractions.values()) < 0 or not abs(sum(fractions.values()) - 1) <= 1e-6:
        raise DatasetError(f"fractions {dict(fractions)}: give shares of {', '.join(SPLITS)} that sum to 1.")
    groups: dict[str, list[Sentence]] = {}
    for sentence in sentences:
        groups.setdefault(normalise_text(sentence.text), []).append(sentence)
    by_category: dict[str, list[str]] = {}
    for key, group in groups.items():
        by_category.setdefault(min(s.category for s in group), []).append(key)
    split_of: dict[str, Split] = {}
    for keys in by_category.values():
        keys.sort(key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())
        start, share = 0, 0.0
        for split in SPLITS:
            share += fractions.get(split, 0.0)
            end = round(share * len(keys))
            split_of |= dict.fromkeys(keys[start:end], split)
            start = end
    result: dict[Split, list[Sentence]] = {split: [] for split in SPLITS}
    for sentence in sentences:
        result[split_of[normalise_text(sentence.text)]].append(sentence)
    return result
