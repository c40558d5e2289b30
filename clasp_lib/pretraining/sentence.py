"""`pocket-search`: the transcribing encoder, trained further so that the mean of its frames says what a sentence means.

This one is shown the sentence space: its mean vector, once through a linear layer, must pick the sentence encoder's
vector of its text out of those of all training texts, as in SAMU-XLSR (Khurana et al. 2022) but with a contrastive
loss. It searches better and teaches less: a fusion on top of it is no longer CLASP's claim that encoders which never
met can be joined. The book names it wherever it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from clasp_lib.audio import SAMPLING_RATE
from clasp_lib.encoders import TextEncoder
from clasp_lib.pretraining.clips import Clips
from clasp_lib.pretraining.loop import Batch, LoopSettings, batches, collate, run

_CARD = """---
license: mit
language: en
library_name: transformers
pipeline_tag: feature-extraction
tags: [hubert, sentence-similarity]
---

# pocket-search

`pocket-ctc`, trained further at sentence level: the mean of its last hidden states, once through a linear layer that
is not kept, had to pick the all-MiniLM-L6-v2 vector of its text out of those of all training texts. It was shown the
sentence space, which an encoder under CLASP usually was not. Loads with `AutoModel`, or with
`clasp_lib.encoders.SpeechEncoder("pocket-search")`.

Data, seeds, hours and curves are in `../reports/search.json` and `../reports/search.jsonl`; measures, limits and
licence (MIT) in `../README.md`.
"""


@dataclass(frozen=True)
class SentenceRecipe:
    """How the encoder is trained further; `temperature` divides the cosines (Radford et al. 2021)."""

    loop: LoopSettings
    temperature: float = 0.05


class SentenceLearner(nn.Module):
    """An encoder, the mean over its frames, and a linear layer into the sentence space."""

    def __init__(self, encoder: Path, width: int) -> None:
        from transformers import HubertModel

        super().__init__()
        self.hubert: Any = HubertModel.from_pretrained(encoder, dtype=torch.float32)
        self.hubert.set_attn_implementation("eager")
        self.head = nn.Linear(self.hubert.config.hidden_size, width)

    def forward(self, waves: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Waves and mask (clips, samples) -> unit vectors (clips, width)."""
        states = self.hubert(waves, attention_mask=mask).last_hidden_state.float()  # (clips, frames, hidden)
        frames = self.hubert._get_feat_extract_output_lengths(mask.sum(1))  # (clips,)
        real = torch.arange(states.shape[1], device=states.device) < frames[:, None]  # (clips, frames)
        mean = (states * real[:, :, None]).sum(1) / frames[:, None]
        return nn.functional.normalize(self.head(mean), dim=-1)


def pretrain_sentence(
    train: Clips,
    train_texts: np.ndarray,
    held_out: Mapping[str, tuple[Clips, np.ndarray]],
    encoder: Path,
    folder: Path,
    recipe: SentenceRecipe,
) -> Path:
    """Train on from `encoder`, export to `folder/search` in the layout of transformers, and return that folder.

    Args:
        train_texts: unit vectors of the training texts, (clips, width); equal rows are one text.
        held_out: clips and the vectors of their texts, to measure the learning curve on, by name.
    """
    torch.manual_seed(recipe.loop.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    learner = SentenceLearner(encoder, train_texts.shape[1]).to(device)
    if recipe.loop.compiled:
        learner.hubert.encoder.compile(dynamic=True)
    known = {text: n for n, text in enumerate(dict.fromkeys(train.texts))}
    labels = torch.tensor([known[text] for text in train.texts])
    first = {n: i for i, n in reversed(list(enumerate(labels.tolist())))}
    pool = torch.from_numpy(train_texts[[first[n] for n in range(len(known))]]).to(device)  # (texts, width)

    def losses(numbers: np.ndarray, batch: Batch) -> dict[str, torch.Tensor]:
        cosines = learner(batch.waves, batch.mask) @ pool.T  # (clips, texts)
        loss = nn.functional.cross_entropy(cosines.float() / recipe.temperature, labels[numbers].to(device))
        return {"contrastive_loss": loss}

    def measure() -> dict[str, float]:
        found: dict[str, torch.Tensor] = {}
        for name, (clips, texts) in held_out.items():
            scores = torch.from_numpy(vectors(learner, clips) @ texts.T)
            rank = 1 + (scores > scores.diag()[:, None]).sum(1).double()
            found |= {f"{name}_hits_at_1": (rank == 1).double().mean(), f"{name}_mrr": (1 / rank).mean()}
        return {name: round(value.item(), 4) for name, value in found.items()}

    progress = run(learner, losses, measure, train, folder, "search", recipe.loop)
    report = {
        "recipe": asdict(recipe),
        "train_clips": len(train),
        "train_hours": round(train.hours, 2),
        "clips_seen": int(progress["seen"]),
        "held_out_clips": {name: len(clips) for name, (clips, _) in held_out.items()},
        "retrieval": measure(),
    }
    (folder / "search.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return export(learner, folder / "search")


def text_vectors(encoder: TextEncoder, texts: list[str], folder: Path) -> np.ndarray:
    """The encoder's vectors of the texts, (texts, width); kept in `folder` for the next run with the same texts."""
    digest = hashlib.sha256("\n".join([encoder.digest, *texts]).encode()).hexdigest()[:16]
    file = folder / f"texts-{digest}.npy"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with open(f"{file}.tmp", "wb") as unfinished:
            np.save(unfinished, encoder.encode(texts, 64, show_progress_bar=True))
        os.replace(f"{file}.tmp", file)
    return np.load(file)


@torch.no_grad()
def vectors(learner: SentenceLearner, clips: Clips) -> np.ndarray:
    """Unit vectors of clips, (clips, width)."""
    learner.eval()
    device = next(learner.parameters()).device
    out = np.zeros((len(clips), learner.head.out_features), np.float32)
    for batch in batches([len(s) for s in clips.samples], 110.0, np.random.default_rng(0)):
        waves, mask, _ = collate([clips.samples[i] for i in batch])
        out[batch] = learner(waves.to(device), mask.to(device)).cpu().numpy()
    learner.train()
    return out


def export(learner: SentenceLearner, folder: Path) -> Path:
    """Write the encoder without the linear layer, half precision, as transformers stores any HuBERT."""
    from transformers import HubertModel, Wav2Vec2FeatureExtractor

    model = HubertModel(learner.hubert.config)
    model.load_state_dict(learner.hubert.state_dict())
    model.eval().half().save_pretrained(folder)
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=SAMPLING_RATE, do_normalize=True, return_attention_mask=True)
    extractor.save_pretrained(folder)
    (folder / "README.md").write_text(_CARD, encoding="utf-8")
    return folder
