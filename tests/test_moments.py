"""Evaluation of localisation: joined recordings, IoU, chance, and the keyword baseline."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import Clip

from clasp_lib.errors import ClaspError, DatasetError, MissingDependencyError
from clasp_lib.localization import Moment, speaking_time
from clasp_lib.moments import (
    Joining,
    Judged,
    Segment,
    chance,
    join_all,
    join_clips,
    judge,
    keyword_scores,
    keywords,
    read_segments,
    temporal_iou,
)

RATE = 16_000

# Joining -----------------------------------------------------------------------------------------------------------


def test_a_clip_is_where_its_segment_says(clips: list[Clip]) -> None:
    waves, texts = [c.samples for c in clips], [c.text for c in clips]
    quiet = Joining(gain_db=0, noise_db=-200)
    joined = join_clips(waves, texts, seed=3, joining=quiet)
    assert [segment.text for segment in joined.segments] == texts
    at = 0.0
    for segment, wave in zip(joined.segments, waves, strict=True):
        assert 0.149 <= segment.start_s - at <= 1.001
        part = joined.samples[round(segment.start_s * RATE) : round(segment.end_s * RATE)]
        np.testing.assert_allclose(part, wave * min(1, 0.99 / np.abs(wave).max()), atol=1e-6)
        assert np.abs(joined.samples[round(at * RATE) : round(segment.start_s * RATE)]).max() < 1e-8
        at = segment.end_s
    assert 0.149 <= joined.duration_s - at <= 1.001


def test_joining_repeats_for_its_seed_and_differs_for_another(clips: list[Clip]) -> None:
    waves, texts = [c.samples for c in clips], [c.text for c in clips]
    one, again, other = (join_clips(waves, texts, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.samples, again.samples)
    assert one.segments == again.segments != other.segments
    assert np.abs(one.samples).max() < 1.01


def test_noise_and_gain_are_what_was_asked_for(clips: list[Clip]) -> None:
    wave = 0.1 * clips[1].samples / np.abs(clips[1].samples).max()
    joined = join_clips([wave] * 20, ["a"] * 20, joining=Joining(gap_s=(1, 1), gain_db=6, noise_db=-50))
    gap = joined.samples[: RATE - 1]
    assert 10 * np.log10(np.mean(gap**2)) == pytest.approx(-50, abs=0.2)
    parts = [joined.samples[round(s.start_s * RATE) :][: len(wave)] for s in joined.segments]
    gains = 20 * np.log10([np.linalg.norm(part) / np.linalg.norm(wave) for part in parts])
    assert -6.1 < gains.min() < -2 and 2 < gains.max() < 6.1


def test_every_clip_is_joined_once(clips: list[Clip]) -> None:
    waves, texts = 6 * [c.samples for c in clips], [f"{c.text} {i}" for i in range(6) for c in clips]
    made = join_all(waves, texts, minutes=0.5, seed=0)
    assert sorted(segment.text for one in made for segment in one.segments) == sorted(texts)
    assert all(20 < one.duration_s < 45 for one in made) and len(made) > 2
    assert len(join_all(waves, texts, minutes=500)) == 1


def test_clips_without_texts_are_refused(clips: list[Clip]) -> None:
    for waves, texts in (([], []), ([clips[0].samples], [])):
        with pytest.raises(ClaspError, match="clips and"):
            join_clips(waves, texts)


def test_known_segments_are_read(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"segments\.csv: there is no such file"):
        read_segments(tmp_path)
    file = tmp_path / "segments.csv"
    file.write_text(
        "file,segment,start_s,end_s,text\na.opus,0,0,2.5,one\nb.opus,0,1,2,سلام\na.opus,1,3,4,two\n", "utf-8"
    )
    assert read_segments(tmp_path) == {
        "a.opus": [Segment(0, 2.5, "one"), Segment(3, 4, "two")],
        "b.opus": [Segment(1, 2, "سلام")],
    }
    for row in ("a.opus,0,x,2,one", "a.opus,0"):
        file.write_text(f"file,segment,start_s,end_s,text\n{row}\n")
        with pytest.raises(DatasetError, match="line 2"):
            read_segments(tmp_path)
    file.write_text("start_s,end_s,text\n0,1,one\n")
    with pytest.raises(DatasetError, match="line 2: has no file"):
        read_segments(tmp_path)
    file.write_bytes("file,start_s,end_s,text\na,0,1,Größe\n".encode("latin-1"))
    with pytest.raises(DatasetError, match="UTF-8"):
        read_segments(tmp_path)


# Scoring -----------------------------------------------------------------------------------------------------------


def test_iou_is_shared_time_over_covered_time() -> None:
    for one, other, iou in (
        ((0, 4), (0, 4), 1),
        ((0, 4), (2, 6), 1 / 3),
        ((0, 10), (4, 6), 0.2),
        ((0, 4), (4, 8), 0),
        ((0, 1), (7, 8), 0),
        ((1, 3), (0, 4), 0.5),
    ):
        assert temporal_iou(*one, *other) == pytest.approx(iou) == temporal_iou(*other, *one)


def test_a_moment_counts_from_an_iou_of_a_half() -> None:
    segment = Segment(10, 14, "a")
    exact, half, far = Moment(10, 14, 0.9), Moment(10, 12, 0.8), Moment(30, 34, 0.7)
    assert judge([exact, far], segment) == Judged(1, 1, 1)
    assert judge([half], segment) == Judged(1, 1, 0.5)
    assert judge([Moment(10, 11.99, 0.8)], segment).recall_at_1 == 0
    assert judge([far] * 4 + [exact], segment) == Judged(0, 1, 0)
    assert judge([far] * 5 + [exact], segment) == Judged(0, 0, 0)  # sixth
    assert judge([], segment) == Judged(0, 0, 0)


@pytest.mark.parametrize("segment", [(0.0, 3.0), (20.0, 24.0), (55.5, 60.0), (20.0, 20.5)])
def test_chance_is_what_random_windows_reach(segment: tuple[float, float]) -> None:
    lengths, rng = np.array([0.7, 2.0, 4.0, 9.0]), np.random.default_rng(1)
    drawn = rng.choice(lengths, 200_000)
    starts = rng.uniform(size=len(drawn)) * (60 - drawn)
    iou = temporal_iou(starts, starts + drawn, *segment)
    found = chance(Segment(*segment, "a"), lengths, 60, draws=20_000)
    assert found.recall_at_1 == pytest.approx((iou >= 0.5).mean(), abs=0.002) and found.recall_at_1 > 0
    assert found.recall_at_5 == pytest.approx((iou.reshape(-1, 5) >= 0.5).any(1).mean(), abs=0.006)
    assert found.mean_iou == pytest.approx(iou.mean(), abs=0.003)


def test_chance_knows_the_ends_of_the_recording() -> None:
    assert chance(Segment(0, 10, "a"), np.array([10.0]), 10) == Judged(1, 1, pytest.approx(1))
    assert chance(Segment(0, 4, "a"), np.array([10.0]), 10) == Judged(0, 0, pytest.approx(0.4))
    for lengths in ([], [0.0], [11.0]):
        with pytest.raises(ClaspError, match="lengths"):
            chance(Segment(0, 4, "a"), np.array(lengths), 10)


# Keywords ----------------------------------------------------------------------------------------------------------


def test_the_window_with_the_query_s_words_scores_highest() -> None:
    pytest.importorskip("yake")
    queries = ["The ferry left the harbour at dawn.", "Somebody taught a parrot to count."]
    heard = ["some body taught a parrot two count", "", "the fairy left the harbour at dawn", "it rained"]
    scores = keyword_scores(queries, heard)
    assert scores.shape == (2, 4) and scores.argmax(1).tolist() == [2, 0]
    assert not scores[:, 1].any() and (scores >= 0).all() and (scores <= 1).all()
    assert keyword_scores(queries[:1], queries[:1]) == 1
    longer = queries[0] + " And many other things happened in faraway countries."
    assert keyword_scores(queries[:1], [longer])[0, 0] < 1  # much said is no better heard
    assert keyword_scores([], heard).shape == (0, 4)


def test_keywords_are_telling_words_in_one_spelling() -> None:
    pytest.importorskip("yake")
    found = keywords("It was the Harbour of the town that she had left, and the harbour was empty.")
    assert "harbour" in found and not {"the", "of", "it", "was"} & found
    assert keywords("") == frozenset() == keywords("...")


def test_persian_letters_and_half_spaces_make_no_difference() -> None:
    pytest.importorskip("yake")
    persian, arabic, spaced = "کتاب‌های هنری می‌خواهم", "كتاب‌هاي هنري مي‌خواهم", "کتاب های هنری می خواهم"
    assert keywords(persian, "fa") == keywords(arabic, "fa") == keywords(spaced, "fa") != frozenset()
    assert keyword_scores([persian], [arabic, spaced, "سلام آقای محمدی"], "fa").tolist() == [[1, 1, 0]]


def test_without_yake_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yake", None)
    with pytest.raises(MissingDependencyError, match=r"clasp-lib\[asr\]"):
        keywords("a query")


def test_a_language_that_is_none_is_refused() -> None:
    pytest.importorskip("yake")
    with pytest.raises(ClaspError, match="Persian"):
        keywords("a query", "Persian")


# Length ------------------------------------------------------------------------------------------------------------


def test_speaking_time_is_about_what_a_clip_takes(clips: list[Clip]) -> None:
    for clip in clips:
        if len(clip.text) > 20:
            assert len(clip.samples) / RATE == pytest.approx(speaking_time(clip.text), rel=0.6)
    assert speaking_time("A b-c.") == 3 / 15.3
