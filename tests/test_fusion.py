"""Fusions have the released sizes and compute what was released."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from clasp_lib.errors import ClaspError
from clasp_lib.fusion import FUSIONS, GMF, Fusion, Gating, Pooled, Transformer, build_fusion
from clasp_lib.pooling import POOLINGS, Frames, pad_frames

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
        ("gmf", 1024, 1000, 768, 3_333_504 + 2 * 768 * 768 + 768),
        ("sum", 1024, 1000, 768, 3_333_504),  # the two branches
        ("product", 1024, 1000, 768, 3_333_504),
        ("transformer", 1024, 1000, 768, 3_333_504 + 2 * (6 * 768 * 768 + 10 * 768) + 4 * 768 + 768 * 768 + 768),
        ("speech_only", 1024, 1000, 768, 1024 * 768 + 768 * 576 * 2 + 768 + 576 + 768 + 2 * (768 + 576)),
        ("linear", 1024, 1000, 768, 1024 * 768 + 768 + 2 * 1024),
        ("picture_only", 1024, 1000, 768, 1000 * 768 + 768 * 576 * 2 + 768 + 576 + 768 + 2 * (768 + 576)),
        ("attention+linear", 1024, 1000, 768, 1024 + 1024 * 768 + 768 + 2 * 1024),
        ("sparsemax+sum", 1024, 1000, 768, 1024 + 3_333_504),
        ("label_attention+sum", 1024, 1000, 768, 768 * 1024 + 3_333_504),
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


def test_gated_multimodal_fusion_is_its_formula(inputs: tuple[Array, Array]) -> None:
    fusion = random_fusion("gmf", 30, 20, 24)
    assert isinstance(fusion, GMF)
    a, t = branch(fusion.speech_branch, unit(inputs[0])), branch(fusion.picture_branch, unit(inputs[1]))
    gate = sigmoid(linear(fusion.gate)(np.concatenate([a, t], axis=1)))
    np.testing.assert_allclose(run(fusion, *inputs), gate * a + (1 - gate) * t, atol=1e-5)


@pytest.mark.parametrize(("name", "join"), [("sum", np.add), ("product", np.multiply)])
def test_sum_and_product_are_what_they_say(
    name: str, join: Callable[[Array, Array], Array], inputs: tuple[Array, Array]
) -> None:
    fusion = random_fusion(name, 30, 20, 24)
    expected = join(branch(fusion.speech_branch, unit(inputs[0])), branch(fusion.picture_branch, unit(inputs[1])))
    np.testing.assert_allclose(run(fusion, *inputs), expected, atol=1e-5)


def layer_norm(m: torch.nn.Module) -> Callable[[Array], Array]:
    weight, bias = m.weight.detach().numpy(), m.bias.detach().numpy()
    return lambda x: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * weight + bias


def attention(m: torch.nn.Module, x: Array, heads: int) -> Array:
    """Self-attention of the tokens (n, 2, width), one head after the other."""
    weight, bias = m.in_proj_weight.detach().numpy(), m.in_proj_bias.detach().numpy()
    q, k, v = np.split(x @ weight.T + bias, 3, axis=-1)
    found = []
    for part in np.split(np.arange(x.shape[-1]), heads):
        scores = np.exp(q[..., part] @ k[..., part].transpose(0, 2, 1) / np.sqrt(len(part)))
        found.append(scores / scores.sum(-1, keepdims=True) @ v[..., part])
    return linear(m.out_proj)(np.concatenate(found, axis=-1))


def test_the_transformer_is_its_formula(inputs: tuple[Array, Array]) -> None:
    fusion = random_fusion("transformer", 30, 20, 24)
    assert isinstance(fusion, Transformer)
    for p in fusion.layers.parameters():
        p.data += torch.randn_like(p) * 0.2  # norms and biases start at one and zero
    branches = [branch(fusion.speech_branch, unit(inputs[0])), branch(fusion.picture_branch, unit(inputs[1]))]
    x = np.stack(branches, axis=1) + fusion.modalities.detach().numpy()
    first, second, last = fusion.layers
    for layer in (first, second):
        x = x + attention(layer.self_attn, layer_norm(layer.norm1)(x), heads=8)
        x = x + linear(layer.linear2)(np.maximum(linear(layer.linear1)(layer_norm(layer.norm2)(x)), 0))
    expected = linear(fusion.mix)(layer_norm(last)(x).mean(1))
    np.testing.assert_allclose(run(fusion, *inputs), expected, atol=1e-4)
    with torch.enable_grad():  # another path through torch's layers
        slow = fusion(*map(torch.from_numpy, inputs)).detach().numpy()
    np.testing.assert_allclose(slow, expected, atol=1e-4)


def test_the_layers_of_a_transformer_start_apart_and_suit_any_width() -> None:
    fusion = build_fusion("transformer", 5, 4, 14)  # two heads of seven
    assert isinstance(fusion, Transformer)
    first, second, _ = fusion.layers
    assert first.self_attn.num_heads == 2
    assert not torch.equal(first.linear1.weight, second.linear1.weight)
    assert fusion(torch.ones(3, 5), torch.ones(3, 4)).shape == (3, 14)


def test_nothing_is_dropped_from_the_attention_of_two_tokens(inputs: tuple[Array, Array]) -> None:
    fusion = random_fusion("transformer", 30, 20, 24).train()
    for module in fusion.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    first, second = (fusion(*map(torch.from_numpy, inputs)) for _ in range(2))
    torch.testing.assert_close(first, second)


# Gates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gating", "gmf"])
def test_the_gates_that_are_read_are_those_that_are_used(name: str, inputs: tuple[Array, Array]) -> None:
    """The output lies between the two vectors, where the gates say, up to the length that gating gives it."""
    fusion = random_fusion(name, 30, 20, 24)
    assert isinstance(fusion, Gating | GMF)
    speech, picture = map(torch.from_numpy, inputs)
    share, dimensions = fusion.read(speech, picture)
    assert share.shape == (5,) and dimensions.shape == (5, 24)
    assert not share.requires_grad and (dimensions > 0).all() and (dimensions < 1).all()
    with torch.no_grad():
        parts = fusion.weigh(
            fusion.speech_branch(torch.tensor(unit(inputs[0]))), fusion.picture_branch(torch.tensor(unit(inputs[1])))
        )
    between = dimensions * parts.speech + (1 - dimensions) * parts.picture
    total = parts.of_speech + parts.of_picture
    torch.testing.assert_close(torch.from_numpy(run(fusion, *inputs)), total * between)
    torch.testing.assert_close(share, (dimensions * total).sum(1) / total.sum(1))
    torch.testing.assert_close(total.sum(1), torch.full((5,), 24.0 if name == "gmf" else 1.0))


def test_a_gate_that_only_listens_has_a_share_of_one(inputs: tuple[Array, Array]) -> None:
    fusion = random_fusion("gmf", 30, 20, 24)
    assert isinstance(fusion, GMF)
    fusion.gate.weight.data.zero_()
    fusion.gate.bias.data[:] = 50.0
    fusion.gate.bias.data[:6] = -50.0
    share, dimensions = fusion.read(*map(torch.from_numpy, inputs))
    torch.testing.assert_close(share, torch.full((5,), 0.75))
    assert dimensions[0].tolist() == pytest.approx([0.0] * 6 + [1.0] * 18)
    np.testing.assert_allclose(
        run(fusion, *inputs)[:, 6:], branch(fusion.speech_branch, unit(inputs[0]))[:, 6:], atol=1e-5
    )


@pytest.mark.parametrize("name", ["gating", "gmf"])
def test_gates_are_not_read_in_training(name: str, inputs: tuple[Array, Array]) -> None:
    fusion = random_fusion(name, 30, 20, 24).train()
    before = {name: value.clone() for name, value in fusion.state_dict().items()}
    with pytest.raises(ClaspError, match=r"eval\(\)"):
        fusion.read(*map(torch.from_numpy, inputs))  # type: ignore[operator]
    assert all(torch.equal(value, before[name]) for name, value in fusion.state_dict().items())


# Modes -----------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", ["concatenation", "gating", "gmf", "sum", "product", "transformer"])
def test_both_modalities_matter_and_all_weights_learn(name: str, inputs: tuple[Array, Array]) -> None:
    fusion = random_fusion(name, 30, 20, 24)
    out = run(fusion, *inputs)
    assert np.abs(run(fusion, inputs[0][::-1].copy(), inputs[1]) - out).max() > 1e-4
    assert np.abs(run(fusion, inputs[0], inputs[1][::-1].copy()) - out).max() > 1e-4
    fusion.train()
    fusion(*map(torch.from_numpy, inputs)).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in fusion.parameters())
    assert sum(bool(p.grad.abs().sum() > 0) for p in fusion.parameters()) > 0.7 * len(list(fusion.parameters()))


# Frames ----------------------------------------------------------------------------------------------------------


def clips() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(length, 30, generator=generator) + 1 for length in (4, 9, 1, 6, 6)]


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", ["concatenation", "gating", "speech_only"])
def test_a_pooled_fusion_starts_as_the_fusion_of_the_mean(name: str, pooling: str, inputs: tuple[Array, Array]) -> None:
    fusion = random_fusion(f"{pooling}+{name}", 30, 20, 24)
    assert isinstance(fusion, Pooled) and fusion.takes_frames and not fusion.fusion.takes_frames
    assert fusion.config == {"speech_width": 30, "picture_width": 20, "width": 24}
    if pooling.startswith("label"):
        fusion.pooling.set_labels(np.ones((15, 24), np.float32))  # as wide as the text space
    mean = np.stack([clip.mean(0).numpy() for clip in clips()])
    with torch.inference_mode():
        found = fusion(pad_frames(clips()), torch.from_numpy(inputs[1])).numpy()
    np.testing.assert_allclose(found, run(fusion.fusion, mean, inputs[1]), atol=1e-5)


def test_a_pooled_fusion_learns_in_all_its_parts(inputs: tuple[Array, Array]) -> None:
    fusion = random_fusion("attention+gating", 30, 20, 24).train()
    fusion(pad_frames(clips()), torch.from_numpy(inputs[1])).square().sum().backward()
    gradients = {name: float(p.grad.abs().sum()) for name, p in fusion.named_parameters() if p.grad is not None}
    assert gradients.keys() == dict(fusion.named_parameters()).keys()
    assert gradients["pooling.query"] > 0 and gradients["fusion.weight.weight"] > 0


def test_the_batch_does_not_change_a_pooled_vector(inputs: tuple[Array, Array]) -> None:
    fusion = random_fusion("sparsemax+gmf", 30, 20, 24)
    assert isinstance(fusion, Pooled)
    fusion.pooling.query.data.normal_()  # type: ignore[union-attr, operator]
    picture = torch.from_numpy(inputs[1])
    with torch.inference_mode():
        together = fusion(pad_frames(clips()), picture)
        alone = [
            fusion(Frames(clip[None], torch.tensor([len(clip)])), picture[i : i + 1]) for i, clip in enumerate(clips())
        ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


# Names -----------------------------------------------------------------------------------------------------------


def test_no_plain_fusion_takes_frames() -> None:
    assert not any(kind.takes_frames for kind in FUSIONS.values())


@pytest.mark.parametrize(
    "name", ["average", "", "+", "+gating", "attention", "attention+", "mean+gating", "attention+sparsemax+gating"]
)
def test_an_unknown_fusion_is_refused_with_the_choice(name: str) -> None:
    with pytest.raises(ClaspError, match=r"concatenation, gating.*attention, sparsemax") as caught:
        build_fusion(name, 30, 20, 24)
    assert repr(name) in str(caught.value)
