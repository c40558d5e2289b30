"""Make what ships in `clasp_lib/pocket`: encoders first, then the CLASP models on top of them, then their record.

python -m clasp_lib.pretraining encoders WORKDIR --sentences sentences.tsv.gz [--recordings FOLDER ...]
        [--also pico festival]
    speaks the sentences, trains the encoders one after the other, and leaves them, with the records of the runs, in
    WORKDIR: ctc (it transcribes), search (trained further at sentence level) and efficientnet. A run that was stopped
    goes on where it was, and one that has ended goes on when it is given more minutes.

python -m clasp_lib.pretraining install WORKDIR
    puts the finished encoders and the records of their runs into the package.

python -m clasp_lib.pretraining heads [--more WORKDIR] [--recordings FOLDER ...]
    trains the fusions on the shipped encoders, on the pocket profile's dataset, on clips of WORKDIR and on recordings,
    and puts the models into the package.

python -m clasp_lib.pretraining ablate WORKDIR
    trains short runs with one disturbance each on the clips of WORKDIR, in WORKDIR/ablation, and writes
    reports/augmentations.json: how well each hears through each disturbance.

python -m clasp_lib.pretraining measure [--brown brown.zip] [--recordings NAME=FOLDER ...]
    measures what is in the package on everything held out, and writes reports/retrieval.json.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from clasp_lib.console import finish

STAGES = {"ctc": 60.0, "search": 25.0, "picture": 10.0}
"""What `encoders` trains, in this order, and for how many minutes."""

HEADS = {
    "ctc": ("concatenation", "gating", "speech_only", "linear"),
    "search": ("concatenation", "speech_only", "linear"),
}
"""The fusions that ship, by the speech encoder that they stand on."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: its exit code, as `clasp_lib.console` has them."""
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
    encoders.add_argument("--also", nargs="*", choices=("pico", "festival"), default=[], help="further synthesizers")
    encoders.add_argument("--clips", type=int, default=52_000, help="sentences to speak (default %(default)s)")
    encoders.add_argument("--stages", nargs="+", choices=tuple(STAGES), default=list(STAGES), help="(default: all)")
    for stage, minutes in STAGES.items():
        encoders.add_argument(f"--{stage}-minutes", type=float, default=minutes, help="(default %(default)s)")
    encoders.add_argument("--start", type=Path, metavar="FOLDER", help="a finished ctc encoder to go on from")
    encoders.add_argument("--compiled", action="store_true", help="use torch.compile; needs a C++ compiler")
    encoders.add_argument("--seconds-a-batch", type=float, default=110, help="a GPU takes more (default %(default)s)")
    install = commands.add_parser("install", help="finished encoders into the package")
    install.add_argument("workdir", type=Path)
    heads = commands.add_parser("heads", help="the CLASP models on top of them")
    heads.add_argument("--more", type=Path, metavar="WORKDIR", help="also train on the clips that `encoders` spoke")
    heads.add_argument("--more-clips", type=int, default=30_000, help="how many of them (default %(default)s)")
    heads.add_argument("--recordings", type=Path, nargs="*", default=[], help="and on these folders of human speech")
    heads.add_argument("--epochs", type=int, default=30, help="of training at most (default %(default)s)")
    ablate = commands.add_parser("ablate", help="what each disturbance does for those who train with it")
    ablate.add_argument("workdir", type=Path)
    ablate.add_argument("--clips", type=int, default=20_000, help="to train on (default %(default)s)")
    ablate.add_argument("--clean-minutes", type=float, default=8, help="before they part (default %(default)s)")
    ablate.add_argument("--minutes", type=float, default=2.5, help="of each run from there (default %(default)s)")
    measure = commands.add_parser("measure", help="all that ships, on everything held out")
    measure.add_argument("--brown", type=Path, help="NLTK's brown.zip: its sentences by eSpeak NG and by flite")
    measure.add_argument("--recordings", action="append", default=[], metavar="NAME=FOLDER", help="human speech")
    parser.set_defaults(run=_run, quiet=False, goes_on=False)
    for resumable in (encoders, ablate):
        resumable.set_defaults(goes_on=True)
    given = sys.argv[1:] if arguments is None else list(arguments)
    line = ["python", "-m", "clasp_lib.pretraining", *given]
    return finish(lambda: parser.parse_args(given), line, program=arguments is None)


def _run(args: argparse.Namespace) -> int:
    recipes = {"encoders": _encoders, "install": _install, "heads": _heads, "ablate": _ablate, "measure": _measure}
    recipes[args.recipe](args)
    return 0


def _encoders(args: argparse.Namespace) -> None:
    from dataclasses import replace

    from clasp_lib.pretraining.clips import gather
    from clasp_lib.pretraining.loop import LoopSettings

    def settings(stage: str, rate: float) -> LoopSettings:
        minutes = getattr(args, f"{stage}_minutes")
        return LoopSettings(minutes, rate, seconds_a_batch=args.seconds_a_batch, compiled=args.compiled)

    clips, workers = args.workdir / "clips", os.cpu_count() or 1
    train, held_out = gather(args.sentences, args.clips, args.recordings, clips, workers, args.also)
    if "ctc" in args.stages:
        from clasp_lib.pretraining.speech import WEIGHTS, SpeechRecipe, pretrain_speech

        recipe = SpeechRecipe(replace(settings("ctc", 2e-3), weights=WEIGHTS))
        pretrain_speech(train, held_out, args.workdir, recipe, args.start)
    if "search" in args.stages:
        from clasp_lib.encoders import TextEncoder
        from clasp_lib.pretraining import sentence as search
        from clasp_lib.profiles import get_profile

        text = TextEncoder(get_profile("pocket").text_encoder)
        distinct = {said: n for n, said in enumerate(dict.fromkeys(train.texts))}
        pool = search.text_vectors(text, list(distinct), args.workdir)
        search.pretrain_sentence(
            train,
            pool[[distinct[said] for said in train.texts]],
            {name: (clips, text.encode(clips.texts)) for name, clips in held_out.items()},
            args.workdir / "ctc",
            args.workdir,
            search.SentenceRecipe(replace(settings("search", 1e-3), weights=search.WEIGHTS)),
        )
    if "picture" in args.stages:
        from clasp_lib.pretraining.picture import PictureRecipe, pretrain_picture

        pretrain_picture(train, held_out, args.workdir, PictureRecipe(minutes=args.picture_minutes))


