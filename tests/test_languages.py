"""Texts in other languages, tables of what they reach, and two systems compared; on vectors made by hand."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import real_texts

from clasp_lib.corpus import pocket_brown, pocket_translations
from clasp_lib.errors import CheckpointError, ClaspError, MissingDependencyError, TextError
from clasp_lib.languages import (
    DIRECTIONS,
    REFERENCE_LANGUAGES,
    SMALL_100,
    LanguageScore,
    Vectors,
    compare_languages,
    compare_pairs,
    compare_text_encoders,
    error_rates,
    in_languages,
    markdown,
    score_pair,
    score_text_languages,
    translate,
)
from clasp_lib.text_normalisation import normalise, words

ENGLISH = {sentence.id: sentence.text for sentence in pocket_brown()}


def one_hot(ids: list[str], found: list[str]) -> Vectors:
    """Each id's vector is that of what it is taken for."""
    return Vectors(np.eye(8, dtype=np.float32)[["abcdefgh".index(name) for name in found]], ids)


# Rows ---------------------------------------------------------------------------------------------------------------


def test_each_direction_has_its_queries_pool_and_chance() -> None:
    """Three clips of a, one of b, one of c which has no Persian text."""
    speech = one_hot(list("aaabc"), list("aaabc"))
    texts = one_hot(list("ab"), list("ab"))
    to_speech, to_text = score_pair(texts, speech, "fa")
    assert (to_speech.text_language, to_speech.speech_language) == ("fa", "en")
    assert (to_speech.direction, to_speech.n, to_speech.candidates) == (DIRECTIONS[0], 2, 5)
    assert (to_text.direction, to_text.n, to_text.candidates) == (DIRECTIONS[1], 4, 2)
    assert to_speech.chance == pytest.approx((3 / 5 + 1 / 5) / 2)
    assert to_text.chance == pytest.approx(1 / 2)
    assert to_speech.hits_at_1.value == to_text.hits_at_1.value == to_speech.mrr.value == to_text.mean_rank.value == 1


def test_what_is_confused_is_counted() -> None:
    """Asked for c, the text is taken for d: the right clip ties with two others for second place, so its rank is 3."""
    speech = one_hot(list("abcd"), list("abcd"))
    texts = one_hot(["a", "b", "c"], ["a", "b", "d"])
    row = score_pair(texts, speech, "zh")[0]
    assert row.hits_at_1.value == pytest.approx(2 / 3)
    assert row.mean_rank.value == pytest.approx((1 + 1 + 3) / 3)
    assert row.hits_at_1.low < row.hits_at_1.value < row.hits_at_1.high


def test_a_guess_reaches_what_chance_says() -> None:
    rng = np.random.default_rng(0)
    ids = [str(i % 40) for i in range(200)]
    speech = Vectors(rng.normal(size=(200, 16)), ids)
    texts = Vectors(rng.normal(size=(4_000, 16)), [str(i % 40) for i in range(4_000)])
    row = score_pair(texts, speech, "de")[0]
    assert row.chance == pytest.approx(5 / 200)
    assert row.hits_at_1.value == pytest.approx(row.chance, abs=0.01)


@pytest.mark.parametrize(
    ("languages", "text_seen", "speech_seen", "seen"),
    [
        (("fa", "en"), {"fa", "en"}, {"en"}, True),
        (("fa", "fa"), {"fa", "en"}, {"en"}, False),
        (("sw", "en"), {"fa", "en"}, None, False),
        (("zh-CN", "en"), {"cmn"}, None, True),
        (("sw", "en"), None, None, None),
    ],
)
def test_a_row_says_whether_its_languages_were_seen(
    languages: tuple[str, str], text_seen: set[str] | None, speech_seen: set[str] | None, seen: bool | None
) -> None:
    vectors = one_hot(list("ab"), list("ab"))
    rows = score_pair(vectors, vectors, *languages, text_seen=text_seen, speech_seen=speech_seen)
    assert [row.seen for row in rows] == [seen, seen]


def test_pairs_that_share_nothing_are_refused() -> None:
    with pytest.raises(ClaspError, match="fa and en: no text and no clip share an id"):
        score_pair(one_hot(["a"], ["a"]), one_hot(["b"], ["b"]), "fa")
    with pytest.raises(ClaspError, match="1 of them have no candidate"):
        score_pair(one_hot(["a", "c"], ["a", "b"]), one_hot(["a", "b"], ["a", "b"]), "fa")
    with pytest.raises(ClaspError, match="is no language code"):
        score_pair(one_hot(["a"], ["a"]), one_hot(["a"], ["a"]), "Persian")


