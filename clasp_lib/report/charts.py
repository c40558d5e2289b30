"""Plots as SVG that lives inside a page: its colours are the page's, by day and by night, and its text is text."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from clasp_lib.errors import MissingDependencyError
from clasp_lib.metrics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 4.6
"""Inches: little enough for the letters to be read on a phone."""

# Drawn in the first, written as the second, which the page defines.
_INK = {"#101112": "currentColor", "#909192": "var(--faint)"}
_SERIES = {"#0072b2": "var(--first)", "#d55e00": "var(--second)", "#009e73": "var(--third)"}
_MARKS = ("o", "s", "D")
_DASHES = ("-", "--", "-.")


def require_matplotlib() -> None:
    """Raise a MissingDependencyError if nothing can be drawn; to be called before anything slow."""
    if find_spec("matplotlib") is None:
        raise MissingDependencyError(
            "the plots of a report need matplotlib. Run: pip install matplotlib, or pip install 'clasp-lib[book]'"
        )


def interval_plot(
    name: str, alt: str, series: Mapping[str, Mapping[str, Interval]], label: str, chance: float | None = None
) -> str:
    """Values with 95% intervals, one line for each name, one colour for each series; a dotted line at chance."""
    rows = list(dict.fromkeys(row for values in series.values() for row in values))

    def draw(axes: Axes) -> None:
        step = 0.5 / max(len(series), 2)
        for number, (said, values) in enumerate(series.items()):
            shift = step * (number - (len(series) - 1) / 2)
            places = [rows.index(row) + shift for row in values]
            ends = [(max(v.value - v.low, 0), max(v.high - v.value, 0)) for v in values.values()]
            colour = list(_SERIES)[number % len(_SERIES)]
            axes.errorbar(
                [v.value for v in values.values()], places, xerr=list(zip(*ends)), fmt=_MARKS[number % len(_MARKS)],
                color=colour, capsize=2.5, markersize=4.5, linewidth=1.2, label=said,
            )  # fmt: skip
        if chance is not None:
            axes.axvline(chance, linestyle=":", linewidth=1, color=next(iter(_INK)))
        axes.set_yticks(range(len(rows)), rows)
        axes.set(xlabel=label, ylim=(len(rows) - 0.5, -0.5), xlim=(0, None))
        axes.locator_params(axis="x", nbins=6)

    return _svg(name, alt, 0.3 * len(rows) * (1 + 0.25 * (len(series) - 1)) + 1.0, draw, legend=len(series) > 1)


def pool_plot(name: str, alt: str, curves: Mapping[str, Sequence[Mapping[str, Any]]], measure: str, label: str) -> str:
    """A measure against the size of the pool, with a band of 95%, and a dotted line for a guess."""

    def draw(axes: Axes) -> None:
        for number, (said, rows) in enumerate(curves.items()):
            colour = list(_SERIES)[number]
            pools = [row["pool"] for row in rows]
            value, low, high = ([row[measure][end] for row in rows] for end in ("value", "low", "high"))
            axes.plot(pools, value, color=colour, linestyle=_DASHES[number], linewidth=1.4, label=said)
            axes.fill_between(pools, low, high, color=colour, alpha=0.18, linewidth=0)
        longest = max(curves.values(), key=len)
        pools = [row["pool"] for row in longest]
        axes.plot(pools, [1 / pool for pool in pools], ":", linewidth=1, color=next(iter(_INK)), label="a guess")
        axes.set_xscale("log")
        ticks = [t for t in (2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000) if t <= pools[-1]]
        axes.set_xticks(ticks, [str(t) for t in ticks])
        axes.minorticks_off()
        axes.set(xlabel="candidates in the pool", ylabel=label, ylim=(0, 1.02))

    return _svg(name, alt, 2.7, draw, legend=True)


def _svg(name: str, alt: str, height: float, draw: Callable[[Axes], None], legend: bool) -> str:
    """One figure as an `<svg>` element: no header, ids of its own, `alt` as its title."""
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    ink, faint = _INK
    style: Any = {
        "svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif", "font.size": 9, "text.color": ink,
        "axes.edgecolor": faint, "axes.labelcolor": ink, "xtick.color": ink, "ytick.color": ink, "axes.grid": True,
        "grid.color": faint, "grid.alpha": 0.35, "grid.linewidth": 0.5, "axes.axisbelow": True,
        "text.parse_math": False,
        "axes.spines.top": False, "axes.spines.right": False,
    }  # fmt: skip
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # letters that matplotlib lacks, the browser has
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure.add_subplot())
        if legend:
            figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=8.5)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", buffer.getvalue()[buffer.getvalue().index("<svg") :], flags=re.S)
    svg = re.sub(r"<!--.*?-->\s*|<defs>\s*<style.*?</style>\s*</defs>\s*", "", svg, flags=re.S)
    svg = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', svg)  # several figures share one page
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    for drawn, written in (_INK | _SERIES).items():
        svg = svg.replace(drawn, written)
    svg = re.sub(r" font-family: [^;]*;", "", svg)  # the page's letters
    box = re.search(r'viewBox="[^"]*"', svg)
    inside = svg[svg.index(">") + 1 :].strip()
    assert box is not None
    links = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    opening = f'<svg class="plot" role="img" aria-labelledby="{name}-said" {box[0]} {links}>'
    return f'{opening}<title id="{name}-said">{escape(alt)}</title>{inside}'
