"""`pocket-search`: the transcribing encoder, trained further so that the mean of its frames says what a sentence means.

This one is shown the sentence space: its mean vector, once through a linear layer, must pick the sentence encoder's
vector of its text out of those of all training texts, as in SAMU-XLSR (Khurana et al. 2022) but with a contrastive
loss. It goes on writing word pieces meanwhile, so that it does not forget how to listen. It searches better and teaches
less: a fusion on top of it is no longer CLASP's claim that encoders which never met can be joined. The book names it
wherever it is used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from clasp_lib.audio import SAMPLING_RATE
from clasp_lib.encoders import TextEncoder
from clasp_lib.encoders.checkpoints import chosen_device
from clasp_lib.folders import replacing
from clasp_lib.pretraining.clips import Clips
from clasp_lib.pretraining.loop import Batch, LoopSettings, batches, collate, run
from clasp_lib.pretraining.speech import ctc, mean_over_frames
from clasp_lib.provenance import write_record
from clasp_lib.transcription import spelled

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


WEIGHTS = {"contrastive_loss": 1.0, "piece_loss": 0.3}
"""Of the two terms of the loss."""

STRAIGHT = 8_192
"""Clips that the linear layer is first fitted to."""


@dataclass(frozen=True)
class SentenceRecipe:
    """How the encoder is trained further; `temperature` divides the cosines (Radford et al. 2021)."""

    loop: LoopSettings
    temperature: float = 0.05


class SentenceLearner(nn.Module):
    """An encoder that transcribes, the mean over its frames, and a linear layer into the sentence space."""

    def __init__(self, encoder: Path, width: int) -> None:
        from transformers import HubertForCTC

        super().__init__()
        model: Any = HubertForCTC.from_pretrained(encoder, dtype=torch.float32)
        model.set_attn_implementation("eager")
        self.hubert, self.piece_head = model.hubert, model.lm_head
        self.head = nn.Linear(self.hubert.config.hidden_size, width)

    def forward(self, waves: torch.Tensor, mask: torch.Tensor) -> Heard:
        """Waves and mask (clips, samples) to what was heard."""
        states = self.hubert(waves, attention_mask=mask).last_hidden_state
        frames = self.hubert._get_feat_extract_output_lengths(mask.sum(1)).long()
        return Heard(mean_over_frames(states, frames), self.piece_head(states), frames)

    def project(self, means: torch.Tensor) -> torch.Tensor:
        """Means (clips, hidden) to unit vectors (clips, width)."""
        return nn.functional.normalize(self.head(means).float(), dim=-1)


class Heard(NamedTuple):
    """What the encoder makes of a batch; `frames` counts the real ones of each clip."""

    means: torch.Tensor  # (clips, hidden)
    pieces: torch.Tensor  # (clips, frames, pieces)
    frames: torch.Tensor  # (clips,)


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
    from transformers import AutoTokenizer

    torch.manual_seed(recipe.loop.seed)
    device = chosen_device(None)
    learner = SentenceLearner(encoder, train_texts.shape[1]).to(device)
    if recipe.loop.compiled:
        learner.hubert.encoder.compile(dynamic=True)
    known = {text: n for n, text in enumerate(dict.fromkeys(train.texts))}
    labels = torch.tensor([known[text] for text in train.texts])
    first = {n: i for i, n in reversed(list(enumerate(labels.tolist())))}
    pool = torch.from_numpy(train_texts[[first[n] for n in range(len(known))]]).to(device)  # (texts, width)

    tokenizer = AutoTokenizer.from_pretrained(encoder, trust_remote_code=False)
    pieces = [torch.tensor(tokenizer.encode(spelled(text))) for text in train.texts]
    if not (folder / "search.state.safetensors").exists():
        some = np.linspace(0, len(train) - 1, min(STRAIGHT, len(train))).astype(int)
        fit_head(learner, means(learner, train.chosen(some)), train_texts[some])

    def losses(numbers: np.ndarray, batch: Batch) -> dict[str, torch.Tensor]:
        heard = learner(batch.waves, batch.mask)
        cosines = learner.project(heard.means) @ pool.T  # (clips, texts)
        return {
            "contrastive_loss": nn.functional.cross_entropy(cosines / recipe.temperature, labels[numbers].to(device)),
            "piece_loss": ctc(heard.pieces, heard.frames, [pieces[i] for i in numbers]),
        }

    def measure() -> dict[str, float]:
        found: dict[str, torch.Tensor] = {}
        for name, (clips, texts) in held_out.items():
            vectors = learner.project(torch.from_numpy(means(learner, clips)).to(device)).detach().cpu().numpy()
            scores = torch.from_numpy(vectors @ texts.T)
            rank = 1 + (scores > scores.diag()[:, None]).sum(1).double()
            found |= {f"{name}_hits_at_1": (rank == 1).double().mean(), f"{name}_mrr": (1 / rank).mean()}
        return {name: round(value.item(), 4) for name, value in found.items()}

    progress, measured = run(learner, losses, measure, train, folder, "search", recipe.loop)
    report = {
        "recipe": asdict(recipe),
        "train_clips": len(train),
        "train_hours": round(train.hours, 2),
        "clips_seen": int(progress["seen"]),
        "held_out_clips": {name: len(clips) for name, (clips, _) in held_out.items()},
        "retrieval": measured,
    }
    write_record(folder / "search.json", report)
    return export(learner, folder / "search")


def text_vectors(encoder: TextEncoder, texts: list[str], folder: Path) -> np.ndarray:
    """The encoder's vectors of the texts, (texts, width); kept in `folder` for the next run with the same texts."""
    digest = hashlib.sha256("\n".join([encoder.digest, *texts]).encode()).hexdigest()[:16]
    file = folder / f"texts-{digest}.npy"
    if not file.exists():
        vectors = encoder.encode(texts, 64, show_progress_bar=True)
        with replacing(file) as opened:
            np.save(opened, vectors)
    return np.load(file)


@torch.no_grad()
def means(learner: SentenceLearner, clips: Clips) -> np.ndarray:
    """Mean states of clips, (clips, hidden)."""
    learner.eval()
    device = next(learner.parameters()).device
    out = np.zeros((len(clips), learner.head.in_features), np.float32)
    for batch in batches([len(s) for s in clips.samples], 110.0, np.random.default_rng(0)):
        waves, mask, _ = collate([clips.samples[i] for i in batch])
        out[batch] = learner(waves.to(device), mask.to(device)).means.float().cpu().numpy()
    learner.train()
    return out


def fit_head(learner: SentenceLearner, inputs: np.ndarray, texts: np.ndarray) -> None:
    """Set the linear layer to the ridge regression of the texts' vectors on the clips' means: a good place to start."""
    from sklearn.linear_model import Ridge

    line = Ridge(alpha=1e-3 * inputs.var(0).sum() * len(inputs) / inputs.shape[1]).fit(inputs, texts)
    with torch.no_grad():
        learner.head.weight.copy_(torch.from_numpy(line.coef_))
        learner.head.bias.copy_(torch.from_numpy(line.intercept_))


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