def test_the_table_has_a_line_for_each_language_and_direction() -> None:
    encode = {"x": "a", "y": "b"}
    rows = score_text_languages(
        {"de": {"a": "x", "b": "y"}, "fa": {"a": "x"}},
        lambda texts: one_hot(texts, [encode[text] for text in texts]).values,
        one_hot(list("ab"), list("ab")),
        text_seen={"de"},
    )
    lines = markdown(rows).splitlines()
    assert lines[0].startswith("| text | speech | direction | n | pool | HITS@1 |") and lines[0].endswith("| seen |")
    assert lines[2] == (
        "| de | en | text to speech | 2 | 2 | 1.000 [1.000, 1.000] | 1.000 [1.000, 1.000] | 1.000 [1.000, 1.000] "
        "| 0.5000 | yes |"
    )
    assert len(lines) == 6 and lines[4].startswith("| fa | en | text to speech | 1 | 2 |")
    assert lines[4].endswith("| no |")
    assert {line.count("|") for line in lines} == {11}
    assert "seen" not in markdown(score_pair(one_hot(["a"], ["a"]), one_hot(["a"], ["a"]), "de"))


def test_rows_are_flat_and_can_be_written_as_json() -> None:
    vectors = one_hot(list("ab"), list("ab"))
    row = json.loads(json.dumps(score_pair(vectors, vectors, "de")[0].to_dict()))
    assert row["text_language"] == "de" and row["hits_at_1"] == 1.0 and row["mean_rank_high"] == 1.0
    assert not any(isinstance(value, list | dict) for value in row.values())


OTHER_SPELLING = str.maketrans({"ی": "ي", "ک": "ك", "\u200c": " ", "،": ",", "’": "'", "。": ".", "，": ", "})


