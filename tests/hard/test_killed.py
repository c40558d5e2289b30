"""kill -9 at every moment of each long job: the same call again ends with the same bits, and leaves nothing over."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hard.conftest import Ended
from hard.faults import TESTS, Forker
from hard.jobs import JOBS, copied, files_of

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork, nor kill")

GROUP = "killed"


class Undisturbed(NamedTuple):
    """What was there before a job, what a reader found there, and what there is when nobody disturbs it."""

    before: Path
    old: str | None
    whole: str
    files: set[str]
    steps: int


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    forker = Forker()
    yield forker
    forker.close()


@pytest.fixture(scope="module")
def undisturbed(forker: Forker, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Undisturbed]:
    """Each job once."""
    done = {}
    for name in JOBS:
        folder = tmp_path_factory.mktemp(name.replace(" ", "-"))
        before, after = folder / "before", folder / "after"
        before.mkdir()
        one(forker, name, before, "prepare")
        old = forker({"job": name, "folder": before, "do": "read"})[0].get("value")
        steps = one(forker, name, copied(before, after), "run")["steps"]
        done[name] = Undisturbed(before, old, one(forker, name, after, "read")["value"], files_of(after), steps)
    return done


def one(forker: Forker, name: str, folder: Path, do: str) -> dict[str, Any]:
    """An order that must be obeyed."""
    (answer,) = forker({"job": name, "folder": folder, "do": do})
    assert answer["code"] == 0 and "error" not in answer, f"{name}, {do}: {answer}"
    return answer


def kill(forker: Forker, name: str, known: Undisturbed, at: int, tear: bool, folder: Path, ended: Ended) -> None:
    """Kill a job at its step `at`, look at what it has left, and start it again."""
    copied(known.before, folder)
    (answer,) = forker({"job": name, "folder": folder, "do": "run", "at": at, "tear": tear})
    assert answer["code"] == -signal.SIGKILL, f"{name}: was not killed at step {at}: {answer}"
    (found,) = forker({"job": name, "folder": folder, "do": "read"})
    assert found.get("kind") in (None, "ClaspError", "OSError", "FileNotFoundError"), f"{name}, step {at}: {found}"
    if known.old is not None and "value" not in found:  # killed between two renamings: it lies beside, and comes back
        assert JOBS[name].replaces and list(folder.glob(".*.old")), f"{name}, step {at}: what was there is gone"
    elif JOBS[name].replaces:
        assert found["value"] in (known.old, known.whole), f"{name}, step {at}: neither the old nor the new is there"
    (again,) = forker({"job": name, "folder": folder, "do": "run"})
    if JOBS[name].once and "value" in found:
        assert "exists already" in again["error"], again
    else:
        assert again["code"] == 0 and "error" not in again, f"{name}, again after step {at}: {again}"
    assert one(forker, name, folder, "read")["value"] == known.whole, f"{name}: killed at step {at}, it ends otherwise"
    assert files_of(folder) == known.files, f"{name}: killed at step {at}, it leaves other files"
    ended(GROUP, f"{name}, step {at} of {known.steps}{', a file torn' if tear else ''}", "resumed")


@pytest.mark.parametrize("name", JOBS)
def test_a_killed_job_goes_on(
    name: str, forker: Forker, undisturbed: dict[str, Undisturbed], tmp_path: Path, ended: Ended
) -> None:
    """In the middle and at the end; the next test takes all steps."""
    known = undisturbed[name]
    assert known.steps >= 2, f"{name}: writes nothing that could be stopped"
    for at in sorted({(known.steps + 1) // 2, known.steps}):
        kill(forker, name, known, at, at == known.steps, tmp_path / f"at-{at}", ended)


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_a_killed_job_goes_on_at_every_step(
    name: str, forker: Forker, undisturbed: dict[str, Undisturbed], tmp_path: Path, ended: Ended
) -> None:
    known = undisturbed[name]
    for tear in (False, True):
        for at in range(1, known.steps + 1):
            kill(forker, name, known, at, tear, tmp_path / f"at-{at}-{tear}", ended)


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_a_job_that_is_killed_again_and_again_comes_to_its_end(
    name: str, forker: Forker, undisturbed: dict[str, Undisturbed], tmp_path: Path, ended: Ended
) -> None:
    """Each time a little later, in the same folder, until it is through."""
    known, folder = undisturbed[name], copied(undisturbed[name].before, tmp_path / "folder")
    for at in range(1, 3 * known.steps):
        (answer,) = forker({"job": name, "folder": folder, "do": "run", "at": at, "tear": at % 2 == 0})
        if answer["code"] != -signal.SIGKILL:
            break
    else:
        pytest.fail(f"{name}: never came to its end")
    assert "error" not in answer or (JOBS[name].once and "exists already" in answer["error"]), answer
    assert one(forker, name, folder, "read")["value"] == known.whole
    assert files_of(folder) == known.files
    ended(GROUP, f"{name}, {at - 1} times in a row", "resumed")


ABLATION = """
if __name__ == "__main__":
    import sys
    from pathlib import Path
    sys.path[:0] = [sys.argv[2]]
    from hard.jobs import _cell
    from clasp_lib.ablation.runs import run_jobs
    job = _cell(Path(sys.argv[1]))
    jobs = [job._replace(cell=job.cell._replace(seed=seed)) for seed in range(30)]
    for result in run_jobs(jobs, workers=2):
        print(result.facts["validation_mrr"], {way: ranks.tolist() for way, ranks in result.ranks.items()})
