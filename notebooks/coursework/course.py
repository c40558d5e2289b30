"""An assignment: its source notebook, its exercises, its student and solution versions, and the instructor's notes.

Sources follow nbgrader's layout and cell metadata (`source/NAME/NAME.ipynb`, schema 3), so that nbgrader takes this
folder as a course. An exercise is three cells: `splits` (written by the student), `splits-check` (tests that the
student sees) and `splits-hidden` (tests that only marking sees). `make.py` and `mark.py` are built on this file.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parent
STUB = ("# YOUR CODE HERE", "raise NotImplementedError()")  # nbgrader's own
HIDDEN = "# Hidden tests stand here. They run when the notebook is marked."
MARKER = re.compile(r"^[ \t]*### (BEGIN|END) (SOLUTION|HIDDEN TESTS)[ \t]*$", re.M)


class CourseError(ValueError):
    """A source, a note or a notebook is not as the course needs it; the message says where and why."""


@dataclass(frozen=True)
class Exercise:
    """What a student writes, and what the two groups of tests are worth."""

    name: str
    check: int
    hidden: int

    @property
    def points(self) -> int:
        return self.check + self.hidden


@dataclass(frozen=True)
class Assignment:
    """A source notebook that was read and found to be in order."""

    name: str
    folder: Path
    notebook: NotebookNode
    exercises: tuple[Exercise, ...]

    @property
    def points(self) -> int:
        return sum(exercise.points for exercise in self.exercises)


@dataclass(frozen=True)
class WrongAnswer:
    """A plausible mistake: a whole solution cell, and a fragment of what the student must be told about it."""

    exercise: str
    name: str
    code: str
    message: str


def grade_id(cell: NotebookNode) -> str:
    """The cell's name for nbgrader, empty where it has none."""
    return str(cell.metadata.get("nbgrader", {}).get("grade_id", ""))


def is_solution(cell: NotebookNode) -> bool:
    """Whether the student writes it."""
    return bool(cell.metadata.get("nbgrader", {}).get("solution"))


def is_test(cell: NotebookNode) -> bool:
    """Whether it gives points."""
    return bool(cell.metadata.get("nbgrader", {}).get("grade"))


def assignments(source: Path = FOLDER / "source") -> list[Assignment]:
    """All assignments below a folder, in the order of their names.

    Raises:
        CourseError: there is none, or one is not in order.
    """
    found = [read_assignment(path) for path in sorted(source.glob("*/")) if (path / f"{path.name}.ipynb").is_file()]
    if not found:
        raise CourseError(f"{source}: no assignment here; expected NAME/NAME.ipynb.")
    return found


def read_assignment(folder: Path) -> Assignment:
    """The assignment whose source is `folder/NAME.ipynb`, NAME being the folder's.

    Raises:
        CourseError: the notebook is not what nbgrader and `mark.py` expect.
    """
    path = folder / f"{folder.name}.ipynb"
    notebook = read_notebook(path)
    names = [grade_id(cell) for cell in notebook.cells]
    repeated = sorted({name for name in names if name and names.count(name) > 1})
    if repeated:
        raise CourseError(f"{path.name}: grade ids must be unique; repeated: {', '.join(repeated)}.")
    for number, cell in enumerate(notebook.cells):
        _check_cell(cell, f"{path.name}, cell {number}")
    exercises = []
    for name in (grade_id(cell) for cell in notebook.cells if is_solution(cell)):
        wanted = [name, f"{name}-check", f"{name}-hidden"]
        if [other for other in names if other in wanted] != wanted:
            raise CourseError(f"{path.name}: exercise {name!r} needs the cells {', '.join(wanted)}, in this order.")
        cells = {grade_id(cell): cell for cell in notebook.cells}
        exercises.append(Exercise(name, *(int(cells[test].metadata.nbgrader.points) for test in wanted[1:])))
    belonging = {f"{exercise.name}-{kind}" for exercise in exercises for kind in ("check", "hidden")}
    alone = [grade_id(cell) for cell in notebook.cells if is_test(cell) and grade_id(cell) not in belonging]
    if alone or not exercises:
        raise CourseError(f"{path.name}: tests without an exercise: {', '.join(alone) or 'no exercise at all'}.")
    return Assignment(folder.name, folder, notebook, tuple(exercises))


