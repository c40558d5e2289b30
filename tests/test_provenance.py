"""A record says how it was made, and is there whole or not at all."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import clasp_lib.provenance
from clasp_lib.provenance import provenance, write_record


def test_a_record_is_written_whole(tmp_path: Path) -> None:
    file = tmp_path / "reports" / "record.json"
    write_record(file, {**provenance(["one", "two"]), "value": 1})
    assert json.loads(file.read_text("utf-8"))["command"] == "one two"
    with pytest.raises(TypeError):
        write_record(file, {"value": object()})
    assert json.loads(file.read_text("utf-8"))["value"] == 1
    assert list(file.parent.iterdir()) == [file]


def test_the_commit_is_the_librarys_and_says_if_files_were_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=me", "-c", "user.email=me@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    library = tmp_path / "provenance.py"
    library.write_text("1")
    monkeypatch.setattr(clasp_lib.provenance, "__file__", str(library))
    assert provenance([])["commit"] == "unknown"  # it lies in somebody's repository, and is no part of it
    record = tmp_path / "pocket" / "reports" / "record.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    commit = provenance([])["commit"]
    assert re.fullmatch("[0-9a-f]{7,}", commit)
    record.write_text('{"value": 1}')  # as an earlier measurement of the same run does
    assert provenance([])["commit"] == commit
    library.write_text("2")
    assert provenance([])["commit"] == f"{commit}-dirty"


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = provenance(["line"])
    assert found["commit"] == "unknown" and f"{sys.version_info.major}." in found["versions"]
