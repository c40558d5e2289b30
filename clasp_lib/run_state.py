"""Tensors and a few facts in one file, written whole or not at all: the state of a run, or what it has found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from clasp_lib.errors import CheckpointError
from clasp_lib.folders import reported, write_whole

_FACTS = "facts"


def save_state(file: str | Path, tensors: Mapping[str, torch.Tensor], facts: Any) -> None:
    """Replace `file`; whoever is killed while writing leaves the one before it as it was.

    Args:
        facts: what JSON can hold.

    Raises:
        CheckpointError: the file cannot be written.
    """
    from safetensors.torch import save

    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with written(file):
        write_whole(Path(file), save(stored, {_FACTS: json.dumps(facts)}))


def written(file: str | Path) -> AbstractContextManager[None]:
    """Raise a CheckpointError where `file` cannot be written; see `clasp_lib.folders.reported`."""
    return reported(file, CheckpointError)


def load_state(file: str | Path) -> tuple[dict[str, torch.Tensor], Any]:
    """The tensors, mapped to memory, and the facts.

    Raises:
        CheckpointError: the file is missing, damaged, or not one of these.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            return tensors, json.loads(stored.metadata()[_FACTS])
    except (SafetensorError, OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: is damaged, or not of this kind ({error}). Delete it to start anew.") from error


def named(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors with `prefix.` before their names, so that several parts share a file."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def part(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inverse of `named`: those with this prefix, without it."""
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Moments and step counts, by the number of the parameter."""
    states = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, moments in states.items() for name, value in moments.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """The inverse of `optimizer_tensors`; settings such as the learning rate stay those of `optimizer`, an AdamW.

    Raises:
        KeyError, IndexError, ValueError: they belong to other parameters.
    """
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        parameter, _, moment = name.partition(".")
        state.setdefault(int(parameter), {})[moment] = tensor
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    for number, moments in state.items():
        shapes = {moment: tensor.shape for moment, tensor in moments.items() if moment != "step"}
        if shapes != dict.fromkeys(("exp_avg", "exp_avg_sq"), parameters[number].shape) or moments["step"].numel() != 1:
            raise ValueError(f"the moments of parameter {number} are of other shapes than the parameter")
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
