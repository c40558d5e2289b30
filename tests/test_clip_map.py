"""A map of clips is one piece of HTML whose points lead to their players, and lets no markup through."""

from __future__ import annotations

import re

import numpy as np
import pytest

from clasp_lib.clip_map import ClipMap
from clasp_lib.errors import ClaspError
from clasp_lib.players import Player

POINTS = np.array([[0.0, 0], [1, 1], [2, 0], [3, 3]])
WAVE = np.sin(np.arange(4000) / 10).astype(np.float32)


def clip_map() -> ClipMap:
    players = {2: Player(WAVE, "A <b>storm</b>"), 0: Player(WAVE, 'Say "rain"')}
    return ClipMap(POINTS, players, squares=[1], lines=[(0, 1)], alt="Four points, two of which can be heard")


def test_each_link_leads_to_the_player_of_its_point() -> None:
    html = clip_map()._repr_html_()
    targets = re.findall(r'<a href="#([^"]+)"', html)
    assert len(targets) == len(set(targets)) == 2
    labels = []
    for target in targets:
        (item,) = re.findall(rf'<li id="{target}">(.*?)</li>', html)
        assert item.count("<audio") == 1
        labels += re.findall(r'aria-label="([^"]+)"', item)
    assert labels == ["A &lt;b&gt;storm&lt;/b&gt;", "Say &quot;rain&quot;"]
    assert html.count("<rect") == html.count("<line") == 1 and html.count("<circle") == 3


def test_it_is_named_for_those_who_do_not_see_and_loads_nothing() -> None:
    html = clip_map()._repr_html_()
    assert 'aria-label="Four points, two of which can be heard"' in html and html.count('aria-label="Play clip') == 2
    assert "<b>" not in html and "http" not in html and "<script" not in html


def test_two_maps_on_a_page_have_different_ids() -> None:
    other = ClipMap(POINTS**2, {0: Player(WAVE, "one")})
    ids = [set(re.findall(r'<li id="([^"]+)"', each._repr_html_())) for each in (clip_map(), other)]
    assert not ids[0] & ids[1]


def test_all_points_in_one_place_are_drawn_within_the_picture() -> None:
    html = ClipMap(np.zeros((3, 2)), {})._repr_html_()
    assert re.findall(r'cx="(\d+)"', html) == ["24"] * 3


def test_bad_input_is_refused() -> None:
    with pytest.raises(ClaspError, match="shape"):
        ClipMap(np.ones((3, 3)), {})
    with pytest.raises(ClaspError, match="finite"):
        ClipMap(np.full((3, 2), np.nan), {})
    with pytest.raises(ClaspError, match="row 4"):
        ClipMap(POINTS, {4: Player(WAVE, "one")})
