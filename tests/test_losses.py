"""Losses against formulations of their own, and the reference's temperature defect as it is."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.nn.functional import cross_entropy, normalize

from clasp_lib.errors import ClaspError
from clasp_lib.losses import (
    LOSSES,
    AugmentationLoss,
    CombinedLoss,
    ContrastiveLoss,
    CosineLoss,
    HardNegativeLoss,
    HuberLoss,
    LabelAnchoredLoss,
    Loss,
    MaskedContrastiveLoss,
    SigmoidLoss,
    SquaredLoss,
    build_loss,
)


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


def columns_for(loss: Loss, n: int, width: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """What the loss needs, seeded: three texts occur twice, four categories."""
    rng = np.random.default_rng(1)
    every = {
        "sentences": torch.arange(n) % max(1, n - 3),
        "categories": torch.arange(n) % 4,
        "negatives": torch.tensor(rng.standard_normal((n, 2, width)), dtype=dtype),
        "other": torch.tensor(rng.standard_normal((n, width)), dtype=dtype),
    }
    return {name: every[name] for name in loss.needs}


def test_each_name_builds_a_loss_that_says_what_it_needs() -> None:
    needs = {name: build_loss(name, 8).needs for name in LOSSES}
    assert needs == {
        "contrastive": (),
        "contrastive_fixed": (),
        "contrastive_inverted": (),
        "contrastive_masked": ("sentences",),
        "hard_negatives": ("negatives",),
        "sigmoid": (),
        "huber": (),
        "mse": (),
        "cosine": (),
        "huber_contrastive": (),
        "label_anchored": ("categories",),
        "augmentation": ("other",),
        "contrastive_augmentation": ("other",),
    }
    assert build_loss("contrastive", 8).logit_scale.requires_grad
    assert not build_loss("contrastive_fixed", 8).logit_scale.requires_grad
    assert build_loss("contrastive_inverted", 8).logit_scale.exp().item() == pytest.approx(0.07)


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradients_of_every_loss_are_those_of_finite_differences(
    pairs: tuple[np.ndarray, np.ndarray], name: str
) -> None:
    loss = build_loss(name, 5, 4).double()
    speech, text = tensors(tuple(x[:6, :5] for x in pairs), torch.float64)
    columns = columns_for(loss, 6, 5, torch.float64)
    floats = {key: c.requires_grad_() for key, c in columns.items() if c.is_floating_point()}
    learned = {key: p for key, p in loss.named_parameters() if p.requires_grad}

    def value(*numbers: torch.Tensor) -> torch.Tensor:
        parameters = dict(zip(learned, numbers[2 + len(floats) :]))
        return functional_call(loss, parameters, numbers[:2], columns | dict(zip(floats, numbers[2:])))

    inputs = (speech, text, *floats.values(), *learned.values())
    assert value(*inputs).dtype == torch.float64 and value(*inputs).ndim == 0
    assert torch.autograd.gradcheck(value, inputs)


@pytest.mark.parametrize("name", LOSSES)
def test_halved_precision_is_computed_in_full(pairs: tuple[np.ndarray, np.ndarray], name: str) -> None:
    loss = build_loss(name, 12, 4)
    halves = [torch.tensor(x).to(torch.bfloat16) for x in pairs]
    columns = columns_for(loss, 16, 12, torch.bfloat16)
    in_full = {key: c.float() if c.is_floating_point() else c for key, c in columns.items()}
    value = loss(*(h.float() for h in halves), **in_full)
    assert loss(*halves, **columns).dtype == torch.float32
    assert torch.equal(loss(*halves, **columns), value)
    with torch.autocast("cpu", torch.bfloat16):  # the training's own mixed precision does not reach into it
        assert torch.equal(loss(*(h.float() for h in halves), **in_full), value)
    doubled = loss(*(h.double() for h in halves), **columns)  # and the parameters are still in single precision
    assert doubled.dtype == torch.float64 and doubled.item() == pytest.approx(value.item(), rel=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_waits_for_the_gpu_to_read_a_value(name: str) -> None:
    """Fake tensors have shapes and no values: whoever asks for one fails."""
    with FakeTensorMode():
        loss, vectors = build_loss(name, 12, 4), torch.ones(16, 12, requires_grad=True)
        loss(vectors, vectors, **columns_for(loss, 16, 12)).backward()
    assert vectors.grad is not None and vectors.grad.shape == (16, 12)


@pytest.mark.skipif(torch.version.cuda is None, reason="this build of torch knows no GPU")
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_makes_all_that_it_needs_where_its_inputs_are(name: str) -> None:
    """Fake tensors of a GPU need none, and do not mix with those of the CPU."""
    with FakeTensorMode():
        loss, vectors = build_loss(name, 12, 4), torch.ones(16, 12, device="cuda")
        learned = {key: torch.ones(p.shape, device="cuda") for key, p in loss.named_parameters()}
        columns = {key: c.to("cuda") for key, c in columns_for(loss, 16, 12).items()}
        assert functional_call(loss, learned, (vectors, vectors), columns).device.type == "cuda"


def test_the_contrastive_loss_and_its_gradients_are_open_clips(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    """The formulation of open_clip: two matrices of logits, two cross-entropies, half their sum."""
    loss = ContrastiveLoss().double()
    inputs = [*tensors(pairs, torch.float64), loss.logit_scale]
    image, words = (normalize(x, dim=-1) for x in inputs[:2])
    scale, labels = loss.logit_scale.exp(), torch.arange(16)
    logits_per_image, logits_per_text = scale * image @ words.T, scale * words @ image.T
    expected = (cross_entropy(logits_per_image, labels) + cross_entropy(logits_per_text, labels)) / 2
    value = loss(*inputs[:2])
    assert value.item() == pytest.approx(expected.item(), abs=1e-12)
    for one, two in zip(torch.autograd.grad(value, inputs), torch.autograd.grad(expected, inputs)):
        torch.testing.assert_close(one, two, atol=1e-12, rtol=1e-9)
    assert ContrastiveLoss()(*tensors(pairs)).item() == pytest.approx(expected.item(), abs=1e-6)


def test_clips_of_the_same_text_are_no_negatives_of_each_other(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    speech, text = tensors(pairs, torch.float64)
    loss, plain = MaskedContrastiveLoss().double(), ContrastiveLoss().double()
    distinct = torch.arange(16).flip(0)
    assert loss(speech, text, sentences=distinct).item() == pytest.approx(plain(speech, text).item(), abs=1e-12)

    sentences = np.array([7, 1, 2, 7, 4, 5, 1, 7, 8, 9, 10, 11, 12, 13, 14, 15])
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in pairs)
    logits, total = a @ b.T / 0.07, 0.0
    for i in range(16):
        wrong = [j for j in range(16) if sentences[j] != sentences[i]]
        for line in (logits[i], logits[:, i]):
            total += math.log(np.exp(line[[i, *wrong]]).sum()) - line[i]
    value = loss(speech, text, sentences=torch.tensor(sentences))
    assert value.item() == pytest.approx(total / 32, rel=1e-6)
    assert value.item() < plain(speech, text).item()
    one = loss(speech, text, sentences=torch.zeros(16, dtype=torch.int64))
    assert one.item() == 0  # all texts are the same: nothing is left to be wrong
    assert all(grad.abs().max() == 0 for grad in torch.autograd.grad(one, [speech, text]))


def test_hard_negatives_count_for_their_own_clip_only(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    loss = HardNegativeLoss().double()
    negatives = columns_for(loss, 16, 12, torch.float64)["negatives"]
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in pairs)
    wrong = negatives.numpy() / np.linalg.norm(negatives.numpy(), axis=2, keepdims=True)
    rows, columns = [], a @ b.T / 0.07
    for i in range(16):
        row = np.concatenate([a[i] @ b.T, wrong[i] @ a[i]]) / 0.07  # (16 + 2,)
        rows.append(math.log(np.exp(row).sum()) - row[i])
    expected = (np.mean(rows) + cross_entropy_of_the_diagonal(columns.T)) / 2
    assert loss(*tensors(pairs, torch.float64), negatives=negatives).item() == pytest.approx(expected, rel=1e-6)


def test_the_loss_falls_as_a_hard_negative_moves_away() -> None:
    speech = text = torch.eye(3, 4)
    loss, values = HardNegativeLoss(1.0), []
    for angle in (0.0, 0.5, 1.0, math.pi / 2, math.pi):
        negatives = text[:, None].clone()  # (3, 1, 4)
        negatives[0, 0] = torch.tensor([math.cos(angle), 0.0, 0.0, math.sin(angle)])
        values.append(loss(speech, text, negatives=negatives).item())
    assert values == sorted(values, reverse=True) and len(set(values)) == 5
    assert values[-1] > ContrastiveLoss(1.0)(speech, text).item()


def test_the_sigmoid_loss_asks_of_every_pair_alone(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in pairs)
    total = 0.0
    for i in range(16):
        for j in range(16):
            probability = 1 / (1 + math.exp(-(10 * a[i] @ b[j] - 10)))  # exp(ln 10) and the bias at the start
            total -= math.log(probability if i == j else 1 - probability)
    loss = SigmoidLoss()
    assert loss(*tensors(pairs)).item() == pytest.approx(total / 16, rel=1e-5)
    assert loss.logit_scale.item() == pytest.approx(math.log(10)) and loss.logit_bias.item() == -10
    assert [name for name, p in loss.named_parameters() if p.requires_grad] == ["logit_scale", "logit_bias"]


def test_the_squared_and_the_cosine_loss_by_hand() -> None:
    speech = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    text = torch.tensor([[6.0, 8.0], [0.0, -2.0]])
    assert SquaredLoss()(speech, text).item() == pytest.approx((9 + 16 + 1 + 4) / 4)
    assert CosineLoss()(speech, text).item() == pytest.approx((0 + 1) / 2)
    assert CosineLoss()(speech, -speech).item() == pytest.approx(2)
    units = [normalize(x, dim=-1) for x in (speech, text)]
    assert CosineLoss()(*units).item() == pytest.approx(2 / 2 * SquaredLoss()(*units).item(), rel=1e-5)
    assert HuberLoss(2.0)(*units).item() == pytest.approx(SquaredLoss()(*units).item() / 2, rel=1e-5)


def label_anchored_by_hand(speech: np.ndarray, labels: np.ndarray, categories: list[int]) -> tuple[float, float, float]:
    """Equations 3, 5 and 6 in loops, at temperature 0.1: instance-centred, label-centred, regulariser."""
    sim = lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b)  # noqa: E731
    n, c = len(speech), len(labels)
    e = np.exp([[sim(speech[i], labels[p]) / 0.1 for p in range(c)] for i in range(n)])  # (n, c)
    by_clip = -sum(math.log(e[i, categories[i]] / e[i].sum()) for i in range(n)) / n
    by_label = 0.0
    for p in set(categories):
        apart = sum(e[b, p] for b in range(n) if categories[b] != p)
        by_label -= sum(math.log(e[a, p] / apart) for a in range(n) if categories[a] == p)
    terms = [math.exp(1 + sim(labels[i], labels[j])) - 1 for i in range(c) for j in range(c) if i != j]
    return by_clip, by_label / len(set(categories)), sum(terms) / len(terms)


@pytest.mark.parametrize("categories", [[0, 1, 2, 1], [0, 0, 2, 2]])
def test_label_anchors_by_hand_on_three_labels(categories: list[int]) -> None:
    loss = LabelAnchoredLoss(2, 3, temperature=0.1, spread=0.5).double()
    labels = np.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    loss.labels.data = torch.tensor(labels)
    speech = np.array([[0.9, 0.1], [0.2, 0.7], [-0.5, 0.5], [1.0, 1.0]])
    by_clip, by_label, apart = label_anchored_by_hand(speech, labels, categories)
    assert apart == pytest.approx((4 * (math.e - 1) + 2 * 0) / 6)  # four right angles and two opposites
    given = torch.tensor(speech)
    value = loss(given, torch.zeros_like(given), categories=torch.tensor(categories)).item()
    assert value == pytest.approx(by_clip + by_label + 0.5 * apart, rel=1e-9)


def test_a_batch_of_one_category_leaves_the_label_centred_term_out() -> None:
    loss = LabelAnchoredLoss(4, 3)
    speech = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = loss(speech, speech.detach(), categories=torch.ones(5, dtype=torch.int64))
    scores = normalize(speech, dim=-1) @ normalize(loss.labels, dim=-1).T / 0.1
    labels = normalize(loss.labels, dim=-1)
    apart = (torch.expm1(1 + labels @ labels.T).sum() - 3 * math.expm1(2)) / 6
    expected = cross_entropy(scores, torch.ones(5, dtype=torch.int64)) + 0.5 * apart
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    inputs = [speech, loss.labels]
    for one, two in zip(torch.autograd.grad(value, inputs), torch.autograd.grad(expected, inputs)):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


def test_label_anchors_begin_alike_everywhere_and_draw_from_nobodys_random_numbers() -> None:
    torch.manual_seed(1)
    one, drawn = LabelAnchoredLoss(6, 5).labels, torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn)
    assert torch.equal(one, LabelAnchoredLoss(6, 5).labels)
    torch.testing.assert_close(one.norm(dim=1), torch.ones(5))


def test_the_augmentation_loss_finds_the_other_version(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    speech, other = pairs
    z = np.concatenate([speech, other])
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    total = 0.0
    for i in range(32):
        e = np.exp(z @ z[i] / 0.1)
        total -= math.log(e[(i + 16) % 32] / (e.sum() - e[i]))
    one, two = tensors(pairs)
    loss, nothing = AugmentationLoss(), torch.zeros(16, 12)
    assert loss(one, nothing, other=two).item() == pytest.approx(total / 32, rel=1e-5)
    assert loss(two, one, other=one).item() == pytest.approx(total / 32, rel=1e-5)  # text is not used, order is nothing


def test_a_combined_loss_is_the_weighted_sum(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    speech, text = tensors(pairs)
    terms = [(2.0, HardNegativeLoss()), (0.5, AugmentationLoss()), (3.0, HardNegativeLoss(1.0)), (1, HuberLoss())]
    loss = CombinedLoss(*terms)
    assert loss.needs == ("negatives", "other")
    assert len(list(loss.parameters())) == 2  # both temperatures are trained
    columns = columns_for(loss, 16, 12)
    parts = [w * term(speech, text, **{k: columns[k] for k in term.needs}).item() for w, term in terms]
    assert loss(speech, text, **columns).item() == pytest.approx(sum(parts), rel=1e-6)
    nested = CombinedLoss((1, loss), (1, MaskedContrastiveLoss()))
    assert nested.needs == ("negatives", "other", "sentences")
    value = nested(speech, text, sentences=torch.arange(16), **columns).item()
    assert value == pytest.approx(sum(parts) + ContrastiveLoss()(speech, text).item(), rel=1e-6)


def test_huber_beside_contrast_counts_as_a_sum_over_dimensions(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    speech, text = tensors(pairs)
    expected = ContrastiveLoss()(speech, text) + 12 * HuberLoss()(speech, text)
    torch.testing.assert_close(build_loss("huber_contrastive", 12)(speech, text), expected)


N_D = torch.ones(4, 3)


@pytest.mark.parametrize(
    ("loss", "speech", "text", "columns", "message"),
    [
        (ContrastiveLoss(), N_D, N_D[:3], {}, r"speech has shape \(4, 3\), text \(3, 3\)"),
        (HuberLoss(), N_D, N_D[:, :1], {}, "both must be"),  # PyTorch alone would stretch it
        (CosineLoss(), N_D[0], N_D[0], {}, "both must be"),
        (SigmoidLoss(), N_D[:0], N_D[:0], {}, "at least one row"),
        (
            MaskedContrastiveLoss(),
            N_D,
            N_D,
            {},
            r"MaskedContrastiveLoss needs the columns \(sentences\) and got \(none",
        ),
        (
            ContrastiveLoss(),
            N_D,
            N_D,
            {"sentence": torch.arange(4)},
            r"needs the columns \(none\) and got \(sentence\)",
        ),
        (MaskedContrastiveLoss(), N_D, N_D, {"sentences": torch.arange(3)}, r"sentences has shape \(3,\)"),
        (MaskedContrastiveLoss(), N_D, N_D, {"sentences": torch.ones(4)}, "sentences is of torch.float32"),
        (LabelAnchoredLoss(3), N_D, N_D, {"categories": torch.ones(4, 1).long()}, r"must be \(4,\)"),
        (HardNegativeLoss(), N_D, N_D, {"negatives": N_D}, r"must be \(4, 1, 3\)"),
        (HardNegativeLoss(), N_D, N_D, {"negatives": torch.ones(4, 0, 3)}, r"must be \(4, 1, 3\)"),
        (HardNegativeLoss(), N_D, N_D, {"negatives": torch.ones(4, 5, 2)}, r"must be \(4, 5, 3\)"),
        (AugmentationLoss(), N_D, N_D, {"other": N_D[:2]}, r"other has shape \(2, 3\)"),
        (AugmentationLoss(), N_D, N_D, {"other": N_D.long()}, "vectors are floats"),
    ],
)
def test_what_does_not_fit_is_refused(
    loss: Loss, speech: torch.Tensor, text: torch.Tensor, columns: dict[str, torch.Tensor], message: str
) -> None:
    with pytest.raises(ClaspError, match=message):
        loss(speech, text, **columns)


def test_unknown_names_and_impossible_settings_are_refused() -> None:
    with pytest.raises(ClaspError, match=r"'triplet' is not known. Choose from contrastive, .*sigmoid"):
        build_loss("triplet", 8)
    with pytest.raises(ClaspError, match="width 0"):
        build_loss("mse", 0)
    with pytest.raises(ClaspError, match="categories 1"):
        build_loss("label_anchored", 8, categories=1)
    for build in (AugmentationLoss, lambda t: LabelAnchoredLoss(2, 2, t), HuberLoss):
        for value in (0, -1, math.inf, math.nan):
            with pytest.raises(ClaspError, match="above 0"):
                build(value)
    with pytest.raises(ClaspError, match="weight 0"):
        CombinedLoss((0, HuberLoss()))
    with pytest.raises(ClaspError, match="at least one term"):
        CombinedLoss()


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("label_anchored", lambda: [(1, ContrastiveLoss()), (0.1, LabelAnchoredLoss(12, 4))]),
        ("contrastive_augmentation", lambda: [(1, ContrastiveLoss()), (1, AugmentationLoss())]),
    ],
)
def test_the_combinations_weigh_their_terms_as_the_table_says(
    pairs: tuple[np.ndarray, np.ndarray], name: str, terms: Callable[[], list[tuple[float, Loss]]]
) -> None:
    speech, text = tensors(pairs)
    loss = build_loss(name, 12, 4)
    columns = columns_for(loss, 16, 12)
    parts = [w * term(speech, text, **{k: columns[k] for k in term.needs}).item() for w, term in terms()]
    assert loss(speech, text, **columns).item() == pytest.approx(sum(parts), rel=1e-6)


def test_there_are_as_many_labels_as_brown_has_categories_unless_told_otherwise() -> None:
    assert LabelAnchoredLoss(3).labels.shape == (15, 3)
    assert LabelAnchoredLoss(1, 2).labels.shape == (2, 1)  # the least that there can be
    for given, count in (((), 15), ((4,), 4)):
        assert build_loss("label_anchored", 8, *given).losses[1].labels.shape == (count, 8)
    assert build_loss("mse", 1)(torch.ones(1, 1), torch.zeros(1, 1)).item() == 1


class Weighted(Loss):
    """What somebody may write outside: a column of a name of its own, of any shape and kind."""

    needs = ("weights", "kinds")

    def compute(
        self, speech: torch.Tensor, text: torch.Tensor, weights: torch.Tensor, kinds: torch.Tensor
    ) -> torch.Tensor:
        self.seen = speech.dtype, text.dtype, weights.dtype, kinds.dtype
        return (weights * kinds * (speech - text).square().sum(1)).sum()


def test_a_loss_may_ask_for_columns_of_its_own() -> None:
    loss, kinds = Weighted(), torch.tensor([0, 1, 1, 0])
    weights = torch.tensor([[0.5, 2.0, 4.0, 0.0]], dtype=torch.float16)
    value = loss(N_D, N_D - 1, weights=weights, kinds=kinds)
    assert value.item() == 3 * (2 + 4)
    assert loss.seen == (torch.float32, torch.float32, torch.float32, torch.int64)
    for one, two in ((torch.float64, torch.float32), (torch.float32, torch.float64)):
        loss(N_D.to(one), N_D.to(two), weights=weights, kinds=kinds)
        assert loss.seen == (torch.float64, torch.float64, torch.float64, torch.int64)
    with pytest.raises(ClaspError, match=r"Weighted needs the columns \(weights, kinds\) and got \(weights, others\)"):
        loss(N_D, N_D, weights=weights, others=kinds)


def test_a_setting_that_is_refused_is_named() -> None:
    for name, build in (
        ("temperature", ContrastiveLoss),
        ("temperature", AugmentationLoss),
        ("temperature", lambda value: LabelAnchoredLoss(2, 2, value)),
        ("spread", lambda value: LabelAnchoredLoss(2, 2, 1, value)),
        ("delta", HuberLoss),
        ("weight", lambda value: CombinedLoss((1, HuberLoss()), (value, HuberLoss()))),
    ):
        with pytest.raises(ClaspError, match=f"^{name} -2: must be above 0"):
            build(-2)
    with pytest.raises(ClaspError, match="width 0, categories 3"):
        LabelAnchoredLoss(0, 3)


def test_huber_by_hand() -> None:
    speech = torch.tensor([[0.0, 0.5], [2.0, -1.0]])
    text = torch.tensor([[0.3, 0.5], [0.0, 0.0]])
    # |0.3| and 0 are below delta: d^2 / 2; |2| and |-1| are above: 0.6 (|d| - 0.3)
    expected = (0.3**2 / 2 + 0 + 0.6 * (2 - 0.3) + 0.6 * (1 - 0.3)) / 4
    assert HuberLoss(0.6)(speech, text).item() == pytest.approx(expected)
    assert HuberLoss()(speech, text).item() == pytest.approx(expected)  # the reference's delta is the default
    assert HuberLoss()(2 * text, text).item() > 0  # the length counts: nothing is normalised
