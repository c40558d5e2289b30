"""Poolings start as the mean, learn which frames count, and never read what stands after a clip's end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, minimize

from clasp_lib.errors import ClaspError
from clasp_lib.pooling import (
    POOLINGS,
    AttentionPooling,
    Frames,
    LabelAttentionPooling,
    Pooling,
    pad_frames,
    softmax,
    sparsemax,
)

WIDTH, LABEL_WIDTH = 6, 5


def clips(*lengths: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(length, WIDTH, generator=generator, dtype=torch.float64).to(dtype) for length in lengths]


def fresh(name: str) -> Pooling:
    """A pooling as training would get it."""
    pooling = POOLINGS[name](WIDTH, LABEL_WIDTH)
    if isinstance(pooling, LabelAttentionPooling):
        pooling.set_labels(1 + np.random.default_rng(1).normal(0, 0.3, (3, LABEL_WIDTH)))  # alike, as names are
    return pooling


def learned(name: str) -> Pooling:
    """One with queries that make a difference."""
    pooling = fresh(name)
    generator = torch.Generator().manual_seed(2)
    for parameter in pooling.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 2
    return pooling


def everywhere(scores: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(scores, dtype=torch.bool)


# Frames ------------------------------------------------------------------------------------------------------------


def test_shorter_clips_are_filled_up_with_zeros() -> None:
    first, second = torch.ones(1, WIDTH), torch.full((3, WIDTH), 2.0)
    values, lengths = pad_frames([first, second]).to(torch.device("cpu"))
    assert values.tolist() == [[[1.0] * WIDTH, [0.0] * WIDTH, [0.0] * WIDTH], [[2.0] * WIDTH] * 3]
    assert lengths.tolist() == [1, 3] and lengths.dtype == torch.int64


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "no clips"),
        ([torch.ones(2, WIDTH), torch.ones(0, WIDTH)], r"clip 1 has shape \(0, 6\)"),
        ([torch.ones(2, WIDTH), torch.ones(2, 7)], r"clip 1 has shape \(2, 7\).*\(t, 6\)"),
        ([torch.ones(WIDTH)], r"clip 0 has shape \(6,\)"),
    ],
)
def test_clips_that_cannot_be_put_together_are_refused(bad: list[torch.Tensor], message: str) -> None:
    with pytest.raises(ClaspError, match=message):
        pad_frames(bad)


# Sparsemax ---------------------------------------------------------------------------------------------------------


def projected(scores: np.ndarray) -> np.ndarray:
    """The nearest point of the simplex, by searching for the threshold."""

    def excess(threshold: float) -> float:
        return np.maximum(scores - threshold, 0).sum() - 1

    return np.maximum(scores - brentq(excess, scores.max() - 1, scores.max(), xtol=1e-14), 0)


def test_sparsemax_is_the_nearest_point_of_the_simplex() -> None:
    rng = np.random.default_rng(0)
    for scale in (0.01, 0.3, 1, 10, 1000):
        scores = rng.standard_normal((20, 9)) * scale
        scores[:, 3] = scores[:, 2]  # ties
        found = sparsemax(torch.from_numpy(scores), everywhere(torch.from_numpy(scores))).numpy()
        np.testing.assert_allclose(found, [projected(row) for row in scores], atol=1e-9)
        np.testing.assert_allclose(found.sum(-1), 1, atol=1e-9)
    one = rng.standard_normal(4)
    nearest = minimize(
        lambda p: ((p - one) ** 2).sum(),
        np.full(4, 0.25),
        bounds=[(0, 1)] * 4,
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
        tol=1e-12,
    ).x
    np.testing.assert_allclose(sparsemax(torch.from_numpy(one), everywhere(torch.from_numpy(one))), nearest, atol=1e-6)


def test_sparsemax_has_the_values_worked_out_by_hand() -> None:
    scores = torch.tensor([[1.0, 0.8, 0.1], [2.0, 0.5, 0.0], [5.0, 5.0, 5.0]])
    expected = torch.tensor([[0.6, 0.4, 0.0], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    torch.testing.assert_close(sparsemax(scores, everywhere(scores)), expected)
    large = torch.tensor([[1e30, 1e30, -1e30]])
    torch.testing.assert_close(sparsemax(large, everywhere(large)), torch.tensor([[0.5, 0.5, 0.0]]))


@pytest.mark.parametrize("normalise", [softmax, sparsemax])
def test_a_masked_score_is_as_one_that_is_not_there(normalise: Any) -> None:
    scores = torch.tensor([[[0.3, 9.0, -0.2, 0.5, 99.0]]])
    mask = torch.tensor([True, False, True, True, False])
    found = normalise(scores, mask)
    assert found[..., ~mask].tolist() == [[[0.0, 0.0]]]
    torch.testing.assert_close(found[..., mask], normalise(scores[..., mask], mask[mask]))


def test_the_gradient_of_sparsemax_is_right() -> None:
    scores = torch.tensor(np.random.default_rng(3).normal(0, 0.3, (6, 7)), requires_grad=True)
    mask = torch.arange(7) < torch.tensor([7, 7, 5, 4, 2, 1])[:, None]
    assert torch.autograd.gradcheck(lambda x: sparsemax(x, mask), scores)
    kept = int((sparsemax(scores, mask)[0] > 0).sum())
    assert 1 < kept < 7  # both sides of the threshold were tried


# Poolings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POOLINGS)
def test_a_fresh_pooling_is_the_mean_over_time(name: str) -> None:
    parts = clips(5, 1, 400)
    mean = torch.stack([clip.mean(0) for clip in parts])
    torch.testing.assert_close(fresh(name)(pad_frames(parts)), mean, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", POOLINGS)
def test_a_pooling_is_its_formula(name: str) -> None:
    pooling = learned(name)
    queries = pooling.query.weight if isinstance(pooling, LabelAttentionPooling) else pooling.query
    queries = queries.detach().numpy()  # type: ignore[union-attr, operator]
    if isinstance(pooling, LabelAttentionPooling):
        queries = pooling.labels.numpy() @ queries.T
    for clip in clips(7, 2):
        frames, results = clip.numpy(), []
        for query in queries:
            scores = frames @ query / np.sqrt(WIDTH)
            weights = projected(scores) if "sparsemax" in name else np.exp(scores) / np.exp(scores).sum()
            results.append(weights @ frames)
        found = pooling(pad_frames([clip])).detach().numpy()
        np.testing.assert_allclose(found, [np.mean(results, axis=0)], atol=1e-5)
        assert np.abs(found - frames.mean(0)).max() > 0.05


@pytest.mark.parametrize("name", POOLINGS)
def test_what_stands_after_a_clip_is_not_read(name: str) -> None:
    pooling, parts = learned(name), clips(3, 8, 5)
    values, lengths = pad_frames(parts)
    alone = torch.cat([pooling(pad_frames([clip])) for clip in parts])
    torch.testing.assert_close(pooling(Frames(values, lengths)), alone, atol=1e-6, rtol=1e-6)
    after = torch.arange(values.shape[1]) >= lengths[:, None]
    noisy = torch.where(after[:, :, None], torch.randn_like(values) * 1e4, values)
    torch.testing.assert_close(pooling(Frames(noisy, lengths)), alone, atol=1e-6, rtol=1e-6)
    longer = torch.nn.functional.pad(values, (0, 0, 0, 50))
    torch.testing.assert_close(pooling(Frames(longer, lengths)), alone, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", POOLINGS)
def test_the_weights_can_be_read(name: str) -> None:
    pooling, frames = learned(name), pad_frames(clips(3, 8))
    weights = pooling.weights(frames).detach()
    assert weights.shape == (2, 3 if name.startswith("label") else 1, 8)
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]))
    assert (weights >= 0).all() and (weights[0, :, 3:] == 0).all()
    assert bool((weights[1] == 0).any()) == ("sparsemax" in name)
    torch.testing.assert_close(torch.einsum("nqt,ntw->nw", weights, frames.values) / weights.shape[1], pooling(frames))


@pytest.mark.parametrize("name", POOLINGS)
def test_the_gradient_of_a_pooling_is_right(name: str) -> None:
    pooling = learned(name).double()
    values, lengths = pad_frames(clips(4, 2, dtype=torch.float64))
    names, parameters = zip(*pooling.named_parameters(), strict=True)

    def pooled(values: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(pooling, dict(zip(names, given, strict=True)), (Frames(values, lengths),))

    assert torch.autograd.gradcheck(pooled, (values.requires_grad_(), *parameters))


@pytest.mark.parametrize("name", POOLINGS)
def test_a_fresh_pooling_can_learn_which_frame_counts(name: str) -> None:
    """The first frame of each clip is marked, and it alone says what is wanted."""
    pooling = fresh(name)
    torch.manual_seed(0)
    values = torch.randn(32, 6, WIDTH)
    values[:, :, 0] = 0
    values[:, 0, 0] = 8.0
    frames = Frames(values, torch.full((32,), 6))
    optimizer = torch.optim.Adam(pooling.parameters(), 0.1)
    for _ in range(100):
        error = (pooling(frames) - values[:, 0])[:, 1:].square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    assert pooling.weights(frames).mean(dim=(0, 1))[0] > 0.9


def test_half_precision_is_pooled_in_single_precision() -> None:
    pooling, (clip,) = learned("attention"), clips(300)
    half = clip.half()
    expected = pooling(pad_frames([half.float()]))
    torch.testing.assert_close(pooling(pad_frames([half])), expected)
    with torch.autocast("cpu", torch.bfloat16):
        pooled = pooling(pad_frames([clip]))
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, pooling(pad_frames([clip])))


# Labels ------------------------------------------------------------------------------------------------------------


def test_labels_are_saved_with_the_weights_however_many_there_are() -> None:
    pooling = learned("label_attention")
    other = LabelAttentionPooling(WIDTH, LABEL_WIDTH)
    other.set_labels(torch.ones(7, LABEL_WIDTH))
    other.load_state_dict(pooling.state_dict())
    frames = pad_frames(clips(4))
    torch.testing.assert_close(other(frames), pooling(frames))
    assert other.labels.shape == (3, LABEL_WIDTH)
    assert [name for name, _ in other.named_parameters()] == ["query.weight"]
    with pytest.raises(RuntimeError, match="size mismatch for labels"):
        LabelAttentionPooling(WIDTH, 4).load_state_dict(pooling.state_dict())
    empty = LabelAttentionPooling(WIDTH, LABEL_WIDTH)
    other.load_state_dict(empty.state_dict())
    assert other.labels.shape == (0, LABEL_WIDTH)


def test_given_labels_are_not_shared_with_the_giver() -> None:
    pooling, vectors = LabelAttentionPooling(WIDTH, LABEL_WIDTH), np.ones((2, LABEL_WIDTH), np.float32)
    pooling.set_labels(vectors)
    vectors[:] = 5
    assert pooling.labels.tolist() == [[1.0] * LABEL_WIDTH] * 2


@pytest.mark.parametrize(
    "bad",
    [
        np.ones((3, 4)),
        np.ones(LABEL_WIDTH),
        np.ones((0, LABEL_WIDTH)),
        np.full((3, LABEL_WIDTH), np.nan),
        ["news", "humor"],
    ],
)
def test_labels_that_cannot_be_used_are_refused(bad: Any) -> None:
    pooling = LabelAttentionPooling(WIDTH, LABEL_WIDTH)
    with pytest.raises(ClaspError, match=r"set_labels.*\(labels, 5\)"):
        pooling.set_labels(bad)
    with pytest.raises(ClaspError, match="no labels yet"):
        pooling(pad_frames(clips(3)))


# What is refused ---------------------------------------------------------------------------------------------------


def test_a_normaliser_that_is_not_known_is_refused() -> None:
    with pytest.raises(ClaspError, match=r"'hardmax'.*softmax, sparsemax"):
        AttentionPooling(WIDTH, "hardmax")  # type: ignore[arg-type]


def test_what_are_not_frames_of_this_width_is_refused() -> None:
    pooling = AttentionPooling(WIDTH)
    with pytest.raises(ClaspError, match=r"Tensor.*pad_frames"):
        pooling(torch.ones(3, WIDTH))
    with pytest.raises(ClaspError, match=r"\(2, 4, 7\); expected \(n, t, 6\)"):
        pooling(Frames(torch.ones(2, 4, 7), torch.tensor([4, 4])))
