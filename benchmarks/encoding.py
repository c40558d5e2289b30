"""Encoding clips: length-sorted batches against one clip at a time, same clips and weights, one run."""

import time

import numpy as np
import torch
from summary import Comparison, keep

from clasp_lib.encoders import SpeechEncoder
from clasp_lib.synthesis import ESpeak, draw_voices

CLIPS, BATCH = 96, 16
TEXT = "The harbour master closed the gates because the river was still rising at noon"


def main() -> None:
    """Time both, check that the vectors agree, print the ratio and the multiple of real time."""
    engine, words = ESpeak(), TEXT.split()
    voices = draw_voices("test", CLIPS)
    waves = [engine.synthesize(" ".join(words[: 4 + i % 11]), voice) for i, voice in enumerate(voices)]
    seconds = sum(map(len, waves)) / engine.sampling_rate
    encoder = SpeechEncoder("pocket-ctc")
    encoder.encode(waves[:BATCH], BATCH)  # warm up
    began = time.perf_counter()
    batched = encoder.encode(waves, BATCH)
    in_batches = time.perf_counter() - began
    began = time.perf_counter()
    single = np.concatenate([encoder.encode([wave]) for wave in waves])
    one_by_one = time.perf_counter() - began
    torch.set_num_threads(1)
    began = time.perf_counter()
    encoder.encode(waves, BATCH)
    on_one_core = time.perf_counter() - began
    assert np.abs(batched - single).max() < 1e-4
    setting = f"{CLIPS} clips, {seconds:.0f} s of speech, on {encoder.device}"
    print(setting)
    print(f"in batches of {BATCH}: {in_batches:.2f} s, {seconds / in_batches:.0f} x real time")
    print(f"one at a time:    {one_by_one:.2f} s, {seconds / one_by_one:.0f} x real time")
    print(f"in batches, 1 thread: {on_one_core:.2f} s, {seconds / on_one_core:.0f} x real time")
    print(f"ratio {one_by_one / in_batches:.2f}")
    sides = (f"in batches of {BATCH}", in_batches, "one at a time", one_by_one)
    keep("encoding", setting, [Comparison("Speech vectors of clips", *sides, "s", one_by_one / in_batches)])


if __name__ == "__main__":
    main()
