"""`pocket-ctc`: HuBERT's architecture in small, trained to write down what it hears and nothing else.

It is asked at three depths. A low layer names the phone that is heard every 10 ms: HuBERT (Hsu et al. 2021) learns to
name clusters of frames there; a synthesiser knows the phones. A middle layer spells (connectionist temporal
classification, CTC; Graves et al. 2006), and the last one writes word pieces, by CTC too (hierarchical CTC; Sanabria
and Metze 2018), and says which word is being spoken. The mean of its frames says which words the clip has: the mean is
what CLASP will keep of a clip, and without this last task it says little more than which letters are frequent. Clips
without times teach what needs none. Nothing here ever sees the sentence space that CLASP maps into: that is the point.

The first convolution is 400 samples wide with a step of 160, like the frames of a spectrogram, and two more halve the
rate twice, to 25 frames a second. That makes it about ten times cheaper than HuBERT's seven narrow convolutions.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from clasp_lib.audio import SAMPLING_RATE
from clasp_lib.encoders.checkpoints import chosen_device
from clasp_lib.pretraining.clips import Clips
from clasp_lib.pretraining.loop import Batch, LoopSettings, batches, collate, run
from clasp_lib.provenance import write_record
from clasp_lib.synthesis import Mark
from clasp_lib.transcription import count_errors, greedy, spelled

STEP, CENTRE, PHONES_A_FRAME = 640, 680, 4
"""Samples from one frame to the next, the middle of what the first frame hears, and phone labels a frame."""

LETTERS = " abcdefghijklmnopqrstuvwxyz'"
"""CTC classes 1 to 28; class 0 is the blank."""


WEIGHTS = {"phone_loss": 0.4, "letter_loss": 0.3, "piece_loss": 0.5, "word_loss": 0.2, "bag_loss": 0.2}
"""Of the five terms of the loss."""

_CARD = """---
license: mit
language: en
library_name: transformers
pipeline_tag: automatic-speech-recognition
tags: [hubert, ctc]
---

# pocket-ctc

HuBERT's architecture in small, trained on transcription only, with its CTC head of 512 word pieces; the blank is the
padding token. Loads with `AutoModelForCTC`, `AutoTokenizer` and `AutoFeatureExtractor`, or with
`clasp_lib.transcription.Transcriber("pocket-ctc")`; without the head, with
`clasp_lib.encoders.SpeechEncoder("pocket-ctc")`.

