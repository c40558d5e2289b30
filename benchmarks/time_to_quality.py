"""Time to quality: how long the reference's recipe trains, and how soon `train_fusion` is as good as that in its end.

On the features of the pocket profile (made first, in minutes, if the cache does not hold them), fusion
"concatenation", validation MRR of the 330 clips among their 330 texts. Baselines: the reference's recipe as it is
written, the same with the temperature mended, and the mended one at the best of three learning rates. A baseline is
trained from one seed. Times are steps, or epochs, times the seconds of one, which are measured in turns in this run: a
baseline that was trained yesterday, on a busy machine, is not the slower for it. Validation is on neither side.

As it stands, baselines run a small part of their schedule and `train_fusion` one seed: some three minutes. The whole
takes hours on two cores; a finished baseline is kept in the folder, one line an epoch, and is not run again:

    python benchmarks/time_to_quality.py --part 1 --seeds 3 --folder _build/time_to_quality
"""

import argparse
import json
import os
import statistics
import tempfile
import time
import zlib
from pathlib import Path

import torch
from reference_loop import FIXED_STAGES, Epoch, Recipe, adam, loader, train, train_epoch
from summary import NOT_THERE, Comparison, keep

from clasp_lib import get_profile
from clasp_lib.features import Features, extract_features
from clasp_lib.fusion import Fusion, build_fusion
from clasp_lib.losses import build_loss
from clasp_lib.training import History, TrainingSettings, train_fusion

AS_WRITTEN, RATES = 5e-6, (5e-6, 5e-5, 5e-4)
ROUNDS, EPOCHS_A_ROUND = 5, 5


def fresh(features: Features, seed: int) -> Fusion:
    """An untrained fusion on the device that training would choose."""
    torch.manual_seed(seed)
    widths = (features.speech.shape[1], features.picture.shape[1], features.text.shape[1])
    return build_fusion("concatenation", *widths).to("cuda" if torch.cuda.is_available() else "cpu")


