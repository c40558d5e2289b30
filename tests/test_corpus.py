"""Pocket Brown is what it claims to be; Brown is cleaned as the reference does it; no text crosses a split."""

from __future__ import annotations

import collections
import hashlib
import re
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest

from clasp_lib.corpus import (
    BROWN_SHA256,
    BROWN_URL,
    CATEGORIES,
    REFERENCE_SIZES,
    SPLITS,
    Sentence,
    brown,
    clean_as_reference,
    download_brown,
    join_brown_tokens,
    leaking_texts,
    normalise_text,
    pocket_brown,
    pocket_translations,
    reference_split,
    split_by_text,
)
from clasp_lib.errors import DatasetError

# Words without content of their own: what two sentences share of these says nothing about their likeness.
FUNCTION_WORDS = set(
    re.findall(
        r"\w+",
        """a about after again all also am among an and any are around as at be because been before being between both
        but by can could did do does done down during each even ever every few for from had has have having he her
        him his how i if in into is it its just many may me might mine more most much must my near never no nor not
        of off on once one only onto or our out over own same shall she should so some still such than that the
        their them then there these they this those through to too toward under until up upon us very was we were
        what when where which while who whom whose why will with without would yes yet you your""",
    )
)

# The true counts. The published table differs, because its labels were looked up by text.
BROWN_COUNTS = {
    "adventure": 4604,
    "belles_lettres": 6756,
    "editorial": 2898,
    "fiction": 4163,
    "government": 2793,
    "hobbies": 4090,
    "humor": 1006,
    "learned": 7325,
    "lore": 4662,
    "mystery": 3854,
    "news": 4483,
    "religion": 1585,
    "reviews": 1673,
    "romance": 4342,
    "science_fiction": 939,
}


@pytest.fixture(scope="module")
def sentences() -> list[Sentence]:
    return pocket_brown()


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z]+(?:'[a-z]+)*", text.lower().replace("’", "'"))


# Pocket Brown ------------------------------------------------------------------------------------------------------


def test_pocket_brown_is_large_enough(sentences: list[Sentence]) -> None:
    counts = collections.Counter(s.category for s in sentences)
    assert len(sentences) >= 2400
    assert set(counts) == set(CATEGORIES) and len(CATEGORIES) == 15
    assert min(counts.values()) >= 160
    assert len({word for s in sentences for word in words_of(s.text)}) >= 6500


def test_pocket_brown_has_sentences_that_can_be_read_aloud(sentences: list[Sentence]) -> None:
    for sentence in sentences:
        assert 6 <= len(sentence.text.split()) <= 25, sentence
        assert sentence.text == " ".join(sentence.text.split()), sentence
        assert sentence.text[-1] in ".?!\"'", sentence
        assert not re.search(r"\d", sentence.text), sentence


def test_pocket_brown_holds_nothing_twice(sentences: list[Sentence]) -> None:
    assert len({s.id for s in sentences}) == len(sentences)
    repeated = [t for t, n in collections.Counter(normalise_text(s.text) for s in sentences).items() if n > 1]
    assert not repeated


def test_no_two_sentences_of_pocket_brown_are_alike(sentences: list[Sentence]) -> None:
    contents = [set(words_of(s.text)) - FUNCTION_WORDS for s in sentences]
    column = {word: i for i, word in enumerate(sorted(set().union(*contents)))}
    holds = np.zeros((len(contents), len(column)), np.float32)  # (sentences, words)
    for row, content in enumerate(contents):
        holds[row, [column[word] for word in content]] = 1
    shared = holds @ holds.T  # (sentences, sentences)
    sizes = holds.sum(1)
    overlap = shared / np.maximum(sizes[:, None] + sizes[None] - shared, 1)
    np.fill_diagonal(overlap, 0)
    a, b = np.unravel_index(overlap.argmax(), overlap.shape)
    assert overlap[a, b] <= 0.5, (sentences[a], sentences[b])


def test_pocket_brown_ships_with_its_card() -> None:
    from clasp_lib.encoders.checkpoints import pocket_folder

    cards = [p for p in pocket_folder("brown").iterdir() if p.suffix == ".md"]
    assert cards and "CC0" in cards[0].read_text("utf-8")


# Brown -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("The Fulton County Grand Jury said Friday .", "The Fulton County Grand Jury said Friday."),
        ("`` Is it ? '' he asked ; nobody knew !", "`` Is it? '' he asked ; nobody knew!"),
        ('She said " no " , twice', 'She said" no" , twice'),
        ("Wait ... what", "Wait... what"),
        ("No.5 ( five )", "No.5 ( five )"),
    ],
)
def test_brown_tokens_are_joined_as_the_reference_does(tokens: str, text: str) -> None:
    assert join_brown_tokens(tokens.split()) == text


