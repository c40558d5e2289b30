"""Make the book's pictures of the demo again: `python tests/demo_screenshots.py`.

Shows the test clips of the profile: synthetic voices, and sentences of this project. Needs Chromium and playwright.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from clasp_lib import CLASP, SpeechIndex, get_profile
from clasp_lib.audio import SAMPLING_RATE, load_audio
from clasp_lib.demo import launch_demo
from clasp_lib.demo.collection import ready_made
from clasp_lib.localization import encode_recording

PICTURES = Path(__file__).resolve().parents[1] / "book" / "_static"
WIDE, PHONE = {"width": 820, "height": 760}, {"width": 390, "height": 780}
CLIPS, PAUSE_S = 24, 0.6
MOST_BYTES = 200_000


def main() -> None:
    """Write the pictures, each below 200 kB."""
    from playwright.sync_api import sync_playwright

    model = CLASP.from_pretrained("pocket-search-linear")
    index = ready_made(model)
    clips = get_profile().dataset()["test"].select(range(40, 40 + 10 * CLIPS, 10))
    waves = [load_audio(audio) for audio in clips["audio"]]
    pieces = [piece for wave in waves for piece in (wave, np.zeros(round(PAUSE_S * SAMPLING_RATE)))]
    ends = np.cumsum([len(piece) for piece in pieces])[::2] / SAMPLING_RATE  # seconds, of each clip
    said = [(end - len(wave) / SAMPLING_RATE, end) for wave, end in zip(waves, ends, strict=True)]
    page = launch_demo(model, index, block=False)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        recording = Path(folder) / "meeting.flac"
        soundfile.write(recording, np.concatenate(pieces), SAMPLING_RATE)
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        search, moment = found_first(index), found_moment(model, recording, clips["text"], said)
        for name, viewport, persian in (
            ("demo-search", WIDE, False),
            ("demo-moment", WIDE, False),
            ("demo-persian", WIDE, True),
            ("demo-phone", PHONE, False),
        ):
            tab = browser.new_context(viewport=viewport, device_scale_factor=1.6).new_page()
            tab.goto(page.local_url)
            tab.wait_for_selector(".clasp-head h1")
            if persian:
                tab.locator("#language label", has_text="فارسی").click()
                tab.wait_for_function("document.documentElement.dir === 'rtl'")
            if name == "demo-search":
                tab.locator("#search-query textarea").fill(search)
                tab.locator("#search-hits input[type=number]").fill("3")
                tab.locator("#search-button").click()
                tab.locator(".clasp-card").first.wait_for()
            else:
                tab.locator("[role=tab]").nth(1).click()
                tab.locator(".clasp-recording input[type=file]").set_input_files(recording)
                tab.locator(".clasp-wave").wait_for()
                tab.locator("#moment-query textarea").fill(moment)
                tab.locator("#moment-button").click()
                tab.locator(".clasp-mark").first.wait_for()
            save(tab, PICTURES / f"{name}.png")
    page.close(verbose=False)


def found_first(index: SpeechIndex) -> str:
    """The first text of the collection that finds its own clip first."""
    texts = [entry.text for entry in index.entries if entry.text]
    return next(text for text in texts if index.search(text, 1)[0].text == text)


def found_moment(model: CLASP, recording: Path, texts: Sequence[str], said: Sequence[tuple[float, float]]) -> str:
    """The text that is found best: its moment is where it was said, and stands out most from the second."""
    windows = encode_recording(model, recording, show_progress_bar=False)

    def lead(i: int) -> float:
        first, second = windows.locate(texts[i], 2)
        start, end = said[i]
        shared = min(end, first.end_s) - max(start, first.start_s)
        found = shared > 0.9 * max(end - start, first.end_s - first.start_s)
        return first.score - second.score if found else -1.0

    return texts[max(range(6, len(texts) - 6), key=lead)]


def save(page: Any, file: Path) -> None:
    """A picture of the page with few colours."""
    from PIL import Image

    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(1500)  # until nothing fades any more, and players know how long they are
    boxes = [each.bounding_box() for each in page.locator(".clasp-results").all() if each.is_visible()]
    height = max(box["y"] + box["height"] for box in boxes) + 24
    clip = {"x": 0, "y": 0, "width": page.viewport_size["width"], "height": height}
    shot = Image.open(io.BytesIO(page.screenshot(full_page=True, clip=clip)))
    shot.convert("RGB").quantize(160, dither=Image.Dither.NONE).save(file, optimize=True)
    assert file.stat().st_size < MOST_BYTES, file
    print(f"{file.name}: {shot.size[0]} x {shot.size[1]}, {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
