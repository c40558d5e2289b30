"""What is left of each system when the sound is bad: the record behind the chapter on robustness."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch.nn import functional

from clasp_lib.disturbances import ACTIVE, FRAME
from clasp_lib.encoders.checkpoints import digest_of
from clasp_lib.features import extract_features
from clasp_lib.fusion import Fusion, build_fusion
from clasp_lib.losses import build_loss
from clasp_lib.model import CLASP
from clasp_lib.pretraining.measure import TRANSCRIPT, HeldOut, pocket_brown_test
from clasp_lib.profiles import Profile
from clasp_lib.records import six_digits
from clasp_lib.robustness import Heard, Row, System, compare_rows, curve_rows, hear
from clasp_lib.training import TrainingSettings, train_fusion
from clasp_lib.transcription import NOTHING_HEARD, Transcriber

STRENGTHS: dict[str, tuple[float, ...]] = {
    "white noise": (20, 10, 0),
    "babble": (20, 10, 0),
    "hum 50 Hz": (10, 0, -10),
    "reverberation": (0.2, 0.4, 0.8),
    "telephone": (1, 2),
    "MP3": (32, 16, 8),
    "Opus": (24, 12, 6),
    "clipping": (0.1, 0.2, 0.4),
    "speed": (0.8, 0.9, 1.1, 1.2),
    "truncation": (0.1, 0.25, 0.5),
    "silence": (0.5, 1, 2),
}
"""What is measured: every kind of disturbance, of the mains frequencies one; about 25 s of one core for each."""

BOTH, SPEECH_ONLY, PICTURE_ONLY, TRIMMED = "CLASP", "speech only", "picture only", "CLASP, trimmed"

PICTURE_SETTINGS = TrainingSettings(epochs=30, patience=8, learning_rate=3e-4)
"""As in the ablation that ships, which chose this rate for the picture alone on the validation split."""

SLICE = 25
"""Of every so many clips, one is kept with its own scores, which can be measured again without the others."""

_BATCH = 32
_T = TypeVar("_T")


def measure(
    profile: Profile, recordings: Mapping[str, Path], seed: int = 0, folder: Path | None = None
) -> dict[str, Any]:
    """All systems through all of `STRENGTHS`, on the test split of the profile's dataset; recordings are not used.

    Args:
        folder: keeps what is finished, so that a stopped run goes on there.
    """
    picture, pairs = picture_only(profile, folder / "picture" if folder else None)
    test = pocket_brown_test(profile)
    heard = hear_all(test, picture, STRENGTHS, seed, folder)
    numbers = list(range(0, len(test.ids), SLICE))
    rows = curve_rows([part for part in heard if part.direction == "text_to_speech"], ["mrr"], seed=seed)
    spoken = [part for part in heard if part.direction == "speech_to_text"]
    rows += curve_rows(spoken, seed=seed)
    comparisons = [
        row
        for first, second in ((BOTH, TRANSCRIPT), (BOTH, SPEECH_ONLY), (BOTH, PICTURE_ONLY), (TRIMMED, BOTH))
        for row in compare_rows(spoken, first, second, ["mrr"], seed=seed)
    ]
    shared = ("n", "clips", "resamples", "seed")
    return {
        **{name: rows[0][name] for name in shared},
        "picture_only": {
            "trained_on": pairs,
            "recipe": "the ablation's",
            "learning_rate": PICTURE_SETTINGS.learning_rate,
        },
        "rows": [_short(row, shared) for row in rows],
        "comparisons": [_short(row, shared) for row in comparisons],
        "slice": {
            "clips": numbers,
            "mrr": [
                {"system": part.system, "disturbance": part.disturbance, "strength": part.strength}
                | {"scores": [round(float(part.scores["mrr"][i]), 6) for i in numbers]}
                for part in spoken
            ],
        },
    }


def hear_all(
    test: HeldOut,
    picture: Fusion | None,
    strengths: Mapping[str, Sequence[float]],
    seed: int = 0,
    folder: Path | None = None,
) -> list[Heard]:
    """The scores of all systems, sentence by sentence; of the trimmed one, clean and through silence alone."""
    clasp, speech_only = (CLASP.from_pretrained(name, device="cpu") for name in ("pocket", "pocket-speech-only"))
    found, versions = systems(clasp, speech_only, picture, Transcriber("pocket-ctc", device="cpu"))
    texts = clasp.encode_text(test.texts, show_progress_bar=False)
    heard = hear(test.waves, texts, test.ids, found, strengths, seed, folder, versions=versions)
    if silence := strengths.get("silence"):
        cure, version = {TRIMMED: after_trimming(found[BOTH])}, {TRIMMED: clasp.fingerprint}
        heard += hear(test.waves, texts, test.ids, cure, {"silence": silence}, seed, folder, versions=version)
    return heard


def systems(
    clasp: CLASP, speech_only: CLASP, picture: Fusion | None, transcriber: Transcriber
) -> tuple[dict[str, System], dict[str, str]]:
    """The systems by name, and what each is (`versions` of `clasp_lib.robustness.hear`).

    All stand on CLASP's encoders, each of which hears a wave once. Without a `picture` that system is left out.
    """
    hidden = remembered(lambda waves: clasp.speech_encoder.frames(waves, _BATCH))
    seen = remembered(lambda waves: torch.from_numpy(clasp.spectrogram_encoder.encode(waves, _BATCH)))

    def fused(fusion: Fusion) -> System:
        @torch.inference_mode()
        def vectors(waves: list[np.ndarray]) -> np.ndarray:
            speech = torch.stack([torch.from_numpy(clip).mean(0) for clip in hidden(waves)])  # (n, speech width)
            return functional.normalize(fusion(speech, seen(waves)).float(), dim=-1).numpy()

        return vectors

    def transcript(waves: list[np.ndarray]) -> np.ndarray:
        texts = transcriber.read(hidden(waves))
        return clasp.text_encoder.encode([text or NOTHING_HEARD for text in texts])

    found: dict[str, System] = {BOTH: fused(clasp.fusion), SPEECH_ONLY: fused(speech_only.fusion)}
    versions = {BOTH: clasp.fingerprint, SPEECH_ONLY: speech_only.fingerprint}
    if picture is not None:
        found[PICTURE_ONLY], versions[PICTURE_ONLY] = fused(picture), digest_of(picture)
    found[TRANSCRIPT], versions[TRANSCRIPT] = transcript, transcriber.digest
    return found, versions


def remembered(encode: Callable[[list[np.ndarray]], _T]) -> Callable[[list[np.ndarray]], _T]:
    """The same function, which answers at once if it is asked for the very same arrays again."""
    last: list[tuple[list[np.ndarray], _T]] = []

    def again(waves: list[np.ndarray]) -> _T:
        if not last or len(last[0][0]) != len(waves) or any(a is not b for a, b in zip(last[0][0], waves, strict=True)):
            last[:] = [(list(waves), encode(waves))]  # the arrays are held, so that no other can take their place
        return last[0][1]

    return again


def trimmed(wave: np.ndarray) -> np.ndarray:
    """`wave` (samples,) at 16 kHz without what comes before the first and after the last frame of speech.

    A frame of 20 ms is speech if it is at most 30 dB below the loudest one (`clasp_lib.disturbances.ACTIVE`). The cut
    is five frames further out, for the sake of soft consonants. Pauses between words stay.
    """
    energies = np.add.reduceat(np.square(wave, dtype=np.float64), np.arange(0, len(wave), FRAME))  # (frames,)
    spoken = np.flatnonzero(energies >= energies.max() * 10 ** (-ACTIVE / 10))
    return wave[max(0, spoken[0] - 5) * FRAME : (spoken[-1] + 6) * FRAME]


def after_trimming(system: System) -> System:
    """`system` with `trimmed` before it; of waves from which the same is left, one is heard."""
    known: dict[bytes, np.ndarray] = {}

    def vectors(waves: list[np.ndarray]) -> np.ndarray:
        cut = {hashlib.sha256(wave.tobytes()).digest(): wave for wave in (trimmed(wave) for wave in waves)}
        missing = {key: wave for key, wave in cut.items() if key not in known}
        if missing:
            known.update(zip(missing, system(list(missing.values())), strict=True))
        return np.stack([known[hashlib.sha256(trimmed(wave).tobytes()).digest()] for wave in waves])

    return vectors


def picture_only(profile: Profile, folder: Path | None = None) -> tuple[Fusion, int]:
    """A fusion that sees the picture alone, trained on the profile's clips, and the number of pairs."""
    dataset, encoders = profile.dataset(), profile.encoders()
    train, validation = (
        extract_features(dataset[split], *encoders, folder=profile.cache / "features", description=split)
        for split in ("train", "validation")
    )
    torch.manual_seed(PICTURE_SETTINGS.seed)
    fusion = build_fusion("picture_only", *(encoder.dimension for encoder in encoders))
    loss = build_loss("contrastive", encoders[2].dimension)
    train_fusion(fusion, loss, train, validation, PICTURE_SETTINGS, "cpu", show_progress_bar=False, folder=folder)
    return fusion, len(train)


def _short(row: Row, shared: Sequence[str]) -> Row:
    """A row without what all have in common, its numbers with six digits."""
    return {name: six_digits(value) for name, value in row.items() if name not in shared}
