"""Tables of comma-separated values, as people and programs save them."""

from __future__ import annotations

import csv
from pathlib import Path

from clasp_lib.errors import DatasetError

_LONGEST_PATH = 1_024


def read_csv(table: Path) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    """The columns of a UTF-8 table of comma-separated values, and its rows: where each stands, and cells by column.

    Raises:
        DatasetError: it cannot be read, has two columns of one name, or a row with another number of cells.
    """
    try:
        if table.exists() and not table.is_file():  # a pipe without a writer would be waited for
            raise OSError("not a regular file")
        with open(table, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(f"{table}, line {reader.line_num}", cells) for cells in reader if cells]
    except (OSError, ValueError, csv.Error) as error:  # the second for what is not UTF-8
        raise DatasetError(f"{table}: cannot be read as a UTF-8 table of comma-separated values ({error}).") from error
    names, rows = lines[0][1] if lines else [], lines[1:]
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise DatasetError(f"{table}: has two columns {twice[0]!r}. Rename one of them.")
    for where, cells in lines:
        if len(cells) != len(names):
            raise DatasetError(
                f"{where}: has another number of cells than the first line ({len(cells)}, not {len(names)}). "
                "Put texts with commas between double quotes."
            )
        if any("\0" in cell for cell in cells):
            raise DatasetError(f"{where}: holds a NUL byte. Save the table as plain UTF-8 text.")
        if any(name == "file" and len(cell) > _LONGEST_PATH for name, cell in zip(names, cells, strict=True)):
            raise DatasetError(f"{where}: 'file' has more letters than a path can have. Is a quotation mark missing?")
    return names, [(where, dict(zip(names, cells, strict=True))) for where, cells in rows]
