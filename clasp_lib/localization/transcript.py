"""Hear and read: a recording's vector from CLASP and from its transcript, added."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clasp_lib.audio import AudioItem, load_audio
from clasp_lib.errors import ClaspError
from clasp_lib.model import CLASP
from clasp_lib.transcription import NOTHING_HEARD, Recogniser


class WithTranscript:
    """A model whose speech vectors are those of CLASP plus `weight` times those of the transcript, of length 1 again.

    CLASP hears what a sentence is about, the transcript has its words, and the two err in different places. It takes
    CLASP's place in `locate(WithTranscript(model, recogniser), ...)`, at the price of a recogniser: another network,
    for one language. A text's vector is CLASP's.

    Args:
        weight: of the transcript. 0.3 was chosen on the validation split of Pocket Brown.

    Raises:
        ClaspError: a weight below zero; a recogniser that hears at another rate than CLASP.
    """

    def __init__(self, model: CLASP, recogniser: Recogniser, weight: float = 0.3) -> None:
        if not 0 <= weight < float("inf"):
            raise ClaspError(f"weight is {weight!r}; give a number of at least 0.")
        self.speech_encoder = model.speech_encoder
        if recogniser.sampling_rate != self.speech_encoder.sampling_rate:
            raise ClaspError(
                f"{recogniser.name} hears {recogniser.sampling_rate} Hz and {self.speech_encoder.name} "
                f"{self.speech_encoder.sampling_rate} Hz; they must hear the same."
            )
        self.model, self.recogniser, self.weight = model, recogniser, weight
        self.dimension = model.dimension

    def encode_speech(
        self,
        items: Sequence[AudioItem],
        sampling_rate: int = 16_000,
        batch_size: int = 16,
        show_progress_bar: bool | None = None,
    ) -> np.ndarray:
        """As `CLASP.encode_speech`: unit vectors `(n, dimension)`, and the same errors."""
        heard = self.model.encode_speech(items, sampling_rate, batch_size, show_progress_bar)
        rate = self.recogniser.sampling_rate
        waves = [load_audio(item, rate, source_rate=sampling_rate) for item in items]
        return add_transcripts(heard, self.encode_text(self.transcribe(waves, batch_size)), self.weight)

    def encode_text(
        self, texts: Sequence[str], batch_size: int = 64, show_progress_bar: bool | None = None
    ) -> np.ndarray:
        """As `CLASP.encode_text`."""
        return self.model.encode_text(texts, batch_size, show_progress_bar)

    def transcribe(self, waves: Sequence[np.ndarray], batch_size: int = 16) -> list[str]:
        """What is recognised in each of `(samples,)`, or `NOTHING_HEARD`."""
        return [text or NOTHING_HEARD for text in self.recogniser.transcribe(waves, batch_size)]


def add_transcripts(heard: np.ndarray, read: np.ndarray, weight: float) -> np.ndarray:
    """Unit vectors (n, d) of speech and of its transcripts, added and of length 1 again."""
    both = heard + np.float32(weight) * read  # (n, d)
    return both / np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-12)
