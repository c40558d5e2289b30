"""The pocket HuBERT: HuBERT's architecture in small, trained to write down what it hears.

Two CTC heads (Graves et al. 2006) teach it: letters on a middle layer, word pieces on the last one, so that
lower layers spell and the upper ones know words (hierarchical CTC; Sanabria and Metze 2018). Nothing here ever sees the
sentence space that CLASP maps into: that is the point of CLASP.

The first convolution is 400 samples wide with a step of 160, like the frames of a spectrogram, and two more halve the
rate twice, to 25 frames a second. That makes it about ten times cheaper than HuBERT's seven narrow convolutions.
"""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from clasp_lib.audio import SAMPLING_RATE
from clasp_lib.pretraining.clips import Clips, spelled

LETTERS = " abcdefghijklmnopqrstuvwxyz'"
"""CTC classes 1 to 28; class 0 is the blank."""


@dataclass(frozen=True)
class SpeechRecipe:
    """What the run depends on; `minutes` of training wherever it runs, spread over a cosine schedule."""

    minutes: float = 45.0
    hidden_size: int = 256
    layers: int = 6
    letter_layer: int = 3
    pieces: int = 512
    seconds_a_batch: float = 110.0
    learning_rate: float = 1.2e-3
    bfloat16: bool = True
    seed: int = 0


def build_config(recipe: SpeechRecipe):
    """The `HubertConfig` of the pocket encoder; layer norm keeps clips independent of their batch."""
    from transformers import HubertConfig

    return HubertConfig(
        hidden_size=recipe.hidden_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=4,
        intermediate_size=4 * recipe.hidden_size,
        conv_dim=(192, 192, 224),
        conv_kernel=(400, 3, 3),
        conv_stride=(160, 2, 2),
        conv_bias=True,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_conv_pos_embeddings=32,
        num_conv_pos_embedding_groups=16,
        hidden_dropout=0.05,
        attention_dropout=0.05,
        activation_dropout=0.05,
        feat_proj_dropout=0.0,
        final_dropout=0.0,
        layerdrop=0.0,
        mask_time_prob=0.05,
        mask_time_length=5,
        vocab_size=recipe.pieces,
    )


def train_pieces(texts: list[str], n: int):
    """Byte-pair word pieces (`tokenizers.Tokenizer`) on spelled text; a leading "▁" marks the start of a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=n, special_tokens=["<blank>"], show_progress=False)
    tokenizer.train_from_iterator(map(spelled, texts), trainer)
    return tokenizer


class SpeechLearner(nn.Module):
    """The encoder with its two CTC heads."""

    def __init__(self, recipe: SpeechRecipe) -> None:
        from transformers import HubertModel

        super().__init__()
        self.letter_layer = recipe.letter_layer
        self.hubert = HubertModel(build_config(recipe))
        self.letter_head = nn.Sequential(
            nn.LayerNorm(recipe.hidden_size), nn.Linear(recipe.hidden_size, len(LETTERS) + 1)
        )
        self.piece_head = nn.Linear(recipe.hidden_size, recipe.pieces)

    def forward(self, waves: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Waves and mask (clips, samples) -> letter and piece logits (clips, frames, classes), frames a clip."""
        out = self.hubert(waves, attention_mask=mask, output_hidden_states=True)
        frames = self.hubert._get_feat_extract_output_lengths(mask.sum(1)).long()  # type: ignore[arg-type]  # (clips,)
        return self.letter_head(out.hidden_states[self.letter_layer]), self.piece_head(out.last_hidden_state), frames


