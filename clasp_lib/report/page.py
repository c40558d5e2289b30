"""A report as one HTML file that asks no network for anything, for a phone as for a desk, by day and by night."""

from __future__ import annotations

from html import escape

from clasp_lib.metrics import Interval
from clasp_lib.report.blocks import Block, Cell, Note, Plot, Section, Table
from clasp_lib.report.contents import sections, title
from clasp_lib.report.measure import Report

_STYLE = """
:root { color-scheme: light dark; --paper: #fdfdfb; --ink: #1c1d1f; --faint: #8b8d92; --line: #d9dadd;
  --note: #fff4d6; --edge: #c98a00; --first: #0072b2; --second: #c14f00; --third: #00795a; }
@media (prefers-color-scheme: dark) { :root { --paper: #15171a; --ink: #e6e6e3; --faint: #8f9299; --line: #363a41;
  --note: #352b12; --edge: #d9a32c; --first: #6cb8ee; --second: #ff9a5c; --third: #4ecba5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 46rem; padding: 1.2rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0 1rem; }
h2, summary { font-size: 1.15rem; font-weight: 650; line-height: 1.3; }
h2 { margin: 2.4rem 0 .6rem; }
details { margin: 2.4rem 0 .6rem; }
summary { cursor: pointer; }
.note { background: var(--note); border-left: .25rem solid var(--edge); padding: .6rem .9rem; border-radius: .2rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
.wide:focus-visible { outline: 2px solid var(--first); }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--ink); font-size: .85rem; padding-bottom: .3rem; opacity: .85; }
th, td { text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
tbody th { font-weight: 450; min-width: 5.2rem; }
th:last-child, td:last-child { padding-right: 0; }
.number { text-align: right; white-space: nowrap; }
td.text { min-width: 7rem; overflow-wrap: anywhere; }
.ends { display: block; font-size: .78rem; opacity: .78; }
figure { margin: 1.2rem 0; }
.plot { display: block; width: 100%; max-width: 34rem; height: auto; font-family: inherit; }
.plot * { stroke-linejoin: round; stroke-linecap: butt; }
figcaption { font-size: .85rem; opacity: .85; margin-top: .2rem; }
@media print { details > * { display: block; } }
"""


def page(report: Report) -> str:
    """The whole report, plots inside."""
    body = "".join(_section(number, section) for number, section in enumerate(sections(report)))
    made = f"{report.made['date']}, CLASP {report.made['versions'].get('clasp-lib', '')}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Nothing may be loaded or run, even if something slipped through the escaping.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title(report))}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title(report))}</h1>\n<p>Retrieval between speech and text, measured {escape(made)}.</p>\n"
        f"{body}</main>\n</body>\n</html>\n"
    )


def _section(number: int, section: Section) -> str:
    blocks = "".join(_block(f"plot-{number}-{i}", block) for i, block in enumerate(section.blocks))
    name = escape(section.title)
    if section.folded:
        return f"<details>\n<summary>{name}</summary>\n{blocks}</details>\n"
    return f"<section>\n<h2>{name}</h2>\n{blocks}</section>\n"


def _block(name: str, block: Block) -> str:
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Plot):
        drawn = block.draw(name, block.alt)
        return f"<figure>\n{drawn}\n<figcaption>{escape(block.caption)}</figcaption>\n</figure>\n"
    if isinstance(block, Note):
        return f'<p class="note">{escape(block.text)}</p>\n'
    return f"<p>{escape(block)}</p>\n"


def _table(table: Table) -> str:
    numbers = [not isinstance(cell, str) for cell in table.rows[-1]]
    head = "".join(
        f'<th scope="col"{_numeric(number)}>{escape(name)}</th>' for name, number in zip(table.head, numbers)
    )
    rows = "".join(
        f'<tr><th scope="row" dir="auto">{_said(row[0])}</th>'
        + "".join(f"<td{_numeric(n)}>{_said(cell)}</td>" for cell, n in zip(row[1:], numbers[1:]))
        + "</tr>\n"
        for row in table.rows
    )
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    label = escape(table.caption or ", ".join(table.head))
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{label}">\n<table>{caption}\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n"
    )


def _numeric(number: bool) -> str:
    return ' class="number"' if number else ' class="text" dir="auto"'


def _said(cell: Cell) -> str:
    if isinstance(cell, Interval):
        value, _, ends = str(cell).partition(" ")
        return f'{value} <span class="ends">{ends}</span>'
    return f"{cell:,}" if isinstance(cell, int) else escape(str(cell))
