"""The coursework: its sources keep the format, `make.py` releases no solution, and `mark.py` gives the right points.

The slow tests run every assignment: its solution, its stubs, and every wrong answer of the instructor's notes.
"""

from __future__ import annotations

import importlib
import json
import re
import resource
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
COURSEWORK = ROOT / "notebooks" / "coursework"
POINTS, FEWEST_EXERCISES, FEWEST_WRONG = 20, 4, 3
CPU_LIMIT_S = 240
"""For all that the slow tests mark of one assignment, so that all six take two cores less than twelve minutes. Seconds
of CPU: other programs on the machine do not lengthen them."""
SHORT = 12
"""Lines of fewer characters, such as `return x`, may stand in a solution and elsewhere."""


def imported(name: str) -> ModuleType:
    """A program of the coursework, which imports its neighbours by name as it does when it is run."""
    sys.path.insert(0, str(COURSEWORK))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(COURSEWORK))


course, make, mark = (imported(name) for name in ("course", "make", "mark"))
ASSIGNMENTS = sorted(path.parent.name for path in (COURSEWORK / "source").glob("*/*.ipynb"))


@cache
def read(name: str) -> Any:
    return course.read_assignment(COURSEWORK / "source" / name)


@cache
def wrong_answers(name: str) -> dict[str, list[Any]]:
    return course.wrong_answers(course.read_notes(read(name)))


# A tiny course ----------------------------------------------------------------------------------------------------


def cell(text: str, name: str = "", points: int = 0, solution: bool = False) -> nbformat.NotebookNode:
    made = nbformat.v4.new_code_cell(text)
    if name:
        flags = {"grade": points > 0, "solution": solution, "locked": not solution, "task": False}
        made.metadata["nbgrader"] = flags | {"grade_id": name, "cell_type": "code", "schema_version": 3}
        if points:
            made.metadata["nbgrader"]["points"] = points
    return made


def exercise(name: str, answer: str, check: str, hidden: str) -> list[nbformat.NotebookNode]:
    body = f"def {name}(x):\n    ### BEGIN SOLUTION\n    {answer}\n    ### END SOLUTION"
    hidden = f"### BEGIN HIDDEN TESTS\n{hidden}\n### END HIDDEN TESTS"
    return [
        nbformat.v4.new_markdown_cell(f"Write {name}."),
        cell(body, name, solution=True),
        cell(check, f"{name}-check", 2),
        cell(hidden, f"{name}-hidden", 3),
    ]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A course of one assignment with two exercises, `double` and `square`."""
    cells = [
        cell("install = 1"),
        cell("import math\n\nthree = 3", "setup"),
        *exercise(
            "double",
            "return x + x",
            "assert double(three) == 6, f'double(3) is {double(three)}:\\nis something added twice?'",
            "assert double(5) == 10, 'only three works'",
        ),
        *exercise("square", "return x * x", "assert square(three) == 9, 'not 9'", "assert square(4) == 16"),
        cell("print(double(2), square(2))"),
    ]
    folder = tmp_path / "course" / "source" / "01_tiny"
    folder.mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "01_tiny.ipynb")
    (folder / "data.txt").write_text("beside the notebook")
    return folder.parent


def edited(source: Path, **answers: str) -> nbformat.NotebookNode:
    """The student's version with some of its solution cells filled in."""
    notebook = course.student_version(course.read_assignment(source / "01_tiny"))
    for one in notebook.cells:
        one.source = answers.get(course.grade_id(one), one.source)
    return notebook


RIGHT = {"double": "def double(x):\n    return 2 * x", "square": "def square(x):\n    return x**2"}


def marked(source: Path, notebook: nbformat.NotebookNode, timeout: float = 60) -> Any:
    path = source.parent / "handed_in.ipynb"
    nbformat.write(notebook, path)
    return mark.mark(path, course.assignments(source), timeout)


def points(result: Any) -> dict[str, int]:
    return {one.exercise: one.points for one in result.exercises}


# The tools --------------------------------------------------------------------------------------------------------


