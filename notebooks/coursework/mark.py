"""Marks notebooks of this course with pytest and nbval: points for each exercise, as a table and as JSON.

    python notebooks/coursework/mark.py FILE [FILE ...] [--json OUT.json] [--timeout SECONDS]

What the student wrote goes into the course's own source: tests that were edited, deleted or made up do not count.
It RUNS THE STUDENT'S CODE with your rights and is no sandbox: mark strangers' work in a container.

Exit code: 0 all marked, 1 a notebook could not be run, 2 a file is not a notebook of this course.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import nbformat
from course import (
    FOLDER,
    Assignment,
    CourseError,
    assignments,
    grade_id,
    is_solution,
    is_test,
    read_notebook,
    released,
    solved,
)
from nbformat import NotebookNode

TIMEOUT = 120.0
COURSE = "course"  # the owner of cells that belong to no exercise and that everything else needs


class RunError(RuntimeError):
    """The notebook belongs to the course, and still could not be run here."""


@dataclass(frozen=True)
class Cell:
    """One code cell of what is run: what it belongs to (an exercise, COURSE, or itself), its grade id, and its text."""

    owner: str
    name: str
    source: str


@dataclass(frozen=True)
class Outcome:
    """What became of a cell: passed, failed, stopped (it ran too long, or Python died in it), or not run."""

    state: str
    message: str = ""


@dataclass(frozen=True)
class Check:
    """One group of tests, and its points."""

    name: str
    points: int
    of: int
    state: str
    message: str


@dataclass(frozen=True)
class Mark:
    """An exercise's points; the message is that of the first tests that failed."""

    exercise: str
    points: int
    of: int
    message: str
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Marked:
    """A notebook's marks, and what a marker should know about it."""

    file: str
    assignment: str
    points: int
    of: int
    exercises: tuple[Mark, ...]
    notes: tuple[str, ...]


def find_assignment(notebook: NotebookNode, stem: str, course: Sequence[Assignment]) -> Assignment:
    """The assignment with which the notebook shares most grade ids; its name decides where they do not.

    Raises:
        CourseError: it shares none.
    """

    def answered(notebook: NotebookNode) -> set[str]:
        return {grade_id(cell) for cell in notebook.cells if is_solution(cell) or is_test(cell)}

    names = answered(notebook)

    def alike(assignment: Assignment) -> tuple[float, bool]:
        ids = answered(assignment.notebook)
        return len(ids & names) / len(ids | names), assignment.name == stem

    best = max(course, key=alike)
    if not alike(best)[0]:
        why = "none of its grade ids is known here" if names else "it has no grade ids (some editors drop them)"
        raise CourseError(f"not a notebook of this course: {why}; there are {', '.join(a.name for a in course)}.")
    return best


def assemble(assignment: Assignment, notebook: NotebookNode) -> tuple[list[Cell], list[str]]:
    """The source's code cells with the student's solutions and further cells, and notes on what was odd."""
    course = [cell for cell in assignment.notebook.cells if cell.cell_type == "code"]
    named = {grade_id(cell): place for place, cell in enumerate(course) if grade_id(cell)}
    plain = {cell.get("id"): place for place, cell in enumerate(course) if not grade_id(cell)}
    known = {cell.source.strip() for cell in course if not grade_id(cell)}
    written: dict[int, str] = {}  # what stands in the place of a cell of the source
    further: dict[int, list[str]] = {}  # cells of the student's own, behind a place
    notes, last = [], -1
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        place = named.get(grade_id(cell)) if grade_id(cell) else plain.get(cell.get("id"))
        if place is not None and place not in written:
            written[place], last = cell.source, place
            continue
        if place is not None:
            notes.append(f"the cell {grade_id(cell)!r} is there again; its first copy counts")
        if cell.source.strip() not in known:
            further.setdefault(last, []).append(cell.source)
    first = min(place for place, cell in enumerate(course) if is_solution(cell))
    cells = [Cell(f"own cell {n} at the start", "", text) for n, text in enumerate(further.get(-1, []), 1)]
    for place, cell in enumerate(course):
        name, exercise, text = grade_id(cell), re.sub(r"-(check|hidden)$", "", grade_id(cell)), written.get(place)
        after = f"after {name!r}" if name else f"after code cell {place + 1}"
        if is_solution(cell):
            if text is None:
                notes.append(f"the solution cell {name!r} is missing")
            cells.append(Cell(exercise, name, released(cell) if text is None else text))
        elif name:
            if text is None:
                notes.append(f"the cell {name!r} was deleted; the course's own was used")
            elif text.strip() not in (released(cell).strip(), solved(cell).strip(), cell.source.strip(), ""):
                notes.append(f"the cell {name!r} was edited; the course's own was used")
            owner = exercise if is_test(cell) else COURSE if place < first else f"cell {name!r}"
            cells.append(Cell(owner, name, solved(cell)))
        else:  # theirs to play with, except for the first, which installs the library
            theirs = text is not None and place > 0
            cells.append(
                Cell(COURSE if place < first else f"cell {place + 1}", "", (text if theirs else None) or cell.source)
            )
        cells += [Cell(f"own cell {n} {after}", "", own) for n, own in enumerate(further.get(place, []), 1)]
    return cells, notes


