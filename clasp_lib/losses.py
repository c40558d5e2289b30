"""What training minimises: `loss(speech, text, **columns)`, row by row a pair.

A new loss is a subclass of `Loss` that defines `compute`, and one line in `LOSSES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

from clasp_lib.errors import ClaspError


class Loss(nn.Module):
    """Base of all losses: `forward` checks and casts what it gets and calls `compute`, which a subclass defines.

    Inputs, for a batch of n pairs:
    - speech: (n, d), the fused vectors, not normalised;
    - text: (n, d), the vectors of the texts that the clips should be found by, not normalised;
    - columns: exactly those that `needs` names, as keyword arguments:
      - `sentences` (n,) integers: equal numbers are the same text;
      - `categories` (n,) integers from 0: the number of the clip's category;
      - `negatives` (n, k, d): vectors of k wrong versions of each text (`clasp_lib.hard_negatives`);
      - `other` (n, d): the fused vectors of another take or augmentation of the same clips.

    The value is a scalar in float32, whatever the precision around it; float64 stays as it is. A loss knows nothing of
    processes: where there are several, all rows are gathered first.
    """

    needs: tuple[str, ...] = ()
    compute: Callable[..., torch.Tensor]  # (speech, text, one argument for each of `needs`) -> scalar

    def forward(self, speech: torch.Tensor, text: torch.Tensor, **columns: torch.Tensor) -> torch.Tensor:
        """Speech and text (n, d), columns as above -> scalar.

        Raises:
            ClaspError: shapes that do not fit, a column that is missing, or one that was not asked for.
        """
        if speech.ndim != 2 or speech.shape != text.shape or speech.numel() == 0:
            raise ClaspError(
                f"speech has shape {tuple(speech.shape)}, text {tuple(text.shape)}; both must be (n, d), "
                "row by row a pair, with at least one row."
            )
        name = type(self).__name__
        if set(columns) != set(self.needs):
            given = ", ".join(columns) or "none"
            raise ClaspError(f"{name} needs the columns ({', '.join(self.needs) or 'none'}) and got ({given}).")
        for key, column in columns.items():
            _check_column(key, column, *speech.shape)
        precision = torch.float64 if torch.float64 in (speech.dtype, text.dtype) else torch.float32
        vectors = {key: c.to(precision) if c.is_floating_point() else c for key, c in columns.items()}
        with torch.autocast(speech.device.type, enabled=False):  # else its products are rounded to half precision
            return self.compute(speech.to(precision), text.to(precision), **vectors)


def _check_column(name: str, column: torch.Tensor, n: int, width: int) -> None:
    """Shape and kind only: values would have to be fetched from the GPU."""
    k = column.shape[1] if column.ndim == 3 else 1
    expected = {"sentences": (n,), "categories": (n,), "negatives": (n, max(k, 1), width), "other": (n, width)}
    if tuple(column.shape) != expected.get(name, tuple(column.shape)):
        raise ClaspError(f"{name} has shape {tuple(column.shape)}; for this batch it must be {expected[name]}.")
    if name in expected and column.is_floating_point() != (name in ("negatives", "other")):
        raise ClaspError(f"{name} is of {column.dtype}; numbers that identify are integers, vectors are floats.")


def similarity(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    """Cosines of all rows of one (n, d) and two (m, d) -> (n, m)."""
    return functional.normalize(one, dim=-1) @ functional.normalize(two, dim=-1).T


def cross_entropy_of_diagonal(logits: torch.Tensor) -> torch.Tensor:
    """Mean of -log softmax of each row (n, m) at its own number: row i's right answer is column i."""
    return functional.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


