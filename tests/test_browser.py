"""The built book in a real browser: every page loads alone, without an error, and its players play.

Needs the built book (`make book`), Chromium, and the `playwright` package, which drives the installed Chromium and
downloads no browser. Where one is missing the tests skip, except in CI (`CI` set), where they fail.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sphinx_external_toc.parsing import parse_toc_yaml

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
MAX_HTML_BYTES = 1_500_000
MIN_ALT_LENGTH = 20
MIN_DURATION_S = 0.3
PHONE = {"width": 360, "height": 740}
LOAD_TIMEOUT_MS = 30_000
PLAY_TIMEOUT_MS = 10_000

# Hosts, other than our own, that a page may load from. None: the theme, its icons, MathJax and the players are all
# part of the built book. An entry here needs a reason beside it.
ALLOWED_HOSTS: frozenset[str] = frozenset()

# Chapters without a sound have failed their reader.
PAGES_WITH_SOUND = {
    *("notebooks/01_search", "notebooks/02_speech_brown", "notebooks/11_evaluation", "notebooks/12_transcripts"),
    *("notebooks/14_robustness", "notebooks/15_space", "notebooks/16_probes"),
    *("notebooks/18_moments", "notebooks/19_app"),
}

# A clip may be long; it is played only until sound has certainly begun.
PLAY = f"""async audio => {{
  audio.muted = true;
  const deadline = performance.now() + {PLAY_TIMEOUT_MS};
  try {{
    await audio.play();
    while (audio.currentTime <= 0 && performance.now() < deadline) await new Promise(r => setTimeout(r, 10));
  }} catch (error) {{
    return {{error: String(error), currentTime: audio.currentTime, duration: audio.duration}};
  }}
  const state = {{error: null, currentTime: audio.currentTime, duration: audio.duration}};
  audio.pause();
  return state;
}}"""

# The rules of axe that themes have no part in, and those of colours. A page says the same colours thousands of times,
# and axe takes milliseconds for each: of what looks alike (element, class, size, weight, both colours) it is shown one.
GRAVE_ONES = """found => found.violations
  .filter(rule => ['serious', 'critical'].includes(rule.impact))
  .map(rule => [rule.id, rule.nodes.slice(0, 3).map(node => node.html.slice(0, 200))])"""
OF_COLOURS = "['color-contrast', 'link-in-text-block']"
RULES_BUT_COLOURS = f"""() => axe.run(document, {{
  resultTypes: ['violations'], preload: false,
  rules: Object.fromEntries({OF_COLOURS}.map(rule => [rule, {{enabled: false}}])),
}}).then({GRAVE_ONES})"""
COLOURS = f"""() => {{
  const looks = new Map();
  for (const element of document.body.querySelectorAll('*')) {{
    const says = [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!says || !element.checkVisibility()) continue;
    let behind = element;
    while (behind && getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
    const look = getComputedStyle(element);
    const key = [
      element.tagName, element.className, look.color, look.fontSize, look.fontWeight, look.opacity,
      behind?.className, behind && getComputedStyle(behind).backgroundColor,
    ].join();
    if (!looks.has(key)) looks.set(key, element);
  }}
  const options = {{resultTypes: ['violations'], preload: false, runOnly: {OF_COLOURS}}};
  return axe.run({{include: [...looks.values()]}}, options).then({GRAVE_ONES});
}}"""

PAGES = list(parse_toc_yaml(ROOT / "_toc.yml"))  # in reading order, the root first


def absent(what: str) -> None:
    """Skip on a user's machine, fail in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}; in CI this may not be skipped")
    pytest.skip(what)


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output for what matters."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Serve the built book on a free local port."""
    if not (HTML / "index.html").exists():
        absent("no built book in _build/html: run `make book`")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=str(HTML)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@contextlib.contextmanager
def chromium(*flags: str) -> Iterator[Any]:
    """A headless Chromium that can reach this machine only."""
    program = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
    if program is None:
        absent("no Chromium on PATH (Debian: `apt-get install chromium`)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        absent("no playwright package: install the [test] extra")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            args=[
                "--no-sandbox",  # CI containers run as root, where Chromium's sandbox cannot start
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-sync",
                "--mute-audio",
                "--autoplay-policy=no-user-gesture-required",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                *flags,
            ],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.mark.parametrize("name", PAGES)
def test_page_works_in_a_browser(name: str, address: str, browser: Any) -> None:
    file = HTML / f"{name}.html"
    assert file.exists(), f"{name} is in _toc.yml but was not built: run `make book`"
    assert file.stat().st_size < MAX_HTML_BYTES, f"{name}: {file.stat().st_size} bytes of HTML"

    problems: list[str] = []
    outside: set[str] = set()

    def on_request(request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.hostname != "127.0.0.1":
            outside.add(request.url)

    def on_failure(request: Any) -> None:
        # A player that is paused early aborts the rest of its own data: that is no failure of the page.
        if urlsplit(request.url).scheme not in ("data", "blob"):
            problems.append(f"failed: {request.url} ({request.failure})")

    page = browser.new_page()
    try:
        page.on("request", on_request)
        page.on("requestfailed", on_failure)
        page.on("response", lambda r: problems.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
        page.on("console", lambda m: problems.append(f"console: {m.text}") if m.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(f"script: {error}"))
        page.goto(f"{address}/{name}.html", wait_until="load", timeout=LOAD_TIMEOUT_MS)
        page.wait_for_load_state("networkidle", timeout=LOAD_TIMEOUT_MS)

        check_formulas(page, name)
        check_pictures(page, name)
        check_players(page, name)
        check_tables(page, name)
        check_accessibility(page, name)
        check_on_a_phone(page, name)
    finally:
        page.close()

    strangers = {url for url in outside if urlsplit(url).hostname not in ALLOWED_HOSTS}
    assert not strangers, f"{name} loads from outside: {sorted(strangers)}"
    assert not problems, f"{name}: {problems}"


def check_formulas(page: Any, name: str) -> None:
    """Every formula was set, by the book's own MathJax and not left as source."""
    unset = page.locator("article .math:not(:has(mjx-container))")
    deadline = time.monotonic() + LOAD_TIMEOUT_MS / 1000
    while unset.count() and time.monotonic() < deadline:
        page.wait_for_timeout(50)
    assert unset.count() == 0, f"{name}: {unset.count()} formulas were not set"
    assert page.locator("article mjx-merror").count() == 0, f"{name}: MathJax cannot read a formula"


def check_pictures(page: Any, name: str) -> None:
    """Every picture of the text is there and is described, not merely named after its file."""
    for image in page.locator("article img").all():
        # Lazily loaded pictures load when they come into view.
        image.scroll_into_view_if_needed()
        state = image.evaluate(
            "async i => { await i.decode().catch(() => {});"
            " const number = i.closest('figure')?.querySelector('figcaption .caption-number');"
            " return {alt: i.alt, source: i.currentSrc.slice(0, 120), width: i.naturalWidth, numbered: !!number}; }"
        )
        assert state["width"] > 0, f"{name}: picture {state['source']} does not load"
        assert state["numbered"], f"{name}: picture {state['source']} is no figure with a number and a caption"
        alt = state["alt"].strip()
        described = len(alt) >= MIN_ALT_LENGTH and " " in alt
        assert described, f"{name}: picture {state['source']} needs alt text, has {alt!r}"


def check_tables(page: Any, name: str) -> None:
    """No table of Markdown is left as its source."""
    paragraphs = "\n".join(page.locator("article p").all_inner_texts())  # what is printed stands in other elements
    assert not re.search(r"\|\s*(-{3,}|—)\s*\|", paragraphs), f"{name}: a table of Markdown was not set"


def check_accessibility(page: Any, name: str) -> None:
    """axe finds nothing serious, in light and in dark mode."""
    page.evaluate(axe_source())
    page.add_style_tag(content="*, ::before, ::after { transition: none !important }")  # themes fade into each other
    found = {("both", rule): nodes for rule, nodes in page.evaluate(RULES_BUT_COLOURS) if nodes}
    for theme in ("light", "dark"):
        page.evaluate(
            "t => { document.documentElement.dataset.theme = document.documentElement.dataset.mode = t }", theme
        )
        found |= {(theme, rule): nodes for rule, nodes in page.evaluate(COLOURS) if nodes}
    assert not found, f"{name}: {found}"


@functools.cache
def axe_source() -> str:
    """axe-core as the package axe-playwright-python carries it."""
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        absent("no axe-playwright-python package: install the [test] extra")
    return Path(found.origin).with_name("axe.min.js").read_text(encoding="utf-8")


def test_pale_text_is_found(address: str, browser: Any) -> None:
    """The check of colours looks at one element of each look: it may not overlook a look."""
    page = browser.new_page()
    try:
        page.goto(f"{address}/{PAGES[0]}.html", wait_until="load", timeout=LOAD_TIMEOUT_MS)
        page.add_style_tag(content="article p:last-of-type { color: #bbb !important }")
        with pytest.raises(AssertionError, match="color-contrast"):
            check_accessibility(page, PAGES[0])
    finally:
        page.close()


def check_on_a_phone(page: Any, name: str) -> None:
    """No page is wider than a small phone: what is wide scrolls in its own box."""
    page.set_viewport_size(PHONE)
    page.wait_for_timeout(200)
    width = page.evaluate("document.scrollingElement.scrollWidth")
    assert width <= PHONE["width"], f"{name}: is {width} pixels wide on a screen of {PHONE['width']}"


def check_players(page: Any, name: str) -> None:
    """Every player has a name for those who cannot see it, and plays."""
    players = page.locator("audio").all()
    if name in PAGES_WITH_SOUND:
        assert players, f"{name}: has no audio player"
    for number, player in enumerate(players, start=1):
        assert player.get_attribute("controls") is not None, f"{name}: player {number} has no controls"
        assert player.get_attribute("aria-label"), f"{name}: player {number} has no aria-label"
        state = player.evaluate(PLAY)
        assert state["error"] is None, f"{name}: player {number} does not play: {state['error']}"
        assert state["currentTime"] > 0, f"{name}: player {number} does not advance"
        duration = state["duration"] or 0
        assert duration > MIN_DURATION_S, f"{name}: player {number} lasts {duration} s"


def test_the_front_door_leads_to_the_welcome_page(address: str, browser: Any) -> None:
    page = browser.new_page()
    try:
        page.goto(f"{address}/", wait_until="load", timeout=LOAD_TIMEOUT_MS)
        page.wait_for_url(f"**/{PAGES[0]}.html", timeout=LOAD_TIMEOUT_MS)
        assert page.locator("h1").first.inner_text().strip()
    finally:
        page.close()
