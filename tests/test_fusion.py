"""Fusions have the released sizes and compute what was released."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from clasp_lib.errors import ClaspError
from clasp_lib.fusion import FUSIONS, Fusion, Gating, build_fusion

Array = np.ndarray


def parameters(fusion: Fusion) -> int:
    return sum(p.numel() for p in fusion.parameters())


def random_fusion(name: str, *widths: int) -> Fusion:
    """A fusion in evaluation mode whose batch norms have seen something."""
    torch.manual_seed(0)
    fusion = build_fusion(name, *widths)
    for module in fusion.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.normal_(0, 0.3)
    return fusion.eval()


@pytest.mark.parametrize(
    ("name", "speech", "picture", "width", "count"),
    [
        ("concatenation", 1024, 1000, 768, 6_344_608),
        ("gating", 1024, 1000, 768, 9_237_888),
        ("speech_only", 1024, 1000, 768, 1024 * 768 + 768 * 576 * 2 + 768 + 576 + 768 + 2 * (768 + 576)),
        ("linear", 1024, 1000, 768, 1024 * 768 + 768 + 2 * 1024),
        ("picture_only", 1024, 1000, 768, 1000 * 768 + 768 * 576 * 2 + 768 + 576 + 768 + 2 * (768 + 576)),
    ],
)
def test_the_sizes_are_the_released_ones(name: str, speech: int, picture: int, width: int, count: int) -> None:
    assert parameters(build_fusion(name, speech, picture, width)) == count


def test_hidden_widths_follow_the_text_space() -> None:
    fusion = build_fusion("concatenation", 256, 500, 384)
    widths = [m.out_features for m in fusion.modules() if isinstance(m, torch.nn.Linear)]
    assert widths == [384, 288, 384, 384, 288, 384, 512, 400, 384]


# The same formulas once more, in plain numpy ---------------------------------------------------------------------


def linear(module: torch.nn.Module) -> Callable[[Array], Array]:
    weight, bias = module.weight.detach().numpy(), module.bias.detach().numpy()
    return lambda x: x @ weight.T + bias


def batch_norm(m: torch.nn.Module) -> Callable[[Array], Array]:
    mean, var, weight, bias = (t.detach().numpy() for t in (m.running_mean, m.running_var, m.weight, m.bias))
    return lambda x: (x - mean) / np.sqrt(var + 1e-5) * weight + bias


def leaky(x: Array) -> Array:
    return np.where(x > 0, x, 0.01 * x)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def branch(m: torch.nn.Sequential, x: Array) -> Array:
    x = np.maximum(batch_norm(m[1])(linear(m[0])(x)), 0)
    x = leaky(batch_norm(m[5])(linear(m[4])(x)))
    return linear(m[8])(x)


def unit(x: Array) -> Array:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture
def inputs() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((5, 30)).astype(np.float32) * 4, rng.standard_normal((5, 20)).astype(np.float32) * 9


def run(fusion: Fusion, speech: Array, picture: Array) -> Array:
    with torch.inference_mode():
        return fusion(torch.from_numpy(speech), torch.from_numpy(picture)).numpy()


def test_concatenation_is_its_formula(inputs: tuple[Array, Array]) -> None:
    fusion = random_fusion("concatenation", 30, 20, 24)
    speech, picture = map(unit, inputs)
    both = np.concatenate([branch(fusion.speech_branch, speech), branch(fusion.picture_branch, picture)], axis=1)
    hidden = leaky(batch_norm(fusion.mix[1])(linear(fusion.mix[0])(both)))
    expected = linear(fusion.mix[5])(leaky(linear(fusion.mix[3])(hidden)))
    np.testing.assert_allclose(run(fusion, *inputs), expected, atol=1e-5)


def test_gating_is_its_formula(inputs: tuple[Array, Array]) -> None:
    fusion = random_fusion("gating", 30, 20, 24)
    assert isinstance(fusion, Gating)
    gated = []
    for gates, part, x in (
        (fusion.speech_gates, fusion.speech_branch, unit(inputs[0])),
        (fusion.picture_gates, fusion.picture_branch, unit(inputs[1])),
    ):
        x = branch(part, x)
        i, f, c = sigmoid(linear(gates.input)(x)), sigmoid(linear(gates.forget)(x)), np.tanh(linear(gates.candidate)(x))
        gated.append(i * c + f * x)
    weights = np.exp(linear(fusion.weight)(np.concatenate(gated, axis=1)))
    weights /= weights.sum(axis=1, keepdims=True)  # one softmax over all 48 values
    expected = weights[:, :24] * gated[0] + weights[:, 24:] * gated[1]
    np.testing.assert_allclose(run(fusion, *inputs), expected, atol=1e-6)
    assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize(("name", "part"), [("speech_only", 0), ("picture_only", 1)])
def test_a_mode_hears_or_sees_one_modality_only(name: str, part: int, inputs: tuple[Array, Array]) -> None:
    fusion = random_fusion(name, 30, 20, 24)
    out = run(fusion, *inputs)
    other = [x + 1 if i != part else x for i, x in enumerate(inputs)]
    np.testing.assert_array_equal(run(fusion, *other), out)
    same = [x + 1 if i == part else x for i, x in enumerate(inputs)]
    assert np.abs(run(fusion, *same) - out).max() > 1e-3
    (module,) = fusion.children()
    np.testing.assert_allclose(out, branch(module, unit(inputs[part])), atol=1e-5)


def test_a_line_hears_only_and_is_a_line(inputs: tuple[Array, Array]) -> None:
    fusion = random_fusion("linear", 30, 20, 24)
    norm, layer = fusion.layer
    mean, var = norm.running_mean.numpy(), norm.running_var.numpy()
    standard = (unit(inputs[0]) - mean) / np.sqrt(var + norm.eps) * norm.weight.detach().numpy()
    expected = linear(layer)(standard + norm.bias.detach().numpy())
    np.testing.assert_allclose(run(fusion, *inputs), expected, atol=1e-5)


@pytest.mark.parametrize("name", FUSIONS)
def test_the_length_of_the_inputs_does_not_matter(name: str, inputs: tuple[Array, Array]) -> None:
    fusion = random_fusion(name, 30, 20, 24)
    louder = (inputs[0] * 100, inputs[1] * 0.01)
    np.testing.assert_allclose(run(fusion, *louder), run(fusion, *inputs), atol=1e-5)
    assert run(fusion, *inputs).shape == (5, 24)


@pytest.mark.parametrize("name", ["concatenation", "gating"])
def test_both_modalities_matter_and_all_weights_learn(name: str, inputs: tuple[Array, Array]) -> None:
    fusion = random_fusion(name, 30, 20, 24)
    out = run(fusion, *inputs)
    assert np.abs(run(fusion, inputs[0][::-1].copy(), inputs[1]) - out).max() > 1e-4
    assert np.abs(run(fusion, inputs[0], inputs[1][::-1].copy()) - out).max() > 1e-4
    fusion.train()
    fusion(*map(torch.from_numpy, inputs)).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in fusion.parameters())
    assert sum(bool(p.grad.abs().sum() > 0) for p in fusion.parameters()) > 0.7 * len(list(fusion.parameters()))


def test_an_unknown_fusion_is_refused_with_the_choice() -> None:
    with pytest.raises(ClaspError, match=r"'sum'.*concatenation, gating"):
        build_fusion("sum", 30, 20, 24)
