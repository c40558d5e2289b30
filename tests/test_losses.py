"""Losses against formulations of their own, and the reference's temperature defect as it is."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from clasp_lib.errors import ClaspError
from clasp_lib.losses import ContrastiveLoss, HuberLoss


def cross_entropy_of_the_diagonal(logits: np.ndarray) -> float:
    """Mean of -log softmax at the diagonal, rows as distributions."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-np.diag(log_softmax).mean())


def clip_loss(speech: np.ndarray, text: np.ndarray, scale: float) -> float:
    a = speech / np.linalg.norm(speech, axis=1, keepdims=True)
    b = text / np.linalg.norm(text, axis=1, keepdims=True)
    logits = scale * a @ b.T
    return (cross_entropy_of_the_diagonal(logits) + cross_entropy_of_the_diagonal(logits.T)) / 2


@pytest.fixture
def pairs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    text = rng.standard_normal((16, 12))
    return text + 0.7 * rng.standard_normal((16, 12)), 3 * text


def tensors(pairs: tuple[np.ndarray, np.ndarray], dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [torch.tensor(x, dtype=dtype, requires_grad=True) for x in pairs]


@pytest.mark.parametrize("temperature", [0.02, 0.07, 1.0])
def test_the_contrastive_loss_is_clips(pairs: tuple[np.ndarray, np.ndarray], temperature: float) -> None:
    value = ContrastiveLoss(temperature)(*tensors(pairs)).item()
    assert value == pytest.approx(clip_loss(*pairs, 1 / temperature), rel=1e-5)
    swapped = ContrastiveLoss(temperature)(*reversed(tensors(pairs))).item()
    assert swapped == pytest.approx(value, rel=1e-5)  # both directions count the same
    one_way = cross_entropy_of_the_diagonal(pairs[0] @ pairs[1].T)
    assert value != pytest.approx(one_way, rel=1e-3)


def formula(speech: torch.Tensor, text: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """The same once more, with what autograd needs and in any precision."""
    a = speech / speech.square().sum(1, keepdim=True).sqrt()
    b = text / text.square().sum(1, keepdim=True).sqrt()
    logits = log_scale.exp() * a @ b.T
    right = logits.diagonal()
    return ((logits.logsumexp(0) - right).mean() + (logits.logsumexp(1) - right).mean()) / 2


def test_the_gradients_are_those_of_the_formula(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    small = tuple(x[:4, :5] for x in pairs)
    log_scale = torch.tensor(-math.log(0.07), dtype=torch.float64, requires_grad=True)
    doubles = tensors(small, torch.float64)
    assert torch.autograd.gradcheck(formula, (*doubles, log_scale))
    expected = torch.autograd.grad(formula(*doubles, log_scale), (*doubles, log_scale))
    loss, floats = ContrastiveLoss(0.07), tensors(small)
    found = torch.autograd.grad(loss(*floats), (*floats, loss.logit_scale))
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two.float(), atol=1e-5, rtol=1e-3)


def test_the_scale_is_learned_if_asked_and_kept_below_a_hundred(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    assert ContrastiveLoss().logit_scale.requires_grad
    fixed = ContrastiveLoss(learned=False)
    assert not fixed.logit_scale.requires_grad
    assert fixed.logit_scale.exp().item() == pytest.approx(1 / 0.07)
    assert ContrastiveLoss(1e-4)(*tensors(pairs)).item() == pytest.approx(clip_loss(*pairs, 100), rel=1e-4)
    for temperature in (0, -1):
        with pytest.raises(ClaspError, match="above 0"):
            ContrastiveLoss(temperature)


def test_the_inverted_temperature_multiplies_by_it(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    loss = ContrastiveLoss.inverted()
    assert not loss.logit_scale.requires_grad
    assert loss(*tensors(pairs)).item() == pytest.approx(clip_loss(*pairs, 0.07), rel=1e-5)


def test_the_inverted_temperature_can_hardly_learn() -> None:
    """In the released notebooks, at batch 32 the loss hardly leaves ln 32 = 3.466, however good the vectors are."""
    perfect = torch.eye(32, 40)
    simplex = torch.eye(32) - 1 / 32  # as far apart as 32 vectors can be
    defect = ContrastiveLoss.inverted()
    for vectors in (perfect, simplex):
        assert 3.3 < defect(vectors, vectors).item() < math.log(32)
        assert ContrastiveLoss(0.07)(vectors, vectors).item() < 1e-3
    best = math.log(1 + 31 * math.exp(-0.07 * (1 + 1 / 31)))
    assert defect(simplex, simplex).item() == pytest.approx(best, abs=1e-4)
    torch.manual_seed(0)
    speech, text = torch.nn.Parameter(torch.randn(32, 40)), torch.nn.Parameter(torch.randn(32, 40))
    optimizer = torch.optim.Adam([speech, text], 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        defect(speech, text).backward()
        optimizer.step()
    assert best - 1e-4 <= defect(speech, text).item() < math.log(32)


def test_halved_precision_is_computed_in_full(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    halves = [torch.tensor(x).to(torch.bfloat16) for x in pairs]
    for loss in (ContrastiveLoss(), HuberLoss()):
        assert loss(*halves).dtype == torch.float32
        torch.testing.assert_close(loss(*halves), loss(*(h.float() for h in halves)))


def test_huber_by_hand() -> None:
    speech = torch.tensor([[0.0, 0.5], [2.0, -1.0]])
    text = torch.tensor([[0.3, 0.5], [0.0, 0.0]])
    # |0.3| and 0 are below delta: d^2 / 2; |2| and |-1| are above: 0.6 (|d| - 0.3)
    expected = (0.3**2 / 2 + 0 + 0.6 * (2 - 0.3) + 0.6 * (1 - 0.3)) / 4
    assert HuberLoss(0.6)(speech, text).item() == pytest.approx(expected)
    assert HuberLoss()(speech, text).item() == pytest.approx(expected)  # the reference's delta is the default
    assert HuberLoss()(2 * text, text).item() > 0  # the length counts: nothing is normalised
    doubles = [torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda a, b: torch.nn.functional.huber_loss(a, b, delta=0.6), doubles)
