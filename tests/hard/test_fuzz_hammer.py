"""The hammer itself: mutants come from a seed, and each harm that a reader can do is noticed."""

from __future__ import annotations

import ctypes
import os
import pickle
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from clasp_lib.errors import ClaspError
from hard.hammer import Hammer, Reader
from hard.mutants import mutant

FILES = [b"RIFF\x24\0\0\0 some header 44100 and 1024 bytes of it" * 4, b"OggS another, of 17 pages" * 9]


class Canary:
    """A pickle that calls a program when it is opened."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self._file}'",)


def _does(folder: Path, what: str) -> None:
    if what == "hang":
        while True:
            time.sleep(0.1)
    elif what == "crash":
        ctypes.string_at(0)
    elif what == "ask for memory":
        bytearray(5 * 2**30)
    elif what == "take memory":
        bytearray(b"1") * (700 * 2**20)
    elif what == "hide the memory":
        try:
            bytearray(5 * 2**30)
        except MemoryError as error:
            raise ClaspError("mutant.bin: cannot be read.") from error
    elif what == "raise":
        raise KeyError("header")
    elif what == "read wrongly":
        assert sum([1, 1]) == 3, "not what was written"
    elif what == "blame nobody":
        raise ClaspError("something is wrong somewhere.")
    elif what == "run":
        os.system("true")
    elif what == "unpickle":
        pickle.loads(pickle.dumps(Canary(folder / "canary")))
    elif what == "write elsewhere":
        (folder.parents[1] / "elsewhere").write_bytes(b"1")
    elif what == "refuse":
        raise ClaspError("mutant.bin: is damaged. Copy it again.")


HARMS = {
    "hang": "hangs",
    "crash": "crashes",
    "ask for memory": "floods",
    "take memory": "floods",
    "hide the memory": "floods",
    "raise": "raises",
    "read wrongly": "is read wrongly",
    "blame nobody": "is refused badly",
    "run": "does more than read",
    "unpickle": "does more than read",
    "write elsewhere": "does more than read",
    "refuse": "refused",
    "nothing": "unharmed",
}


def bad_reader(folder: Path) -> Reader:
    """Does what its mutant is called."""
    return Reader([b""], lambda data: _does(folder, data.decode()), ("mutant.bin",), partial(_name, list(HARMS)))


def _name(names: list[str], number: int) -> bytes:
    return names[number].encode()


@pytest.fixture(scope="module")
def hammer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hammer]:
    hammer = Hammer(tmp_path_factory.mktemp("outside") / "anvil", seconds=5)
    hammer._folder.mkdir()
    yield hammer
    hammer.close()


@pytest.mark.parametrize("harm", HARMS)
def test_every_harm_is_noticed(harm: str, hammer: Hammer) -> None:
    ending = hammer.strike("hard.test_fuzz_hammer:bad_reader", list(HARMS).index(harm))
    assert ending.outcome == HARMS[harm], ending


def test_mutants_follow_from_their_number_and_are_no_valid_files() -> None:
    made = [mutant(FILES, number) for number in range(500)]
    assert made == [mutant(FILES, number) for number in range(500)]
    assert made != [mutant(FILES, number, seed=1) for number in range(500)]
    assert not set(made) & set(FILES) and len(set(made)) > 480
    assert any(len(data) < 20 for data in made) and any(len(data) > 300 for data in made)
