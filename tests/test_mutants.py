"""Faults in the code are made as they should be, and the record of those that no test minds is that of the code."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from code_mutants import digests, mutants

ROOT = Path(__file__).resolve().parents[1]
RECORD = json.loads((ROOT / "tests" / "mutants.json").read_text(encoding="utf-8"))
AGAIN = "run: python tests/mutate.py"

SOURCE = '''"""A docstring is no code."""
import numpy as np

LIMIT = 3  # nor is this


def above(values: np.ndarray, least: float = 0.5, most: int | None = None) -> np.ndarray:
    """Nor this."""
    if len(values) == 0:
        raise ValueError("none are " + "given")
    found = values[values > least]
    for _ in range(2):
        found = np.maximum(found, -1)
    return found.clip(max=most)
'''


def test_faults_are_small_and_every_one_of_them_is_another_program() -> None:
    made = mutants(SOURCE)
    assert {m.where for m in made} == {"LIMIT", "above"}
    found = {(m.line.split(" ")[0], m.change) for m in made}
    assert found >= {
        ("LIMIT", "3 → 4"),
        ("LIMIT", "3 → (2)"),
        ("def", "0.5 → 1.0"),
        ("def", "default None → 1"),
        ("if", "== → !="),
        ("if", "always true"),
        ("if", "0 → 1"),
        ("raise", "statement gone"),
        ("found", "> → >="),
        ("found", "statement gone"),
        ("found", "maximum → minimum"),
        ("found", "unary - gone"),
        ("for", "no round"),
        ("return", "without max"),
        ("return", "clip gone"),
    }
    assert not any("none are" in m.line and m.change != "statement gone" for m in made)  # messages stay as they are
    programs = {ast.dump(ast.parse(m.of(SOURCE))) for m in made}
    assert len(programs) == len(made) and ast.dump(ast.parse(SOURCE)) not in programs
    by_name = {(m.line.split(" ")[0], m.change): m.of(SOURCE) for m in made}
    assert "found = values[(values >= least)]" in by_name["found", "> → >="]
    assert by_name["LIMIT", "3 → 4"] == SOURCE.replace("LIMIT = 3", "LIMIT = 4")


def test_what_any_test_would_mind_is_not_tried() -> None:
    source = """def first(table, keys):
    row = table["row"]
    keys = list(keys)
    return [row[key] for key in keys if len(key) > 0 and key != "none"][0]
"""
    changes = [(m.line.split(" ")[0], m.change) for m in mutants(source)]
    assert ("row", "statement gone") not in changes and ("row", "'row' → \"mutant\"") not in changes
    assert ("keys", "statement gone") in changes and not any(change == "len gone" for _, change in changes)
    assert {change for _, change in changes} >= {"'none' → \"mutant\"", "and → or", "condition left out", "list gone"}
    assert "negated" in {change for _, change in changes}  # a single comparison is changed into its opposite instead


def test_a_digest_is_of_the_code_and_of_nothing_else() -> None:
    same = SOURCE.replace("Nor this.", "Another text.").replace("least: float", "least: int").replace("  # nor is", "#")
    assert digests(same) == digests(SOURCE) and set(digests(SOURCE)) == {"LIMIT", "above"}
    other = digests(SOURCE.replace("> least", ">= least"))
    assert other["LIMIT"] == digests(SOURCE)["LIMIT"] and other["above"] != digests(SOURCE)["above"]


@pytest.mark.parametrize("module", RECORD)
def test_the_record_is_of_the_code_as_it_is(module: str) -> None:
    source = (ROOT / module).read_text(encoding="utf-8")
    entry, made = RECORD[module], mutants(source)
    keys = [m.key for m in made]
    assert len(set(keys)) == len(keys)
    now = {where: digest for where, digest in digests(source).items() if any(m.where == where for m in made)}
    stale = [w for w in now | entry["definitions"] if entry["definitions"].get(w, {}).get("digest") != now.get(w)]
    assert not stale, f"{module}: faults have not been tried in {', '.join(stale)} as they are now; {AGAIN}"
    survivors = [(s["where"], s["line"], s["column"], s["change"]) for s in entry["survivors"]]
    assert set(survivors) <= set(keys) and len(set(survivors)) == len(survivors), AGAIN
    for where, numbers in entry["definitions"].items():
        survived = sum(key[0] == where for key in survivors)
        assert numbers["mutants"] == sum(key[0] == where for key in keys), where
        assert numbers["killed"] + numbers["too slow"] + survived == numbers["mutants"], where


def test_every_fault_that_no_test_minds_is_explained() -> None:
    assert set(RECORD) == {"clasp_lib/metrics.py", "clasp_lib/losses.py"}
    for module, entry in RECORD.items():
        bare = [f"{s['line']} | {s['change']}" for s in entry["survivors"] if len(s["why"].split()) < 4]
        assert not bare, f"{module}: write a test that minds, or say in tests/mutants.json why none should"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot fork")
def test_a_sample_of_the_faults_ends_as_the_record_says() -> None:
    done = subprocess.run(
        [sys.executable, "tests/mutate.py", "--sample", "15", "--seed", "8"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1_800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("15 tried") == 2
