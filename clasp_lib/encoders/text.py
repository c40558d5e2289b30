"""Text to vector: a frozen sentence encoder, whose space is the one that speech is mapped into."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from clasp_lib.encoders.checkpoints import Frozen, resolve
from clasp_lib.errors import CheckpointError, TextError


class TextEncoder(Frozen):
    """Any sentence-transformers model; vectors are L2-normalised.

    Args:
        name: "all-MiniLM-L6-v2", a local folder, or a hub id such as "sentence-transformers/LaBSE".
        device: the GPU where there is one if not given.

    Raises:
        CheckpointError: no such checkpoint.
    """

    def __init__(self, name: str, *, device: str | torch.device | None = None) -> None:
        from sentence_transformers import SentenceTransformer

        self.name = name
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        try:
            self._model = SentenceTransformer(resolve(name), device=str(self.device)).eval()
        except CheckpointError:
            raise
        except Exception as error:  # transformers, safetensors and the hub each raise their own kinds
            raise CheckpointError(f"{name}: cannot be loaded as a sentence encoder ({error}).") from error
        dimension = self._model.get_embedding_dimension()
        if dimension is None:
            raise CheckpointError(f"{name}: does not say how wide its vectors are.")
        self.dimension: int = dimension

    @property
    def identity(self) -> dict[str, str]:
        """All that its vectors depend on, besides the text."""
        return {"encoder": "text", "weights": self.digest}

    def tokens(self, text: str) -> list[str]:
        """The pieces of words that the encoder reads, as its tokenizer writes them; what is too long is cut off."""
        tokenizer = self._model.tokenizer
        return tokenizer.convert_ids_to_tokens(
            tokenizer(text, truncation=True, max_length=self.max_tokens)["input_ids"]
        )

    @property
    def max_tokens(self) -> int | None:
        """How many pieces of a text are read, those at its ends included."""
        return self._model.max_seq_length

    def encode(self, texts: Sequence[str], batch_size: int = 64, show_progress_bar: bool = False) -> np.ndarray:
        """Texts to float32 vectors `(n, dimension)`, L2-normalised.

        Raises:
            TextError: a text is empty or not a string; the message gives its position.
        """
        for position, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise TextError(f"text number {position} is {text!r}; give a string with something in it.")
            if any("\ud800" <= letter <= "\udfff" for letter in text):
                raise TextError(f"text number {position}, {text!r}, holds half a character. Decode it as UTF-8 again.")
        if len(texts) == 0:
            return np.zeros((0, self.dimension), np.float32)
        return self._model.encode(
            list(texts), batch_size=batch_size, show_progress_bar=show_progress_bar, normalize_embeddings=True
        ).astype(np.float32)