"""


@pytest.mark.slow
def test_a_killed_ablation_goes_on_and_leaves_no_process(
    forker: Forker, undisturbed: dict[str, Undisturbed], tmp_path: Path, ended: Ended
) -> None:
    """With its processes: whoever is left behind when they lose their parent would never end."""
    script = tmp_path / "ablation.py"
    script.write_text(ABLATION, "utf-8")
    whole, killed = (copied(undisturbed["ablation"].before, tmp_path / name) for name in ("whole", "killed"))

    def done() -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in (killed / "runs").glob("*.safetensors")}

    lines = [[sys.executable, str(script), str(folder), str(TESTS)] for folder in (whole, killed)]
    start_and_kill(lines[1], lambda: len(done()) >= 2)
    before = done()
    assert 2 <= len(before) < 30, "killed too late"
    said = [subprocess.run(line, capture_output=True, text=True, check=True).stdout for line in lines]
    assert said[0] == said[1] and len(said[0].splitlines()) == 30
    assert before.items() <= done().items(), "what was done was done again"
    assert files_of(whole) == files_of(killed)
    ended(GROUP, "an ablation with its processes", "resumed")


DATASET = """
if __name__ == "__main__":
    import sys
    from pathlib import Path
    import clasp_lib.speech_brown
    from clasp_lib.corpus import pocket_brown
    from clasp_lib.profiles import Profile
    from clasp_lib.synthesis import ESpeak
    clasp_lib.speech_brown._CHUNK = 8
    Profile("small", "", "", "", lambda: pocket_brown()[::16], ESpeak).dataset(Path(sys.argv[1]) / "dataset")
"""


@pytest.mark.slow
def test_a_killed_build_of_a_dataset_goes_on_and_leaves_no_process(
    forker: Forker, tmp_path: Path, ended: Ended
) -> None:
    """With its processes and the voice of the pocket profile."""
    script = tmp_path / "dataset.py"
    script.write_text(DATASET, "utf-8")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    lines = [[sys.executable, str(script), str(folder)] for folder in (whole, killed)]
    start_and_kill(lines[1], lambda: len(list((killed / "dataset-unfinished").glob("*.arrow"))) >= 2)
    assert not (killed / "dataset").exists(), "killed too late"
    for line in lines:
        subprocess.run(line, capture_output=True, check=True)
    assert one(forker, "dataset", whole, "read")["value"] == one(forker, "dataset", killed, "read")["value"]
    assert files_of(whole) == files_of(killed)
    ended(GROUP, "the build of a dataset with its processes", "resumed")


def start_and_kill(line: list[str], far_enough: Callable[[], bool]) -> None:
    """Kill a program when it is far enough, and see that all processes that it has started end, too."""
    marked = f"STARTED_BY={secrets.token_hex(8)}"
    environment = os.environ | dict([marked.split("=")])
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as run:
        until(far_enough)
        assert len(living(marked)) > 1, "it has no processes"
        run.kill()
    try:
        until(lambda: not living(marked), seconds=30)
    finally:
        for process in living(marked):
            os.kill(process, signal.SIGKILL)


def until(true: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "still not so"
        time.sleep(0.02)


def living(marked: str) -> list[int]:
    """Processes with this in their environment, as whoever they were started by."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if marked.encode() in (folder / "environ").read_bytes():  # empty once it has ended
                found.append(int(folder.name))
        except OSError:
            continue
    return found