def test_the_student_version_has_nbgraders_stub_and_the_solution_version_no_markers(source: Path) -> None:
    assignment = course.read_assignment(source / "01_tiny")
    student, solution = course.student_version(assignment), course.solution_version(assignment)
    assert student.cells[3].source == "def double(x):\n    # YOUR CODE HERE\n    raise NotImplementedError()"
    assert student.cells[5].source == course.HIDDEN
    assert student.cells[4].metadata["editable"] is False and "editable" not in student.cells[3].metadata
    assert solution.cells[3].source == "def double(x):\n    return x + x"
    assert solution.cells[5].source == "assert double(5) == 10, 'only three works'"
    assert [course.grade_id(one) for one in student.cells] == [course.grade_id(one) for one in solution.cells]


NOTES = """# Tiny

Two exercises.

## double: Twice as much

### Wrong answers

#### a square
It is right for 2.
```python
def double(x):
    return x * x
```
> double(3) is 9:
> is something

## square: A number by itself
"""


def test_make_writes_three_folders_with_what_lies_beside_a_source_and_a_table_of_points(source: Path) -> None:
    notes = source.parent / "instructor"
    notes.mkdir()
    (notes / "01_tiny.md").write_text(NOTES)
    out = source.parent / "out"
    assert make.main([str(out), "--source", str(source)]) == 0
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*")) == [
        "instructor/01_tiny.md",
        "solution/01_tiny/01_tiny.ipynb",
        "solution/01_tiny/data.txt",
        "student/01_tiny/01_tiny.ipynb",
        "student/01_tiny/data.txt",
    ]
    written = (out / "instructor" / "01_tiny.md").read_text()
    assert "| Twice as much (`double`) | 2 | 3 | 5 |" in written and "| **sum** | **4** | **6** | **10** |" in written
    assert written.index("**sum**") < written.index("## double")
    assert make.main([str(out), "01_tiny", "--source", str(source)]) == 0, "an earlier course may be replaced"
    assert sorted(path.name for path in out.parent.iterdir()) == ["instructor", "out", "source"]


def test_make_leaves_a_folder_alone_that_holds_something_else(source: Path, capsys: pytest.CaptureFixture) -> None:
    (source.parent / "instructor").mkdir()
    out = source.parent / "out"
    out.mkdir()
    (out / "grades.csv").write_text("dear")
    assert make.main([str(out), "--source", str(source)]) == 2
    assert [path.name for path in out.iterdir()] == ["grades.csv"]
    assert "grades.csv" in capsys.readouterr().err
    assert make.main([str(out), "02_none", "--source", str(source)]) == 2
    assert "01_tiny" in capsys.readouterr().err


def test_make_leaves_nothing_where_the_notes_are_missing(source: Path, capsys: pytest.CaptureFixture) -> None:
    assert make.main([str(source.parent / "out"), "--source", str(source)]) == 2
    assert [path.name for path in source.parent.iterdir()] == ["source"]
    assert "01_tiny.md" in capsys.readouterr().err


def test_the_notes_are_read_and_must_be_complete(source: Path) -> None:
    (answer,) = course.wrong_answers(NOTES)["double"]
    assert answer.name == "a square" and answer.code == "def double(x):\n    return x * x"
    assert answer.message == "double(3) is 9: is something"
    with pytest.raises(course.CourseError, match="quoted message"):
        course.wrong_answers(NOTES.replace("> ", ""))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"grade_id": "square"', '"grade_id": "double"', "unique"),
        ("### END SOLUTION", "### END", "marker"),
        ("### END HIDDEN TESTS", "# END", "pairs"),
        ('"grade_id": "double-check"', '"grade_id": "double-checks"', "double-checks"),
        ('"grade_id": "double-check"', '"grade_id": "double_check"', "double_check"),
        ('"points": 3', '"points": 0', "points"),
        ('"schema_version": 3', '"schema_version": 2', "schema_version"),
    ],
)
def test_a_source_that_is_not_in_order_is_refused(source: Path, old: str, new: str, says: str) -> None:
    path = source / "01_tiny" / "01_tiny.ipynb"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(course.CourseError, match=says):
        course.read_assignment(path.parent)


