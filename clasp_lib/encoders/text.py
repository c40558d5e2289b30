"""Text to vector: a frozen sentence encoder, whose space is the one that speech is mapped into."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from clasp_lib.encoders.checkpoints import Frozen, check_complete, chosen_device, resolve
from clasp_lib.errors import CheckpointError, TextError, brief


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
        self.device = chosen_device(device)
        source = resolve(name)
        try:
            self._model = SentenceTransformer(source, device=str(self.device)).eval()
            check_complete(name, _missing(getattr(self._model[0], "auto_model", None), Path(source)))
        except CheckpointError:
            raise
        except Exception as error:  # transformers, safetensors and the hub each raise their own kinds
            raise CheckpointError(f"{name}: cannot be loaded as a sentence encoder ({brief(error)}).") from error
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
            if not isinstance(text, str) or not any(map(_is_visible, text)):
                raise TextError(f"text number {position} is {brief(text)}; give a string with something in it.")
            if any("\ud800" <= letter <= "\udfff" for letter in text):
                raise TextError(
                    f"text number {position}, {brief(text)}, holds half a character. Decode it as UTF-8 again."
                )
        if len(texts) == 0:
            return np.zeros((0, self.dimension), np.float32)
        return self._model.encode(
            list(texts), batch_size=batch_size, show_progress_bar=show_progress_bar, normalize_embeddings=True
        ).astype(np.float32)


def _missing(network: torch.nn.Module | None, folder: Path) -> list[str]:
    """Tensors of a network that no file of a folder has: what sentence-transformers makes up for them, nobody is told.

    A pooler may be missing, which is not used, and a tensor that is another one under a second name.
    """
    from safetensors import safe_open

    stored: set[str] = set()
    for file in folder.rglob("*.safetensors") if folder.is_dir() else ():
        with safe_open(file, framework="pt") as opened:
            stored |= set(opened.keys())
    if network is None or not (folder / "config.json").is_file() or not any(folder.rglob("*.safetensors")):
        return []
    tensors = network.state_dict()
    found = {name for name in tensors if name in stored or any(key.endswith(f".{name}") for key in stored)}
    places = {tensors[name].data_ptr() for name in found}
    return [name for name in tensors.keys() - found if "pooler" not in name and tensors[name].data_ptr() not in places]


def _is_visible(letter: str) -> bool:
    """Neither white space nor a sign that only steers a display, such as the mark of a direction."""
    return not letter.isspace() and unicodedata.category(letter) not in ("Cc", "Cf")
