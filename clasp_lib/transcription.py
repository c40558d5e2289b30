"""Speech to text by CTC: the other way to search speech, and the yardstick that CLASP is held against.

A transcript pipeline recognises the words, then embeds the text. It needs a recogniser for the language; its mistakes
are counted in letters and words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from clasp_lib.encoders.checkpoints import resolve
from clasp_lib.encoders.speech import SpeechModel
from clasp_lib.errors import CheckpointError, ClaspError, MissingDependencyError
from clasp_lib.metrics import Interval


class Transcriber(SpeechModel):
    """Any HuBERT or wav2vec2 with a CTC head and its tokenizer, read greedily (Graves et al. 2006).

    Args:
        name: "pocket-ctc", a local folder, or a hub id such as "facebook/hubert-large-ls960-ft".
        device: "cuda", "cpu", ...; the GPU where there is one if not given.

    Raises:
        CheckpointError: no such checkpoint, or one without a CTC head.
    """

    def __init__(self, name: str, *, device: str | torch.device | None = None) -> None:
        from transformers import AutoTokenizer

        super().__init__(name, "AutoModelForCTC", device)
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(resolve(name))
        except Exception as error:  # transformers and tokenizers each raise their own kinds
            raise CheckpointError(f"{name}: its tokenizer cannot be loaded ({error}).") from error

    def transcribe(
        self, waves: Sequence[np.ndarray], batch_size: int = 16, show_progress_bar: bool = False
    ) -> list[str]:
        """Waves at `sampling_rate`, each `(samples,)`, to texts, in the order given; "" where nothing is recognised."""
        texts = [""] * len(waves)
        with tqdm(total=len(waves), desc="transcribing", unit="clip", disable=not show_progress_bar) as bar:
            for batch in self._batches(waves, batch_size):
                out, frames = self._outputs([waves[i] for i in batch])
                for i, symbols in zip(batch, greedy(out.logits, frames, self._model.config.pad_token_id), strict=True):
                    texts[i] = self._tokenizer.decode(symbols, group_tokens=False, skip_special_tokens=True).strip()
                bar.update(len(batch))
        return texts


def greedy(logits: torch.Tensor, frames: Sequence[int], blank: int = 0) -> list[list[int]]:
    """Logits (clips, frames, classes) to symbols: the best class of each frame, repeats merged, blanks dropped."""
    best = logits.argmax(-1).cpu()
    rows = [torch.unique_consecutive(row[:n]) for row, n in zip(best, frames, strict=True)]
    return [row[row != blank].tolist() for row in rows]


def spelled(text: str) -> str:
    """English text as a recogniser writes it: lower-case letters and apostrophes, words separated by one space."""
    return " ".join(re.findall(r"[a-z]+(?:'[a-z]+)*", text.lower().replace("’", "'")))


def count_errors(said: Sequence[str], heard: Sequence[str]) -> dict[str, np.ndarray]:
    """Errors of each transcript `heard` against what was `said`, both spelled alike.

    An error is a substitution, a deletion or an insertion on the shortest way from one to the other (Levenshtein 1966).

    Returns:
        int arrays `(texts,)`: letter_errors, letters (spaces between words count), word_errors, words. A rate is a sum
        over a sum.

    Raises:
        MissingDependencyError: `jiwer` is not installed.
    """
    try:
        import jiwer
    except ImportError as error:
        raise MissingDependencyError("jiwer is not installed. Run: pip install 'clasp-lib[asr]'") from error
    if len(said) != len(heard) or len(said) == 0:
        raise ClaspError(
            f"said and heard: have {len(said)} and {len(heard)} texts; give as many of one as of the other."
        )
    if not all(map(str.strip, said)):
        raise ClaspError("said: holds an empty text, of which no error rate can be given. Leave that clip out.")
    counts: dict[str, list[int]] = {"letter_errors": [], "letters": [], "word_errors": [], "words": []}
    for right, guess in zip(said, heard, strict=True):
        for unit, found in (
            ("letter", jiwer.process_characters(right, guess)),
            ("word", jiwer.process_words(right, guess)),
        ):
            counts[f"{unit}_errors"].append(found.substitutions + found.deletions + found.insertions)
            counts[f"{unit}s"].append(found.hits + found.substitutions + found.deletions)
    return {name: np.array(values) for name, values in counts.items()}


def error_rates(
    said: Sequence[str], heard: Sequence[str], resamples: int = 1_000, seed: int = 0
) -> dict[str, Interval]:
    """Letter and word error rate over all texts, each with a 95% percentile interval from a bootstrap over texts.

    Raises:
        ClaspError, MissingDependencyError: as `count_errors`.
    """
    counts = count_errors(said, heard)
    return {
        f"{unit}_error_rate": ratio(counts[f"{unit}_errors"], counts[f"{unit}s"], resamples, seed)
        for unit in ("letter", "word")
    }


def ratio(parts: np.ndarray, wholes: np.ndarray, resamples: int = 1_000, seed: int = 0) -> Interval:
    """Sum of `parts` over sum of `wholes`, `(texts,)` each, with a 95% percentile interval (bootstrap over texts)."""
    n = len(parts)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)  # (resamples, texts)
    low, high = np.percentile((drawn @ parts) / (drawn @ wholes), [2.5, 97.5])
    return Interval(float(parts.sum() / wholes.sum()), float(low), float(high))
