"""Print how long each executed page of the book took, and the total.

    python book/times.py [_build/.jupyter_cache]

The times are jupyter-cache's: those of the run whose outputs the pages show.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def execution_times(cache: Path, root: Path = ROOT) -> dict[str, float]:
    """Return seconds by page, relative to `root`; a page that was executed several times counts with its last use."""
    from jupyter_cache import get_cache

    last = {}
    for record in sorted(get_cache(str(cache)).list_cache_records(), key=lambda record: (record.accessed, record.pk)):
        page = Path(record.uri)
        if page.is_relative_to(root) and page.exists():
            last[page.relative_to(root).as_posix()] = float(record.data.get("execution_seconds", 0.0))
    return dict(sorted(last.items()))


def table(times: dict[str, float]) -> str:
    """Return the times as aligned lines, with their sum below."""
    rows = [*times.items(), ("sum; several run at a time", sum(times.values()))]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {seconds // 60:3.0f} min {seconds % 60:4.1f} s" for name, seconds in rows)


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "_build" / ".jupyter_cache"
    if not folder.exists():
        sys.exit(f"{folder}: no execution records yet; `make book` makes them")
    print(table(execution_times(folder)))
