"""What all tiny checkpoints share: their widths, and how they are written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

WIDTHS = {"speech": 32, "picture": 1000, "text": 24}
"""Of the tiny HuBERT and wav2vec2, of the EfficientNet, which keeps its classes, and of the tiny sentence encoders."""


def save_pickled(state: dict[str, torch.Tensor], file: Path) -> None:
    import torch

    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({key: tensor.clone() for key, tensor in state.items()}, file)


def write_json(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
