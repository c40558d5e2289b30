"""`clasp index`: make an index of recordings, or bring one up to date."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from clasp_lib.console import (
    SEARCH_MODEL,
    add_model_options,
    add_output_options,
    at_least_one,
    load_model,
    print_json,
    remark,
    shows_progress,
    without_password,
)
from clasp_lib.errors import ClaspError, DatasetError

if TYPE_CHECKING:
    from clasp_lib.index import SpeechIndex
    from clasp_lib.index.recordings import Recording
    from clasp_lib.index.speech_index import Added

ABOUT = """Make an index of recordings, or bring one up to date: what is new or has changed is encoded, the rest is left
as it is. What is encoded is saved as it goes. If this is stopped, by Ctrl-C or by a power cut, the same line goes on.

INDEX is a folder, a file that ends in .db (Milvus Lite), or the address of a Milvus cluster such as
http://localhost:19530.

A folder of recordings is searched at all depths. Where it holds a metadata.csv, the recordings are those of its column
file; its columns text and id are what they say, and all others are there to be searched by (`clasp search --where`)."""

EXAMPLES = (
    "clasp index my_index recordings",
    "clasp index my_index recordings one.wav --on-error skip",
    "clasp index talks talk.wav --cut",
    "clasp index my_index recordings --metadata about.csv",
    "clasp index my_index --remove one.wav",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` takes."""
    parser.add_argument("index", metavar="INDEX", help="where it lives: a folder, or a Milvus address")
    parser.add_argument("recordings", nargs="*", metavar="RECORDING", help="files, and folders of files")
    about = "a table of what is known of the recordings, as metadata.csv above; its files lie beside it, or in a folder"
    parser.add_argument("--metadata", type=Path, metavar="FILE.csv", help=about)
    parser.add_argument("--cut", action="store_true", help="index windows, so that hits are moments of long recordings")
    backends = "how a new index is searched: exact, faiss (approximate), or as its size asks for (default %(default)s)"
    parser.add_argument("--backend", choices=("auto", "exact", "faiss"), default="auto", help=backends)
    unread = "what to do with a recording that cannot be read: stop (default), or leave it out and say why"
    parser.add_argument("--on-error", choices=("raise", "skip"), default="raise", help=unread)
    parser.add_argument("--remove", nargs="+", default=[], metavar="ID", help="recordings to forget, by id or file")
    parser.add_argument("--batch-size", type=at_least_one, default=16, metavar="N", help="default %(default)s")
    add_model_options(parser, None, f"the one that built the index, for a new one {SEARCH_MODEL}")
    keys = "index, model, added, unchanged, removed, skipped [id, reason], recordings, entries"
    add_output_options(parser, f"with the keys {keys}")
    parser.set_defaults(goes_on=True, wrong=parser.error)


def run(args: argparse.Namespace) -> int:
    """Remove, add, and say what has changed."""
    if not (args.recordings or args.remove):
        args.wrong("give recordings or folders, or --remove ID")
    from clasp_lib.index import SpeechIndex
    from clasp_lib.index.speech_index import Added

    recordings = _recordings(args.recordings, args.metadata)
    stored = _stored_name(args.index, must_exist=not recordings)
    name = args.model if args.model is not None else SEARCH_MODEL if stored is None else stored
    if not name:
        raise ClaspError(f"{args.index}: does not know the name of the model that built it. Name it with --model.")
    model = load_model(name, args.device)
    done, removed = Added(0, 0, []), 0
    items = [recording.read() for recording in recordings]
    given = {
        "texts": [recording.text for recording in recordings],
        "metadata": [recording.metadata for recording in recordings],
        "ids": [recording.id for recording in recordings],
        "cut": args.cut or None,
        "batch_size": args.batch_size,
        "on_error": args.on_error,
        "show_progress_bar": shows_progress(args),
    }
    if stored is None:
        index = SpeechIndex.build(model, items, folder=args.index, backend=args.backend, **given)  # type: ignore[arg-type]
        done = Added(len(index.store.known()), 0, index.skipped)
    else:
        index = SpeechIndex.load(args.index, model)
        _check_backend(index, args)
        removed = _remove(index, args.remove)
        if items:
            done = index.add(items, **given)  # type: ignore[arg-type]
    _report(args, name, index, done, removed)
    index.close()
    return 0


