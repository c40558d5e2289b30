"""Train a fusion on stored features: the whole loop on one page.

One process or several (`clasp_lib.distributed`), rows on the device or read ahead (`clasp_lib.batches`), a folder from
which a stopped run goes on (`clasp_lib.run_folder`).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from clasp_lib.batches import Batch, SentenceOrder, Table
from clasp_lib.distributed import agreed, as_one_process, gather_rows, processes, rank, sum_gradients
from clasp_lib.encoders.checkpoints import Precision, autocast, chosen_device, digest_of, half_type, with_less_at_once
from clasp_lib.errors import ClaspError
from clasp_lib.features import Features
from clasp_lib.folders import only_process
from clasp_lib.fusion import Fusion
from clasp_lib.losses import Loss
from clasp_lib.metrics import rank_queries
from clasp_lib.pooling import Pooling
from clasp_lib.run_folder import RunFolder
from clasp_lib.run_state import load_optimizer, named, optimizer_tensors, part


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes:
        epochs: passes over the sentences at most; in each, every sentence is heard in one of its voices.
        batch_size: pairs, and therefore also the candidates, of a step; all processes together.
        weight_decay: of matrices; vectors and single numbers are left alone.
        patience: epochs without a better validation MRR after which training stops.
        learning_rate: of AdamW, at its highest.
        warm_up: share of the steps in which the learning rate rises; then it falls along a cosine.
        clip_norm: length that the gradients of the fusion, and of the loss, have at most.
        seed: of the order of the sentences, and of dropout.
        precision: of the matrix products; see `clasp_lib.encoders.checkpoints.half_type`.
        compiled: let `torch.compile` fuse what stands between the products.
        resident: whether the features lie in the device's memory; None decides by what is free there.
        checkpoint_every: seconds between two states on disk, if there is a folder for them.

    Raises:
        ClaspError: a setting with which nothing could be learned, or that is not known.
    """

    epochs: int = 150
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    patience: int = 30
    warm_up: float = 0.05
    clip_norm: float = 1.0
    seed: int = 0
    precision: Precision = "float32"
    compiled: bool = False
    resident: bool | None = None
    checkpoint_every: float = 60.0

    def __post_init__(self) -> None:
        for each in fields(self):
            name, value, kind = each.name, getattr(self, each.name), type(each.default)
            right = isinstance(value, int | float if kind is float else kind) and not isinstance(value, bool)
            if kind in (int, float) and (not right or abs(value) >= 2**63):
                number = "a whole number" if kind is int else "a number"
                raise ClaspError(f"{name} is {value!r}; give {number} below 2^63.")
            if name in ("compiled", "resident") and value is not each.default and not isinstance(value, bool):
                raise ClaspError(f"{name} is {value!r}; give True or False.")
        least = {"epochs": 1, "batch_size": 1, "patience": 1, "seed": 0, "weight_decay": 0, "checkpoint_every": 0}
        for name, lowest in least.items():
            if not getattr(self, name) >= lowest:
                raise ClaspError(f"{name} is {getattr(self, name)}; give {lowest} or more.")
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ClaspError(f"{name} is {getattr(self, name)}; give more than 0.")
        if not 0 <= self.warm_up <= 1:
            raise ClaspError(f"warm_up is {self.warm_up}; give a share of all steps, from 0 to 1.")
        if self.precision not in get_args(Precision):
            raise ClaspError(
                f"precision {self.precision!r} is not known. Choose from {', '.join(get_args(Precision))}."
            )

    def rate(self, step: int, steps: int) -> float:
        """Learning rate at a step, from 0, of so many."""
        warm_up = max(1, round(self.warm_up * steps))
        return self.learning_rate * min((step + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))


