"""What a run of the book depends on, in one small object: which encoders, sentences, voices and sizes.

Notebooks and library code never ask for a profile's name. The same lines run in every profile; only the object differs.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from clasp_lib.convert import PUBLISHED, PUBLISHED_WEIGHTS
from clasp_lib.corpus import Sentence, Split, brown, download_brown, pocket_brown
from clasp_lib.encoders import SpectrogramEncoder, SpeechEncoder, TextEncoder
from clasp_lib.encoders.checkpoints import Precision
from clasp_lib.errors import ClaspError
from clasp_lib.folders import only_process, reported, write_whole
from clasp_lib.neural_synthesis import VITS, Vits
from clasp_lib.paper_tiny import STAND_INS, make_checkpoints
from clasp_lib.speech_brown import build_speech_brown, load_dataset, save_dataset
from clasp_lib.synthesis import ESpeak, Synthesizer
from clasp_lib.tiny_corpora import BROWN

if TYPE_CHECKING:
    from datasets import DatasetDict


@dataclass(frozen=True)
class Profile:
    """One way to run the book.

    Attributes:
        speech_encoder, spectrogram_encoder, text_encoder: names of checkpoints.
        sentences: function that returns the corpus.
        synthesizer: function that returns the engine that speaks it.
        models: by fusion, what `CLASP.from_pretrained` takes to load the trained model of this profile; "search" is the
            one that finds most.
        offline: whether tiny stand-ins take the place of what is published on the hub; see `from_hub`.
        precision: in which the speech and the picture encoder run on a GPU.
        voices_per_sentence: how many voices speak each sentence of a split.
        seed: of the splits, the voices and the training.
        meaningful: whether numbers mean anything. They do not where weights are random.
    """

    name: str
    speech_encoder: str
    spectrogram_encoder: str
    text_encoder: str
    sentences: Callable[[], list[Sentence]]
    synthesizer: Callable[[], Synthesizer]
    models: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    offline: bool = False
    speech_layer: int = -1
    precision: Precision = "float32"
    voices_per_sentence: Mapping[Split, int] = field(default_factory=lambda: {"train": 1, "validation": 1, "test": 1})
    seed: int = 0
    meaningful: bool = True

    @property
    def cache(self) -> Path:
        """Where datasets and features are kept: `$CLASP_CACHE` or `~/.cache/clasp`, then the profile's name."""
        return _cache() / self.name

    def dataset(self, folder: str | Path | None = None) -> DatasetDict:
        """The profile's Speech Brown: opened if it was built before, else built and kept (in `folder` or the cache).

        A build that was stopped goes on where it was, and of several processes one builds while the others wait.
        Sentences that cannot be spoken are left out with a warning, and listed with the reasons in the folder's
        `skipped.json`.

        Raises:
            DatasetError: the folder cannot be written, or holds something else.
        """
        sentences = self.sentences()
        recipe = json.dumps([sentences, dict(self.voices_per_sentence), self.seed, repr(self.synthesizer)])
        digest = hashlib.sha256(recipe.encode()).hexdigest()[:16]
        folder = Path(folder) if folder else self.cache / f"speech_brown-{digest}"
        unfinished = folder.with_name(f"{folder.name}-unfinished")
        if not folder.exists():
            with only_process(folder.with_name(f".{folder.name}.lock"), wait=True):
                if not folder.exists():  # another process may have built it in the meantime
                    self._build(sentences, unfinished, folder)
        shutil.rmtree(unfinished, ignore_errors=True)  # also what a killed process has left
        return load_dataset(folder)

    def _build(self, sentences: list[Sentence], unfinished: Path, folder: Path) -> None:
        """Speak the sentences; `folder` appears when all is there."""
        dataset, skipped = build_speech_brown(
            sentences,
            self.synthesizer(),
            voices_per_sentence=self.voices_per_sentence,
            seed=self.seed,
            folder=unfinished,
            on_error="skip",
        )
        if skipped:
            warnings.warn(f"{len(skipped)} clips are left out, e.g. {skipped[0].reason}", stacklevel=3)
        with reported(folder):
            save_dataset(dataset, ready := unfinished / "ready")
            write_whole(ready / "skipped.json", (json.dumps(skipped, indent=1) + "\n").encode())
            ready.rename(folder)

    def from_hub(self, name: str) -> str:
        """What to load for something published: `name` itself, or a folder that stands in for it and is laid out alike.

        Stand-ins are tiny, with random weights, and are made when the first of them is asked for.
        """
        return str(_stand_ins() / STAND_INS.get(name, name)) if self.offline else name

    def encoders(self) -> tuple[SpeechEncoder, SpectrogramEncoder, TextEncoder]:
        """The three frozen encoders, loaded."""
        return (
            SpeechEncoder(self.speech_encoder, layer=self.speech_layer, precision=self.precision),
            SpectrogramEncoder(self.spectrogram_encoder, precision=self.precision),
            TextEncoder(self.text_encoder),
        )


