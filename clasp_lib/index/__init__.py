"""Search over a collection of recordings."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clasp_lib.index.entries import Entry
    from clasp_lib.index.hits import Hit, Hits
    from clasp_lib.index.speech_index import Added, SpeechIndex, stored_model
    from clasp_lib.index.store import ModelName

__all__ = ["Added", "Entry", "Hit", "Hits", "ModelName", "SpeechIndex", "stored_model"]

_HOME = {
    "Added": "speech_index",
    "Entry": "entries",
    "Hit": "hits",
    "Hits": "hits",
    "ModelName": "store",
    "SpeechIndex": "speech_index",
    "stored_model": "speech_index",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: the stores alone load no model."""
    if name not in _HOME:
        raise AttributeError(f"module 'clasp_lib.index' has no attribute {name!r}")
    return getattr(importlib.import_module(f"clasp_lib.index.{_HOME[name]}"), name)