@dataclass
class History:
    """What happened: one row an epoch, and the epoch whose weights were kept.

    A row has `epoch`, `loss`, `mrr` (validation), `seconds` since the beginning, and `pairs_per_second` of the training
    alone.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0

    @property
    def best_mrr(self) -> float:
        """The highest validation MRR so far; below zero before there is one."""
        return self.rows[self.best_epoch - 1]["mrr"] if self.best_epoch else -1.0


def train_fusion(
    fusion: Fusion,
    loss: Loss,
    train: Features,
    validation: Features,
    settings: TrainingSettings | None = None,
    device: str | torch.device | None = None,
    show_progress_bar: bool = True,
    folder: str | Path | None = None,
) -> History:
    """Train `fusion` (and the parameters of `loss`) in place; it ends in evaluation mode with its best weights.

    AdamW with a linear warm-up and a cosine down to zero. A batch never holds one sentence twice, which would make a
    right answer count as wrong. Best means the highest validation MRR, speech to text.

    Args:
        device: the GPU where there is one, if not given.
        folder: for `state.safetensors`, `log.jsonl` and, if tensorboard is installed, `tensorboard/`. A run that was
            stopped goes on from there when it is started again, and on a CPU ends with the same bits.

    Raises:
        ClaspError: nothing to train on, features of the wrong width or without what the loss needs, a loss that is no
            longer a number, too little memory, or a folder with another run, in which another process is at work, or
            that cannot be written.
    """
    settings = settings or TrainingSettings()
    device = chosen_device(device)
    _check(fusion, train, validation, settings)
    torch.manual_seed(settings.seed)
    table = Table(train, device, loss.needs, fusion.takes_frames, settings.resident)
    order = SentenceOrder(train.sentence_ids, settings.batch_size, settings.seed)
    steps = settings.epochs * len(order)
    run = Run(fusion.to(device), loss.to(device), settings, device)
    description = _description(fusion, loss, train, validation, settings)
    with _alone_in(folder):
        kept = RunFolder(folder, run, description, settings.checkpoint_every, writes=rank() == 0)
        if agreed(run.step, device) != run.step:
            raise ClaspError(
                f"{folder}: process {rank()} finds another state there than the first. They must share it."
            )
        with _progress_bar(run, order, steps, show_progress_bar) as bar, as_one_process(fusion):
            while not run.finished:
                epoch = len(run.history.rows) + 1
                rows = order.epoch(epoch)[run.step - (epoch - 1) * len(order) :]  # (steps left, batch size)
                fusion.train()
                for batch in table.batches(np.split(rows, processes(), axis=1)[rank()]):
                    run.learn(batch, settings.rate(run.step, steps))
                    bar.update(order.batch_size)
                    kept.save_if_due()
                row = run.end_epoch(len(order), len(rows) * order.batch_size, validation)
                kept.add(row)
                bar.set_postfix(loss=f"{row['loss']:.3f}", mrr=f"{row['mrr']:.3f}")
        kept.close()
    fusion.load_state_dict(run.best)
    fusion.eval()
    return run.history


class Run:
    """What changes while a fusion is trained: weights, moments, history."""

    def __init__(self, fusion: Fusion, loss: Loss, settings: TrainingSettings, device: torch.device) -> None:
        self.fusion, self.loss, self.settings, self.device = fusion, loss, settings, device
        self.forward = torch.compile(fusion) if settings.compiled else fusion
        parameters = [p for p in [*fusion.parameters(), *loss.parameters()] if p.requires_grad]
        matrices, others = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay, fused=True)
        small = half_type(device, settings.precision) is torch.float16  # unscaled, its gradients would vanish
        self.scaler = torch.amp.GradScaler(device.type, enabled=small)
        self.step, self.total = 0, torch.zeros((), device=device)
        self.history, self.best = History(), _copied(fusion)
        self.began = self.epoch_began = time.perf_counter()

    def learn(self, batch: Batch, rate: float) -> None:
        """One step: the loss, its gradient, a limit on the gradient's length, new weights."""
        try:
            with autocast(self.device, self.settings.precision):
                speech = self.forward(batch.speech, batch.picture)  # (n, width)
                if "other" in self.loss.needs:
                    views = (batch.columns.pop(name) for name in ("other_speech", "other_picture"))
                    batch.columns["other"] = self.forward(*views)  # (n, width)
            columns = {name: gather_rows(column) for name, column in batch.columns.items()}
            value = self.loss(gather_rows(speech), gather_rows(batch.text), **columns)
            self.optimizer.zero_grad(set_to_none=True)
            self.scaler.scale(value).backward()
            sum_gradients(self.fusion.parameters())
            self.scaler.unscale_(self.optimizer)
            for module in (self.fusion, self.loss):  # a temperature's gradient is long, and would shorten the fusion's
                nn.utils.clip_grad_norm_(list(module.parameters()), self.settings.clip_norm)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.scaler.step(self.optimizer)
            self.scaler.update()
        except torch.OutOfMemoryError as error:
            raise ClaspError(
                f"{self.device}: has too little memory for batches of {len(batch.text)}. Lower batch_size, or keep the "
                "features in main memory with resident=False."
            ) from error
        self.total += value.detach()
        self.step += 1

    def end_epoch(self, steps: int, pairs: int, validation: Features) -> dict[str, float]:
        """Measure, remember, keep the weights if they are the best so far; `pairs` were learned by this process."""
        epoch, loss = len(self.history.rows) + 1, float(self.total) / steps  # here the device is waited for
        now = time.perf_counter()
        if not math.isfinite(loss):
            raise ClaspError(
                f"the loss became {loss} in epoch {epoch}. Try a lower learning_rate, or look in the features for "
                "vectors that are not finite."
            )
        mrr = agreed(validation_mrr(self.fusion, validation) if rank() == 0 else 0.0, self.device)
        row = {"epoch": epoch, "loss": loss, "mrr": mrr, "seconds": time.perf_counter() - self.began}
        row["pairs_per_second"] = pairs / (now - self.epoch_began)
        if mrr > self.history.best_mrr:
            self.history.best_epoch, self.best = epoch, _copied(self.fusion)
        self.history.rows.append(row)
        self.total.zero_()
        self.epoch_began = time.perf_counter()
        return row

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the best of them is too long ago."""
        epochs = len(self.history.rows)
        return epochs >= self.settings.epochs or epochs - self.history.best_epoch >= self.settings.patience

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """All that the next step depends on."""
        tensors = {
            **named("fusion", self.fusion.state_dict()),
            **named("loss", self.loss.state_dict()),
            **named("optimizer", optimizer_tensors(self.optimizer)),
            **named("best", self.best),
            "total": self.total,
            "random.cpu": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        facts = {"step": self.step, "epochs": len(self.history.rows), "scaler": self.scaler.state_dict()}
        return tensors, {**facts, "history": asdict(self.history), "seconds": time.perf_counter() - self.began}

    def load_state(self, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.fusion.load_state_dict(part("fusion", tensors))
        self.loss.load_state_dict(part("loss", tensors))
        load_optimizer(self.optimizer, part("optimizer", tensors))
        self.best = part("best", tensors)
        self.total.copy_(tensors["total"])
        self.step, self.history = facts["step"], History(**facts["history"])
        self.began -= facts["seconds"]
        self.scaler.load_state_dict(facts["scaler"])
        torch.set_rng_state(tensors["random.cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)


def fuse(fusion: Fusion, features: Features, chunk_size: int = 4096) -> np.ndarray:
    """The fused, L2-normalised vectors of stored features: float32 `(n, width)`; fewer at once if memory is short."""
    fusion.eval()
    return with_less_at_once(functools.partial(_fused, fusion, features), chunk_size, "fusing")[0]


@torch.inference_mode()
def _fused(fusion: Fusion, features: Features, chunk_size: int) -> np.ndarray:
    table = Table(features, next(fusion.parameters()).device, frames=fusion.takes_frames, resident=False)
    fused = []
    for batch in table.batches(np.split(np.arange(len(table)), range(chunk_size, len(table), chunk_size))):
        fused.append(nn.functional.normalize(fusion(batch.speech, batch.picture).float(), dim=-1).cpu().numpy())
    return np.concatenate(fused)


def validation_mrr(fusion: Fusion, features: Features) -> float:
    """Mean reciprocal rank of each clip's own text among all texts of `features`."""
    first = {sentence: i for i, sentence in reversed(list(enumerate(features.sentence_ids)))}  # each text once
    texts = features.text[list(first.values())]
    device = next(fusion.parameters()).device
    ranking = rank_queries(fuse(fusion, features), texts, features.sentence_ids, list(first), device=device)
    return float((1 / ranking.rank).mean())


