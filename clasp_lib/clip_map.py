"""A map of vectors in which points can be heard: HTML and SVG in one piece, which works without scripts, too."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from clasp_lib.errors import ClaspError
from clasp_lib.players import Player

_WIDTH, _HEIGHT, _EDGE = 640, 440, 24
_STYLE = (
    ".clasp-map{max-width:40rem;padding:.5rem;background:#fff;color:#17202a}.clasp-map svg{width:100%;height:auto}"
    ".clasp-map a:focus-visible circle,.clasp-map a:hover circle{stroke:#17202a;stroke-width:4}"
    ".clasp-map audio{display:block;width:100%;max-width:24rem}.clasp-map li{margin:.3rem 0}"
    ".clasp-map li:target{outline:3px solid #d55e00}"
)
_PLAY = (
    "var m=this.closest('.clasp-map');m.querySelectorAll('audio').forEach(function(a){a.pause()});"
    "m.querySelector(this.getAttribute('href')+' audio').play();return false"
)


class ClipMap:
    """Points in a plane, shown by Jupyter. Numbered ones are links to their players below; a click, or Enter, plays.

    Args:
        points: (n, 2), from `clasp_lib.space.embed_in_plane`.
        players: by the row of a point, what is heard there. Each clip travels inside the page: give about a dozen.
        squares: rows that are drawn as squares, say the texts; all others are discs.
        lines: pairs of rows to be joined.
        alt: what the map shows, for readers who do not see it.
    """

    def __init__(
        self,
        points: np.ndarray,
        players: Mapping[int, Player],
        squares: Sequence[int] = (),
        lines: Sequence[tuple[int, int]] = (),
        alt: str = "Map of clips",
    ) -> None:
        points = np.asarray(points, float)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0 or not np.isfinite(points).all():
            raise ClaspError(f"points: have shape {points.shape}; give finite numbers, shape (n, 2).")
        named = [*players, *squares, *(row for line in lines for row in line)]
        strangers = [row for row in named if not 0 <= row < len(points)]
        if strangers:
            raise ClaspError(f"row {strangers[0]} is none of the {len(points)} points.")
        self.points, self.players, self.squares, self.lines, self.alt = points, players, set(squares), lines, alt

    def _repr_html_(self) -> str:
        low, high = self.points.min(0), self.points.max(0)
        room = np.array([_WIDTH, _HEIGHT]) - 2 * _EDGE
        places = _EDGE + (self.points - low) / np.maximum(high - low, 1e-9) * room  # (n, 2)
        name = "map-" + hashlib.sha256(places.tobytes()).hexdigest()[:8]  # ids must differ on a page with two maps
        marks = [
            '<line x1="{:.0f}" y1="{:.0f}" x2="{:.0f}" y2="{:.0f}" stroke="#999"/>'.format(*places[a], *places[b])
            for a, b in self.lines
        ]
        for row, (x, y) in enumerate(places):
            if row in self.squares:
                marks.append(f'<rect x="{x - 3:.0f}" y="{y - 3:.0f}" width="6" height="6" fill="#d55e00"/>')
            elif row not in self.players:
                marks.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="3.5" fill="#0072b2" opacity=".55"/>')
        items = []
        for number, (row, player) in enumerate(self.players.items(), 1):
            (x, y), target = places[row], f"{name}-{number}"
            marks.append(
                f'<a href="#{target}" aria-label="Play clip {number}: {escape(player.label)}" onclick="{_PLAY}">'
                f'<circle cx="{x:.0f}" cy="{y:.0f}" r="11" fill="#0072b2"/>'
                f'<text x="{x:.0f}" y="{y + 4:.0f}" fill="#fff" font-size="12" text-anchor="middle">{number}</text>'
                f"<title>{escape(player.label)}</title></a>"
            )
            items.append(f'<li id="{target}">{escape(player.label)}{player.html}</li>')
        svg = (
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="group" aria-label="{escape(self.alt)}">{"".join(marks)}</svg>'
        )
        return f'<div class="clasp-map"><style>{_STYLE}</style>{svg}<ol>{"".join(items)}</ol></div>'
