"""What is said must not depend on how it is written: letters, digits, spaces and marks of all scripts."""

from __future__ import annotations

import hashlib
import random
import unicodedata
from pathlib import Path

import pytest
from conftest import real_texts

from clasp_lib.corpus import pocket_brown, pocket_translations
from clasp_lib.errors import ClaspError, TextError
from clasp_lib.text_normalisation import language_code, normalise, words

LANGUAGES = ("en", "fa", "de", "fr", "es", "zh-CN")


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        # Persian: two keyboards, three ways to write a half-space, tatweel, vowel signs, digits
        ("fa", "كتاب‌هاي علي", "کتاب های علی"),
        ("fa", "می\u200cتواند", "می تواند"),
        ("fa", "نمی‌تواند", "نمیتواند"),
        ("fa", "بزرگ‌ترین شهر", "بزرگ ترین شهر"),
        ("fa", "سـلام", "سلام"),
        ("fa", "لطفاً، مَن!", "لطفا من"),
        ("fa", "خانهٔ ما", "خانۀ ما"),
        ("fa", "مسأله ۱۴۰۲", "مساله 1402"),
        ("fa", "سلام؟", "سلام"),
        ("fa", "ﺳﻼﻡ", "سلام"),
        ("ar", "إِلَى المَدرَسَةِ", "الي المدرسه"),
        ("ar", "٢٠٢٤", "2024"),
        ("ur", "كہاں ھے", "کہاں ھے"),
        # Chinese and Japanese: no spaces, wide forms
        ("zh", "我爱 Ｐｙｔｈｏｎ，对吗？", "我爱python 对吗"),
        ("zh-CN", "严士鑫，上海人。", "严士鑫上海人"),
        ("ja", "ｶﾞﾗｽ・の 窓。", "ガラスの窓"),
        ("th", "สวัสดี ครับ ๑๒", "สวัสดีครับ12"),
        # European: apostrophes, ligatures, case, composed and decomposed
        ("fr", "L’amie d'Œdipe", "l amie d oedipe"),
        ("fr", "ex æquo", "ex aequo"),
        ("fr", "l´été", "l'e\u0301te\u0301"),
        ("de", "Wie geht’s der Straße?", "wie gehts der STRASSE"),
        ("de", "„Über“ den Fluß", "u\u0308ber den fluss"),
        ("en", "Don’t stop, O‘Brien", "dont stop OBrien"),
        ("es", "¿Qué? ¡Así es!", "qué así es"),
        ("tr", "İSTANBUL IŞIK", "istanbul ışık"),
        ("en", "İstanbul", "Istanbul"),
        ("uk", "м’ята", "мʼята"),
        ("ru", "Ещё ёлка", "еще елка"),
        ("ro", "şi ţară", "și țară"),
        ("he", "שָׁלוֹם", "שלום"),
        ("hi", "१२ किताब।", "12 किताब"),
        # For all
        (None, "\ufeffsoft\u00adhyphen ﬁne", "softhyphen fine"),
        (None, "كي", "کی"),
        (None, "a\u00a0b\u2009c—d", "a b c d"),
    ],
)
def test_the_same_words_are_the_same(language: str | None, one: str, other: str) -> None:
    assert normalise(one, language) == normalise(other, language) != ""


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        ("fa", "آن", "ان"),  # two words
        ("ps", "ښځي", "ښځی"),  # Pashto tells the two yehs apart
        ("da", "æble", "aeble"),
        ("de", "schon", "schön"),
        ("fr", "la", "là"),
        ("tr", "sinir", "sınır"),
        ("yi", "אַ", "אָ"),
        ("hi", "का", "कि"),
        ("zh", "国", "國"),
        ("en", "re-form", "reform"),
        (None, "一", "1"),
    ],
)
def test_other_words_stay_others(language: str | None, one: str, other: str) -> None:
    assert normalise(one, language) != normalise(other, language)


@pytest.mark.parametrize(
    ("language", "text", "found"),
    [
        ("en", "Don't stop at 3.", ["dont", "stop", "at", "3"]),
        ("fr", "L’été d'or", ["l", "été", "d", "or"]),
        ("de", "Geht's dir gut?", ["gehts", "dir", "gut"]),
        ("zh", "我爱Python，你呢？", ["我", "爱", "python", "你", "呢"]),
        ("ja", "東京へ 行く", ["東", "京", "へ", "行", "く"]),
        ("th", "ที่นี่", ["ที่", "นี่"]),
        ("fa", "کتاب‌ها را می‌خوانم", ["کتابها", "را", "میخوانم"]),
        ("ko", "안녕 하세요", ["안녕", "하세요"]),
        (None, " … ", []),
    ],
)
def test_words_are_counted_as_the_script_has_them(language: str | None, text: str, found: list[str]) -> None:
    assert words(text, language) == found