Data, seeds, hours and curves are in `../reports/ctc.json` and `../reports/ctc.jsonl`; measures, limits and licence
(MIT) in `../README.md`.
"""

IGNORED = -100
"""The target that cross-entropy skips."""


@dataclass(frozen=True)
class SpeechRecipe:
    """The network, and how it is trained.

    Attributes:
        phone_layer, letter_layer: which layers name phones and letters; pieces and words are the last one's.
        pieces: word pieces. words: the most frequent words of the training texts.
    """

    loop: LoopSettings
    hidden_size: int = 256
    layers: int = 6
    phone_layer: int = 2
    letter_layer: int = 3
    pieces: int = 512
    words: int = 12_000


def build_config(recipe: SpeechRecipe):
    """The `HubertConfig` of the pocket encoder; layer norm keeps clips independent of their batch.

    There is no dropout: a run this short sees each clip a few times at most, and drawing dropout's random numbers takes
    a third of a training step on a CPU.
    """
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
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=16,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        feat_proj_dropout=0.0,
        final_dropout=0.0,
        layerdrop=0.0,
        mask_time_prob=0.05,
        mask_time_length=5,
        vocab_size=recipe.pieces,
        pad_token_id=0,  # transformers' name for the blank of CTC
    )


def train_pieces(texts: list[str], n: int):
    """Byte-pair word pieces on spelled text, as a tokenizer of transformers; "▁" marks the start of a word."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=n, special_tokens=["<blank>"], show_progress=False)
    tokenizer.train_from_iterator(map(spelled, texts), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<blank>")


class Answers(NamedTuple):
    """What the heads say of a batch; `frames` counts the real ones of each clip."""

    phones: torch.Tensor  # (clips, frames, 4, phones): four a frame, one each 10 ms
    letters: torch.Tensor  # (clips, frames, letters)
    pieces: torch.Tensor  # (clips, frames, pieces)
    states: torch.Tensor  # (clips, frames, hidden): of the last layer, for the word head
    frames: torch.Tensor  # (clips,)
    bag: torch.Tensor  # (clips, words): from the mean over the frames


class SpeechLearner(nn.Module):
    """The encoder with its five heads."""

    def __init__(self, recipe: SpeechRecipe, phones: int) -> None:
        from transformers import HubertForCTC

        super().__init__()
        self.phone_layer, self.letter_layer = recipe.phone_layer, recipe.letter_layer
        model: Any = HubertForCTC(build_config(recipe))
        model.set_attn_implementation("eager")  # on a CPU quicker than the fused one, whose backward pass is slow
        self.hubert, self.piece_head = model.hubert, model.lm_head
        width = recipe.hidden_size
        self.phone_head = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, PHONES_A_FRAME * phones), nn.Unflatten(-1, (PHONES_A_FRAME, phones))
        )
        self.letter_head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, len(LETTERS) + 1))
        self.word_head = nn.Linear(width, recipe.words)
        # Means of clips differ by little beside what they share: batch norm brings out the difference.
        self.bag_head = nn.Sequential(nn.BatchNorm1d(width), nn.Linear(width, recipe.words))

    def forward(self, waves: torch.Tensor, mask: torch.Tensor) -> Answers:
        """Waves and mask (clips, samples) to answers."""
        out = self.hubert(waves, attention_mask=mask, output_hidden_states=True)
        low, middle, top = out.hidden_states[self.phone_layer], out.hidden_states[self.letter_layer], out[0]
        frames = self.hubert._get_feat_extract_output_lengths(mask.sum(1)).long()
        means = mean_over_frames(top, frames)
        self.bag_head[0].train(self.training and len(means) > 1)  # one clip has no variance
        bag = self.bag_head(means)
        return Answers(self.phone_head(low), self.letter_head(middle), self.piece_head(top), top, frames, bag)


