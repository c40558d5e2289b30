"""The reference's training loop, written anew, for the two benchmarks that train against it.

What it does is read from the reference's training notebook (REFERENCE.md, sections 3 and 4): a `Dataset` over Python
lists that hold one tensor for each clip, a `DataLoader` that shuffles and stacks batches of 32, Adam without weight
decay, the temperature as a tensor made anew in each step, the loss read back after each step. Left out is its progress
bar, which it redraws in each step. Run as a script, this file prints its recipe and trains nothing.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from clasp_lib.dropout import Dropout
from clasp_lib.features import Features
from clasp_lib.fusion import Fusion
from clasp_lib.training import validation_mrr

BATCH, VALIDATION_BATCH, PATIENCE = 32, 16, 10
FIXED_STAGES, LAST_STAGE, DECAY_AFTER, DECAY = (100, 100, 50), 400, 100, 0.4
"""Epochs of the stages without early stopping, the most of the last stage, and StepLR's two numbers."""


@dataclass(frozen=True)
class Recipe:
    """What differs between the baselines.

    Attributes:
        mended: cosines are divided by 0.07; else they are multiplied by it, as the reference does.
        learning_rate: of the first three stages; the last has a fiftieth of it, as 1e-7 is of 5e-6.
        part: of each stage's epochs, and of those between two steps of StepLR; 1 is the whole schedule.
    """

    mended: bool = False
    learning_rate: float = 5e-6
    part: float = 1.0

    @property
    def name(self) -> str:
        """For people and file names."""
        return f"{'mended' if self.mended else 'as-written'}-{self.learning_rate:.0e}-part-{self.part:g}"


class Epoch(NamedTuple):
    """What is known after an epoch; `steps` and `seconds` count from the start, `seconds` those of training alone."""

    stage: int
    epoch: int
    steps: int
    seconds: float
    loss: float
    validation_loss: float
    mrr: float


class Clips(Dataset):
    """Lists of vectors, one tensor each, and clip i as the i-th of each list."""

    def __init__(self, features: Features) -> None:
        columns = (features.text, features.speech, features.picture)
        self.columns = [[torch.tensor(row) for row in column] for column in columns]

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, i: int) -> tuple[torch.Tensor, ...]:
        return tuple(column[i] for column in self.columns)


def with_plain_dropout(fusion: Fusion) -> Fusion:
    """The same fusion with torch's own dropout, which this library has made faster."""
    for module in fusion.modules():
        if isinstance(module, Dropout):
            module.__class__ = nn.Dropout
    return fusion


def loader(features: Features) -> DataLoader:
    """Shuffled batches of 32: text, speech, picture."""
    return DataLoader(Clips(features), batch_size=BATCH, shuffle=True)


def adam(fusion: Fusion, learning_rate: float) -> torch.optim.Adam:
    """The reference's optimiser."""
    return torch.optim.Adam(fusion.parameters(), lr=learning_rate)


def contrastive(fused: torch.Tensor, text: torch.Tensor, log_scale: float) -> torch.Tensor:
    """Fused and text (n, d) -> scalar: symmetric cross-entropy of the cosines times exp(log_scale)."""
    fused = fused / fused.norm(2, dim=-1, keepdim=True)
    text = text / text.norm(2, dim=-1, keepdim=True)
    similarity = fused @ text.t() * torch.tensor(log_scale).to(fused.device).exp()  # (n, n)
    labels = torch.arange(len(similarity)).to(fused.device)
    return (functional.cross_entropy(similarity, labels) + functional.cross_entropy(similarity.t(), labels)) / 2


def train_epoch(fusion: Fusion, optimizer: torch.optim.Optimizer, batches: DataLoader, mended: bool) -> float:
    """One pass over the clips; returns the mean loss of its steps."""
    device = next(fusion.parameters()).device
    log_scale = -math.log(0.07) if mended else math.log(0.07)
    total = 0.0
    fusion.train()
    for text, speech, picture in batches:
        text, speech, picture = text.to(device), speech.to(device), picture.to(device)
        loss = contrastive(fusion(speech, picture), text, log_scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / len(batches)


@torch.inference_mode()
def validation_loss(fusion: Fusion, features: Features, mended: bool) -> float:
    """The mean loss in batches of 16 in the order of the clips: what the last stage stops by."""
    fusion.eval()
    device = next(fusion.parameters()).device
    log_scale = -math.log(0.07) if mended else math.log(0.07)
    columns = [torch.from_numpy(x).to(device) for x in (features.speech, features.picture, features.text)]
    batches = list(zip(*(column.split(VALIDATION_BATCH) for column in columns), strict=True))
    losses = [contrastive(fusion(speech, picture), text, log_scale).item() for speech, picture, text in batches]
    return sum(losses) / len(losses)


def train(fusion: Fusion, train_set: Features, validation: Features, recipe: Recipe) -> Iterator[Epoch]:
    """Train in place, and after each epoch say how far it is; the caller sets the seed, which the reference does not.

    Each stage has its own Adam and StepLR and goes on from the weights of the last. Only the last one stops early: 10
    epochs after its lowest validation loss. (The reference then takes the weights of that epoch: its row is the end.)
    """
    batches, steps, seconds = loader(train_set), 0, 0.0
    rates = [recipe.learning_rate] * len(FIXED_STAGES) + [recipe.learning_rate / 50]
    for stage, (epochs, rate) in enumerate(zip((*FIXED_STAGES, LAST_STAGE), rates, strict=True), start=1):
        optimizer = adam(fusion, rate)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, max(1, round(recipe.part * DECAY_AFTER)), DECAY)
        lowest, since = math.inf, 0
        for epoch in range(1, max(1, round(recipe.part * epochs)) + 1):
            began = time.perf_counter()
            loss = train_epoch(fusion, optimizer, batches, recipe.mended)
            seconds += time.perf_counter() - began
            steps += len(batches)
            schedule.step()
            unseen = validation_loss(fusion, validation, recipe.mended)
            yield Epoch(stage, epoch, steps, seconds, loss, unseen, validation_mrr(fusion, validation))
            lowest, since = (unseen, 0) if unseen < lowest else (lowest, since + 1)
            if stage > len(FIXED_STAGES) and since >= PATIENCE:
                break


def main() -> None:
    """Say what the loop is; `training.py` and `time_to_quality.py` run it."""
    stages = " + ".join(map(str, FIXED_STAGES))
    print(f"batches of {BATCH}, Adam at 5e-6 for {stages} epochs, then at 1e-7 for at most {LAST_STAGE}.")
    print(f"StepLR({DECAY_AFTER}, {DECAY}); the last stage stops {PATIENCE} epochs after its lowest validation loss.")


if __name__ == "__main__":
    main()