def baseline(recipe: Recipe, train_set: Features, validation: Features, folder: Path) -> list[Epoch]:
    """Every epoch of a recipe, from the folder if it was finished before; one that was stopped starts over.

    The file's name holds a checksum of the speech vectors: after a change of the encoder, baselines are trained anew.
    """
    file = folder / f"{recipe.name}-{zlib.crc32(train_set.speech.tobytes()):08x}.jsonl"
    if not file.exists():
        unfinished = file.with_suffix(".unfinished")
        with unfinished.open("w", encoding="utf-8") as lines:
            for row in train(fresh(train_set, seed=0), train_set, validation, recipe):
                lines.write(json.dumps(row._asdict()) + "\n")
                lines.flush()
        unfinished.replace(file)
    return [Epoch(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


def end(rows: list[Epoch]) -> Epoch:
    """The epoch whose weights the recipe ends with: the lowest validation loss of the last stage."""
    return min((row for row in rows if row.stage > len(FIXED_STAGES)), key=lambda row: row.validation_loss)


def engine(train_set: Features, validation: Features, settings: TrainingSettings) -> History:
    """`train_fusion` from a fresh fusion."""
    loss = build_loss("contrastive", train_set.text.shape[1])
    return train_fusion(fresh(train_set, settings.seed), loss, train_set, validation, settings, show_progress_bar=False)


def seconds_each(train_set: Features) -> tuple[float, float]:
    """Seconds of a step of the reference's loop and of an epoch of `train_fusion`, with its setting up: medians."""
    fusion = fresh(train_set, seed=0)
    batches, optimizer = loader(train_set), adam(fusion, AS_WRITTEN)
    speech, picture, text = (column[:2] for column in (train_set.speech, train_set.picture, train_set.text))
    ids, texts = train_set.sentence_ids[:2], train_set.texts[:2]
    two = Features(speech, picture, text, ids, texts, train_set.categories[:2], train_set.voices[:2])
    settings = TrainingSettings(epochs=EPOCHS_A_ROUND, patience=EPOCHS_A_ROUND)
    steps, epochs = [], []
    for _ in range(1 + ROUNDS):  # the first warms up
        began = time.perf_counter()
        train_epoch(fusion, optimizer, batches, mended=False)
        between = time.perf_counter()
        engine(train_set, two, settings)
        steps.append((between - began) / len(batches))
        epochs.append((time.perf_counter() - between) / EPOCHS_A_ROUND)
    return statistics.median(steps[1:]), statistics.median(epochs[1:])


def compare(
    name: str, rows: list[Epoch], part: float, histories: list[History], step: float, epoch: float
) -> list[Comparison]:
    """Print what a baseline reaches in a part of its schedule, and how soon `train_fusion` is there.

    Args:
        step, epoch: seconds of a step of the baseline, and of an epoch of `train_fusion`.
    """
    print(f"{name}:")
    last, best = end(rows), max(rows, key=lambda row: row.mrr)
    there = next(row for row in rows if row.mrr >= last.mrr)
    whole = rows[-1].steps * step
    print(
        f"  {len(rows)} epochs, {rows[-1].steps:,} steps, {whole:,.1f} s of training (clock: {rows[-1].seconds:,.1f} s)"
    )
    print(
        f"  MRR in the end {last.mrr:.4f}, first reached after {there.steps * step:,.1f} s; on the way {best.mrr:.4f}"
    )
    what, all_of_it = f"Training to the same MRR, baseline {name}", f"{part:.0%} of its schedule"
    needed = [next((r["epoch"] for r in h.rows if r["mrr"] >= last.mrr), None) for h in histories]
    reached = [count * epoch for count in needed if count is not None]
    if len(reached) < len(needed):
        print(f"  train_fusion gets there from {len(reached)} of {len(needed)} seeds, so there is no ratio")
        spent = statistics.median(h.rows[-1]["epoch"] for h in histories) * epoch
        return [Comparison(what, "train_fusion, to its own end", spent, all_of_it, whole, "s", NOT_THERE)]
    seconds = statistics.median(reached)
    counts = ", ".join(f"{count:.0f}" for count in needed if count is not None)
    print(f"  train_fusion is there after {counts} epochs, {seconds:.2f} s: ratio {whole / seconds:,.0f} to the whole")
    print(f"  schedule, {there.steps * step / seconds:,.0f} to the moment when the baseline first was as good")
    return [
        Comparison(what, "train_fusion", seconds, side, spent, "s", spent / seconds)
        for side, spent in ((all_of_it, whole), ("until it first was as good", there.steps * step))
    ]


def main() -> None:
    """Train the baselines that are not there yet, train with the engine, time both in turns, print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", type=float, default=0.02, help="of the baselines' epochs (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="of train_fusion (default %(default)s)")
    parser.add_argument("--folder", type=Path, help="where finished baselines are kept (default: nowhere)")
    args = parser.parse_args()
    profile = get_profile("pocket")
    clips, encoders = profile.dataset(), profile.encoders()
    train_set, validation = (
        extract_features(clips[split], *encoders, folder=profile.cache / "features")
        for split in ("train", "validation")
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        as_written = baseline(Recipe(False, AS_WRITTEN, args.part), train_set, validation, folder)
        mended = {rate: baseline(Recipe(True, rate, args.part), train_set, validation, folder) for rate in RATES}
    histories = [engine(train_set, validation, TrainingSettings(seed=seed)) for seed in range(args.seeds)]
    step, epoch = seconds_each(train_set)

    place = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"{place}, load {os.getloadavg()[0]:.1f}; {len(train_set)} pairs, {len(validation)} for validation")
    print(
        f"{args.part:g} of the baselines' schedule; seconds are steps or epochs times those of one, measured in turns:"
    )
    print(f"a step of the reference's loop {1000 * step:.2f} ms, an epoch of train_fusion {1000 * epoch:.1f} ms")
    for history in histories:
        row = history.rows[-1]
        print(
            f"train_fusion: best MRR {max(r['mrr'] for r in history.rows):.4f} in epoch {history.best_epoch} of ",
            end="",
        )
        print(f"{row['epoch']:.0f}, {row['epoch'] * epoch:.1f} s of training")
    tuned = max(RATES, key=lambda rate: end(mended[rate]).mrr)
    at_rates = ", ".join(f"{rate:.0e} {end(rows).mrr:.4f}" for rate, rows in mended.items())
    print(f"MRR of the mended baseline in the end, by learning rate: {at_rates}")
    baselines = {"as written": as_written, "temperature mended": mended[AS_WRITTEN]}
    baselines[f"temperature mended, learning rate {tuned:.0e}"] = mended[tuned]
    compared = [c for name, rows in baselines.items() for c in compare(name, rows, args.part, histories, step, epoch)]
    setting = f"{place}; {len(train_set)} pairs; {args.part:g} of the baselines' schedule, {args.seeds} seeds of ours"
    keep("time_to_quality", setting, compared)


if __name__ == "__main__":
    main()