def run(cells: Sequence[Cell], beside: Path, timeout: float) -> list[Outcome]:
    """Runs the cells as one notebook under nbval, in a temporary folder with the files that lie beside the source.

    Raises:
        RunError: pytest did not get as far as the cells.
    """
    with tempfile.TemporaryDirectory(prefix="marking-") as temporary:
        folder = Path(temporary) / beside.name
        shutil.copytree(beside, folder, ignore=shutil.ignore_patterns("*.ipynb", ".*", "__pycache__"))
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.source) for cell in cells])
        nbformat.write(notebook, folder / "marked.ipynb")
        (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider", "--rootdir=."]
        command += ["--nbval-lax", "--nbval-current-env", f"--nbval-cell-timeout={timeout:g}"]
        command += ["--junitxml=cells.xml", "-o", "junit_logging=no", "marked.ipynb"]
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "COV_"))}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        report = folder / "cells.xml"
        cases = {c.get("name"): c for c in ElementTree.parse(report).iter("testcase")} if report.is_file() else {}
    outcomes = [_outcome(cases.get(f"Cell {number}")) for number in range(len(cells))]
    if not cases:
        raise RunError(f"pytest ran no cell: {(done.stdout + done.stderr).strip()[-500:]}")
    return outcomes


def _outcome(case: ElementTree.Element | None) -> Outcome:
    """What pytest's report says of one cell. Behind a cell that was stopped, nbval expects all others to fail."""
    if case is None:
        return Outcome("not run", "never reached")
    for child in case:
        text = re.sub(r"(\x1b|#x1B)\[[0-9;]*m", "", f"{child.get('message', '')}\n{child.text or ''}")
        if child.tag not in ("failure", "error", "skipped"):
            continue
        if "Kernel dead on test start" in text:
            return Outcome("not run", "not reached: Python had ended before")
        if child.tag == "skipped" and child.get("type") != "pytest.xfail":
            return Outcome("not run", "skipped")
        if "Failed to interrupt kernel" in text:
            return Outcome("stopped", "Python ended in this cell, or could not be stopped in time")
        if limit := re.search(r"Timeout of (\S+) seconds exceeded", text):
            return Outcome("stopped", f"stopped after {limit[1]} s: does a loop never end?")
        return Outcome("failed", _message(text))
    return Outcome("passed")


def _message(text: str) -> str:
    """The exception's own words: the last line of the traceback that begins with its name, and all below."""
    found = list(re.finditer(r"^(\w*(?:Error|Exception|Exit|Interrupt|Warning|Iteration)\w*)(?:: (.*))?$", text, re.M))
    if not found:
        return text.strip().splitlines()[-1] if text.strip() else "failed"
    kind, words = found[-1][1], text[found[-1].start() :].strip()
    if kind == "NotImplementedError":
        return "not written yet (NotImplementedError)"
    return words.removeprefix("AssertionError: ")


