"""Every chapter runs in a folder of its own outside the repository, as in Colab, with only the installed package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
import yaml
from as_colab import NotebookFailed, run_as_colab, versions

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))


class Installed(NamedTuple):
    """The package, built and unpacked, and the environment of a kernel that finds it first."""

    folder: Path
    environment: dict[str, str]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Install the wheel into an empty folder; its requirements are those of this environment."""
    target, cache = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("cache")
    # A copy: setuptools writes beside what it builds.
    source = tmp_path_factory.mktemp("source")
    files = ["git", "ls-files", "-z", "--", "clasp_lib", "pyproject.toml", "README.md", "LICENSE", "NOTICE"]
    listed = subprocess.run(files, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True, capture_output=True)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("CLASP_", "PYTEST_"))}
    return Installed(target, {**kept, "PYTHONPATH": str(target), "CLASP_CACHE": str(cache), "HF_HUB_OFFLINE": "1"})


def test_a_failing_cell_is_noticed(tmp_path: Path) -> None:
    notebook = tmp_path / "broken.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("open('nowhere.txt')")]), notebook)
    with pytest.raises(NotebookFailed, match="nowhere"):
        run_as_colab(notebook)


def test_one_chapter_runs_with_only_the_installed_package(installed: Installed) -> None:
    """The quick one, with the datasets that the book's notebooks have made; the slow tests run all, from nothing."""
    environment = {**installed.environment, "CLASP_PROFILE": "pocket"}
    if made := os.environ.get("CLASP_CACHE"):
        environment["CLASP_CACHE"] = made
    assert run_as_colab(CHAPTERS[1], environment).is_relative_to(installed.folder)


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["pocket", "paper-tiny"])
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_runs_with_only_the_installed_package(path: Path, profile: str, installed: Installed) -> None:
    before = versions()
    file = run_as_colab(path, {**installed.environment, "CLASP_PROFILE": profile})
    assert file.is_relative_to(installed.folder), "the chapter imported the repository's library"
    assert versions() == before


# Workflows --------------------------------------------------------------------------------------------------------


def workflow(name: str) -> dict:
    return yaml.load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8"), yaml.BaseLoader)


def commands(name: str) -> str:
    return "\n".join(step.get("run", "") for job in workflow(name)["jobs"].values() for step in job["steps"])


def test_a_scheduled_workflow_runs_the_chapters_in_colab_s_image() -> None:
    assert workflow("colab")["on"]["schedule"]
    assert "colab-images/public/" in commands("colab")
    assert "/repo/tests/as_colab.py /repo/notebooks/" in commands("colab")


def test_a_workflow_publishes_the_book_that_make_builds() -> None:
    steps = [step for job in workflow("book")["jobs"].values() for step in job["steps"]]
    assert any(step.get("run") == "make book" for step in steps)
    (upload,) = [step for step in steps if "upload-pages-artifact" in step.get("uses", "")]
    assert upload["with"]["path"] == "_build/html"
    assert workflow("book")["permissions"] == {"contents": "read", "pages": "write", "id-token": "write"}


def test_a_workflow_runs_what_continuous_integration_runs() -> None:
    assert ".ci/run" in commands("tests")
