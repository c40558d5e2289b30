"""How long a reader waits: from an empty folder to the first search result that can be heard.

    python benchmarks/first_search.py

Clones the repository, installs its environment with `make install`, and runs the first chapter's cells until a hit with
a player comes out; then checks that the player holds sound. Installing downloads what pip does not have in its cache.
"""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from summary import keep

ROOT = Path(__file__).resolve().parents[1]
PLAYER = re.compile(r'class="clasp-hit".*?<audio[^>]*src="data:audio/mpeg;base64,([^"]+)"', re.DOTALL)
SILENCE = 1e-3  # root mean square
UNTIL_HEARD = """
import sys, nbformat
from nbclient import NotebookClient

notebook = nbformat.read("notebooks/01_search.ipynb", as_version=4)
client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": "notebooks"}})
with client.setup_kernel():
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        client.execute_cell(cell, number)
        shown = "".join(o.data.get("text/html", "") for o in cell.outputs if "data" in o)
        if "clasp-hit" in shown and "<audio" in shown:
            print(shown)
            sys.exit()
sys.exit("no cell of the first chapter showed a hit with a player")
"""


def timed(step: str, work: Callable[[], str]) -> tuple[float, str]:
    """Do it, and print how long it took."""
    started = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - started
    print(f"{step:<44} {seconds:6.0f} s", flush=True)
    return seconds, result


def run(*command: str, folder: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)[:80]}: {done.stderr[-2_000:]}")
    return done.stdout


def loudness(hits: str) -> tuple[float, float]:
    """Seconds and root mean square of the first player's sound."""
    import numpy as np
    import soundfile

    found = PLAYER.search(hits)
    if found is None:
        sys.exit("the first hit has no player")
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(found[1])))
    return len(samples) / rate, float(np.sqrt(np.mean(samples**2)))


def main() -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "clasp-book"
        environment = {**os.environ, "CLASP_CACHE": str(Path(temporary) / "cache")}
        cloning, _ = timed("clone", lambda: run("git", "clone", "-q", str(ROOT), str(folder), folder=ROOT))
        installing, _ = timed("make install", lambda: run("make", "install", folder=folder))
        python = str(folder / ".venv" / "bin" / "python")
        running, hits = timed(
            "chapter 1, to its first search result",
            lambda: run(python, "-c", UNTIL_HEARD, folder=folder, environment=environment),
        )
    seconds, level = loudness(hits)
    if level < SILENCE:
        sys.exit(f"the first hit is silent: root mean square {level:.1e}")
    total = (cloning + installing + running) / 60
    print(f"clone to first heard result: {total:.1f} min on {cores} CPU cores; it lasts {seconds:.1f} s")
    steps = {"clone": cloning, "make install": installing, "chapter 1, to its first search result": running}
    keep("first_search", f"from git clone to the first result that is heard, {cores} CPU cores", times=steps)


if __name__ == "__main__":
    main()
