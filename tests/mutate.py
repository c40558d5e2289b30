"""Try the tests of the measures and the losses with faults in the code, and keep a record of those that they miss.

    python tests/mutate.py                 # the definitions that changed since the record
    python tests/mutate.py --all           # everything, as where tests changed (some 20 minutes of one core)
    python tests/mutate.py --only hits_at  # one of them
    python tests/mutate.py --survivors     # those of the record again, after a new test
    python tests/mutate.py --sample 20     # some, drawn by --seed, which must end as the record says; writes nothing

Each fault of `code_mutants.py` is tried in a process of its own, forked from one that has imported all there is to
import, within limits of time and memory. A fault that no test minds must be explained in the record, `mutants.json`:
"why" says why it is no fault, or why no test should look for it. Not on Windows, which cannot fork.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # before torch reads the first

import argparse
import gc
import importlib
import itertools
import json
import random
import resource
import signal
import sys
import time
import types
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from code_mutants import Mutant, digests, mutants

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "tests" / "mutants.json"
TARGETS = {"clasp_lib/metrics.py": "tests/test_metrics.py", "clasp_lib/losses.py": "tests/test_losses.py"}
"""The modules that are tried, and the tests that must mind."""
MEMORY = 4 * 2**30  # bytes of one process: a fault may ask for any amount
PATIENCE = 3  # times the processor's seconds that the sound module needs, and five, may the tests of a faulty one take
ASLEEP = 900  # seconds after which a process is ended that does not even use the processor


def name_of(module: str) -> str:
    """`clasp_lib.metrics` of `clasp_lib/metrics.py`."""
    return module.removesuffix(".py").replace("/", ".")


class Order:
    """A pytest plugin: what is likely to mind comes first, then what is fast; it reports who minded, and for how long.

    Attributes:
        likely: the tests that minded other faults of the same definition. seconds: of each test with the sound module.
        report: where what happens is written, a line each: the test, its outcome, its seconds.
    """

    def __init__(self, likely: Sequence[str], seconds: Mapping[str, float], report: int) -> None:
        self.likely, self.seconds, self.report = list(likely), seconds, report

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        place = {test: number for number, test in enumerate(self.likely)}
        items.sort(key=lambda item: (place.get(item.nodeid, len(place)), self.seconds.get(item.nodeid, 0.0)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            os.write(self.report, f"{report.nodeid}\t{report.outcome}\t{report.duration}\n".encode())


def status_of_tests(module: str, source: str, order: Order, seconds: int) -> int:
    """Run the module's tests with this source in its place -> pytest's exit status, 0 if nobody minds."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    name = name_of(module)
    for imported in [name, Path(TARGETS[module]).stem, "conftest"]:
        sys.modules.pop(imported, None)
    stand_in = types.ModuleType(name)
    stand_in.__file__ = str(ROOT / module)
    sys.modules[name] = stand_in
    package, _, attribute = name.rpartition(".")
    setattr(sys.modules[package], attribute, stand_in)
    exec(compile(source, module, "exec", dont_inherit=True), stand_in.__dict__)
    options = ["-x", "-q", "--tb=no", "--assert=plain", "-p", "no:cacheprovider", "-o", "addopts=", "-m", "not slow"]
    return int(pytest.main([*options, TARGETS[module]], plugins=[order]))


