"""Laws that hold for whatever is drawn: a check of drawn arguments becomes a test of many examples."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, configuration, given, settings
from hypothesis import strategies as st

from hard.conftest import Ended

MORE = 10
"""Times as many examples in the long run of the tests."""

configuration.set_hypothesis_home_dir(Path(__file__).parents[2] / "_build" / ".hypothesis")


def holds(examples: int, **drawn: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a test of a check that takes what is drawn: the same examples in every run, and no clock.

    Args:
        examples: how many, at most; the long run tries `MORE` times as many.
        drawn: a strategy for each argument of the check.
    """

    def decorate(check: Callable[..., None]) -> Callable[..., None]:
        @pytest.mark.parametrize("count", [examples, pytest.param(MORE * examples, marks=pytest.mark.slow)])
        def test(count: int, ended: Ended) -> None:
            tried = 0

            @functools.wraps(check)
            def counted(**arguments: Any) -> None:
                nonlocal tried
                tried += 1
                check(**arguments)

            quiet = [HealthCheck.too_slow, HealthCheck.data_too_large]
            how = settings(
                max_examples=count, derandomize=True, database=None, deadline=None, suppress_health_check=quiet
            )
            how(given(**drawn)(counted))()
            ended("properties", check.__name__.removeprefix("test_"), "unharmed", tried)

        test.__name__, test.__doc__, test.__module__ = check.__name__, check.__doc__, check.__module__
        return test

    return decorate