def mean_over_frames(states: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """States (clips, frames, hidden), of which each clip has so many real ones, to their means (clips, hidden)."""
    real = torch.arange(states.shape[1], device=states.device) < frames[:, None]  # (clips, frames)
    return (states.float() * real[:, :, None]).sum(1) / frames[:, None]


class Targets:
    """What is to be answered for each clip, in numbers."""

    def __init__(self, clips: Clips, pieces: Any, words: int) -> None:
        counts = collections.Counter(spelled(mark.symbol) for marks in clips.words for mark in marks)
        vocabulary = {word: n for n, (word, _) in enumerate(counts.most_common(words))}
        symbols = sorted({mark.symbol for marks in clips.phones for mark in marks})
        self.symbols = {symbol: n for n, symbol in enumerate(symbols)}
        self.phones = [_numbered(marks, self.symbols) for marks in clips.phones]
        self.words = [
            _numbered([mark._replace(symbol=spelled(mark.symbol)) for mark in marks], vocabulary)
            for marks in clips.words
        ]
        self.lengths = [len(samples) for samples in clips.samples]
        self.letters = [torch.tensor([LETTERS.index(c) + 1 for c in spelled(text)]) for text in clips.texts]
        self.pieces = [torch.tensor(pieces.encode(spelled(text))) for text in clips.texts]
        self.bags = [
            np.array(sorted({vocabulary[word] for word in spelled(text).split() if word in vocabulary}), dtype=np.int64)
            for text in clips.texts
        ]

    def phones_of(self, clip: int, frames: int, stretch: float) -> np.ndarray:
        """The phone in the middle of each 10 ms: (frames, 4)."""
        starts, numbers = self.phones[clip]
        if not len(starts):
            return np.full((frames, PHONES_A_FRAME), IGNORED)
        middles = CENTRE + STEP * np.arange(frames)[:, None] + STEP // 4 * (np.arange(PHONES_A_FRAME) - 1.5)
        return numbers[np.maximum(np.searchsorted(starts * stretch, middles, side="right") - 1, 0)]

    def words_of(
        self, clip: int, frames: int, stretch: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """A random frame within each word that the vocabulary knows, and the word's number: (words,) each."""
        starts, numbers = self.words[clip]
        ends = np.append(starts[1:], self.lengths[clip])
        moments = (starts + rng.random(len(starts)) * (ends - starts)) * stretch
        at = np.clip(np.rint((moments - CENTRE) / STEP).astype(int), 0, frames - 1)
        return at[numbers != IGNORED], numbers[numbers != IGNORED]


def _numbered(marks: list[Mark], numbers: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Starts and numbers of symbols, (marks,) each."""
    starts = np.array([mark.start for mark in marks], dtype=np.int64)
    return starts, np.array([numbers.get(mark.symbol, IGNORED) for mark in marks], dtype=np.int64)


def pretrain_speech(
    train: Clips, held_out: Mapping[str, Clips], folder: Path, recipe: SpeechRecipe, start: Path | None = None
) -> Path:
    """Train, export to `folder/ctc` in the layout of transformers, and return that folder.

    Args:
        held_out: clips to measure the learning curve on, by name.
        start: a finished encoder to go on from, instead of random weights; its word pieces are kept.
    """
    from transformers import AutoTokenizer

    torch.manual_seed(recipe.loop.seed)
    if start and (start / "tokenizer.json").exists():
        pieces = AutoTokenizer.from_pretrained(start, trust_remote_code=False)
        for option in ("is_local", "local_files_only"):  # how it was loaded is no property of it
            pieces.init_kwargs.pop(option, None)
    else:
        pieces = train_pieces(train.texts, recipe.pieces)
    targets = Targets(train, pieces, recipe.words)
    learner = SpeechLearner(recipe, len(targets.symbols))
    if start:
        _load(learner, start)
    learner.to(chosen_device(None))
    if recipe.loop.compiled:
        learner.hubert.encoder.compile(dynamic=True)
    rng = np.random.default_rng(recipe.loop.seed)

    def losses(numbers: np.ndarray, batch: Batch) -> dict[str, torch.Tensor]:
        answers = learner(batch.waves, batch.mask)
        device, frames = answers.frames.device, answers.frames.tolist()
        phones = np.full(answers.phones.shape[:3], IGNORED)
        rows, moments, words = [], [], []
        for row, (clip, n, stretch) in enumerate(zip(numbers, frames, batch.stretch, strict=True)):
            phones[row, :n] = targets.phones_of(clip, n, stretch)
            at, said = targets.words_of(clip, n, stretch, rng)
            rows.append(np.full(len(at), row))
            moments.append(at)
            words.append(said)
        guesses = learner.word_head(answers.states[np.concatenate(rows), np.concatenate(moments)])
        return {
            "phone_loss": cross_entropy(answers.phones, torch.from_numpy(phones).to(device)),
            "letter_loss": ctc(answers.letters, answers.frames, [targets.letters[i] for i in numbers]),
            "piece_loss": ctc(answers.pieces, answers.frames, [targets.pieces[i] for i in numbers]),
            "word_loss": cross_entropy(guesses, torch.from_numpy(np.concatenate(words)).to(device)),
            "bag_loss": bag_loss(answers.bag, [targets.bags[i] for i in numbers]),
        }

    def measure() -> dict[str, float]:
        rates = {}
        for name, clips in held_out.items():
            errors = count_errors(list(map(spelled, clips.texts)), transcribe(learner, clips, pieces))
            for unit in ("letter", "word"):
                rate = errors[f"{unit}_errors"].sum() / errors[f"{unit}s"].sum()
                rates[f"{name}_{unit}_error_rate"] = round(float(rate), 4)
        return rates

    progress, measured = run(learner, losses, measure, train, folder, "ctc", recipe.loop)
    report = {
        "recipe": asdict(recipe),
        "parameters": sum(p.numel() for p in learner.hubert.parameters()),
        "train_clips": len(train),
        "train_hours": round(train.hours, 2),
        "clips_seen": int(progress["seen"]),
        "held_out_clips": {name: len(clips) for name, clips in held_out.items()},
        "error_rates": measured,
    }
    write_record(folder / "ctc.json", report)
    return export(learner, pieces, folder / "ctc")


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of logits (..., classes) over the targets (...) that are not `IGNORED`; 0 if all are."""
    total = nn.functional.cross_entropy(
        logits.float().flatten(0, -2), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return total / (targets != IGNORED).sum().clamp_min(1)


def bag_loss(logits: torch.Tensor, bags: list[np.ndarray]) -> torch.Tensor:
    """Cross-entropy of logits (clips, words) against an equal share for each word of a clip's bag."""
    sizes = np.array(list(map(len, bags)))
    found = logits.float().log_softmax(-1)[np.repeat(np.arange(len(bags)), sizes), np.concatenate(bags)]
    shares = torch.from_numpy(np.repeat(1 / np.maximum(sizes, 1), sizes).astype(np.float32))
    return -(found * shares.to(logits.device)).sum() / len(bags)


def ctc(logits: torch.Tensor, frames: torch.Tensor, targets: list[torch.Tensor]) -> torch.Tensor:
    """CTC loss (Graves et al. 2006) of logits (clips, frames, classes), per target symbol, averaged over clips."""
    lengths = torch.tensor([len(t) for t in targets], device=logits.device)
    log_probs = logits.float().log_softmax(-1).transpose(0, 1)  # (frames, clips, classes)
    flat = torch.cat(targets).to(logits.device)
    return nn.functional.ctc_loss(log_probs, flat, frames, lengths, zero_infinity=True)


@torch.no_grad()
def transcribe(learner: SpeechLearner, clips: Clips, pieces: Any) -> list[str]:
    """What the piece head writes, clip by clip."""
    learner.eval()
    device = next(learner.parameters()).device
    texts = [""] * len(clips)
    for batch in batches([len(s) for s in clips.samples], 110.0, np.random.default_rng(0)):
        waves, mask, _ = collate([clips.samples[i] for i in batch])
        answers = learner(waves.to(device), mask.to(device))
        for i, symbols in zip(batch, greedy(answers.pieces, answers.frames.tolist()), strict=True):
            texts[i] = pieces.decode(symbols).strip()
    learner.train()
    return texts


def export(learner: SpeechLearner, pieces: Any, folder: Path) -> Path:
    """Write the encoder with its word-piece head, half precision, as transformers stores any `HubertForCTC`."""
    from transformers import HubertForCTC, Wav2Vec2FeatureExtractor

    model = HubertForCTC(learner.hubert.config)
    model.hubert.load_state_dict(learner.hubert.state_dict())
    model.lm_head.load_state_dict(learner.piece_head.state_dict())
    model.eval().half().save_pretrained(folder)
    pieces.save_pretrained(folder)
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=SAMPLING_RATE, do_normalize=True, return_attention_mask=True)
    extractor.save_pretrained(folder)
    (folder / "README.md").write_text(_CARD, encoding="utf-8")
    return folder


def _load(learner: SpeechLearner, folder: Path) -> None:
    """Weights of an encoder that `export` wrote, or of a HuBERT of the same shape without a head."""
    from transformers import AutoConfig, HubertForCTC, HubertModel

    if "HubertForCTC" in (AutoConfig.from_pretrained(folder, trust_remote_code=False).architectures or []):
        stored = HubertForCTC.from_pretrained(folder, dtype=torch.float32)
        learner.piece_head.load_state_dict(stored.lm_head.state_dict())
        learner.hubert.load_state_dict(stored.hubert.state_dict())
    else:
        learner.hubert.load_state_dict(HubertModel.from_pretrained(folder, dtype=torch.float32).state_dict())
