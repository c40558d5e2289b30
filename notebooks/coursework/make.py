"""Writes the folders of a course from its sources: for students, with solutions, and for instructors.

    python notebooks/coursework/make.py OUT_FOLDER [ASSIGNMENT ...]

OUT_FOLDER/student/NAME/NAME.ipynb has stubs in place of solutions and no hidden tests.
OUT_FOLDER/solution/NAME/NAME.ipynb has both, and OUT_FOLDER/instructor/NAME.md the notes with a table of points. Files
beside a source go with its notebooks. The folder is written whole or not at all. Users of nbgrader do not need it:
for nbgrader, the folder of this program is a course as it is.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nbformat
from course import FOLDER, Assignment, CourseError, assignments, read_notes, solution_version, student_version, titles

PARTS = ("student", "solution", "instructor")


def instructor_notes(assignment: Assignment, notes: str) -> str:
    """The notes with a table of points before their first section."""
    named = titles(notes)
    rows = [f"| {named[e.name]} (`{e.name}`) | {e.check} | {e.hidden} | {e.points} |" for e in assignment.exercises]
    check, hidden = (sum(getattr(e, kind) for e in assignment.exercises) for kind in ("check", "hidden"))
    table = [
        "| exercise | visible check | hidden tests | points |",
        "|---|---:|---:|---:|",
        *rows,
        f"| **sum** | **{check}** | **{hidden}** | **{assignment.points}** |",
    ]
    before, heading, after = notes.partition("\n## ")
    return before.rstrip("\n") + "\n\n" + "\n".join(table) + "\n" + heading + after


def write_course(out: Path, chosen: Sequence[Assignment], notes: Path | None = None) -> None:
    """The three folders below `out`, which may hold an earlier course, and nothing else.

    Raises:
        CourseError: `out` holds something that this program did not write, or the notes are not in order.
    """
    out = out.resolve()
    others = sorted({path.name for path in out.iterdir()} - set(PARTS)) if out.is_dir() else [out.name] * out.exists()
    if others:
        raise CourseError(f"{out}: holds {', '.join(others[:3])}; name a new folder, or one that only make.py wrote.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        fresh = Path(temporary) / "new"
        for assignment in chosen:
            for part, version in (("student", student_version(assignment)), ("solution", solution_version(assignment))):
                folder = fresh / part / assignment.name
                shutil.copytree(
                    assignment.folder, folder, ignore=shutil.ignore_patterns("*.ipynb", ".*", "__pycache__")
                )
                nbformat.write(version, folder / f"{assignment.name}.ipynb")
            (fresh / "instructor").mkdir(exist_ok=True)
            text = instructor_notes(assignment, read_notes(assignment, notes))
            (fresh / "instructor" / f"{assignment.name}.md").write_text(text, encoding="utf-8")
        if out.exists():
            out.rename(Path(temporary) / "old")
        fresh.rename(out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 written, 2 refused."""
    parser = argparse.ArgumentParser(
        description="Write the student, solution and instructor folders of the coursework.",
        epilog="An earlier course in OUT_FOLDER is replaced by this one.",
    )
    parser.add_argument("out", type=Path, metavar="OUT_FOLDER")
    parser.add_argument("names", nargs="*", metavar="ASSIGNMENT", help="as in 04_losses; without, all")
    parser.add_argument("--source", type=Path, default=FOLDER / "source", help="folder of the sources")
    given = parser.parse_args(arguments)
    try:
        every = {assignment.name: assignment for assignment in assignments(given.source)}
        unknown = [name for name in given.names if name not in every]
        if unknown:
            raise CourseError(f"no assignment {', '.join(unknown)}; there are {', '.join(every)}.")
        chosen = [every[name] for name in given.names or every]
        write_course(given.out, chosen, given.source.parent / "instructor")
    except CourseError as error:
        print(f"make.py: {error}", file=sys.stderr)
        return 2
    for assignment in chosen:
        print(f"{assignment.name}: {len(assignment.exercises)} exercises, {assignment.points} points")
    print(f"written: {', '.join(f'{given.out / part}' for part in PARTS)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
