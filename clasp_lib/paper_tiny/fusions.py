"""A tiny picture encoder, and CLASP's fusions as the whole modules that its authors pickled."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from clasp_lib.convert import PUBLISHED_WEIGHTS
from clasp_lib.encoders.drawing import PICTURE_RATE, draw
from clasp_lib.fusion import build_fusion
from clasp_lib.paper_tiny.files import WIDTHS, save_pickled

EFFICIENTNET = "torchvision/efficientnet_b0_rwightman-7f5810bc.pth"
STAND_INS = {"torchvision/efficientnet_b7": EFFICIENTNET}
"""Files that are not called as what they stand in for."""


def efficientnet(file: Path) -> None:
    """As torchvision's `efficientnet_b0`, whole: the smallest that loads as `efficientnet_b7` does.

    Its batch norms have the statistics of a few spectrograms of noise. Without any, a signal dies out on its way.
    """
    import torch
    from torchvision.models import efficientnet_b0

    model = efficientnet_b0(norm_layer=partial(torch.nn.BatchNorm2d, momentum=1.0)).train()
    fading = torch.linspace(0, -3, PICTURE_RATE)
    pictures = draw([torch.randn(PICTURE_RATE) * torch.exp(rate * fading) for rate in range(6)])
    with torch.no_grad():
        model(pictures[:, ::3, ::3].permute(0, 3, 1, 2).float())
    file.parent.mkdir(parents=True)
    save_pickled(model.state_dict(), file)


def clasp(folder: Path) -> None:
    """As `llm-lab/CLASP`: whole modules, pickled from a notebook; as in the older ones, LASP's have no `.mode`."""
    import torch

    folder.mkdir(parents=True)
    for file in PUBLISHED_WEIGHTS:
        gating = "Gating" in file
        fusion = build_fusion("gating" if gating else "concatenation", *WIDTHS.values())
        for _ in range(50):  # batch norms get the statistics of vectors of length one
            fusion(torch.randn(64, WIDTHS["speech"]), torch.randn(64, WIDTHS["picture"]))
        module = as_published("HubertLabseGating" if gating else "HubertLabseConcat", fusion.eval())
        if file.startswith("CLASP"):
            module.mode = "joint"
        with found_in_main(type(module)):
            torch.save(module, folder / file)


def as_published(kind: str, fusion: Any) -> Any:
    """A fusion's layers under the authors' names, in a class that says it is a notebook's."""
    from torch import nn

    def branch(layers: Any) -> Any:
        """In torch's own layers, as the authors pickled them."""
        return nn.Sequential(*(nn.Dropout(layer.p) if isinstance(layer, nn.Dropout) else layer for layer in layers))

    parts = {"image_seq": branch(fusion.picture_branch)}
    if kind == "HubertLabseConcat":
        parts |= {"audio_seq": branch(fusion.speech_branch), "mix_seq": fusion.mix}
    else:
        parts |= {"text_seq": branch(fusion.speech_branch), "weight": nn.Sequential(fusion.weight)}
        for modality, gates in (("text", fusion.speech_gates), ("image", fusion.picture_gates)):
            parts[f"input_gate_{modality}"] = nn.Sequential(gates.input, nn.Sigmoid())
            parts[f"forget_gate_{modality}"] = nn.Sequential(gates.forget, nn.Sigmoid())
            parts[f"tanh_{modality}"] = nn.Sequential(gates.candidate, nn.Tanh())
    module: Any = type(kind, (nn.Module,), {"__module__": "__main__"})()
    for name, part in parts.items():
        module.add_module(name, part)
    return module.eval()


@contextlib.contextmanager
def found_in_main(kind: type) -> Iterator[None]:
    """Pickle refuses a class that it cannot find where the class says it is; what was there comes back."""
    home = vars(sys.modules["__main__"])
    before = {kind.__name__: home[kind.__name__]} if kind.__name__ in home else {}
    home[kind.__name__] = kind
    try:
        yield
    finally:
        del home[kind.__name__]
        home.update(before)
