"""Results that a page reads because they take too long to compute on it, and the one command that makes them anew."""

from __future__ import annotations

from typing import Any

import numpy as np


def six_digits(value: Any) -> Any:
    """A float as records hold it: more digits than anybody reads, and fewer than machines differ in. Others as is."""
    return float(f"{value:.6g}") if isinstance(value, float | np.floating) else value
