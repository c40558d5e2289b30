"""The sources of the book: what `_toc.yml` names exists and keeps the book's rules. Fast, and needs no built book."""

from __future__ import annotations

import ast
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from sphinx_external_toc.parsing import parse_toc_yaml

ROOT = Path(__file__).resolve().parents[1]
STATIC = ROOT / "book" / "_static"
MAX_CELL_LINES = 20
MIN_ALT_LENGTH = 20
SVG = "{http://www.w3.org/2000/svg}"


class UniqueKeyLoader(yaml.SafeLoader):
    """YAML lets a later key silently replace an equal earlier one; this loader refuses."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = Counter(self.construct_object(key, deep=deep) for key, _ in node.value)
        twice = [key for key, count in keys.items() if count > 1]
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"duplicate keys: {twice}", node.start_mark)
        return super().construct_mapping(node, deep)


PAGES = list(parse_toc_yaml(ROOT / "_toc.yml"))  # in reading order, the root first
NOTEBOOKS = [name for name in PAGES if name.startswith(("notebooks/", "coursework/"))]
DRAWINGS = sorted(path.name for path in STATIC.rglob("*.svg"))


def source_of(name: str) -> Path:
    """Return the source file of a page name."""
    found = [path for suffix in (".ipynb", ".md") if (path := ROOT / f"{name}{suffix}").exists()]
    assert len(found) == 1, f"_toc.yml names {name}; one source is expected, found {[p.name for p in found]}"
    return found[0]


def read_notebook(name: str) -> nbformat.NotebookNode:
    return nbformat.read(source_of(name), as_version=4)


def markdown_of(name: str) -> str:
    """Return the prose of a page: the whole file, or the Markdown cells of a notebook."""
    path = source_of(name)
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    return "\n\n".join(cell.source for cell in read_notebook(name).cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("name", ["_config.yml", "_toc.yml"])
def test_no_key_is_written_twice(name: str) -> None:
    yaml.load((ROOT / name).read_text(encoding="utf-8"), Loader=UniqueKeyLoader)


def test_duplicate_keys_are_noticed() -> None:
    with pytest.raises(yaml.constructor.ConstructorError, match="duplicate keys"):
        yaml.load("a: 1\na: 2\n", Loader=UniqueKeyLoader)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_the_toc_has_one_source(name: str) -> None:
    source_of(name)


def test_no_page_is_named_twice() -> None:
    assert len(PAGES) == len(set(PAGES))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_valid_and_stored_without_outputs(name: str) -> None:
    notebook = read_notebook(name)
    nbformat.validate(notebook)
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            assert not cell.outputs, f"{name}, cell {number}: clear the outputs before committing"
            assert cell.execution_count is None, f"{name}, cell {number}: clear the execution count"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_cells_are_short_and_plain_python(name: str) -> None:
    """nbval passes over a failing `!command` in silence, and a magic runs only under IPython: neither is used."""
    for number, cell in enumerate(read_notebook(name).cells):
        if cell.cell_type != "code":
            continue
        lines = [line for line in cell.source.splitlines() if line.strip()]
        assert len(lines) <= MAX_CELL_LINES, f"{name}, cell {number}: {len(lines)} lines, at most {MAX_CELL_LINES}"
        try:
            compile(cell.source, f"{name}[{number}]", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        except SyntaxError as error:
            pytest.fail(f"{name}, cell {number}, is not plain Python (a magic or a shell command?): {error}")


@pytest.mark.parametrize("name", PAGES)
def test_page_begins_with_its_title(name: str) -> None:
    if source_of(name).suffix == ".ipynb":
        first = read_notebook(name).cells[0]
        assert first.cell_type == "markdown", f"{name}: the first cell is the title"
        text = first.source
    else:
        text = re.sub(r"\A---\n.*?\n---\n", "", markdown_of(name), flags=re.DOTALL)
    assert re.match(r"\s*# \S", text), f"{name}: begins with {text[:40]!r}, expected '# Title'"
    prose = re.sub(r"^(`{3,}|:{3,}).*?^\1", "", markdown_of(name), flags=re.DOTALL | re.MULTILINE)
    assert len(re.findall(r"^# \S", prose, flags=re.MULTILINE)) == 1, f"{name}: has more than one title"


@pytest.mark.parametrize("name", PAGES)
def test_pictures_exist_and_have_alt_text(name: str) -> None:
    text = markdown_of(name)
    pictures = [(target, alt) for alt, target in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)", text)]
    blocks = re.findall(r"^(`{3,}|:{3,})\{(?:figure|image)\} +(\S+)\n(.*?)^\1", text, re.DOTALL | re.MULTILINE)
    for _, target, body in blocks:
        alt = re.search(r"^:alt: +(.+)$", body, re.MULTILINE)
        pictures.append((target, alt.group(1) if alt else ""))
    for target, alt in pictures:
        assert len(alt.strip()) >= MIN_ALT_LENGTH, f"{name}: {target} needs alt text that says what it shows"
        assert "://" not in target, f"{name}: {target} is not in the repository"
        assert (source_of(name).parent / target).exists(), f"{name}: {target} is missing"


@pytest.mark.parametrize("name", DRAWINGS)
def test_drawing_says_what_it_shows(name: str) -> None:
    path = next(STATIC.rglob(name))
    root = ElementTree.parse(path).getroot()
    for tag, least in (("title", 5), ("desc", 20)):
        element = root.find(f"{SVG}{tag}")
        text = "" if element is None else (element.text or "").strip()
        assert len(text) >= least, f"{name}: <{tag}> is missing or short"
    assert root.get("viewBox"), f"{name}: without a viewBox it does not scale"
    for element in root.iter():
        for key, value in element.attrib.items():
            outside = key.endswith("href") and not value.startswith("#")
            assert not outside, f"{name}: refers to {value}; a drawing carries all it needs"


def bibliography_keys() -> list[str]:
    text = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    return re.findall(r"^@\w+\{([^,\s]+),", text, flags=re.MULTILINE)


def test_bibliography_keys_are_unique() -> None:
    assert bibliography_keys()
    assert [key for key, count in Counter(bibliography_keys()).items() if count > 1] == []


@pytest.mark.parametrize("name", PAGES)
def test_citations_have_an_entry(name: str) -> None:
    cited = re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", markdown_of(name))
    keys = {key.strip() for group in cited for key in group.split(",")}
    assert keys <= set(bibliography_keys()), f"{name}: {sorted(keys - set(bibliography_keys()))} not in references.bib"


def test_glossary_terms_are_unique_and_sorted() -> None:
    text = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^:::\{glossary\}\n(.*?)^:::", text, re.DOTALL | re.MULTILINE)
    terms = [line.strip() for block in blocks for line in block.splitlines() if re.match(r"\S", line)]
    lowered = [term.casefold() for term in terms]
    assert len(terms) >= 25
    assert [term for term, count in Counter(lowered).items() if count > 1] == []
    assert lowered == sorted(lowered)
