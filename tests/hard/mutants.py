"""Broken versions of valid files, from a seed: bytes flipped, overwritten, cut, doubled, moved and spliced.

The same files, number and seed give the same mutant on every machine: a mutant that did harm is named by its number.
"""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

_TELLING = (
    *(0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF),
    *(2**30, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1),
)
"""Numbers at the edges of what a field can hold: sizes and counts that a reader must not believe."""

_NUMBERS = (b"0", b"-1", b"1e999", b"NaN", b"1.5", b"4294967296", b"1" + b"0" * 20, b"9" * 400, b"true", b"null", b'""')
"""What may stand in a text where a number stood."""

_TOKENS = (
    *(b"\0", b"\r", b"\n", b'"', b",", b"\t", b"\\", b"{", b"}", b"[]", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80"),
    *(b"../", b"/", b"../../outside.wav", b"%s", b"\xe2\x80\xae", b"\x1b[2J", b"[" * 5_000, b'{"a":' * 5_000),
)
"""Letters and words that mean something to somebody; the last two are nested too deeply."""

_HEAD = 160  # bytes in which most files say what they are


def mutant(files: Sequence[bytes], number: int, seed: int = 0) -> bytes:
    """Mutant `number` of some valid files of one kind: one of them with one to six wounds, and none of them."""
    rng = random.Random(f"{seed} {number}")
    data = rng.choice(files)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        data = rng.choice(_WOUNDS)(rng, data, files)
    while data in files:
        data = rng.choice(_WOUNDS)(rng, data, files)
    return data


def _place(rng: random.Random, data: bytes) -> int:
    """Somewhere in a file, mostly near its ends, where headers and tables of contents stand."""
    end = len(data)
    return rng.choice((rng.randint(0, min(end, _HEAD)), rng.randint(0, end), rng.randint(max(0, end - _HEAD), end)))


def _flip(rng: random.Random, data: bytes, files: Sequence[bytes]) -> bytes:
    if not data:
        return b"\0"
    hurt = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 4, 16))):
        hurt[min(_place(rng, data), len(data) - 1)] ^= 1 << rng.randrange(8)
    return bytes(hurt)


def _overwrite(rng: random.Random, data: bytes, files: Sequence[bytes]) -> bytes:
    place, length = _place(rng, data), rng.choice((1, 1, 2, 4, 16, 64))
    return data[:place] + rng.choice((b"\0", b"\xff", b"\x7f", b" ")) * length + data[place + length :]


def _noise(rng: random.Random, data: bytes, files: Sequence[bytes]) -> bytes:
    place, length = _place(rng, data), rng.choice((1, 2, 4, 16, 200))
    return data[:place] + rng.randbytes(length) + data[place + length :]


def _number(rng: random.Random, data: bytes, files: Sequence[bytes]) -> bytes:
    """A size, count or offset becomes one that is out of all proportion."""
    place, width = _place(rng, data), rng.choice((1, 2, 3, 4, 8))
    value = rng.choice(_TELLING) & (256**width - 1)
    return data[:place] + value.to_bytes(width, rng.choice(("little", "big"))) + data[place + width :]


def _digits(rng: random.Random, data: bytes, files: Sequence[bytes]) -> bytes:
    found = list(re.finditer(rb"-?\d+(?:\.\d+)?", data[: 1 << 16]))
    if not found:
        return _number(rng, data, files)
    place = rng.choice(found)
    return data[: place.start()] + rng.choice(_NUMBERS) + data[place.end() :]


def _cut_off(rng: random.Random, data: bytes, files: Sequence[bytes]) -> bytes:
    return data[: _place(rng, data)]


def _cut_out(rng: random.Random, data: bytes, files: Sequence[bytes]) -> bytes:
    place = _place(rng, data)
    return data[:place] + data[place + rng.choice((1, 2, 4, 13, 100, 1000)) :]


def _cut_in_front(rng: random.Random, data: bytes, files: Sequence[bytes]) -> bytes:
    return data[rng.choice((1, 2, 4, 16, 100)) :]


def _double(rng: random.Random, data: bytes, files: Sequence[bytes]) -> bytes:
    place, length = _place(rng, data), rng.choice((1, 4, 16, 100, 1000))
    return data[:place] + data[place : place + length] * rng.choice((2, 2, 3, 50)) + data[place + length :]


def _insert(rng: random.Random, data: bytes, files: Sequence[bytes]) -> bytes:
    place = _place(rng, data)
    return data[:place] + rng.choice((rng.randbytes(rng.choice((1, 4, 100))), *_TOKENS)) + data[place:]


def _move(rng: random.Random, data: bytes, files: Sequence[bytes]) -> bytes:
    start, length = _place(rng, data), rng.choice((1, 4, 16, 100))
    piece, rest = data[start : start + length], data[:start] + data[start + length :]
    place = _place(rng, rest)
    return rest[:place] + piece + rest[place:]


def _splice(rng: random.Random, data: bytes, files: Sequence[bytes]) -> bytes:
    """The beginning of one file and the end of another, or a piece of it in the middle."""
    other, place = rng.choice(files), _place(rng, data)
    if rng.random() < 0.5:
        return data[:place] + other[_place(rng, other) :]
    start, length = _place(rng, other), rng.choice((4, 16, 100, 1000))
    return data[:place] + other[start : start + length] + data[place + length :]


_WOUNDS: tuple[Callable[[random.Random, bytes, Sequence[bytes]], bytes], ...] = (
    *(_flip, _overwrite, _noise, _number, _number, _digits, _cut_off, _cut_out, _cut_in_front),
    *(_double, _insert, _move, _splice, _splice),
)


# In JSON most wounds are mere errors of spelling. These keep the spelling and hurt what it says ----------------------

_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 7, 2**31, 2**63, -(2**70), 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", "x", "0", "../x", "ä" * 300, "\0", "\ud800", [], [1, 2], [None], [[]], {}, {"a": 1}),
)
"""What may stand in the place of a value; the long and the half letter are on purpose."""


def json_mutant(documents: Sequence[Any], number: int, seed: int = 0) -> Any:
    """Mutant `number` of some documents: one of them with one to three values or names changed, gone or doubled."""
    rng = random.Random(f"json {seed} {number}")
    document = copy.deepcopy(rng.choice(documents))
    for _ in range(rng.choice((1, 1, 2, 3))):
        _hurt(rng, document)
    return document


def _hurt(rng: random.Random, document: Any) -> None:
    places = [place for place in _containers(document) if place]
    if not places:
        return
    place = rng.choice(places)
    key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
    value = place[key]
    what = rng.choice(("replace", "replace", "replace", "shift", "delete", "rename", "double", "exchange"))
    if what == "replace":
        place[key] = copy.deepcopy(rng.choice(_VALUES))
    elif what == "shift" and isinstance(value, int | float):
        place[key] = rng.choice((value + 1, value - 1, -value, value * 1000, float(value), str(value)))
    elif what == "delete":
        del place[key]
    elif what == "rename" and isinstance(place, dict):
        place[f"{key}{rng.choice('s_0')}"] = place.pop(key)
    elif what == "double" and isinstance(place, list):
        place.insert(key, copy.deepcopy(value))
    else:
        other = rng.choice(places)
        if isinstance(other, list) and not any(x is other for x in _containers(value)):
            other.append(copy.deepcopy(value))
        else:
            place[key] = [copy.deepcopy(value)]


def _containers(node: Any) -> list[Any]:
    """A document's lists and tables, itself first."""
    if not isinstance(node, list | dict):
        return []
    values = node.values() if isinstance(node, dict) else node
    return [node, *(each for value in values for each in _containers(value))]