def test_a_wrong_answer_costs_its_own_points_and_the_message_says_why(source: Path) -> None:
    result = marked(source, edited(source, double="def double(x):\n    return x * 3", square="def square(x)\n    pass"))
    assert points(result) == {"double": 0, "square": 0}
    assert result.exercises[0].message == "double(3) is 9:\nis something added twice?"
    assert "SyntaxError" in result.exercises[1].message
    result = marked(source, edited(source, double="def double(x):\n    return 6"))
    assert points(result) == {"double": 2, "square": 0}
    assert result.exercises[0].message == "only three works"
    assert "not written yet" in result.exercises[1].message


def test_deleted_edited_and_copied_cells_do_not_help_and_are_reported(source: Path) -> None:
    notebook = edited(source, double="def double(x):\n    return 0", square=RIGHT["square"])
    cells = {course.grade_id(one): one for one in notebook.cells}
    cells["double-hidden"].source = "pass"
    cells["setup"].source = "three = 0"
    notebook.cells.remove(cells["double-check"])
    notebook.cells.append(cell("def square(x):\n    return 0", "square", solution=True))
    result = marked(source, notebook)
    assert points(result) == {"double": 0, "square": 5}
    for said in ("'double-check' was deleted", "'double-hidden' was edited", "'setup' was edited", "'square' is there"):
        assert any(said in note for note in result.notes), said
    notebook.cells.remove(cells["double"])
    _, notes = mark.assemble(course.read_assignment(source / "01_tiny"), notebook)
    assert any("'double' is missing" in note for note in notes)


def test_right_answers_get_all_points_with_cells_of_ones_own(source: Path, capsys: pytest.CaptureFixture) -> None:
    notebook = edited(source, double="def double(x):\n    return twice * x", square=RIGHT["square"])
    notebook.cells.insert(2, cell("twice = 2"))
    notebook.cells.append(cell("nowhere"))
    nbformat.write(notebook, source.parent / "good.ipynb")
    assert mark.main([str(source.parent / "good.ipynb"), "--source", str(source)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^good.ipynb +sum +10 +10$", printed, re.M)
    assert "NameError" in printed, "a cell of their own that fails is reported"


def test_what_never_ends_and_what_ends_python_costs_its_exercise_only(source: Path) -> None:
    endless = "def double(x):\n    while x != 5:\n        pass\n    return 10"
    dying = "import os\n\ndef square(x):\n    return 9 if x == 3 else os._exit(0)"
    notebook = edited(source, double=endless, square=dying)
    notebook.cells.insert(2, cell("while True:\n    pass"))
    result = marked(source, notebook, timeout=4)
    assert points(result) == {"double": 0, "square": 2}, "what passed before Python ended stays"
    assert "loop" in result.exercises[0].message and "Python ended" in result.exercises[1].message
    assert [note for note in result.notes if "own cell" in note and "left out" in note]


def test_a_course_that_does_not_run_here_gives_no_marks(source: Path, capsys: pytest.CaptureFixture) -> None:
    path = source / "01_tiny" / "01_tiny.ipynb"
    path.write_text(path.read_text().replace("import math", "import not_here"))
    assert mark.main([str(path), "--source", str(source)]) == 1
    assert "not_here" in capsys.readouterr().err


def test_several_notebooks_make_one_table_and_strangers_are_named(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    good, bad, other = tmp_path / "good.ipynb", tmp_path / "bad.ipynb", tmp_path / "other.ipynb"
    nbformat.write(edited(source, **RIGHT), good)
    bad.write_text("no notebook")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell("1 + 1")]), other)
    given = ["--source", str(source), "--json", str(tmp_path / "marks.json")]
    assert mark.main([str(good), str(bad), str(other), str(tmp_path / "missing.ipynb"), *given]) == 2
    printed = capsys.readouterr()
    assert re.search(r"^good.ipynb +sum +10 +10$", printed.out, re.M)
    assert "not a Jupyter notebook" in printed.err and "grade ids" in printed.err and "no such file" in printed.err
    (one,) = json.loads((tmp_path / "marks.json").read_text())["notebooks"]
    assert one["assignment"] == "01_tiny" and one["points"] == 10 and one["exercises"][1]["exercise"] == "square"


