"""CLASP: search spoken audio with text, without transcribing it.

from clasp_lib import CLASP, SpeechIndex, locate, evaluate_retrieval
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clasp_lib.errors import ClaspError
    from clasp_lib.evaluation import RetrievalReport, evaluate_retrieval
    from clasp_lib.index import Hit, SpeechIndex
    from clasp_lib.localization import Moment, locate
    from clasp_lib.model import CLASP
    from clasp_lib.profiles import get_profile

__version__ = "0.1.0"

_HOME = {
    "CLASP": "model",
    "ClaspError": "errors",
    "Hit": "index",
    "Moment": "localization",
    "RetrievalReport": "evaluation",
    "SpeechIndex": "index",
    "evaluate_retrieval": "evaluation",
    "get_profile": "profiles",
    "locate": "localization",
}

__all__ = [
    "CLASP",
    "ClaspError",
    "Hit",
    "Moment",
    "RetrievalReport",
    "SpeechIndex",
    "evaluate_retrieval",
    "get_profile",
    "locate",
]


def __getattr__(name: str):
    """Import a public name when it is first used: `import clasp_lib` alone loads neither torch nor transformers."""
    if name not in _HOME:
        raise AttributeError(f"module 'clasp_lib' has no attribute {name!r}")
    return getattr(importlib.import_module(f"clasp_lib.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
