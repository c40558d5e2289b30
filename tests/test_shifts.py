"""What leaving a category or a length out of the training costs, on features whose structure is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from clasp_lib.errors import ClaspError
from clasp_lib.features import Features
from clasp_lib.shifts import domain_shift, length_shift, select

CATEGORIES = ("news", "romance", "lore")
WIDTH = 8


def made(split: str, sentences: int = 30, takes: int = 2) -> Features:
    """Each category speaks in dimensions of its own: nothing that is learnt of one helps with another."""
    rng = np.random.default_rng(sum(map(ord, split)))
    text = rng.standard_normal((sentences, WIDTH)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    text = np.repeat(text, takes, 0)
    number = np.repeat(np.arange(sentences), takes)
    speech = np.zeros((sentences * takes, WIDTH * len(CATEGORIES)), np.float32)
    turned = np.linalg.qr(np.random.default_rng(0).standard_normal((WIDTH, WIDTH)))[0]
    for row, kind in enumerate(number % len(CATEGORIES)):
        speech[row, kind * WIDTH : (kind + 1) * WIDTH] = text[row] @ turned + 0.02 * rng.standard_normal(WIDTH)
    texts = [" ".join(["word"] * (1 + n % 10)) + f" {split}{n}" for n in number]
    n = len(number)
    return Features(
        speech, speech[:, :4], text, [f"{split} {i}" for i in number], texts, [CATEGORIES[i % 3] for i in number],
        ["anna"] * n, columns={"number": np.arange(n)}, frames=[torch.full((2, 3), float(i)) for i in range(n)],
    )  # fmt: skip


TRAIN, VALIDATION, TEST = made("train", 60), made("validation"), made("test")


def fitted(train: Features, validation: Features, seed: int) -> Callable[[Features], np.ndarray]:
    """Ridge regression, on all but a few clips that the seed leaves out."""
    kept = np.random.default_rng(seed).permutation(len(train))[: len(train) - 4]
    x, y = train.speech[kept], train.text[kept]
    weights = np.linalg.solve(x.T @ x + 1e-3 * np.eye(x.shape[1]), x.T @ y)
    return lambda features: (features.speech @ weights).astype(np.float32)


def test_what_was_left_out_is_missed() -> None:
    rows = domain_shift(TRAIN, VALIDATION, TEST, fitted)
    assert [row["left_out"] for row in rows[::4]] == list(CATEGORIES)
    assert len(rows) == 3 * 2 * 2
    for row in rows:
        if row["direction"] == "speech_to_text":
            assert row["with_it"] > 0.9 and row["without"] < 0.3
        assert row["value"] == pytest.approx(row["without"] - row["with_it"])
        assert row["low"] - 1e-9 < row["value"] < row["high"] + 1e-9
        assert (row["n"], row["clips"], row["trained_on"], row["seeds"]) == (10, 20, 80, 3)
        assert row["p_value"] == max(row["p_items"], row["p_seeds"]) <= row["corrected"] <= 1
    assert rows[0]["p_items"] < 0.01 and rows[0]["p_seeds"] == 0.25  # three seeds can say no more


def test_both_trainings_get_as_much_of_everything_but_the_category() -> None:
    seen: list[tuple[Features, Features, int]] = []

    def spy(train: Features, validation: Features, seed: int) -> Callable[[Features], np.ndarray]:
        seen.append((train, validation, seed))
        return fitted(train, validation, seed)

    domain_shift(TRAIN, VALIDATION, TEST, spy, ["romance"], seeds=(4, 5))
    assert [seed for *_, seed in seen] == [4, 4, 5, 5]
    for train, validation, _ in seen[::2]:
        assert set(train.categories) == set(validation.categories) == {"news", "lore"}
        assert (len(train), len(validation)) == (80, 40)
    for train, validation, _ in seen[1::2]:
        assert set(train.categories) == set(validation.categories) == set(CATEGORIES)
        assert (len(train), len(validation)) == (80, 40)
        assert len(set(train.sentence_ids)) == 40  # whole sentences, each with both its takes
    assert seen[1][0].sentence_ids != seen[3][0].sentence_ids


def test_the_shortest_and_the_longest_are_left_out_in_turn() -> None:
    seen: list[Features] = []

    def spy(train: Features, validation: Features, seed: int) -> Callable[[Features], np.ndarray]:
        seen.append(train)
        return fitted(train, validation, seed)

    rows = length_shift(TRAIN, VALIDATION, TEST, spy, share=0.3, seeds=(0, 1), measures=["mrr"])
    assert [row["left_out"] for row in rows] == ["shortest", "shortest", "longest", "longest"]
    words = [sorted({len(text.split()) for text in train.texts}) for train in seen]
    assert words[0] == list(range(5, 12)) and words[4] == list(range(2, 9))
    assert words[1] == words[5] == list(range(2, 12))
    seconds = {id(part): np.linspace(1, 9, len(part)) for part in (TRAIN, VALIDATION, TEST)}
    seen.clear()
    length_shift(TRAIN, VALIDATION, TEST, spy, lambda part: seconds[id(part)], 0.5, seeds=(0, 1))
    assert seen[0].sentence_ids == TRAIN.sentence_ids[60:] and seen[4].sentence_ids == TRAIN.sentence_ids[:60]


def test_selected_clips_keep_all_that_is_known_of_them() -> None:
    part = select(TEST, np.array([5, 2]))
    assert (part.speech == TEST.speech[[5, 2]]).all() and (part.text == TEST.text[[5, 2]]).all()
    assert part.picture.shape == (2, 4)
    assert part.texts == [TEST.texts[5], TEST.texts[2]] and part.categories == [TEST.categories[5], TEST.categories[2]]
    assert part.columns["number"].tolist() == [5, 2]
    assert part.frames is not None and [frame[0, 0].item() for frame in part.frames] == [5, 2]


def test_bad_input_is_named() -> None:
    with pytest.raises(ClaspError, match="poetry: the training split has none of it"):
        domain_shift(TRAIN, VALIDATION, TEST, fitted, ["poetry"])
    news = select(TRAIN, np.array([i for i, name in enumerate(TRAIN.categories) if name == "news"]))
    with pytest.raises(ClaspError, match="news: the training split has nothing else"):
        domain_shift(news, VALIDATION, TEST, fitted, ["news"])
    with pytest.raises(ClaspError, match="give two at least"):
        domain_shift(TRAIN, VALIDATION, TEST, fitted, seeds=(1, 1))
    with pytest.raises(ClaspError, match="measure 'f1' is not known"):
        domain_shift(TRAIN, VALIDATION, TEST, fitted, measures=["f1"])
    with pytest.raises(ClaspError, match="share: is 1"):
        length_shift(TRAIN, VALIDATION, TEST, fitted, share=1.0)
    with pytest.raises(ClaspError, match=r"lengths: gave shape \(3,\) for 120 clips"):
        length_shift(TRAIN, VALIDATION, TEST, fitted, lambda part: np.ones(3))
