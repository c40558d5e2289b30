"""A disk that is full at the n-th thing written, for every n and every writer: an error that says so, nothing lost."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from clasp_lib.errors import ClaspError
from hard.conftest import Ended, check_message
from hard.faults import Watch, full, room_for, watched
from hard.jobs import JOBS, Job, copied, files_of

GROUP = "disk full"


def state(job: Job, folder: Path) -> str | None:
    """What a reader finds; None where there is nothing."""
    try:
        return job.read(folder)
    except (ClaspError, OSError):
        return None


def check_refusal(error: ClaspError, *wanted: object) -> None:
    """Whether a message says that a place cannot be written, or that nothing can be made there, and which, and why."""
    assert "cannot be written" in str(error) or "can be made there" in str(error), error
    check_message(str(error), *wanted)


@pytest.fixture(autouse=True)
def unchanged_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs make chunks small and heavy parts light; other tests want them as they are."""
    import clasp_lib.features
    import clasp_lib.index.speech_index
    import clasp_lib.paper_tiny as tiny
    import clasp_lib.report.files as files
    import clasp_lib.speech_brown

    heavy = ("hubert", "wav2vec2", "efficientnet", "labse", "xlm_r", "small_100", "clasp", "vits", "whisper")
    touched = [(clasp_lib.features, "SHARD"), (clasp_lib.index.speech_index, "_CHUNK"), (files, "markdown")]
    touched += [(files, "page"), (clasp_lib.speech_brown, "_BATCHES"), (tiny.tiny_corpora, "write_corpora")]
    for module, name in [*touched, *((tiny, name) for name in heavy)]:
        monkeypatch.setattr(module, name, getattr(module, name))


def undisturbed(job: Job, tmp_path: Path) -> tuple[Path, str | None, str, set[str], int]:
    """A folder as it is before, what a reader finds there, and what there is when there is room; and how many steps."""
    before = tmp_path / "before"
    before.mkdir()
    job.prepare(before)
    whole = copied(before, tmp_path / "whole")
    with watched(Watch(whole)) as watch:
        job.run(whole)
    return before, state(job, before), job.read(whole), files_of(whole), watch.steps


def went_on(job: Job, folder: Path, whole: str, files: set[str], what: str) -> None:
    """With room again, the same call ends as if nothing had been."""
    if not (job.once and state(job, folder) == whole):
        job.run(folder)
    assert job.read(folder) == whole, f"{what}: ends otherwise"
    assert files_of(folder) == files, f"{what}: leaves other files"


@pytest.mark.parametrize("name", JOBS)
def test_a_full_disk_loses_nothing(name: str, tmp_path: Path, ended: Ended) -> None:
    """At four of its steps; the next test takes all."""
    at_steps(name, lambda steps: sorted({1, (steps + 2) // 3, (2 * steps + 2) // 3, steps}), tmp_path, ended)


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_a_full_disk_at_each_step_loses_nothing(name: str, tmp_path: Path, ended: Ended) -> None:
    at_steps(name, lambda steps: range(1, steps + 1), tmp_path, ended)


def at_steps(name: str, chosen: Callable[[int], Iterable[int]], tmp_path: Path, ended: Ended) -> None:
    """Let each of the chosen steps of a job fail, then do the job again."""
    job = JOBS[name]
    before, old, whole, files, steps = undisturbed(job, tmp_path)
    assert steps >= 2
    for at in chosen(steps):
        what, folder = f"{name}, step {at} of {steps}", copied(before, tmp_path / f"at-{at}")
        try:
            with watched(Watch(folder, at, full())):
                job.run(folder)
        except ClaspError as error:
            check_refusal(error, folder, os.strerror(full().errno))
        else:
            assert job.read(folder) == whole, f"{what}: passed over in silence, and ends otherwise"
        if old is not None:
            assert state(job, folder) is not None, f"{what}: what was there before is gone"
        if job.replaces:
            assert state(job, folder) in (old, whole), f"{what}: neither the old nor the new is there"
        went_on(job, folder, whole, files, what)
        ended(GROUP, what, "resumed")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system sets no limits to files")
@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_a_file_that_finds_no_room_half_way_loses_nothing(name: str, tmp_path: Path, ended: Ended) -> None:
    """The system itself cuts off the file, whichever library writes it, in Python or below it."""
    job = JOBS[name]
    before, old, whole, files, _ = undisturbed(job, tmp_path)
    sizes = sorted({(tmp_path / "whole" / file).stat().st_size for file in files})
    refused = 0
    for size in sorted({0, *(size // 2 for size in sizes), *(size - 1 for size in sizes)}):
        what, folder = f"{name}, files of {size} bytes at most", copied(before, tmp_path / f"to-{size}")
        try:
            with room_for(size), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                job.run(folder)
        except ClaspError as error:
            check_refusal(error, folder)
            refused += 1
        else:
            assert size and job.read(folder) == whole, f"{what}: passed over in silence, and ends otherwise"
        if old is not None:
            assert state(job, folder) is not None, f"{what}: what was there before is gone"
        if job.replaces:
            assert state(job, folder) in (old, whole), f"{what}: neither the old nor the new is there"
        went_on(job, folder, whole, files, what)
        ended(GROUP, what, "resumed")
    assert refused