def mark(path: Path, course: Sequence[Assignment], timeout: float = TIMEOUT) -> Marked:
    """Marks one notebook.

    Where a cell has to be stopped, everything is run again without what it belongs to, so that it costs nobody else
    anything; an exercise keeps the points that it had before.

    Raises:
        CourseError: it is not a notebook of this course.
        RunError: the cells of the course itself do not run here.
    """
    notebook = read_notebook(path)
    assignment = find_assignment(notebook, path.stem, course)
    cells, notes = assemble(assignment, notebook)
    exercises = [exercise.name for exercise in assignment.exercises]
    stubs = {grade_id(cell): released(cell) for cell in assignment.notebook.cells if is_solution(cell)}
    settled: dict[str, Outcome] = {}  # of cells whose exercise had to be stopped, by grade id
    while True:
        outcomes = run(cells, assignment.folder, timeout)
        culprit = _culprit(cells, outcomes)
        if culprit is None:
            break
        owner = cells[culprit].owner
        if owner == COURSE:
            own = [cell for cell in cells[:culprit] if cell.owner.startswith("own cell")]
            if not own:
                raise RunError(_setup_trouble(outcomes[culprit], timeout))
            notes += [f"{cell.owner} disturbs the setup and was left out" for cell in own]
            cells = [cell for cell in cells if cell not in own]
        elif owner in exercises:
            for number, (cell, outcome) in enumerate(zip(cells, outcomes)):
                if cell.owner == owner and cell.name:
                    late = Outcome("not run", f"not run: {outcomes[culprit].message}")
                    settled[cell.name] = outcome if number <= culprit else late
            cells = [replace(cell, source=stubs.get(cell.name, "")) if cell.owner == owner else cell for cell in cells]
        else:
            notes.append(f"{owner} was left out: {outcomes[culprit].message}")
            cells = [cell for cell in cells if cell.owner != owner]
    for cell, outcome in zip(cells, outcomes):
        if cell.owner.startswith("own cell") and outcome.state != "passed":
            notes.append(f"{cell.owner} fails: {_first_line(outcome.message)}")
    found = {cell.name: outcome for cell, outcome in zip(cells, outcomes) if cell.name} | settled
    marks = []
    for exercise in assignment.exercises:
        worth = {f"{exercise.name}-check": exercise.check, f"{exercise.name}-hidden": exercise.hidden}
        checks = tuple(
            Check(name, of if found[name].state == "passed" else 0, of, found[name].state, found[name].message)
            for name, of in worth.items()
        )
        messages = [found[exercise.name].message, *(check.message for check in checks)]
        # If the answer itself does not run, that says more than the NameError of its tests.
        message = next(filter(None, messages), "") if any(check.message for check in checks) else ""
        marks.append(Mark(exercise.name, sum(check.points for check in checks), exercise.points, message, checks))
    points = sum(each.points for each in marks)
    return Marked(str(path), assignment.name, points, assignment.points, tuple(marks), tuple(notes))


def _culprit(cells: Sequence[Cell], outcomes: Sequence[Outcome]) -> int | None:
    """The first cell that was stopped, or that everything needs and that failed."""
    for number, (cell, outcome) in enumerate(zip(cells, outcomes)):
        if outcome.state == "stopped" or (cell.owner == COURSE and cell.name and outcome.state != "passed"):
            return number
    return None


def _setup_trouble(outcome: Outcome, timeout: float) -> str:
    if outcome.state == "stopped":
        return (
            f"the course's own setup did not end within {timeout:g} s. The first run on a machine builds the data set: "
            "run a solution once, or give a longer --timeout."
        )
    return f"the course's own setup does not run here: {outcome.message}"


def _first_line(message: str, width: int = 90) -> str:
    line = next(iter(message.splitlines()), "")
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"


def table(marked: Sequence[Marked]) -> str:
    """All notebooks' marks as text, one row an exercise, the sum below each notebook, then the notes."""
    rows = [("notebook", "exercise", "points", "of", "message")]
    for one in marked:
        name = Path(one.file).name
        rows += [(name, e.exercise, str(e.points), str(e.of), _first_line(e.message)) for e in one.exercises]
        rows.append((name, "sum", str(one.points), str(one.of), ""))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    sides = (str.ljust, str.ljust, str.rjust, str.rjust)
    lines = [
        "  ".join([side(*pair) for side, pair in zip(sides, zip(row, widths))] + [row[4]]).rstrip() for row in rows
    ]
    return "\n".join(lines + [f"{Path(one.file).name}: {note}" for one in marked for note in one.notes])


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 all marked, 1 one could not be run, 2 one is not a notebook of this course."""
    parser = argparse.ArgumentParser(
        description="Mark notebooks of this course with pytest and nbval.",
        epilog="It runs the students' code with your rights and is no sandbox: mark strangers' work in a container.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a student's notebook")
    parser.add_argument("--source", type=Path, default=FOLDER / "source", help="folder of the sources")
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="write the marks there, too")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds a cell may take (%(default)g)")
    given = parser.parse_args(arguments)
    if not given.timeout > 0:
        parser.error("--timeout: must be more than 0 seconds.")
    if given.json and not given.json.parent.is_dir():
        parser.error(f"--json: there is no folder {given.json.parent}.")
    marked, code = [], 0
    try:
        course = assignments(given.source)
    except CourseError as error:
        print(f"mark.py: {error}", file=sys.stderr)
        return 2
    for path in given.files:
        try:
            marked.append(mark(path, course, given.timeout))
        except (CourseError, RunError) as error:
            print(f"mark.py: {path}: {error}", file=sys.stderr)
            code = max(code, 2 if isinstance(error, CourseError) else 1)
    if marked:
        print(table(marked))
    if given.json:
        temporary = given.json.with_name(f".{given.json.name}.new")
        text = json.dumps({"notebooks": [asdict(one) for one in marked]}, ensure_ascii=False, indent=1)
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(given.json)
    return code


if __name__ == "__main__":
    sys.exit(main())
