"""What is lost on a category, or a length, that was left out of the training: the record behind a chapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clasp_lib.corpus import SPLITS
from clasp_lib.features import Features, extract_features
from clasp_lib.fusion import build_fusion
from clasp_lib.losses import build_loss
from clasp_lib.profiles import Profile
from clasp_lib.records import six_digits
from clasp_lib.robustness import Row
from clasp_lib.shifts import domain_shift, length_shift
from clasp_lib.significance import bootstrap_groups, sign_flip_test
from clasp_lib.training import TrainingSettings, fuse, train_fusion

FUSION, RATE = "linear", 3e-3
"""The straight line, which is the best of the ablation that ships and trains in seconds, and the rate chosen there."""

DOMAIN_SEEDS, LENGTH_SEEDS = 2, 6
"""Trainings of each kind. Of domains there are many, and the question is put to all of them together; a length has to
answer for itself, and six is the fewest with which a p-value over seeds can pass 0.05."""


def measure(profile: Profile, recordings: Mapping[str, Path], seed: int = 0) -> dict[str, Any]:
    """Domain and length shift of a fusion trained on the profile's stored features; recordings are not used."""
    parts = splits(profile)
    three = (parts["train"], parts["validation"], parts["test"])
    domain = domain_shift(*three, fit, seeds=range(seed, seed + DOMAIN_SEEDS))
    length = length_shift(*three, fit, seeds=range(seed, seed + LENGTH_SEEDS))
    return {
        "pairs": {name: len(part) for name, part in parts.items()},
        "fusion": FUSION,
        "learning_rate": RATE,
        "domain": _short(domain),
        "over_categories": _short(over_categories(domain, seed)),
        "length": _short(length),
    }


def splits(profile: Profile) -> dict[str, Features]:
    """The profile's features by split; what is not stored yet is encoded."""
    dataset, encoders = profile.dataset(), profile.encoders()
    store = profile.cache / "features"
    return {name: extract_features(dataset[name], *encoders, folder=store, description=name) for name in SPLITS}


def fit(train: Features, validation: Features, seed: int) -> Callable[[Features], np.ndarray]:
    """The training that `clasp_lib.shifts` asks for, with the ablation's settings."""
    torch.manual_seed(seed)
    widths = train.speech.shape[1], train.picture.shape[1], train.text.shape[1]
    fusion = build_fusion(FUSION, *widths)
    settings = TrainingSettings(epochs=30, patience=8, learning_rate=RATE, seed=seed)
    train_fusion(
        fusion, build_loss("contrastive", widths[2]), train, validation, settings, "cpu", show_progress_bar=False
    )
    return lambda features: fuse(fusion, features)


def over_categories(rows: Sequence[Row], seed: int = 0) -> list[Row]:
    """The mean loss over the categories, each of which counts once, with its interval for other categories."""
    found = []
    for direction, measure in dict.fromkeys((row["direction"], row["measure"]) for row in rows):
        panel = [row for row in rows if (row["direction"], row["measure"]) == (direction, measure)]
        losses = np.array([row["value"] for row in panel])  # (categories,)
        interval = bootstrap_groups({"loss": losses}, None, seed=seed)["loss"]
        means = {way: float(np.mean([row[way] for row in panel])) for way in ("without", "with_it")}
        p_value = sign_flip_test(losses, seed=seed)
        found.append({"direction": direction, "measure": measure, **means, **interval._asdict(), "p_value": p_value})
        found[-1]["n"] = len(losses)
    return found


def _short(rows: Sequence[Row]) -> list[Row]:
    """Rows with six digits."""
    return [{name: six_digits(value) for name, value in row.items()} for row in rows]
