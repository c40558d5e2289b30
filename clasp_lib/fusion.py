"""Two frozen vectors in, one vector of the text space out: the only part of CLASP that is trained.

A new fusion is a subclass of `Fusion` and one line in `FUSIONS`.
"""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from clasp_lib.dropout import Dropout
from clasp_lib.errors import ClaspError
from clasp_lib.pooling import POOLINGS, Frames, Pooling


class Branch(nn.Sequential):
    """What each modality passes through first: three linear layers, batch norm and dropout after the first two.

    From CLASP (Abootorabi and Asgari 2025), as released.
    Widths follow the text encoder; at 768 they are the released 768, 576, 768.
    """

    def __init__(self, width_in: int, width: int) -> None:
        hidden = 3 * width // 4
        super().__init__(
            nn.Linear(width_in, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            Dropout(0.15),
            nn.Linear(width, hidden),
            nn.BatchNorm1d(hidden),
            nn.LeakyReLU(),
            Dropout(0.10),
            nn.Linear(hidden, width),
        )


class Fusion(nn.Module):
    """Base of all fusions: `forward(speech, picture)` normalises both inputs to length one and calls `fuse`.

    Args:
        speech_width, picture_width: what the frozen encoders give, e.g. 1024 and 1000.
        width: of the text space, e.g. 768.

    Attributes:
        takes_frames: whether `forward` wants the clip's `Frames` in place of its speech vector.
    """

    takes_frames: ClassVar[bool] = False

    def __init__(self, speech_width: int, picture_width: int, width: int) -> None:
        super().__init__()
        self.config = {"speech_width": speech_width, "picture_width": picture_width, "width": width}

    def forward(self, speech: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        """Speech (n, speech_width) and picture (n, picture_width) -> fused (n, width), not normalised."""
        return self.fuse(functional.normalize(speech, dim=-1), functional.normalize(picture, dim=-1))

    def fuse(self, speech: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        """What a subclass defines, on L2-normalised inputs."""
        raise NotImplementedError


class TwoBranches(Fusion):
    """Base of the fusions that hear and see: a `Branch` for each modality, joined afterwards."""

    def __init__(self, speech_width: int, picture_width: int, width: int) -> None:
        super().__init__(speech_width, picture_width, width)
        self.speech_branch = Branch(speech_width, width)
        self.picture_branch = Branch(picture_width, width)

    def fuse(self, speech: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        return self.join(self.speech_branch(speech), self.picture_branch(picture))

    def join(self, speech: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        """What a subclass defines: what the branches gave, (n, width) each, -> (n, width)."""
        raise NotImplementedError


class Concatenation(TwoBranches):
    """Both branches side by side, then three linear layers (the best of the models that CLASP's authors released).

    6 344 608 parameters at 1024 + 1000 -> 768, hidden widths 1024 and 800.
    """

    def __init__(self, speech_width: int, picture_width: int, width: int) -> None:
        super().__init__(speech_width, picture_width, width)
        first, second = round(width * 4 / 3), round(width * 25 / 24)
        self.mix = nn.Sequential(
            nn.Linear(2 * width, first),
            nn.BatchNorm1d(first),
            nn.LeakyReLU(),
            nn.Linear(first, second),
            nn.LeakyReLU(),
            nn.Linear(second, width),
        )

    def join(self, speech: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        return self.mix(torch.cat([speech, picture], dim=-1))  # (n, width)


class Sum(TwoBranches):
    """The branches added up: both modalities always count alike."""

    def join(self, speech: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        return speech + picture


class Product(TwoBranches):
    """The branches multiplied, dimension by dimension: one modality can silence the other, and cannot do without it."""

    def join(self, speech: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        return speech * picture


class Mixture(NamedTuple):
    """The two vectors that a gated fusion adds up, and the weights that it gives them: (n, width) each."""

    speech: torch.Tensor
    picture: torch.Tensor
    of_speech: torch.Tensor
    of_picture: torch.Tensor


class Reading(NamedTuple):
    """How far a gated fusion listens, and how far it looks: 1 is speech alone, 0 the picture alone.

    Attributes:
        share: (n,) of all weight that a clip's two vectors get, the part that speech gets.
        dimensions: (n, width) the same for each dimension by itself.
    """

    share: torch.Tensor
    dimensions: torch.Tensor


class Gated(TwoBranches):
    """Base of the fusions that weigh: speech * of_speech + picture * of_picture, with weights that depend on the clip.

    `read` shows the weights.
    """

    def join(self, speech: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        mixture = self.weigh(speech, picture)
        return mixture.of_speech * mixture.speech + mixture.of_picture * mixture.picture  # (n, width)

    def weigh(self, speech: torch.Tensor, picture: torch.Tensor) -> Mixture:
        """What a subclass defines: what the branches gave, (n, width) each, and how much of it counts."""
        raise NotImplementedError

    @torch.no_grad()
    def read(self, speech: torch.Tensor, picture: torch.Tensor) -> Reading:
        """The gates, for the inputs of `forward`.

        Raises:
            ClaspError: the fusion is in training mode, where dropout would disturb the gates and they the batch norms.
        """
        if self.training:
            raise ClaspError("the fusion is in training mode; call eval() before you read its gates.")
        normal = functional.normalize
        mixture = self.weigh(self.speech_branch(normal(speech, dim=-1)), self.picture_branch(normal(picture, dim=-1)))
        total = mixture.of_speech + mixture.of_picture  # (n, width)
        return Reading(mixture.of_speech.sum(-1) / total.sum(-1), mixture.of_speech / total)


class Gates(nn.Module):
    """An LSTM cell's input, forget and candidate gates on one vector: i * tanh(Vx) + f * x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input = nn.Linear(width, width)
        self.forget = nn.Linear(width, width)
        self.candidate = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, width) -> (n, width)."""
        new = self.input(x).sigmoid() * self.candidate(x).tanh()
        return new + self.forget(x).sigmoid() * x


class Gating(Gated):
    """Gates on each branch, then a weighted sum whose weights come from both (CLASP, Abootorabi and Asgari 2025).

    The weights are **one** softmax over all 2 x width values, so that dimensions compete as well as modalities.
    9 237 888 parameters at 1024 + 1000 -> 768.
    """

    def __init__(self, speech_width: int, picture_width: int, width: int) -> None:
        super().__init__(speech_width, picture_width, width)
        self.speech_gates = Gates(width)
        self.picture_gates = Gates(width)
        self.weight = nn.Linear(2 * width, 2 * width)

    def weigh(self, speech: torch.Tensor, picture: torch.Tensor) -> Mixture:
        speech, picture = self.speech_gates(speech), self.picture_gates(picture)  # (n, width) each
        both = torch.cat([speech, picture], dim=-1)  # (n, 2 width)
        return Mixture(speech, picture, *self.weight(both).softmax(dim=-1).chunk(2, dim=-1))


class GMF(Gated):
    """Gated multimodal fusion: g = sigmoid(W[a; t] + b), then g * a + (1 - g) * t on what the branches give.

    From turn-taking (Yang et al., ICASSP 2022, arXiv 2204.10172), where a is the voice and t the words; here t is the
    picture. Each dimension chooses between the modalities for itself. 4 513 920 parameters at 1024 + 1000 -> 768.
    """

    def __init__(self, speech_width: int, picture_width: int, width: int) -> None:
        super().__init__(speech_width, picture_width, width)
        self.gate = nn.Linear(2 * width, width)

    def weigh(self, speech: torch.Tensor, picture: torch.Tensor) -> Mixture:
        gate = self.gate(torch.cat([speech, picture], dim=-1)).sigmoid()  # (n, width)
        return Mixture(speech, picture, gate, 1 - gate)


class Transformer(TwoBranches):
    """Each branch's vector is a token that knows its modality; two layers of self-attention, then their mean.

    Pre-norm (Xiong et al. 2020), feed-forward layers no wider than the tokens.
    11 020 416 parameters at 1024 + 1000 -> 768.
    """

    def __init__(self, speech_width: int, picture_width: int, width: int) -> None:
        super().__init__(speech_width, picture_width, width)
        self.modalities = nn.Parameter(torch.randn(2, width) * 0.02)
        heads = math.gcd(width, 8)
        layers = [
            nn.TransformerEncoderLayer(width, heads, dim_feedforward=width, batch_first=True, norm_first=True)
            for _ in range(2)  # nn.TransformerEncoder would start both from the same weights
        ]
        for layer in layers:
            layer.self_attn.dropout = 0.0  # of two tokens, it would hide half of what there is
        self.layers = nn.Sequential(*layers, nn.LayerNorm(width))
        self.mix = nn.Linear(width, width)

    def join(self, speech: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        tokens = torch.stack([speech, picture], dim=1) + self.modalities  # (n, 2, width)
        return self.mix(self.layers(tokens).mean(dim=1))  # (n, width)


class SpeechOnly(Fusion):
    """The speech branch alone: what CLASP is without the picture."""

    def __init__(self, speech_width: int, picture_width: int, width: int) -> None:
        super().__init__(speech_width, picture_width, width)
        self.speech_branch = Branch(speech_width, width)

    def fuse(self, speech: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        return self.speech_branch(speech)


class Linear(Fusion):
    """One linear layer from the speech vector: the plainest bridge there is, and a baseline for all others.

    Batch norm goes before it, since mean vectors of speech differ by little beside what they share.
    """

    def __init__(self, speech_width: int, picture_width: int, width: int) -> None:
        super().__init__(speech_width, picture_width, width)
        self.layer = nn.Sequential(nn.BatchNorm1d(speech_width), nn.Linear(speech_width, width))

    def fuse(self, speech: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        return self.layer(speech)


class PictureOnly(Fusion):
    """The picture branch alone."""

    def __init__(self, speech_width: int, picture_width: int, width: int) -> None:
        super().__init__(speech_width, picture_width, width)
        self.picture_branch = Branch(picture_width, width)

    def fuse(self, speech: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        return self.picture_branch(picture)


class Pooled(Fusion):
    """A learned pooling over the clip's frames, then a fusion that takes what it gives for the speech vector.

    Its parts are `pooling` and `fusion`: `fusion.read(pooling(frames), picture)` shows the gates where there are some.
    """

    takes_frames = True

    def __init__(self, pooling: Pooling, fusion: Fusion) -> None:
        super().__init__(**fusion.config)
        self.pooling, self.fusion = pooling, fusion

    def forward(self, frames: Frames, picture: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Frames of n clips and pictures (n, picture_width) -> fused (n, width), not normalised."""
        return self.fusion(self.pooling(frames), picture)


FUSIONS: dict[str, type[Fusion]] = {
    "concatenation": Concatenation,
    "gating": Gating,
    "gmf": GMF,
    "sum": Sum,
    "product": Product,
    "transformer": Transformer,
    "speech_only": SpeechOnly,
    "linear": Linear,
    "picture_only": PictureOnly,
}
"""By name; what `build_fusion` builds."""


def build_fusion(name: str, speech_width: int, picture_width: int, width: int) -> Fusion:
    """A fresh fusion by its name in `FUSIONS`, with a pooling of `clasp_lib.pooling.POOLINGS` before it if so named.

    "gating" takes speech vectors, "attention+gating" the frames of the clips. Label poolings want the labels' vectors
    in the text space: `fusion.pooling.set_labels(vectors)`.

    Raises:
        ClaspError: the name is not known.
    """
    pooling, plus, kind = name.rpartition("+")
    if kind not in FUSIONS or (plus and pooling not in POOLINGS):
        raise ClaspError(
            f"fusion {name!r} is not known. Choose from {', '.join(FUSIONS)}; "
            f"one of {', '.join(POOLINGS)} may go before it, as in 'attention+concatenation'."
        )
    fusion = FUSIONS[kind](speech_width, picture_width, width)
    return Pooled(POOLINGS[pooling](speech_width, width), fusion) if plus else fusion