@pytest.mark.parametrize("language", ["en", "fa", "de", "fr", "es", "zh-CN"])
def test_the_table_of_real_texts(test_data: Path, language: str) -> None:
    """Each text asks for itself, written by another keyboard; the encoder counts words and knows nothing.

    In the words of `words` every text finds itself, in those between spaces not every text does: a capital, an accent
    apart from its letter or another letter of the same look makes another word, and a Chinese text is one word.
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    said = real_texts(test_data, language)
    ids = [normalise(text, language) for text in said]

    def rows(cut: Callable[[str], list[str]]) -> list[LanguageScore]:
        def encode(texts: list[str]) -> np.ndarray:
            return HashingVectorizer(analyzer=cut, n_features=2**14).transform(texts).toarray().astype(np.float32)

        others = {
            name: unicodedata.normalize("NFD", text.upper()).translate(OTHER_SPELLING) for name, text in zip(ids, said)
        }
        return score_text_languages({language: others}, encode, Vectors(encode(said), ids), language)

    table = rows(lambda text: words(text, language))
    to_speech, to_text = table
    assert (to_speech.n, to_speech.candidates) == (len(set(ids)), len(said))
    assert (to_text.n, to_text.candidates) == (len(said), len(set(ids)))
    assert to_speech.chance == pytest.approx(1 / len(set(ids)))  # the mean over texts, one of which may be said twice
    assert to_text.chance == pytest.approx(1 / len(set(ids)))
    assert to_speech.hits_at_1.value == to_text.hits_at_1.value == 1
    assert rows(str.split)[0].hits_at_1.value < 1
    line = markdown(table).splitlines()[2]
    assert line.startswith(f"| {language} | {language} | text to speech | {len(set(ids))} | {len(said)} | 1.000 ")


# Comparisons --------------------------------------------------------------------------------------------------------


def pair(found: str) -> tuple[Vectors, Vectors]:
    ids = list("abcdefgh")
    return one_hot(ids, list(found)), one_hot(ids, ids)


def test_two_systems_are_compared_on_the_same_questions() -> None:
    """The second finds two of eight fewer: 0.25 in HITS@1."""
    found = compare_pairs(pair("abcdefgh"), pair("abcdefhg"), "hits_at_1")
    assert (found.n, found.measure, found.difference.value) == (8, "hits_at_1", 0.25)
    assert found.p_value == pytest.approx(0.5)  # of four ways to flip two signs, two are as far from zero
    back = compare_pairs(pair("abcdefhg"), pair("abcdefgh"), "hits_at_1")
    assert back.difference.value == -0.25 and back.p_value == found.p_value


def test_each_system_is_ranked_in_its_own_space() -> None:
    """Another rotation, another width: neither is a difference."""
    queries, pool = pair("abcdefhg")
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0][:8].astype(np.float32)
    other = Vectors(queries.values @ turned, queries.ids), Vectors(pool.values @ turned, pool.ids)
    assert compare_pairs((queries, pool), other, "hits_at_1").difference.value == 0


def test_p_values_of_several_languages_are_corrected() -> None:
    good = {language: pair("abcdefgh") for language in ("de", "fa", "sw")}
    other = {"de": pair("abcdefgh"), "fa": pair("bcdefgha"), "sw": pair("abcdefhg")}
    found = compare_languages(good, other, "hits_at_1")
    assert list(found) == ["de", "fa", "sw"]
    assert found["fa"].p_value == pytest.approx(2 / 2**8)
    assert found["fa"].p_holm == pytest.approx(3 * 2 / 2**8)
    assert found["de"].difference.value == 0 and found["de"].p_holm == 1


def test_systems_that_were_asked_other_things_are_not_compared() -> None:
    queries, pool = pair("abcdefgh")
    with pytest.raises(ClaspError, match="queries: the two systems have other ids"):
        compare_pairs((queries, pool), (Vectors(queries.values, list("hgfedcba")), pool))
    with pytest.raises(ClaspError, match="candidates: the two systems have other ids"):
        compare_pairs((queries, pool), (queries, Vectors(pool.values, list("hgfedcba"))))
    with pytest.raises(ClaspError, match="measure 'beauty' is not known"):
        compare_pairs((queries, pool), (queries, pool), "beauty")
    with pytest.raises(ClaspError, match="languages: de and fa; give the same"):
        compare_languages({"de": (queries, pool)}, {"fa": (queries, pool)})


def test_two_text_encoders_are_compared_on_given_translations() -> None:
    """One knows the languages, the other knows English only and takes all else for the first sentence."""
    languages = in_languages(ENGLISH, REFERENCE_LANGUAGES, pocket_translations())
    pool = {name: ENGLISH[name] for name in languages["fa"]}
    numbers = {text: row for texts in (pool, *languages.values()) for row, text in enumerate(texts.values())}
    english = set(pool.values())

    def multilingual(texts: list[str]) -> np.ndarray:
        return np.eye(40, dtype=np.float32)[[numbers[text] for text in texts]]

    def monolingual(texts: list[str]) -> np.ndarray:
        return np.eye(40, dtype=np.float32)[[numbers[text] if text in english else 0 for text in texts]]

    found = compare_text_encoders(multilingual, monolingual, pool, languages, "hits_at_1")
    assert list(found) == list(REFERENCE_LANGUAGES)
    for comparison in found.values():
        assert comparison.n == 40 and comparison.difference.value == pytest.approx(39 / 40)
        assert comparison.p_holm < 0.01


def test_labse_and_xlm_r_are_compared_by_name(tmp_path: Path) -> None:
    """As tiny stand-ins, which are laid out alike: their numbers mean nothing, but they are there."""
    from clasp_lib.encoders import TextEncoder
    from clasp_lib.paper_tiny import text as tiny

    tiny.labse(tmp_path / tiny.LABSE)
    tiny.xlm_r(tmp_path / tiny.XLM_R)
    one, other = (TextEncoder(str(tmp_path / name), device="cpu").encode for name in (tiny.LABSE, tiny.XLM_R))
    languages = in_languages(ENGLISH, ("de", "fa"), pocket_translations())
    pool = {name: ENGLISH[name] for name in languages["fa"]}
    found = compare_text_encoders(one, other, pool, languages)
    assert [comparison.n for comparison in found.values()] == [40, 40]
    assert all(-1 < comparison.difference.value < 1 for comparison in found.values())


# Texts --------------------------------------------------------------------------------------------------------------


def test_given_translations_are_taken_and_the_rest_translated() -> None:
    asked = []

    def translator(texts: Any, language: str) -> list[str]:
        asked.append(language)
        return [f"{language}: {text}" for text in texts]

    found = in_languages({"1": "one", "2": "two"}, ("de", "zh-CN", "sw"), {"de": {"2": "zwei"}, "zh": {}}, translator)
    assert found == {"de": {"2": "zwei"}, "zh-CN": {}, "sw": {"1": "sw: one", "2": "sw: two"}}
    assert asked == ["sw"]


def test_languages_that_cannot_be_had_are_refused() -> None:
    with pytest.raises(ClaspError, match="language 'sw': no translations are given, and no translator either"):
        in_languages({"1": "one"}, ("sw",))
    with pytest.raises(ClaspError, match=r"1 of its ids are of no sentence here, e\.g\. '9'"):
        in_languages({"1": "one"}, ("de",), {"de": {"9": "neun"}})


def test_error_rates_count_what_the_language_counts() -> None:
    pytest.importorskip("jiwer")
    persian = error_rates(["می‌خواهم كتاب‌ها را بخوانم."], ["میخواهم کتاب ها رو بخوانم"], "fa")
    assert persian["word_error_rate"].value == pytest.approx(1 / 4)  # one word of four is another
    chinese = error_rates(["我爱北京，天安门。"], ["我爱北平天安门"], "zh")
    assert chinese["word_error_rate"].value == chinese["letter_error_rate"].value == pytest.approx(1 / 7)
    french = error_rates(["L’été est là."], ["l'hiver est là"], "fr")
    assert french["word_error_rate"].value == pytest.approx(1 / 4)
    with pytest.raises(ClaspError, match="said: holds an empty text"):
        error_rates(["?!"], ["what"], "en")


@pytest.mark.parametrize("language", ["en", "fa", "de", "fr", "es", "zh-CN"])
def test_error_rates_of_real_texts(test_data: Path, language: str) -> None:
    """Without punctuation nothing is wrong; without the first word of each text, so many words of all are missing."""
    pytest.importorskip("jiwer")
    said = real_texts(test_data, language)
    spelled = [words(text, language) for text in said]
    space = "" if language == "zh-CN" else " "
    alike = error_rates(said, [space.join(found) for found in spelled], language)
    assert alike["letter_error_rate"].value == alike["word_error_rate"].value == 0
    short = error_rates(said, [space.join(found[1:]) for found in spelled], language)
    assert short["word_error_rate"].value == pytest.approx(len(said) / sum(map(len, spelled)))
    assert 0 < short["letter_error_rate"].low < short["letter_error_rate"].value < short["letter_error_rate"].high < 1


# Translation --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def translators(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Tiny checkpoints with random weights in the hub's layout, which SMaLL-100 and M2M-100 share."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed: no M2M-100 tokenizer")
    import io

    import torch
    from transformers import M2M100Config, M2M100ForConditionalGeneration, M2M100Tokenizer

    folder = tmp_path_factory.mktemp("translators")
    pieces = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(list(ENGLISH.values())[:200]), model_writer=pieces, vocab_size=200, model_type="bpe",
        character_coverage=1.0, minloglevel=2,
    )  # fmt: skip
    processor = sentencepiece.SentencePieceProcessor(model_proto=pieces.getvalue())
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>"] + [processor.id_to_piece(i) for i in range(3, 200)]
    torch.manual_seed(0)
    config = M2M100Config(
        vocab_size=len(vocabulary) + 108, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=64, init_std=1.0,
    )  # fmt: skip
    model = M2M100ForConditionalGeneration(config)
    paths = SimpleNamespace(small=folder / "alirezamsh" / "small100", m2m=folder / "facebook" / "m2m100_418M")
    for path in vars(paths).values():
        path.mkdir(parents=True)
        model.save_pretrained(path)
        (path / "sentencepiece.bpe.model").write_bytes(pieces.getvalue())
        (path / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(vocabulary)}), "utf-8")
        (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "M2M100Tokenizer"}), "utf-8")
    paths.tokenizer = M2M100Tokenizer.from_pretrained(paths.m2m)
    return paths


@pytest.fixture
def echo(translators: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The model says what it is given, and what it was given is noted."""
    from transformers import M2M100ForConditionalGeneration

    calls = []

    def generate(self: Any, **given: Any) -> Any:
        calls.append(given)
        return given["input_ids"]

    monkeypatch.setattr(M2M100ForConditionalGeneration, "generate", generate)
    return calls