# The assignments: fast --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_an_assignment_keeps_the_format(name: str) -> None:
    assignment = read(name)
    assert assignment.points == POINTS and len(assignment.exercises) >= FEWEST_EXERCISES
    assert not any(one.get("outputs") for one in assignment.notebook.cells), "sources are kept without outputs"
    for one, answers in wrong_answers(name).items():
        assert len(answers) >= FEWEST_WRONG, f"{one} has {len(answers)} wrong answers"
        assert len({answer.name for answer in answers}) == len(answers)
        assert all(len(answer.message) >= SHORT for answer in answers)


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_the_student_version_holds_no_line_of_a_solution_and_the_solution_no_marker(name: str) -> None:
    assignment = read(name)
    student, solution = course.student_version(assignment), course.solution_version(assignment)
    released = {line.strip() for one in student.cells for line in one.source.split("\n")}
    secret = {
        line
        for one in assignment.notebook.cells
        for line in course.secret_lines(one)
        if len(line) >= SHORT and (course.is_solution(one) or "assert" in line)  # tests may prepare alike
    }
    assert not secret & released, f"students would read {sorted(secret & released)}"
    for part in (student, solution):
        assert not any(course.MARKER.search(one.source) for one in part.cells)
        nbformat.validate(part)


# The assignments: slow --------------------------------------------------------------------------------------------


def cpu_seconds() -> float:
    """What the programs that this one started and that have ended took so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@cache
def all_marks(name: str) -> dict[str, Any]:
    """Marks of the solution, of the stubs, of one wrong answer alone, and of the k-th wrong answers all at once."""
    assignment, answers = read(name), wrong_answers(name)
    rounds = {
        "solution": {},
        "alone": {answers_of[0].exercise: answers_of[0] for answers_of in [*answers.values()][:1]},
    }
    for k in range(max(map(len, answers.values()))):
        rounds[f"wrong {k}"] = {one: listed[k] for one, listed in answers.items() if k < len(listed)}
    notebooks = {"stubs": course.student_version(assignment)}
    for label, chosen in rounds.items():
        notebooks[label] = course.solution_version(assignment)
        for one in notebooks[label].cells:
            if course.grade_id(one) in chosen:
                one.source = chosen[course.grade_id(one)].code

    def marks(label: str) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(notebooks[label], Path(folder) / f"{name}.ipynb")
            return mark.mark(Path(folder) / f"{name}.ipynb", [assignment])

    started = cpu_seconds()
    with ThreadPoolExecutor(2) as two:  # each waits for a process of its own
        found = dict(zip(notebooks, two.map(marks, notebooks)))
    return found | {"rounds": rounds, "seconds": cpu_seconds() - started}


@pytest.mark.slow
@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_every_solution_gets_full_marks_and_every_stub_none(name: str) -> None:
    marks = all_marks(name)
    assert {one.exercise: one.message for one in marks["solution"].exercises if one.message} == {}
    assert marks["solution"].points == POINTS and marks["solution"].notes == ()
    assert {one.exercise: one.points for one in marks["stubs"].exercises if one.points} == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_every_wrong_answer_costs_points_of_its_exercise_only_and_is_explained(name: str) -> None:
    marks = all_marks(name)
    faults = []
    for label, chosen in marks["rounds"].items():
        for one in marks[label].exercises:
            answer = chosen.get(one.exercise)
            lost, said = one.of - one.points, " ".join(one.message.split())
            if answer is None and lost:
                faults.append(f"{label}: {one.exercise} is right and loses {lost}: {said}")
            elif answer and not lost:
                faults.append(f"{label}: {one.exercise}, {answer.name!r} loses nothing")
            elif answer and answer.message not in said:
                faults.append(f"{label}: {one.exercise}, {answer.name!r}: {answer.message!r} is not in {said!r}")
    assert not faults, "\n".join(faults)


@pytest.mark.slow
@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_an_assignment_is_marked_within_its_time(name: str) -> None:
    assert all_marks(name)["seconds"] < CPU_LIMIT_S
