"""When are two texts the same, and how many words have they? One answer for all scripts.

Keyboards, corpora and recognisers write the same words with other code points: Persian with Arabic letters, digits of
three scripts, ligatures, apostrophes of five kinds. `normalise` leaves what is said: letters in lower case, their
marks and digits, in words with one space between them. `words` cuts that into what a word error rate counts, also where
a script has no spaces. What would need a dictionary is left as it is: numerals are not spelled out, traditional and
simplified Chinese stay two.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from clasp_lib.errors import ClaspError, TextError

_CODES = (
    "ar ara arb, az aze azj, ca cat, de deu ger, en eng, es spa, fa fas per pes prs, fr fra fre, hi hin, it ita, "
    "ja jpn, ko kor, oc oci, pt por, ro ron rum, ru rus, tr tur, ur urd, yi yid, zh zho chi cmn"
)
_SAME = {other: code for code, *others in map(str.split, _CODES.split(",")) for other in others}
"""Three-letter codes (ISO 639-2 and -3, as FLEURS has some) of languages that have one of two letters (639-1)."""

_APOSTROPHE = re.compile("['’ʼ\u02b9]|(?<=[^\\W\\d_])[‘`\u2032](?=[^\\W\\d_])")
"""Those that are nothing else, and between letters what looks like them."""

_ELISION = frozenset({"fr", "it", "ca", "oc", "co"})
"""Here an apostrophe stands between two words (l'ami); elsewhere it marks a letter that is left out (don't, geht's)."""

_SPACELESS = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    r"\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u30fa\u30fc-\u30ff\u31f0-\u31ff"  # kana, radicals, signs of Han
    r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
_NO_SPACE = re.compile(rf" (?=[{_SPACELESS}])|(?<=[{_SPACELESS}]) ")

# Vowel signs and the like, which writers put or leave out at will, and the line that only makes a word longer.
_ARABIC_SIGNS = re.compile("[\u0610-\u061a\u0640\u064b-\u0652\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed]")
_HEBREW_POINTS = re.compile("[\u0591-\u05bd\u05bf\u05c1-\u05c2\u05c4-\u05c5\u05c7]")
_VARIATION = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")  # of a character's shape

_PERSIAN = {"ك": "ک", "ي": "ی", "ى": "ی", "ۀ": "ه", "ە": "ه", "أ": "ا", "إ": "ا", "ٱ": "ا", "\u0654": "", "\u0655": ""}
_LETTERS: Mapping[str | None, Mapping[int, str]] = {
    None: str.maketrans(_PERSIAN),
    "fa": str.maketrans(_PERSIAN),
    "ur": str.maketrans({"ك": "ک", "ي": "ی", "ى": "ی", "ه": "ہ", "أ": "ا"}),
    "ar": str.maketrans(_PERSIAN | {"آ": "ا", "ة": "ه"}),
    "fr": str.maketrans({"æ": "ae"}),
    "ru": str.maketrans({"ё": "е"}),
    "ro": str.maketrans({"ş": "ș", "ţ": "ț"}),
}
"""Letters that are written for one another. Pashto, Sindhi, Kurdish and Uyghur tell some of them apart: not here."""

_PERSIAN_PREFIX = re.compile(r"(?<![^ ])(ن?می) (?=[^ ])")
_PERSIAN_SUFFIX = re.compile(r"(?<=[^ ]) (?=(?:ها|های|هایی|هایم|هایت|هایش|هایمان|هایتان|هایشان|ترین)(?: |$))")


def language_code(code: str) -> str:
    """The language of a BCP 47 tag, as ISO 639 names it: "zh" for "zh-CN", "zh_Hans" and "cmn_hans_cn".

    A well-formed code of whatever language passes: texts of a language without rules of its own are treated by script.

    Raises:
        ClaspError: it is no code at all, such as "Persian".
    """
    first = re.split("[-_]", code)[0].lower() if isinstance(code, str) else ""
    if not re.fullmatch("[a-z]{2,3}", first):
        raise ClaspError(
            f"language {code!r}: is no language code. Give two or three letters, perhaps with a region: 'fa', 'zh-CN'."
        )
    return _SAME.get(first, first)


def normalise(text: str, language: str | None = None) -> str:
    """What is said, without the ways to write it: two texts are the same if this is the same.

    For all: compatibility forms are resolved and letters composed (Unicode's NFKC), case is folded (ß is ss), digits
    of all scripts are 0 to 9, œ is oe, invisible characters go, and all that is no letter, mark or digit becomes a
    space. Arabic vowel signs and tatweel go, and Hebrew points except in Yiddish. There is no space beside Han, kana,
    Thai, Lao, Khmer and Burmese letters.

    By language: an apostrophe within a word goes (don't), but separates words in French, Italian, Catalan, Occitan and
    Corsican; Turkish and Azerbaijani keep dotted and dotless i apart; Arabic has one alef, its ta marbuta is a ha;
    Urdu has one he; Russian ё is е, French æ is ae, Romanian cedillas are commas. Persian has one kaf and one yeh, and
    what a half-space sets apart is joined, also where a space stands in its stead: before the plural and after the mark
    of the present, می (which is also a rare noun).

    Args:
        language: a BCP 47 or ISO 639 code; see `language_code`. None does what is for all, and folds Persian and Arabic
            letters alike: right for finding copies, and coarse where Pashto or Uyghur tell them apart.

    Raises:
        TextError: not a string. ClaspError: no language code.
    """
    if not isinstance(text, str):
        raise TextError(f"text {text!r}: is a {type(text).__name__}; give a string.")
    language = None if language is None else language_code(language)
    text = text.replace("´", "'")  # which Unicode takes for a space with an accent
    visible = (c for c in text if unicodedata.category(c) != "Cf" or c == "\u200b")  # that one parts words
    text = unicodedata.normalize("NFKC", _VARIATION.sub("", "".join(visible)))
    text = _ARABIC_SIGNS.sub("", text)
    if language != "yi":
        text = _HEBREW_POINTS.sub("", text)
    if language in ("tr", "az"):
        text = text.replace("I", "ı")
    text = unicodedata.normalize("NFKC", text.replace("İ", "i").casefold()).replace("œ", "oe")
    text = text.translate(_LETTERS.get(language, {}))
    text = _APOSTROPHE.sub(" " if language in _ELISION else "", text)
    text = " ".join(_spelled(unicodedata.normalize("NFKC", text)).split())
    if language == "fa":
        text = _PERSIAN_SUFFIX.sub("", _PERSIAN_PREFIX.sub(r"\1", text))
    return _NO_SPACE.sub("", text)


def words(text: str, language: str | None = None) -> list[str]:
    """What a word error rate counts: the words of `normalise(text, language)`.

    A script without spaces is counted in letters, each with its marks: 我爱Python has three words, as the mixed error
    rate of Chinese and English has it. The word error rate of Chinese is thus its letter error rate.
    """
    found = []
    for word in normalise(text, language).split():
        for run in re.findall(rf"[{_SPACELESS}]+|[^{_SPACELESS}]+", word):
            if re.match(f"[{_SPACELESS}]", run):
                found += _letters(run)
            else:
                found.append(run)
    return found


def _letters(text: str) -> list[str]:
    """Each letter with the marks that follow it."""
    found: list[str] = []
    for c in text:
        if found and unicodedata.category(c)[0] == "M":
            found[-1] += c
        else:
            found.append(c)
    return found


def _spelled(text: str) -> str:
    """Letters, marks and digits stay, a space stands for all else; a mark without a letter before it is none."""
    kept: list[str] = []
    for c in text:
        kind = unicodedata.category(c)
        if kind == "Nd":
            kept.append(str(unicodedata.decimal(c)))
        elif c == "ː":  # a letter to Unicode, and a colon to those who write it
            kept.append(" ")
        elif kind[0] in "LN" or (kind[0] == "M" and kept and kept[-1] != " "):
            kept.append(c)
        else:
            kept.append(" ")
    return "".join(kept)
