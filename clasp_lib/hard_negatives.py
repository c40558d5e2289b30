"""Wrong versions of each text, a few words short: negatives that differ from it by little.

After the negatives of MSAT + CL (Wang et al., ICASSP 2023), who delete words of a fluent sentence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from clasp_lib.errors import ClaspError, TextError

if TYPE_CHECKING:
    from clasp_lib.encoders import TextEncoder


def delete_words(text: str, rng: np.random.Generator, share: float = 0.3) -> str:
    """The text without some of its words, those that stay in their order; at least one goes and one stays.

    A word is what stands between spaces and has a letter or digit: a dash alone stays, since without it nothing
    else is said. Its own punctuation goes with it.

    Args:
        rng: chooses the words.
        share: how many of the words go, rounded; above 0 and below 1.

    Raises:
        TextError: fewer than two words, so also text that is written without spaces.
        ClaspError: the share is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ClaspError(f"share {share}: must be above 0 and below 1.")
    pieces = text.split()
    words = [i for i, piece in enumerate(pieces) if any(letter.isalnum() for letter in piece)]
    if len(words) < 2:
        raise TextError(f"{text!r} has fewer than two words between spaces: none can go without all going.")
    count = min(max(1, round(share * len(words))), len(words) - 1)
    gone = set(rng.choice(words, count, replace=False).tolist())
    return " ".join(piece for i, piece in enumerate(pieces) if i not in gone)


def hard_negatives(texts: Sequence[str], text_encoder: TextEncoder, k: int = 1, seed: int = 0) -> np.ndarray:
    """Vectors of k texts with words missing for each text: float32 `(n, k, d)`, L2-normalised.

    They depend on the text and the seed alone, not on what stands beside it: a text that occurs twice has the same,
    and a part of a corpus the same as the whole. The k are drawn one by one, so that of a short text some may be equal.

    Raises:
        TextError: a text has fewer than two words: it has no such negatives, and none are made up for it. The message
            names the first; leave the clips of such texts out of a training with this loss.
        ClaspError: k is below 1.
    """
    if k < 1:
        raise ClaspError(f"k {k}: must be at least 1, the number of negatives of each text.")
    shortened: dict[str, list[str]] = {}
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise TextError(f"text number {position} is {text!r}; give a string.")
        if text not in shortened:
            rng = _generator(text, seed)
            try:
                shortened[text] = [delete_words(text, rng) for _ in range(k)]
            except TextError as error:
                raise TextError(f"text number {position}, {error} Leave it out.") from None
    distinct = list(dict.fromkeys(short for several in shortened.values() for short in several))
    vectors = text_encoder.encode(distinct)  # (distinct, d)
    row = {short: i for i, short in enumerate(distinct)}
    rows = np.array([[row[short] for short in shortened[text]] for text in texts], dtype=np.int64).reshape(-1, k)
    return vectors[rows]  # (n, k, d)


def _generator(text: str, seed: int) -> np.random.Generator:
    """Random numbers of this text's own: Python's `hash` would be another in every run."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])
