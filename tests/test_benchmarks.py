"""What `make bench` keeps, and what the book's page reads of it."""

from __future__ import annotations

import ast
import importlib.util
import json
import math
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks"
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if path.stem not in ("summary", "reference_loop"))


@pytest.fixture(scope="module")
def summary() -> ModuleType:
    spec = importlib.util.spec_from_file_location("summary", FOLDER / "summary.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["summary"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_benchmark_keeps_its_part_under_its_name(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "keep"]
    assert len(calls) == 1
    name = calls[0].args[0]
    assert isinstance(name, ast.Constant) and name.value == path.stem


def test_a_script_that_is_run_by_itself_keeps_nothing(
    summary: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("BENCH_RECORD", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(summary, "RECORD", tmp_path / "record.json")
    summary.keep("mine", "1 clip", [summary.Comparison("Encoding", "here", 1.0, "there", 2.0, "s", 2.0)])
    assert list(tmp_path.iterdir()) == []


def test_a_part_takes_the_place_of_the_one_before_and_leaves_the_others(
    summary: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "record.json"
    monkeypatch.setenv("BENCH_RECORD", str(file))
    monkeypatch.setattr(sys, "argv", ["benchmarks/mine.py", "--part", "1"])
    first = summary.Comparison("Encoding", "here", 1.0, "there", 2.0, "s", 2.0)
    summary.keep("other", "a wait", times={"clone": 1.25})
    summary.keep("mine", "1 clip", [first])
    summary.keep("mine", "2 clips", [summary.Comparison("Encoding", "here", 1.0, "there", 3.0, "s", 3.0, goal=4)])
    parts = summary.read(file)
    assert list(parts) == ["mine", "other"] and parts["other"]["times"] == {"clone": 1.25}
    assert parts["mine"]["setting"] == "2 clips" and parts["mine"]["comparisons"][0].ratio == 3
    assert parts["mine"]["made"]["command"] == "python benchmarks/mine.py --part 1"
    assert {"date", "commit", "machine", "versions", "load", "cores"} <= set(parts["mine"]["made"])
    summary.main()
    printed = capsys.readouterr().out
    assert (
        "there: 3 s" in printed and "3 x as fast (goal: at least 4, missed)" in printed and "clone: 1.25 s" in printed
    )


@pytest.mark.parametrize(
    ("kind", "ratio", "goal", "said"),
    [
        ("faster", 600.0, 500, "600 x as fast (goal: at least 500, met)"),
        ("faster", 499.0, 500, "499 x as fast (goal: at least 500, missed)"),
        ("bound", 1.31, 1.5, "1.31 x its time (goal: at most 1.5, met)"),
        ("bound", 1.75, 1.5, "1.75 x its time (goal: at most 1.5, missed)"),
        ("bound", 0.5, None, "0.5 x its time"),
        ("faster", 12345.6, None, "12,346 x as fast"),
    ],
)
def test_a_ratio_is_said_in_words(summary: ModuleType, kind: str, ratio: float, goal: float | None, said: str) -> None:
    assert summary.Comparison("x", "a", 1.0, "b", 2.0, "s", ratio, kind, goal).said == said


def test_without_a_record_the_summary_says_how_to_get_one(
    summary: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BENCH_RECORD", str(tmp_path / "none.json"))
    with pytest.raises(SystemExit, match="make bench"):
        summary.main()


def test_the_record_is_of_the_scripts_that_there_are(summary: ModuleType) -> None:
    """Each ratio is that of its two sides; only where a script takes the median of turns it may be a little off."""
    parts = summary.read()
    assert parts and set(parts) <= {path.stem for path in SCRIPTS}
    assert json.loads(summary.RECORD.read_text("utf-8"))["command"] == "make bench"
    for script, part in parts.items():
        assert part["setting"] and (part["comparisons"] or part["times"]), script
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", part["made"]["date"]), script
        for one in part["comparisons"]:
            assert all(math.isfinite(value) and value > 0 for value in (one.our_value, one.other_value))
            if one.ratio == summary.NOT_THERE:
                assert one.kind == "faster" and one.said == "does not get there"
                continue
            is_rate = one.unit.endswith("/s")
            sides = (
                (one.our_value, one.other_value) if is_rate or one.kind == "bound" else (one.other_value, one.our_value)
            )
            assert one.ratio == pytest.approx(sides[0] / sides[1], rel=0.2), (script, one)
