"""`clasp train FOLDER`: alone, or as several processes under torchrun (`torchrun ... -m clasp_lib train FOLDER`)."""

from __future__ import annotations

import argparse
import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import torch

from clasp_lib.ablation.data import Data, read_features, read_labels
from clasp_lib.ablation.specification import System, check_system
from clasp_lib.console import add_output_options, print_json, shows_progress
from clasp_lib.corpus import SPLITS
from clasp_lib.distributed import first_process_first, join_processes, leave_processes, rank
from clasp_lib.encoders.checkpoints import Precision
from clasp_lib.fusion import FUSIONS, build_fusion
from clasp_lib.losses import LOSSES, build_loss
from clasp_lib.model import CLASP
from clasp_lib.pooling import POOLINGS
from clasp_lib.profiles import PROFILES, get_profile
from clasp_lib.run_state import written
from clasp_lib.training import History, TrainingSettings, train_fusion

ABOUT = "Train a fusion on a profile's dataset and save it as a CLASP model; started again, a stopped run goes on."

EXAMPLES = (
    "clasp train my_model --fusion gating --loss contrastive",
    "torchrun --nproc-per-node 4 -m clasp_lib train my_model --precision mixed",
)


def train(
    folder: Path,
    profile_name: str | None,
    fusion_name: str,
    loss_name: str,
    settings: TrainingSettings,
    show_progress_bar: bool = True,
) -> History:
    """Train a fusion on a profile's dataset and save it as a CLASP model in `folder`; started again, it goes on.

    With several processes the first one makes the dataset and the features, and the others read them.

    Raises:
        ClaspError: a name that is not known, or a folder with another run or that cannot be written.
    """
    profile = get_profile(profile_name)
    system = System(fusion_name, loss_name, profile.speech_encoder)
    check_system(system)
    device = join_processes()
    with first_process_first():
        data = Data(profile, profile.cache / "training")
        pieces = data.pieces([system])[system]
    train, validation, _ = (read_features(data.folder, data.store, pieces, split) for split in SPLITS)
    encoders = profile.encoders()
    torch.manual_seed(settings.seed)
    fusion = build_fusion(fusion_name, *(encoder.dimension for encoder in encoders))
    if "train labels" in pieces:
        fusion.pooling.set_labels(read_labels(data.folder, pieces))  # type: ignore[union-attr, operator]
    loss = build_loss(loss_name, encoders[-1].dimension, len(set(train.categories)))
    history = train_fusion(fusion, loss, train, validation, settings, device, show_progress_bar, folder / "run")
    if rank() == 0:
        with written(folder):
            CLASP(fusion, *encoders, fusion_name=fusion_name).save_pretrained(folder)
    return history


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` takes: every setting of the training has its option."""
    parser.add_argument("folder", type=Path, help="for the model, and the state and log of the run")
    parser.add_argument("--profile", choices=PROFILES, help="default: $CLASP_PROFILE, or pocket")
    kinds = f"one of {', '.join(FUSIONS)}, perhaps after one of {', '.join(POOLINGS)} and a +"
    parser.add_argument("--fusion", default="concatenation", help=f"{kinds} (default %(default)s)")
    losses = f"one of {', '.join(LOSSES)} (default %(default)s)"
    parser.add_argument("--loss", default="contrastive", choices=LOSSES, metavar="LOSS", help=losses)
    settings = parser.add_argument_group("settings")
    for field in fields(TrainingSettings):
        _add_setting(settings, field.name, field.default, _meanings().get(field.name, ""))
    add_output_options(parser, "with the keys folder, best_epoch, validation_mrr, epochs [epoch, loss, mrr, ...]")
    parser.set_defaults(goes_on=True)


def run(args: argparse.Namespace) -> int:
    """Train; the first process prints what came out."""
    settings = TrainingSettings(**{field.name: getattr(args, field.name) for field in fields(TrainingSettings)})
    history = train(args.folder, args.profile, args.fusion, args.loss, settings, shows_progress(args))
    if rank() == 0 and args.json:
        about = {"folder": str(args.folder), "best_epoch": history.best_epoch, "validation_mrr": history.best_mrr}
        print_json(about | {"epochs": history.rows})
    elif rank() == 0:
        print(f"{args.folder}: validation MRR {history.best_mrr:.3f}, epoch {history.best_epoch}")
    leave_processes()
    return 0


def _meanings() -> dict[str, str]:
    """What the docstring of `TrainingSettings` says of each setting."""
    said = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", inspect.getdoc(TrainingSettings) or "", re.MULTILINE)
    return {name: " ".join(words.split()).rstrip(".") for name, words in said}


def _add_setting(parser: argparse._ArgumentGroup, name: str, default: Any, meaning: str) -> None:
    flag, explained = f"--{name.replace('_', '-')}", f"{meaning} (default %(default)s)"
    if default is None or isinstance(default, bool):
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=default, help=explained)
    elif name == "precision":
        parser.add_argument(flag, choices=get_args(Precision), default=default, help=explained)
    else:
        kind = {int: "N", float: "X"}[type(default)]
        parser.add_argument(flag, type=type(default), default=default, metavar=kind, help=explained)
