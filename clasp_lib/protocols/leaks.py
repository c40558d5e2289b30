"""What the test has seen before: texts, speakers and voices on both sides; and texts that go by several ids.

Texts are compared after `clasp_lib.corpus.normalise_text`: case, punctuation and spaces do not make a difference.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from clasp_lib.corpus import normalise_text
from clasp_lib.errors import ClaspError, DatasetError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

LEAK_COLUMNS = ("text", "speaker", "voice")
NEAR = "near text"
"""The name of leaks between texts that are nearly the same."""

_SHOWN = 3
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")


@dataclass(frozen=True)
class Merged:
    """Ids after those of equal texts became one.

    Attributes:
        ids: one for each text, as given or the first that went with the same text.
        classes: the ids that became one, first the one that stays; only those of two and more.
    """

    ids: list[Hashable]
    classes: list[tuple[Hashable, ...]]

    @property
    def merged(self) -> int:
        """How many ids there are fewer."""
        return sum(len(same) - 1 for same in self.classes)


@dataclass(frozen=True)
class Leak:
    """What one column shares.

    Attributes:
        column: its name, or `NEAR`.
        rows: of the test table, that hold something shared; counted from 0. n: all rows of the test table.
        shared: the values, as the test table has them first. Not shown or stored: a speaker may be a person.
        example: what a message may show: the texts, and of other columns the rows.
    """

    column: str
    rows: list[int]
    n: int
    shared: list[Any] = field(repr=False)
    example: str

    def __str__(self) -> str:
        return f"{self.column}: {len(self.shared)} shared, in {len(self.rows)} of {self.n} test rows ({self.example})"


@dataclass(frozen=True)
class Leaks:
    """What train and test share, column by column; `unchecked` are usual columns that one of the two lacks."""

    found: list[Leak]
    checked: list[str]
    unchecked: list[str]

    def __str__(self) -> str:
        lines = [str(leak) for leak in self.found] or ["nothing is shared"]
        lines.append(f"checked: {', '.join(self.checked)}")
        return "\n".join(lines + [f"not checked: {', '.join(self.unchecked)}"] if self.unchecked else lines)

    def to_dict(self) -> dict[str, Any]:
        """Counts only: what a report may keep."""
        found = {leak.column: {"shared": len(leak.shared), "rows": len(leak.rows), "n": leak.n} for leak in self.found}
        return {"found": found, "checked": self.checked, "unchecked": self.unchecked}


def merge_duplicates(texts: Sequence[str], ids: Sequence[Hashable]) -> Merged:
    """Give texts that are equal after `normalise_text` one id, whatever ids they had: both are right for a query.

    Equality goes on: if a text of id b is one of a, and another text of b is one of c, then a, b and c become one. A
    text of which normalising leaves nothing ("?!") is compared as it is.

    Raises:
        ClaspError: another number of texts than of ids.
    """
    if len(texts) != len(ids):
        raise ClaspError(f"ids: are {len(ids)}, but there are {len(texts)} texts; give one for each.")
    root: dict[Hashable, Hashable] = {i: i for i in ids}
    place = {i: n for n, i in enumerate(root)}

    def find(i: Hashable) -> Hashable:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    owner: dict[str, Hashable] = {}
    for text, i in zip(texts, ids):
        one, other = find(i), find(owner.setdefault(_key(text), i))
        first, second = sorted((one, other), key=place.__getitem__)
        root[second] = first
    classes: dict[Hashable, list[Hashable]] = {}
    for i in root:
        classes.setdefault(find(i), []).append(i)
    return Merged([find(i) for i in ids], [tuple(same) for same in classes.values() if len(same) > 1])


def find_leaks(train: Any, test: Any, columns: Sequence[str] | None = None, near: float | None = 0.8) -> Leaks:
    """Which texts, speakers and voices of the test are in the training data too.

    Args:
        train, test: a list of dicts, a `datasets.Dataset`, a pandas frame, or a mapping of columns. Columns are
            matched by name.
        columns: default those of `LEAK_COLUMNS` that both tables have. "text" is compared normalised, others as they
            are; None, NaN and "" are no value.
        near: texts with this Jaccard similarity of their words or more are nearly the same (`near_duplicates`), if they
            are not the same; None does not look for them.

    Raises:
        DatasetError: a column that was asked for, or all of the usual ones, are missing in one of the tables.
        ClaspError: `near` is not above 0 and at most 1.
    """
    sides = [_names(table) for table in (train, test)]
    asked = LEAK_COLUMNS if columns is None else tuple(columns)
    missing = [name for name in asked if not all(name in side for side in sides)]
    if (missing and (columns is not None or len(missing) == len(asked))) or not asked:
        has = "; ".join(
            f"{name} has {', '.join(map(str, side)) or 'none'}" for name, side in zip(("train", "test"), sides)
        )
        raise DatasetError(f"columns {', '.join(missing) or '()'}: must be in both tables; {has}.")
    checked = [name for name in asked if name not in missing]
    found: list[Leak] = []
    for name in checked:
        ours, theirs = _column(train, name), _column(test, name)
        key = _key if name == "text" else _same
        known = {key(value) for value in ours if _given(value)}
        rows = [i for i, value in enumerate(theirs) if _given(value) and key(value) in known]
        _add(found, name, rows, theirs, key)
        if name == "text" and near is not None:
            fresh = [i for i, value in enumerate(theirs) if _given(value) and key(value) not in known]
            pairs = near_duplicates([t for t in ours if _given(t)], [theirs[i] for i in fresh], near)
            _add(found, NEAR, sorted({fresh[j] for _, j, _ in pairs}), theirs, key)
    if "text" in checked and near is not None:
        checked.append(NEAR)
    return Leaks(found, checked, missing)


def refuse_leaks(
    train: Any,
    test: Any,
    columns: Sequence[str] | None = None,
    near: float | None = 0.8,
    allow: bool | Sequence[str] = False,
) -> Leaks:
    """`find_leaks`, and an error if there are any that were not allowed: a leaky split is not scored by accident.

    Args:
        allow: True for all, or the names of columns that may share, such as `("voice",)` for Speech Brown, which has
            one speaker, or `("near text",)`.

    Raises:
        DatasetError: leaks, how many, and the first few; and what `find_leaks` raises.
    """
    leaks = find_leaks(train, test, columns, near)
    if isinstance(allow, str) or (not isinstance(allow, bool) and set(allow) - {*leaks.checked, *leaks.unchecked}):
        raise ClaspError(f"allow={allow!r}: give True, or names out of {', '.join(leaks.checked)}.")
    allowed = set(leaks.checked) if allow is True else set(allow or ())
    if refused := [leak for leak in leaks.found if leak.column not in allowed]:
        names = ", ".join(repr(leak.column) for leak in refused)
        raise DatasetError(
            "the test has been seen in training; "
            + "; ".join(map(str, refused))
            + f". Split by text and by speaker, or, if it is meant, pass allow=({names},)."
        )
    return leaks


def near_duplicates(train: Sequence[str], test: Sequence[str], threshold: float = 0.8) -> list[tuple[int, int, float]]:
    """Pairs of texts with almost the same words: (row of train, row of test, Jaccard similarity), by row of test.

    The similarity of two sets of words is the share of common ones among all; word order and repetition do not count.
    Scripts without spaces (Chinese, Japanese, Thai, ...) are compared by pairs of neighbouring letters. Texts that are
    equal after normalising are pairs too, with 1.0. Exact, and not quadratic: of a text with s words, one of the
    s - ceil(threshold s) + 1 rarest is in every partner (prefix filtering, Chaudhuri, Ganti and Kaushik 2006).

    Raises:
        ClaspError: a threshold that is not above 0 and at most 1.
    """
    if not 0 < threshold <= 1:
        raise ClaspError(f"threshold {threshold}: give a number above 0 and at most 1.")
    words = [[set(_units(text)) for text in texts] for texts in (train, test)]
    counts: dict[str, int] = {}
    for unit in (unit for side in words for text in side for unit in text):
        counts[unit] = counts.get(unit, 0) + 1
    number = {unit: i for i, unit in enumerate(sorted(counts, key=lambda unit: (counts[unit], unit)))}  # rarest first
    rows = [[np.sort([number[unit] for unit in text]).astype(np.int64) for text in side] for side in words]
    whole_train, whole_test = (_matrix(side, len(number)) for side in rows)
    # 1e-9: 0.8 * 5 is 4, not a rounding error above it.
    starts = [
        [r[: len(r) - int(np.ceil(threshold * len(r) - 1e-9)) + 1] if len(r) else r for r in side] for side in rows
    ]
    start_train, start_test = (_matrix(side, len(number)) for side in starts)
    sizes = [np.array([len(r) for r in side]) for side in rows]
    found = []
    for j, i in _meetings(start_test, start_train):
        small = np.minimum(sizes[1][j], sizes[0][i]) >= threshold * np.maximum(sizes[1][j], sizes[0][i]) - 1e-9
        j, i = j[small], i[small]
        common = np.asarray(whole_test[j].multiply(whole_train[i]).sum(1)).ravel()
        similarity = common / (sizes[1][j] + sizes[0][i] - common)
        keep = similarity >= threshold - 1e-9
        found += list(zip(i[keep].tolist(), j[keep].tolist(), similarity[keep].tolist()))
    return sorted(found, key=lambda pair: (pair[1], pair[0]))


def _meetings(test: csr_array, train: csr_array) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of both that share an entry, some thousand rows of the first at a time."""
    turned = train.T.tocsr()
    for start in range(0, test.shape[0], 1000):
        product = (test[start : start + 1000] @ turned).tocoo()
        yield product.row + start, product.col


