"""Execute the chapters that the cache does not hold yet, several at a time, before Sphinx builds their pages.

    python book/execute.py _build/.jupyter_cache [--explorer FOLDER] [--at-once N] [--timeout SECONDS]

Sphinx executes one notebook after the other, and much of a chapter's time is spent where one core works: starting a
kernel, importing, loading models, drawing. The first chapters make the dataset and the features that all others read,
so they run alone and with all cores; the others share what cores there are, and so does the script that makes what the
explorer's page carries. A chapter that fails here is left to Sphinx, which runs it again and reports it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
FIRST = 3
"""Chapters that others read the results of."""


def notebooks(root: Path = ROOT) -> list[Path]:
    """The notebooks of the table of contents, in its order."""

    def names(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if "file" in node:
                yield node["file"]
            for value in node.values():
                yield from names(value)
        elif isinstance(node, list):
            for value in node:
                yield from names(value)

    contents = yaml.safe_load((root / "_toc.yml").read_text("utf-8"))
    return [path for name in names(contents) if (path := root / f"{name}.ipynb").is_file()]


def execute(paths: Sequence[Path], folder: Path, at_once: int, timeout: int, script: Sequence[str] = ()) -> list[Path]:
    """Run notebooks and put them into the cache; returns those that failed.

    Args:
        script: a command that runs beside them, as one of the jobs.

    Raises:
        subprocess.CalledProcessError: the script failed.
    """
    import nbformat
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn
    from jupyter_cache.executors.utils import single_nb_execution

    cache = get_cache(str(folder))
    missing = []
    for path in paths:
        notebook = nbformat.read(path, nbformat.NO_CONVERT)
        try:
            cache.match_cache_notebook(notebook)
        except KeyError:
            missing.append((path, notebook))
    failed = []
    with ThreadPoolExecutor(at_once) as pool:
        beside = pool.submit(subprocess.run, script, check=True) if script else None
        runs = {
            pool.submit(single_nb_execution, notebook, str(path.parent), timeout, False): path
            for path, notebook in missing
        }
        for run in as_completed(runs):
            path, result = runs[run], run.result()
            print(f"{path.name}: {result.time:.0f} s{', failed' if result.err else ''}", flush=True)
            if result.err:
                failed.append(path)
                continue
            bundle = CacheBundleIn(result.nb, str(path), data={"execution_seconds": result.time})
            cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
        if beside is not None:
            beside.result()
    return failed


def main() -> int:
    """Run what is missing, and say how long all of it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("--explorer", type=Path, metavar="FOLDER", help="make what the explorer's page carries, there")
    parser.add_argument("--at-once", type=int, default=min(4, os.cpu_count() or 1), help="default: one a core, up to 4")
    parser.add_argument("--timeout", type=int, default=1_800, help="seconds for a cell")
    given = parser.parse_args()
    started, paths = time.perf_counter(), notebooks()
    failed = execute(paths[:FIRST], given.cache, 1, given.timeout)
    threads = max(1, (os.cpu_count() or 1) // given.at_once)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # kernels inherit it: cores are shared, not fought for
    script = [sys.executable, str(ROOT / "book" / "explorer_data.py"), str(given.explorer)] if given.explorer else []
    failed += execute(paths[FIRST:], given.cache, given.at_once, given.timeout, script)
    print(f"The notebooks took {time.perf_counter() - started:.0f} s, {given.at_once} at a time", flush=True)
    if failed:
        print(f"failed, and left to Sphinx: {', '.join(path.name for path in failed)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
