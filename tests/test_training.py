"""Training learns what can be learned, repeats bit for bit, and keeps its best weights."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clasp_lib.errors import CheckpointError, ClaspError
from clasp_lib.features import Features
from clasp_lib.fusion import FUSIONS, Fusion, build_fusion
from clasp_lib.losses import LOSSES, ContrastiveLoss, HuberLoss, Loss, build_loss
from clasp_lib.run_folder import RunFolder
from clasp_lib.run_state import load_state
from clasp_lib.training import History, TrainingSettings, fuse, train_fusion, validation_mrr

WIDTHS = (24, 20, 16)
SETTINGS = TrainingSettings(epochs=25, batch_size=40, learning_rate=5e-3, patience=25)


def made_up(prefix: str, sentences: int, takes: int, seed: int) -> Features:
    """Speech and picture that are linear in the text, and noise: what training must find out."""
    world = np.random.default_rng(99)
    to_speech, to_picture = world.standard_normal((16, 24)), world.standard_normal((16, 20))
    rng = np.random.default_rng(seed)
    text = np.repeat(rng.standard_normal((sentences, 16)), takes, axis=0)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    speech = text @ to_speech + 0.2 * rng.standard_normal((len(text), 24))
    picture = text @ to_picture + 0.4 * rng.standard_normal((len(text), 20))
    ids = [f"{prefix}{i // takes}" for i in range(len(text))]
    columns = [x.astype(np.float32) for x in (speech, picture, text)]
    return Features(*columns, ids, ids, ["news"] * len(ids), ["v"] * len(ids))


@pytest.fixture(scope="module")
def train() -> Features:
    return made_up("t", 160, 2, seed=1)


@pytest.fixture(scope="module")
def validation() -> Features:
    return made_up("v", 80, 1, seed=2)


def fresh(name: str = "concatenation") -> Fusion:
    torch.manual_seed(0)
    return build_fusion(name, *WIDTHS)


def run(fusion: Fusion, train: Features, validation: Features, **changes: object) -> History:
    settings = dataclasses.replace(SETTINGS, **changes)
    return train_fusion(fusion, ContrastiveLoss(), train, validation, settings, "cpu", show_progress_bar=False)


def without_clock(history: History) -> list[dict[str, float]]:
    clock = ("seconds", "pairs_per_second")
    return [{name: value for name, value in row.items() if name not in clock} for row in history.rows]


@pytest.mark.parametrize("name", FUSIONS)
def test_training_learns_unseen_sentences(name: str, train: Features, validation: Features) -> None:
    fusion = fresh(name)
    chance = sum(1 / r for r in range(1, 81)) / 80  # 0.062
    assert validation_mrr(fusion, validation) < 2 * chance
    history = run(fusion, train, validation)
    assert validation_mrr(fusion, validation) > 5 * chance  # at this seed all reach 7; another draw of dropout moves it
    assert history.rows[-1]["loss"] < 0.7 * history.rows[0]["loss"]


def test_regression_learns_too(train: Features, validation: Features) -> None:
    fusion = fresh()
    train_fusion(fusion, HuberLoss(), train, validation, SETTINGS, "cpu", show_progress_bar=False)
    assert validation_mrr(fusion, validation) > 0.25  # chance: 0.062


def test_the_same_seed_gives_the_same_bits(train: Features, validation: Features) -> None:
    one, two, other = fresh(), fresh(), fresh()
    torch.manual_seed(1)
    first = run(one, train, validation, epochs=4)
    torch.manual_seed(2)  # what happened before does not matter
    np.random.default_rng().random()
    second = run(two, train, validation, epochs=4)
    run(other, train, validation, epochs=4, seed=1)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name
    assert not torch.equal(one.mix[0].weight, other.mix[0].weight)
    assert without_clock(first) == without_clock(second)


def test_no_sentence_is_twice_in_a_batch(train: Features, validation: Features) -> None:
    sentence_of = {row.tobytes(): sentence for row, sentence in zip(train.text, train.sentence_ids, strict=True)}
    seen: list[list[str]] = []

    class Spy(ContrastiveLoss):
        def forward(self, speech: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
            seen.append([sentence_of[row.tobytes()] for row in text.numpy()])
            return super().forward(speech, text)

    settings = dataclasses.replace(SETTINGS, epochs=3, batch_size=48)
    train_fusion(fresh(), Spy(), train, validation, settings, "cpu", show_progress_bar=False)
    assert len(seen) == 3 * (160 // 48)
    assert all(len(set(batch)) == len(batch) == 48 for batch in seen)
    epochs = [[s for batch in seen[i : i + 3] for s in batch] for i in (0, 3, 6)]
    assert all(len(set(epoch)) == len(epoch) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_every_take_is_heard_in_time(train: Features, validation: Features) -> None:
    heard: set[bytes] = set()

    class Listening(Fusion):
        def __init__(self) -> None:
            super().__init__(*WIDTHS)
            self.layer = torch.nn.Linear(24, 16)

        def forward(self, speech: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
            if self.training:
                heard.update(row.tobytes() for row in speech.numpy())
            return self.layer(speech)

    run(Listening(), train, validation, epochs=12)
    assert len(heard) > 0.95 * len(train)


def test_the_best_weights_are_the_ones_that_stay(train: Features, validation: Features) -> None:
    fusion = fresh()
    history = run(fusion, train, validation, epochs=30, learning_rate=0.05, patience=4)
    mrr = [row["mrr"] for row in history.rows]
    assert history.best_epoch == 1 + int(np.argmax(mrr))
    assert validation_mrr(fusion, validation) == max(mrr)
    assert not fusion.training
    assert len(mrr) == min(30, history.best_epoch + 4)  # patience
    assert [row["epoch"] for row in history.rows] == list(range(1, len(mrr) + 1))


def test_fused_vectors_have_length_one_and_repeat(train: Features) -> None:
    fusion = fresh().train()
    vectors = fuse(fusion, train)
    assert vectors.shape == (320, 16) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(vectors, fuse(fusion, train))  # dropout is off


def cut(features: Features, n: int) -> Features:
    return Features(*(getattr(features, field.name)[:n] for field in dataclasses.fields(features)[:7]))


def test_what_cannot_be_trained_on_is_refused(train: Features, validation: Features) -> None:
    narrow = dataclasses.replace(validation, speech=validation.speech[:, :5])
    broken = dataclasses.replace(train, speech=np.where(np.arange(24) == 3, np.nan, train.speech).astype(np.float32))
    for bad_train, bad_validation, options, message in (
        (cut(train, 0), validation, {}, "two sentences"),
        (cut(train, 2), validation, {}, "two sentences"),  # two takes of one sentence
        (train, cut(validation, 0), {}, "a clip for validation"),
        (train, validation, {"batch_size": 1}, "batches of at least two"),
        (train, narrow, {}, "'speech_width': 5"),
        (dataclasses.replace(train, text=train.text[:, :3]), validation, {}, "'width': 3"),
        (broken, validation, {}, "the loss became nan in epoch 1"),
    ):
        with pytest.raises(ClaspError, match=message):
            run(fresh(), bad_train, bad_validation, **options)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"epochs": 0}, "epochs is 0; give 1 or more"),
        ({"patience": 0}, "patience is 0; give 1 or more"),
        ({"seed": -1}, "seed is -1; give 0 or more"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1; give 0 or more"),
        ({"checkpoint_every": float("nan")}, "checkpoint_every is nan; give 0 or more"),
        ({"learning_rate": -1e-3}, "learning_rate is -0.001; give more than 0"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0; give more than 0"),
        ({"warm_up": 1.5}, "warm_up is 1.5; give a share"),
        ({"precision": "float8"}, "precision 'float8' is not known. Choose from float32, mixed, bfloat16"),
    ],
)
def test_settings_that_could_teach_nothing_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ClaspError, match=message):
        TrainingSettings(**setting)


class Stop(Exception):
    """What ends a run in the middle."""


class Interrupted(ContrastiveLoss):
    """Stops the run when a loss is asked for the given time."""

    def __init__(self, at: int | None) -> None:
        super().__init__()
        self.at, self.asked = at, 0

    def compute(self, speech: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        if self.asked == self.at:
            raise Stop
        return super().compute(speech, text)


def kept(
    folder: Path, train: Features, validation: Features, at: int | None = None, **changes: object
) -> tuple[Fusion, History]:
    """Twelve steps, three epochs of four, with a folder; the run stops before it has done `at` of them."""
    settings = dataclasses.replace(SETTINGS, epochs=3, checkpoint_every=0.0, **changes)
    fusion = fresh()
    history = train_fusion(fusion, Interrupted(at), train, validation, settings, "cpu", False, folder)
    return fusion, history


@pytest.mark.parametrize("at", range(1, 13))
def test_a_stopped_run_ends_with_the_bits_of_an_undisturbed_one(
    at: int, tmp_path: Path, train: Features, validation: Features
) -> None:
    undisturbed, history = kept(tmp_path / "whole", train, validation)
    with pytest.raises(Stop):
        kept(tmp_path / "stopped", train, validation, at=at)
    torch.manual_seed(5)
    again, history_again = kept(tmp_path / "stopped", train, validation)
    for name, tensor in undisturbed.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert without_clock(history) == without_clock(history_again)
    states = [load_state(tmp_path / run / "state.safetensors")[0] for run in ("whole", "stopped")]
    assert states[0].keys() == states[1].keys()
    assert {"optimizer.0.exp_avg", "random.cpu", "loss.logit_scale"} <= states[0].keys()
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name
    logs = [(tmp_path / run / "log.jsonl").read_text("utf-8").splitlines() for run in ("whole", "stopped")]
    assert [json.loads(line)["mrr"] for line in logs[0]] == [json.loads(line)["mrr"] for line in logs[1]]
    assert len(logs[1]) == 3


def test_a_stop_between_saves_goes_back_to_the_last_one(
    tmp_path: Path, train: Features, validation: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, _ = kept(tmp_path / "whole", train, validation)
    saves = iter(range(100))
    save = RunFolder.save
    monkeypatch.setattr(RunFolder, "save", lambda self: save(self) if next(saves) == 5 else None)
    with pytest.raises(Stop):
        kept(tmp_path / "stopped", train, validation, at=12)
    monkeypatch.undo()
    facts = load_state(tmp_path / "stopped" / "state.safetensors")[1]
    assert facts["step"] == 6
    assert len((tmp_path / "stopped" / "log.jsonl").read_text("utf-8").splitlines()) == 2  # one too many
    again, _ = kept(tmp_path / "stopped", train, validation)
    assert all(torch.equal(x, again.state_dict()[name]) for name, x in undisturbed.state_dict().items())
    assert len((tmp_path / "stopped" / "log.jsonl").read_text("utf-8").splitlines()) == 3


def test_a_finished_run_is_not_trained_again(tmp_path: Path, train: Features, validation: Features) -> None:
    first, history = kept(tmp_path, train, validation)
    second, again = kept(tmp_path, train, validation, at=1)  # would stop at its first step
    assert all(torch.equal(x, second.state_dict()[name]) for name, x in first.state_dict().items())
    assert without_clock(history) == without_clock(again)


def test_a_folder_of_another_run_is_refused(tmp_path: Path, train: Features, validation: Features) -> None:
    kept(tmp_path, train, validation)
    for message, changes in (
        ("learning_rate 0.005, not 0.1", {"learning_rate": 0.1}),
        ("seed 0, not 3", {"seed": 3}),
    ):
        with pytest.raises(CheckpointError, match=message):
            kept(tmp_path, train, validation, **changes)
    for other in (ContrastiveLoss(learned=False), ContrastiveLoss(0.1), HuberLoss()):
        with pytest.raises(CheckpointError, match="belongs to a run with loss Interrupted, 1 learned"):
            settings = dataclasses.replace(SETTINGS, epochs=3)
            train_fusion(fresh(), other, train, validation, settings, "cpu", False, tmp_path)
    with pytest.raises(CheckpointError, match="training clips 320"):
        kept(tmp_path, cut(train, 300), validation)
    for column in ("speech", "picture", "text"):
        changed = dataclasses.replace(train, **{column: getattr(train, column) + 1})
        with pytest.raises(CheckpointError, match="training clips 320"):
            kept(tmp_path, changed, validation)
    state = tmp_path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:500])
    with pytest.raises(CheckpointError, match="is damaged, or not of this kind"):
        kept(tmp_path, train, validation)


def test_what_is_logged_can_be_read_by_tensorboard(tmp_path: Path, train: Features, validation: Features) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    _, history = kept(tmp_path, train, validation)
    found = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("mrr")
    assert [event.step for event in found] == [1, 2, 3]
    assert [event.value for event in found] == pytest.approx([row["mrr"] for row in history.rows])


def test_rows_that_are_read_ahead_train_alike(tmp_path: Path, train: Features, validation: Features) -> None:
    resident, streamed = fresh(), fresh()
    run(resident, train, validation, epochs=3)
    mapped = {}
    for name in ("speech", "picture", "text"):
        np.save(tmp_path / f"{name}.npy", getattr(train, name))
        mapped[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="c")
    run(streamed, dataclasses.replace(train, **mapped), validation, epochs=3)
    assert all(torch.equal(x, streamed.state_dict()[name]) for name, x in resident.state_dict().items())


def test_a_loss_gets_what_it_needs(train: Features, validation: Features) -> None:
    rng = np.random.default_rng(0)
    columns = {
        "negatives": rng.standard_normal((len(train), 2, 16)).astype(np.float32),
        "other_speech": rng.standard_normal((len(train), 24)).astype(np.float32),
        "other_picture": train.picture,
    }
    row_of = {text.tobytes(): row for row, text in enumerate(train.text)}  # the last take of each sentence

    class Curious(Loss):
        needs = ("sentences", "categories", "negatives", "other")

        def compute(
            self,
            speech: torch.Tensor,
            text: torch.Tensor,
            sentences: torch.Tensor,
            categories: torch.Tensor,
            negatives: torch.Tensor,
            other: torch.Tensor,
        ) -> torch.Tensor:
            rows = [row_of[t.tobytes()] for t in text.numpy()]
            assert sentences.tolist() == [row // 2 for row in rows]
            assert categories.tolist() == [0] * 40
            for k in range(40):
                assert negatives[k].numpy().tobytes() in {columns["negatives"][rows[k] - i].tobytes() for i in (0, 1)}
            assert other.shape == speech.shape and not torch.equal(other, speech)
            return (speech - other).square().mean() + (speech - text).square().mean()

    settings = dataclasses.replace(SETTINGS, epochs=2)
    full = dataclasses.replace(train, columns=columns)
    history = train_fusion(fresh(), Curious(), full, validation, settings, "cpu", show_progress_bar=False)
    assert len(history.rows) == 2
    with pytest.raises(ClaspError, match="needs the column 'negatives'"):
        train_fusion(fresh(), Curious(), train, validation, settings, "cpu", show_progress_bar=False)


@pytest.mark.filterwarnings("error:.*empty generator")  # of a loss without numbers of its own
@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_trains(name: str, train: Features, validation: Features) -> None:
    rng = np.random.default_rng(0)

    def noisy(x: np.ndarray) -> np.ndarray:
        return (x + 0.2 * rng.standard_normal(x.shape)).astype(np.float32)

    wrong = rng.standard_normal((len(train), 1, 16)).astype(np.float32)
    other = {"other_speech": noisy(train.speech), "other_picture": noisy(train.picture)}
    full = dataclasses.replace(train, columns={"negatives": wrong, **other})
    settings = dataclasses.replace(SETTINGS, epochs=10)
    history = train_fusion(fresh(), build_loss(name, 16, 2), full, validation, settings, "cpu", False)
    assert history.rows[-1]["loss"] < history.rows[0]["loss"]


def test_frames_are_pooled_while_training(train: Features, validation: Features) -> None:
    rng = np.random.default_rng(0)

    def with_frames(features: Features) -> Features:
        """Each clip's vector, between frames of noise that are weak and many."""
        frames = []
        for speech in features.speech:
            noise = 0.1 * rng.standard_normal((int(rng.integers(3, 9)), 24))
            frames.append(torch.from_numpy(np.vstack([speech, noise]).astype(np.float32)))
        return dataclasses.replace(features, frames=frames)

    fusion = fresh("attention+concatenation")
    history = run(fusion, with_frames(train), with_frames(validation))
    assert history.best_mrr > 0.4
    with pytest.raises(ClaspError, match="takes frames"):
        run(fresh("attention+concatenation"), train, validation)


