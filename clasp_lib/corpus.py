"""Sentences to speak: Pocket Brown, which ships with the library, and the Brown corpus itself; and splits by text."""

from __future__ import annotations

import csv
import hashlib
import re
import string
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple

from clasp_lib.errors import DatasetError
from clasp_lib.text_normalisation import normalise

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

CATEGORIES = (
    *("adventure", "belles_lettres", "editorial", "fiction", "government", "hobbies", "humor", "learned"),
    *("lore", "mystery", "news", "religion", "reviews", "romance", "science_fiction"),
)
"""The 15 categories of the Brown corpus (Francis and Kucera 1979), by NLTK's names."""

MAX_BROWN_TOKENS = 47
"""Longest sentence that Speech Brown keeps: 55 173 of 57 340 remain."""

BROWN_URL = "https://raw.githubusercontent.com/nltk/nltk_data/gh-pages/packages/corpora/brown.zip"
BROWN_SHA256 = "9b275f9b3b95d7bd66ccfb7cd259f445a13bbe5d1f4107aba09fd3e8364bafa6"
_MOST_BYTES = 100_000_000  # that its zip may unpack to; NLTK's is a tenth of that

REFERENCE_SIZES: dict[str, dict[Split, int]] = {
    "speech_brown": {"train": 38_692, "validation": 7_526, "test": 8_567},
    "common_voice": {"train": 50_000, "validation": 3_492, "test": 2_197},
    "fleurs": {"train": 2_602, "validation": 394, "test": 647},
}
"""Pairs in the splits that CLASP's authors trained and tested on; only Speech Brown has no splits of its own."""


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


def pocket_translations() -> dict[str, dict[str, str]]:
    """40 sentences of Pocket Brown's test part in German, French, Spanish, Persian and Chinese: language -> id -> text.

    A large language model translated them for this project (CC0); no native speaker has checked them.
    """
    table = (resources.files("clasp_lib") / "pocket" / "brown" / "translations.tsv").read_text("utf-8")
    rows = list(csv.DictReader(table.splitlines(), delimiter="\t"))
    return {language: {row["id"]: row[language] for row in rows} for language in rows[0] if language != "id"}


def brown(path: str | Path) -> list[Sentence]:
    """The sentences of Speech Brown, out of NLTK's `brown.zip`: at most 47 tokens, cleaned by `join_brown_tokens`.

    Raises:
        DatasetError: the file is missing, not a zip, or not NLTK's Brown corpus.
    """
    sentences = []
    try:
        with zipfile.ZipFile(path) as archive:
            if (size := sum(member.file_size for member in archive.infolist())) > _MOST_BYTES:
                raise ValueError(f"it would unpack to {size / 1e6:,.0f} MB")
            categories = dict(line.split()[:2] for line in archive.read("brown/cats.txt").decode("ascii").splitlines())
            for name, category in categories.items():
                lines = archive.read(f"brown/{name}").decode("ascii").splitlines()
                for number, line in enumerate((line for line in lines if line.strip()), 1):
                    tokens = [token.rpartition("/")[0] for token in line.split()]
                    if len(tokens) <= MAX_BROWN_TOKENS:
                        sentences.append(Sentence(f"{name}-{number:04d}", join_brown_tokens(tokens), category))
    except (OSError, EOFError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DatasetError(
            f"{path}: is not NLTK's brown.zip ({error}). "
            "Get it with nltk.download('brown') and give the path of the zip."
        ) from error
    return sentences


def download_brown(folder: str | Path) -> Path:
    """Get NLTK's `brown.zip` (3.3 MB) into `folder`, unless it is there, and return its path.

    Raises:
        DatasetError: it cannot be downloaded, or is not the file that it was when this was written.
    """
    from http.client import HTTPException

    from torch.hub import download_url_to_file

    file = Path(folder) / "brown.zip"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            download_url_to_file(BROWN_URL, str(file), hash_prefix=BROWN_SHA256)
        except (OSError, RuntimeError, HTTPException) as error:  # for another digest; for a line that breaks
            raise DatasetError(
                f"{BROWN_URL}: cannot be downloaded ({error}). Get brown.zip from NLTK's data and put it to {file}."
            ) from error
    return file


def join_brown_tokens(tokens: Sequence[str]) -> str:
    """Tokens to text as Speech Brown does it: joined by spaces, no space before . ? ! and ". Brown's quoting stays."""
    return re.sub(r' ([.?!"])', r"\1", " ".join(tokens))


def normalise_text(text: str) -> str:
    """What decides whether two texts are the same, in any language: `clasp_lib.text_normalisation.normalise`."""
    return normalise(text)


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


def reference_split(
    sentences: Sequence[Sentence], sizes: Mapping[Split, int] = REFERENCE_SIZES["speech_brown"], seed: int = 0
) -> dict[Split, list[Sentence]]:
    """Deal sentences as the reference dealt Speech Brown: by id, so that **copies of a text end up in several splits**.

    It is here to measure what that does (`leaking_texts`); train on `split_by_text`. The sizes are the reference's, its
    choice is not: its notebooks begin with a finished split, name no seed, and do not say which 388 of the 55 173 clips
    they left out. Here the sentences beyond the sizes are left out; their order is that of a hash of seed and id.

    Raises:
        DatasetError: sizes that are negative, name another split or exceed the sentences; an id that occurs twice.
    """
    if set(sizes) - set(SPLITS) or min(sizes.values(), default=0) < 0 or sum(sizes.values()) > len(sentences):
        raise DatasetError(
            f"sizes {dict(sizes)}: give numbers for {', '.join(SPLITS)}, {len(sentences)} in all at most."
        )
    by_id = {sentence.id: sentence for sentence in sentences}
    if len(by_id) < len(sentences):
        raise DatasetError(f"{len(sentences)} sentences have {len(by_id)} ids: an id must occur only once.")
    order = sorted(by_id, key=lambda id_: hashlib.sha256(f"{seed}:{id_}".encode()).digest())
    result: dict[Split, list[Sentence]] = {}
    start = 0
    for split in SPLITS:
        end = start + sizes.get(split, 0)
        result[split] = [by_id[id_] for id_ in order[start:end]]
        start = end
    return result


def leaking_texts(texts: Iterable[str], seen: Iterable[str]) -> list[str]:
    """Those of `texts` (of a test split, say) that `seen` (the train split) holds too, after `normalise_text`."""
    known = {normalise_text(text) for text in seen}
    return [text for text in texts if normalise_text(text) in known]


def clean_as_reference(text: str) -> str:
    """What the reference does to the texts of Common Voice, and to no others: lower case, ASCII punctuation deleted."""
    return text.lower().translate(str.maketrans("", "", string.punctuation)).strip()