@pytest.mark.parametrize("language", [None, "fa", "ar", "ur", "fr", "tr", "yi", "zh"])
def test_what_is_normalised_stays_as_it_is(language: str | None) -> None:
    rng = random.Random(0)
    signs = "aAiIİıßœæl'’‘ \u200c\u200d\u0301\u0654\u064b\u0640اٱبيیكکهۀەميها٣۳3中国，カﾞガกำ.-´ː"
    signs += "\u05d0\u05b0\u00ad\u0345ΣςΆŉ½"
    for _ in range(2_000):
        once = normalise("".join(rng.choices(signs, k=rng.randint(1, 10))), language)
        assert normalise(once, language) == once
        assert not once.startswith(" ") and not once.endswith(" ") and "  " not in once


def test_no_character_of_unicode_is_a_problem() -> None:
    for code in [*range(0xD800), *range(0xE000, 0x30000, 7)]:
        found = normalise(f"a{chr(code)}b")
        assert normalise(found) == found
        assert all(c == " " or unicodedata.category(c)[0] in "LMN" for c in found), hex(code)


@pytest.mark.parametrize(
    ("code", "language"),
    [("fa", "fa"), ("zh-CN", "zh"), ("cmn_hans_cn", "zh"), ("PT-br", "pt"), ("fas", "fa"), ("ckb_iq", "ckb")],
)
def test_codes_of_three_kinds_name_the_same_language(code: str, language: str) -> None:
    assert language_code(code) == language


@pytest.mark.parametrize("code", ["Persian", "", "e", "12", "zh CN", " fa", 5, None])
def test_what_is_no_code_is_refused(code: str) -> None:
    with pytest.raises(ClaspError, match=r"is no language code\. Give two or three letters"):
        language_code(code)


def test_a_language_without_rules_is_treated_by_script() -> None:
    assert normalise("Habari, DUNIA!", "sw") == normalise("Habari, DUNIA!") == "habari dunia"


def test_no_text_is_refused() -> None:
    with pytest.raises(TextError, match="is a NoneType; give a string"):
        normalise(None)  # type: ignore[arg-type]


def test_the_texts_that_splits_were_made_with_are_as_ever() -> None:
    """Splits and ids are made from normalised texts: another character here would move sentences from train to test."""
    lines = "\n".join(normalise(sentence.text) for sentence in pocket_brown())
    assert (
        hashlib.sha256(lines.encode()).hexdigest() == "e26cd186e025ea4e03b9528672c43b8c967f96e74468dbf07941369bf4a2a199"
    )


def test_the_shipped_translations_are_words_of_their_script() -> None:
    for language, script in (("fa", "ARABIC"), ("zh", "CJK"), ("de", "LATIN"), ("fr", "LATIN"), ("es", "LATIN")):
        for text in pocket_translations()[language].values():
            for word in words(text, language):
                assert all(script in unicodedata.name(c) or c.isdecimal() for c in word), word
            assert len(words(text, language)) >= 3


@pytest.mark.parametrize("language", LANGUAGES)
def test_real_texts_survive_another_spelling(test_data: Path, language: str) -> None:
    others = str.maketrans({"ی": "ي", "ک": "ك", "ا": "ا\u0640", ".": "۔", ",": "，", "'": "’", "。": " "})
    texts = real_texts(test_data, language)
    assert len(texts) == 100
    for text in texts:
        for other in (text.translate(others), text.upper(), unicodedata.normalize("NFD", text), f"«{text}»\u200f"):
            assert normalise(other, language) == normalise(text, language) != "", text


@pytest.mark.parametrize("language", LANGUAGES)
def test_real_texts_become_words_of_their_alphabet(test_data: Path, language: str) -> None:
    letters = {
        "en": "abcdefghijklmnopqrstuvwxyz",
        "de": "abcdefghijklmnopqrstuvwxyzäöü",
        "fr": "abcdefghijklmnopqrstuvwxyzàâçèéêëîïôùûü",
        "es": "abcdefghijklmnopqrstuvwxyzáéíóúüñ",
        "fa": "آابپتثجچحخدذرزژسشصضطظعغفقکگلمنوهیئؤء",
    }
    for text in real_texts(test_data, language):
        found = words(text, language)
        if language == "zh-CN":
            assert found == [c for c in text if unicodedata.name(c).startswith("CJK")]
        else:
            strangers = set("".join(found)) - set(letters[language] + "0123456789")
            assert not strangers, (text, strangers)


def test_distinct_real_texts_stay_distinct(test_data: Path) -> None:
    for language in LANGUAGES:
        texts = real_texts(test_data, language)
        assert len({normalise(text, language) for text in texts}) == len(set(texts)), language
