"""A cache that cannot be written: what is complete in it is read, what is missing is refused with the reason."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clasp_lib.errors import ClaspError
from hard import jobs
from hard.conftest import Ended
from hard.faults import Watch, read_only, watched
from hard.jobs import JOBS, copied, files_of
from hard.test_disk_full import check_refusal, state, unchanged_library  # noqa: F401

GROUP = "read only"
READS = ("dataset", "stand-ins", "ablation")
"""Whose second call finds all that it needs."""


@pytest.mark.parametrize("name", JOBS)
def test_a_read_only_folder_is_named_and_stays_as_it_is(name: str, tmp_path: Path, ended: Ended) -> None:
    job, folder = JOBS[name], tmp_path / "folder"
    folder.mkdir()
    job.prepare(folder)
    before, files = state(job, folder), files_of(folder)
    with watched(Watch(folder, 0, read_only())), pytest.raises(ClaspError) as caught:
        job.run(folder)
    check_refusal(caught.value, folder, os.strerror(read_only().errno))
    assert state(job, folder) == before and files_of(folder) == files
    ended(GROUP, name, "refused")


@pytest.mark.parametrize("name", READS)
def test_what_is_complete_is_read_from_a_read_only_folder(name: str, tmp_path: Path, ended: Ended) -> None:
    job = JOBS[name]
    job.prepare(tmp_path)
    job.run(tmp_path)
    before, files = job.read(tmp_path), files_of(tmp_path)
    with watched(Watch(tmp_path, 0, read_only())):
        job.run(tmp_path)
        assert job.read(tmp_path) == before
    assert files_of(tmp_path) == files
    ended(GROUP, f"{name}, complete", "accepted")


def test_features_that_are_complete_are_read_from_a_read_only_folder(tmp_path: Path, ended: Ended) -> None:
    from clasp_lib.features import extract_features

    how: dict[str, Any] = {"folder": tmp_path, "workers": 1}
    first = extract_features(jobs.rows(), *jobs.ears(), **how)
    with watched(Watch(tmp_path, 0, read_only())):
        again = extract_features(jobs.rows(), *jobs.ears(), **how)
        with ended.refused(GROUP, "a matrix of mapped features", str(tmp_path), "cannot be written"):
            extract_features(jobs.rows(), *jobs.ears(), memory_mapped=True, **how)
    assert np.array_equal(first.speech, again.speech) and first.texts == again.texts
    ended(GROUP, "features, complete", "accepted")


def test_an_index_in_a_read_only_folder_is_searched_and_not_changed(tmp_path: Path, ended: Ended) -> None:
    from clasp_lib.index import SpeechIndex

    jobs.old_index(tmp_path)
    before = copied(tmp_path / "index", tmp_path / "copy")
    with watched(Watch(tmp_path / "index", 0, read_only())):
        index = SpeechIndex.load(tmp_path / "index", jobs.Listener())  # type: ignore[arg-type]
        assert len(index.search("anything", k=3)) == 3
        ended(GROUP, "an index, searched", "accepted")
        with ended.refused(GROUP, "an index, grown", str(tmp_path / "index"), "cannot be written"):
            index.add(jobs.waves(2, 9), ids=["a", "b"])
        with ended.refused(GROUP, "an index, shrunk", str(tmp_path / "index"), "cannot be written"):
            index.remove("old 1")
        assert len(index) == 12 and len(index.search("anything", k=20)) == 12
    assert files_of(tmp_path / "index") == files_of(before)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has other rights")
def test_a_folder_without_the_right_to_write_is_named(tmp_path: Path, ended: Ended) -> None:
    """As the system says it, not as it is emulated above."""
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    for name, job in JOBS.items():
        folder = tmp_path / name
        folder.mkdir()
        job.prepare(folder)
        places = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
        for place in places:
            place.chmod(0o500)
        try:
            with pytest.raises(ClaspError) as caught:
                job.run(folder)
        finally:
            for place in places:
                place.chmod(0o700)
        check_refusal(caught.value, folder)
        ended(GROUP, f"{name}, no right to write", "refused")
