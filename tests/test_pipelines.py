"""The three columns: what stands in each, how they are compared, and where the recogniser errs."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from conftest import Clip

from clasp_lib import CLASP, RetrievalReport
from clasp_lib.corpus import normalise_text
from clasp_lib.costs import DIRECT, ORACLE, RECOGNISED
from clasp_lib.errors import ClaspError
from clasp_lib.evaluation import compare, evaluate_retrieval
from clasp_lib.pipelines import (
    COLUMNS,
    DIRECTIONS,
    MEASURES,
    by_errors,
    compare_columns,
    compare_pipelines,
    embed_columns,
    query_values,
    transcription_errors,
    word_errors,
)
from clasp_lib.significance import holm
from clasp_lib.text_normalisation import normalise
from clasp_lib.transcription import spelled


class Parrot:
    """A recogniser that hears everything right, but for one clip of which it hears nothing."""

    name, sampling_rate = "parrot", 8_000

    def __init__(self, texts: list[str], deaf_to: int) -> None:
        self.texts, self.deaf_to = texts, deaf_to
        self.heard: list[np.ndarray] = []

    def transcribe(self, waves: Any, batch_size: int = 16, show_progress_bar: bool = False) -> list[str]:
        self.heard = list(waves)
        return ["" if i == self.deaf_to else spelled(text) for i, text in enumerate(self.texts)]


@pytest.fixture(scope="module")
def said(clips: list[Clip]) -> tuple[list[np.ndarray], list[str], list[str]]:
    texts = [clip.text for clip in clips]
    texts[-1] = texts[0]  # one text said twice
    return [clip.samples for clip in clips], texts, [normalise_text(text) for text in texts]


@pytest.fixture(scope="module")
def found(model: CLASP, said: tuple) -> dict[str, Any]:
    return compare_pipelines(model, Parrot(said[1], deaf_to=2), *said, cost=False, resamples=200)


def test_there_are_three_columns_in_both_directions(found: dict[str, Any], said: tuple) -> None:
    assert list(found["columns"]) == list(COLUMNS)
    assert (found["clips"], found["sentences"], found["costs"]) == (6, 5, None)
    assert found["seconds"] == pytest.approx(sum(map(len, said[0])) / 16_000, abs=0.05)
    for both in found["columns"].values():
        assert list(both) == list(DIRECTIONS)
        asked, answered = (RetrievalReport.from_dict(both[way]) for way in ("speech_to_text", "text_to_speech"))
        assert (asked.n, asked.candidates, asked.groups, asked.resamples) == (6, 5, 5, 200)
        assert (answered.n, answered.candidates, answered.groups) == (5, 6, 5)
    assert json.loads(json.dumps(found)) == found


def test_the_recogniser_is_handed_its_own_sampling_rate(model: CLASP, said: tuple) -> None:
    parrot = Parrot(said[1], deaf_to=-1)
    compare_pipelines(model, parrot, *said, cost=False, resamples=10)
    assert [len(wave) for wave in parrot.heard] == [pytest.approx(len(wave) / 2, abs=2) for wave in said[0]]


def test_without_a_recogniser_the_middle_column_is_absent(model: CLASP, said: tuple) -> None:
    alone = compare_pipelines(model, None, *said, cost=False, resamples=200)
    assert list(alone["columns"]) == [ORACLE, DIRECT]
    assert alone["transcription"] is None and alone["errors"] is None
    assert {(row["first"], row["second"]) for row in alone["comparisons"]} == {(ORACLE, DIRECT)}
    with pytest.raises(ClaspError, match="without the recogniser"):
        compare_pipelines(model, None, *said, cost=False, transcripts=said[1])


def test_each_column_holds_the_vectors_that_its_name_promises(model: CLASP, said: tuple) -> None:
    waves, texts, _ = said
    heard = ["the ferry", " ", *map(spelled, texts[2:])]
    columns = embed_columns(model, waves, texts, heard)
    np.testing.assert_array_equal(columns[ORACLE], model.encode_text(list(map(spelled, texts))))
    np.testing.assert_array_equal(columns[RECOGNISED], model.encode_text(["the ferry", ".", *heard[2:]]))
    np.testing.assert_array_equal(columns[DIRECT], model.encode_speech(waves))


def test_a_perfect_recogniser_is_the_oracle(model: CLASP, said: tuple) -> None:
    found = compare_pipelines(model, Parrot(said[1], deaf_to=-1), *said, cost=False, resamples=200)
    assert found["columns"][RECOGNISED] == found["columns"][ORACLE]
    assert found["transcription"]["word_error_rate"] == {"value": 0, "low": 0, "high": 0}
    same = [row for row in found["comparisons"] if (row["first"], row["second"]) == (ORACLE, RECOGNISED)]
    assert len(same) == 4 and all(row["difference"]["value"] == 0 and row["p_holm"] == 1 for row in same)


def test_what_was_not_heard_counts_as_an_error(found: dict[str, Any], said: tuple) -> None:
    lengths = [len(spelled(text).split()) for text in said[1]]
    assert found["transcription"]["word_error_rate"]["value"] == pytest.approx(lengths[2] / sum(lengths))
    assert word_errors(said[1], Parrot(said[1], 2).transcribe(said[0])).tolist() == [0, 0, 1, 0, 0, 0]


def test_the_columns_are_those_of_evaluation(model: CLASP, said: tuple, found: dict[str, Any]) -> None:
    waves, texts, ids = said
    direct, first = model.encode_speech(waves), model.encode_text(texts)[:5]
    report = evaluate_retrieval(direct, first, ids, ids[:5], 0, resamples=200)
    assert found["columns"][DIRECT]["speech_to_text"] == report.to_dict()


def test_all_pairs_are_one_family(found: dict[str, Any], model: CLASP, said: tuple) -> None:
    rows = found["comparisons"]
    assert len(rows) == 2 * 2 * 3 == len({(r["direction"], r["measure"], r["first"], r["second"]) for r in rows})
    assert {row["family"] for row in rows} == {12} and {row["measure"] for row in rows} == set(MEASURES)
    assert [row["p_holm"] for row in rows] == holm([row["p_value"] for row in rows])
    assert {(row["direction"], row["n"]) for row in rows} == {("speech_to_text", 6), ("text_to_speech", 5)}
    waves, texts, ids = said
    columns = embed_columns(model, waves, texts, Parrot(texts, 2).transcribe(waves))
    vectors = model.encode_text(texts)[:5]
    alone = compare(columns[ORACLE], columns[DIRECT], vectors, ids, "mrr", 200, candidate_ids=ids[:5])
    (row,) = (
        r
        for r in rows
        if (r["direction"], r["measure"], r["first"], r["second"]) == ("speech_to_text", "mrr", ORACLE, DIRECT)
    )
    assert (row["difference"], row["p_value"]) == (alone.difference._asdict(), alone.p_value)


def made_up(n: int = 40) -> tuple[dict[str, np.ndarray], np.ndarray, list[int], np.ndarray]:
    """A transcript column that fails where more than half of the words are wrong, and a direct one that does not."""
    rng = np.random.default_rng(0)
    texts = np.eye(n, dtype=np.float32)
    wrong = rng.permutation(np.linspace(0, 1, n))
    transcript = np.where(wrong[:, None] > 0.5, np.roll(texts, 1, axis=1), texts)
    return {RECOGNISED: transcript, DIRECT: texts}, texts, list(range(n)), wrong


def test_retrieval_is_told_apart_by_what_the_recogniser_got_wrong() -> None:
    columns, texts, ids, wrong = made_up()
    rows = by_errors(columns, texts, ids, wrong, resamples=100)
    assert [(row["part"], row["column"], row["n"]) for row in rows] == [
        (part, name, 10) for part in (1, 2, 3, 4) for name in (RECOGNISED, DIRECT)
    ]
    hits = {(row["part"], row["column"]): row["hits_at_1"]["value"] for row in rows}
    assert [hits[part, RECOGNISED] for part in (1, 2, 3, 4)] == [1, 1, 0, 0]
    assert [hits[part, DIRECT] for part in (1, 2, 3, 4)] == [1, 1, 1, 1]
    ends = [(row["from"], row["to"]) for row in rows[::2]]
    assert ends[0][0] == 0 and ends[-1][1] == 1 and all(a[1] < b[0] for a, b in itertools.pairwise(ends))


@pytest.mark.parametrize(("wrong", "sizes"), [([0.0] * 8, [8]), ([0.0] * 6 + [0.5, 1.0], [6, 2])])
def test_clips_with_one_share_of_errors_stay_together(wrong: list[float], sizes: list[int]) -> None:
    vectors = np.eye(8, dtype=np.float32)
    rows = by_errors({DIRECT: vectors}, vectors, range(8), np.array(wrong), resamples=10)
    assert [row["n"] for row in rows] == sizes and sum(sizes) == 8


def test_queries_come_with_their_ids(model: CLASP) -> None:
    vectors = np.eye(4, dtype=np.float32)
    texts, ids = vectors[[0, 1, 2, 0]], ["a", "b", "c", "a"]
    values, asked = query_values({DIRECT: texts}, texts, ids, "text_to_speech")
    assert asked == ["a", "b", "c"] and values[DIRECT]["mean_rank"].tolist() == [1, 1, 1]
    _, asked = query_values({DIRECT: texts}, texts, ids, "speech_to_text")
    assert asked == ids
    with pytest.raises(ClaspError, match="'sideways'"):
        query_values({DIRECT: texts}, texts, ids, "sideways")
    assert len(compare_columns({DIRECT: texts}, texts, ids)) == 0  # nothing to compare it with


def test_another_language_is_spelled_by_its_own_rules(model: CLASP, said: tuple) -> None:
    waves, _, _ = said
    texts = ["سلام دنیا", "کتاب‌ها", "می‌روم", "آب", "نان", "ماه"]
    with pytest.raises(ClaspError, match="nothing to spell in the language 'en'"):
        embed_columns(model, waves, texts)
    columns = embed_columns(model, waves, texts, texts, language="fa")
    np.testing.assert_allclose(columns[ORACLE], model.encode_text([normalise(t, "fa") for t in texts]), atol=1e-6)
    heard = ["سلام دنيا", "کتاب ها", "می روم", "", "نان", "ماه"]  # other letters, other spaces: no mistakes
    assert word_errors(texts, heard, "fa").tolist() == [0, 0, 0, 1, 0, 0]
    assert transcription_errors(texts, heard, "fa")["word_error_rate"].value == pytest.approx(1 / 7)


def test_what_does_not_fit_is_refused(model: CLASP, said: tuple) -> None:
    waves, texts, ids = said
    for bad in ((waves[:2], texts, ids), (waves, texts[:2], ids), (waves, texts, ids[:2]), ([], [], [])):
        with pytest.raises(ClaspError, match="one of each for every clip"):
            compare_pipelines(model, None, *bad, cost=False)
    with pytest.raises(ClaspError, match="2 of them for 6 texts"):
        embed_columns(model, waves, texts, texts[:2])
