"""What each disturbance does for a recogniser that trains with it: the same start, the same minutes, one at a time.

A network is trained on clean speech; from there it goes on while its learning rate falls to nothing, once for each
disturbance (half of the clips are disturbed by it), once without any, and once with the shares of the full recipe. Each
of these networks then listens to held-out clips through each disturbance.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clasp_lib.metrics import Interval
from clasp_lib.pretraining.augmentation import AUGMENTATIONS, SHARES
from clasp_lib.pretraining.clips import Clips
from clasp_lib.pretraining.speech import SpeechRecipe, pretrain_speech
from clasp_lib.transcription import Transcriber, count_errors, error_rates, ratio, spelled

DIETS: dict[str, dict[str, float]] = {"none": {}, **{name: {name: 0.5} for name in AUGMENTATIONS}, "all": SHARES}
"""Which share of the clips each disturbance takes, by the name of the run."""


def ablate(
    train: Clips, held_out: Clips, folder: Path, recipe: SpeechRecipe, clean_minutes: float, seed: int = 0
) -> dict[str, Any]:
    """Train all the runs of this comparison in `folder`, and measure them; what was done already is not done again.

    Args:
        recipe: how they train; its minutes are those that each run gets after the clean ones.

    Returns:
        The recipe of the runs in short, and by run and by disturbance the letter error rate of the `held_out` clips, as
        [value, low, high], and the difference from the run without disturbances, likewise, paired by clip.
    """
    level = replace(recipe.loop, minutes=clean_minutes, augmented={}, cooldown=0.0)
    pretrain_speech(train, {}, folder / "clean", replace(recipe, loop=level))
    minutes = clean_minutes + recipe.loop.minutes
    heard: dict[str, dict[str, list[str]]] = {}
    for name, shares in DIETS.items():
        run = folder / name.replace(" ", "-")
        if not run.exists():
            shutil.copytree(folder / "clean", folder / "copy.tmp", dirs_exist_ok=True)
            (folder / "copy.tmp").rename(run)
        cooldown = recipe.loop.minutes / minutes
        loop = replace(recipe.loop, minutes=minutes, augmented=shares, cooldown=cooldown)
        recogniser = Transcriber(str(pretrain_speech(train, {}, run, replace(recipe, loop=loop))))
        heard[name] = {way: recogniser.transcribe(waves) for way, waves in _ways(held_out, seed).items()}
    said = [spelled(text) for text in held_out.texts]
    return {
        "clean_minutes": clean_minutes,
        "minutes": recipe.loop.minutes,
        "train_clips": len(train),
        "held_out_clips": len(held_out),
        "letter_error_rate": {
            name: {way: _rounded(error_rates(said, texts)["letter_error_rate"]) for way, texts in ways.items()}
            for name, ways in heard.items()
        },
        "difference": {
            name: {way: _rounded(_difference(said, texts, heard["none"][way], seed)) for way, texts in ways.items()}
            for name, ways in heard.items()
            if name != "none"
        },
    }


def _ways(clips: Clips, seed: int) -> dict[str, list[np.ndarray]]:
    """The clips as they are, and through each disturbance; each has the others as company."""
    waves = [torch.from_numpy(samples.astype(np.float32)) for samples in clips.samples]
    waves = [wave / wave.std() for wave in waves]
    ways = {"none": [wave.numpy() for wave in waves]}
    for name, disturb in AUGMENTATIONS.items():
        rng = np.random.default_rng(seed)
        ways[name] = [disturb(wave, rng, waves).numpy() for wave in waves]
    return ways


def _difference(said: Sequence[str], heard: Sequence[str], others: Sequence[str], seed: int) -> Interval:
    """Letter error rate of `heard` less that of `others`, with a 95% interval from a bootstrap over texts."""
    counts, against = count_errors(said, heard), count_errors(said, others)
    return ratio(counts["letter_errors"] - against["letter_errors"], counts["letters"], seed=seed)


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(float(value), 4) for value in values]
