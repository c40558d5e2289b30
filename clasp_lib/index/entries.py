"""What stands behind a vector of an index: which recording, which part of it, and what is known of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from clasp_lib.errors import DatasetError

if TYPE_CHECKING:
    import pyarrow

Scalar: TypeAlias = "str | int | float | bool"

_METADATA = "metadata."
"""Before the name of a column that the user chose."""


@dataclass(frozen=True)
class Entry:
    """One vector's recording, or part of one.

    Attributes:
        id: of the recording, unique in the index; parts of one recording share it.
        file: where the recording is. start_s, end_s: the part, in seconds.
        text: what is said, where that is known. metadata: by name a string, a number, or true or false.
        digest: of the recording and what was said of it: another digest asks for another vector.
    """

    id: str
    file: str
    start_s: float
    end_s: float
    text: str | None = None
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
    digest: str = ""


FIELDS = ("id", "file", "start_s", "end_s", "text", "digest")
"""All but the metadata. A filter may name each of them, so metadata may not."""


def check_metadata(metadata: Mapping[str, Any], name: str) -> dict[str, Scalar]:
    """The metadata of a recording without entries that are None.

    Args:
        name: of the recording, for messages.

    Raises:
        DatasetError: a value that is no string, finite number, or true or false; a name that is taken.
    """
    checked: dict[str, Scalar] = {}
    if not isinstance(metadata, Mapping):
        raise DatasetError(f"{name}: metadata is a {type(metadata).__name__}; give a mapping such as {{'year': 1990}}.")
    for key, value in metadata.items():
        if not isinstance(key, str) or not key or key in FIELDS or key == "metadata":
            raise DatasetError(
                f"{name}: metadata has the name {key!r}. Use a string other than {', '.join(FIELDS)}, metadata."
            )
        value = value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value
        if value is None:
            continue
        if any("\ud800" <= letter <= "\udfff" for text in (key, value) if isinstance(text, str) for letter in text):
            raise DatasetError(f"{name}: metadata {key!r} is {value!r}, with half a character. Decode it anew.")
        if not isinstance(value, str | int | float | bool) or (isinstance(value, float) and not math.isfinite(value)):
            raise DatasetError(
                f"{name}: metadata {key!r} is {value!r}; an index keeps strings, finite numbers, True and False."
            )
        checked[key] = value
    return checked


def table_of(entries: Sequence[Entry]) -> pyarrow.Table:
    """Entries as the rows of a table: a column for each field, and one for each name of the metadata.

    Raises:
        DatasetError: the same name has values of two kinds.
    """
    import pyarrow

    texts, seconds = pyarrow.string(), pyarrow.float64()
    kinds = {"id": texts, "file": texts, "start_s": seconds, "end_s": seconds, "text": texts, "digest": texts}
    columns = {name: pyarrow.array([getattr(e, name) for e in entries], kinds[name]) for name in FIELDS}
    for name in dict.fromkeys(name for entry in entries for name in entry.metadata):
        values = [entry.metadata.get(name) for entry in entries]
        kind = {_kind(value) for value in values if value is not None}
        if len(kind) > 1:
            raise DatasetError(f"metadata {name!r}: is {' here and '.join(sorted(kind))} there. Make it one of them.")
        try:
            if kind == {"a number"} and any(isinstance(value, float) for value in values):
                values = [None if value is None else float(value) for value in values]
            columns[_METADATA + name] = pyarrow.array(values)
        except (pyarrow.ArrowInvalid, OverflowError) as error:  # a whole number beyond 64 bits
            raise DatasetError(f"metadata {name!r}: holds what cannot be stored ({error}).") from error
    return pyarrow.table(columns)


def joined_tables(tables: Sequence[pyarrow.Table]) -> pyarrow.Table:
    """The rows of several tables; where one has no such column, nothing.

    Raises:
        DatasetError: the same name has values of two kinds.
    """
    import pyarrow

    for name in {name for table in tables for name in table.column_names}:
        kinds = {_arrow_kind(table.schema.field(name).type) for table in tables if name in table.column_names}
        if len(kinds) > 1:
            shown = name.removeprefix(_METADATA)
            raise DatasetError(f"metadata {shown!r}: is {' here and '.join(sorted(kinds))} there. Make it one of them.")
    return pyarrow.concat_tables(tables, promote_options="permissive")


def entries_of(table: pyarrow.Table) -> list[Entry]:
    """The rows of a table as entries."""
    found = []
    for row in table.to_pylist():
        known = {name: row.pop(name) for name in list(row) if name.startswith(_METADATA)}
        metadata = {name.removeprefix(_METADATA): value for name, value in known.items() if value is not None}
        found.append(Entry(**row, metadata=metadata))
    return found


def column_names(table: pyarrow.Table) -> dict[str, str]:
    """By the name that a user knows, the name of the column."""
    return {name.removeprefix(_METADATA): name for name in table.column_names if name != "digest"}


def _kind(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true or false"
    return "text" if isinstance(value, str) else "a number"


def _arrow_kind(kind: pyarrow.DataType) -> str:
    import pyarrow

    if pyarrow.types.is_boolean(kind):
        return "true or false"
    return "text" if pyarrow.types.is_string(kind) else "a number"
