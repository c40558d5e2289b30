"""Two ways to search speech, in three columns: oracle transcript, recognised transcript, direct.

- "oracle transcript": what was really said, spelled as a recogniser would, embedded as a text. So far would the
  transcript pipeline get if its recogniser never erred: a bound for that pipeline, not for the direct way. It is easy:
  where the spelling takes no difference away, a text finds itself.
- "recognised transcript": what a recogniser wrote, embedded as a text. Its distance to the oracle is the recogniser's.
- "direct": CLASP's vector of the sound.

All three are looked for by, and look for, the same texts as they were written, in one space.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from clasp_lib.audio import SAMPLING_RATE, resample
from clasp_lib.costs import DIRECT, ORACLE, RECOGNISED, measure_costs
from clasp_lib.errors import ClaspError
from clasp_lib.evaluation import DIRECTIONS, evaluate_both_directions, first_rows
from clasp_lib.languages import texts as in_languages
from clasp_lib.metrics import per_query, rank_queries
from clasp_lib.model import CLASP
from clasp_lib.significance import Comparison, bootstrap_groups, compare_paired, holm
from clasp_lib.text_normalisation import normalise, words
from clasp_lib.transcription import NOTHING_HEARD, Recogniser, count_errors, error_rates, spelled

COLUMNS = (ORACLE, RECOGNISED, DIRECT)
MEASURES = ("hits_at_1", "mrr")
"""Those that are compared."""

_COST_CLIPS = 32


def compare_pipelines(
    model: CLASP,
    recogniser: Recogniser | None,
    waves: Sequence[np.ndarray],
    texts: Sequence[str],
    ids: Sequence[Hashable],
    *,
    seed: int = 0,
    cost: bool = True,
    resamples: int = 10_000,
    language: str = "en",
    transcripts: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The three columns on the same clips, compared pair by pair, with error rates and costs: JSON-ready.

    Args:
        recogniser: of `load_recogniser`; None leaves the middle column and the error rates out.
        waves: at 16 kHz, `(samples,)` each. texts: what is said in each. ids: which texts are the same.
        cost: whether to measure the costs, on the first 32 clips; see `measure_costs`.
        language: of the speech; says how transcripts are spelled before errors are counted.
        transcripts: what the recogniser has written of these waves, if it is known already.

    Returns:
        "clips", "seconds", "sentences", "columns" (by column and direction a `RetrievalReport` as a dict),
        "comparisons" (see `compare_columns`), "transcription" (letter and word error rate, each value, low, high; or
        None), "errors" (see `by_errors`; or None), "costs" (or None).

    Raises:
        ClaspError: no clips, lengths that do not fit, or a text of which nothing is left when it is spelled.
        MissingDependencyError: `jiwer` is not installed.
    """
    if not waves or not len(waves) == len(texts) == len(ids):
        raise ClaspError(f"{len(waves)} waves, {len(texts)} texts, {len(ids)} ids: give one of each for every clip.")
    if recogniser is None and transcripts is not None:
        raise ClaspError("transcripts: are given without the recogniser that wrote them.")
    if recogniser is not None and transcripts is None:
        rate = recogniser.sampling_rate
        transcripts = recogniser.transcribe([resample(wave, SAMPLING_RATE, rate) for wave in waves])
    text_vectors = model.encode_text(texts, show_progress_bar=False)
    columns = embed_columns(model, waves, texts, transcripts, language)
    found = {
        "clips": len(waves),
        "seconds": round(sum(map(len, waves)) / SAMPLING_RATE, 1),
        "sentences": len(set(ids)),
        "columns": {
            name: {
                way: report.to_dict()
                for way, report in evaluate_both_directions(
                    speech, text_vectors, ids, seed, resamples=resamples
                ).items()
            }
            for name, speech in columns.items()
        },
        "comparisons": compare_columns(columns, text_vectors, ids, seed=seed, resamples=resamples),
        "transcription": None,
        "errors": None,
        "costs": None,
    }
    if transcripts is not None:
        rates = transcription_errors(texts, transcripts, language, resamples, seed)
        found["transcription"] = {name: rate._asdict() for name, rate in rates.items()}
        wrong = word_errors(texts, transcripts, language)
        found["errors"] = by_errors(columns, text_vectors, ids, wrong, seed=seed, resamples=resamples)
    if cost:
        few = slice(0, _COST_CLIPS)
        found["costs"] = measure_costs(model, recogniser, waves[few], texts[few])  # type: ignore[arg-type]
    return found


def embed_columns(
    model: CLASP,
    waves: Sequence[np.ndarray],
    texts: Sequence[str],
    transcripts: Sequence[str] | None = None,
    language: str = "en",
) -> dict[str, np.ndarray]:
    """By column, what stands for each clip: L2-normalised vectors `(clips, d)`.

    Without transcripts, the middle column is absent. The oracle is spelled as English recognisers spell, in lower case
    without punctuation, and in other languages as `normalise` does. An empty transcript has the vector of a full stop.

    Raises:
        ClaspError: lengths that do not fit, or a text of which nothing is left when it is spelled.
    """
    spell = _spelling(language)
    true = [spell(text) for text in texts]
    if empty := [text for text, letters in zip(texts, true, strict=True) if not letters]:
        raise ClaspError(f"texts: {empty[0]!r} has nothing to spell in the language {language!r}. Which is it in?")
    columns = {ORACLE: model.encode_text(true, show_progress_bar=False)}
    if transcripts is not None:
        if len(transcripts) != len(texts):
            raise ClaspError(f"transcripts: {len(transcripts)} of them for {len(texts)} texts.")
        heard = [text.strip() or NOTHING_HEARD for text in transcripts]
        columns[RECOGNISED] = model.encode_text(heard, show_progress_bar=False)
    columns[DIRECT] = model.encode_speech(list(waves), SAMPLING_RATE, show_progress_bar=False)
    return columns