def test_small100_is_told_the_target_before_the_text(translators: SimpleNamespace, echo: list[dict[str, Any]]) -> None:
    assert translate(["Rain."], "fa-IR", str(translators.small), device="cpu") == ["Rain."]
    ids = echo[0]["input_ids"][0].tolist()
    assert ids[0] == translators.tokenizer.get_lang_id("fa") and ids[-1] == translators.tokenizer.eos_token_id
    assert "forced_bos_token_id" not in echo[0] and echo[0]["num_beams"] == 5 and echo[0]["do_sample"] is False


def test_m2m100_is_told_the_target_as_its_first_word(translators: SimpleNamespace, echo: list[dict[str, Any]]) -> None:
    translate(["Rain."], "cmn", str(translators.m2m), source="de", device="cpu")
    assert echo[0]["input_ids"][0, 0] == translators.tokenizer.get_lang_id("de")
    assert echo[0]["forced_bos_token_id"] == translators.tokenizer.get_lang_id("zh")
    translate(["Rain."], "fr", str(translators.m2m), target_first=True, device="cpu")
    assert echo[1]["input_ids"][0, 0] == translators.tokenizer.get_lang_id("fr")


def test_translations_come_in_the_order_of_the_texts(translators: SimpleNamespace, echo: list[dict[str, Any]]) -> None:
    texts = [text for text in list(ENGLISH.values())[:9] if text.isascii()]
    assert len({len(text) for text in texts}) > 3
    assert translate(texts, "de", str(translators.small), batch_size=2, device="cpu") == texts
    assert len(echo) == -(-len(texts) // 2)


def test_a_checkpoint_in_the_layout_of_the_hub_translates(translators: SimpleNamespace) -> None:
    for path in (translators.small, translators.m2m):
        first = translate(["Rain.", "She folded the map."], "fr", str(path), beams=2, device="cpu")
        assert len(first) == 2 and all(isinstance(text, str) for text in first)
        assert first == translate(["Rain.", "She folded the map."], "fr", str(path), beams=2, device="cpu")


def test_the_stand_in_of_small100_translates(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its pieces are read by the real tokenizer and all its tensors arrive; its answers hang on text and language."""
    pytest.importorskip("sentencepiece", reason="sentencepiece is not installed: no M2M-100 tokenizer")
    import torch
    from transformers import M2M100ForConditionalGeneration, M2M100Tokenizer

    from clasp_lib.paper_tiny import text as tiny

    assert tiny.SMALL_100 == SMALL_100
    folder = tmp_path / SMALL_100
    torch.manual_seed(0)
    tiny.small_100(folder)
    tokenizer = M2M100Tokenizer.from_pretrained(folder)
    ids = tokenizer("Rain, باران 了!")["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True).removeprefix("__en__").strip() == "Rain, باران 了!"
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    loaded = M2M100ForConditionalGeneration.from_pretrained(folder).state_dict()
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[key], state[key]) for key in state)
    texts = list(ENGLISH.values())[:20]
    capfd.readouterr()
    persian, german = (translate(texts, language, str(folder), device="cpu") for language in ("fa", "de"))
    assert "max_new_tokens" not in capfd.readouterr().err  # a warning with each batch, unless `max_length` is gone
    assert all(persian) and len(set(persian)) > 5 and persian != german
    assert all(len(text) < 200 for text in persian)


def test_what_cannot_be_translated_is_refused(translators: SimpleNamespace, tmp_path: Path) -> None:
    small = str(translators.small)
    with pytest.raises(ClaspError, match=r"language 'tlh': .* does not know it\. It knows af, am"):
        translate(["Rain."], "tlh", small, device="cpu")
    with pytest.raises(TextError, match="text number 1 is ' '"):
        translate(["Rain.", " "], "de", small, device="cpu")
    with pytest.raises(TextError, match=r"text number 1 has \d+ pieces; .* reads 64. Split it"):
        translate(["Rain.", "Rain and more rain. " * 30], "de", small, device="cpu")
    with pytest.raises(CheckpointError, match="cannot be loaded as a model like M2M-100"):
        translate(["Rain."], "de", str(tmp_path), device="cpu")
    assert translate([], "de", small, device="cpu") == []


def test_a_missing_sentencepiece_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'clasp-lib\[translate\]'"):
        translate(["Rain."], "de", "anything")
