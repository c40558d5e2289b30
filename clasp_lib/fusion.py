"""Two frozen vectors in, one vector of the text space out: the only part of CLASP that is trained.

A new fusion is a subclass of `Fusion` and one line in `FUSIONS`.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from clasp_lib.errors import ClaspError


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
            nn.Dropout(0.15),
            nn.Linear(width, hidden),
            nn.BatchNorm1d(hidden),
            nn.LeakyReLU(),
            nn.Dropout(0.10),
            nn.Linear(hidden, width),
        )


class Fusion(nn.Module):
    """Base of all fusions: `forward(speech, picture)` normalises both inputs to length one and calls `fuse`.

    Args:
        speech_width, picture_width: what the frozen encoders give, e.g. 1024 and 1000.
        width: of the text space, e.g. 768.
    """

    def __init__(self, speech_width: int, picture_width: int, width: int) -> None:
        super().__init__()
        self.config = {"speech_width": speech_width, "picture_width": picture_width, "width": width}

    def forward(self, speech: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        """Speech (n, speech_width) and picture (n, picture_width) -> fused (n, width), not normalised."""
        return self.fuse(functional.normalize(speech, dim=-1), functional.normalize(picture, dim=-1))

    def fuse(self, speech: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        """What a subclass defines, on L2-normalised inputs."""
        raise NotImplementedError


class Concatenation(Fusion):
    """Both branches side by side, then three linear layers (the best of the models that CLASP's authors released).

    6 344 608 parameters at 1024 + 1000 -> 768, hidden widths 1024 and 800.
    """

    def __init__(self, speech_width: int, picture_width: int, width: int) -> None:
        super().__init__(speech_width, picture_width, width)
        self.speech_branch = Branch(speech_width, width)
        self.picture_branch = Branch(picture_width, width)
        first, second = round(width * 4 / 3), round(width * 25 / 24)
        self.mix = nn.Sequential(
            nn.Linear(2 * width, first),
            nn.BatchNorm1d(first),
            nn.LeakyReLU(),
            nn.Linear(first, second),
            nn.LeakyReLU(),
            nn.Linear(second, width),
        )

    def fuse(self, speech: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        both = torch.cat([self.speech_branch(speech), self.picture_branch(picture)], dim=-1)  # (n, 2 width)
        return self.mix(both)  # (n, width)


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


class Gating(Fusion):
    """Gates on each branch, then a weighted sum whose weights come from both (CLASP, Abootorabi and Asgari 2025).

    The weights are **one** softmax over all 2 x width values, so that dimensions compete as well as modalities.
    9 237 888 parameters at 1024 + 1000 -> 768.
    """

    def __init__(self, speech_width: int, picture_width: int, width: int) -> None:
        super().__init__(speech_width, picture_width, width)
        self.speech_branch = Branch(speech_width, width)
        self.picture_branch = Branch(picture_width, width)
        self.speech_gates = Gates(width)
        self.picture_gates = Gates(width)
        self.weight = nn.Linear(2 * width, 2 * width)

    def fuse(self, speech: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        from_speech = self.speech_gates(self.speech_branch(speech))  # (n, width)
        from_picture = self.picture_gates(self.picture_branch(picture))  # (n, width)
        both = torch.cat([from_speech, from_picture], dim=-1)  # (n, 2 width)
        of_speech, of_picture = self.weight(both).softmax(dim=-1).chunk(2, dim=-1)  # (n, width) each
        return of_speech * from_speech + of_picture * from_picture  # (n, width)


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


FUSIONS: dict[str, type[Fusion]] = {
    "concatenation": Concatenation,
    "gating": Gating,
    "speech_only": SpeechOnly,
    "linear": Linear,
    "picture_only": PictureOnly,
}


def build_fusion(name: str, speech_width: int, picture_width: int, width: int) -> Fusion:
    """A fresh fusion by its name in `FUSIONS`.

    Raises:
        ClaspError: the name is not known.
    """
    if name not in FUSIONS:
        raise ClaspError(f"fusion {name!r} is not known. Choose from {', '.join(FUSIONS)}.")
    return FUSIONS[name](speech_width, picture_width, width)
