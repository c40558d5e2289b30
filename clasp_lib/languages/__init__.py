"""How much is lost when the question, or the speech, is in another language? Texts, tables and comparisons.

Four questions, one table (`score_pair`, `markdown`): text queries in other languages against English speech, speech in
other languages against its own texts, either against the other, and languages that an encoder has never seen.
`compare_languages` holds two systems against each other on the same sentences, for example CLASP on LaBSE and on XLM-R;
`compare_text_encoders` does so for the text encoders alone. Texts are given, or translated by a model (`translate`,
`in_languages`); `error_rates` counts the mistakes of transcripts in each language's own units.
"""

from clasp_lib.languages.scores import (
    DIRECTIONS,
    Direction,
    LanguageScore,
    Vectors,
    compare_languages,
    compare_pairs,
    compare_text_encoders,
    markdown,
    score_pair,
    score_text_languages,
)
from clasp_lib.languages.texts import REFERENCE_LANGUAGES, SMALL_100, error_rates, in_languages, translate

__all__ = [
    "DIRECTIONS",
    "REFERENCE_LANGUAGES",
    "SMALL_100",
    "Direction",
    "LanguageScore",
    "Vectors",
    "compare_languages",
    "compare_pairs",
    "compare_text_encoders",
    "error_rates",
    "in_languages",
    "markdown",
    "score_pair",
    "score_text_languages",
    "translate",
]
