"""Numbers that somebody gave, as an array."""

from __future__ import annotations

from typing import Any

import numpy as np

from clasp_lib.errors import ClaspError, brief


def number_array(name: str, given: Any, shape: str, dtype: type = float) -> np.ndarray:
    """What was given as an array of floats in C order, a copy only if it has to be one.

    Args:
        name: what a message calls it. shape: the one that was expected, for the message; it is not checked here.

    Raises:
        ClaspError: lists of unequal length, texts, complex numbers, a tensor on a GPU or with a gradient.
    """
    try:
        array = np.asarray(given)
        if array.dtype.kind not in "biufO":
            raise TypeError(f"it holds {'text' if array.dtype.kind in 'US' else array.dtype}")
        return np.asarray(array, dtype, order="C")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ClaspError(f"{name}: is no array of numbers ({brief(error)}); expected {shape}.") from error
