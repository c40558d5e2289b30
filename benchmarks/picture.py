"""Drawing the reference's spectrogram picture: matplotlib against torch operations, same clips, one thread, one run."""

import io
import os
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from summary import Comparison, keep

from clasp_lib.encoders.drawing import PICTURE_RATE, draw, draw_with_matplotlib
from clasp_lib.synthesis import ESpeak, draw_voices

CLIPS, BATCH, REPEATS = 22, 11, 9
GOAL = 100  # times as fast
TEXT = (
    "The harbour master closed the gates because the river was still rising at noon, and sent his two sons to count "
    "the boats that had not come back from the fair on the other bank"
)
"""Cut to 9 to 29 words, so that the clips have 19 on average, as in Speech Brown."""


def through_png(image: np.ndarray) -> np.ndarray:
    """Write `image` as a PNG file in memory and read it back, as the reference does on disk."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return np.array(Image.open(file))


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The median time that `work` takes."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def main() -> None:
    """Time both, check that the pictures agree, print clips a second and the ratios."""
    torch.set_num_threads(1)
    engine, words = ESpeak(PICTURE_RATE), TEXT.split()
    voices = draw_voices("test", CLIPS)
    waves = [engine.synthesize(" ".join(words[: 9 + 2 * (i % 11)]), voice) for i, voice in enumerate(voices)]
    waves.sort(key=len)
    batches = [waves[start : start + BATCH] for start in range(0, CLIPS, BATCH)]
    drawn = torch.cat([draw(batch) for batch in batches]).numpy()  # also warms up
    for image, wave in zip(drawn[::8], waves[::8], strict=True):
        assert np.abs(image.astype(int) - draw_with_matplotlib(wave, labels=False)).mean() < 1

    drawing = file = tensors = 0.0
    for batch in batches:  # in turns, so that both sides meet the same disturbances
        images: list[np.ndarray] = []
        drawing += seconds(lambda batch=batch, to=images: to.extend(map(draw_with_matplotlib, batch)), 1)
        file += seconds(lambda images=images: list(map(through_png, images)), 1)
        tensors += seconds(lambda batch=batch: draw(batch), REPEATS)
    with_file = drawing + file
    setting = f"{CLIPS} clips, {sum(map(len, waves)) / PICTURE_RATE:.0f} s of speech"
    print(f"{setting}, one thread")
    print(f"matplotlib, through a PNG file in memory: {CLIPS / with_file:8.1f} clips/s")
    print(f"matplotlib, without it:                   {CLIPS / drawing:8.1f} clips/s")
    print(f"torch, in batches of {BATCH}:                   {CLIPS / tensors:8.1f} clips/s")
    print(f"ratio {with_file / tensors:.0f} with the file, {drawing / tensors:.0f} without")
    torch.set_num_threads(os.cpu_count() or 1)
    threaded = sum(seconds(lambda batch=batch: draw(batch), REPEATS) for batch in batches)
    print(f"torch, {torch.get_num_threads()} threads: {CLIPS / threaded:.1f} clips/s, ratio {with_file / threaded:.0f}")
    times = {"torch, one thread": tensors, f"torch, {torch.get_num_threads()} threads": threaded}
    if torch.cuda.is_available():
        whole = seconds(lambda: [draw(batch, "cuda")[0, 0, 0, 0].item() for batch in batches], REPEATS)
        print(f"torch, on {torch.cuda.get_device_name()}: {CLIPS / whole:.0f} clips/s, ratio {with_file / whole:.0f}")
        times[f"torch, on {torch.cuda.get_device_name()}"] = whole
    theirs = ("matplotlib through a PNG file, one thread", CLIPS / with_file, "clips/s")
    compared = [
        Comparison("The reference's spectrogram picture", name, CLIPS / spent, *theirs, with_file / spent, goal=GOAL)
        for name, spent in times.items()
    ]
    keep("picture", setting, compared)


if __name__ == "__main__":
    main()
