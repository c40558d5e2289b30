"""Make what ships in `clasp_lib/pocket`: encoders first, then the CLASP models trained on them.

python -m clasp_lib.pretraining encoders WORKDIR --sentences sentences.tsv.gz [--recordings FOLDER ...]
    speaks the sentences, trains the speech and the picture encoder, and leaves both, with the records of the run, in
    WORKDIR. A run that was stopped goes on where it was.

python -m clasp_lib.pretraining heads [--more WORKDIR] [--measure NAME=FOLDER ...]
    trains both fusions on the pocket profile (and on the clips of WORKDIR), replaces the models in the package, and
    records how good they are.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def main() -> None:
    """Parse the command line and run one of the two recipes."""
    parser = argparse.ArgumentParser(
        prog="python -m clasp_lib.pretraining",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="recipe", required=True)
    encoders = commands.add_parser("encoders", help="the pocket HuBERT and the pocket EfficientNet")
    encoders.add_argument("workdir", type=Path, help="where clips, states and the finished encoders go")
    encoders.add_argument("--sentences", type=Path, required=True, help="gzipped table with a column `text`")
    encoders.add_argument("--recordings", type=Path, nargs="*", default=[], help="folders of speech with metadata.csv")
    encoders.add_argument("--clips", type=int, default=30_000, help="sentences to speak (default %(default)s)")
    encoders.add_argument("--minutes", type=float, default=48, help="training time of the speech encoder")
    encoders.add_argument("--picture-minutes", type=float, default=10, help="training time of the picture encoder")
    encoders.add_argument("--only", choices=("speech", "picture"), help="train only one of the two")
    heads = commands.add_parser("heads", help="the CLASP models on top of them")
    heads.add_argument(
        "--more", type=Path, metavar="WORKDIR", help="also train on the clips that `encoders` left there"
    )
    heads.add_argument("--more-clips", type=int, default=12_000, help="how many of them (default %(default)s)")
    heads.add_argument("--epochs", type=int, default=60, help="of training at most (default %(default)s)")
    heads.add_argument("--keep", action="store_true", help="do not train: only measure the models again")
    heads.add_argument(
        "--measure", action="append", default=[], metavar="NAME=FOLDER", help="also measure on these recordings"
    )
    args = parser.parse_args()
    if args.recipe == "encoders":
        _encoders(args)
    else:
        _heads(args)


def _encoders(args: argparse.Namespace) -> None:
    from clasp_lib.pretraining.clips import read_sentences, read_training_recordings, speak
    from clasp_lib.pretraining.picture import PictureRecipe, pretrain_picture
    from clasp_lib.pretraining.speech import SpeechRecipe, pretrain_speech

    texts = read_sentences(args.sentences, args.clips + 500, seed=0)
    workers = os.cpu_count() or 1
    train = speak(texts[: args.clips], "train", args.workdir / "clips", 0, workers)
    held_out = {"synthetic": speak(texts[args.clips :], "validation", args.workdir / "clips", 0, workers)}
    for folder in args.recordings:
        recordings, others = read_training_recordings(folder, speakers_held_out=10)
        train = train + recordings.repeated(2)
        if len(others):
            held_out[folder.name] = others
    if args.only != "picture":
        pretrain_speech(train, held_out, args.workdir, SpeechRecipe(minutes=args.minutes))
    if args.only != "speech":
        pretrain_picture(train, held_out, args.workdir, PictureRecipe(minutes=args.picture_minutes))


def _heads(args: argparse.Namespace) -> None:
    from clasp_lib.encoders.checkpoints import pocket_folder
    from clasp_lib.pretraining.clips import open_clips
    from clasp_lib.pretraining.heads import features_of_clips, train_heads
    from clasp_lib.profiles import get_profile
    from clasp_lib.training import TrainingSettings

    profile = get_profile("pocket")
    recordings = {name: Path(folder) for name, _, folder in (pair.partition("=") for pair in args.measure)}
    typed = ["python -m clasp_lib.pretraining heads", *(f"--measure {name}=FOLDER" for name in recordings)]
    more = None
    if args.keep:
        typed.insert(1, "--keep")
    if args.more:
        typed.insert(1, f"--more WORKDIR --more-clips {args.more_clips}")
        more = features_of_clips(open_clips(args.more / "clips", "train", args.more_clips), *profile.encoders())
    settings = TrainingSettings(epochs=args.epochs, seed=profile.seed)
    print(train_heads(profile, pocket_folder(""), settings, recordings, typed, more, not args.keep))


if __name__ == "__main__":
    main()
