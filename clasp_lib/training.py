"""Train a fusion on stored features: the whole loop on one page."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from clasp_lib.errors import ClaspError
from clasp_lib.features import Features
from clasp_lib.fusion import Fusion
from clasp_lib.metrics import rank_queries


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes:
        epochs: passes over the sentences at most; in each, every sentence is heard in one of its voices.
        batch_size: pairs, and therefore also the candidates, of a step.
        patience: epochs without a better validation MRR after which training stops.
    """

    epochs: int = 150
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    patience: int = 30
    seed: int = 0


@dataclass
class History:
    """What happened: one row an epoch (`epoch`, `loss`, `mrr`, `seconds`), and the epoch whose weights were kept."""

    rows: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0


def train_fusion(
    fusion: Fusion,
    loss: nn.Module,
    train: Features,
    validation: Features,
    settings: TrainingSettings | None = None,
    device: str | torch.device | None = None,
    show_progress_bar: bool = True,
) -> History:
    """Train `fusion` (and the parameters of `loss`) in place; it ends in evaluation mode with its best weights.

    AdamW with a linear warm-up of 5% and a cosine down to zero. A batch never holds one sentence twice, which would
    make a right answer count as wrong. Best means the highest validation MRR, speech to text.

    Raises:
        ClaspError: nothing to train on, features of the wrong width, or a loss that is no longer a number.
    """
    settings = settings or TrainingSettings()
    sentences = len(set(train.sentence_ids))
    if sentences < 2 or len(validation) < 1 or settings.batch_size < 2:
        raise ClaspError(
            "training needs two sentences, a clip for validation and batches of at least two; "
            f"got {sentences}, {len(validation)} and {settings.batch_size}."
        )
    for features in (train, validation):
        widths = {
            "speech_width": features.speech.shape[1],
            "picture_width": features.picture.shape[1],
            "width": features.text.shape[1],
        }
        if widths != fusion.config:
            raise ClaspError(f"the fusion was built for {fusion.config}, the features are {widths}.")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    fusion.to(device)
    loss.to(device)
    speech, picture, text = (torch.from_numpy(x).to(device) for x in (train.speech, train.picture, train.text))
    takes = _clips_by_sentence(train.sentence_ids)
    batch_size = min(settings.batch_size, len(takes))
    steps = settings.epochs * (len(takes) // batch_size)
    parameters = [p for p in [*fusion.parameters(), *loss.parameters()] if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, settings.learning_rate, weight_decay=settings.weight_decay)
    warm_up = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / warm_up, 0.5 * (1 + np.cos(np.pi * min(1.0, s / steps))))
    )
    history, best, best_mrr = History(), copy.deepcopy(fusion.state_dict()), -1.0
    began = time.perf_counter()
    with tqdm(total=settings.epochs, desc="training", unit="epoch", disable=not show_progress_bar) as bar:
        for epoch in range(1, settings.epochs + 1):
            fusion.train()
            total = torch.zeros((), device=device)
            order = rng.permutation(len(takes))
            clips = torch.tensor([takes[i][rng.integers(len(takes[i]))] for i in order], device=device)
            batches = clips[: len(clips) // batch_size * batch_size].split(batch_size)
            for batch in batches:
                value = loss(fusion(speech[batch], picture[batch]), text[batch])
                optimizer.zero_grad(set_to_none=True)
                value.backward()
                nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                schedule.step()
                total += value.detach()
            mean_loss = float(total) / len(batches)
            if not np.isfinite(mean_loss):
                raise ClaspError(f"the loss became {mean_loss} in epoch {epoch}. Try a lower learning_rate.")
            mrr = validation_mrr(fusion, validation)
            row = {"epoch": epoch, "loss": mean_loss, "mrr": mrr, "seconds": time.perf_counter() - began}
            history.rows.append(row)
            bar.set_postfix(loss=f"{mean_loss:.3f}", mrr=f"{mrr:.3f}")
            bar.update()
            if mrr > best_mrr:
                best_mrr, history.best_epoch, best = mrr, epoch, copy.deepcopy(fusion.state_dict())
            if epoch - history.best_epoch >= settings.patience:
                break
    fusion.load_state_dict(best)
    fusion.eval()
    return history


@torch.inference_mode()
def fuse(fusion: Fusion, features: Features) -> np.ndarray:
    """The fused, L2-normalised vectors of stored features: float32 `(n, width)`."""
    fusion.eval()
    device = next(fusion.parameters()).device
    fused = fusion(torch.from_numpy(features.speech).to(device), torch.from_numpy(features.picture).to(device))
    return nn.functional.normalize(fused.float(), dim=-1).cpu().numpy()


def validation_mrr(fusion: Fusion, features: Features) -> float:
    """Mean reciprocal rank of each clip's own text among all texts of `features`."""
    first = {sentence: i for i, sentence in reversed(list(enumerate(features.sentence_ids)))}  # each text once
    ranking = rank_queries(
        fuse(fusion, features), features.text[list(first.values())], features.sentence_ids, list(first)
    )
    return float((1 / ranking.rank).mean())


def _clips_by_sentence(sentence_ids: list[str]) -> list[list[int]]:
    """The rows of each sentence: its takes in different voices."""
    takes: dict[str, list[int]] = {}
    for row, sentence in enumerate(sentence_ids):
        takes.setdefault(sentence, []).append(row)
    return list(takes.values())
