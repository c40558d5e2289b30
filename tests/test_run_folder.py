"""The state of a run is whole, and the right one."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from clasp_lib.errors import CheckpointError
from clasp_lib.run_folder import RunFolder
from clasp_lib.run_state import load_optimizer, load_state, named, optimizer_tensors, part, save_state, written


class Counter:
    """A run that only counts."""

    def __init__(self) -> None:
        self.count = torch.zeros(())

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        return {"count": self.count}, {"epochs": int(self.count)}

    def load_state(self, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        self.count.copy_(tensors["count"])


def opened(folder: Path | None, every: float = 1e9, writes: bool = True, speed: int = 1) -> tuple[Counter, RunFolder]:
    run = Counter()
    return run, RunFolder(folder, run, {"speed": speed}, every, writes)


def test_a_state_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4), "b.c": torch.tensor([1, 2]), "d": torch.randn(4, 3).T}
    save_state(tmp_path / "new" / "state.safetensors", tensors, {"list": [0.1, "x"], "none": None})
    found, facts = load_state(tmp_path / "new" / "state.safetensors")
    assert facts == {"list": [0.1, "x"], "none": None}
    assert found.keys() == tensors.keys() and all(torch.equal(found[name], x) for name, x in tensors.items())
    assert part("b", found).keys() == {"c"} and named("b", {"c": tensors["a"]}).keys() == {"b.c"}


def test_what_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    for blocked in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(CheckpointError, match=f"{blocked}: cannot be written .*another folder"):
            opened(blocked)
    _, folder = opened(tmp_path / "run")
    folder.save()
    before = (tmp_path / "run" / "state.safetensors").read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"state\.safetensors: cannot be written \(No space left on device\)"):
        folder.save()
    assert (tmp_path / "run" / "state.safetensors").read_bytes() == before
    with pytest.raises(CheckpointError, match=r"model: cannot be written .disk full"), written("model"):
        raise SafetensorError("disk full")  # which is no OSError
    (tmp_path / "run" / "log.jsonl").unlink()
    (tmp_path / "run" / "log.jsonl").mkdir()
    with pytest.raises(CheckpointError, match=r"log\.jsonl: cannot be written"):
        folder.add({"epoch": 1})


def test_a_kill_while_writing_leaves_the_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "state.safetensors"
    save_state(file, {"x": torch.ones(1)}, 1)

    def killed(*paths: object) -> None:
        raise KeyboardInterrupt

    for call in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, killed)
            with pytest.raises(KeyboardInterrupt):
                save_state(file, {"x": torch.zeros(1)}, 2)
        assert load_state(file)[1] == 1
    (tmp_path / "state.99.tmp").write_bytes(b"what a kill leaves")
    save_state(file, {"x": torch.zeros(1)}, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


def test_what_is_no_state_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.ones(2)}, tmp_path / "plain.safetensors")
    (tmp_path / "text.safetensors").write_text("not a state")
    save_state(tmp_path / "cut.safetensors", {"x": torch.ones(1000)}, 1)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:-100])
    for name in ("plain", "text", "cut", "missing"):
        with pytest.raises(CheckpointError, match=f"{name}.safetensors: is damaged, or not of this kind"):
            load_state(tmp_path / f"{name}.safetensors")


def test_an_optimizer_goes_on_where_it_was() -> None:
    weights = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    optimizers = [torch.optim.AdamW([weight], 0.1) for weight in weights]
    for step in range(4):
        if step == 2:  # the second starts here, with what the first remembers
            weights[1].data.copy_(weights[0].data)
            load_optimizer(optimizers[1], {n: t.clone() for n, t in optimizer_tensors(optimizers[0]).items()})
        for weight, optimizer in list(zip(weights, optimizers, strict=True))[: 1 if step < 2 else 2]:
            weight.grad = torch.tensor([1.0, 2.0, -step])
            optimizer.step()
    assert torch.equal(*(weight.data for weight in weights))


def test_a_run_goes_on_and_its_log_fits(tmp_path: Path) -> None:
    run, folder = opened(tmp_path)
    for epoch in (1, 2, 3):
        run.count += 1
        folder.add({"epoch": epoch, "loss": 1 / epoch})
        if epoch == 2:
            folder.save()
    again, folder = opened(tmp_path)
    assert again.count == 2
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text("utf-8").splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]  # the third is not in the state: it comes again
    again.count += 1
    folder.add({"epoch": 3, "loss": 0.5})
    folder.close()
    assert load_state(tmp_path / "state.safetensors")[0]["count"] == 3


def test_states_are_saved_when_they_are_due(tmp_path: Path) -> None:
    run, folder = opened(tmp_path / "rarely")
    folder.save_if_due()
    assert not (tmp_path / "rarely" / "state.safetensors").exists()
    run, folder = opened(tmp_path / "always", every=0.0)
    run.count += 5
    folder.save_if_due()
    assert load_state(tmp_path / "always" / "state.safetensors")[0]["count"] == 5


def test_only_one_process_writes_and_all_read(tmp_path: Path) -> None:
    run, folder = opened(tmp_path)
    run.count += 2
    folder.close()
    other, reader = opened(tmp_path, every=0.0, writes=False)
    assert other.count == 2
    other.count += 1
    reader.save_if_due()
    reader.add({"epoch": 3})
    reader.close()
    assert load_state(tmp_path / "state.safetensors")[0]["count"] == 2
    assert (tmp_path / "log.jsonl").read_text("utf-8") == ""


def test_without_a_folder_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, folder = opened(None, every=0.0)
    folder.add({"epoch": 1})
    folder.save_if_due()
    folder.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("facts", [{"x": 1}, [1], {"description": {"speed": 1}}])
def test_a_state_of_something_else_is_refused(facts: Any, tmp_path: Path) -> None:
    save_state(tmp_path / "state.safetensors", {"count": torch.zeros(())}, facts)
    with pytest.raises(CheckpointError, match=r"state\.safetensors: is not the state of such a run"):
        opened(tmp_path)


def test_a_state_that_lacks_something_is_refused(tmp_path: Path) -> None:
    save_state(tmp_path / "state.safetensors", {"sum": torch.zeros(())}, {"description": {"speed": 1}, "epochs": 0})
    with pytest.raises(CheckpointError, match=r"is not the state of such a run .*'count'"):
        opened(tmp_path)


def test_a_damaged_log_is_no_reason_to_stop(tmp_path: Path) -> None:
    run, folder = opened(tmp_path)
    run.count += 1
    folder.add({"epoch": 1})
    folder.close()
    with open(tmp_path / "log.jsonl", "ab") as log:
        log.write(b"\xff\xfe")
    assert opened(tmp_path)[0].count == 1
    assert json.loads((tmp_path / "log.jsonl").read_bytes()) == {"epoch": 1}


def test_another_run_is_refused(tmp_path: Path) -> None:
    opened(tmp_path)[1].close()
    with pytest.raises(CheckpointError, match="belongs to a run with speed 1, not 2"):
        opened(tmp_path, speed=2)
