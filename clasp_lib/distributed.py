"""Several processes train as one would that had all their rows.

`torchrun` starts the processes and tells each its place in environment variables; `accelerate launch --multi_gpu` calls
the same launcher (with `--cpu` it starts a single process, whatever their number). Every process computes the loss of
the joint batch, but has gradients for its own rows only; their sum over the processes is the gradient that one process
would have found.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed, nn

from clasp_lib.dropout import Dropout, keep_mask

_PATIENCE = timedelta(hours=24)
"""How long processes wait for each other: as long as the first one may take to make a dataset."""


def join_processes() -> torch.device | None:
    """Meet the other processes, if there are any, and return the device of this one (None: it has the choice)."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    return device


def leave_processes() -> None:
    """Say goodbye to the other processes."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def processes() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def agreed(number: float, device: torch.device) -> float:
    """The first process's number, in all of them: what decides how training goes on must be the same everywhere."""
    if processes() == 1:
        return number
    shared = torch.tensor(number, dtype=torch.float64, device=device)
    distributed.broadcast(shared, 0)
    return float(shared)


@contextmanager
def first_process_first() -> Iterator[None]:
    """The first process does what follows, then the others: they find done what is kept on disk."""
    if rank() > 0:
        distributed.barrier()
    yield
    if rank() == 0 and processes() > 1:
        distributed.barrier()


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """The rows of all processes: (n, ...) -> (processes * n, ...), this process's own with their gradient."""
    return _GatherRows.apply(rows) if processes() > 1 else rows


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up over the processes, in a single message, what each has found for its own rows."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if processes() == 1 or not gradients:
        return
    message = torch.cat([g.flatten() for g in gradients])
    distributed.all_reduce(message)
    for gradient, summed in zip(gradients, message.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(summed.view_as(gradient))


@contextmanager
def as_one_process(network: nn.Module) -> Iterator[None]:
    """While this lasts, batch norm and dropout in `network` treat the rows of all processes as one batch."""
    joint = {nn.BatchNorm1d: _JointBatchNorm, Dropout: _JointDropout} if processes() > 1 else {}
    changed = [(module, type(module)) for module in network.modules() if type(module) in joint]
    for module, kind in changed:
        module.__class__ = joint[kind]  # the same weights and buffers, another forward
    try:
        yield
    finally:
        for module, kind in changed:
            module.__class__ = kind


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(rows) for _ in range(processes())]
        distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        return gradient.chunk(processes())[rank()]


class _SumOverProcesses(torch.autograd.Function):
    """The sum in both directions: what every process reads, every process has a gradient for."""

    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total


class _JointBatchNorm(nn.BatchNorm1d):
    """torch's own SyncBatchNorm is for GPUs only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, width), normalised by the mean and variance of all processes' rows; each has the same number n."""
        if not self.training:
            return super().forward(x)
        n = processes() * len(x)
        rows = x.double()  # as torch adds up on a CPU: rows that differ little would be lost in rounding
        mean = _SumOverProcesses.apply(rows.sum(0)) / n  # (width,)
        variance = _SumOverProcesses.apply((rows - mean).square().sum(0)) / n  # (width,)
        with torch.no_grad():
            for name, found in (("running_mean", mean), ("running_var", variance * n / (n - 1))):
                self.get_buffer(name).lerp_(found.to(self.get_buffer(name)), self.momentum or 0.0)
            self.get_buffer("num_batches_tracked").add_(1)
        return ((rows - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias).to(x.dtype)


class _JointDropout(Dropout):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Every process draws the mask of the joint batch, alike, and uses its own rows of it."""
        if not self.training or self.p == 0:
            return x
        keep = keep_mask(torch.Size((processes() * len(x), *x.shape[1:])), self.p, x.device)
        return x * keep.chunk(processes())[rank()].to(x.dtype).div_(1 - self.p)
