"""The chapters as files: their first cells, their exercises and quizzes, and the versions that are made from them."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_BYTES = 500_000
INSTALL = re.compile(r'source = "(clasp-lib\[[\w,]+\]) @ git\+https://github\.com/[\w./-]+"')
CHOICE = re.compile(r'<details class="clasp-choice"><summary>(.+?)</summary>\n\n(.+?)\n\n</details>', re.DOTALL)


def script(name: str) -> ModuleType:
    """Import a script of `book/`."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "book" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def section(path: Path, title: str) -> str:
    """The Markdown of a chapter between a heading and the next of its level."""
    text = "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True)).get(title, "")


def test_there_are_chapters() -> None:
    assert len(CHAPTERS) >= 21


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_notebook_is_small(path: Path) -> None:
    assert path.stat().st_size < MAX_BYTES


# In Colab ---------------------------------------------------------------------------------------------------------


def first_code(path: Path) -> str:
    return next(cell.source for cell in read(path).cells if cell.cell_type == "code")


def test_every_chapter_begins_with_the_same_cell() -> None:
    """But for the extras, which are what the chapter needs."""
    assert len({INSTALL.sub("", first_code(path)) for path in CHAPTERS}) == 1


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_first_cell_installs_what_leaves_colab_alone(path: Path) -> None:
    (installed,) = INSTALL.findall(first_code(path))
    requirement = Requirement(installed)
    assert "pocket" in requirement.extras
    assert requirement.extras <= {"pocket", "asr", "search", "demo", "translate"}, "these bring no torchaudio"


def test_the_first_cell_states_the_profile_and_keeps_the_one_that_was_chosen() -> None:
    for chosen, stated in ((None, "pocket"), ("paper-tiny", "paper-tiny")):
        change = f"os.environ['CLASP_PROFILE'] = {chosen!r}" if chosen else "os.environ.pop('CLASP_PROFILE', None)"
        code = f"import os\n{change}\n{first_code(CHAPTERS[0])}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
        assert done.stdout == f"profile: {stated}\n"


# Exercises and quizzes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_has_exercises_with_solutions_that_run(path: Path) -> None:
    assert "**Exercise 2.**" in section(path, "Exercises")
    code = [cell for cell in read(path).cells if cell.cell_type == "code"]
    folded = [cell for cell in code if cell.metadata.get("mystnb", {}).get("code_prompt_show") == "Show the solution"]
    assert folded, "no solution"
    for cell in folded:
        assert "hide-cell" in cell.metadata.tags, "a solution is folded, and executed"
        assert cell.metadata.jupyter.source_hidden, "in JupyterLab, too"


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_quiz_explains_every_choice(path: Path) -> None:
    questions = re.split(r"^\*\*\d+\. ", section(path, "Check yourself"), flags=re.MULTILINE)[1:]
    assert 2 <= len(questions) <= 4
    for question in questions:
        choices = CHOICE.findall(question)
        assert len(choices) == question.count("<details") >= 3, question
        assert sum(told.startswith("**Right.**") for _, told in choices) == 1, question
        for offered, told in choices:
            assert re.match(r"\*\*(Right|No)\.\*\* ", told), offered
            assert len(told) >= 60, f"{offered}: explain it"


def test_the_right_choice_is_not_always_in_the_same_place() -> None:
    places = []
    for path in CHAPTERS:
        for question in re.split(r"^\*\*\d+\. ", section(path, "Check yourself"), flags=re.MULTILINE)[1:]:
            places += ([told.startswith("**Right.**") for _, told in CHOICE.findall(question)].index(True),)
    assert len(places) >= 2 * len(CHAPTERS)
    for place in range(3):
        assert 0.15 < places.count(place) / len(places) < 0.6


# Retelling versions -----------------------------------------------------------------------------------------------


def test_a_retelling_version_is_code_and_headings(tmp_path: Path) -> None:
    files = script("retell").main(tmp_path)
    assert [file.name for file in files] == [path.name for path in CHAPTERS]
    for file, chapter in zip(files, CHAPTERS, strict=True):
        retold, source = read(file), read(chapter)
        nbformat.validate(retold)
        for cell in retold.cells:
            if cell.cell_type == "markdown":
                assert cell.source == "" or re.fullmatch(r"#{1,6} .+", cell.source), cell.source
        seen = [
            c.source for c in source.cells if c.cell_type == "code" and "remove-cell" not in c.metadata.get("tags", [])
        ]
        assert [cell.source for cell in retold.cells if cell.cell_type == "code"] == [first_code(chapter), *seen]
    names = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select", "F821", *map(str, files)]
    done = subprocess.run(names, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"names that only a removed cell defines:\n{done.stdout}"


def test_headings_in_code_are_none(tmp_path: Path) -> None:
    retell = script("retell")
    text = "# Title\n\nProse with # in it.\n\n```python\n# a comment\n```\n\n### Part\n"
    assert retell.headings(text) == ["# Title", "### Part"]


# On the page ------------------------------------------------------------------------------------------------------


def page(name: str) -> str:
    file = ROOT / "_build" / "html" / f"{name}.html"
    if not file.exists():
        if os.environ.get("CI"):
            pytest.fail(f"{file} is missing; in CI this may not be skipped")
        pytest.skip("no built book in _build/html: run `make book`")
    return file.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_says_its_time_and_leads_to_colab_and_its_retelling_version(path: Path) -> None:
    (facts,) = re.findall(r'<p class="clasp-facts">(.+?)</p>', page(f"notebooks/{path.stem}"), re.DOTALL)
    assert re.search(r"Ran in \d+(\.\d)? (s|min) on \d+ CPU cores", facts)
    slug = script("repository").slug_of(script("repository").repository_url())
    assert f'href="https://colab.research.google.com/github/{slug}/blob/main/notebooks/{path.name}"' in facts
    assert f'href="../_static/retelling/{path.name}"' in facts
    assert (ROOT / "_build" / "html" / "_static" / "retelling" / path.name).is_file()


def test_the_map_has_every_chapter_with_its_time_and_download() -> None:
    text = page("book/index")
    for path in CHAPTERS:
        (row,) = re.findall(rf'<tr[^>]*><td><p><a [^>]*href="../notebooks/{path.stem}\.html".+?</tr>', text, re.DOTALL)
        assert re.search(r"<p>\d+(\.\d)? (s|min)</p>", row)
        assert re.search(r"GPU, \d+\.\d GB|CPU, nothing", row)