def _check(fusion: Fusion, train: Features, validation: Features, settings: TrainingSettings) -> None:
    sentences = len(set(train.sentence_ids))
    if sentences < 2 or len(validation) < 1 or settings.batch_size < 2:
        raise ClaspError(
            "training needs two sentences, a clip for validation and batches of at least two; "
            f"got {sentences}, {len(validation)} and {settings.batch_size}."
        )
    batch_size = min(settings.batch_size, sentences)
    if batch_size % processes():
        raise ClaspError(f"batch_size {batch_size}: cannot be shared out evenly among {processes()} processes.")
    for features in (train, validation):
        widths = {
            "speech_width": features.speech.shape[1],
            "picture_width": features.picture.shape[1],
            "width": features.text.shape[1],
        }
        if widths != fusion.config:
            raise ClaspError(f"the fusion was built for {fusion.config}, the features are {widths}.")


def _description(
    fusion: Fusion, loss: Loss, train: Features, validation: Features, settings: TrainingSettings
) -> dict[str, Any]:
    """What decides how a run goes; how often its state is saved, and where the features lie, does not."""
    parts = {"fusion": f"{_kinds(fusion)} {fusion.config}", "loss": _described(loss)}
    for name, features in (("training clips", train), ("validation clips", validation)):
        said = hashlib.sha256("\n".join(features.sentence_ids).encode())
        for vectors in (features.speech, features.picture, features.text):
            said.update(np.ascontiguousarray(vectors[:: max(1, len(features) // 1000)]).tobytes())
        parts[name] = f"{len(features)} ({said.hexdigest()[:8]})"
    free = ("checkpoint_every", "resident")
    settings_that_count = {name: value for name, value in asdict(settings).items() if name not in free}
    return {**parts, **settings_that_count, "processes": processes()}


def _alone_in(folder: str | Path | None) -> contextlib.AbstractContextManager[None]:
    """Two runs at once would write into each other's log; processes that train together have one that writes."""
    if folder is None or rank() > 0:
        return contextlib.nullcontext()
    return only_process(Path(folder) / ".lock", wait=False)


def _kinds(fusion: Fusion) -> str:
    """Its class; of a pooled one also the classes of pooling and fusion, whose weights may have the same names."""
    kinds = []
    for module in fusion.modules():
        if isinstance(module, Fusion | Pooling):
            kinds.append(type(module).__name__ + (f" {module.normaliser}" if isinstance(module, Pooling) else ""))
    return ", ".join(kinds)


def _described(loss: Loss) -> str:
    """The kinds of its parts, their numbers, what is learned, and from where."""
    kinds = []
    for module in loss.modules():
        numbers = {name: value for name, value in vars(module).items() if isinstance(value, float | tuple)}
        kinds.append(f"{type(module).__name__}{numbers or ''}")
    learned = sum(p.requires_grad for p in loss.parameters())
    return f"{', '.join(kinds)}, {learned} learned, {digest_of(loss)[:8]}"


def _progress_bar(run: Run, order: SentenceOrder, steps: int, shown: bool) -> tqdm:
    """Pairs a second, and the time that is left."""
    pairs, done = steps * order.batch_size, run.step * order.batch_size
    return tqdm(
        total=pairs, initial=done, desc="training", unit="pair", unit_scale=True, disable=not shown or rank() != 0
    )


def _copied(fusion: Fusion) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in fusion.state_dict().items()}
