"""Words go, and at least one stays; the vectors depend on the text alone."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import Encoders

from clasp_lib.errors import ClaspError, TextError
from clasp_lib.hard_negatives import delete_words, hard_negatives

TEXTS = [
    "The ferry left at dawn.",
    "She folded the map, wrongly.",
    "Under the bridge, somebody was teaching a parrot to count backwards from twenty.",
    "The ferry left at dawn.",
]


def is_subsequence(short: list[str], whole: list[str]) -> bool:
    rest = iter(whole)
    return all(word in rest for word in short)


@pytest.mark.parametrize(
    ("words", "share", "gone"), [(2, 0.3, 1), (3, 0.01, 1), (10, 0.3, 3), (10, 0.5, 5), (10, 0.99, 9), (2, 0.99, 1)]
)
def test_the_share_of_words_goes_and_the_rest_stays_in_order(words: int, share: float, gone: int) -> None:
    whole = [f"w{i}" for i in range(words)]
    rng = np.random.default_rng(0)
    for _ in range(20):
        short = delete_words(" ".join(whole), rng, share).split()
        assert len(short) == words - gone and is_subsequence(short, whole)


def test_every_word_can_go() -> None:
    rng = np.random.default_rng(0)
    found = {delete_words("one two three", rng) for _ in range(60)}
    assert found == {"two three", "one three", "one two"}


def test_a_dash_alone_is_no_word_and_stays() -> None:
    rng = np.random.default_rng(0)
    found = {delete_words("Gone — entirely !", rng, 0.9) for _ in range(40)}
    assert found == {"Gone — !", "— entirely !"}


@pytest.mark.parametrize("text", ["Rain.", "", "  ", "Rain — !", "下雨了。"])
def test_a_text_of_one_word_has_none_to_spare(text: str) -> None:
    with pytest.raises(TextError, match="fewer than two words"):
        delete_words(text, np.random.default_rng(0))


@pytest.mark.parametrize("share", [0, 1, -0.3, 1.5, float("nan")])
def test_a_share_beyond_its_bounds_is_refused(share: float) -> None:
    with pytest.raises(ClaspError, match="above 0 and below 1"):
        delete_words("two words", np.random.default_rng(0), share)


def test_the_vectors_are_those_of_texts_with_words_missing(encoders: Encoders) -> None:
    encoder = encoders[2]
    vectors = hard_negatives(TEXTS, encoder, k=3)
    assert vectors.shape == (4, 3, encoder.dimension) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, atol=1e-5)
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(vectors[2], np.roll(vectors[2], 1, axis=0)))  # each its own
    own = encoder.encode(TEXTS)
    assert np.einsum("nd,nkd->nk", own, vectors).max() < 0.99999  # none is the text itself
    words = TEXTS[0].split()
    pairs = [(i, j) for i in range(5) for j in range(i + 1, 5)]  # 30% of five words, rounded: two go
    possible = encoder.encode([" ".join(w for n, w in enumerate(words) if n not in pair) for pair in pairs])
    distances = np.abs(vectors[0][:, None] - possible[None]).max(axis=-1)  # (3, 10)
    assert (distances.min(axis=1) < 1e-5).all()


def test_they_depend_on_the_text_and_the_seed_alone(encoders: Encoders) -> None:
    encoder = encoders[2]
    vectors = hard_negatives(TEXTS, encoder, k=2)
    assert np.array_equal(vectors[0], vectors[3])  # the same text
    alone = hard_negatives(TEXTS[2:3], encoder, k=2)
    np.testing.assert_allclose(vectors[2], alone[0], atol=1e-5)  # the same text in another batch
    backwards = hard_negatives(TEXTS[::-1], encoder, k=2)
    np.testing.assert_allclose(backwards[::-1], vectors, atol=1e-5)
    assert np.abs(hard_negatives(TEXTS, encoder, k=2, seed=1)[2] - vectors[2]).max() > 1e-3


def test_what_has_no_negatives_is_named(encoders: Encoders) -> None:
    encoder = encoders[2]
    with pytest.raises(TextError, match=r"text number 1, 'Rain.' has fewer than two words.*Leave it out"):
        hard_negatives(["The ferry left.", "Rain."], encoder)
    with pytest.raises(TextError, match="text number 0 is None"):
        hard_negatives([None], encoder)  # type: ignore[list-item]
    with pytest.raises(ClaspError, match="k 0"):
        hard_negatives(TEXTS, encoder, k=0)
    assert hard_negatives([], encoder, k=2).shape == (0, 2, encoder.dimension)
