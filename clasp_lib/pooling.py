"""The frames of a clip in, one vector out: which moments count is learned, where CLASP takes the plain mean.

All poolings begin as that mean. `clasp_lib.fusion.build_fusion` sets one of them before a fusion: "attention+gating".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from clasp_lib.errors import ClaspError

Normaliser = Literal["softmax", "sparsemax"]


class Frames(NamedTuple):
    """What a speech encoder says of several clips, moment by moment.

    Attributes:
        values: (n, t, width), where t are the frames of the longest clip. What stands after a clip's end is not read.
        lengths: (n,) int64, the frames of each clip, at least one.
    """

    values: torch.Tensor
    lengths: torch.Tensor

    def to(self, device: torch.device) -> Frames:
        """The same on another device."""
        return Frames(self.values.to(device), self.lengths.to(device))


def pad_frames(clips: Sequence[torch.Tensor]) -> Frames:
    """Clips of (t_i, width), one after the other, filled up with zeros to the length of the longest.

    Raises:
        ClaspError: no clips, one without frames, or clips of different widths.
    """
    if not clips:
        raise ClaspError("pad_frames: got no clips; give at least one.")
    for number, clip in enumerate(clips):
        if clip.ndim != 2 or len(clip) == 0 or clip.shape[1] != clips[0].shape[-1]:
            raise ClaspError(
                f"pad_frames: clip {number} has shape {tuple(clip.shape)}; "
                f"expected at least one frame, (t, {clips[0].shape[-1]})."
            )
    return Frames(nn.utils.rnn.pad_sequence(list(clips), batch_first=True), torch.tensor([len(clip) for clip in clips]))


def softmax(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Scores (..., t) to weights that add up to one, zero where `mask` (broadcast to scores) is False."""
    return scores.masked_fill(~mask, -torch.inf).softmax(dim=-1)


