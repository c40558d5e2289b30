"""Which entries of an index may be found: conditions on what is known of them.

    {"category": "news"}                  equal
    {"speaker": ["anna", "bela"]}         one of these
    {"year": (1990, None)}                from, to: inclusive, None leaves one side open

All conditions must hold. An entry of which a name is not known does not fulfil a condition on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from clasp_lib.errors import ClaspError
from clasp_lib.index.entries import Scalar, column_names

if TYPE_CHECKING:
    import pyarrow

Condition: TypeAlias = "Scalar | Sequence[Scalar] | tuple[Scalar | None, Scalar | None]"
Where: TypeAlias = Mapping[str, Condition]


def check_where(where: object) -> Where:
    """A filter with its sets as lists.

    Raises:
        ClaspError: not a mapping from names to conditions as above; the message names the condition.
    """
    if not isinstance(where, Mapping):
        raise ClaspError(f"where is a {type(where).__name__}; give a mapping such as {{'category': 'news'}}.")
    for name, condition in where.items():
        if not isinstance(name, str) or not name:
            raise ClaspError(f"where: the name {name!r} is not one; give a string.")
        _check_condition(name, condition)
    return {name: list(c) if isinstance(c, set | frozenset) else c for name, c in where.items()}


def allowed_rows(table: pyarrow.Table, where: Where) -> np.ndarray:
    """Which rows fulfil a filter that was checked: bool (rows,).

    Raises:
        ClaspError: a name that no entry has, or a text compared with a number.
    """
    import pyarrow
    import pyarrow.compute as compute

    names, allowed = column_names(table), np.ones(len(table), bool)
    for name, condition in where.items():
        if name not in names:
            raise ClaspError(f"where: no recording of the index has {name!r}; they have {', '.join(sorted(names))}.")
        column = table[names[name]]
        try:
            if isinstance(condition, tuple):
                low, high = condition
                parts = [compute.greater_equal(column, low)] if low is not None else []
                parts += [compute.less_equal(column, high)] if high is not None else []
            elif isinstance(condition, Sequence) and not isinstance(condition, str):
                parts = [_any_of(column, list(condition))]  # type: ignore[arg-type]
            else:
                parts = [compute.equal(column, condition)]
        except (pyarrow.ArrowException, OverflowError, TypeError, UnicodeEncodeError) as error:
            raise ClaspError(f"where: {name!r} holds {column.type} values, not such as {condition!r}.") from error
        for part in parts:
            allowed &= part.fill_null(False).to_numpy(zero_copy_only=False) if len(table) else allowed
    return allowed


def _any_of(column: pyarrow.ChunkedArray, values: Sequence[Scalar]) -> pyarrow.ChunkedArray:
    import pyarrow.compute as compute

    found = compute.equal(column, values[0])
    for value in values[1:]:
        found = compute.or_kleene(found, compute.equal(column, value))
    return found


def _check_condition(name: str, condition: object) -> None:
    if isinstance(condition, tuple):
        if len(condition) != 2 or all(end is None for end in condition):
            raise ClaspError(
                f"where: {name!r} is {condition!r}; a pair (from, to) has two ends, one of them perhaps None."
            )
        ends = [end for end in condition if end is not None]
        for end in ends:
            _check_scalar(name, end)
            if isinstance(end, bool):
                raise ClaspError(f"where: {name!r} is {condition!r}; True and False have no order.")
        if len({isinstance(end, str) for end in ends}) > 1:
            raise ClaspError(f"where: {name!r} is {condition!r}; give two numbers or two strings.")
    elif isinstance(condition, list | set | frozenset):
        if not condition:
            raise ClaspError(f"where: {name!r} is one of nothing. Give at least one value, or leave the condition out.")
        for value in condition:
            _check_scalar(name, value)
    else:
        _check_scalar(name, condition)


def _check_scalar(name: str, value: object) -> None:
    if not isinstance(value, str | int | float | bool) or (isinstance(value, float) and not math.isfinite(value)):
        raise ClaspError(f"where: {name!r} is {value!r}; compare with strings, finite numbers, True or False.")
