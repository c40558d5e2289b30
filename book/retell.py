"""Write a retelling version of each chapter: its code and headings, with the prose left out.

    python book/retell.py _build/static/retelling

Read a chapter, close it, open this version, and say in your own words what each cell does and what its output will be.
That shows what was understood better than reading again.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
HEADING = re.compile(r"^#{1,6} .+$", re.MULTILINE)
FENCE = re.compile(r"^(`{3,}|:{3,}|~{3,}).*?^\1\s*$", re.MULTILINE | re.DOTALL)
PROSE_ALONE = {"## Check yourself", "## Summary"}
"""Headings whose sections hold prose alone."""
UNSEEN = "remove-cell"


def headings(text: str) -> list[str]:
    """The headings of some Markdown."""
    return [line for line in HEADING.findall(FENCE.sub("", text)) if line not in PROSE_ALONE]


def retold(notebook: NotebookNode) -> NotebookNode:
    """A notebook without its prose: headings, an empty cell for your words after each, and the code that readers see.

    The first code cell stays, which installs the library in Colab; other cells that no reader sees are checks.
    """
    cells: list[NotebookNode] = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for line in headings(cell.source):
                cells += [nbformat.v4.new_markdown_cell(line), nbformat.v4.new_markdown_cell("")]
        elif cell.cell_type == "code":
            first = not any(kept.cell_type == "code" for kept in cells)
            if first or UNSEEN not in cell.metadata.get("tags", []):
                kept = nbformat.v4.new_code_cell(cell.source)
                cells.append(kept)
    for number, cell in enumerate(cells):
        cell["id"] = f"retold-{number:03}"  # the same chapter gives the same file
    metadata = {key: notebook.metadata[key] for key in ("kernelspec", "language_info") if key in notebook.metadata}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def main(folder: Path, root: Path = ROOT) -> list[Path]:
    """Write all; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for source in sorted((root / "notebooks").glob("*.ipynb")):
        file = folder / source.name
        nbformat.write(retold(nbformat.read(source, as_version=4)), file)
        files.append(file)
    for stale in set(folder.glob("*.ipynb")) - set(files):
        stale.unlink()
    return files


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(f"{len(main(Path(sys.argv[1])))} retelling versions in {sys.argv[1]}")
