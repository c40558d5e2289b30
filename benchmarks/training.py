"""Training a fusion: `train_fusion` against the reference's loop, and against the matrix products that it consists of.

Random features of the published widths, 1024 + 1000 -> 768, fusion "concatenation"; all sides in turns in one run,
medians. A side's pairs per second are those of training alone: without validation, and without the first epoch, in
which memory is claimed and, with `--compiled`, code is made. The products are those of one step, of the linear layers
and of the loss, forward and backward: same shapes, same type, into memory that is there already.

    python benchmarks/training.py [--rounds 5] [--compiled]
"""

import argparse
import os
import statistics
import time
from dataclasses import replace

import numpy as np
import torch
from reference_loop import BATCH, adam, loader, train_epoch, with_plain_dropout
from summary import Comparison, keep
from torch import nn

from clasp_lib.encoders.checkpoints import half_type
from clasp_lib.features import Features
from clasp_lib.fusion import Fusion, build_fusion
from clasp_lib.losses import build_loss
from clasp_lib.training import TrainingSettings, train_fusion

WIDTHS = (1024, 1000, 768)
ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
PAIRS, REFERENCE_PAIRS, EPOCHS, REPEATS = (32_768, 6_400, 11, 20) if ON_GPU else (4_096, 2_048, 3, 2)
GOAL, GOAL_STEP = 200 if ON_GPU else 8, 1.25  # times as fast as the reference's loop; times the time of the products
LARGE, LARGER = (4_096, 16_384) if ON_GPU else (1_024, 2_048)
DEFAULT = TrainingSettings(epochs=EPOCHS, patience=EPOCHS)
SIDES = [
    DEFAULT,
    replace(DEFAULT, batch_size=LARGE),
    replace(DEFAULT, batch_size=LARGER),
    replace(DEFAULT, batch_size=LARGE, precision="mixed" if ON_GPU else "bfloat16"),
    replace(DEFAULT, batch_size=LARGER, precision="mixed" if ON_GPU else "bfloat16"),
]


def made_up(pairs: int) -> Features:
    """Random unit vectors; each pair is a sentence of its own."""
    rng = np.random.default_rng(0)
    columns = [rng.standard_normal((pairs, width), dtype=np.float32) for width in WIDTHS]
    speech, picture, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in columns)
    names = [f"{i}" for i in range(pairs)]
    return Features(speech, picture, text, names, names, ["news"] * pairs, ["voice"] * pairs)


def fresh() -> Fusion:
    """The fusion of every side."""
    torch.manual_seed(0)
    return build_fusion("concatenation", *WIDTHS).to(DEVICE)


def engine(train: Features, validation: Features, settings: TrainingSettings) -> float:
    """Pairs a second of `train_fusion`: the median of its epochs after the first."""
    loss = build_loss("contrastive", WIDTHS[2])
    history = train_fusion(fresh(), loss, train, validation, settings, DEVICE, show_progress_bar=False)
    return statistics.median(row["pairs_per_second"] for row in history.rows[1:])


def products(n: int, dtype: torch.dtype) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Factors of every matrix product in a training step with n pairs, and where the product goes."""
    fusion, factors = fresh(), []

    def linear(layer: nn.Linear, inputs: tuple[torch.Tensor, ...]) -> None:
        x, weight = random(n, layer.in_features), random(layer.out_features, layer.in_features)  # (n, in), (out, in)
        gradient = random(n, layer.out_features)  # (n, out)
        factors.extend([(x, weight.T), (gradient.T, x)])  # forward, and the gradient of the weights
        if inputs[0].requires_grad:  # not where frozen vectors come in
            factors.append((gradient, weight))

    def random(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, device=DEVICE, dtype=dtype)

    for layer in fusion.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_pre_hook(linear)
    fusion(*(torch.randn(2, width, device=DEVICE) for width in WIDTHS[:2]))
    speech, text, by_pair = random(n, WIDTHS[2]), random(n, WIDTHS[2]), random(n, n)
    factors.extend([(speech, text.T), (by_pair, text)])  # similarities, and the gradient of the fused vectors
    return [(a, b, torch.empty(a.shape[0], b.shape[1], device=DEVICE, dtype=dtype)) for a, b in factors]


@torch.inference_mode()
def seconds_of(step: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> float:
    """The time that a step's products take."""
    _wait()
    began = time.perf_counter()
    for _ in range(REPEATS):
        for a, b, out in step:
            torch.mm(a, b, out=out)
    _wait()
    return (time.perf_counter() - began) / REPEATS


