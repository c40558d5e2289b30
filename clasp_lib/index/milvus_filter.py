"""A filter of the index as an expression of Milvus.

Values become literals: whatever a string holds, it cannot end its literal and be read as part of the expression.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from clasp_lib.errors import ClaspError
from clasp_lib.index.entries import Scalar
from clasp_lib.index.filters import Where, check_where

ROW, PART, VECTOR = "clasp_row", "clasp_part", "clasp_vector"
"""Fields of the collection beside those of an entry: the primary key, which grows with each entry; the number of the
entry within its recording; and its vector."""

_TEXTS, _NUMBERS = ("id", "file", "text"), ("start_s", "end_s")
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_NAME = re.compile(r"""[^"'\\\[\]\x00-\x1f\x7f\ud800-\udfff$]{1,200}""")


def expression(where: Where | None) -> str:
    """What Milvus understands as `where`; nothing for no filter.

    Raises:
        ClaspError: not a filter (`check_where`), a name that Milvus cannot look up, or a number or text where the
            field holds the other.
    """
    if not where:
        return ""
    return " and ".join(_condition(name, condition) for name, condition in check_where(where).items())


def any_of(name: str, values: Collection[str | int]) -> str:
    """The rows whose field is one of at least one value."""
    return f"{name} in [{', '.join(map(literal, values))}]"


def literal(value: Scalar) -> str:
    """A value as Milvus and Milvus Lite both read it.

    Raises:
        ClaspError: a whole number beyond 64 bits, or half of a surrogate pair, which UTF-8 cannot hold.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        check_text(value, "where")
        return f'"{value.translate(_ESCAPES)}"'
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ClaspError(f"where: {value} does not fit into 64 bits, and no entry can have it.")
    return repr(value)


def check_text(text: str, name: str) -> None:
    """Raises ClaspError for a text that cannot be sent to a database."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ClaspError(f"{name}: {text!r} is not valid Unicode ({error.reason}). Give it without.") from error


def check_name(name: str) -> None:
    """Raises ClaspError for a name of metadata that Milvus could store but not look up."""
    if not _NAME.fullmatch(name) or name.startswith("clasp_"):
        raise ClaspError(
            f"metadata {name!r}: Milvus cannot filter by this name. Use at most 200 letters, digits, spaces and the "
            "like, no quotes, brackets, backslashes, $ or line breaks, and not clasp_ at the beginning."
        )


def _condition(name: str, condition: object) -> str:
    if name in _TEXTS + _NUMBERS:
        field = name
    else:
        check_name(name)
        field = f'$meta["{name}"]'
    if isinstance(condition, tuple):
        ends = [(sign, end) for sign, end in zip((">=", "<="), condition, strict=True) if end is not None]
        return " and ".join(f"{field} {sign} {_value(name, end)}" for sign, end in ends)
    if isinstance(condition, list):  # Milvus Lite knows no `in` for metadata
        return "(" + " or ".join(f"{field} == {_value(name, value)}" for value in condition) + ")"
    return f"{field} == {_value(name, condition)}"


def _value(name: str, value: object) -> str:
    if name in _TEXTS and not isinstance(value, str):
        raise ClaspError(f"where: {name!r} is a text, not such as {value!r}.")
    if name in _NUMBERS and (isinstance(value, str | bool) or not isinstance(value, int | float)):
        raise ClaspError(f"where: {name!r} is a number of seconds, not such as {value!r}.")
    assert isinstance(value, str | int | float | bool)  # check_where saw to it
    return literal(value)
