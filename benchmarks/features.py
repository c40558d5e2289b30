"""Feature extraction: batches against one clip at a time, and a run that was stopped against one that was not.

The first uses HuBERT-large's own architecture with random weights, on clips of different length, so that what is
measured is the work of the published encoder.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from summary import Comparison, keep
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

from clasp_lib import get_profile
from clasp_lib.encoders import SpeechEncoder
from clasp_lib.features import extract_features
from clasp_lib.speech_brown import build_speech_brown

LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
ON_GPU = torch.cuda.is_available()
CLIPS, BATCH = (512, 32) if ON_GPU else (8, 4)


def hubert_large(folder: Path) -> SpeechEncoder:
    """The architecture of facebook/hubert-large-ls960-ft, random weights; in half precision on a GPU."""
    config = HubertConfig(**LARGE, feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True)
    HubertModel(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return SpeechEncoder(str(folder), precision="mixed")


def timed(work) -> tuple[object, float]:
    """What `work` returns, and the seconds that it takes."""
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


def batches(folder: Path) -> Comparison:
    """Time both ways on the same clips."""
    encoder, rng = hubert_large(folder), np.random.default_rng(0)
    waves = [rng.standard_normal(n).astype(np.float32) for n in rng.integers(24_000, 80_000, CLIPS)]
    encoder.encode(waves[:BATCH], BATCH)  # warm up
    together, batched = timed(lambda: encoder.encode(waves, BATCH))
    alone, single = timed(lambda: np.concatenate([encoder.encode([wave]) for wave in waves]))
    speech = sum(map(len, waves)) / 16_000
    assert np.abs(together - alone).max() < (0.1 if ON_GPU else 1e-3)
    print(f"HuBERT-large, random weights, on {encoder.device}: {CLIPS} clips, {speech:.0f} s of noise")
    print(f"in batches of {BATCH}: {batched:.1f} s, {speech / batched:.1f} x real time")
    print(f"one at a time:    {single:.1f} s, {speech / single:.1f} x real time")
    print(f"ratio {single / batched:.2f}")
    sides = (f"in batches of {BATCH}", batched, "one clip at a time", single)
    return Comparison(f"HuBERT-large's architecture, {CLIPS} clips, {encoder.device}", *sides, "s", single / batched)


def resuming(folder: Path) -> list[Comparison]:
    """Extract the features of some clips, with half of them stored before, and with all."""
    profile = get_profile("pocket")
    only_test = {"train": 0, "validation": 0, "test": 1}
    clips = build_speech_brown(profile.sentences()[::3], profile.synthesizer(), voices_per_sentence=only_test)
    clips, encoders = clips.dataset["test"], profile.encoders()
    extract_features(clips.select(range(16)), *encoders)  # warm up
    _, fresh = timed(lambda: extract_features(clips, *encoders, folder=folder / "fresh"))
    extract_features(clips.select(range(len(clips) // 2)), *encoders, folder=folder / "half")
    _, half = timed(lambda: extract_features(clips, *encoders, folder=folder / "half"))
    _, whole = timed(lambda: extract_features(clips, *encoders, folder=folder / "fresh"))
    print(f"pocket encoders: {len(clips)} clips, {sum(clips['duration']):.0f} s of speech")
    print(f"nothing stored: {fresh:.2f} s, half of it: {half:.2f} s, all of it: {whole:.2f} s")
    print(f"ratios {fresh / half:.1f} and {fresh / whole:.0f}")
    return [
        Comparison(f"Pocket features of {len(clips)} clips", ours, seconds, "from nothing", fresh, "s", fresh / seconds)
        for ours, seconds in (("half of them stored before", half), ("all of them stored before", whole))
    ]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        compared = [batches(Path(temporary) / "hubert"), *resuming(Path(temporary))]
    keep("features", "all three encoders, or the speech encoder alone", compared)