def _install(args: argparse.Namespace) -> None:
    import shutil

    from clasp_lib.encoders.checkpoints import pocket_folder

    for name in ("ctc", "search", "efficientnet"):
        if (args.workdir / name / "model.safetensors").exists():
            shutil.copytree(args.workdir / name, pocket_folder(name), copy_function=shutil.copyfile, dirs_exist_ok=True)
    for record in (*args.workdir.glob("*.json"), *args.workdir.glob("*.jsonl")):
        shutil.copyfile(record, pocket_folder("reports") / record.name)


def _heads(args: argparse.Namespace) -> None:
    from dataclasses import replace

    from clasp_lib.encoders.checkpoints import pocket_folder
    from clasp_lib.pretraining.clips import HELD_OUT_SPEAKERS, NOTHING, open_clips, read_training_recordings
    from clasp_lib.pretraining.heads import features_of_clips, train_heads
    from clasp_lib.profiles import get_profile
    from clasp_lib.provenance import provenance, write_record
    from clasp_lib.training import TrainingSettings

    profile = get_profile("pocket")
    clips = open_clips(args.more / "clips", "train", args.more_clips) if args.more else NOTHING
    for path in args.recordings:
        clips = clips + read_training_recordings(path, HELD_OUT_SPEAKERS)[0]
    settings = TrainingSettings(epochs=args.epochs, seed=profile.seed)
    typed = "python -m clasp_lib.pretraining heads"
    typed += f" --more WORKDIR --more-clips {args.more_clips}" if args.more else ""
    typed += " --recordings FOLDER ..." if args.recordings else ""
    typed += f" --epochs {args.epochs}"
    found: dict[str, float] = {}
    more = None
    for encoder, fusions in HEADS.items():
        names = {f"{encoder}-{fusion.replace('_', '-')}": fusion for fusion in fusions}
        on = replace(profile, speech_encoder=f"pocket-{encoder}")
        if clips:
            more = features_of_clips(clips, on, more)
        found |= train_heads(on, names, pocket_folder(""), settings, more)
    record = {"seed": profile.seed, "more_clips": len(clips), "validation_mrr": found}
    write_record(pocket_folder("reports") / "heads.json", provenance([typed]) | record)


def _ablate(args: argparse.Namespace) -> None:
    from clasp_lib.encoders.checkpoints import pocket_folder
    from clasp_lib.pretraining.ablation import ablate
    from clasp_lib.pretraining.clips import open_clips
    from clasp_lib.pretraining.loop import LoopSettings
    from clasp_lib.pretraining.speech import WEIGHTS, SpeechRecipe
    from clasp_lib.provenance import provenance, write_record

    clips = args.workdir / "clips"
    train, held_out = open_clips(clips, "train", args.clips), open_clips(clips, "validation", 200)
    recipe = SpeechRecipe(LoopSettings(args.minutes, 2e-3, weights=WEIGHTS, measure_every=1_000))
    found = ablate(train, held_out, args.workdir / "ablation", recipe, args.clean_minutes)
    typed = f"python -m clasp_lib.pretraining ablate WORKDIR --clips {args.clips}"
    typed += f" --clean-minutes {args.clean_minutes:g} --minutes {args.minutes:g}"
    write_record(pocket_folder("reports") / "augmentations.json", provenance([typed]) | {"seed": 0} | found)


def _measure(args: argparse.Namespace) -> None:
    from clasp_lib.encoders.checkpoints import pocket_folder
    from clasp_lib.model import CLASP
    from clasp_lib.model import SHIPPED as MODELS
    from clasp_lib.pretraining import measure
    from clasp_lib.profiles import get_profile
    from clasp_lib.provenance import provenance, write_record
    from clasp_lib.transcription import Transcriber

    folders = {name: Path(folder) for name, _, folder in (pair.partition("=") for pair in args.recordings)}
    typed = ["python -m clasp_lib.pretraining measure", *(["--brown brown.zip"] if args.brown else [])]
    typed += [f"--recordings {name}=FOLDER" for name in folders]
    profile = get_profile("pocket")
    tests = {"pocket_brown_test": measure.pocket_brown_test(profile)}
    tests |= measure.synthetic_tests(args.brown) if args.brown else {}
    tests |= {name: measure.recordings(folder) for name, folder in folders.items()}
    models = {name: CLASP.from_pretrained(name) for name in MODELS if name != "pocket"}
    transcriber = Transcriber("pocket-ctc")
    found = {}
    for name, test in tests.items():
        found[name] = measure.measure(models, transcriber, test, profile.seed)
        print(name, found[name]["transcription"], flush=True)
        for system, both in found[name]["systems"].items():
            print(f"  {system:<28} HITS@1 {both['speech_to_text']['hits_at_1']}", flush=True)
    record = {**provenance(typed), "seed": profile.seed, "tests": found}
    write_record(pocket_folder("reports") / "retrieval.json", record)
    measure.update_card(pocket_folder("") / "README.md", record)


if __name__ == "__main__":
    sys.exit(main())
