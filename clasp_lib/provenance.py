"""How a result was made, kept beside it: nobody has to remember, and everybody can repeat it."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clasp_lib.folders import reported, write_whole


def provenance(command: Sequence[str]) -> dict[str, str]:
    """Command, date, machine, versions and commit, for a record."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    return {
        "command": " ".join(command),
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
        "machine": f"{platform.system()} {platform.machine()}, {device}",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}",
    }


def write_record(file: Path, record: Mapping[str, Any]) -> None:
    """JSON, whole or not at all.

    Raises:
        DatasetError: it cannot be written.
    """
    with reported(file):
        write_whole(file, (json.dumps(record, indent=1) + "\n").encode())


def _commit() -> str:
    """Of this library, "-dirty" if one of its files is not committed; "unknown" where it is not in its repository.

    The records themselves do not count: a run writes several, one after the other.
    """
    folder, file = os.path.split(__file__)
    changes = ("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)pocket/reports")
    found = []
    try:
        for line in (("ls-files", "--error-unmatch", file), ("rev-parse", "--short", "HEAD"), changes):
            run = subprocess.run(["git", "-C", folder, *line], capture_output=True, text=True, check=True)
            found.append(run.stdout.strip())
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{found[1]}-dirty" if found[2] else found[1]