def write_brown(path: Path, files: dict[str, str], cats: str | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        if cats is not None:
            archive.writestr("brown/cats.txt", cats)
        for name, content in files.items():
            archive.writestr(f"brown/{name}", content)
    return path


def test_brown_is_read_from_the_layout_of_nltk(tmp_path: Path) -> None:
    long, longest = ("\t" + " ".join(["word/nn"] * (n - 1) + ["./."]) for n in (48, 47))
    content = f"\n\n\tThe/at half/abn 1/2/cd ./.\n\n{long}\n{longest}\n"
    path = write_brown(
        tmp_path / "brown.zip", {"ca01": content, "cb01": "``/`` Yes/rb ''/'' ?/.\n"}, "ca01 news\ncb01 editorial\n"
    )
    sentences = brown(path)
    assert [s.category for s in sentences] == ["news", "news", "editorial"]
    assert sentences[0].text == "The half 1/2."
    assert len(sentences[1].text.split()) == 46  # 47 tokens, the full stop joined on
    assert sentences[2].text == "`` Yes ''?"
    assert [s.id for s in sentences] == ["ca01-0001", "ca01-0003", "cb01-0001"]  # the long one keeps its number


def damaged_zips(folder: Path) -> dict[str, Path]:
    good = write_brown(folder / "good.zip", {"ca01": "The/at cat/nn ./.\n" * 500}, "ca01 news\n").read_bytes()
    made = {
        "missing file": folder / "nowhere.zip",
        "folder": folder,
        "NUL in the name": Path("brown\0.zip"),
        "no categories": write_brown(folder / "no-cats.zip", {"ca01": "The/at cat/nn"}),
        "no document": write_brown(folder / "no-document.zip", {}, "ca01 news\n"),
        "categories of another kind": write_brown(folder / "kind.zip", {}, "ca01\n"),
        "not ASCII": write_brown(folder / "ascii.zip", {"ca01": "café/nn"}, "ca01 news\n"),
    }
    start = good.find(b"brown/ca01") + len("brown/ca01")
    for name, content in {
        "not a zip": b"Brown corpus",
        "empty": b"",
        "truncated": good[: len(good) // 2],
        "damaged inside": good[:start] + b"\xff" * 8 + good[start + 8 :],
    }.items():
        made[name] = folder / f"{name}.zip"
        made[name].write_bytes(content)
    return made


def test_a_bad_brown_zip_is_refused_by_name(tmp_path: Path) -> None:
    for what, path in damaged_zips(tmp_path).items():
        with pytest.raises(DatasetError, match=re.escape(str(path))):
            pytest.fail(f"{what}: {len(brown(path))} sentences were read")


def test_the_real_brown_gives_the_published_number_of_sentences(test_data: Path) -> None:
    path = test_data / "brown" / "brown.zip"
    if not path.is_file():
        pytest.skip(f"CLASP_TEST_DATA names a folder without this part of the developers' data: {path}")
    sentences = brown(path)
    assert len(sentences) == 55_173
    assert collections.Counter(s.category for s in sentences) == BROWN_COUNTS
    assert len({s.id for s in sentences}) == len(sentences)


# Splits ------------------------------------------------------------------------------------------------------------


def with_repeats(sentences: list[Sentence]) -> list[Sentence]:
    """Texts that occur again in other categories, case and punctuation."""
    again = [
        Sentence(f"again-{i}", s.text.upper().replace(",", ""), CATEGORIES[i % 15])
        for i, s in enumerate(sentences[::7])
    ]
    return [*sentences, *again]


def test_no_text_is_in_two_splits(sentences: list[Sentence]) -> None:
    splits = split_by_text(with_repeats(sentences))
    texts = {split: {normalise_text(s.text) for s in part} for split, part in splits.items()}
    assert not texts["train"] & texts["validation"]
    assert not texts["train"] & texts["test"]
    assert not texts["validation"] & texts["test"]
    assert sum(map(len, splits.values())) == len(with_repeats(sentences))


def test_a_split_depends_on_text_and_seed_alone(sentences: list[Sentence]) -> None:
    splits = split_by_text(with_repeats(sentences))
    order = np.random.default_rng(0).permutation(len(with_repeats(sentences)))
    shuffled = split_by_text([with_repeats(sentences)[i] for i in order])
    for split in SPLITS:
        assert set(splits[split]) == set(shuffled[split])
    assert split_by_text(sentences, seed=0) == split_by_text(sentences, seed=0)
    assert split_by_text(sentences, seed=0) != split_by_text(sentences, seed=1)


@pytest.mark.parametrize("fractions", [None, {"train": 0.5, "test": 0.5}, {"validation": 1.0}])
def test_each_category_is_dealt_by_the_fractions(sentences: list[Sentence], fractions: dict | None) -> None:
    splits = split_by_text(sentences, fractions)
    shares = fractions or {"train": 0.75, "validation": 0.10, "test": 0.15}
    totals = collections.Counter(s.category for s in sentences)
    for split in SPLITS:
        counts = collections.Counter(s.category for s in splits[split])
        for category in CATEGORIES:
            assert abs(counts[category] - shares.get(split, 0) * totals[category]) <= 1


@pytest.mark.parametrize(
    "fractions",
    [
        {"train": 0.9},
        {"train": 1.2, "test": -0.2},
        {"train": 0.5, "dev": 0.5},
        {"train": float("nan"), "test": 0.5},
        {"train": float("inf")},
    ],
)
def test_fractions_that_make_no_sense_are_refused(fractions: dict) -> None:
    with pytest.raises(DatasetError, match="sum to 1"):
        split_by_text([Sentence("a", "One sentence.", "news")], fractions)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Don’t stop — ever!", "don't stop ever"),
        ("A\u00a0B  c", "a b C."),
        ("CAFE\u0301", "café"),
        ("stra\u00dfe", "STRASSE"),
    ],
)
def test_texts_that_sound_the_same_are_the_same(one: str, other: str) -> None:
    assert normalise_text(one) == normalise_text(other) != ""


