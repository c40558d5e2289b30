"""The loop that trains the pocket speech encoders: batches, augmentation, schedule, a state that outlives the run.

The clock decides how long a run is, wherever it runs. The learning rate stays level and falls to nothing in the last
part (the "cooldown"; Hägele et al. 2024), so that a finished run that is given more minutes can go on.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from clasp_lib.audio import SAMPLING_RATE
from clasp_lib.folders import write_whole
from clasp_lib.pretraining.augmentation import SHARES, augment
from clasp_lib.pretraining.clips import Clips
from clasp_lib.run_state import load_optimizer, load_state, named, optimizer_tensors, part, save_state

ROUND = 10_240
"""Samples, 0.64 s, to whose multiples batches are padded."""


@dataclass(frozen=True)
class LoopSettings:
    """How a run trains.

    Attributes:
        minutes: of training in all, earlier runs of the same folder included; measuring is not counted.
        seconds_a_batch: length of the clips of a batch, padding included.
        cooldown: part of the run in which the learning rate falls to nothing.
        augmented: share of the clips that each disturbance of `augmentation` takes.
        weights: of the terms of the loss; 1 where none is given.
        compiled: let `torch.compile` fuse the transformer's layers: a fifth faster on a CPU, after a minute's wait;
            needs a C++ compiler.
        measure_every: minutes between two measurements for the learning curve.
    """

    minutes: float
    learning_rate: float
    seconds_a_batch: float = 110.0
    warmup_steps: int = 60
    cooldown: float = 0.3
    augmented: Mapping[str, float] = field(default_factory=lambda: dict(SHARES))
    weights: Mapping[str, float] = field(default_factory=dict)
    bfloat16: bool = True
    compiled: bool = False
    measure_every: float = 5.0
    seed: int = 0

    def rate(self, step: int, done: float) -> float:
        """Learning rate at a step, with `done` of the run's time spent."""
        warm = (step + 1) / max(1, self.warmup_steps)
        return self.learning_rate * min(1.0, warm, max(0.0, 1 - done) / max(1e-9, self.cooldown))


class Batch(NamedTuple):
    """Clips made ready: waves and mask (clips, samples), and how much longer than the recording each wave is."""

    waves: torch.Tensor
    mask: torch.Tensor
    stretch: list[float]


class Finished(NamedTuple):
    """A run that has come to its end.

    Attributes:
        progress: elapsed seconds, step, epoch, and clips seen, of all runs in its folder.
        measured: what its weights reach at the end.
    """

    progress: dict[str, float]
    measured: dict[str, float]


def run(
    learner: nn.Module,
    losses: Callable[[np.ndarray, Batch], dict[str, torch.Tensor]],
    measure: Callable[[], dict[str, float]],
    clips: Clips,
    folder: Path,
    name: str,
    settings: LoopSettings,
) -> Finished:
    """Train until the minutes are spent.

    `losses` takes the numbers of the clips and the batch made of them, and gives the terms whose weighted sum is the
    loss. `folder/name.state.safetensors` is saved every two minutes: a stopped run goes on from there, with a fresh
    order of the clips. `folder/name.jsonl` is the record of the steps that led to it: losses every 100 steps, and what
    `measure` returns.
    """
    device = next(learner.parameters()).device
    optimizer = torch.optim.AdamW(learner.parameters(), settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    state, log_file = folder / f"{name}.state.safetensors", folder / f"{name}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    progress = dict.fromkeys(("elapsed", "step", "epoch", "seen"), 0.0)
    if state.exists():
        progress = load_progress(state, learner, optimizer)
        _forget_lines(log_file, progress["step"])
    rng = np.random.default_rng([settings.seed, int(progress["step"])])
    budget, saved, measured = settings.minutes * 60, progress["elapsed"], progress["elapsed"]
    running: list[dict[str, float]] = []
    reached: dict[str, float] | None = None

    def write(line: dict[str, float]) -> None:
        line = {"step": int(progress["step"]), "minutes": round(progress["elapsed"] / 60, 2), **line}
        print(json.dumps(line), flush=True)
        with open(log_file, "a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")

    while progress["elapsed"] < budget:
        progress["epoch"] += 1
        began = time.monotonic()
        for batch, made in _prepared(clips, settings, rng):
            made = Batch(made.waves.to(device), made.mask.to(device), made.stretch)
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.bfloat16):
                terms = losses(batch, made)
            optimizer.zero_grad()
            torch.stack([settings.weights.get(term, 1.0) * value for term, value in terms.items()]).sum().backward()
            nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
            optimizer.param_groups[0]["lr"] = settings.rate(int(progress["step"]), progress["elapsed"] / budget)
            optimizer.step()
            progress["step"] += 1
            progress["seen"] += len(batch)
            progress["elapsed"] += time.monotonic() - began
            running.append({term: value.item() for term, value in terms.items()})
            if progress["step"] % 100 == 0:
                means = {term: round(float(np.mean([r[term] for r in running])), 4) for term in terms}
                write({"clips": int(progress["seen"]), **means})
                running.clear()
            over = progress["elapsed"] >= budget
            if over or progress["elapsed"] - measured > settings.measure_every * 60:
                measured, reached = progress["elapsed"], measure()
                write({"clips": int(progress["seen"]), **reached})
            if over or progress["elapsed"] - saved > 120:
                saved = progress["elapsed"]
                save_progress(state, learner, optimizer, progress)
            if over:
                break
            began = time.monotonic()
    return Finished(progress, measure() if reached is None else reached)  # None: no minutes were left to spend


