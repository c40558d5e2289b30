"""A report's folder: all its files, or the one before it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from clasp_lib.errors import DatasetError
from clasp_lib.folders import written_whole
from clasp_lib.report.markdown import markdown
from clasp_lib.report.measure import Report
from clasp_lib.report.page import page

FILES = ("report.json", "report.md", "report.html")


def write_report(report: Report, folder: str | Path) -> None:
    """Write `report.json`, `report.md` and `report.html`; an older report there is replaced when all are complete.

    Raises:
        DatasetError: the folder holds something else.
        MissingDependencyError: matplotlib is not installed.
    """
    folder = Path(folder).resolve()
    contents = dict(zip(FILES, (json.dumps(report.to_dict(), indent=1) + "\n", markdown(report), page(report))))
    check_output(folder)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    with written_whole(folder, FILES[0]) as unfinished:
        for name, content in contents.items():
            (unfinished / name).write_text(content, "utf-8")


def read_report(path: str | Path) -> Report:
    """The report of a folder, or of its `report.json`.

    Raises:
        DatasetError: nothing there, damaged, or of another format.
    """
    path = Path(path)
    file = path / FILES[0] if path.is_dir() else path
    try:
        values = json.loads(file.read_text("utf-8"))
        if not isinstance(values, dict):
            raise TypeError("not an object")
        return Report.from_dict(values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DatasetError(f"{file}: is no report that can be read ({error}). Evaluate again.") from error


def check_output(folder: str | Path) -> None:
    """Raise a DatasetError unless a report may be written there; to be called before anything slow."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise DatasetError(f"{folder}: is a file; name a folder for the report.")
    if folder.is_dir() and (others := sorted({file.name for file in folder.iterdir()} - set(FILES))):
        raise DatasetError(f"{folder}: holds {others[0]}, which is no part of a report. Name another folder.")
    above = next(place for place in folder.resolve().parents if place.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise DatasetError(f"{folder}: {above} is no folder that can be written to. Name another one.")
