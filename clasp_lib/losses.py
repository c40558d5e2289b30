"""What training minimises. Inputs are fused speech vectors and text vectors, row by row a pair."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from clasp_lib.errors import ClaspError


class ContrastiveLoss(nn.Module):
    """Symmetric cross-entropy over in-batch negatives (CLIP, Radford et al. 2021; what the paper calls CLASP).

    Both sides are L2-normalised; S = exp(logit_scale) * speech @ text.T; the loss is the mean of the cross-entropy of
    the rows and of the columns of S, whose right answers stand on the diagonal.

    Args:
        temperature: cosines are divided by it at the start; 0.07 is CLIP's.
        learned: whether `logit_scale` = ln(1 / temperature) is trained; its factor is kept at 100 at most.
    """

    def __init__(self, temperature: float = 0.07, learned: bool = True) -> None:
        super().__init__()
        if temperature <= 0:
            raise ClaspError(f"temperature {temperature}: must be above 0.")
        self.logit_scale = nn.Parameter(torch.tensor(-math.log(temperature)), requires_grad=learned)

    @classmethod
    def inverted(cls) -> ContrastiveLoss:
        """The loss as the reference's notebooks have it: cosines **multiplied** by 0.07 (a defect)."""
        return cls(temperature=1 / 0.07, learned=False)

    def forward(self, speech: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Speech and text (n, d) -> scalar."""
        speech = functional.normalize(speech.float(), dim=-1)
        text = functional.normalize(text.float(), dim=-1)
        logits = self.logit_scale.exp().clamp(max=100) * speech @ text.T  # (n, n)
        target = torch.arange(len(logits), device=logits.device)
        by_clip = functional.cross_entropy(logits, target)
        by_text = functional.cross_entropy(logits.T, target)
        return (by_clip + by_text) / 2


class HuberLoss(nn.Module):
    """Regression of the fused vector onto the text vector, no negatives (Huber 1964; what the paper calls LASP)."""

    def __init__(self, delta: float = 0.6) -> None:
        super().__init__()
        self.delta = delta

    def forward(self, speech: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Speech and text (n, d) -> scalar; neither is normalised."""
        return functional.huber_loss(speech.float(), text.float(), delta=self.delta)
