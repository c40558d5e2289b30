"""Files and folders that are written whole or not at all, also where several processes write the same ones.

What is being written has a name of its own and is locked until it takes its place. A process that is killed lets go of
the lock, by which the next one that writes the same file or folder knows what may be swept away.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from clasp_lib.errors import ClaspError, DatasetError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there, and nothing swept away
    fcntl = None  # type: ignore[assignment]

_ATTEMPTS = 10
"""To put a folder in its place, where other processes put theirs there at the same moment."""


@contextlib.contextmanager
def written_whole(folder: str | Path, marker: str) -> Iterator[Path]:
    """Give a fresh folder to write into; it takes the place of `folder` when the block ends without an error.

    Of several processes that do so at once the last one wins.

    Args:
        marker: a file that every folder of this kind holds; only such a folder is replaced.

    Raises:
        DatasetError: `folder` exists and holds no `marker`, or it cannot be written.
    """
    folder = Path(folder)
    with reported(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        name = glob.escape(f".{folder.name}")
        for old in _left_behind(folder.parent, f"{name}.*.old"):  # killed between two renamings, or while it deleted
            if folder.exists() or not (old / marker).is_file():
                shutil.rmtree(old, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):  # another process has just put its own there
                    old.rename(folder)
        for new in _left_behind(folder.parent, f"{name}.*.new"):
            shutil.rmtree(new, ignore_errors=True)
        with _standing(folder) as there:
            if there:
                _check_marker(folder, marker)
        with _held(folder.with_name(f".{folder.name}.{_own_name()}.new"), Path.mkdir) as unfinished:
            yield unfinished
            _take_place(unfinished, folder, marker)


def write_whole(file: Path, data: bytes) -> None:
    """Replace a file; whoever is killed while writing leaves the one before it as it was."""
    with replacing(file) as opened:
        opened.write(data)


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of `file` when the block ends without an error."""
    file.parent.mkdir(parents=True, exist_ok=True)
    for leftover in _left_behind(file.parent, f"*{glob.escape(file.stem)}.*.tmp"):
        leftover.unlink(missing_ok=True)
    with _held(file.with_name(f".{file.stem}.{_own_name()}.tmp"), Path.touch) as unfinished:
        with open(unfinished, "wb") as opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(unfinished, file)


@contextlib.contextmanager
def reported(place: str | Path, kind: type[ClaspError] = DatasetError) -> Iterator[None]:
    """Where `place` cannot be written, for want of space or rights, say so, and what would help.

    Raises:
        ClaspError: it cannot; of this kind.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise kind(f"{place}: cannot be written ({why}). Make room there, or give another folder.") from error


@contextlib.contextmanager
def only_process(lock: Path, *, wait: bool) -> Iterator[None]:
    """Let one process at a time into the block; one that is killed in it lets the next one in.

    Args:
        lock: a file that is made for this, and deleted in the end.
        wait: for another process that is in it, with a warning; or raise.

    Raises:
        DatasetError: another process is in it, or the lock cannot be made.
    """
    from filelock import FileLock, Timeout

    held = FileLock(lock)
    with reported(lock.parent):
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            held.acquire(timeout=0)
        except Timeout:
            if not wait:
                raise DatasetError(
                    f"{lock.parent}: another process is at work there. Wait for its end, or give another folder; "
                    "nothing is lost."
                ) from None
            warnings.warn(f"{lock.parent}: waiting for another process, which makes the same there.", stacklevel=3)
            held.acquire()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows keeps what is open
            lock.unlink(missing_ok=True)
        held.release()


def _own_name() -> str:
    """For a person who wonders whose file it is; threads of one process have different ones."""
    return f"{os.getpid()}-{secrets.token_hex(4)}"


@contextlib.contextmanager
def _held(unfinished: Path, make: Callable[[Path], object]) -> Iterator[Path]:
    """Make a file or folder, and hold it so that nobody takes it for a leftover; in the end it is gone."""
    descriptor = None
    try:
        while True:
            make(unfinished)
            if fcntl is None:
                break
            with contextlib.suppress(FileNotFoundError):  # swept away before it was locked
                descriptor = os.open(unfinished, os.O_RDONLY)
                with contextlib.suppress(OSError):  # some network folders have no locks; nothing is swept away there
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                if unfinished.exists():
                    break
                os.close(descriptor)
                descriptor = None
        yield unfinished
    finally:
        if unfinished.is_dir():
            shutil.rmtree(unfinished, ignore_errors=True)
        else:
            unfinished.unlink(missing_ok=True)
        if descriptor is not None:
            os.close(descriptor)


def _left_behind(folder: Path, pattern: str) -> Iterator[Path]:
    """Unfinished files and folders of processes that are gone, each locked while it is looked at."""
    for path in folder.glob(pattern) if fcntl is not None else ():
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # whoever put a pipe there does not stop us
        except OSError:  # another process has swept it away
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # somebody is at work on it
            pass
        else:
            if _is(descriptor, path):  # by now another may be at work under this name
                yield path
        finally:
            os.close(descriptor)


def _is(descriptor: int, path: Path) -> bool:
    """Whether what was opened still has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _standing(folder: Path) -> Iterator[bool]:
    """Whether something stands at `folder`; it is locked, so that no other process replaces it while the block runs."""
    while fcntl is not None:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            yield False
            return
        except OSError:  # something that is no folder, or may not be read
            break
        try:
            with contextlib.suppress(OSError):  # some network folders have no locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is(descriptor, folder):
                yield True
                return
        finally:
            os.close(descriptor)
    yield os.path.lexists(folder)


def _take_place(new: Path, folder: Path, marker: str) -> None:
    """Rename `new` to `folder`; what was there is deleted, or comes back if the renaming fails."""
    old = new.with_suffix(".old")
    for attempts_left in reversed(range(_ATTEMPTS)):
        with _standing(folder) as there:
            if there:
                _check_marker(folder, marker)
                folder.rename(old)
            try:
                new.rename(folder)
                done = True
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not attempts_left:
                    if there:
                        old.rename(folder)
                    raise
                done = False  # another process was faster
            with contextlib.suppress(OSError):  # first: without it, nobody takes the rest for a whole folder
                (old / marker).unlink()
            shutil.rmtree(old, ignore_errors=True)
        if done:
            return


def _check_marker(folder: Path, marker: str) -> None:
    if not (folder / marker).is_file():
        raise DatasetError(f"{folder}: exists and holds no {marker}, so it is not replaced. Choose another folder.")
