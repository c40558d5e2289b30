"""The shipped CLASP models: fusions on top of the pocket encoders, trained by the same function as in the book.

They see more pairs than the book's do: the training part of Pocket Brown, and, if given, spoken sentences that the
encoders were pretrained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from clasp_lib.features import Features, concatenate_features, extract_features
from clasp_lib.folders import write_whole
from clasp_lib.fusion import build_fusion
from clasp_lib.losses import ContrastiveLoss
from clasp_lib.model import CLASP
from clasp_lib.pretraining.clips import Clips
from clasp_lib.profiles import Profile
from clasp_lib.training import TrainingSettings, train_fusion, validation_mrr


def train_heads(
    profile: Profile, fusions: Mapping[str, str], folder: Path, settings: TrainingSettings, more: Features | None = None
) -> dict[str, float]:
    """Train on the profile's encoders, save each model in `folder/<name>`, and return the validation MRRs by name.

    Args:
        fusions: names in `clasp_lib.fusion.FUSIONS`, by the name of the folder that the model gets.
        more: of further training clips, by the same encoders.
    """
    dataset, encoders = profile.dataset(), profile.encoders()
    train, validation = (
        extract_features(dataset[split], *encoders, folder=profile.cache / "features", description=split)
        for split in ("train", "validation")
    )
    if more is not None:
        train = concatenate_features([train, more])
    found = {}
    for name, kind in fusions.items():
        torch.manual_seed(settings.seed)
        fusion = build_fusion(kind, *(encoder.dimension for encoder in encoders))
        train_fusion(fusion, ContrastiveLoss(), train, validation, settings)
        CLASP(fusion, *encoders, fusion_name=kind).save_pretrained(folder / name)
        halve(folder / name / "model.safetensors")
        found[name] = validation_mrr(fusion, validation)
        print(f"{name}: {len(train)} pairs, validation MRR {found[name]:.4f}", flush=True)
    return found


def halve(file: Path) -> None:
    """Store matrices in half precision; vectors, batch norm's statistics among them, keep all their digits."""
    from safetensors.torch import load_file, save

    tensors = {name: t.half() if t.ndim > 1 and t.is_floating_point() else t for name, t in load_file(file).items()}
    write_whole(file, save(tensors, {"format": "pt"}))


def features_of_clips(clips: Clips, profile: Profile, known: Features | None = None, chunk: int = 1024) -> Features:
    """Features of pretraining clips by the profile's encoders; each distinct text is a sentence of its own.

    Args:
        known: features of the same clips that differ in the speech encoder only; pictures and texts are taken from it.
    """
    speech, spectrogram, text = profile.encoders()
    heard, seen = [], []
    for start in tqdm(range(0, len(clips), chunk), desc=f"features by {speech.name}"):
        waves = [samples.astype(np.float32) / 32768 for samples in clips.samples[start : start + chunk]]
        heard.append(speech.encode(waves, 32))
        if known is None:
            seen.append(spectrogram.encode(waves, 32))
    if known is not None:
        return replace(known, speech=np.concatenate(heard))
    texts, blank = list(clips.texts), [""] * len(clips)
    return Features(np.concatenate(heard), np.concatenate(seen), text.encode(texts), texts, texts, blank, blank)