def test_a_folder_of_another_pooling_is_refused(tmp_path: Path, train: Features, validation: Features) -> None:
    """Its weights have the same names and shapes."""
    framed = [
        dataclasses.replace(f, frames=[torch.from_numpy(speech[None]) for speech in f.speech])
        for f in (train, validation)
    ]
    settings = dataclasses.replace(SETTINGS, epochs=1)

    def pooled(name: str) -> History:
        return train_fusion(fresh(name), ContrastiveLoss(), *framed, settings, "cpu", False, tmp_path)

    pooled("attention+linear")
    assert len(pooled("attention+linear").rows) == 1
    for other in ("sparsemax+linear", "label_attention+linear", "attention+speech_only"):
        with pytest.raises(CheckpointError, match="belongs to a run with fusion Pooled, AttentionPooling softmax, Lin"):
            pooled(other)


def test_too_little_memory_says_what_helps(train: Features, validation: Features) -> None:
    class Hungry(ContrastiveLoss):
        def compute(self, speech: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ClaspError, match=r"batches of 40\. Lower batch_size"):
        train_fusion(fresh(), Hungry(), train, validation, SETTINGS, "cpu", show_progress_bar=False)


def test_half_precision_trains_as_well(train: Features, validation: Features) -> None:
    fusion = fresh()
    history = run(fusion, train, validation, precision="bfloat16")
    assert history.best_mrr > 0.5
    assert all(p.dtype == torch.float32 for p in fusion.parameters())


