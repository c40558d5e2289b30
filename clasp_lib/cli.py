"""The command line: `clasp train FOLDER`, also `python -m clasp_lib train FOLDER`, alone or under torchrun."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from clasp_lib.ablation.data import Data, read_features, read_labels
from clasp_lib.ablation.specification import System
from clasp_lib.corpus import SPLITS
from clasp_lib.distributed import first_process_first, join_processes, leave_processes, rank
from clasp_lib.errors import ClaspError
from clasp_lib.fusion import FUSIONS, build_fusion
from clasp_lib.losses import LOSSES, build_loss
from clasp_lib.model import CLASP
from clasp_lib.pooling import POOLINGS
from clasp_lib.profiles import PROFILES, get_profile
from clasp_lib.training import History, TrainingSettings, train_fusion


def train(
    folder: Path, profile_name: str | None, fusion_name: str, loss_name: str, settings: TrainingSettings
) -> History:
    """Train a fusion on a profile's dataset and save it as a CLASP model in `folder`; started again, it goes on.

    With several processes the first one makes the dataset and the features, and the others read them.

    Raises:
        ClaspError: a name that is not known, or a folder with another run.
    """
    device = join_processes()
    profile = get_profile(profile_name)
    with first_process_first():
        data = Data(profile, profile.cache / "training")
        system = System(fusion_name, loss_name, profile.speech_encoder)
        pieces = data.pieces([system])[system]
    train, validation, _ = (read_features(data.folder, data.store, pieces, split) for split in SPLITS)
    encoders = profile.encoders()
    torch.manual_seed(settings.seed)
    fusion = build_fusion(fusion_name, *(encoder.dimension for encoder in encoders))
    if "train labels" in pieces:
        fusion.pooling.set_labels(read_labels(data.folder, pieces))  # type: ignore[union-attr, operator]
    loss = build_loss(loss_name, encoders[-1].dimension, len(set(train.categories)))
    history = train_fusion(fusion, loss, train, validation, settings, device, folder=folder / "run")
    if rank() == 0:
        CLASP(fusion, *encoders, fusion_name=fusion_name).save_pretrained(folder)
    leave_processes()
    return history


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; an error is one line, and exit code 1."""
    parser = argparse.ArgumentParser(prog="clasp", description="Search speech with text.")
    commands = parser.add_subparsers(dest="command", required=True)
    about = "Train a fusion on a profile's dataset and save it as a CLASP model; started again, a stopped run goes on."
    training = commands.add_parser("train", help="train a fusion on a profile's dataset", description=about)
    training.add_argument("folder", type=Path, help="for the model, and the state and log of the run")
    training.add_argument("--profile", choices=PROFILES, help="default: $CLASP_PROFILE, or pocket")
    kinds = f"one of {', '.join(FUSIONS)}, perhaps after one of {', '.join(POOLINGS)} and a +"
    training.add_argument("--fusion", default="concatenation", help=f"{kinds} (default %(default)s)")
    losses = f"one of {', '.join(LOSSES)} (default %(default)s)"
    training.add_argument("--loss", default="contrastive", choices=LOSSES, metavar="LOSS", help=losses)
    settings_group = training.add_argument_group("settings", "what `clasp_lib.training.TrainingSettings` says of them")
    for field in fields(TrainingSettings):
        _add_setting(settings_group, field.name, field.default)
    given = vars(parser.parse_args(arguments))
    settings = TrainingSettings(**{field.name: given[field.name] for field in fields(TrainingSettings)})
    try:
        history = train(given["folder"], given["profile"], given["fusion"], given["loss"], settings)
    except ClaspError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if rank() == 0:
        print(f"{given['folder']}: validation MRR {history.best_mrr:.3f}, epoch {history.best_epoch}")
    return 0


def _add_setting(parser: argparse._ArgumentGroup, name: str, default: Any) -> None:
    flag = f"--{name.replace('_', '-')}"
    if default is None or isinstance(default, bool):
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=default)
    elif name == "precision":
        parser.add_argument(flag, choices=("float32", "mixed", "bfloat16"), default=default)
    else:
        kind = {int: "N", float: "X"}[type(default)]
        parser.add_argument(flag, type=type(default), default=default, metavar=kind, help="(default %(default)s)")


if __name__ == "__main__":
    sys.exit(main())