def sparsemax(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Scores (..., t) to the nearest weights that add up to one, most of them exactly zero.

    The projection onto the probability simplex in closed form (Martins and Astudillo 2016, algorithm 1): sort, find how
    many of the largest scores z satisfy 1 + k z_k > z_1 + ... + z_k, lower all by one threshold, cut at zero.
    Differentiable; weights are zero where `mask` (broadcast to scores) is False, and one entry of it must be True.
    """
    top = scores.masked_fill(~mask, -torch.inf).amax(dim=-1, keepdim=True).detach()  # the same weights, small numbers
    lowered = (scores - top).masked_fill(~mask, -2.0)  # the threshold is never below -1
    ordered = lowered.sort(dim=-1, descending=True).values
    rank = torch.arange(1, scores.shape[-1] + 1, device=scores.device)  # (t,)
    total = ordered.cumsum(dim=-1)
    kept = (1 + rank * ordered > total).sum(dim=-1, keepdim=True)  # (..., 1)
    threshold = (total.gather(-1, kept - 1) - 1) / kept
    return (lowered - threshold).clamp(min=0)


_NORMALISERS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "softmax": softmax,
    "sparsemax": sparsemax,
}


class Pooling(nn.Module):
    """Base of all poolings: a weighted mean over time, where queries decide what weighs.

    A frame's score is its scalar product with a query, divided by the root of the width (Vaswani et al. 2017, eq. 1).
    Where there are several queries, their results are averaged. Computed in float32 (float64 stays what it is).

    Args:
        width: of a frame.
        normaliser: "softmax" gives every frame some weight, "sparsemax" (as in MVCN, Wei et al., ACL 2023) most of
            them none.

    Raises:
        ClaspError: the normaliser is not known.
    """

    def __init__(self, width: int, normaliser: Normaliser = "softmax") -> None:
        super().__init__()
        if normaliser not in _NORMALISERS:
            raise ClaspError(f"normaliser {normaliser!r} is not known. Choose from {', '.join(_NORMALISERS)}.")
        self.width, self.normaliser = width, normaliser

    def queries(self) -> torch.Tensor:
        """What a subclass defines: (queries, width)."""
        raise NotImplementedError

    def weights(self, frames: Frames) -> torch.Tensor:
        """How much each moment counts for each query: (n, queries, t), sums of one over time, zero after a clip's end.

        Raises:
            ClaspError: these are not frames, or not of this width.
        """
        if not isinstance(frames, Frames):
            raise ClaspError(f"pooling reads Frames, got {type(frames).__name__}. Make them with pad_frames.")
        values, lengths = frames
        if values.ndim != 3 or values.shape[-1] != self.width:
            raise ClaspError(f"frames have shape {tuple(values.shape)}; expected (n, t, {self.width}).")
        with torch.autocast(values.device.type, enabled=False):
            values = _precise(values)
            queries = self.queries().to(values.dtype)  # (queries, width)
            scores = queries @ values.transpose(1, 2) / self.width**0.5  # (n, queries, t)
            mask = torch.arange(values.shape[1], device=values.device) < lengths[:, None]  # (n, t)
            return _NORMALISERS[self.normaliser](scores, mask[:, None])  # (n, queries, t)

    def forward(self, frames: Frames) -> torch.Tensor:
        """Frames of n clips -> (n, width)."""
        weights = self.weights(frames).mean(dim=1, keepdim=True)  # (n, 1, t)
        with torch.autocast(frames.values.device.type, enabled=False):
            return (weights @ _precise(frames.values)).squeeze(1)  # (n, width)


class AttentionPooling(Pooling):
    """One learned query. It starts at zero, so that training starts from the mean over time."""

    def __init__(self, width: int, normaliser: Normaliser = "softmax") -> None:
        super().__init__(width, normaliser)
        self.query = nn.Parameter(torch.zeros(1, width))

    def queries(self) -> torch.Tensor:
        """(1, width)."""
        return self.query


class LabelAttentionPooling(Pooling):
    """A query for each label, from the label's vector: which moments speak for "humor", which for "religion"?

    After the label-frame attention of LE-MER (Wang et al., Interspeech 2023), with the names of a collection's
    categories for labels. All labels ask all clips; which of them a clip has is not looked up. Their vectors are given
    with `set_labels`, are not trained, and are saved with the weights. The linear map that turns them into queries
    starts at zero.

    Args:
        width: of a frame.
        label_width: of a label's vector.
        normaliser: see `Pooling`.
    """

    labels: torch.Tensor

    def __init__(self, width: int, label_width: int, normaliser: Normaliser = "softmax") -> None:
        super().__init__(width, normaliser)
        self.query = nn.Linear(label_width, width, bias=False)
        nn.init.zeros_(self.query.weight)
        self.register_buffer("labels", torch.empty(0, label_width))

    def set_labels(self, vectors: np.ndarray | torch.Tensor) -> None:
        """Take the vectors of the labels, (labels, label_width), such as `text_encoder.encode(names)`.

        Raises:
            ClaspError: no vectors, of another width, or not finite.
        """
        label_width = self.labels.shape[1]
        if not isinstance(vectors, np.ndarray | torch.Tensor):
            raise ClaspError(f"set_labels takes the labels' vectors, (labels, {label_width}), not their names.")
        given = torch.as_tensor(vectors, dtype=self.labels.dtype, device=self.labels.device)
        if given.ndim != 2 or len(given) == 0 or given.shape[1] != label_width or not given.isfinite().all():
            raise ClaspError(
                f"set_labels: got vectors of shape {tuple(given.shape)}; "
                f"expected at least one row of finite numbers, (labels, {label_width})."
            )
        self.labels = given.clone()

    def queries(self) -> torch.Tensor:
        """(labels, width).

        Raises:
            ClaspError: there are no labels yet.
        """
        if len(self.labels) == 0:
            raise ClaspError("label attention has no labels yet. Give it their vectors with pooling.set_labels(...).")
        return self.query(self.labels)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        stored = state_dict.get(f"{prefix}labels")
        if stored is not None and stored.shape[1:] == self.labels.shape[1:]:
            self.labels = self.labels.new_empty(stored.shape)  # only the weights know how many labels there are
        super()._load_from_state_dict(state_dict, prefix, *rest)


POOLINGS: dict[str, Callable[[int, int], Pooling]] = {
    "attention": lambda width, label_width: AttentionPooling(width),
    "sparsemax": lambda width, label_width: AttentionPooling(width, "sparsemax"),
    "label_attention": LabelAttentionPooling,
    "label_sparsemax": lambda width, label_width: LabelAttentionPooling(width, label_width, "sparsemax"),
}
"""By name, how to build one for frames of a width and labels of another."""


def _precise(values: torch.Tensor) -> torch.Tensor:
    """In float32 at least: half precision adds up hundreds of frames badly."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