def query_values(
    columns: Mapping[str, np.ndarray], text_vectors: np.ndarray, ids: Sequence[Hashable], direction: str
) -> tuple[dict[str, dict[str, np.ndarray]], list[Hashable]]:
    """By column and measure the value of each query `(queries,)` (`clasp_lib.metrics.per_query`), and the queries' ids.

    Args:
        columns: of `embed_columns`, (clips, d) each. text_vectors: (clips, d), of the clips' texts. ids: (clips,).
        direction: "speech_to_text": each clip asks for its text. "text_to_speech": each distinct text asks for its
            clips. The first text of an id stands for all.
    """
    if direction not in DIRECTIONS:
        raise ClaspError(f"direction {direction!r} is not known. Choose from {', '.join(DIRECTIONS)}.")
    first = first_rows(ids)
    texts, text_ids = text_vectors[list(first.values())], list(first)
    values = {}
    for name, speech in columns.items():
        sides = (speech, texts, ids, text_ids) if direction == "speech_to_text" else (texts, speech, text_ids, ids)
        values[name] = per_query(rank_queries(*sides))
    return values, list(ids) if direction == "speech_to_text" else text_ids


def compare_columns(
    columns: Mapping[str, np.ndarray],
    text_vectors: np.ndarray,
    ids: Sequence[Hashable],
    *,
    seed: int = 0,
    resamples: int = 10_000,
) -> list[dict[str, Any]]:
    """All pairs of columns on the same queries, in both directions, by HITS@1 and MRR: one family, corrected as such.

    Returns:
        Rows with direction, measure, first, second, difference (value, low, high of first - second), n, groups,
        p_value, p_holm, family, resamples, seed, method: see `clasp_lib.significance.Comparison`.
    """
    rows: list[tuple[dict[str, str], Comparison]] = []
    for direction in DIRECTIONS:
        values, asked = query_values(columns, text_vectors, ids, direction)
        for measure in MEASURES:
            for one, other in combinations(columns, 2):
                pair = (values[one][measure], values[other][measure])
                found = compare_paired(*pair, asked, measure, resamples, seed)
                rows.append(({"direction": direction, "first": one, "second": other}, found))
    corrected = holm([found.p_value for _, found in rows])
    return [
        where | asdict(replace(found, family=len(rows), p_holm=p)) | {"difference": found.difference._asdict()}
        for (where, found), p in zip(rows, corrected, strict=True)
    ]


def by_errors(
    columns: Mapping[str, np.ndarray],
    text_vectors: np.ndarray,
    ids: Sequence[Hashable],
    wrong: np.ndarray,
    parts: int = 4,
    *,
    seed: int = 0,
    resamples: int = 10_000,
) -> list[dict[str, Any]]:
    """How each column does where the recogniser errs little and where it errs much, speech to text.

    The clips are cut into `parts` of about the same size by the share of words that were wrong; clips of one share stay
    together, so that there may be fewer parts.

    Args:
        wrong: share of wrong words in each clip's transcript, (clips,).

    Returns:
        One row a part and column: part, column, n, groups, from and to (the shares of its clips), and hits_at_1 and mrr
        with value, low, high.
    """
    values, asked = query_values(columns, text_vectors, ids, "speech_to_text")
    edges = np.unique(np.quantile(wrong, np.linspace(0, 1, parts + 1)[1:-1], method="lower"))
    part = np.searchsorted(edges, wrong, side="left")  # (clips,): a share at an edge belongs below it
    rows = []
    for number, code in enumerate(np.unique(part), 1):
        chosen = np.flatnonzero(part == code)
        groups = [asked[i] for i in chosen]
        for name, measures in values.items():
            found = bootstrap_groups({m: measures[m][chosen] for m in MEASURES}, groups, resamples, seed)
            row = {"part": number, "column": name, "n": len(chosen), "groups": len(set(groups))}
            row |= {"from": float(wrong[chosen].min()), "to": float(wrong[chosen].max())}
            rows.append(row | {m: interval._asdict() for m, interval in found.items()})
    return rows


def word_errors(texts: Sequence[str], transcripts: Sequence[str], language: str = "en") -> np.ndarray:
    """Word error rate of each transcript, (texts,); both are spelled alike first."""
    apart = _words(language)
    counts = count_errors([apart(text) for text in texts], [apart(text) for text in transcripts])
    return counts["word_errors"] / counts["words"]


def transcription_errors(
    texts: Sequence[str], transcripts: Sequence[str], language: str = "en", resamples: int = 1_000, seed: int = 0
) -> dict[str, Any]:
    """Letter and word error rate over all, with intervals; both texts are spelled alike first."""
    if language != "en":
        return in_languages.error_rates(texts, transcripts, language, resamples, seed)
    return error_rates(list(map(spelled, texts)), list(map(spelled, transcripts)), resamples, seed)


def _spelling(language: str) -> Callable[[str], str]:
    """How a recogniser of that language writes."""
    return spelled if language == "en" else partial(normalise, language=language)


def _words(language: str) -> Callable[[str], str]:
    """The words of a text with spaces between them, for counting."""
    return spelled if language == "en" else lambda text: " ".join(words(text, language))
