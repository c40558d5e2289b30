"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from clasp_lib.errors import DatasetError


@contextlib.contextmanager
def written_whole(folder: str | Path, marker: str) -> Iterator[Path]:
    """Give a fresh folder to write into; it takes the place of `folder` when the block ends without an error.

    Args:
        marker: a file that every folder of this kind holds; only such a folder is replaced.

    Raises:
        DatasetError: `folder` exists and holds no `marker`.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / marker).is_file():
        raise DatasetError(f"{folder}: exists and holds no {marker}, so it is not replaced. Choose another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{word}") for word in ("new", "old"))
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        yield unfinished
        if folder.exists():
            folder.rename(old)
        unfinished.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_whole(file: Path, data: bytes) -> None:
    """Replace a file; whoever is killed while writing leaves the one before it as it was."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        with open(unfinished, "wb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(unfinished, file)
    finally:
        for leftover in file.parent.glob(f"{file.stem}.*.tmp"):  # also of a run that was killed while it wrote
            leftover.unlink(missing_ok=True)
