"""Laws of the losses: finite with finite gradients, blind to the order of a batch, and ordered among themselves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch.nn import functional

from clasp_lib.losses import LOSSES, Loss, build_loss
from hard.properties import holds

CATEGORIES = 4
DIRECTIONS = ("contrastive", "contrastive_fixed", "contrastive_inverted", "contrastive_masked", "hard_negatives")
DIRECTIONS += ("sigmoid", "cosine", "augmentation", "contrastive_augmentation", "label_anchored")
"""Losses to which the length of a vector is nothing."""

TOLERANCE = 2e-4
"""Of a loss beside the same one computed in another order, in float32 and relative to 1 + its size."""


class Batch(NamedTuple):
    """Two modalities of n pairs, and every column that a loss may ask for."""

    speech: torch.Tensor
    text: torch.Tensor
    columns: dict[str, torch.Tensor]

    def value(self, name: str) -> float:
        torch.manual_seed(0)
        loss = build_loss(name, self.speech.shape[1], CATEGORIES)
        return float(self.of(loss).detach())

    def of(self, loss: Loss) -> torch.Tensor:
        return loss(self.speech, self.text, **{column: self.columns[column] for column in loss.needs})

    def rows(self, order: np.ndarray) -> Batch:
        at = torch.from_numpy(order)
        return Batch(self.speech[at], self.text[at], {name: column[at] for name, column in self.columns.items()})


@st.composite
def batches(draw: st.DrawFn, zeros: bool = True) -> Batch:
    n, width, k = draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    numbers = st.floats(-8, 8, width=32, allow_subnormal=True)

    def vectors(*shape: int) -> torch.Tensor:
        found = draw(arrays.arrays(np.float32, (*shape, width), elements=numbers))
        if not zeros:  # a direction that is clear: no row is shorter than a hundredth
            found = np.where(np.linalg.norm(found, axis=-1, keepdims=True) < 1e-2, np.float32(1), found)
        return torch.from_numpy(found)

    whole = st.lists(st.integers(0, CATEGORIES - 1), min_size=n, max_size=n)
    columns = {"sentences": torch.tensor(draw(whole)), "categories": torch.tensor(draw(whole))}
    columns |= {"negatives": vectors(n, k), "other": vectors(n)}
    return Batch(vectors(n), vectors(n), columns)


def close(one: float, other: float) -> bool:
    return abs(one - other) <= TOLERANCE * (1 + abs(one))


@holds(16, batch=batches(), name=st.sampled_from(sorted(LOSSES)))
def test_every_loss_and_its_gradients_are_finite(batch: Batch, name: str) -> None:
    loss = build_loss(name, batch.speech.shape[1], CATEGORIES)
    batch.speech.requires_grad_()
    value = batch.of(loss)
    assert value.shape == () and value.dtype == torch.float32 and bool(value.isfinite())
    value.backward()
    gradients = [batch.speech.grad, *(p.grad for p in loss.parameters() if p.requires_grad)]
    assert all(gradient is None or bool(gradient.isfinite().all()) for gradient in gradients)
    assert name == "label_anchored" or float(value.detach()) >= -1e-6  # a term of that one may fall below zero


@holds(24, batch=batches(zeros=False), name=st.sampled_from(sorted(LOSSES)), seed=st.integers(0, 99))
def test_the_order_of_a_batch_does_not_matter(batch: Batch, name: str, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(batch.speech))
    assert close(batch.value(name), batch.rows(order).value(name))


@holds(24, batch=batches(zeros=False), name=st.sampled_from(DIRECTIONS), power=st.integers(-12, 12))
def test_the_length_of_vectors_does_not_matter_to_losses_of_directions(batch: Batch, name: str, power: int) -> None:
    longer = batch._replace(speech=batch.speech * 2.0**power, text=batch.text * 2.0**-power)
    assert close(batch.value(name), longer.value(name))


@holds(16, batch=batches(zeros=False), name=st.sampled_from(["contrastive", "sigmoid", "huber", "mse", "cosine"]))
def test_speech_and_text_may_change_places(batch: Batch, name: str) -> None:
    assert close(batch.value(name), batch._replace(speech=batch.text, text=batch.speech).value(name))


@holds(24, batch=batches(zeros=False))
def test_more_negatives_cost_more_and_fewer_cost_less(batch: Batch) -> None:
    plain = batch.value("contrastive")
    assert batch.value("hard_negatives") >= plain - TOLERANCE * (1 + plain)
    assert batch.value("contrastive_masked") <= plain + TOLERANCE * (1 + plain)
    one = batch.rows(np.array([0]))
    assert one.value("contrastive") == pytest.approx(0, abs=1e-6)  # nothing to be taken for


@holds(16, batch=batches(zeros=False))
def test_the_contrastive_loss_is_the_formula_in_double_precision(batch: Batch) -> None:
    one, two = (functional.normalize(x.double(), dim=-1).numpy() for x in (batch.speech, batch.text))
    logits = one @ two.T / 0.07

    def cost(rows: np.ndarray) -> float:
        top = rows.max(1, keepdims=True)
        return float(np.mean(top[:, 0] + np.log(np.exp(rows - top).sum(1)) - np.diag(rows)))

    assert close(batch.value("contrastive"), (cost(logits) + cost(logits.T)) / 2)


@holds(16, batch=batches(zeros=False))
def test_who_hits_the_text_pays_nothing_in_regression(batch: Batch) -> None:
    perfect = batch._replace(speech=batch.text)
    for name in ("huber", "mse", "cosine"):
        assert perfect.value(name) == pytest.approx(0, abs=1e-6), name
    difference = (batch.speech - batch.text).abs()
    assert batch.value("huber") <= batch.value("mse") / 2 + 1e-4
    if float(difference.max()) <= 0.5:
        assert batch.value("huber") == pytest.approx(batch.value("mse") / 2, abs=1e-6)
