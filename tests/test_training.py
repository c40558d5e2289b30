"""Training learns what can be learned, repeats bit for bit, and keeps its best weights."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from clasp_lib.errors import ClaspError
from clasp_lib.features import Features
from clasp_lib.fusion import Fusion, build_fusion
from clasp_lib.losses import ContrastiveLoss, HuberLoss
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


@pytest.mark.parametrize("name", ["concatenation", "gating", "speech_only", "linear", "picture_only"])
def test_training_learns_unseen_sentences(name: str, train: Features, validation: Features) -> None:
    fusion = fresh(name)
    chance = sum(1 / r for r in range(1, 81)) / 80  # 0.062
    assert validation_mrr(fusion, validation) < 4 * chance
    history = run(fusion, train, validation)
    assert validation_mrr(fusion, validation) > 8 * chance
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
    without_clock = [[{k: v for k, v in row.items() if k != "seconds"} for row in h.rows] for h in (first, second)]
    assert without_clock[0] == without_clock[1]


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
    return Features(*(getattr(features, field.name)[:n] for field in dataclasses.fields(features)))


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