def start(module: str, source: str, order: Order, seconds: int) -> int:
    """Fork a process that tests this source -> its number."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        status = status_of_tests(module, source, order, seconds)
    finally:  # whatever it died of, it must not go on as a second parent
        os._exit(status)


class Trial:
    """The tests of a module, and what is known of them: how long each takes, and which minded faults where."""

    def __init__(self, module: str, source: str) -> None:
        """Run them as they are, which must pass, and on a module with nothing in it, which must fail."""
        self.module = module
        self.seconds: dict[str, float] = {}
        self.minded: dict[str, list[str]] = {}
        self.limit = ASLEEP  # seconds of the processor, which do not depend on what else this machine does
        before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
        ends = dict(self.outcomes([("as it is", "", source)], 1))
        self.limit = PATIENCE * int(sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before) + 5
        ends |= dict(self.outcomes([("empty", "", "")], 1))
        if ends != {"as it is": "survived", "empty": "killed"}:
            sys.exit(f"{TARGETS[module]} must pass before faults are tried, and fail without its module: {ends}")

    def outcomes(self, faults: Iterable[tuple[Any, str, str]], jobs: int) -> Iterator[tuple[Any, str]]:
        """Test sources, each with a name and where its fault is -> the name and "killed", "survived" or "too slow"."""
        waiting, running = iter(faults), {}
        while True:
            while len(running) < jobs and (fault := next(waiting, None)) is not None:
                name, where, source = fault
                read, write = os.pipe()
                order = Order(self.minded.get(where, []), self.seconds, write)
                process = start(self.module, source, order, self.limit)
                os.close(write)
                running[process] = name, where, read, time.monotonic() + ASLEEP
            if not running:
                return
            for process, (name, where, read, until) in list(running.items()):
                done, status = os.waitpid(process, os.WNOHANG)
                if not done and time.monotonic() < until:
                    continue
                if not done:
                    os.kill(process, signal.SIGKILL)
                    _, status = os.waitpid(process, 0)
                del running[process]
                with os.fdopen(read) as lines:
                    self._learn(where, lines.read())
                if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGKILL, signal.SIGXCPU):
                    yield name, "too slow"
                else:
                    yield name, "survived" if status == 0 else "killed"
            time.sleep(0.01)

    def _learn(self, where: str, report: str) -> None:
        likely = self.minded.setdefault(where, [])
        for line in report.splitlines():
            test, outcome, seconds = line.split("\t")
            if outcome == "failed":
                likely[:] = [test, *(other for other in likely if other != test)][:5]
            elif not where:
                self.seconds[test] = float(seconds)


def read_record() -> dict:
    """The record, empty if there is none."""
    return json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}


def key_of(survivor: dict) -> tuple[str, str, int, str]:
    """The `Mutant.key` of an entry of the record."""
    return survivor["where"], survivor["line"], survivor["column"], survivor["change"]


def new_record(module: str, source: str, old: dict, ended: dict[tuple, str]) -> dict:
    """A module's record, by what ended how now, and by the old record for the rest; explanations are kept."""
    whys = {key_of(survivor): survivor["why"] for survivor in old.get("survivors", [])}
    before = old.get("definitions", {})
    definitions: dict[str, dict] = {}
    every, survivors = mutants(source), []
    for where, digest in digests(source).items():
        mine = [mutant for mutant in every if mutant.where == where]
        ends = {m.key: ended.get(m.key, "survived" if m.key in whys else "killed") for m in mine}
        count = Counter(ends.values())
        if all(m.key not in ended for m in mine):
            definitions |= {where: before[where]} if where in before else {}
        else:
            if not all(m.key in ended for m in mine):
                slow = before[where]["too slow"]  # of those that were not tried again
                count["killed"], count["too slow"] = count["killed"] - slow, count["too slow"] + slow
            numbers = {"mutants": len(mine), "killed": count["killed"], "too slow": count["too slow"]}
            definitions[where] = {"digest": digest, **numbers}
        survivors += [
            dict(zip(("where", "line", "column", "change"), key)) | {"why": whys.get(key, "")}
            for key, end in ends.items()
            if end == "survived"
        ]
    return {"tests": TARGETS[module], "definitions": definitions, "survivors": survivors}


def chosen(given: argparse.Namespace, source: str, old: dict) -> list[Mutant]:
    """The mutants of a module that this call is about."""
    every, now = mutants(source), digests(source)
    before = {where: numbers["digest"] for where, numbers in old.get("definitions", {}).items()}
    stale = {where for where in now if before.get(where) != now[where]}
    if given.sample is not None:
        drawn = random.Random(given.seed).sample(range(len(every)), min(given.sample, len(every)))
        return [every[number] for number in sorted(drawn)]
    if given.only:
        return [m for m in every if m.where == given.only]
    if given.survivors:
        known = {key_of(survivor) for survivor in old.get("survivors", [])}
        return [m for m in every if m.key in known and m.where not in stale]
    return [m for m in every if given.all or m.where in stale]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="try everything")
    which.add_argument("--only", metavar="NAME", help="try this function, class or method")
    which.add_argument("--survivors", action="store_true", help="try again what survived")
    which.add_argument("--sample", type=int, metavar="N", help="check the record with N of each module")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    given = parser.parse_args()

    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT / "tests"))
    unexplained, wrong = 0, 0
    for module, tests in TARGETS.items():
        source, record = (ROOT / module).read_text(encoding="utf-8"), read_record()
        old = record.get(module, {})
        faults = chosen(given, source, old)
        if not faults:
            print(f"{module}: nothing to try")
            continue
        importlib.import_module(Path(tests).stem)  # with all that it imports: every process is forked from here
        gc.freeze()  # a collection would copy all pages that are shared until then
        trial, count = Trial(module, source), Counter[str]()
        known = {key_of(survivor) for survivor in old.get("survivors", [])}
        for where, group in itertools.groupby(faults, lambda mutant: mutant.where):
            ended: dict[tuple, str] = {}
            for mutant, end in trial.outcomes(((m, where, m.of(source)) for m in group), given.jobs):
                ended[mutant.key] = end
                if given.sample is not None and (end == "survived") != (mutant.key in known):
                    wrong += 1
                    print(f"not as the record says: {end}: {where}: {mutant.line} | {mutant.change}")
                elif end == "survived" and mutant.key not in known:
                    print(f"{where}: {mutant.line} | {mutant.column}: {mutant.change}", flush=True)
            count += Counter(ended.values())
            if given.sample is None:  # kept at once: a run that is stopped goes on with the next definition
                record[module] = new_record(module, source, record.get(module, {}), ended)
                text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
                RECORD.with_suffix(".new").write_text(text, encoding="utf-8")
                RECORD.with_suffix(".new").replace(RECORD)
        print(f"{module}: {count.total()} tried, " + ", ".join(f"{n} {end}" for end, n in sorted(count.items())))
        unexplained += sum(not survivor["why"] for survivor in record.get(module, {}).get("survivors", []))
    if wrong:
        sys.exit(f"{wrong} of the sample did not end as {RECORD.name} says: run tests/mutate.py --all")
    if unexplained and given.sample is None:
        sys.exit(f'{unexplained} survivors in {RECORD.name} have no "why": write a test that minds, or explain them.')


if __name__ == "__main__":
    main()
