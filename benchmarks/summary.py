"""What the benchmarks found, in one file that the book's page on them reads.

    python benchmarks/summary.py

prints it. `make bench` names the file in the variable BENCH_RECORD, and every script then adds its part, in place of
the one that it added before. A script that is run by itself prints, and keeps nothing.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from clasp_lib.provenance import provenance, write_record

RECORD = Path(__file__).with_name("record.json")
NOT_THERE = 0.0
"""The ratio where ours does not reach what the other side reached, in whatever time."""


@dataclass(frozen=True)
class Comparison:
    """Two sides that did the same in one run.

    Attributes:
        what: they did. ours, other: how. our_value, other_value: what that took, or how much was done; see `unit`.
        ratio: as the script prints it. kind: what it says. "faster": how many times as fast ours is as the other side;
            "bound": how many times as long ours takes as the bare computation, which nobody can do without.
        goal: what the ratio is to reach ("faster") or not to pass ("bound"), where somebody set one.
    """

    what: str
    ours: str
    our_value: float
    other: str
    other_value: float
    unit: str
    ratio: float
    kind: Literal["faster", "bound"] = "faster"
    goal: float | None = None

    @property
    def said(self) -> str:
        """The ratio in words, and whether it is as it should be."""
        if self.ratio == NOT_THERE:
            return "does not get there"
        words = f"{number(self.ratio)} x {'as fast' if self.kind == 'faster' else 'its time'}"
        if self.goal is None:
            return words
        least = self.kind == "faster"
        met = self.ratio >= self.goal if least else self.ratio <= self.goal
        return f"{words} (goal: at {'least' if least else 'most'} {self.goal:g}, {'met' if met else 'missed'})"


def keep(
    script: str, setting: str, comparisons: Sequence[Comparison] = (), times: Mapping[str, float] | None = None
) -> None:
    """Add a script's part to the record that BENCH_RECORD names; without it, do nothing.

    Args:
        setting: what was measured on: sizes, device.
        times: seconds by step, of what has no other side.
    """
    if not (name := os.environ.get("BENCH_RECORD")):
        return
    file = Path(name)
    made: dict[str, Any] = dict(provenance(["python", f"benchmarks/{script}.py", *sys.argv[1:]]))
    made |= {"load": round(os.getloadavg()[0], 1), "cores": os.cpu_count()}
    part = {"made": made, "setting": setting, "comparisons": list(map(asdict, comparisons)), "times": dict(times or {})}
    parts = json.loads(file.read_text("utf-8"))["parts"] if file.is_file() else {}
    write_record(file, {"command": "make bench", "parts": dict(sorted({**parts, script: part}.items()))})


def read(file: Path = RECORD) -> dict[str, dict[str, Any]]:
    """The parts of a record by script, their comparisons as `Comparison`."""
    parts = json.loads(file.read_text("utf-8"))["parts"]
    return {
        name: part | {"comparisons": [Comparison(**c) for c in part["comparisons"]]} for name, part in parts.items()
    }


def number(value: float) -> str:
    """Three digits that count, and no exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    """Print each script's part."""
    file = Path(os.environ.get("BENCH_RECORD", RECORD))
    if not file.is_file():
        sys.exit(f"{file}: there is none yet. `make bench` writes it.")
    for script, part in read(file).items():
        made = part["made"]
        print(f"{script}: {part['setting']} ({made['date']}, {made['machine']}, load {made['load']})")
        for each in part["comparisons"]:
            ours, other = (f"{number(value)} {each.unit}" for value in (each.our_value, each.other_value))
            print(f"    {each.what}. {each.ours}: {ours}. {each.other}: {other}. {each.said}")
        for step, seconds in part["times"].items():
            print(f"    {step}: {number(seconds)} s")


if __name__ == "__main__":
    main()
