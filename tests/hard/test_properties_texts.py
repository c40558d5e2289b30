"""Laws of texts and splits: one form for each text, no text in two splits, nobody lost, no order that matters."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import strategies as st

from clasp_lib.corpus import CATEGORIES, SPLITS, Sentence, leaking_texts, normalise_text, reference_split, split_by_text
from clasp_lib.errors import TextError
from clasp_lib.hard_negatives import delete_words
from clasp_lib.text_normalisation import normalise, words
from hard.properties import holds

LANGUAGES = st.sampled_from([None, "en", "de", "fr", "es", "fa", "ar", "ur", "tr", "ru", "ro", "yi", "zh", "ja", "th"])
TRICKY = "aAiIİıßœæﬁl'’‘`´\u200b\u200c\u200d\ufe0f\u0301\u0654\u064b\u0640اٱبيیكکهۀەميها٣۳3中国，カﾞガกำ.-ː"
TRICKY += "ΣςΆŉ½Ⅷ²\u05d0\u05b0\u00ad"
TEXTS = st.one_of(st.text(max_size=20), st.text(alphabet=TRICKY + " \n\t", max_size=14))


@holds(160, text=TEXTS, language=LANGUAGES)
def test_what_is_normalised_stays_as_it_is(text: str, language: str | None) -> None:
    once = normalise(text, language)
    assert normalise(once, language) == once
    assert once == once.strip() and "  " not in once
    assert all(c == " " or unicodedata.category(c)[0] in "LMN" for c in once)


@holds(120, text=TEXTS, language=LANGUAGES)
def test_another_way_to_write_the_same_characters_is_the_same_text(text: str, language: str | None) -> None:
    once = normalise(text, language)
    for form in ("NFC", "NFD"):
        assert normalise(unicodedata.normalize(form, text), language) == once, form
    assert normalise(f" {text}\n", language) == once


@holds(80, text=TEXTS, language=LANGUAGES)
def test_words_are_the_normalised_text_without_its_spaces(text: str, language: str | None) -> None:
    found = words(text, language)
    assert "".join(found) == normalise(text, language).replace(" ", "")
    assert all(word and " " not in word for word in found)


@holds(40, text=st.text(alphabet=st.characters(categories=["Cs", "Cc", "Cf", "Co", "Cn", "Zl", "Zs"]), max_size=9))
def test_what_nobody_can_see_is_no_text(text: str) -> None:
    assert normalise(text) == "" and words(text) == []


# Splits ------------------------------------------------------------------------------------------------------------

SAID = ("One.", "one", "ONE!", "Two", "two  ", "Three", "été", "e\u0301te\u0301", "چهار", "", "?")


@st.composite
def corpora(draw: st.DrawFn) -> list[Sentence]:
    """Sentences many of which say the same, in one category or in two."""
    count = draw(st.integers(0, 40))
    texts = st.one_of(st.sampled_from(SAID), st.integers(0, 60).map(lambda i: f"sentence {i}"))
    rows = draw(st.lists(st.tuples(texts, st.sampled_from(CATEGORIES[:3])), min_size=count, max_size=count))
    return [Sentence(f"id-{i}", text, category) for i, (text, category) in enumerate(rows)]


SHARES = st.lists(st.integers(0, 10), min_size=3, max_size=3).filter(any)


def fractions_of(shares: Sequence[int]) -> dict[str, float]:
    return {split: share / sum(shares) for split, share in zip(SPLITS, shares, strict=True)}


@holds(24, corpus=corpora(), shares=SHARES, seed=st.integers(0, 99), shuffle=st.integers(0, 99))
def test_splits_share_no_text_and_lose_nobody(
    corpus: list[Sentence], shares: list[int], seed: int, shuffle: int
) -> None:
    fractions = fractions_of(shares)
    dealt = split_by_text(corpus, fractions, seed)  # type: ignore[arg-type]
    assert tuple(dealt) == SPLITS
    assert Counter(s.id for part in dealt.values() for s in part) == Counter(s.id for s in corpus)
    for split in SPLITS:
        others = [s.text for other in SPLITS if other != split for s in dealt[other]]
        assert leaking_texts([s.text for s in dealt[split]], others) == []
        places = [corpus.index(s) for s in dealt[split]]
        assert places == sorted(places)  # in the order of the corpus
    order = np.random.default_rng(shuffle).permutation(len(corpus))
    again = split_by_text([corpus[i] for i in order], fractions, seed)  # type: ignore[arg-type]
    assert {split: {s.id for s in part} for split, part in again.items()} == {
        split: {s.id for s in part} for split, part in dealt.items()
    }


@holds(16, corpus=corpora(), shares=SHARES, seed=st.integers(0, 99))
def test_each_category_is_dealt_in_the_shares_that_were_asked_for(
    corpus: list[Sentence], shares: list[int], seed: int
) -> None:
    fractions = fractions_of(shares)
    dealt = split_by_text(corpus, fractions, seed)  # type: ignore[arg-type]
    home = {normalise_text(s.text): s.category for s in sorted(corpus, key=lambda s: s.category, reverse=True)}
    for category in CATEGORIES[:3]:
        texts = {text for text, first in home.items() if first == category}
        for split, share in fractions.items():
            here = {normalise_text(s.text) for s in dealt[split]} & texts  # type: ignore[index]
            assert abs(len(here) - share * len(texts)) <= 1 + 1e-9


@holds(16, corpus=corpora(), extra=st.integers(1, 30), seed=st.integers(0, 99))
def test_another_category_moves_nobody(corpus: list[Sentence], extra: int, seed: int) -> None:
    further = [Sentence(f"new-{i}", f"something else {i}", CATEGORIES[-1]) for i in range(extra)]
    before, after = split_by_text(corpus, seed=seed), split_by_text([*further, *corpus], seed=seed)
    assert all([s for s in after[split] if s.category != CATEGORIES[-1]] == before[split] for split in SPLITS)


@holds(16, corpus=corpora(), seed=st.integers(0, 99), draw=st.data())
def test_the_split_of_the_reference_has_the_sizes_that_were_asked_for(
    corpus: list[Sentence], seed: int, draw: st.DataObject
) -> None:
    left, sizes = len(corpus), {}
    for split in SPLITS:
        sizes[split] = draw.draw(st.integers(0, left))
        left -= sizes[split]
    dealt = reference_split(corpus, sizes, seed)
    assert {split: len(part) for split, part in dealt.items()} == sizes
    ids = [s.id for part in dealt.values() for s in part]
    assert len(set(ids)) == len(ids)
    assert reference_split(corpus[::-1], sizes, seed) == dealt


@holds(
    80, text=st.lists(st.sampled_from(["one", "two,", "–", "Drei.", "4", "?!"]), max_size=12), seed=st.integers(0, 9)
)
def test_a_shortened_text_keeps_some_words_in_their_order(text: list[str], seed: int) -> None:
    spoken = [word for word in text if any(map(str.isalnum, word))]
    rng = np.random.default_rng(seed)
    if len(spoken) < 2:
        with pytest.raises(TextError, match="fewer than two words"):
            delete_words(" ".join(text), rng)
        return
    kept = delete_words(" ".join(text), rng).split()
    left = [word for word in kept if any(map(str.isalnum, word))]
    assert 0 < len(left) < len(spoken) and [word for word in kept if word not in spoken] == [
        word for word in text if word not in spoken
    ]
    rest = iter(text)
    assert all(word in rest for word in kept)  # a subsequence
