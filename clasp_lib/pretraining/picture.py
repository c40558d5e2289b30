"""The pocket EfficientNet: a small timm EfficientNet that names the words it sees in a spectrogram.

ImageNet's 1 000 classes say what is in a photograph; here 500 classes say which frequent words are in a clip. Several
may be right at once, so each class has its own yes or no (binary cross-entropy). Like the speech encoder, it learns
from transcripts alone and never sees the sentence space.
"""

from __future__ import annotations

import collections
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from clasp_lib.encoders.checkpoints import chosen_device
from clasp_lib.encoders.spectrogram import picture
from clasp_lib.folders import replacing
from clasp_lib.pretraining.clips import Clips
from clasp_lib.provenance import write_record
from clasp_lib.transcription import spelled


@dataclass(frozen=True)
class PictureRecipe:
    """`model` is timm's TinyNet-E, an EfficientNet-B0 shrunk in resolution, depth and width (Han et al. 2020)."""

    minutes: float = 10.0
    model: str = "tinynet_e"
    words: int = 500
    size: tuple[int, int] = (128, 256)
    batch_size: int = 48
    learning_rate: float = 3e-3
    seed: int = 0


def pretrain_picture(train: Clips, held_out: dict[str, Clips], folder: Path, recipe: PictureRecipe) -> Path:
    """Train and export to `folder/efficientnet` in timm's layout for the hub; pictures are drawn once and kept."""
    import timm
    from timm.models import save_for_hf

    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    device = chosen_device(None)
    counts = collections.Counter(word for text in train.texts for word in set(spelled(text).split()))
    words = [word for word, _ in counts.most_common(recipe.words)]
    normal = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "input_size": (3, *recipe.size)}
    model = timm.create_model(recipe.model, num_classes=len(words), drop_rate=0.1, pretrained_cfg_overlay=normal)
    model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), recipe.learning_rate, weight_decay=0.02)
    pictures = _draw(train, folder / "pictures.npy", recipe.size)
    targets = _targets(train.texts, words)
    elapsed, step, log_file = 0.0, 0, folder / "picture.jsonl"
    budget = recipe.minutes * 60
    while elapsed < budget:
        order = rng.permutation(len(train))
        for start in range(0, len(order) - recipe.batch_size, recipe.batch_size):
            began, batch = time.monotonic(), np.sort(order[start : start + recipe.batch_size])
            scale = min(1.0, (step + 1) / 100) * 0.5 * (1 + np.cos(np.pi * min(1, elapsed / budget)))
            optimizer.param_groups[0]["lr"] = recipe.learning_rate * scale
            shifted = np.roll(pictures[batch], rng.integers(-4, 5), axis=1)  # a shift in pitch
            with torch.autocast(device.type, torch.bfloat16):
                logits = model(_pixels(shifted, device))
            loss = functional.binary_cross_entropy_with_logits(logits.float(), targets[batch].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step, elapsed = step + 1, elapsed + time.monotonic() - began
            if step % 50 == 0:
                line = {"step": step, "minutes": round(elapsed / 60, 2), "loss": round(loss.item(), 5)}
                print(json.dumps(line), flush=True)
                with open(log_file, "a", encoding="utf-8") as log:
                    log.write(json.dumps(line) + "\n")
            if elapsed >= budget:
                break
    report = {"recipe": asdict(recipe), "parameters": sum(p.numel() for p in model.parameters()), "steps": step}
    report["average_precision"] = {name: _precision(model, clips, words, recipe) for name, clips in held_out.items()}
    write_record(folder / "picture.json", report)
    print(json.dumps(report), flush=True)
    model.cpu().to(memory_format=torch.contiguous_format).eval()  # safetensors takes no other order
    save_for_hf(
        model, str(folder / "efficientnet"), model_config={"label_names": words, **normal}, safe_serialization=True
    )
    return folder / "efficientnet"


def _draw(clips: Clips, file: Path, size: tuple[int, int]) -> np.ndarray:
    """All pictures as uint8 (clips, height, width), memory-mapped; drawn once."""
    if not file.exists():
        about = {"descr": "|u1", "fortran_order": False, "shape": (len(clips), *size)}
        with replacing(file) as opened:
            np.lib.format.write_array_header_1_0(opened, about)
            for samples in clips.samples:
                opened.write(_grey(samples, size).tobytes())
    return np.load(file, mmap_mode="r")


def _grey(samples: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return (picture(samples.astype(np.float32) / 32768, size) * 255).round().byte().numpy()


def _pixels(grey: np.ndarray, device: torch.device) -> torch.Tensor:
    """uint8 (clips, height, width) -> (clips, 3, height, width) in [-1, 1]."""
    pixels = torch.from_numpy(np.ascontiguousarray(grey)).to(device).float() / 127.5 - 1
    return pixels[:, None].expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def _targets(texts: list[str], words: list[str]) -> torch.Tensor:
    column = {word: i for i, word in enumerate(words)}
    targets = torch.zeros(len(texts), len(words))
    for row, text in enumerate(texts):
        for word in spelled(text).split():
            if word in column:
                targets[row, column[word]] = 1.0
    return targets


@torch.no_grad()
def _precision(model: torch.nn.Module, clips: Clips, words: list[str], recipe: PictureRecipe) -> dict[str, float]:
    """Average precision over all (clip, word) pairs, and the share of positives, which is what chance reaches."""
    from sklearn.metrics import average_precision_score

    model.eval()
    device = next(model.parameters()).device
    grey = np.stack([_grey(samples, recipe.size) for samples in clips.samples])
    rows = [model(_pixels(grey[i : i + 64], device)).float().cpu() for i in range(0, len(grey), 64)]
    targets = _targets(clips.texts, words).numpy()
    score = average_precision_score(targets.ravel(), torch.cat(rows).numpy().ravel())
    return {"clips": len(clips), "average_precision": round(float(score), 4), "chance": round(float(targets.mean()), 4)}
