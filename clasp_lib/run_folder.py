"""A training run's folder: its state, from which it goes on after a stop, and its log for people and programs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch

from clasp_lib.errors import CheckpointError
from clasp_lib.folders import write_whole
from clasp_lib.run_state import load_state, save_state, written


class Resumable(Protocol):
    """A run whose state can be kept: tensors, and facts that JSON can hold."""

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]: ...

    def load_state(self, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None: ...


class RunFolder:
    """Keeps `state.safetensors`, `log.jsonl` and, where the package is installed, `tensorboard/` events.

    A state that is there is loaded into `run`. A log line that was written after it is dropped: its epoch comes again.

    Args:
        folder: None keeps nothing.
        description: all that decides how the run goes. A state with another one is refused.
        every: seconds between two states.
        writes: whether this process is the one that writes.

    Raises:
        CheckpointError: the state is damaged, or of another run, or the folder cannot be written.
    """

    def __init__(
        self, folder: str | Path | None, run: Resumable, description: Mapping[str, Any], every: float, writes: bool
    ) -> None:
        self._run, self._description, self._every = run, dict(description), every
        self._writes, self._writer, self._saved = writes and folder is not None, None, time.perf_counter()
        if folder is None:
            return
        self._state, self._log = Path(folder) / "state.safetensors", Path(folder) / "log.jsonl"
        epochs = self._resume() if self._state.exists() else 0
        if self._writes:
            with written(folder):
                self._state.parent.mkdir(parents=True, exist_ok=True)
                self._cut_log(epochs)
                if find_spec("tensorboard") is not None:
                    from torch.utils.tensorboard import SummaryWriter

                    self._writer = SummaryWriter(Path(folder) / "tensorboard", purge_step=epochs + 1)

    def add(self, row: Mapping[str, float]) -> None:
        """Log an epoch."""
        if not self._writes:
            return
        with written(self._log):
            with open(self._log, "a", encoding="utf-8") as log:
                log.write(json.dumps(dict(row)) + "\n")
            if self._writer is not None:
                for name, value in row.items():
                    self._writer.add_scalar(name, value, int(row["epoch"]))
                self._writer.flush()

    def save(self) -> None:
        """Replace the state by that of now."""
        if self._writes:
            tensors, facts = self._run.state()
            save_state(self._state, tensors, {**facts, "description": self._description})
            self._saved = time.perf_counter()

    def save_if_due(self) -> None:
        """The same, if the last time is long enough ago."""
        if self._writes and time.perf_counter() - self._saved >= self._every:
            self.save()

    def close(self) -> None:
        """The run is over."""
        self.save()
        if self._writer is not None:
            with written(self._log):
                self._writer.close()

    def _resume(self) -> int:
        """Load the state; returns how many epochs it has behind it."""
        tensors, facts = load_state(self._state)
        try:
            of, epochs = dict(facts["description"]), int(facts["epochs"])
            if all(of.get(name) == value for name, value in self._description.items()):
                self._run.load_state(tensors, facts)
                return epochs
        except torch.OutOfMemoryError:
            raise  # the state may be a good one
        except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
            raise CheckpointError(
                f"{self._state}: is not the state of such a run ({error!r}). Delete it to start anew."
            ) from error
        name, value = next(pair for pair in self._description.items() if of.get(pair[0]) != pair[1])
        raise CheckpointError(
            f"{self._state}: belongs to a run with {name} {of.get(name)}, not {value}. Give another folder, or delete "
            "this file."
        )

    def _cut_log(self, epochs: int) -> None:
        lines = self._log.read_bytes().splitlines(keepends=True) if self._log.exists() else []
        write_whole(self._log, b"".join(lines[:epochs]))
