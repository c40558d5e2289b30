"""The file that says what an index in a folder consists of; with a checksum of its own."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from clasp_lib.errors import DatasetError
from clasp_lib.folders import write_whole
from clasp_lib.index.store import model_of

MANIFEST = "index.json"


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Replace it in one moment, which is when a change to the index becomes true."""
    write_whole(folder / MANIFEST, json.dumps(manifest | {"sha256": _digest(manifest)}).encode())


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `write_manifest` wrote.

    Raises:
        DatasetError: there is none, it is of another version, or it has changed since.
    """
    file = folder / MANIFEST
    try:
        manifest = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise DatasetError(f"{folder}: there is no index. Name a folder that one was built in.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{file}: cannot be read ({error}). Build the index again.") from error
    model_of(manifest, folder)
    if manifest.get("sha256") != _digest(manifest):
        raise DatasetError(
            f"{file}: has changed since it was written (its checksum is another). Build the index again."
        )
    return manifest


def _digest(manifest: dict[str, Any]) -> str:
    text = json.dumps({name: value for name, value in manifest.items() if name != "sha256"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
