"""Faults on demand: the n-th thing that a job does below its folder fails, or is the last that it does.

Python's audit hooks see every file that is opened for writing, every folder that is made, and every renaming, whoever
asks for it. A process that waits with all libraries loaded forks once for each job, so that a kill costs no start.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
TESTS = Path(__file__).resolve().parent.parent


class Watch:
    """Counts what is written below a folder, and does something at one of these steps, or at all of them.

    Args:
        at: the number of a step, from 1; None only counts; 0 is every one.
        error: raised at that step; or None, and then the process kills itself.
        tear: cut a file in two halves before it is killed, if it was to be renamed.
    """

    def __init__(self, folder: Path, at: int | None = None, error: OSError | None = None, tear: bool = False) -> None:
        self.folder, self.at, self.error, self.tear, self.steps = str(folder.resolve()), at, error, tear, 0

    def see(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An event of Python's."""
        path = arguments[0]
        if not isinstance(path, str | bytes | os.PathLike) or not os.fsdecode(path).startswith(self.folder):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITING):
            return
        self.steps += 1
        if self.at is None or self.at not in (0, self.steps):
            return
        if self.error is not None:
            raise type(self.error)(self.error.errno, self.error.strerror, os.fsdecode(path))
        global _watch
        _watch = None
        if self.tear and event == "os.rename" and os.path.isfile(path):
            os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), signal.SIGKILL)


_watch: Watch | None = None
_hooked = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watch is not None and event in ("open", "os.rename", "os.mkdir"):
        _watch.see(event, arguments)


@contextlib.contextmanager
def watched(watch: Watch) -> Iterator[Watch]:
    """While the block runs, `watch` sees everything. (An audit hook cannot be taken away, only told to look away.)"""
    global _watch, _hooked
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True
    _watch = watch
    try:
        yield watch
    finally:
        _watch = None


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_only() -> OSError:
    return OSError(errno.EROFS, os.strerror(errno.EROFS))


@contextlib.contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes, whichever library writes it: the system itself refuses what is more."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with contextlib.redirect_stderr(io.StringIO()):  # what pytest captures is written to a file, too
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# A process that forks -----------------------------------------------------------------------------------------------


class Forker:
    """Runs jobs in processes that may be killed; see `serve`."""

    def __init__(self) -> None:
        code = f"import sys; sys.path[:0] = [{str(TESTS)!r}]; from hard.faults import serve; serve()"
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes)

    def __call__(self, *orders: dict[str, Any]) -> list[dict[str, Any]]:
        """Orders of "job", "folder", "do" ("prepare", "run", "read"), perhaps "at" and "tear"; several go at once.

        Returns for each "code" (0, or minus the signal), "steps", "value", or "error" with the kind of error.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([{**order, "folder": str(order["folder"])} for order in orders]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def serve() -> None:
    """Fork for each order that is read; the libraries are loaded, and nothing has computed with them yet."""
    import datasets  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import safetensors.numpy
    import safetensors.torch  # noqa: F401
    import torch
    import torch._dynamo

    import clasp_lib.ablation.runs
    import clasp_lib.features
    import clasp_lib.index
    import clasp_lib.paper_tiny.fusions
    import clasp_lib.profiles
    import clasp_lib.report.files
    import clasp_lib.training  # noqa: F401
    from clasp_lib.index import SpeechIndex  # noqa: F401
    from clasp_lib.localization import Cutting  # noqa: F401

    with contextlib.suppress(ImportError):
        import torch.utils.tensorboard

    torch.set_num_threads(1)
    for line in sys.stdin:
        children = []
        go_read, go_write = os.pipe()
        for order in json.loads(line):
            read, write = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(read)
                os.close(go_write)
                os.read(go_read, 1)  # ends when all are there
                _obey(order, write)
            os.close(write)
            children.append((child, read))
        os.close(go_read)
        os.close(go_write)
        answers = []
        for child, read in children:
            with os.fdopen(read, encoding="utf-8") as opened:
                said = opened.read()
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            answers.append({"code": code, **(json.loads(said) if said else {})})
        print(json.dumps(answers), flush=True)


def _obey(order: dict[str, Any], write: int) -> None:
    """One order, in a process of its own, which ends here."""
    from clasp_lib.errors import ClaspError
    from hard.jobs import JOBS

    signal.alarm(120)
    job, answer, code = JOBS[order["job"]], {}, 0
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    folder = Path(order["folder"])
    with watched(Watch(folder, order.get("at"), tear=order.get("tear", False))) as watch:
        try:
            answer["value"] = getattr(job, order["do"])(folder)
        except ClaspError as error:
            answer["error"], answer["kind"] = str(error), "ClaspError"
        except BaseException as error:
            answer["error"], answer["kind"] = repr(error), type(error).__name__
        answer["steps"] = watch.steps
    os.write(write, json.dumps(answer).encode())
    os._exit(code)
