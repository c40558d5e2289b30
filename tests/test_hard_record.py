"""The record of `make hard`, which the page on threats reads: of all suites that there are, and nothing failed."""

from __future__ import annotations

import json
import re
from pathlib import Path

HARD = Path(__file__).parent / "hard"
RECORD = json.loads((HARD / "record.json").read_text("utf-8"))
LEAST_BAD_INPUT, LEAST_MUTANTS_A_READER = 60, 2_000


def test_nothing_failed() -> None:
    assert RECORD["failed"] == [] and RECORD["made"]["command"] == "make hard"
    assert not any("failed" in ends for ends in RECORD["groups"].values())
    assert "dirty" not in RECORD["made"]["commit"]


def test_every_suite_was_run_whole() -> None:
    sources = {path: path.read_text("utf-8") for path in HARD.glob("test_*.py")}
    groups = {name for text in sources.values() for name in re.findall(r'^GROUP = "(.+)"$', text, re.MULTILINE)}
    assert len(groups) > 10 and groups <= set(RECORD["groups"])
    tried = {group: sum(ends.values()) for group, ends in RECORD["groups"].items()}
    assert sum(count for group, count in tried.items() if group.startswith("bad ")) >= LEAST_BAD_INPUT
    mutants = {group: count for group, count in tried.items() if group.startswith("mutants of ")}
    assert len(mutants) > 15 and min(mutants.values()) >= LEAST_MUTANTS_A_READER