def _wait() -> None:
    if ON_GPU:
        torch.cuda.synchronize()


def described(settings: TrainingSettings) -> str:
    """A side in a few words."""
    compiled = ", compiled" if settings.compiled else ""
    return f"train_fusion, batches of {settings.batch_size}, {settings.precision}{compiled}"


def main() -> None:
    """Run all sides in turns and print medians, ratios and fractions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side (default %(default)s)")
    parser.add_argument("--compiled", action="store_true", help="also with torch.compile; a CPU needs a C++ compiler")
    args = parser.parse_args()
    sides = SIDES + [replace(side, compiled=True) for side in SIDES if args.compiled]
    train, validation, few = made_up(PAIRS), made_up(2), made_up(REFERENCE_PAIRS)
    types = [half_type(DEVICE, side.precision) or torch.float32 for side in sides]
    steps = {(side.batch_size, kind): products(side.batch_size, kind) for side, kind in zip(sides, types, strict=True)}
    fusion, batches = with_plain_dropout(fresh()), loader(few)
    optimizer = adam(fusion, 5e-6)

    reference: list[float] = []
    rates: list[list[float]] = [[] for _ in sides]
    fractions: list[list[float]] = [[] for _ in sides]
    loads = []
    for turn in range(args.rounds + 1):  # the first warms up
        began = time.perf_counter()
        train_epoch(fusion, optimizer, batches, mended=False)
        reference.append(REFERENCE_PAIRS / (time.perf_counter() - began))
        for number, (side, kind) in enumerate(zip(sides, types, strict=True)):
            step = steps[side.batch_size, kind]
            before = seconds_of(step)
            rate = engine(train, validation, side)
            alone = (before + seconds_of(step)) / 2
            if turn:
                rates[number].append(rate)
                fractions[number].append(alone / (side.batch_size / rate))
        loads.append(os.getloadavg()[0])

    name = torch.cuda.get_device_name() if ON_GPU else "CPU"
    base = statistics.median(reference[1:])
    print(f"{name}, {torch.get_num_threads()} threads, load {min(loads):.1f} to {max(loads):.1f}; {args.rounds} turns")
    print(f"reference's loop, batches of {BATCH}, {len(batches)} steps a turn: {base:,.0f} pairs/s")
    compared = []
    for number, (side, kind) in enumerate(zip(sides, types, strict=True)):
        rate, fraction = statistics.median(rates[number]), statistics.median(fractions[number])
        ratio = statistics.median(r / b for r, b in zip(rates[number], reference[1:], strict=True))
        print(f"{described(side)}: {rate:,.0f} pairs/s, ratio {ratio:.1f}")
        print(f"    of a step, the time of its products alone in {str(kind).removeprefix('torch.')}: {fraction:.2f}")
        ours, step_ms = described(side), 1e3 * side.batch_size / rate
        theirs = (f"the reference's loop, batches of {BATCH}", base, "pairs/s", ratio, "faster", GOAL)
        bare = ("its products alone", fraction * step_ms, "ms", 1 / fraction, "bound", GOAL_STEP)
        compared += [Comparison("Training a fusion", ours, rate, *theirs), Comparison("A step", ours, step_ms, *bare)]
    keep("training", f"{name}, {torch.get_num_threads()} threads; {args.rounds} turns", compared)


if __name__ == "__main__":
    main()
