"""The same sentences in several languages, given or translated; and transcripts in each language's own units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from clasp_lib import transcription
from clasp_lib.encoders.checkpoints import chosen_device
from clasp_lib.errors import CheckpointError, ClaspError, MissingDependencyError, TextError, brief
from clasp_lib.metrics import Interval
from clasp_lib.text_normalisation import language_code, normalise, words

if TYPE_CHECKING:
    import torch

REFERENCE_LANGUAGES = ("fa", "de", "fr", "zh")
"""Into which CLASP's authors translated their test texts; the speech stayed English."""

SMALL_100 = "alirezamsh/small100"
"""By which they did: SMaLL-100 (Mohammadshahi et al. 2022, EMNLP)."""

_LONGEST = 256  # pieces of a translation: the model card's limit


def translate(
    texts: Sequence[str],
    language: str,
    model_name: str = SMALL_100,
    *,
    source: str = "en",
    batch_size: int = 16,
    beams: int = 5,
    target_first: bool | None = None,
    device: str | torch.device | None = None,
    show_progress_bar: bool = False,
) -> list[str]:
    """Translate texts with SMaLL-100, or with M2M-100 (Fan et al. 2020), in the order given.

    Both share architecture and tokenizer. SMaLL-100 is told the language it shall write before the text that it reads,
    M2M-100 is told there the language of that text, and the other as the first word of its answer. Beam search draws
    nothing: the same texts give the same translations.

    Args:
        language: into which; source: out of which. ISO 639 or BCP 47, see `language_code`.
        model_name: a hub id or a local folder of either model.
        beams: of the search; 5 is the model card's.
        target_first: whether the model is told as SMaLL-100 is. None: if "small100" is in the last part of its name.
        device: the GPU where there is one if not given.

    Raises:
        MissingDependencyError: sentencepiece, which the tokenizer reads its pieces with, is not installed.
        CheckpointError: no such checkpoint, or another kind of model.
        ClaspError: a language that the model does not know. TextError: a text that is empty, or too long for it.
    """
    import torch
    from tqdm import tqdm

    for position, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise TextError(f"text number {position} is {text!r}; give a string with something in it.")
    into, out_of = language_code(language), language_code(source)
    tokenizer, model = _translator(model_name)
    if unknown := [code for code in (into, out_of) if code not in tokenizer.lang_code_to_id]:
        known = ", ".join(tokenizer.lang_code_to_id)
        raise ClaspError(f"language {unknown[0]!r}: {model_name} does not know it. It knows {known}.")
    if target_first is None:
        target_first = "small100" in model_name.rstrip("/").rpartition("/")[2].lower()
    tokenizer.src_lang = into if target_first else out_of
    first = {} if target_first else {"forced_bos_token_id": tokenizer.get_lang_id(into)}
    lengths = [len(tokenizer(text)["input_ids"]) for text in texts]
    most = model.config.max_position_embeddings
    if too_long := [i for i, length in enumerate(lengths) if length > most]:
        raise TextError(
            f"text number {too_long[0]} has {lengths[too_long[0]]} pieces; {model_name} reads {most}. Split it."
        )
    model = model.to(chosen_device(device))
    marks = set(tokenizer.lang_code_to_id.values())  # special to the model, but not to every version of the tokenizer
    order = sorted(range(len(texts)), key=lambda i: lengths[i])
    found = [""] * len(texts)
    starts = range(0, len(texts), batch_size)
    for start in tqdm(starts, desc=f"translating to {into}", unit="batch", disable=not show_progress_bar):
        rows = order[start : start + batch_size]
        batch = tokenizer([texts[i] for i in rows], return_tensors="pt", padding=True).to(model.device)
        with torch.inference_mode():
            pieces = model.generate(
                **batch, **first, num_beams=beams, do_sample=False, max_new_tokens=min(_LONGEST, most) - 1
            )
        for i, row in zip(rows, pieces.tolist(), strict=True):
            found[i] = tokenizer.decode(
                [piece for piece in row if piece not in marks], skip_special_tokens=True
            ).strip()
    return found


def _translator(name: str) -> tuple[Any, Any]:
    """Tokenizer and model. The tokenizer's class is named: SMaLL-100's own stopped loading with transformers 4.34."""
    try:
        import sentencepiece  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "sentencepiece is not installed. Run: pip install 'clasp-lib[translate]'"
        ) from error
    from transformers import M2M100ForConditionalGeneration, M2M100Tokenizer

    try:
        tokenizer, model = M2M100Tokenizer.from_pretrained(name), M2M100ForConditionalGeneration.from_pretrained(name)
    except Exception as error:  # transformers, sentencepiece, safetensors and the hub each raise their own kinds
        raise CheckpointError(f"{name}: cannot be loaded as a model like M2M-100 ({brief(error)}).") from error
    model.generation_config.max_length = None  # both have 200 there, beside which `max_new_tokens` would be a warning
    return tokenizer, model.eval()


def in_languages(
    texts: Mapping[str, str],
    languages: Sequence[str],
    given: Mapping[str, Mapping[str, str]] | None = None,
    translator: Callable[[Sequence[str], str], list[str]] | None = None,
) -> dict[str, dict[str, str]]:
    """The same sentences in several languages: language -> id -> text.

    What is given is taken as it is, and only that: a language with translations of 20 sentences has 20 queries. All
    texts are translated into the languages that are not given.

    Args:
        texts: id -> text, in the language that the translator reads.
        given: translations at hand, as `pocket_translations()` has them.
        translator: called with texts and a language; `translate`, or `functools.partial(translate, model_name=...)`.

    Raises:
        ClaspError: a language that is not given, and no translator; given texts whose ids are not in `texts`.
    """
    at_hand = {language_code(code): dict(found) for code, found in (given or {}).items()}
    result: dict[str, dict[str, str]] = {}
    for language in languages:
        code = language_code(language)
        if code not in at_hand:
            if translator is None:
                raise ClaspError(f"language {language!r}: no translations are given, and no translator either.")
            translated = translator(list(texts.values()), code)
            result[language] = dict(zip(texts, translated, strict=True))
        elif strangers := set(at_hand[code]) - set(texts):
            raise ClaspError(
                f"given[{language!r}]: {len(strangers)} of its ids are of no sentence here, e.g. {min(strangers)!r}."
            )
        else:
            result[language] = at_hand[code]
    return result


def error_rates(
    said: Sequence[str], heard: Sequence[str], language: str, resamples: int = 1_000, seed: int = 0
) -> dict[str, Interval]:
    """Letter and word error rate of transcripts in any language, with 95% intervals from a bootstrap over texts.

    Both texts are normalised first. Letters are those of `normalise` with the spaces between words, and words those of
    `words`: a comma, a half-space or an English apostrophe that is missing is no mistake, and Chinese is counted in
    letters. A word of one language holds more than one of another, and so does a letter: read a rate beside those of
    other systems in the same language, not beside other languages.

    Raises:
        ClaspError, MissingDependencyError: as `clasp_lib.transcription.count_errors`.
    """

    def counts(spelled: Callable[[str], str]) -> dict[str, np.ndarray]:
        return transcription.count_errors(list(map(spelled, said)), list(map(spelled, heard)))

    letters = counts(lambda text: normalise(text, language))
    apart = counts(lambda text: " ".join(words(text, language)))
    return {
        "letter_error_rate": transcription.ratio(letters["letter_errors"], letters["letters"], resamples, seed),
        "word_error_rate": transcription.ratio(apart["word_errors"], apart["words"], resamples, seed),
    }
