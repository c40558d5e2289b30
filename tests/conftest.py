"""What several test modules share: tiny encoders in the layout of the hub, a few spoken clips, a tiny CLASP model.

Heavy libraries are imported inside the fixtures, so that a test of the files around the library does not wait for them.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import pytest

if TYPE_CHECKING:
    from datasets import Dataset

    from clasp_lib import CLASP
    from clasp_lib.encoders import SpectrogramEncoder, SpeechEncoder, TextEncoder

Encoders: TypeAlias = "tuple[SpeechEncoder, SpectrogramEncoder, TextEncoder]"
RATE = 16_000


SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (32, 32, 32),
    "conv_kernel": (40, 8, 4),
    "conv_stride": (20, 8, 2),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "initializer_range": 0.2,
}
"""The shape of every tiny HuBERT and wav2vec2 of the tests."""


class Tiny(NamedTuple):
    """Folders with random checkpoints: HuBERT (layer norm), wav2vec2 (group norm), EfficientNet, sentence encoder."""

    hubert: Path
    wav2vec2: Path
    efficientnet: Path
    sentences: Path


class Clip(NamedTuple):
    """What is said, and how it sounds at 16 kHz."""

    text: str
    samples: np.ndarray


def pytest_configure() -> None:
    """No test reads from the hub: whatever is missing must fail here as it does without a network."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of corpora and recordings that only developers have."""
    folder = os.environ.get("CLASP_TEST_DATA")
    if not folder:
        pytest.skip("CLASP_TEST_DATA is not set: it names a folder of corpora and recordings that do not ship")
    return Path(folder)


@pytest.fixture(scope="session")
def spoken() -> Dataset:
    """The test part of Pocket Brown, spoken anew: nothing here was stored by an earlier run."""
    from clasp_lib import get_profile
    from clasp_lib.speech_brown import build_speech_brown

    profile = get_profile("pocket")
    only_test = {"train": 0, "validation": 0, "test": profile.voices_per_sentence["test"]}
    return build_speech_brown(
        profile.sentences(), profile.synthesizer(), voices_per_sentence=only_test, seed=profile.seed
    ).dataset["test"]


def real_texts(test_data: Path, language: str) -> list[str]:
    """What 100 volunteers of Common Voice read."""
    file = test_data / "real_speech" / "common_voice_100" / language / "metadata.csv"
    if not file.is_file():
        pytest.skip(f"{file} is missing")
    with open(file, encoding="utf-8-sig", newline="") as rows:
        return [row["text"] for row in csv.DictReader(rows)]


@pytest.fixture(scope="session")
def clips() -> list[Clip]:
    """Six sentences of different length, each in another voice."""
    from clasp_lib.synthesis import ESpeak, draw_voices

    texts = [
        "The ferry left at dawn.",
        "Nobody had asked the baker why his window stayed dark all week.",
        "Rain.",
        "A committee of seven read the report twice and found nothing to change in it.",
        "She folded the map, wrongly.",
        "Under the bridge, somebody was teaching a parrot to count backwards from twenty.",
    ]
    engine = ESpeak(RATE)
    return [Clip(t, engine.synthesize(t, v)) for t, v in zip(texts, draw_voices("test", len(texts)), strict=True)]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Make the four checkpoints once; their weights are random, their files are laid out as the hub's are."""
    import timm
    import torch
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import (
        BertConfig,
        BertModel,
        HubertConfig,
        HubertModel,
        PreTrainedTokenizerFast,
        Wav2Vec2Config,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2Model,
    )

    folder = tmp_path_factory.mktemp("tiny")
    paths = Tiny(*(folder / name for name in Tiny._fields))
    torch.manual_seed(0)

    hubert = HubertConfig(**SMALL, feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True)
    HubertModel(hubert).save_pretrained(paths.hubert)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(paths.hubert)
    Wav2Vec2Model(Wav2Vec2Config(**SMALL, feat_extract_norm="group")).save_pretrained(paths.wav2vec2)
    Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(paths.wav2vec2)

    normal = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "input_size": (3, 64, 96)}
    picture = timm.create_model("test_efficientnet", num_classes=20, pretrained_cfg_overlay=normal)
    with torch.no_grad():
        for name, weights in picture.named_parameters():
            if name == "classifier.weight":
                weights.mul_(50)  # as it comes, all vectors are close to zero
    timm.models.save_for_hf(picture, str(paths.efficientnet), model_config=normal, safe_serialization=True)

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    bert = folder / "bert"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **special).save_pretrained(bert)
    BertModel(
        BertConfig(
            vocab_size=len(words),
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            max_position_embeddings=64,
            initializer_range=0.2,
        )
    ).save_pretrained(bert)
    SentenceTransformer(str(bert), device="cpu").save(str(paths.sentences))  # mean pooling is its default
    return paths


@pytest.fixture(scope="session")
def encoders(tiny: Tiny) -> Encoders:
    """The tiny encoders, loaded: 32 for speech, 20 for the picture, 24 for text. Not to be changed by a test."""
    from clasp_lib.encoders import SpectrogramEncoder, SpeechEncoder, TextEncoder

    return (
        SpeechEncoder(str(tiny.hubert), device="cpu"),
        SpectrogramEncoder(str(tiny.efficientnet), device="cpu"),
        TextEncoder(str(tiny.sentences), device="cpu"),
    )


def tiny_model(encoders: Encoders, fusion: str = "concatenation", seed: int = 0) -> CLASP:
    """A CLASP model with random weights on the tiny encoders."""
    import torch

    from clasp_lib import CLASP
    from clasp_lib.fusion import build_fusion

    torch.manual_seed(seed)
    speech, picture, text = encoders
    network = build_fusion(fusion, speech.dimension, picture.dimension, text.dimension)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_var.fill_(0.01)  # as if trained: fresh statistics would make all vectors nearly the same
    return CLASP(network, speech, picture, text, fusion)


@pytest.fixture(scope="session")
def model(encoders: Encoders) -> CLASP:
    """One such model for tests that do not change it."""
    return tiny_model(encoders)
