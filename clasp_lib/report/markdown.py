"""A report as Markdown, for a README or an issue: tables and prose, without plots."""

from __future__ import annotations

import re

from clasp_lib.report.blocks import Cell, Note, Plot, Table
from clasp_lib.report.contents import sections, title
from clasp_lib.report.measure import Report


def markdown(report: Report) -> str:
    """The whole report, but for what is on the page only."""
    lines = [f"# {escaped(title(report))}"]
    for section in sections(report):
        if section.on_page:
            continue
        lines.append(f"## {escaped(section.title)}")
        for block in section.blocks:
            if isinstance(block, Table):
                lines.append(_table(block))
            elif isinstance(block, Note):
                lines.append(f"> **{escaped(block.text)}**")
            elif not isinstance(block, Plot):
                lines.append(escaped(block))
    return "\n\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text that Markdown shows as it is: no tag, no column, no emphasis, no line of its own comes out of it."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*|~$])", r"\\\1", text)
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)  # inside a word it is an underscore
    text = re.sub(r"\](?=[(\[:])", r"\\]", text)  # would be a link
    return re.sub(r"^([#+-]|\d+[.)](?=\s))", r"\\\1", text)


def _table(table: Table) -> str:
    lines = [[*table.head], ["---", *("---:" if _number(cell) else "---" for cell in table.rows[0][1:])]]
    lines = [[escaped(cell) for cell in lines[0]], lines[1]]
    lines += [[escaped(_said(cell)) for cell in row] for row in table.rows]
    found = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{escaped(table.caption)}\n\n{found}" if table.caption else found


def _said(cell: Cell) -> str:
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def _number(cell: Cell) -> bool:
    return not isinstance(cell, str)
