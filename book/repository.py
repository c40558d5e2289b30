"""Print or set the public address of the repository.

    python book/repository.py                                      prints it
    python book/repository.py https://github.com/name/repository   sets it

The address belongs to `repository.url` in `_config.yml`. Setting it also rewrites the places that must spell it out:
package metadata, citation, README, the pages, and the install cell and badge of the notebooks.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
URL = re.compile(r"https://github\.com/(?P<slug>[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+?)(?:\.git|/)?")
CONFIG = re.compile(r"^repository:\n(?:[ \t]+.*\n|[ \t]*#.*\n|\n)*?[ \t]+url:[ \t]*(?P<url>\S+)", re.MULTILINE)
PLACES = (
    "_config.yml",
    "pyproject.toml",
    "CITATION.cff",
    "README.md",
    "book/*.md",
    "notebooks/**/*.ipynb",
)


def slug_of(url: str) -> str:
    """Return `name/repository` of a GitHub address."""
    match = URL.fullmatch(url)
    if match is None:
        raise ValueError(f"{url!r} is not an address of the form https://github.com/name/repository")
    return match["slug"]


def repository_url(root: Path = ROOT) -> str:
    """Return `repository.url` of `_config.yml`."""
    match = CONFIG.search((root / "_config.yml").read_text(encoding="utf-8"))
    if match is None:
        raise ValueError("_config.yml: has no repository.url")
    return match["url"].strip("\"'")


def set_repository(url: str, root: Path = ROOT) -> list[str]:
    """Replace the current address by `url` wherever it is spelled out, and return the changed files."""
    new, old = slug_of(url), slug_of(repository_url(root))
    # Also Colab's and Binder's short forms: .../github/name/repository, .../gh/name/repository
    spelled = re.compile(rf"\b(github\.com|github|gh)/{re.escape(old)}(?![\w-])")
    changed = []
    for path in sorted({path for place in PLACES for path in root.glob(place)}):
        before = path.read_bytes().decode("utf-8")
        after = spelled.sub(rf"\g<1>/{new}", before)
        if after != before:
            path.write_bytes(after.encode("utf-8"))
            changed.append(path.relative_to(root).as_posix())
    return changed


if __name__ == "__main__":
    try:
        wanted = sys.argv[1] if len(sys.argv) > 1 else ""
        if wanted:
            print("\n".join(set_repository(wanted)) or "nothing to change")
        print(repository_url())
    except ValueError as error:
        sys.exit(str(error))
