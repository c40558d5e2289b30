"""Dropout does what torch's does."""

from __future__ import annotations

import pytest
import torch

from clasp_lib.dropout import Dropout, keep_mask


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
def test_the_share_of_zeros_and_the_mean_are_right(p: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1000, 301, requires_grad=True)
    dropped = Dropout(p)(x)
    assert (dropped == 0).float().mean().item() == pytest.approx(p, abs=0.003)
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)
    kept = dropped[dropped != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - p)))
    dropped.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, dropped.detach())  # the mask that went forward goes back


def test_values_are_dropped_independently() -> None:
    torch.manual_seed(0)
    kept = keep_mask(torch.Size((20_000, 8)), 0.3, torch.device("cpu")).double()
    correlation = torch.corrcoef(kept.T)
    assert (correlation - torch.eye(8)).abs().max() < 0.03
    assert (torch.corrcoef(torch.stack([kept[:-1].flatten(), kept[1:].flatten()]))[0, 1]).abs() < 0.02


def test_it_follows_the_seed_and_the_mode() -> None:
    layer, x = Dropout(0.5), torch.randn(5, 7)
    torch.manual_seed(3)
    one = layer(x)
    torch.manual_seed(3)
    assert torch.equal(one, layer(x)) and not torch.equal(one, layer(x))
    assert torch.equal(layer.eval()(x), x)
    assert layer.train()(x.bfloat16()).dtype == torch.bfloat16
    assert keep_mask(torch.Size((3,)), 0.5, torch.device("cpu")).shape == (3,)
