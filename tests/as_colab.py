"""Run notebooks as Colab does: each in an empty folder of its own, far from the repository, with the installed package.

    python tests/as_colab.py notebooks/01_search.ipynb notebooks/02_speech_brown.ipynb

Where the package is missing, the first cell of a chapter installs it, as in Colab; what Colab brings may not change by
that. Uses what Colab has: nbformat and nbconvert.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PRESENT = ("torch", "torchvision", "numpy", "ipykernel")
"""What Colab brings and an installation has to leave alone."""
LAST = "import clasp_lib\nprint('clasp_lib is', clasp_lib.__file__)"


class NotebookFailed(AssertionError):
    """A cell raised, or the notebook ran from the repository."""


def run_as_colab(notebook: Path, environment: Mapping[str, str] | None = None, timeout: int = 1_800) -> Path:
    """Run one notebook from top to bottom; returns the file of the library that it ran with.

    Args:
        notebook: its file, which is copied and not changed.
        environment: variables for the kernel; those of this process by default.
        timeout: seconds for a cell.

    Raises:
        NotebookFailed: with the traceback of the cell.
    """
    import nbformat

    with tempfile.TemporaryDirectory() as folder:
        content = nbformat.read(notebook, as_version=4)
        content.cells.append(nbformat.v4.new_code_cell(LAST))
        copy = Path(folder) / notebook.name
        nbformat.write(content, copy)
        convert = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace"]
        wait = f"--ExecutePreprocessor.timeout={timeout}"
        done = subprocess.run(
            [*convert, wait, copy.name],
            cwd=folder,
            env={**(os.environ if environment is None else environment)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NotebookFailed(f"{notebook.name}:\n{done.stderr[-4_000:]}")
        (output,) = nbformat.read(copy, as_version=4).cells[-1].outputs
        return Path(output.text.removeprefix("clasp_lib is ").strip())


def versions() -> dict[str, str]:
    """What is installed of `PRESENT`, as the packages' own metadata say now."""
    found = {}
    for name in PRESENT:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> int:
    """Run all, say how long each took, and compare what was there before with what is there after."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", type=Path, nargs="+")
    parser.add_argument("--timeout", type=int, default=1_800, help="seconds for a cell")
    given = parser.parse_args()
    before, failed = versions(), 0
    for notebook in given.notebooks:
        started = time.perf_counter()
        try:
            run_as_colab(notebook, timeout=given.timeout)
            outcome = "ran"
        except NotebookFailed as error:
            failed += 1
            outcome = f"FAILED: {error}"
        print(f"{notebook.stem:<20} {time.perf_counter() - started:5.0f} s  {outcome}", flush=True)
    if versions() != before:
        print(f"CHANGED: {before} became {versions()}")
        failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