def test_translations_are_of_test_sentences_and_in_their_script() -> None:
    test = {sentence.id for sentence in split_by_text(pocket_brown())["test"]}
    translations = pocket_translations()
    assert list(translations) == ["de", "fr", "es", "fa", "zh"]
    for texts in translations.values():
        assert len(texts) == 40 and set(texts) <= test and len(set(texts.values())) == 40
    assert all("ARABIC" in unicodedata.name(text[0]) for text in translations["fa"].values())
    assert all("CJK" in unicodedata.name(text[0]) for text in translations["zh"].values())


def test_brown_is_downloaded_once_and_only_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(url: str, target: str, hash_prefix: str) -> None:
        asked.append((url, hash_prefix))
        Path(target).write_bytes(b"zip")

    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    file = download_brown(tmp_path / "new")
    assert download_brown(tmp_path / "new") == file and asked == [(BROWN_URL, BROWN_SHA256)]

    def fail(url: str, target: str, hash_prefix: str) -> None:
        raise RuntimeError("invalid hash value")

    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    with pytest.raises(DatasetError, match=r"cannot be downloaded \(invalid hash value\)\. Get brown\.zip"):
        download_brown(tmp_path / "other")


def test_the_known_digest_is_that_of_nltk(test_data: Path) -> None:
    assert hashlib.sha256((test_data / "brown" / "brown.zip").read_bytes()).hexdigest() == BROWN_SHA256