def _check_cell(cell: NotebookNode, where: str) -> None:
    """Schema and markers of one cell."""
    metadata, found = cell.metadata.get("nbgrader"), [" ".join(match) for match in MARKER.findall(cell.source)]
    if (
        "BEGIN" in cell.source
        and cell.source.count("### ") != len(found)
        and re.search(r"###\s*(BEGIN|END)", cell.source)
    ):
        raise CourseError(f"{where}: a marker must stand alone on its line, as in '### BEGIN SOLUTION'.")
    if metadata is None:
        if found:
            raise CourseError(f"{where}: markers in a cell without nbgrader metadata.")
        return
    if cell.cell_type != "code" or metadata.get("cell_type") != "code" or metadata.get("schema_version") != 3:
        raise CourseError(f"{where}: nbgrader metadata belong to code cells, cell_type 'code', schema_version 3.")
    flags = {flag: metadata.get(flag) for flag in ("grade", "solution", "locked", "task")}
    if not all(isinstance(value, bool) for value in flags.values()) or flags["task"]:
        raise CourseError(f"{where}: grade, solution and locked must be true or false, task false: {flags}.")
    name = str(metadata.get("grade_id", ""))
    if not re.fullmatch(r"[a-z][a-z0-9_]*(-check|-hidden)?", name):
        raise CourseError(
            f"{where}: grade id {name!r}; use small letters, digits and _, with -check or -hidden behind."
        )
    test = name.endswith(("-check", "-hidden"))
    if test != flags["grade"] or flags["locked"] == flags["solution"] or (test and flags["solution"]):
        raise CourseError(f"{where}: {name!r} has the flags {flags}, which do not fit its name.")
    if test and (not isinstance(metadata.get("points"), int) or metadata.points < 1):
        raise CourseError(f"{where}: {name!r} needs points, a whole number of at least 1.")
    kind = "SOLUTION" if flags["solution"] else "HIDDEN TESTS" if name.endswith("-hidden") else ""
    pairs = [f"BEGIN {kind}", f"END {kind}"]
    if found != pairs * (len(found) // 2) or bool(found) != bool(kind):
        raise CourseError(
            f"{where}: {name!r} has the markers {found or 'none'}; they must be pairs of {kind or 'none'}."
        )


def read_notebook(path: Path) -> NotebookNode:
    """A notebook of format 4.

    Raises:
        CourseError: it is missing or not a notebook.
    """
    try:
        text = path.read_text(encoding="utf-8")
        notebook = nbformat.reads(text, as_version=4)
        assert all(isinstance(cell.source, str) for cell in notebook.cells)
    except FileNotFoundError:
        raise CourseError(f"{path}: no such file.") from None
    except OSError as error:
        raise CourseError(f"{path}: cannot be read ({error.strerror}).") from error
    except Exception as error:  # nbformat raises whatever its parsers do
        raise CourseError(f"{path}: not a Jupyter notebook ({type(error).__name__}).") from error
    return notebook


def released(cell: NotebookNode) -> str:
    """The cell's text as students get it: a stub for each solution, and no hidden tests."""
    text, hidden = _replaced(cell.source, "SOLUTION", STUB), "### BEGIN HIDDEN TESTS" in cell.source
    text = _replaced(text, "HIDDEN TESTS", ())
    return HIDDEN if hidden and not text.strip() else text


def solved(cell: NotebookNode) -> str:
    """The cell's text with solutions and hidden tests, without markers."""
    return "\n".join(line for line in cell.source.split("\n") if not MARKER.match(line))


def _replaced(text: str, kind: str, instead: tuple[str, ...]) -> str:
    """The text with all between the markers of a kind, and the markers, replaced, as far in as they stand."""
    lines, inside = [], False
    for line in text.split("\n"):
        if line.strip() == f"### BEGIN {kind}":
            inside, indent = True, line[: len(line) - len(line.lstrip())]
            lines += [indent + new for new in instead]
        elif line.strip() == f"### END {kind}":
            inside = False
        elif not inside:
            lines.append(line)
    return "\n".join(lines)


def secret_lines(cell: NotebookNode) -> Iterator[str]:
    """The lines between the markers of solutions and hidden tests, without indentation."""
    inside = False
    for line in cell.source.split("\n"):
        if MARKER.match(line):
            inside = "BEGIN" in line
        elif inside and line.strip():
            yield line.strip()


def student_version(assignment: Assignment) -> NotebookNode:
    """Stubs in place of solutions, no hidden tests, no outputs; the cells that count cannot be deleted by accident."""
    notebook = _without_outputs(assignment.notebook)
    for cell in notebook.cells:
        if grade_id(cell):
            cell.source = released(cell)
            cell.metadata["deletable"] = False
            if not is_solution(cell):
                cell.metadata["editable"] = False
    return notebook


def solution_version(assignment: Assignment) -> NotebookNode:
    """Everything, hidden tests included, without markers."""
    notebook = _without_outputs(assignment.notebook)
    for cell in notebook.cells:
        cell.source = solved(cell)
    return notebook


def _without_outputs(notebook: NotebookNode) -> NotebookNode:
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


HEADING = re.compile(r"^## ([a-z][a-z0-9_]*): (.+)$", re.M)
WRONG = re.compile(
    r"#### (?P<name>.+?)\n.*?```python\n(?P<code>.*?)\n```\n(?P<message>(?:[ \t]*\n)*(?:> ?.*(?:\n|$))+)?", re.S
)


def read_notes(assignment: Assignment, folder: Path | None = None) -> str:
    """The instructor's notes: Markdown with a heading `## exercise: title` for each exercise.

    Raises:
        CourseError: there are none, or their exercises are not those of the source.
    """
    path = (folder or assignment.folder.parent.parent / "instructor") / f"{assignment.name}.md"
    if not path.is_file():
        raise CourseError(f"{path}: the instructor's notes of {assignment.name} are missing.")
    text = path.read_text(encoding="utf-8")
    found, wanted = [name for name, _ in HEADING.findall(text)], [exercise.name for exercise in assignment.exercises]
    if found != wanted:
        raise CourseError(f"{path.name}: headings for {', '.join(found)}; the source has {', '.join(wanted)}.")
    return text


def titles(notes: str) -> dict[str, str]:
    """The title of each exercise, from the headings of the notes."""
    return dict(HEADING.findall(notes))


def wrong_answers(notes: str) -> dict[str, list[WrongAnswer]]:
    """For each exercise of the notes, the answers below its heading `### Wrong answers`.

    Raises:
        CourseError: an answer lacks its code or its message.
    """
    found: dict[str, list[WrongAnswer]] = {}
    for section in re.split(r"^(?=## )", notes, flags=re.M):
        if not (heading := HEADING.match(section)):
            continue
        exercise, answers = heading[1], found.setdefault(heading[1], [])
        _, _, listed = section.partition("\n### Wrong answers\n")
        for part in re.split(r"^(?=#### )", listed, flags=re.M)[1:]:
            match = WRONG.match(part)
            if not match or not match["message"]:
                raise CourseError(
                    f"{exercise}: {part.splitlines()[0]!r} needs a python block and then a quoted message."
                )
            message = " ".join(line.removeprefix(">").strip() for line in match["message"].strip().splitlines())
            answers.append(WrongAnswer(exercise, match["name"].strip(), match["code"], message))
    return found
