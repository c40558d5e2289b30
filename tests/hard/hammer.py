"""Hand mutants to a reader that lives in a process of its own: a hang, a crash or a flood ends that process alone.

A reader is a function of an empty folder that gives a `Reader`. Its process has a limit on memory, and a hook that
notices when something is run, fetched, unpickled, or written outside the folder, whoever does it.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from clasp_lib.errors import ClaspError
from hard.conftest import LONGEST_MESSAGE, Ended
from hard.mutants import mutant

FEW, MANY = 200, 2_000
"""Mutants of a reader in each run of the tests, and in the long one."""

SECONDS = 30
"""Longest time for one mutant: a thousand times what one takes, since machines are busy."""

HELD, PROMISED = 512 * 2**20, 2 * 2**30
"""Bytes of memory that one mutant may take, and that may be asked for at all: files here are a few kilobytes."""

GOOD = ("refused", "unharmed")

_STARTING = 300  # seconds for imports and valid files

in_two_parts = pytest.mark.parametrize(
    "numbers", [range(FEW), pytest.param(range(FEW, MANY), marks=pytest.mark.slow)], ids=str
)
"""The first mutants in each run of the tests, the rest in the slow ones."""
_ALARMS = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn")
_ALARMS += ("socket.connect", "socket.getaddrinfo", "urllib.Request", "pickle.find_class", "ctypes.dlopen")
_CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link", "os.mkdir", "shutil.rmtree", "shutil.move")


class Reader(NamedTuple):
    """What is attacked.

    Attributes:
        files: valid ones; mutants are made of them.
        read: reads a mutant, and asserts that what comes back is sound.
        named: each refusal must say one of these: the file's name, or its folder's.
        make: a mutant by its number, if not that of `mutants.mutant`.
    """

    files: Sequence[bytes]
    read: Callable[[bytes], None]
    named: Sequence[str]
    make: Callable[[int], bytes] | None = None


class Ending(NamedTuple):
    """How one mutant ended: "refused", "unharmed", or what must never be; and what was said."""

    reader: str
    number: int
    outcome: str
    said: str

    def __str__(self) -> str:
        return f"mutant {self.number} of {self.reader}: {self.outcome}: {self.said}"


class Hammer:
    """A process that reads mutants, started anew when one of them has ended it.

    Args:
        folder: each reader gets a folder in it.
        seconds: for one mutant.
    """

    def __init__(self, folder: Path, seconds: float = SECONDS) -> None:
        self._folder, self._seconds = folder, seconds
        self._child: subprocess.Popen[bytes] | None = None
        self._ready: set[str] = set()

    def strike(self, reader: str, number: int) -> Ending:
        """Let a reader, "module:function", read one of its mutants; below zero, the first of its valid files."""
        if reader not in self._ready:
            answer = self._ask({"reader": reader}, _STARTING)
            assert answer.get("outcome") == "ready", f"{reader} cannot be prepared: {answer}"
            self._ready.add(reader)
        answer = self._ask({"reader": reader, "number": number}, self._seconds)
        return Ending(reader.partition(":")[2], number, answer["outcome"], answer["said"])

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
        self._child = None
        self._ready.clear()

    def _ask(self, order: dict[str, Any], seconds: float) -> dict[str, Any]:
        if self._child is None:
            self._child = self._started()
        child = self._child
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(json.dumps(order).encode() + b"\n")
            child.stdin.flush()
        except BrokenPipeError:
            pass  # its end is told below
        if not select.select([child.stdout], [], [], seconds)[0]:
            self.close()
            return {"outcome": "hangs", "said": f"not done after {seconds:g} s"}
        line = child.stdout.readline()
        if not line:
            code = child.wait()
            self.close()
            tail = (self._folder / "stderr.txt").read_text("utf-8", "replace")[-800:]
            return {"outcome": "crashes", "said": f"exit code {code}; {tail}"}
        return json.loads(line)

    def _started(self) -> subprocess.Popen[bytes]:
        tests = Path(__file__).parents[1]
        variables = {"PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}", "PYTHONDONTWRITEBYTECODE": "1"}
        variables |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "MALLOC_ARENA_MAX": "2"}
        with open(self._folder / "stderr.txt", "wb") as said:
            return subprocess.Popen(
                [sys.executable, "-c", "from hard.hammer import serve; serve()", str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                bufsize=0,
                env={**os.environ, **variables},
            )


def hammer_on(hammer: Hammer, reader: str, numbers: range, ended: Ended) -> Counter[str]:
    """Strike with the mutants of these numbers and record how they ended; fails unless all of them ended well."""
    assert (whole := hammer.strike(reader, -1)).outcome == "unharmed", whole  # the first of the valid files
    endings = [hammer.strike(reader, number) for number in numbers]
    bad = [str(ending) for ending in endings if ending.outcome not in GOOD]
    assert not bad, f"{len(bad)} of {len(endings)} did harm, such as\n" + "\n".join(bad[:5])
    counts = Counter(ending.outcome for ending in endings)
    name = reader.partition(":")[2].replace("_", " ")
    for outcome, count in counts.items():
        ended(f"mutants of {name}", f"numbers {numbers.start} to {numbers.stop - 1}", outcome, count)
    return counts


# In the process ----------------------------------------------------------------------------------------------------


def serve() -> None:
    """Read orders from standard input, answer each with a line of JSON."""
    folder, readers = Path(sys.argv[1]).resolve(), dict[str, Reader]()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # whatever a library prints is not an answer
    guard = _Guard(folder)
    sys.addaudithook(guard.hear)
    for line in sys.stdin:
        order = json.loads(line)
        if "number" not in order:
            _limit_memory(None)
            module, _, function = order["reader"].partition(":")
            place = folder / f"{function}-{len(readers)}-{time.monotonic_ns()}"
            place.mkdir()
            readers[order["reader"]] = getattr(importlib.import_module(module), function)(place)
            answer = {"outcome": "ready", "said": ""}
            _limit_memory(PROMISED)
        else:
            reader = readers[order["reader"]]
            make, number = reader.make or partial(mutant, reader.files), order["number"]
            outcome, said = guard.watch(reader, reader.files[0] if number < 0 else make(number))
            answer = {"outcome": outcome, "said": said[:1500]}
        answers.write(json.dumps(answer) + "\n")


class _Guard:
    """Says how a mutant ended, and notices what a reader has no business to do."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._armed, self._alarms = str(folder), False, list[str]()

    def watch(self, reader: Reader, data: bytes) -> tuple[str, str]:
        """Let it be read."""
        self._alarms.clear()
        before, self._armed = _peak(), True
        try:
            outcome, said = _read(reader, data)
        finally:
            self._armed = False
        if self._alarms:
            return "does more than read", "; ".join(self._alarms)[:1000]
        if (taken := _peak() - before) > HELD:
            return "floods", f"{len(data)} bytes of file took {taken >> 20} MiB of memory ({outcome}: {said})"
        return outcome, said

    def hear(self, event: str, arguments: tuple) -> None:
        """The audit hook of the process; Python has no way to take one out again."""
        if not self._armed:
            return
        if event.startswith(_ALARMS):
            self._alarms.append(f"{event} {arguments!r}"[:300])
        elif event == "open" and isinstance(arguments[2], int):
            if arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and self._is_outside(arguments[0]):
                self._alarms.append(f"writes {arguments[0]!r}"[:300])
        elif event.startswith(_CHANGES) and self._is_outside(arguments[0]):
            self._alarms.append(f"{event} {arguments[0]!r}"[:300])

    def _is_outside(self, place: Any) -> bool:
        if isinstance(place, int) or place is None:
            return False
        name = os.path.realpath(os.fsdecode(place))
        return name != os.devnull and not name.startswith((self._folder + os.sep, "/dev/shm/"))