class ContrastiveLoss(Loss):
    """Symmetric cross-entropy over in-batch negatives (CLIP, Radford et al. 2021; what the paper calls CLASP).

    Both sides are L2-normalised; S = exp(logit_scale) * speech @ text.T; the loss is the mean of the cross-entropy of
    the rows and of the columns of S, whose right answers stand on the diagonal.

    When: first of all. It wants large batches, in which no text occurs twice.
    Relatives: `MaskedContrastiveLoss` if texts repeat, `HardNegativeLoss` if the negatives are too easy, `SigmoidLoss`
    if batches are small.

    Args:
        temperature: cosines are divided by it at the start; 0.07 is CLIP's.
        learned: whether `logit_scale` = ln(1 / temperature) is trained; its factor is kept at 100 at most.
    """

    def __init__(self, temperature: float = 0.07, learned: bool = True) -> None:
        super().__init__()
        _check_positive("temperature", temperature)
        self.logit_scale = nn.Parameter(torch.tensor(-math.log(temperature)), requires_grad=learned)

    @classmethod
    def inverted(cls) -> ContrastiveLoss:
        """The loss as the reference's notebooks have it: cosines **multiplied** by 0.07 (a defect)."""
        return cls(temperature=1 / 0.07, learned=False)

    def scale(self) -> torch.Tensor:
        """What cosines are multiplied by."""
        return self.logit_scale.exp().clamp(max=100)

    def compute(self, speech: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Speech and text (n, d) -> scalar."""
        logits = self.scale() * similarity(speech, text)  # (n, n)
        return (cross_entropy_of_diagonal(logits) + cross_entropy_of_diagonal(logits.T)) / 2


class MaskedContrastiveLoss(ContrastiveLoss):
    """Contrastive, where another clip of the same text is no negative.

    In `ContrastiveLoss` a text that occurs twice in a batch is a right answer that counts as wrong. Here such pairs,
    off the diagonal, are left out of both denominators.

    Inputs: speech, text (n, d); `sentences` (n,).
    When: texts repeat within a batch, as where several recordings of a sentence are drawn, or several processes draw.
    Relatives: `ContrastiveLoss`, equal if no text repeats; supervised contrast (Khosla et al. 2020), to which such
    pairs are positives.
    """

    needs = ("sentences",)

    def compute(  # type: ignore[override]
        self, speech: torch.Tensor, text: torch.Tensor, sentences: torch.Tensor
    ) -> torch.Tensor:
        """Speech and text (n, d), sentences (n,) -> scalar."""
        logits = self.scale() * similarity(speech, text)  # (n, n)
        same = (sentences[:, None] == sentences[None]).fill_diagonal_(False)  # (n, n)
        logits = logits.masked_fill(same, -math.inf)
        return (cross_entropy_of_diagonal(logits) + cross_entropy_of_diagonal(logits.T)) / 2


class HardNegativeLoss(ContrastiveLoss):
    """Contrastive, where each clip has k more wrong answers of its own: its text with words missing.

    Row i of S gets the k columns exp(logit_scale) * cos(speech_i, negatives_ij), which no other row sees; from text to
    speech nothing changes. After the negatives of MSAT + CL (Wang et al., ICASSP 2023), made from the fluent sentence
    by deleting words; its setting, the detection of disfluency, is another, and the formula here is ours.

    Inputs: speech, text (n, d); `negatives` (n, k, d).
    When: texts of a batch are so different that a few words tell them apart, and the rest of a sentence is not learned.
    Relatives: `ContrastiveLoss`; sentence-transformers' MultipleNegativesRankingLoss, whose rows see all negatives.
    """

    needs = ("negatives",)

    def compute(  # type: ignore[override]
        self, speech: torch.Tensor, text: torch.Tensor, negatives: torch.Tensor
    ) -> torch.Tensor:
        """Speech and text (n, d), negatives (n, k, d) -> scalar."""
        logits = self.scale() * similarity(speech, text)  # (n, n)
        own = self.scale() * functional.cosine_similarity(speech[:, None], negatives, dim=-1)  # (n, k)
        by_clip = cross_entropy_of_diagonal(torch.cat([logits, own], dim=1))
        return (by_clip + cross_entropy_of_diagonal(logits.T)) / 2


class SigmoidLoss(Loss):
    """Every pair of the batch is a yes-or-no question of its own (SigLIP, Zhai et al. 2023, algorithm 1).

    -1/n * sum over i, j of ln sigmoid(z_ij (exp(logit_scale) cos(speech_i, text_j) + logit_bias)), where z is 1 on the
    diagonal and -1 elsewhere. Both parameters are learned, from ln 10 and -10 as in the paper: the bias makes up for
    the n - 1 negatives that each positive begins against.

    When: batches are small, or so large that a softmax over them is dear.
    Relatives: `ContrastiveLoss`, where answers compete with each other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(math.log(10)))
        self.logit_bias = nn.Parameter(torch.tensor(-10.0))

    def compute(self, speech: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Speech and text (n, d) -> scalar."""
        logits = self.logit_scale.exp() * similarity(speech, text) + self.logit_bias  # (n, n)
        sign = 2 * torch.eye(len(logits), device=logits.device, dtype=logits.dtype) - 1  # (n, n)
        return -functional.logsigmoid(sign * logits).sum() / len(logits)


class HuberLoss(Loss):
    """Regression of the fused vector onto the text vector, no negatives (Huber 1964; what the paper calls LASP).

    The mean over all n * d differences x of x^2 / 2 where |x| <= delta, of delta (|x| - delta / 2) elsewhere.

    When: vectors should be the text's own, length included, or batches are too small for negatives.
    Relatives: half the `SquaredLoss` while no difference passes delta; `CosineLoss`, for which length is nothing.
    """

    def __init__(self, delta: float = 0.6) -> None:
        super().__init__()
        _check_positive("delta", delta)
        self.delta = delta

    def compute(self, speech: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Speech and text (n, d) -> scalar; neither is normalised."""
        return functional.huber_loss(speech, text, delta=self.delta)


class SquaredLoss(Loss):
    """Mean squared error: the mean over all n * d differences x of x^2.

    When: as the plainest regression, to compare with. Relatives: `HuberLoss`, which outliers pull less.
    """

    def compute(self, speech: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Speech and text (n, d) -> scalar; neither is normalised."""
        return functional.mse_loss(speech, text)


class CosineLoss(Loss):
    """The mean over the pairs of 1 - cos(speech_i, text_i), between 0 and 2.

    When: only directions are compared in search, and there are no negatives to be had.
    Relatives: for unit vectors, d / 2 times `SquaredLoss`; `ContrastiveLoss` also pushes wrong pairs apart.
    """

    def compute(self, speech: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Speech and text (n, d) -> scalar."""
        return (1 - functional.cosine_similarity(speech, text, dim=-1)).mean()


class LabelAnchoredLoss(Loss):
    """Each category gets a learned vector that its clips gather around (LaCon, Zhang et al., NAACL 2022).

    With s = cos(speech, labels) / temperature, (n, categories), and y the clips' categories, the sum of
    - instance-centred (equation 3): mean over clips i of -ln softmax of row i at y_i;
    - label-centred (equation 5): over the categories p of the batch, the mean of the sums over their clips a of
      -ln (exp s_ap / sum over all clips b of other categories of exp s_bp), which may fall below zero;
    - `spread` times the regulariser (equation 6): mean over labels i != j of exp(1 + cos(label_i, label_j)) - 1.
    A batch of one category has no b: the second term is then left out. Of the paper, its several heads (equation 4) are
    not here. The sums make the second term grow with n: in a combination give it a small weight.

    Inputs: speech, text (n, d), of which text is not used; `categories` (n,), below the number of categories (PyTorch
    refuses others with its own IndexError).
    When: clips have categories, and search should also find what is of a kind; as a term beside `ContrastiveLoss`.
    Relatives: supervised contrast (Khosla et al. 2020), which compares clips with clips.

    Args:
        width: d. categories: how many there are, at least two.
        temperature, spread: the paper recommends 0.1 to 0.2, and finds a wide range of `spread` good.
    """

    needs = ("categories",)

    def __init__(self, width: int, categories: int = 15, temperature: float = 0.1, spread: float = 0.5) -> None:
        super().__init__()
        if width < 1 or categories < 2:
            raise ClaspError(f"width {width}, categories {categories}: must be at least 1 and 2.")
        _check_positive("temperature", temperature)
        _check_positive("spread", spread)
        self.temperature, self.spread = temperature, spread
        # Its own generator: the labels begin alike in all processes. Unit length: one step of Adam can turn them.
        start = torch.randn(categories, width, generator=torch.Generator().manual_seed(0))
        self.labels = nn.Parameter(functional.normalize(start, dim=-1))

    def compute(self, speech: torch.Tensor, text: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        """Speech and text (n, d), categories (n,) -> scalar."""
        labels = self.labels.to(speech.dtype)  # (c, d)
        scores = similarity(speech, labels) / self.temperature  # (n, c)
        by_clip = functional.cross_entropy(scores, categories)
        number = torch.arange(len(labels), device=scores.device)
        mine = categories[:, None] == number  # (n, c)
        # The lowest number, since a column of minus infinities has no gradient.
        others = scores.masked_fill(mine, torch.finfo(scores.dtype).min).logsumexp(dim=0)  # (c,)
        present = mine.any(dim=0).sum()
        by_label = torch.where(mine & (present > 1), others - scores, 0).sum() / present
        alike = torch.expm1(1 + similarity(labels, labels))  # (c, c)
        apart = alike.masked_fill(number[:, None] == number, 0).sum() / (len(number) * (len(number) - 1))
        return by_clip + by_label + self.spread * apart


class AugmentationLoss(Loss):
    """Two versions of a clip find each other among all others', without text (NT-Xent of SimCLR, Chen et al. 2020).

    Of the 2n vectors z, speech above other, each is a row of cos(z_i, z_j) / temperature without j = i; the loss is the
    mean of the rows' cross-entropy (equation 1), where the right answer is the other version of the same clip.

    Inputs: speech, text (n, d), of which text is not used; `other` (n, d).
    When: there is speech without text; beside `ContrastiveLoss`, to make vectors indifferent to voice, noise or speed.
    Relatives: `ContrastiveLoss`, the same between two modalities.
    """

    needs = ("other",)

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        _check_positive("temperature", temperature)
        self.temperature = temperature

    def compute(self, speech: torch.Tensor, text: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Speech, text and other (n, d) -> scalar."""
        versions = torch.cat([speech, other])  # (2n, d)
        logits = similarity(versions, versions) / self.temperature  # (2n, 2n)
        logits = logits.masked_fill(torch.eye(len(logits), device=logits.device, dtype=torch.bool), -math.inf)
        return cross_entropy_of_diagonal(logits.roll(len(speech), dims=1))  # column i is now i's other version


class CombinedLoss(Loss):
    """The weighted sum of several losses; it needs what any of them needs.

    Example: `CombinedLoss((1.0, ContrastiveLoss()), (0.1, LabelAnchoredLoss(768)))`.
    When: one loss alone leaves something open: contrast the length of vectors, regression the wrong answers.
    """

    def __init__(self, *terms: tuple[float, Loss]) -> None:
        super().__init__()
        if not terms:
            raise ClaspError("a combined loss needs at least one term, each (weight, loss).")
        for weight, _ in terms:
            _check_positive("weight", weight)
        self.weights = tuple(weight for weight, _ in terms)
        self.losses: Sequence[Loss] = nn.ModuleList(loss for _, loss in terms)  # type: ignore[assignment]
        self.needs = tuple(dict.fromkeys(name for loss in self.losses for name in loss.needs))

    def compute(self, speech: torch.Tensor, text: torch.Tensor, **columns: torch.Tensor) -> torch.Tensor:
        """Speech and text (n, d), all columns -> scalar."""
        values = [loss(speech, text, **{name: columns[name] for name in loss.needs}) for loss in self.losses]
        return torch.stack([weight * value for weight, value in zip(self.weights, values)]).sum()


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ClaspError(f"{name} {value}: must be above 0, and finite.")


LOSSES: dict[str, Callable[[int, int], Loss]] = {
    "contrastive": lambda w, c: ContrastiveLoss(),
    "contrastive_fixed": lambda w, c: ContrastiveLoss(learned=False),
    "contrastive_inverted": lambda w, c: ContrastiveLoss.inverted(),
    "contrastive_masked": lambda w, c: MaskedContrastiveLoss(),
    "hard_negatives": lambda w, c: HardNegativeLoss(),
    "sigmoid": lambda w, c: SigmoidLoss(),
    "huber": lambda w, c: HuberLoss(),
    "mse": lambda w, c: SquaredLoss(),
    "cosine": lambda w, c: CosineLoss(),
    # Times the width, a mean over dimensions is a sum, and as large as a cosine: else it would hardly count.
    "huber_contrastive": lambda w, c: CombinedLoss((1, ContrastiveLoss()), (w, HuberLoss())),
    "label_anchored": lambda w, c: CombinedLoss((1, ContrastiveLoss()), (0.1, LabelAnchoredLoss(w, c))),
    "augmentation": lambda w, c: AugmentationLoss(),
    "contrastive_augmentation": lambda w, c: CombinedLoss((1, ContrastiveLoss()), (1, AugmentationLoss())),
}
"""Builders by name: (width of the text space, number of categories) -> a fresh loss."""


def build_loss(name: str, width: int, categories: int = 15) -> Loss:
    """A fresh loss by its name in `LOSSES`; width is that of the text space, 15 the number of Brown's categories.

    Raises:
        ClaspError: the name is not known, or there is no such width or number of categories.
    """
    if name not in LOSSES:
        raise ClaspError(f"loss {name!r} is not known. Choose from {', '.join(LOSSES)}.")
    if width < 1:
        raise ClaspError(f"width {width}: must be at least 1, that of the text space.")
    return LOSSES[name](width, categories)
