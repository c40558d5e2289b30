"""The explorer: what its builder writes, and what a reader can do on the built page, without a kernel or a network.

The browser tests need the built book with the explorer's data (`make book`) and Chromium; see `test_browser.py`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_browser import HTML, absent, address, chromium  # noqa: F401  `address` is a fixture

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book"))
import explorer_data as builder  # noqa: E402
import explorer_material as sources  # noqa: E402

MAX_BYTES = 5_000_000
MAX_PAGE_BYTES = 1_500_000
WAIT_MS = 60_000
PHONE = {"width": 360, "height": 740}
VOICES = ("en-us+m3", "en-gb-scotland+f4", "en-029+ian")


# The builder -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def material() -> sources.Material:
    """Nine clips of noise with random vectors."""
    rng = np.random.default_rng(0)
    n, width = 9, 12

    def vectors(rows: int) -> np.ndarray:
        return sources.unit(rng.normal(size=(rows, width)))

    search = vectors(n)
    queries = [sources.Query("the words of clip four", "exact text", 4), sources.Query("rain", "a word or two", -1)]
    return sources.Material(
        waves=[rng.normal(0, 0.1, 16_000 + 1_600 * i).astype(np.float32) for i in range(n)],
        texts=[f"This is <b>clip</b> {i}." for i in range(n)],
        categories=["news", "humor", "unheard_of"] * 3,
        voices=[VOICES[i % 3] for i in range(n)],
        before=vectors(n),
        after=vectors(n),
        search=search,
        queries=queries,
        query_vectors=np.stack([search[4], -search[0]]),
        gates=sources.Gates(rng.random(n), rng.random((n, width)), {0: np.array([0.25, 0.5])}),
        models={"gate": "one", "search": "two", "encoder": "three"},
    )


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "data.js").read_text("utf-8").removeprefix("window.CLASP_EXPLORER=").rstrip(";\n"))


def test_the_same_material_gives_the_same_bytes(material: sources.Material, tmp_path: Path) -> None:
    first, second = (builder.write(material, tmp_path / name) for name in ("one", "two"))
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) == 9 + 3 + 2  # sounds, sheets, the data and the plain page
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file


def test_the_folder_replaces_an_older_one_and_leaves_nothing_beside_it(
    material: sources.Material, tmp_path: Path
) -> None:
    (tmp_path / "explorer").mkdir()
    (tmp_path / "explorer" / "old").touch()
    folder = builder.write(material, tmp_path)
    assert not (folder / "old").exists() and list(tmp_path.iterdir()) == [folder]


def test_what_would_be_too_large_is_not_written(
    material: sources.Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "BUDGET_BYTES", 1_000)
    with pytest.raises(ValueError, match="more than the 1000"):
        builder.write(material, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_data_say_what_the_material_says(material: sources.Material, tmp_path: Path) -> None:
    data = read(builder.write(material, tmp_path))
    exact, free = data["queries"]
    assert exact["hits"][0] == [4, 1.0] and exact["rank"] == 1 and free["rank"] == 0
    assert all(len(entry["hits"]) == 9 for entry in data["queries"])  # ten, where there are as many
    assert data["kinds"] == [{"kind": "exact text", "n": 1, "first": 1, "in_hits": 1, "median": 1.0}]
    colours = data["colours"]["category"]
    names = [kind["name"] for kind in colours["kinds"]]
    assert [names[number] for number in colours["of"]] == ["news", "humor", "unheard of"] * 3
    looks = [(kind["shape"], kind["colour"]) for kind in colours["kinds"]]
    assert len(set(looks)) == len(looks) and max(colour for _, colour in looks) < 6
    assert data["gate"]["windows"] == {"0": [0.25, 0.5]}
    assert all(sum(bins) == 12 for bins in data["gate"]["bins"])
    for plane in data["layouts"].values():
        assert len(plane) == 9 and np.min(plane) >= 0 and np.max(plane) <= builder.SIDE
    assert [place[:2] for place in data["sheets"]["of"][3:5]] == [["news.webp", 1], ["humor.webp", 1]]


def test_a_sound_keeps_its_length_and_is_loud(material: sources.Material, tmp_path: Path) -> None:
    from clasp_lib.audio import load_audio

    file = tmp_path / "quiet.mp3"
    file.write_bytes(builder.mp3(material.waves[8] / 100))
    heard = load_audio(file, sources.RATE)
    assert abs(len(heard) - len(material.waves[8])) < 0.1 * sources.RATE
    assert 0.3 < np.abs(heard).max() <= 1


def test_a_loud_moment_is_dark_where_it_is_heard() -> None:
    time = np.arange(sources.RATE) / sources.RATE
    wave = (0.5 * np.sin(2 * np.pi * 300 * time) * (time > 0.5)).astype(np.float32)
    picture = builder.spectrogram(wave)
    assert picture.shape == (builder.ROW, builder.COLUMNS_A_SECOND)
    left, right = picture[:, : builder.COLUMNS_A_SECOND // 3], picture[:, -builder.COLUMNS_A_SECOND // 3 :]
    assert left.min() > 200 and right.min() < 50
    assert right.min(1).argmin() > builder.ROW / 2  # a low tone is far down


def test_the_plain_page_lets_no_markup_through(material: sources.Material, tmp_path: Path) -> None:
    folder = builder.write(material, tmp_path)
    page = (folder / "clips.html").read_text("utf-8")
    assert "<b>" not in page and page.count("<audio") == 9 == page.count("aria-label=")


def test_a_turned_and_mirrored_map_is_turned_back() -> None:
    plane = np.random.default_rng(1).normal(size=(20, 2))
    turned = plane[:, ::-1] @ np.array([[0.6, -0.8], [0.8, 0.6]]) + 7
    assert np.allclose(builder.aligned(turned, plane), plane - plane.mean(0))


def test_shares_of_neighbours_are_compared_with_chance() -> None:
    labels = ["a"] * 30 + ["b"] * 30
    together = sources.unit(np.repeat(np.eye(2), 30, axis=0) + np.random.default_rng(0).normal(0, 0.01, (60, 2)))
    apart = sources.unit(np.random.default_rng(1).normal(size=(60, 5)))
    share = builder.shares_of_neighbours(together, apart, labels)
    assert share.before == 1 and share.change == "fewer" and share.guess == pytest.approx(29 / 59)
    assert builder.shares_of_neighbours(apart, together, labels).change == "more"
    assert builder.shares_of_neighbours(apart, apart, labels).change == "as many"


def test_windows_are_all_as_long_and_cover_the_clip() -> None:
    windows = sources.cut(np.arange(40_000, dtype=np.float32))
    assert {len(window) for window in windows} == {16_000} and [int(window[0]) for window in windows] == [
        0,
        8000,
        16000,
        24000,
    ]
    assert [len(window) for window in sources.cut(np.zeros(9_000))] == [9_000]


def test_queries_ask_for_clips_that_are_there() -> None:
    ids, texts = ["news-0027", "humor-0001"], ["One two three four.", "Five six seven."]
    queries = sources.collect_queries(ids, texts, ["news", "humor"])
    assert len({query.text for query in queries}) == len(queries) > 100
    assert queries[0] == sources.Query("One two three four.", "exact text", 0)
    assert {query.about for query in queries} == {-1, 0, 1}
    assert [query.text for query in queries if query.kind == "in other words"] == [
        "A snake was hidden in a musical instrument."
    ]


def test_every_query_of_the_file_is_about_a_test_sentence_or_none() -> None:
    from clasp_lib.corpus import pocket_brown

    known = {sentence.id for sentence in pocket_brown()}
    lines = sources.QUERIES.read_text("utf-8").splitlines()[1:]
    assert all(line.count("\t") == 1 and line.split("\t")[1].strip() for line in lines)
    assert {line.split("\t")[0] for line in lines} - {""} <= known


# The page --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not (HTML / "book" / "explorer.html").exists() or not (HTML / "_static" / "explorer" / "data.js").exists():
        absent("no explorer in the built book: run `make book`")
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    if not (HTML / "_static" / "explorer" / "data.js").exists():
        absent("no explorer in the built book: run `make book`")
    return read(HTML / "_static" / "explorer")


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:  # noqa: F811
    yield from opened(browser, f"{address}/book/explorer.html")


def opened(browser: Any, url: str, **options: Any) -> Iterator[Any]:
    """The page, quiet to the eye; whatever it complains about fails the test."""
    context = browser.new_context(**{"reduced_motion": "reduce", "viewport": {"width": 1280, "height": 900}, **options})
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(url, timeout=WAIT_MS)
    page.wait_for_selector("#explorer:not([hidden])", timeout=WAIT_MS)
    page.evaluate("window.heard = []")
    page.evaluate(
        "document.getElementById('explorer-player').addEventListener('play', e => window.heard.push(e.target.src))"
    )
    yield page
    context.close()
    assert not problems, problems


def screen_place(page: Any, data: dict[str, Any], clip: int, layout: str = "before") -> tuple[float, float]:
    """Where a clip is drawn, in CSS pixels of the window."""
    page.locator("#explorer-map").scroll_into_view_if_needed()
    box = page.locator("#explorer-map").bounding_box()
    x, y = data["layouts"][layout][clip]
    return tuple(box[side] + box["width"] * (at + 45) / (data["side"] + 90) for side, at in (("x", x), ("y", y)))


def lonely(data: dict[str, Any], layout: str = "before") -> int:
    """The clip that is farthest from its neighbours on a map, so that no other can be meant."""
    plane = np.array(data["layouts"][layout], float)
    apart = np.linalg.norm(plane[:, None] - plane[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    return int(apart.min(1).argmax())


def assert_it_plays(page: Any, clip: int) -> None:
    """The one player began to play the sound of this clip, and goes on."""
    page.wait_for_function("document.getElementById('explorer-player').currentTime > 0.05", timeout=WAIT_MS)
    assert page.evaluate("window.heard.at(-1)").endswith(f"/explorer/clips/{builder.number_of(clip)}")


def open_list(page: Any) -> None:
    page.locator("#explorer-all summary").click()
    page.wait_for_selector("#explorer-clips li", timeout=WAIT_MS)  # the browser says a little later that it is open


def text_of(page: Any) -> str:
    return page.locator("#explorer-text").inner_text()


def test_a_click_on_a_point_plays_its_clip(page: Any, data: dict[str, Any]) -> None:
    clip = lonely(data)
    page.mouse.click(*screen_place(page, data, clip))
    assert_it_plays(page, clip)
    assert text_of(page) == data["texts"][clip]


def test_pointing_shows_the_text(page: Any, data: dict[str, Any]) -> None:
    clip = lonely(data)
    assert page.locator("#explorer-tip").is_hidden()
    page.mouse.move(*screen_place(page, data, clip))
    assert data["texts"][clip] in page.locator("#explorer-tip").inner_text()
    page.mouse.move(2, 2)
    assert page.locator("#explorer-tip").is_hidden()


def test_the_map_can_be_walked_with_the_keyboard(page: Any, data: dict[str, Any]) -> None:
    page.locator("#explorer-map").focus()
    page.keyboard.press("Home")
    places = data["layouts"]["before"]
    seen = [text_of(page)]
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        here = places[data["texts"].index(text_of(page))]
        page.keyboard.press(key)
        there = places[data["texts"].index(text_of(page))]
        axis, sign = {"Right": (0, 1), "Left": (0, -1), "Down": (1, 1), "Up": (1, -1)}[key[5:]]
        assert there == here or (there[axis] - here[axis]) * sign > 0
        assert text_of(page) in page.locator("#explorer-live").inner_text()
        seen.append(text_of(page))
    assert len(set(seen)) > 2
    page.keyboard.press("Enter")
    assert_it_plays(page, data["texts"].index(text_of(page)))


def test_the_map_is_one_stop_for_the_tab_key_and_has_a_name(page: Any) -> None:
    assert len(page.locator("#explorer-map").get_attribute("aria-label")) >= 20
    assert page.locator("#explorer-map [tabindex], #explorer-map a, #explorer-map button").count() == 0
    page.locator("#explorer-map").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('#explorer-legend') !== null")


def test_the_filter_leaves_the_clips_of_one_kind(page: Any, data: dict[str, Any]) -> None:
    colours = data["colours"]["category"]
    number = 1
    members = [i for i, kind in enumerate(colours["of"]) if kind == number]
    page.locator(f'#explorer-legend [data-kind="{number}"]').click()
    assert page.locator(".explorer-point:not(.explorer-faded)").count() == len(members)
    open_list(page)
    assert page.locator("#explorer-clips li").count() == len(members)
    plane = np.array(data["layouts"]["before"], float)
    away = np.linalg.norm(plane[:, None] - plane[members], axis=2).min(1)  # from the nearest clip that is shown
    other = int(away.argmax())
    shown = text_of(page)
    page.mouse.click(*screen_place(page, data, other))  # what is not shown cannot be meant
    assert text_of(page) == shown != data["texts"][other]
    page.locator("#explorer-everything").click()
    assert page.locator(".explorer-faded").count() == 0
    assert page.locator("#explorer-clips li").count() == len(data["texts"])


def test_the_list_takes_words_and_plays(page: Any, data: dict[str, Any]) -> None:
    open_list(page)
    page.fill("#explorer-words", "lighthouse")
    rows = page.locator("#explorer-clips button")
    assert 0 < rows.count() < 20
    assert all("lighthouse" in text.lower() for text in rows.all_inner_texts())
    clip = int(rows.first.get_attribute("data-clip"))
    rows.first.press("Enter")
    assert_it_plays(page, clip)


def test_the_switch_moves_the_clips_and_says_what_changed(page: Any, data: dict[str, Any]) -> None:
    def places() -> list[str]:
        return page.eval_on_selector_all(".explorer-point", "points => points.map(p => p.style.transform).sort()")

    before = places()
    assert f"Of {len(data['texts'])} clips" in page.locator("#explorer-finding").inner_text()
    page.locator('[name="explorer-layout"][value="before"]').focus()
    page.keyboard.press("ArrowRight")
    assert page.locator('[name="explorer-layout"][value="after"]').is_checked()
    assert places() != before
    clip = lonely(data, "after")
    page.mouse.click(*screen_place(page, data, clip, "after"))
    assert_it_plays(page, clip)
    near = data["colours"]["accent"]["near"]
    page.locator('[name="explorer-colour"][value="accent"]').check(force=True)
    said = page.locator("#explorer-finding").inner_text()
    assert all(f"{round(100 * near[when])}%" in said for when in ("before", "after", "guess"))


def test_motion_is_only_for_those_who_want_it(browser: Any, address: str) -> None:  # noqa: F811
    for wish, expected in (("reduce", "0s"), ("no-preference", "0.9s")):
        for page in opened(browser, f"{address}/book/explorer.html", reduced_motion=wish):
            page.wait_for_selector(".explorer-moves")
            duration = "getComputedStyle(document.querySelector('.explorer-point')).transitionDuration"
            assert page.evaluate(duration) == expected


def test_a_query_is_found_by_its_words_and_chosen_by_keys(page: Any, data: dict[str, Any]) -> None:
    query = next(entry for entry in data["queries"] if "snake" in entry["text"] and entry["rank"])
    page.locator("#explorer-query").press_sequentially("snake instrument")
    options = page.locator("#explorer-options li")
    assert options.count() == 1 and query["text"] in options.first.inner_text()
    assert page.locator("#explorer-query").get_attribute("aria-expanded") == "true"
    page.keyboard.press("ArrowDown")
    assert page.locator("#explorer-query").get_attribute("aria-activedescendant") == options.first.get_attribute("id")
    page.keyboard.press("Enter")
    hits = page.locator("#explorer-found li")
    assert [int(b.get_attribute("data-clip")) for b in hits.locator("button").all()] == [i for i, _ in query["hits"]]
    assert f"place {query['rank']} of {len(data['texts'])}" in page.locator("#explorer-said").inner_text()
    assert page.locator(".explorer-mark").count() == len(query["hits"])
    hits.nth(2).locator("button").click()
    assert_it_plays(page, query["hits"][2][0])
    page.locator("#explorer-clear").click()
    assert page.locator(".explorer-mark").count() == 0 and page.locator("#explorer-hits").is_hidden()


def test_the_clip_that_was_meant_is_marked_among_the_hits(page: Any, data: dict[str, Any]) -> None:
    query = next(entry for entry in data["queries"] if entry["kind"] == "exact text" and 1 < entry["rank"] <= 10)
    page.fill("#explorer-query", query["text"])
    page.keyboard.press("Enter")  # typed in full, it needs no choosing
    own = page.locator("#explorer-found .explorer-own button")
    assert own.count() == 1 and int(own.get_attribute("data-clip")) == query["about"]


def test_a_query_that_was_not_prepared_is_said_to_be_out_of_reach(page: Any) -> None:
    page.fill("#explorer-query", "a snake on a skateboard")
    page.keyboard.press("Enter")
    assert "no encoder" in page.locator("#explorer-said").inner_text()
    assert "snake" in page.locator("#explorer-options li").first.inner_text().lower()
    assert page.locator("#explorer-hits").is_hidden()
    page.fill("#explorer-query", "zzzz")
    assert "None shares a word" in page.locator("#explorer-said").inner_text()
    assert page.locator("#explorer-options").is_hidden()


def test_the_gate_is_drawn_over_time_only_where_windows_were_read(page: Any, data: dict[str, Any]) -> None:
    known = sorted(map(int, data["gate"]["windows"]))
    without = next(i for i in range(len(data["texts"])) if i not in known)
    page.locator("#explorer-map").focus()
    page.keyboard.press("Home")
    assert page.locator(".explorer-window").count() == len(data["gate"]["windows"]["0"])
    assert f"{data['gate']['share'][0]:.2f}" in page.locator("#explorer-windows").inner_text()
    assert page.locator("#explorer-dimensions rect").count() == len(data["gate"]["bins"][0])
    open_list(page)
    page.locator(f'#explorer-clips [data-clip="{without}"]').click()
    assert page.locator(".explorer-window").count() == 0
    assert f"{len(known)} of the {len(data['texts'])}" in page.locator("#explorer-windows").inner_text()
    page.locator("#explorer-next").click()
    assert page.locator(".explorer-window").count() > 0
    sheet = page.locator("#explorer-spectrogram image").get_attribute("href")
    assert page.evaluate(
        "async url => { const i = new Image(); i.src = url; await i.decode(); return i.width; }", sheet
    )


def test_a_tap_plays_and_a_phone_needs_no_scrolling_aside(browser: Any, address: str, data: dict[str, Any]) -> None:  # noqa: F811
    clip = lonely(data)
    for page in opened(browser, f"{address}/book/explorer.html", viewport=PHONE, has_touch=True, is_mobile=True):
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        x, y = screen_place(page, data, clip)
        page.touchscreen.tap(x + 6, y - 6)  # a finger is not exact
        assert_it_plays(page, clip)
        page.fill("#explorer-query", "snake")
        page.locator("#explorer-options li").first.tap()
        assert page.locator("#explorer-found li").count() == builder.HITS
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_it_works_from_a_folder_without_a_server(browser: Any, data: dict[str, Any]) -> None:
    for page in opened(browser, (HTML / "book" / "explorer.html").as_uri()):
        page.locator("#explorer-map").focus()
        page.keyboard.press("End")
        page.keyboard.press("Enter")
        assert_it_plays(page, len(data["texts"]) - 1)


def test_missing_data_are_said_to_be_missing(browser: Any, address: str) -> None:  # noqa: F811
    page = browser.new_page()
    page.route("**/explorer/data.js", lambda route: route.abort())
    page.goto(f"{address}/book/explorer.html", timeout=WAIT_MS)
    page.wait_for_selector("#explorer-missing:not([hidden])", timeout=WAIT_MS)
    assert page.locator("#explorer").is_hidden()
    page.close()


def test_without_scripts_the_page_leads_to_a_plain_list(browser: Any, address: str, data: dict[str, Any]) -> None:  # noqa: F811
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/book/explorer.html", timeout=WAIT_MS)
    page.locator("noscript a").click()
    page.wait_for_load_state("load", timeout=WAIT_MS)
    page.wait_for_selector(f"li:nth-child({len(data['texts'])}) audio", timeout=WAIT_MS)
    assert page.locator("audio").count() == len(data["texts"])
    context.close()


def test_every_clip_has_a_sound_and_all_files_keep_to_the_budget(data: dict[str, Any]) -> None:
    folder = HTML / "_static" / "explorer"
    sounds = sorted(path.name for path in (folder / "clips").iterdir())
    assert sounds == [builder.number_of(i) for i in range(len(data["texts"]))]
    carried = [*folder.rglob("*"), *(HTML / "_static").glob("explorer*.*")]
    assert sum(path.stat().st_size for path in carried if path.is_file()) < MAX_BYTES
    assert (HTML / "book" / "explorer.html").stat().st_size < MAX_PAGE_BYTES


def test_the_data_hold_what_the_page_promises(data: dict[str, Any]) -> None:
    assert len(data["texts"]) > 400 and 200 < len(data["queries"]) < 600
    assert all(len(entry["hits"]) == builder.HITS for entry in data["queries"])
    kinds = {row["kind"]: row for row in data["kinds"]}
    assert kinds["exact text"]["median"] < kinds["in German"]["median"]
    assert len(data["gate"]["windows"]) >= 4 * 15
    near = data["colours"]["accent"]["near"]
    assert near["before"] > near["guess"]  # the page says that the encoder knows the accent