def test_vowel_signs_are_part_of_a_text() -> None:
    assert normalise_text("का ।") == "का" != normalise_text("कि")


# The reference's split ---------------------------------------------------------------------------------------------


def texts_of(sentences: list[Sentence]) -> list[str]:
    return [s.text for s in sentences]


def test_a_split_by_id_leaks_and_a_split_by_text_does_not(sentences: list[Sentence]) -> None:
    """The defect of the reference: a sentence that occurs twice is trained on and tested on."""
    repeated = with_repeats(sentences)
    sizes = {"train": len(repeated) // 2, "test": len(repeated) // 4}
    by_id, by_text = reference_split(repeated, sizes), split_by_text(repeated, {"train": 0.5, "test": 0.5})
    assert len(leaking_texts(texts_of(by_id["test"]), texts_of(by_id["train"]))) > len(repeated) // 50
    assert leaking_texts(texts_of(by_text["test"]), texts_of(by_text["train"])) == []


def test_leaking_texts_are_found_in_capitals_and_counted_as_often_as_they_occur() -> None:
    assert leaking_texts(["Yes , it is.", "No.", "YES IT IS", "Maybe"], ["yes, it is!", "Never."]) == [
        "Yes , it is.",
        "YES IT IS",
    ]
    assert leaking_texts([], ["a"]) == leaking_texts(["a"], []) == []


def test_a_split_by_id_has_the_sizes_asked_for_and_holds_nothing_twice(sentences: list[Sentence]) -> None:
    sizes = {"train": 100, "validation": 7, "test": 20}
    splits = reference_split(sentences, sizes)
    assert {split: len(part) for split, part in splits.items()} == sizes
    assert len({s.id for part in splits.values() for s in part}) == 127
    assert reference_split(sentences[::-1], sizes) == splits != reference_split(sentences, sizes, seed=1)


@pytest.mark.parametrize("sizes", [None, {"train": 5, "test": -1}, {"train": 1, "dev": 1}, {"train": 3, "test": 2}])
def test_sizes_that_make_no_sense_are_refused(sizes: dict | None) -> None:
    four = [Sentence(f"s{i}", "Again.", "news") for i in range(4)]
    with pytest.raises(DatasetError, match="4 in all at most"):
        reference_split(four, *([sizes] if sizes else []))


def test_an_id_that_occurs_twice_is_refused() -> None:
    with pytest.raises(DatasetError, match="only once"):
        reference_split([Sentence("a", "One.", "news"), Sentence("a", "Two.", "news")], {"train": 1})


def test_the_sizes_of_the_reference_are_the_published_mixture() -> None:
    totals = {split: sum(sizes[split] for sizes in REFERENCE_SIZES.values()) for split in SPLITS}
    assert totals == {"train": 91_294, "validation": 11_412, "test": 11_411}


def test_the_reference_leaks_about_two_hundred_test_sentences(test_data: Path) -> None:
    path = test_data / "brown" / "brown.zip"
    if not path.is_file():
        pytest.skip(f"CLASP_TEST_DATA names a folder without this part of the developers' data: {path}")
    sentences = brown(path)
    for seed in range(3):
        splits = reference_split(sentences, seed=seed)
        assert [len(splits[split]) for split in SPLITS] == [38_692, 7_526, 8_567]
        assert 150 < len(leaking_texts(texts_of(splits["test"]), texts_of(splits["train"]))) < 260
    splits = split_by_text(sentences)
    assert leaking_texts(texts_of(splits["test"]), texts_of(splits["train"])) == []


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (' "Don\'t stop," she said. ', "dont stop she said"),
        ("Well-known — isn’t it?", "wellknown — isn’t it"),  # ASCII alone
        ("...", ""),
    ],
)
def test_texts_are_cleaned_as_the_reference_does(text: str, clean: str) -> None:
    assert clean_as_reference(text) == clean