@pytest.mark.slow
def test_a_compiled_run_learns_too(train: Features, validation: Features) -> None:
    pytest.importorskip("torch._inductor")
    if not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("torch.compile needs a C++ compiler, and this machine has none")
    history = run(fresh(), train, validation, compiled=True, epochs=10)
    assert history.rows[-1]["loss"] < 0.8 * history.rows[0]["loss"]


def test_the_learning_rate_rises_and_falls() -> None:
    settings = TrainingSettings(learning_rate=2.0, warm_up=0.1)
    rates = [settings.rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.2) and rates[8] == pytest.approx(1.8)
    assert max(rates) <= 2.0 and rates[9] == pytest.approx(2 * 0.5 * (1 + np.cos(np.pi * 0.09)))
    assert rates[50] == pytest.approx(1.0) and rates[99] < 0.002
    assert rates[10:] == sorted(rates[10:], reverse=True)


_KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
import test_training as t

folder, step, while_writing = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "True"

class Interrupted(t.Interrupted):
    def compute(self, speech, text):
        self.asked += 1
        if self.asked == step and not while_writing:
            os.kill(os.getpid(), signal.SIGKILL)
        return t.ContrastiveLoss.compute(self, speech, text)

saves, replace = [], os.replace
def replace_or_die(source, target):
    if str(target).endswith("state.safetensors"):
        saves.append(target)
    if while_writing and len(saves) == step:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

os.replace = replace_or_die
t.Interrupted = Interrupted
t.kept(folder, t.made_up("t", 160, 2, seed=1), t.made_up("v", 80, 1, seed=2))
"""


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(tmp_path: Path, train: Features, validation: Features) -> None:
    """Killed as an operating system kills, in the middle of a step or while the state is written, and started again."""
    script = _KILLED.format(tests=str(Path(__file__).parent))
    kills = 0
    for step, while_writing in ((2, False), (3, True), (1, False), (4, True), (3, False)):
        arguments = [str(tmp_path / "killed"), str(step), str(while_writing)]
        code = subprocess.run([sys.executable, "-c", script, *arguments], check=False).returncode
        kills += code == -9
    assert kills >= 4
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the killed ones: sums that are shared among threads differ in their last bits
    whole, _ = kept(tmp_path / "whole", train, validation)
    again, _ = kept(tmp_path / "killed", train, validation)
    torch.set_num_threads(threads)
    assert all(torch.equal(x, again.state_dict()[name]) for name, x in whole.state_dict().items())
