"""What all attacks share: how a case is recorded, and the table at the end that counts how each of them ended.

A case travels with its test's report, so that processes of pytest-xdist add up. A test that fails counts as one case
that failed, whatever it had recorded before.
"""

from __future__ import annotations

import contextlib
import re
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from clasp_lib.errors import ClaspError
from clasp_lib.provenance import provenance, write_record

if TYPE_CHECKING:
    from hard.hammer import Hammer

OUTCOMES = (
    "refused",  # a ClaspError whose message was checked
    "skipped with a report",  # a builder with on_error="skip" left it out and said why
    "usage error",  # exit code 2 of the command line
    "accepted",  # odd but right, such as 24-bit audio
    "resumed",  # a stopped job went on and ended bit-equal
    "clear message",  # a fault that no ClaspError can stand for, and what was said of it
    "unharmed",  # a mutant that still reads right, a property that held
)
"""How a case may end. Anything else is a failure."""

LONGEST_MESSAGE = 2_000
"""Letters: whoever reads an error does not want the megabyte that was wrong."""

_CASE, _FAILED, _SKIPPED = "hard_case", "failed", "not run here"


class Case(NamedTuple):
    """Something that was tried, `count` times, and how it ended."""

    group: str
    name: str
    outcome: str
    count: int


class Ended:
    """Records cases of one test; see `ended`."""

    def __init__(self, properties: list[tuple[str, object]]) -> None:
        self._properties = properties

    def __call__(self, group: str, case: str, outcome: str, count: int = 1) -> None:
        """Remember that a case, or `count` of one kind, ended in this way."""
        assert outcome in OUTCOMES, f"{outcome!r}: choose one of {', '.join(OUTCOMES)}"
        self._properties.append((_CASE, [group, case, outcome, count]))

    @contextlib.contextmanager
    def refused(self, group: str, case: str, *wanted: object) -> Iterator[pytest.ExceptionInfo[ClaspError]]:
        """A block that must raise a ClaspError, in whose message all that is wanted stands (file, fault, remedy)."""
        with pytest.raises(ClaspError) as caught:
            yield caught
            pytest.fail(f"{group}, {case}: was not refused")
        check_message(str(caught.value), *wanted)
        self(group, case, "refused")


def check_message(message: str, *wanted: object) -> None:
    """Whether a message is one, of a length that is read, and says all that is wanted."""
    assert message.strip() and len(message) <= LONGEST_MESSAGE, f"{len(message)} letters: {message[:200]!r} ..."
    for each in wanted:
        found = each.search(message) if isinstance(each, re.Pattern) else str(each) in message
        assert found, f"{each!r} is missing in {message!r}"


@pytest.fixture
def ended(request: pytest.FixtureRequest) -> Ended:
    """`ended(group, case, outcome)`, and `with ended.refused(group, case, *wanted):`."""
    return Ended(request.node.user_properties)


@pytest.fixture(scope="module")
def hammer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hammer]:
    """A process of its own in which mutants are read; see `hard.hammer`."""
    from hard.hammer import Hammer

    hammer = Hammer(tmp_path_factory.mktemp("anvil"))
    yield hammer
    hammer.close()


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """A block that must not hang: after so many seconds it fails, where the system has an alarm."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def give_up(*_: object) -> None:
        raise TimeoutError(f"still not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# The table ---------------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--hard-report", metavar="FILE", help="write how each attack ended to a JSON file")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    cases, failed = _cases(terminalreporter.stats)
    if not cases:
        return
    terminalreporter.section("how the attacks ended")
    for line in _table(cases):
        terminalreporter.write_line(line)
    if file := config.getoption("hard_report", None):
        document = {"made": provenance(["make hard"]), "failed": failed, "groups": _groups(cases)}
        write_record(Path(file), document)


def _cases(stats: dict[str, list[Any]]) -> tuple[list[Case], list[str]]:
    """All cases of a session, and the tests that failed."""
    cases: list[Case] = []
    failed: list[str] = []
    for kind, reports in stats.items():
        for report in reports:
            nodeid = getattr(report, "nodeid", "")
            if "hard/" not in nodeid:
                continue
            module = nodeid.partition("::")[0].rpartition("/")[2].removeprefix("test_").removesuffix(".py")
            group = module.replace("_", " ")
            if kind in ("failed", "error"):
                failed.append(nodeid)
                cases.append(Case(group, nodeid, _FAILED, 1))
            elif kind == "skipped":
                cases.append(Case(group, nodeid, _SKIPPED, 1))
            elif getattr(report, "when", None) == "call":
                cases += [Case(*found) for name, found in report.user_properties if name == _CASE]
    return cases, failed


def _groups(cases: list[Case]) -> dict[str, dict[str, int]]:
    """For each group, in the order of their names, how many of its cases ended how."""
    groups: dict[str, Counter[str]] = {}
    for case in cases:
        groups.setdefault(case.group, Counter())[case.outcome] += case.count
    order = [*OUTCOMES, _SKIPPED, _FAILED]
    return {name: {end: groups[name][end] for end in order if groups[name][end]} for name in sorted(groups)}


def _table(cases: list[Case]) -> list[str]:
    """A line for each group: how many cases, and how many of them ended how."""
    groups = _groups(cases)
    together = _groups([case._replace(group="together") for case in cases])
    width = max(map(len, [*groups, *together]))
    most = max(len(str(sum(together["together"].values()))), len("cases"))
    lines = [f"{'group':{width}}  {'cases':>{most}}  ended"]
    for name, counts in (groups | together).items():
        said = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        lines.append(f"{name:{width}}  {sum(counts.values()):>{most}}  {said}")
    return lines
