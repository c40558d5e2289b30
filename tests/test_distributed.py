"""Two processes do what one would with all their rows."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, nn

from clasp_lib.distributed import (
    agreed,
    as_one_process,
    gather_rows,
    join_processes,
    leave_processes,
    processes,
    rank,
    sum_gradients,
)
from clasp_lib.dropout import Dropout
from clasp_lib.errors import ClaspError
from clasp_lib.features import Features
from clasp_lib.fusion import build_fusion
from clasp_lib.losses import build_loss
from clasp_lib.run_state import load_state
from clasp_lib.training import Run, TrainingSettings, train_fusion

if not distributed.is_available() or not distributed.is_gloo_available():
    pytest.skip("this torch was built without gloo, which joins processes on a CPU", allow_module_level=True)

SETTINGS = TrainingSettings(epochs=3, batch_size=32, learning_rate=5e-3)
CASES = [
    ("concatenation", "contrastive"),
    ("gating", "hard_negatives"),
    ("speech_only", "label_anchored"),
    ("linear", "sigmoid"),
]


def pairs(n: int, seed: int) -> Features:
    rng = np.random.default_rng(seed)
    speech, picture, text = (rng.standard_normal((n, width)).astype(np.float32) for width in (24, 20, 16))
    ids = [f"s{i}" for i in range(n)]
    columns = {"negatives": rng.standard_normal((n, 2, 16)).astype(np.float32)}
    return Features(speech, picture, text, ids, ids, [str(i % 3) for i in range(n)], ids, columns=columns)


def trained(
    fusion_name: str, loss_name: str, folder: Path, settings: TrainingSettings = SETTINGS, double: bool = True
) -> None:
    """Train with whatever processes there are; the state in the folder is the result."""
    torch.manual_seed(0)
    fusion, loss = build_fusion(fusion_name, 24, 20, 16), build_loss(loss_name, 16, 3)
    train, validation = pairs(70, 1), pairs(30, 2)
    if double:
        fusion, loss, train, validation = fusion.double(), loss.double(), doubled(train), doubled(validation)
    train_fusion(fusion, loss, train, validation, settings, "cpu", False, folder)


def doubled(features: Features) -> Features:
    """The same in float64."""
    vectors = {name: getattr(features, name).astype(float) for name in ("speech", "picture", "text")}
    columns = {name: column.astype(float) for name, column in features.columns.items()}
    return dataclasses.replace(features, **vectors, columns=columns)


def as_rank(number: int, world: int, port: int, work: Callable, arguments: tuple) -> None:
    """What one of several processes does; they are told their places as torchrun tells them."""
    torch.set_num_threads(1)
    places = {
        "RANK": number,
        "LOCAL_RANK": number,
        "WORLD_SIZE": world,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    os.environ |= {name: str(value) for name, value in places.items()}
    assert join_processes() == torch.device("cpu")
    try:
        work(*arguments)
    finally:
        leave_processes()


def everything(folder: Path) -> None:
    """What two processes are started for; the tests look at what they leave behind. (To start them takes seconds.)"""
    for fusion, loss in CASES:
        trained(fusion, loss, folder / fusion)
    trained("concatenation", "contrastive", folder / "single precision", double=False)
    settings = dataclasses.replace(SETTINGS, checkpoint_every=0.0)
    learn = Run.learn
    with pytest.MonkeyPatch.context() as patch:
        done: list[None] = []
        patch.setattr(Run, "learn", lambda *given: done.append(learn(*given)) if len(done) < 3 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            trained("concatenation", "contrastive", folder / "stopped", settings)
    distributed.barrier()  # the first process may still be writing
    if rank() == 0:
        shutil.copy(folder / "stopped" / "state.safetensors", folder / "at the stop")
    trained("concatenation", "contrastive", folder / "stopped", settings)
    with pytest.raises(ClaspError, match="batch_size 31: cannot be shared out evenly among 2 processes"):
        trained("linear", "contrastive", folder / "uneven", dataclasses.replace(SETTINGS, batch_size=31))
    gathered()
    (folder / f"process {rank()}").touch()


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two-processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(as_rank, (2, port, everything, (folder,)), nprocs=2)
    return folder


@pytest.mark.parametrize(("fusion", "loss"), CASES)
def test_two_processes_learn_what_one_does(fusion: str, loss: str, left_behind: Path, tmp_path: Path) -> None:
    trained(fusion, loss, tmp_path)
    one, two = (load_state(folder / "state.safetensors") for folder in (tmp_path, left_behind / fusion))
    assert one[1]["step"] == two[1]["step"] == 6
    for row, other in zip(one[1]["history"]["rows"], two[1]["history"]["rows"], strict=True):
        assert row["loss"] == pytest.approx(other["loss"], abs=1e-5)
    weights = [name for name in one[0] if name.startswith(("fusion.", "loss."))]
    assert len(weights) > 5
    for name in weights:
        torch.testing.assert_close(one[0][name], two[0][name], atol=1e-5, rtol=0, msg=name)


def test_they_do_in_single_precision_too(left_behind: Path, tmp_path: Path) -> None:
    """But not in each bias: before a batch norm its gradient is rounding, of which Adam makes steps that cancel out."""
    trained("concatenation", "contrastive", tmp_path, double=False)
    one, two = (load_state(folder / "state.safetensors") for folder in (tmp_path, left_behind / "single precision"))
    for row, other in zip(one[1]["history"]["rows"], two[1]["history"]["rows"], strict=True):
        assert row["loss"] == pytest.approx(other["loss"], abs=1e-5)
    matrices = [name for name, tensor in one[0].items() if name.startswith("fusion.") and tensor.ndim == 2]
    assert len(matrices) == 9
    for name in matrices:
        torch.testing.assert_close(one[0][name], two[0][name], atol=1e-5, rtol=0, msg=name)


def test_a_run_of_two_processes_goes_on_after_a_stop(left_behind: Path) -> None:
    assert load_state(left_behind / "at the stop")[1]["step"] == 3
    whole, again = (load_state(left_behind / run / "state.safetensors")[0] for run in ("concatenation", "stopped"))
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())


def test_both_processes_did_everything(left_behind: Path) -> None:
    assert (left_behind / "process 0").exists() and (left_behind / "process 1").exists()


def test_alone_nothing_changes() -> None:
    assert join_processes() is None
    assert processes() == 1 and rank() == 0 and agreed(0.1, torch.device("cpu")) == 0.1
    rows = torch.ones(3, 2, requires_grad=True)
    assert gather_rows(rows) is rows
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), Dropout(0.5))
    with as_one_process(network):
        assert [type(module) for module in network] == [nn.Linear, nn.BatchNorm1d, Dropout]
    network(rows).sum().backward()
    before = [p.grad.clone() for p in network.parameters()]
    sum_gradients(network.parameters())
    assert all(torch.equal(p.grad, b) for p, b in zip(network.parameters(), before, strict=True))


def gathered() -> None:
    """Rows come with their own gradients, and what is swapped for the joint batch is swapped back."""
    mine = torch.full((2, 3), float(rank() + 1), requires_grad=True)
    rows = gather_rows(mine)
    assert rows.tolist() == [[1.0] * 3] * 2 + [[2.0] * 3] * 2
    (rows * torch.arange(4.0)[:, None]).sum().backward()
    assert mine.grad is not None and mine.grad.tolist() == [[2.0 * rank()] * 3, [2.0 * rank() + 1] * 3]
    assert agreed(float(rank()) + 7, torch.device("cpu")) == 7
    network = nn.Sequential(nn.BatchNorm1d(3), Dropout(0.5))
    with as_one_process(network):
        assert not any(type(module) in (nn.BatchNorm1d, Dropout) for module in network)
        assert torch.equal(network.eval()(mine), mine / (1 + 1e-5) ** 0.5)
    assert [type(module) for module in network] == [nn.BatchNorm1d, Dropout]
