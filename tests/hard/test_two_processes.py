"""Two processes do the same in the same folder at the same moment: both are right, or one is told to wait."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clasp_lib.errors import DatasetError
from clasp_lib.folders import only_process, write_whole, written_whole
from hard.conftest import Ended
from hard.faults import Forker
from hard.jobs import JOBS, copied, files_of

GROUP = "two processes"
BUSY = ("another process is", "another process has changed", "exists already")
"""What the second one may be told; with it, it has done nothing."""
WAITS = ("dataset", "stand-ins")
"""Jobs of which the second process waits for the first, and then needs nothing more."""
QUICK = ("dataset", "features", "training", "new index", "removed from an index", "report", "stand-ins")
"""Each in another way; the others write as one of these does."""

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    forker = Forker()
    yield forker
    forker.close()


def together(forker: Forker, name: str, rounds: int, tmp_path: Path, ended: Ended) -> None:
    """The same job twice at once, in a fresh folder each time; and both against what one alone does."""
    before, alone = tmp_path / "before", tmp_path / "alone"
    before.mkdir()
    order = {"job": name, "do": "run"}
    forker({"job": name, "folder": before, "do": "prepare"})
    forker({**order, "folder": copied(before, alone)})
    (whole,) = forker({"job": name, "folder": alone, "do": "read"})
    for number in range(rounds):
        folder = copied(before, tmp_path / f"round-{number}")
        answers = forker(*2 * [{**order, "folder": folder}])
        refused = [answer["error"] for answer in answers if "error" in answer]
        assert all(answer["code"] == 0 for answer in answers), answers
        assert len(refused) < 2 and all(any(word in error for word in BUSY) for error in refused), answers
        assert not refused or name not in WAITS
        (found,) = forker({"job": name, "folder": folder, "do": "read"})
        assert found["value"] == whole["value"], f"{name}, round {number}: ends otherwise than alone"
        assert files_of(folder) == files_of(alone), f"{name}, round {number}: leaves other files"
        ended(GROUP, f"{name}, round {number}", "refused" if refused else "unharmed")


@forks
@pytest.mark.parametrize("name", QUICK)
def test_two_at_once_end_as_one_alone(name: str, forker: Forker, tmp_path: Path, ended: Ended) -> None:
    together(forker, name, 1, tmp_path, ended)


@forks
@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_two_at_once_end_as_one_alone_many_times(name: str, forker: Forker, tmp_path: Path, ended: Ended) -> None:
    together(forker, name, 25, tmp_path, ended)


@forks
def test_a_build_that_waits_is_let_in_when_the_other_is_killed(forker: Forker, tmp_path: Path, ended: Ended) -> None:
    alone, folder = tmp_path / "alone", tmp_path / "together"
    alone.mkdir()
    folder.mkdir()
    (first,) = forker({"job": "dataset", "folder": alone, "do": "run"})
    order = {"job": "dataset", "folder": folder, "do": "run"}
    answers = forker({**order, "at": first["steps"] // 2}, order)
    assert min(answer["code"] for answer in answers) <= 0 and any("error" not in a and a["code"] == 0 for a in answers)
    found = forker(
        {"job": "dataset", "folder": alone, "do": "read"}, {"job": "dataset", "folder": folder, "do": "read"}
    )
    assert found[0]["value"] == found[1]["value"] and files_of(alone) == files_of(folder)
    ended(GROUP, "a dataset, the first process killed", "resumed")


def all_at_once(*work: Callable[[], None]) -> None:
    """Threads hold their own files and locks, as processes do."""
    failed: list[BaseException] = []

    def run(each: Callable[[], None]) -> None:
        try:
            each()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(each,)) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def test_a_file_that_many_replace_is_always_one_of_theirs(tmp_path: Path, ended: Ended) -> None:
    """One that swept away what others were writing would make them fail."""
    file, done = tmp_path / "file.json", threading.Event()
    write_whole(file, b"0" * 5_000)
    seen = set()

    def read() -> None:
        while not done.is_set():
            data = file.read_bytes()
            seen.add((len(data), len(set(data))))
            time.sleep(0.0005)

    def write(letter: bytes) -> Callable[[], None]:
        return lambda: [write_whole(file, letter * 5_000) for _ in range(40)] and None

    reader = threading.Thread(target=read)
    reader.start()
    try:
        all_at_once(*map(write, (b"1", b"2", b"3", b"4")))
    finally:
        done.set()
        reader.join()
    assert seen == {(5_000, 1)} and [path.name for path in tmp_path.iterdir()] == ["file.json"]
    ended(GROUP, "one file, four writers, forty times", "unharmed")


def test_a_folder_that_many_replace_is_one_of_theirs(tmp_path: Path, ended: Ended) -> None:
    folder = tmp_path / "folder"

    def replace(name: str) -> Callable[[], None]:
        def work() -> None:
            for _ in range(40):
                with written_whole(folder, "marker") as new:
                    (new / "marker").write_text(name)
                    (new / name).write_text(name)

        return work

    all_at_once(*map(replace, "abcdef"))
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert {file.name for file in folder.iterdir()} == {"marker", (folder / "marker").read_text()}
    ended(GROUP, "one folder, six writers, forty times", "unharmed")


def test_what_a_killed_process_left_goes_and_what_is_being_written_stays(tmp_path: Path, ended: Ended) -> None:
    folder = tmp_path / "folder"
    for name in (".folder.1-a.new", ".folder.2-b.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "marker").write_text("left by a process that was killed")
    with written_whole(folder, "marker") as mine:
        assert (folder / "marker").read_text() == "left by a process that was killed", "what was replaced came back"
        with written_whole(folder, "marker") as other:
            (other / "marker").write_text("other")
            assert mine.is_dir() and not (tmp_path / ".folder.1-a.new").exists()
        (mine / "marker").write_text("mine")
    assert (folder / "marker").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    ended(GROUP, "leftovers", "unharmed")


def test_only_one_is_let_in_and_the_others_wait_or_are_told(tmp_path: Path, ended: Ended) -> None:
    lock, inside, most = tmp_path / "work" / ".lock", [], []

    def work() -> None:
        with only_process(lock, wait=True):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()

    with pytest.warns(UserWarning, match="work: waiting for another process"):
        all_at_once(*[work] * 4)
    assert most == [1] * 4 and list((tmp_path / "work").iterdir()) == []
    told = pytest.raises(DatasetError, match=r"work: another process is .* Wait for its")
    with only_process(lock, wait=False), told, only_process(lock, wait=False):
        pytest.fail("two were let in")
    with only_process(lock, wait=False):
        ended(GROUP, "a lock", "unharmed")
