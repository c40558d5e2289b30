"""One row a language and direction, with what a guess would reach; and two systems compared language by language."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from clasp_lib.errors import ClaspError
from clasp_lib.evaluation import DIRECTIONS, Direction, evaluate_retrieval
from clasp_lib.metrics import per_query, rank_queries
from clasp_lib.significance import RESAMPLES, Comparison, Interval, compare_paired, holm
from clasp_lib.text_normalisation import language_code


class Vectors(NamedTuple):
    """Vectors `(n, d)`, L2-normalised, and of which sentence each is: equal ids belong together."""

    values: np.ndarray
    ids: Sequence[Hashable]


@dataclass(frozen=True)
class LanguageScore:
    """One row: a language of the texts, one of the speech, a direction.

    Attributes:
        n: queries. candidates: what each is ranked against.
        chance: HITS@1 of a guess: the mean share of right answers among the candidates.
        seen: whether the encoders were trained on these languages; None if nobody said.
    """

    text_language: str
    speech_language: str
    direction: Direction
    n: int
    candidates: int
    hits_at_1: Interval
    mrr: Interval
    mean_rank: Interval
    chance: float
    seen: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """One level, for a data frame: each measure and its `_low` and `_high`."""
        row: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Interval):
                row |= {field.name: value.value, f"{field.name}_low": value.low, f"{field.name}_high": value.high}
            else:
                row[field.name] = value
        return row


def score_pair(
    texts: Vectors,
    speech: Vectors,
    text_language: str,
    speech_language: str = "en",
    *,
    text_seen: Collection[str] | None = None,
    speech_seen: Collection[str] | None = None,
    seed: int = 0,
) -> list[LanguageScore]:
    """Both directions between texts in one language and speech in one, the same or another.

    Text to speech: each text against all speech, also that which has no text here, so that languages of which fewer
    texts are at hand face the same pool. Speech to text: each clip that has a text here, against all texts. A sentence
    may have several clips, and a text several vectors: all are right answers.

    Args:
        text_seen, speech_seen: codes of the languages that the text and the speech encoder were trained on.
        seed: of the bootstrap over sentences.

    Raises:
        ClaspError: vectors that do not fit, a text without any speech, no clip with a text, no language code.
    """
    codes = language_code(text_language), language_code(speech_language)
    written = set(texts.ids)
    with_text = [i for i, sentence in enumerate(speech.ids) if sentence in written]
    if not with_text:
        raise ClaspError(f"{text_language} and {speech_language}: no text and no clip share an id. Are the ids alike?")
    spoken = Vectors(np.asarray(speech.values)[with_text], [speech.ids[i] for i in with_text])
    known = [
        code in {language_code(other) for other in seen}
        for code, seen in zip(codes, (text_seen, speech_seen), strict=True)
        if seen is not None
    ]
    rows = []
    for direction, query, pool in zip(DIRECTIONS, (texts, spoken), (speech, texts), strict=True):
        report = evaluate_retrieval(query.values, pool.values, query.ids, pool.ids, seed=seed)
        right = Counter(pool.ids)
        rows.append(
            LanguageScore(
                text_language,
                speech_language,
                direction,
                len(query.ids),
                len(pool.ids),
                report.hits_at_1,
                report.mrr,
                report.mean_rank,
                chance=sum(right[sentence] for sentence in query.ids) / len(query.ids) / len(pool.ids),
                seen=all(known) if known else None,
            )
        )
    return rows


def score_text_languages(
    texts: Mapping[str, Mapping[str, str]],
    encode: Callable[[list[str]], np.ndarray],
    speech: Vectors,
    speech_language: str = "en",
    *,
    text_seen: Collection[str] | None = None,
    seed: int = 0,
) -> list[LanguageScore]:
    """Texts in several languages against the same speech: the rows of all of them.

    Speech in another language is scored the same way, with its own texts or with those of others:

        dataset, _ = read_recordings("recordings/fa")
        speech = Vectors(model.encode_speech(list(dataset["audio"])), list(dataset["sentence_id"]))
        texts = {"fa": dict(zip(dataset["sentence_id"], dataset["text"]))}
        rows = score_text_languages(texts, model.encode_text, speech, "fa")

    The ids of `read_fleurs` hold across its languages, so that there `texts` may have English besides.

    Args:
        texts: language -> sentence id -> text, as `in_languages` gives them.
        encode: texts to L2-normalised vectors `(n, d)` in the space of the speech, such as `model.encode_text`.
    """
    rows = []
    for language, found in texts.items():
        vectors = Vectors(encode(list(found.values())), list(found))
        rows += score_pair(vectors, speech, language, speech_language, text_seen=text_seen, seed=seed)
    return rows


def markdown(rows: Sequence[LanguageScore]) -> str:
    """The rows as a table of Markdown."""
    told = any(row.seen is not None for row in rows)
    head = ["text", "speech", "direction", "n", "pool", "HITS@1", "MRR", "meanR", "chance HITS@1", *["seen"] * told]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        seen = {True: "yes", False: "no", None: "?"}[row.seen]
        lines.append(
            [row.text_language, row.speech_language, row.direction.replace("_", " "), str(row.n), str(row.candidates)]
            + [str(row.hits_at_1), str(row.mrr), str(row.mean_rank), f"{row.chance:.4f}", *[seen] * told]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def compare_pairs(
    first: tuple[Vectors, Vectors],
    second: tuple[Vectors, Vectors],
    measure: str = "mrr",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Two systems, each with a space of its own, on the same questions: `compare_paired`, whole sentences at a time.

    Args:
        first, second: queries and candidates of each system; ids row by row the same in both.

    Raises:
        ClaspError: other ids, a query without an answer, an unknown measure.
    """
    for side, name in enumerate(("queries", "candidates")):
        if list(first[side].ids) != list(second[side].ids):
            raise ClaspError(f"{name}: the two systems have other ids; ask both the same, row by row.")
    values = []
    for queries, candidates in (first, second):
        found = per_query(rank_queries(queries.values, candidates.values, queries.ids, candidates.ids))
        if measure not in found:
            raise ClaspError(f"measure {measure!r} is not known. Choose from {', '.join(found)}.")
        values.append(found[measure])
    one, other = values
    return compare_paired(one, other, first[0].ids, measure, resamples, seed)


