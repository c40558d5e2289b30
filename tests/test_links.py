"""The built pages refer to nothing that is not there: files, pages, and places within them."""

from __future__ import annotations

import functools
import os
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

HTML = Path(__file__).resolve().parents[1] / "_build" / "html"
REFERRING = {"href", "src", "poster"}


class Page(HTMLParser):
    """What a page refers to, and what can be referred to in it."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.places: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key in ("id", "name") and value:
                self.places.add(value)
            elif key in REFERRING and value:
                self.references.append(value)


@functools.cache
def read(file: Path) -> Page:
    page = Page()
    page.feed(file.read_text(encoding="utf-8"))
    return page


def broken(file: Path, root: Path) -> list[str]:
    """References of a page that lead nowhere; addresses elsewhere are not looked at."""
    found = []
    for reference in read(file).references:
        parts = urlsplit(reference)
        if parts.scheme or parts.netloc:
            continue
        target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
        if target.is_dir():
            target /= "index.html"
        if not target.is_relative_to(root) or not target.exists():
            found.append(reference)
        elif parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in read(target).places:
            found.append(f"{reference} (no such place)")
    return found


def test_every_internal_link_leads_somewhere() -> None:
    if not (HTML / "index.html").exists():
        if os.environ.get("CI"):
            pytest.fail("no built book in _build/html; in CI this may not be skipped")
        pytest.skip("no built book in _build/html: run `make book`")
    pages = [file for file in sorted(HTML.rglob("*.html")) if "_static" not in file.relative_to(HTML).parts]
    assert len(pages) >= 25
    wrong = {file.relative_to(HTML).as_posix(): lost for file in pages if (lost := broken(file, HTML.resolve()))}
    assert wrong == {}


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.html").write_text("<p id='here'>")
    links = ["there.html#here", "there.html#elsewhere", "nowhere.html", "https://example.org/x", "#none", "../outside"]
    page = tmp_path / "page.html"
    page.write_text("".join(f"<a href='{link}'>" for link in links))
    lost = broken(page, tmp_path.resolve())
    assert lost == ["there.html#elsewhere (no such place)", "nowhere.html", "#none (no such place)", "../outside"]