def _recordings(names: list[str], table: Path | None) -> list[Recording]:
    """All recordings of files and folders, each once, with what is known of them."""
    from clasp_lib.index.recordings import recordings_of

    found: dict[tuple[str, str], Recording] = {}
    for name in names:
        if not os.path.exists(name):
            raise ClaspError(f"{name}: there is no such file or folder.")
        part = recordings_of(name) if os.path.isdir(name) else recordings_of([name])
        found |= {(recording.id, recording.file): recording for recording in part}
    recordings = list(found.values())
    if table is None or not recordings:
        return recordings
    known = _read_table(table, [Path(name) for name in names if os.path.isdir(name)])
    described = [known.get(Path(recording.file).resolve()) for recording in recordings]
    if unknown := described.count(None):
        remark(f"{table}: has no row for {unknown} of {len(recordings)} recordings; they are indexed without.")
    return [
        recording if row is None else replace(row, file=recording.file, read=recording.read)
        for recording, row in zip(recordings, described, strict=True)
    ]


def _read_table(table: Path, folders: list[Path]) -> dict[Path, Recording]:
    """By file, what a table says of it; the files lie beside the table or in one of the folders."""
    from clasp_lib.index.recordings import Recording, read_table

    known: dict[Path, Recording] = {}
    for row in read_table(table):
        places = [folder / row.file for folder in (table.parent, *folders)]
        file = next((place for place in places if place.is_file()), places[0])
        if file.resolve() in known:
            raise DatasetError(f"{row.where}: the file {row.file!r} stands in the table twice. Keep one line of it.")
        id = row.id or str(file.absolute())
        known[file.resolve()] = Recording(id, str(file), file.absolute, row.text, row.metadata, True)
    return known


def _stored_name(index: str, *, must_exist: bool) -> str | None:
    """The name of the model of an index, "" if it does not know it; None if there is no index yet."""
    from clasp_lib.index import stored_model

    try:
        return stored_model(index).name or ""
    except DatasetError:
        if must_exist:
            raise
        return None  # whatever else is in its place is refused when the index is made


def _check_backend(index: SpeechIndex, args: argparse.Namespace) -> None:
    built = getattr(index.store, "backend", "auto")
    if args.backend not in ("auto", built):
        raise ClaspError(f"{args.index}: was built for the backend {built!r}, not {args.backend!r}.")


def _remove(index: SpeechIndex, names: list[str]) -> int:
    if not names:
        return 0
    known = index.store.known()
    for name in names:
        if name not in known and str(Path(name).absolute()) not in known:
            remark(f"{name}: is not in the index.")
    return index.remove(names)


def _report(args: argparse.Namespace, name: str, index: SpeechIndex, done: Added, removed: int) -> None:
    skipped = [{"id": clip.id, "reason": clip.reason} for clip in done.skipped]
    for clip in skipped:
        remark(f"skipped: {clip['reason']}")
    counts = {"added": done.added, "unchanged": done.unchanged, "removed": removed, "skipped": skipped}
    recordings = len(index.store.known())
    if args.json:
        about = {"index": without_password(args.index), "model": name, **counts}
        print_json(about | {"recordings": recordings, "entries": len(index)})
        return
    changes = ", ".join(f"{len(n) if isinstance(n, list) else n} {what}" for what, n in counts.items())
    windows = f" in {len(index)} windows" if len(index) != recordings else ""
    print(f"{without_password(args.index)}: {changes}; {recordings} recordings{windows}")
