"""The shipped CLASP models: both fusions on the pocket encoders, and the record of how good they are.

They are trained by the same function as in the book, on more pairs: the training part of Pocket Brown, and, if given,
the spoken sentences that the encoders were pretrained on.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from clasp_lib.encoders import SpectrogramEncoder, SpeechEncoder, TextEncoder
from clasp_lib.evaluation import evaluate_both_directions, evaluate_folder
from clasp_lib.features import Features, extract_features
from clasp_lib.fusion import build_fusion
from clasp_lib.losses import ContrastiveLoss
from clasp_lib.model import CLASP
from clasp_lib.pretraining.clips import Clips
from clasp_lib.profiles import Profile
from clasp_lib.training import TrainingSettings, fuse, train_fusion, validation_mrr

FUSIONS = ("concatenation", "gating")


def train_heads(
    profile: Profile,
    folder: Path,
    settings: TrainingSettings,
    recordings: Mapping[str, Path],
    command: Sequence[str],
    more: Features | None = None,
    train_again: bool = True,
) -> Path:
    """Train, save each model in `folder/<fusion>`, measure it, and return the record `folder/reports/retrieval.json`.

    Args:
        recordings: folders of human speech to measure on, by the name they get in the record.
        command: what was typed, for the record.
        more: further training pairs.
        train_again: False measures the models that are in `folder` and keeps what the record says of their training.
    """
    dataset, encoders = profile.dataset(), profile.encoders()
    features = {
        split: extract_features(part, *encoders, folder=profile.cache / "features", description=f"features of {split}")
        for split, part in dataset.items()
    }
    train, test = features["train"] if more is None else _joined(features["train"], more), features["test"]
    file = folder / "reports" / "retrieval.json"
    record: dict[str, Any] = {**provenance(command), "seed": settings.seed, "training_pairs": len(train)}
    if not train_again:
        record["training_pairs"] = json.loads(file.read_text("utf-8"))["training_pairs"]
    record |= {name: {} for name in ("validation_mrr", "pocket_brown_test", *recordings)}
    for name in FUSIONS:
        if train_again:
            torch.manual_seed(settings.seed)
            fusion = build_fusion(name, *(encoder.dimension for encoder in encoders))
            train_fusion(fusion, ContrastiveLoss(), train, features["validation"], settings)
            model = CLASP(fusion, *encoders, fusion_name=name)
            model.save_pretrained(folder / name)
        else:
            model = CLASP.from_pretrained(folder / name)
            fusion = model.fusion
        record["validation_mrr"][name] = validation_mrr(fusion, features["validation"])
        reports = {"pocket_brown_test": evaluate_both_directions(fuse(fusion, test), test.text, test.sentence_ids)}
        reports |= {label: evaluate_folder(model, path) for label, path in recordings.items()}
        for label, both in reports.items():
            record[label][name] = {direction: report.to_dict() for direction, report in both.items()}
            print(name, label, both["speech_to_text"], sep="\n")
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".tmp")
    unfinished.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(file)
    return file


def features_of_clips(
    clips: Clips, speech: SpeechEncoder, spectrogram: SpectrogramEncoder, text: TextEncoder, chunk: int = 1024
) -> Features:
    """Features of pretraining clips; each distinct text is a sentence of its own."""
    heard, seen = [], []
    for start in tqdm(range(0, len(clips), chunk), desc="features of further clips"):
        waves = [samples.astype(np.float32) / 32768 for samples in clips.samples[start : start + chunk]]
        heard.append(speech.encode(waves, 32))
        seen.append(spectrogram.encode(waves, 32))
    texts, blank = list(clips.texts), [""] * len(clips)
    return Features(np.concatenate(heard), np.concatenate(seen), text.encode(texts), texts, texts, blank, blank)


def provenance(command: Sequence[str]) -> dict[str, str]:
    """Command, date, machine, versions and commit, for a record."""
    try:
        run = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        commit = run.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    return {
        "command": " ".join(command),
        "date": datetime.date.today().isoformat(),
        "commit": commit,
        "machine": f"{platform.system()} {platform.machine()}, {device}",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}",
    }


def _joined(first: Features, second: Features) -> Features:
    return Features(
        np.concatenate([first.speech, second.speech]),
        np.concatenate([first.picture, second.picture]),
        np.concatenate([first.text, second.text]),
        first.sentence_ids + second.sentence_ids,
        first.texts + second.texts,
        first.categories + second.categories,
        first.voices + second.voices,
    )