def compare_languages(
    first: Mapping[str, tuple[Vectors, Vectors]],
    second: Mapping[str, tuple[Vectors, Vectors]],
    measure: str = "mrr",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Comparison]:
    """Two systems on each language: `first - second`, with p-values corrected for the number of languages (Holm 1979).

    Args:
        first, second: language -> queries and candidates; see `compare_pairs`.

    Raises:
        ClaspError: the systems answer other languages, or none; see `compare_pairs`.
    """
    if list(first) != list(second) or not first:
        raise ClaspError(f"languages: {', '.join(first) or 'none'} and {', '.join(second) or 'none'}; give the same.")
    found = {language: compare_pairs(first[language], second[language], measure, resamples, seed) for language in first}
    corrected = holm([comparison.p_value for comparison in found.values()])
    return {
        language: dataclasses.replace(comparison, family=len(found), p_holm=p)
        for (language, comparison), p in zip(found.items(), corrected, strict=True)
    }


def compare_text_encoders(
    first: Callable[[list[str]], np.ndarray],
    second: Callable[[list[str]], np.ndarray],
    pool: Mapping[str, str],
    queries: Mapping[str, Mapping[str, str]],
    measure: str = "mrr",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Comparison]:
    """Two text encoders alone: which finds the English text of a question in another language more often?

    It is what a transcript pipeline with perfect transcripts would reach. Which of them is the better space for speech
    to be mapped into is another question: train CLASP on each, and hold the models against each other with
    `compare_languages`.

    Args:
        first, second: texts to L2-normalised vectors (n, d), such as `TextEncoder(LABSE).encode`.
        pool: id -> text that is looked for. queries: language -> id -> text, as `in_languages` gives them.
    """

    def answers(encode: Callable[[list[str]], np.ndarray]) -> dict[str, tuple[Vectors, Vectors]]:
        texts = Vectors(encode(list(pool.values())), list(pool))
        return {code: (Vectors(encode(list(found.values())), list(found)), texts) for code, found in queries.items()}

    return compare_languages(answers(first), answers(second), measure, resamples, seed)