def _matrix(rows: Sequence[np.ndarray], width: int) -> csr_array:
    from scipy.sparse import csr_array

    ends = np.cumsum([0, *map(len, rows)])
    columns = np.concatenate(rows) if rows else np.array([], np.int64)
    return csr_array((np.ones(len(columns), np.int32), columns, ends), shape=(len(rows), width))


def _units(text: str) -> Iterator[str]:
    for word in normalise_text(text).split():
        rest = _UNSPACED.sub(" ", word)
        yield from rest.split()
        for letters in _UNSPACED.findall(word):
            yield from (letters[i : i + 2] for i in range(max(1, len(letters) - 1)))


def _add(found: list[Leak], name: str, rows: list[int], values: Sequence[Any], key: Any) -> None:
    if not rows:
        return
    shared = list({key(values[i]): values[i] for i in reversed(rows)}.values())[::-1]
    of_text = name in ("text", NEAR)
    first = ", ".join(repr(str(v)[:60]) for v in shared[:_SHOWN]) if of_text else ", ".join(map(str, rows[:_SHOWN]))
    more = ", ..." if len(shared if of_text else rows) > _SHOWN else ""
    found.append(Leak(name, rows, len(values), shared, f"{first}{more}" if of_text else f"rows {first}{more}"))


def _key(text: Any) -> str:
    if not isinstance(text, str):
        raise DatasetError(f"text {text!r}: is a {type(text).__name__}; give strings.")
    return normalise_text(text) or text.strip()


def _same(value: Any) -> Any:
    return value


def _given(value: Any) -> bool:
    return not (value is None or value != value or value == "")


def _names(table: Any) -> list[str]:
    """The columns of a `datasets.Dataset`, a pandas frame, a mapping of columns, or a list of dicts."""
    for attribute in ("column_names", "columns"):
        if hasattr(table, attribute):
            return list(getattr(table, attribute))
    if isinstance(table, Mapping):
        return list(table)
    if not isinstance(table, Sequence) or not all(isinstance(row, Mapping) for row in table):
        raise DatasetError(f"a {type(table).__name__} is no table; give a list of dicts, a Dataset or a pandas frame.")
    return list(dict.fromkeys(name for row in table for name in row))


def _column(table: Any, name: str) -> list[Any]:
    if isinstance(table, Sequence) and not hasattr(table, "column_names"):
        return [row.get(name) for row in table]
    return list(table[name])
