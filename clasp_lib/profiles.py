"""What a run of the book depends on, in one small object: which encoders, sentences, voices and sizes.

Notebooks and library code never ask for a profile's name. The same lines run in every profile; only the object differs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from clasp_lib.corpus import Sentence, Split, pocket_brown
from clasp_lib.encoders import SpectrogramEncoder, SpeechEncoder, TextEncoder
from clasp_lib.errors import ClaspError
from clasp_lib.speech_brown import build_speech_brown, load_dataset, save_dataset
from clasp_lib.synthesis import ESpeak, Synthesizer

if TYPE_CHECKING:
    from datasets import DatasetDict


@dataclass(frozen=True)
class Profile:
    """One way to run the book.

    Attributes:
        speech_encoder, spectrogram_encoder, text_encoder: names of checkpoints.
        sentences: function that returns the corpus.
        synthesizer: function that returns the engine that speaks it.
        voices_per_sentence: how many voices speak each sentence of a split.
        seed: of the splits, the voices and the training.
    """

    name: str
    speech_encoder: str
    spectrogram_encoder: str
    text_encoder: str
    sentences: Callable[[], list[Sentence]]
    synthesizer: Callable[[], Synthesizer]
    speech_layer: int = -1
    voices_per_sentence: Mapping[Split, int] = field(default_factory=lambda: {"train": 2, "validation": 1, "test": 1})
    seed: int = 0

    @property
    def cache(self) -> Path:
        """Where datasets and features are kept: `$CLASP_CACHE` or `~/.cache/clasp`, then the profile's name."""
        root = os.environ.get("CLASP_CACHE") or Path.home() / ".cache" / "clasp"
        return Path(root) / self.name

    def dataset(self, folder: str | Path | None = None) -> DatasetDict:
        """The profile's Speech Brown: opened if it was built before, else built and kept (in `folder` or the cache)."""
        sentences = self.sentences()
        recipe = json.dumps([sentences, dict(self.voices_per_sentence), self.seed])
        digest = hashlib.sha256(recipe.encode()).hexdigest()[:16]
        folder = Path(folder) if folder else self.cache / f"speech_brown-{digest}"
        if not folder.exists():
            build = build_speech_brown(
                sentences, self.synthesizer(), voices_per_sentence=self.voices_per_sentence, seed=self.seed
            )
            save_dataset(build.dataset, folder)
        return load_dataset(folder)

    def encoders(self) -> tuple[SpeechEncoder, SpectrogramEncoder, TextEncoder]:
        """The three frozen encoders, loaded."""
        return (
            SpeechEncoder(self.speech_encoder, layer=self.speech_layer),
            SpectrogramEncoder(self.spectrogram_encoder),
            TextEncoder(self.text_encoder),
        )


PROFILES = {
    "pocket": Profile(
        name="pocket",
        speech_encoder="pocket-ctc",
        spectrogram_encoder="pocket-efficientnet",
        text_encoder="all-MiniLM-L6-v2",
        sentences=pocket_brown,
        synthesizer=ESpeak,
    ),
}


def get_profile(name: str | None = None) -> Profile:
    """The profile called `name`, or the one that `$CLASP_PROFILE` names, or "pocket".

    Raises:
        ClaspError: there is no such profile.
    """
    name = name or os.environ.get("CLASP_PROFILE") or "pocket"
    if name not in PROFILES:
        raise ClaspError(f"profile {name!r} is not known. Set CLASP_PROFILE to one of: {', '.join(PROFILES)}.")
    return PROFILES[name]