def pretrain_speech(train: Clips, held_out: dict[str, Clips], folder: Path, recipe: SpeechRecipe) -> Path:
    """Train, export to `folder/speech` in the layout of transformers, and return that folder.

    The state is saved every two minutes: a stopped run goes on from there and keeps its schedule.
    """
    torch.manual_seed(recipe.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder.mkdir(parents=True, exist_ok=True)
    pieces = train_pieces(train.texts, recipe.pieces)
    letters = [torch.tensor([LETTERS.index(c) + 1 for c in spelled(text)]) for text in train.texts]
    words = [torch.tensor(pieces.encode(spelled(text)).ids) for text in train.texts]
    learner = SpeechLearner(recipe).to(device)
    optimizer = torch.optim.AdamW(learner.parameters(), recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    elapsed, step, epoch, seen = 0.0, 0, 0, 0
    state_file, log_file = folder / "state.safetensors", folder / "speech.jsonl"
    if state_file.exists():
        progress = _load_state(state_file, learner, optimizer)
        elapsed, (step, epoch, seen) = progress["elapsed"], (int(progress[n]) for n in ("step", "epoch", "seen"))
    rng = np.random.default_rng([recipe.seed, epoch])
    budget, saved = recipe.minutes * 60, elapsed
    running: list[float] = []
    while elapsed < budget:
        epoch += 1
        for batch in batches([len(s) for s in train.samples], recipe.seconds_a_batch, rng):
            began = time.monotonic()
            done = elapsed / budget
            for group in optimizer.param_groups:
                group["lr"] = (
                    recipe.learning_rate * min(1.0, (step + 1) / 300) * 0.5 * (1 + math.cos(math.pi * min(done, 1)))
                )
            waves, mask = collate([train.samples[i] for i in batch], rng)
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bfloat16):
                letter_logits, piece_logits, frames = learner(waves.to(device), mask.to(device))
            letter_loss = ctc(letter_logits, frames, [letters[i] for i in batch])
            piece_loss = ctc(piece_logits, frames, [words[i] for i in batch])
            optimizer.zero_grad()
            (0.4 * letter_loss + 0.6 * piece_loss).backward()
            nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
            optimizer.step()
            step, seen = step + 1, seen + len(batch)
            elapsed += time.monotonic() - began
            running.append(piece_loss.item())
            if step % 100 == 0:
                line = {"step": step, "epoch": epoch, "minutes": round(elapsed / 60, 2), "clips": seen}
                line |= {"letter_loss": round(letter_loss.item(), 3), "piece_loss": round(float(np.mean(running)), 3)}
                running.clear()
                print(json.dumps(line), flush=True)
                with open(log_file, "a") as log:
                    log.write(json.dumps(line) + "\n")
            if elapsed - saved > 120 or elapsed >= budget:
                saved = elapsed
                progress = {"elapsed": elapsed, "step": step, "epoch": epoch, "seen": seen}
                _save_state(state_file, learner, optimizer, progress)
            if elapsed >= budget:
                break
    report = {
        "recipe": asdict(recipe),
        "parameters": sum(p.numel() for p in learner.hubert.parameters()),
        "train_clips": len(train),
        "train_hours": round(train.hours, 2),
        "clips_seen": seen,
        "error_rates": {name: error_rates(learner, clips, pieces) for name, clips in held_out.items()},
    }
    (folder / "speech.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report), flush=True)
    return export(learner, folder / "speech")


def _save_state(file: Path, learner: nn.Module, optimizer: torch.optim.Optimizer, progress: dict[str, float]) -> None:
    """Weights, AdamW's moments and where the run is, as safetensors; whole or not at all."""
    from safetensors.torch import save_file

    tensors = {f"learner.{name}": tensor.detach() for name, tensor in learner.state_dict().items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in moments.items()}
    metadata = {name: repr(value) for name, value in progress.items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, f"{file}.tmp", metadata=metadata)
    os.replace(f"{file}.tmp", file)


def _load_state(file: Path, learner: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The inverse of `_save_state`; returns the progress."""
    from safetensors import safe_open

    with safe_open(file, "pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        progress = {name: float(value) for name, value in stored.metadata().items()}
    prefix = "learner."
    learner.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, number, moment = name.split(".")
            state.setdefault(int(number), {})[moment] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return progress


def batches(lengths: list[int], seconds: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Shuffled batches of clips of similar length, each about `seconds` long in all, padding included."""
    noisy = np.asarray(lengths) * rng.uniform(0.9, 1.1, len(lengths))
    out: list[np.ndarray] = []
    current: list[int] = []
    longest = 0
    for i in np.argsort(noisy):
        longest = max(longest, lengths[i])
        if current and longest * (len(current) + 1) > seconds * SAMPLING_RATE:
            out.append(np.array(current))
            current, longest = [], lengths[i]
        current.append(i)
    out.append(np.array(current))
    return [out[i] for i in rng.permutation(len(out))]


def collate(clips: list[np.ndarray], rng: np.random.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad to one length, normalise each clip to zero mean and unit variance; with `rng`, add white noise to half of
    them at 5 to 35 dB. Returns waves and mask, (clips, samples)."""
    waves = torch.zeros(len(clips), max(map(len, clips)))
    mask = torch.zeros(len(clips), waves.shape[1], dtype=torch.long)
    for row, clip in enumerate(clips):
        wave = torch.from_numpy(clip.astype(np.float32))
        wave = (wave - wave.mean()) / (wave.std() + 1e-5)
        if rng is not None and rng.random() < 0.5:
            noise = torch.from_numpy(rng.standard_normal(len(clip), dtype=np.float32))
            wave = wave + noise * 10 ** (-rng.uniform(5, 35) / 20)
            wave = wave / wave.std()
        waves[row, : len(clip)] = wave
        mask[row, : len(clip)] = 1
    return waves, mask


def ctc(logits: torch.Tensor, frames: torch.Tensor, targets: list[torch.Tensor]) -> torch.Tensor:
    """CTC loss (Graves et al. 2006) of logits (clips, frames, classes), per target symbol, averaged over clips."""
    lengths = torch.tensor([len(t) for t in targets], device=logits.device)
    log_probs = logits.float().log_softmax(-1).transpose(0, 1)  # (frames, clips, classes)
    flat = torch.cat(targets).to(logits.device)
    return nn.functional.ctc_loss(log_probs, flat, frames, lengths, zero_infinity=True)


def greedy(logits: torch.Tensor, frames: torch.Tensor) -> list[list[int]]:
    """Best class of each frame, repeats merged, blanks dropped."""
    best = logits.argmax(-1).cpu()
    rows = [torch.unique_consecutive(row[:n]) for row, n in zip(best, frames.tolist(), strict=True)]
    return [row[row != 0].tolist() for row in rows]


@torch.no_grad()
def error_rates(learner: SpeechLearner, clips: Clips, pieces) -> dict[str, float]:
    """Letter error rate of the letter head, letter and word error rates of the piece head, on `clips`."""
    learner.eval()
    device = next(learner.parameters()).device
    said, by_letter, by_piece = [], [], []
    for batch in batches([len(s) for s in clips.samples], 110.0, np.random.default_rng(0)):
        waves, mask = collate([clips.samples[i] for i in batch])
        letter_logits, piece_logits, frames = learner(waves.to(device), mask.to(device))
        said += [spelled(clips.texts[i]) for i in batch]
        by_letter += ["".join(LETTERS[c - 1] for c in row).strip() for row in greedy(letter_logits, frames)]
        joined = ("".join(pieces.id_to_token(c) for c in row) for row in greedy(piece_logits, frames))
        by_piece += [text.replace("▁", " ").strip() for text in joined]
    learner.train()
    return {
        "clips": len(clips),
        "letter_error_rate": round(_error_rate(said, by_letter), 4),
        "piece_letter_error_rate": round(_error_rate(said, by_piece), 4),
        "piece_word_error_rate": round(_error_rate([s.split() for s in said], [s.split() for s in by_piece]), 4),
    }


def _error_rate(references: list, guesses: list) -> float:
    """Edit distance over reference length, both summed over all pairs."""
    errors = sum(_edit_distance(r, g) for r, g in zip(references, guesses, strict=True))
    return errors / max(1, sum(map(len, references)))


def _edit_distance(a, b) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def export(learner: SpeechLearner, folder: Path) -> Path:
    """Write the encoder without its heads, half precision, as transformers stores any HuBERT."""
    from transformers import Wav2Vec2FeatureExtractor

    encoder = learner.hubert.cpu().eval().half()
    encoder.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(
        sampling_rate=SAMPLING_RATE, do_normalize=True, return_attention_mask=True
    ).save_pretrained(folder)
    return folder