def _forget_lines(file: Path, step: float) -> None:
    """Leave out of a record what was written after a step, since these steps will be made again."""
    if file.exists():
        kept = [line for line in file.read_text("utf-8").splitlines() if json.loads(line)["step"] <= step]
        write_whole(file, "".join(line + "\n" for line in kept).encode())


def _prepared(clips: Clips, settings: LoopSettings, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, Batch]]:
    """One pass over the clips; the next batch is made while the last one is learnt."""

    def make(numbers: np.ndarray) -> Batch:
        return collate([clips.samples[i] for i in numbers], rng, settings.augmented)

    order = batches([len(samples) for samples in clips.samples], settings.seconds_a_batch, rng)
    with concurrent.futures.ThreadPoolExecutor(1, initializer=lambda: torch.set_num_threads(1)) as thread:
        ahead = thread.submit(make, order[0])
        for numbers, following in itertools.zip_longest(order, order[1:]):
            made = ahead.result()
            if following is not None:
                ahead = thread.submit(make, following)
            yield numbers, made


def save_progress(file: Path, learner: nn.Module, optimizer: torch.optim.Optimizer, progress: dict[str, float]) -> None:
    """Weights, the optimizer's moments and where the run is; whole or not at all."""
    tensors = named("learner", learner.state_dict()) | named("optimizer", optimizer_tensors(optimizer))
    save_state(file, tensors, progress)


def load_progress(file: Path, learner: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The inverse of `save_progress`; returns where the run is."""
    tensors, progress = load_state(file)
    learner.load_state_dict(part("learner", tensors))
    load_optimizer(optimizer, part("optimizer", tensors))
    return progress


def batches(lengths: Sequence[int], seconds: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Shuffled batches of clips of one length, rounded up to `ROUND`, each about `seconds` long in all.

    Rounding leaves a few shapes that come again and again: kernels are made once for each new shape.
    """
    rounded = -(-np.asarray(lengths) // ROUND)
    order = rng.permutation(len(lengths))
    order = order[np.argsort(rounded[order], kind="stable")]
    out: list[np.ndarray] = []
    for length in np.unique(rounded):
        alike = order[rounded[order] == length]
        size = max(1, int(seconds * SAMPLING_RATE / (length * ROUND)))
        out += np.split(alike, range(size, len(alike), size))
    return [out[i] for i in rng.permutation(len(out))]


def collate(
    clips: Sequence[np.ndarray],
    rng: np.random.Generator | None = None,
    augmented: Mapping[str, float] | None = None,
) -> Batch:
    """int16 clips to a batch: disturbed or not, of zero mean and unit variance, padded to a multiple of `ROUND`."""
    ready = [_normalised(torch.from_numpy(clip.astype(np.float32))) for clip in clips]
    if rng is not None and augmented:
        ready = [_normalised(augment(wave, rng, ready, augmented)) for wave in ready]
    waves = torch.zeros(len(ready), -(-max(map(len, ready)) // ROUND) * ROUND)
    mask = torch.zeros(waves.shape, dtype=torch.long)
    for row, wave in enumerate(ready):
        waves[row, : len(wave)] = wave
        mask[row, : len(wave)] = 1
    return Batch(waves, mask, [len(wave) / len(clip) for wave, clip in zip(ready, clips, strict=True)])


def _normalised(wave: torch.Tensor) -> torch.Tensor:
    """As the feature extractor of the exported encoder does it."""
    return (wave - wave.mean()) / torch.sqrt(wave.var(correction=0) + 1e-7)
