"""Speech to text: the other way to search speech, and the yardstick that CLASP is held against.

A transcript pipeline recognises the words, then embeds the text. It needs a recogniser for the language; its mistakes
are counted in letters and words. `load_recogniser` takes any HuBERT or wav2vec2 with a CTC head, and any Whisper.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from tqdm import tqdm

from clasp_lib.encoders.checkpoints import Frozen, check_complete, chosen_device, quiet, resolve
from clasp_lib.encoders.speech import SpeechModel
from clasp_lib.errors import AudioError, CheckpointError, ClaspError, MissingDependencyError, brief
from clasp_lib.metrics import Interval

NOTHING_HEARD = "."
"""Stands in for an empty transcript, which still needs a vector."""


class Recogniser(Protocol):
    """What a transcript pipeline needs: waves at `sampling_rate`, each `(samples,)`, to texts, in the order given."""

    name: str
    sampling_rate: int

    def transcribe(
        self, waves: Sequence[np.ndarray], batch_size: int = 16, show_progress_bar: bool = False
    ) -> list[str]:
        """The texts of the waves; "" where nothing is recognised."""
        ...


def load_recogniser(
    name: str, *, device: str | torch.device | None = None, language: str | None = None
) -> Transcriber | Whisper:
    """A recogniser of speech; what kind, its configuration says, not its name.

    Args:
        name: "pocket-ctc", a local folder, or a hub id such as "facebook/hubert-large-ls960-ft",
            "facebook/wav2vec2-base-960h" or "openai/whisper-small".
        device: "cuda", "cpu", ...; the GPU where there is one if not given.
        language: for Whisper, see there; a CTC model has the language that it was trained on.

    Raises:
        CheckpointError: no such checkpoint, or one that does not recognise speech.
        ClaspError: a language for a CTC model, or one that this Whisper does not have.
    """
    from transformers import AutoConfig

    try:
        kind = AutoConfig.from_pretrained(resolve(name), trust_remote_code=False).model_type
    except CheckpointError:
        raise
    except Exception as error:  # transformers, json and the hub each raise their own kinds
        raise CheckpointError(f"{name}: cannot be loaded as a recogniser ({brief(error)}).") from error
    if kind == "whisper":
        return Whisper(name, language=language, device=device)
    if language is not None:
        raise ClaspError(f"language {language!r}: {name} is a {kind} model, which has one language. Leave it out.")
    return Transcriber(name, device=device)


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
            self._tokenizer: Any = AutoTokenizer.from_pretrained(resolve(name), trust_remote_code=False)
        except Exception as error:  # transformers and tokenizers each raise their own kinds
            raise CheckpointError(f"{name}: its tokenizer cannot be loaded ({brief(error)}).") from error

    def transcribe(
        self, waves: Sequence[np.ndarray], batch_size: int = 16, show_progress_bar: bool = False
    ) -> list[str]:
        """Waves at `sampling_rate`, each `(samples,)`, to texts, in the order given; "" where nothing is recognised."""
        texts = [""] * len(waves)
        with tqdm(total=len(waves), desc="transcribing", unit="clip", disable=not show_progress_bar) as bar:
            for batch in self._batches(waves, batch_size):
                out, frames = self._outputs([waves[i] for i in batch])
                for i, text in zip(batch, self._read(out.logits, frames), strict=True):
                    texts[i] = text
                bar.update(len(batch))
        return texts

    @torch.inference_mode()
    def read(self, frames: Sequence[np.ndarray]) -> list[str]:
        """Texts from the last hidden states of the same network, (frames, width) for each clip.

        They are what `SpeechEncoder.frames` gives for the same checkpoint, which then need not run twice.
        """
        head = self._model.lm_head
        logits = (head(torch.from_numpy(clip).to(self.device)[None]) for clip in frames)  # (1, frames, letters) each
        return [self._read(scores, [len(clip)])[0] for scores, clip in zip(logits, frames, strict=True)]

    def _read(self, logits: torch.Tensor, frames: Sequence[int]) -> list[str]:
        """Logits (clips, frames, letters) to texts."""
        rows = greedy(logits, frames, self._model.config.pad_token_id)
        return [self._tokenizer.decode(row, group_tokens=False, skip_special_tokens=True).strip() for row in rows]


class Whisper(Frozen):
    """Any Whisper (Radford et al. 2023) of transformers, decoded greedily: it writes capitals, commas and digits.

    Each clip is padded to 30 s, so that a transcript does not depend on the clips beside it.

    Args:
        name: a local folder, or a hub id such as "openai/whisper-small".
        language: what is spoken, "en", "fa", ...; None: it guesses, for each clip. What it writes is in that language.
        device: "cuda", "cpu", ...; the GPU where there is one if not given.

    Raises:
        CheckpointError: no such checkpoint, or not a whole Whisper.
        ClaspError: a language that it does not have.
    """

    def __init__(self, name: str, *, language: str | None = None, device: str | torch.device | None = None) -> None:
        from transformers import WhisperForConditionalGeneration, WhisperProcessor

        self.name, self.language = name, language
        self.device = chosen_device(device)
        try:
            folder = resolve(name)
            self._processor: Any = WhisperProcessor.from_pretrained(folder)
            with quiet():
                loaded: Any = WhisperForConditionalGeneration.from_pretrained(
                    folder, dtype=torch.float32, output_loading_info=True
                )
            model, report = loaded
        except CheckpointError:
            raise
        except Exception as error:  # transformers, safetensors and the hub each raise their own kinds
            raise CheckpointError(f"{name}: cannot be loaded as a Whisper ({brief(error)}).") from error
        check_complete(name, report["missing_keys"])
        self._model = model.to(self.device).eval().requires_grad_(False)
        self._options: dict[str, Any] = {"do_sample": False, "num_beams": 1, "return_timestamps": False}
        self._options |= self._spoken(model.generation_config)
        extractor = self._processor.feature_extractor
        self.sampling_rate: int = extractor.sampling_rate
        self.max_seconds: float = extractor.chunk_length

    def transcribe(
        self, waves: Sequence[np.ndarray], batch_size: int = 16, show_progress_bar: bool = False
    ) -> list[str]:
        """Waves at `sampling_rate`, each `(samples,)`, to texts, in the order given; "" where nothing is recognised.

        Raises:
            AudioError: a clip is empty, or longer than `max_seconds`, which is 30; cut it first.
        """
        for number, wave in enumerate(waves):
            seconds = len(wave) / self.sampling_rate
            if not 0 < seconds <= self.max_seconds:
                raise AudioError(
                    f"clip number {number} lasts {seconds:.1f} s: {self.name} hears up to {self.max_seconds} s at once."
                )
        texts = []
        with tqdm(total=len(waves), desc="transcribing", unit="clip", disable=not show_progress_bar) as bar:
            for start in range(0, len(waves), batch_size):
                batch = [np.asarray(wave, np.float32) for wave in waves[start : start + batch_size]]
                texts += self._heard(batch)
                bar.update(len(batch))
        return texts

    @torch.inference_mode()
    def _heard(self, batch: list[np.ndarray]) -> list[str]:
        inputs = self._processor.feature_extractor(
            batch, sampling_rate=self.sampling_rate, return_attention_mask=True, return_tensors="pt"
        ).to(self.device)  # input_features: (clips, mel bands, 3000 frames)
        with quiet():
            symbols = self._model.generate(**inputs, **self._options)  # (clips, tokens)
        return [text.strip() for text in self._processor.batch_decode(symbols, skip_special_tokens=True)]

    def _spoken(self, settings: Any) -> dict[str, str]:
        """What `generate` is told of the language; a Whisper of English alone must not be told any."""
        if not getattr(settings, "is_multilingual", False):
            if self.language not in (None, "en"):
                raise ClaspError(f"language {self.language!r}: {self.name} knows English only.")
            return {}
        languages = sorted(token[2:-2] for token in settings.lang_to_id)
        if self.language is not None and self.language not in languages:
            raise ClaspError(f"language {self.language!r}: {self.name} has {', '.join(languages)}.")
        return {"task": "transcribe"} | ({} if self.language is None else {"language": self.language})


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
