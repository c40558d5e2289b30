"""Probes find what is there, do not find what is not, and never judge on sentences that they were fitted on."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut, cross_val_predict

from clasp_lib.errors import ClaspError
from clasp_lib.probes import PENALTIES, _fit, _folds, probe


def blobs(n: int, classes: int, width: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (n, width) around a centre for each class, and the classes as names."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(classes, size=n)
    centres = rng.standard_normal((classes, width))
    return centres[numbers] + spread * rng.standard_normal((n, width)), np.array([f"class {i}" for i in numbers])


def test_classes_that_lie_apart_are_read_and_shuffled_ones_are_not() -> None:
    vectors, labels = blobs(300, 3, 20, 0.3)
    found = probe(vectors, labels, range(300))
    assert found.measure == "accuracy" and found.score.value > 0.99
    assert found.chance == max(np.mean(labels == name) for name in set(labels))
    assert found.control.value < found.chance + 0.1
    assert found.scores.shape == (300,) and found.scores.mean() == pytest.approx(found.score.value)


def test_noise_tells_nothing() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((300, 50))
    classes = probe(vectors, rng.integers(2, size=300).astype(bool), range(300))
    numbers = probe(vectors, rng.standard_normal(300), range(300))
    assert classes.measure == "accuracy" and abs(classes.score.value - 0.5) < 0.1
    assert numbers.measure == "r2" and abs(numbers.score.value) < 0.05 and numbers.chance == 0


def test_a_number_is_read_as_far_as_a_line_can() -> None:
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((2000, 5))
    seconds = 10 + vectors @ np.array([1.0, 2, 0, 0, 2]) + 3 * rng.standard_normal(2000)  # half is noise
    found = probe(vectors, seconds, range(2000))
    assert found.score.value == pytest.approx(0.5, abs=0.04)
    assert found.score.low < 0.5 < found.score.high
    assert probe(np.tile(seconds[:, None], 2), seconds, range(2000)).score.value > 0.999


def test_the_scale_of_a_column_and_constant_columns_do_not_matter() -> None:
    vectors, labels = blobs(200, 4, 10, 1.0)
    scaled = np.c_[1000 * vectors, np.ones(200)]
    assert (probe(vectors, labels, range(200)).scores == probe(scaled, labels, range(200)).scores).all()


def test_it_does_as_well_as_logistic_regression() -> None:
    vectors, labels = blobs(400, 5, 30, 2.0)
    ours = probe(vectors, labels, range(400)).score.value
    theirs = cross_val_predict(LogisticRegression(C=0.1), vectors, labels, cv=GroupKFold(5), groups=range(400))
    assert ours == pytest.approx(np.mean(theirs == labels), abs=0.03)


def test_no_sentence_is_in_two_folds_and_classes_are_spread_evenly() -> None:
    rng = np.random.default_rng(3)
    codes = np.repeat(np.arange(60), rng.integers(1, 4, 60))
    values = (np.arange(60) % 3)[codes]
    fold = _folds(values, codes, 5, rng)
    assert all(len(set(fold[codes == group])) == 1 for group in range(60))
    firsts = np.unique(codes, return_index=True)[1]
    for number in range(5):
        assert (np.bincount(values[firsts][fold[firsts] == number], minlength=3) == 4).all()


def test_without_groups_twins_give_the_answer_away() -> None:
    """Each sentence twice, with a label by lot: by sentence there is nothing to read, by clip there is."""
    rng = np.random.default_rng(4)
    sentences = rng.standard_normal((150, 100))
    vectors = np.repeat(sentences, 2, axis=0) + 0.1 * rng.standard_normal((300, 100))
    labels = np.repeat(rng.integers(2, size=150).astype(str), 2)
    by_sentence, by_clip = (probe(vectors, labels, groups) for groups in (np.arange(300) // 2, np.arange(300)))
    assert by_sentence.score.value < 0.62 < 0.68 < by_clip.score.value
    assert by_sentence.groups == 150 and by_sentence.n == 300
    assert by_sentence.control.value < 0.62


def test_the_penalty_is_that_of_leaving_out_each_sentence() -> None:
    rng = np.random.default_rng(5)
    codes = np.repeat(np.arange(20), np.tile([1, 2, 3, 2], 5))
    for width in (8, 60):  # fewer and more columns than rows
        x = rng.standard_normal((len(codes), width))
        x -= x.mean(0)
        y = x[:, :1] + rng.standard_normal((len(codes), 1))
        errors = []
        for penalty in PENALTIES:
            guess = cross_val_predict(Ridge(alpha=penalty), x, y, groups=codes, cv=LeaveOneGroupOut())
            errors.append(((guess.reshape(y.shape) - y) ** 2).sum())
        best = Ridge(alpha=PENALTIES[int(np.argmin(errors))]).fit(x, y[:, 0])
        ((weights, offset),) = _fit(x, [y], codes)
        np.testing.assert_allclose(weights[:, 0], best.coef_, atol=1e-8)
        assert offset[0] == pytest.approx(best.intercept_)


def test_the_interval_of_r2_covers_the_truth() -> None:
    """Over 60 samples of which the true R² of the right line is 0.5; the linearised scores know that B is estimated."""
    hits = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((300, 1))
        found = probe(x, x[:, 0] + rng.standard_normal(300), range(300), resamples=400)
        hits += found.score.low <= 0.5 <= found.score.high
    assert hits >= 52  # 57 expected; fewer than 52 of 60 has a chance below 1%


def test_the_same_seed_gives_the_same_numbers() -> None:
    vectors, labels = blobs(100, 3, 5, 2.0)
    first, second, other = (probe(vectors, labels, range(100), seed) for seed in (0, 0, 1))
    assert first.score == second.score and first.control == second.control
    assert first.control != other.control


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": np.ones(10)}, "shape"),
        ({"vectors": np.full((10, 2), np.nan)}, "finite"),
        ({"labels": ["a"] * 10}, "all equal"),
        ({"labels": ["a"] * 9}, "9 labels"),
        ({"labels": [np.inf, *range(9)]}, "infinite"),
        ({"groups": ["one"] * 10}, "1 groups"),
        ({"folds": 1}, "at least 2"),
    ],
)
def test_bad_input_is_refused(change: dict, message: str) -> None:
    good = {"vectors": np.random.default_rng(0).random((10, 2)), "labels": ["a", "b"] * 5, "groups": range(10)}
    with pytest.raises(ClaspError, match=message):
        probe(**(good | change))


def test_classes_with_fewer_members_than_folds_are_no_trouble() -> None:
    vectors, _ = blobs(12, 2, 6, 1.0)
    assert 0 <= probe(vectors, [f"class {i // 2}" for i in range(12)], range(12)).score.value <= 1
