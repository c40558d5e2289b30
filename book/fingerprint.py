"""Write a digest of the contents of files and folders to a file, and leave that file alone if nothing changed.

    python book/fingerprint.py OUTPUT SOURCE...

The Makefile compares times; with this in between, a fresh checkout or a touched file rebuilds nothing.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path


def files(source: Path) -> Iterator[Path]:
    """Yield the files of a folder in order, without hidden ones and what Python and Jupyter leave behind."""
    if source.is_file():
        yield source
        return
    for path in sorted(source.rglob("*")):
        parts = path.relative_to(source).parts
        if path.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in parts):
            yield path


def fingerprint(sources: list[Path]) -> str:
    """Return one digest of the names and contents below `sources`."""
    digest = hashlib.sha256()
    for source in sources:
        for path in files(source):
            digest.update(f"{path.as_posix()}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def main(output: Path, sources: list[Path]) -> None:
    missing = [str(source) for source in sources if not source.exists()]
    if missing:
        sys.exit(f"fingerprint: not found: {', '.join(missing)}")
    new = fingerprint(sources)
    if not output.exists() or output.read_text(encoding="utf-8") != new:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]])