def _read(reader: Reader, data: bytes) -> tuple[str, str]:
    try:
        reader.read(data)
    except ClaspError as error:
        said = str(error)
        if out_of := _memory_in(error):
            return "floods", f"{out_of!r} became {said[:300]!r}"
        if not said.strip() or len(said) > LONGEST_MESSAGE or not any(name in said for name in reader.named):
            return "is refused badly", f"{len(said)} letters, none of {reader.named}? {said[:600]!r}"
        return "refused", said[:300]
    except MemoryError as error:
        return "floods", repr(error)
    except Exception as error:
        frames = traceback.format_tb(error.__traceback__)
        kind = "is read wrongly" if isinstance(error, AssertionError) else "raises"
        return kind, f"{type(error).__name__}: {str(error)[:400]}\n{''.join(frames[-3:])}"
    return "unharmed", ""


def _memory_in(error: BaseException | None) -> BaseException | None:
    """What in the chain of an error's causes says that memory was asked for in vain."""
    while error is not None:
        if isinstance(error, MemoryError) or any(w in str(error) for w in ("t allocate memory", "bad_alloc", "malloc")):
            return error
        error = error.__cause__ or error.__context__
    return None


def _peak() -> int:
    """The most memory in bytes that this process has held so far; 0 where the system does not tell."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except OSError:
        return 0


def _limit_memory(more: int | None) -> None:
    """Allow so many bytes of address space beyond those in use; None for all there is."""
    if not sys.platform.startswith("linux"):
        return
    import resource

    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if more is None:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    else:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + more, hard))