def _cache() -> Path:
    return Path(os.environ.get("CLASP_CACHE") or Path.home() / ".cache" / "clasp")


def _stand_ins() -> Path:
    return make_checkpoints(_cache() / "stand-ins")


def _paper() -> Profile:
    """The published system: needs a GPU, a network, and time."""
    return Profile(
        name="paper",
        speech_encoder="facebook/hubert-large-ls960-ft",
        spectrogram_encoder="torchvision/efficientnet_b7",
        text_encoder="sentence-transformers/LaBSE",
        sentences=lambda: brown(download_brown(_cache() / "nltk_data")),
        synthesizer=partial(Vits, VITS),
        models={
            "concatenation": {"name": PUBLISHED, "weights_name": PUBLISHED_WEIGHTS[0]},
            "gating": {"name": PUBLISHED, "weights_name": PUBLISHED_WEIGHTS[1]},
            "search": {"name": PUBLISHED, "weights_name": PUBLISHED_WEIGHTS[0]},
        },
        offline=False,
        precision="mixed",
    )


def _paper_tiny() -> Profile:
    """`paper` with a stand-in for everything that it loads."""
    paper = replace(_paper(), offline=True)
    encoders = {
        "speech_encoder": paper.from_hub(paper.speech_encoder),
        "spectrogram_encoder": paper.from_hub(paper.spectrogram_encoder),
        "text_encoder": paper.from_hub(paper.text_encoder),
    }
    return replace(
        paper,
        **encoders,  # type: ignore[arg-type]
        name="paper-tiny",
        models={name: {**model, **encoders, "name": paper.from_hub(PUBLISHED)} for name, model in paper.models.items()},
        sentences=lambda: brown(paper.from_hub(BROWN)),
        synthesizer=partial(Vits, paper.from_hub(VITS)),
        meaningful=False,
    )


def _pocket() -> Profile:
    """Small encoders and sentences that come with the package: for a laptop, offline."""
    return Profile(
        name="pocket",
        speech_encoder="pocket-ctc",
        spectrogram_encoder="pocket-efficientnet",
        text_encoder="all-MiniLM-L6-v2",
        sentences=pocket_brown,
        synthesizer=ESpeak,
        models={kind: {"name": f"pocket-{kind}"} for kind in ("concatenation", "gating")}
        | {"search": {"name": "pocket-search-linear"}},
        offline=True,
        voices_per_sentence={"train": 2, "validation": 1, "test": 1},
    )


PROFILES: dict[str, Callable[[], Profile]] = {"pocket": _pocket, "paper": _paper, "paper-tiny": _paper_tiny}
"""By name; what `get_profile` returns."""


def get_profile(name: str | None = None) -> Profile:
    """The profile called `name`, or the one that `$CLASP_PROFILE` names, or "pocket".

    Raises:
        ClaspError: there is no such profile.
    """
    name = name or os.environ.get("CLASP_PROFILE") or "pocket"
    if name not in PROFILES:
        raise ClaspError(f"profile {name!r} is not known. Set CLASP_PROFILE to one of: {', '.join(PROFILES)}.")
    return PROFILES[name]()
