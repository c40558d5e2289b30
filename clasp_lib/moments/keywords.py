"""The baseline of the field: keywords of the query against keywords of what a recogniser reads in each window."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clasp_lib.errors import MissingDependencyError
from clasp_lib.text_normalisation import language_code, normalise

TOP = 10
"""Keywords of a text, at most."""


def keywords(text: str, language: str = "en") -> frozenset[str]:
    """The most telling words of a text as YAKE finds them (Campos et al. 2020), normalised; none of an empty text.

    The text is normalised first, so that Arabic and Persian letters, half-spaces and spaces are the same word.

    Args:
        language: "en", "fa", "de", ...: of the stop words and of the normalisation.

    Raises:
        MissingDependencyError: `yake` is not installed. ClaspError: no language code.
    """
    try:
        import yake
    except ImportError as error:
        raise MissingDependencyError("yake is not installed. Run: pip install 'clasp-lib[asr]'") from error
    extractor = yake.KeywordExtractor(lan=language_code(language), n=1, top=TOP)
    found = extractor.extract_keywords(normalise(text, language))
    return frozenset(word for phrase, _ in found for word in normalise(phrase, language).split())


def keyword_scores(queries: Sequence[str], transcripts: Sequence[str], language: str = "en") -> np.ndarray:
    """What share of their keywords a query and a transcript have in common (Dice 1945): (queries, transcripts), 0 to 1.

    Sharing is measured against both, as a long transcript has a little of everything. Without keywords it is 0.
    """
    asked = [keywords(text, language) for text in queries]
    heard = [keywords(text, language) for text in transcripts]
    scores = [[2 * len(a & b) / max(1, len(a) + len(b)) for b in heard] for a in asked]
    return np.array(scores, np.float32).reshape(len(asked), len(heard))
