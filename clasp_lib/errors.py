"""The one exception family of the library.

Every message names the file or argument, says what is wrong with it, and what would be right.
"""

from typing import Literal, NamedTuple, TypeAlias


class ClaspError(ValueError):
    """Base of all errors that `clasp_lib` raises on purpose."""


class AudioError(ClaspError):
    """A recording that cannot be used: missing, damaged, silent, too short, too long."""


class TextError(ClaspError):
    """A text that cannot be encoded or spoken."""


class DatasetError(ClaspError):
    """A corpus, metadata file or stored dataset that is not what it should be."""


class CheckpointError(ClaspError):
    """Weights or a configuration that cannot be loaded."""


class MissingDependencyError(ClaspError, ImportError):
    """An optional package is needed and not installed."""


OnError: TypeAlias = Literal["raise", "skip"]
"""What to do with a clip that cannot be used: stop, or leave it out and report it."""


class Skipped(NamedTuple):
    """A clip that was left out, and why."""

    id: str
    reason: str


def check_on_error(on_error: str) -> None:
    """Raise a ClaspError for a word that says neither to stop nor to go on."""
    if on_error not in ("raise", "skip"):
        raise ClaspError(f"on_error {on_error!r}: choose 'raise' or 'skip'.")


def brief(value: object, most: int = 120) -> str:
    """How a value looks in a message: as Python writes it, and no longer than what somebody reads.

    Of an error of another library, its words in one line, four times as long at most.
    """
    if isinstance(value, BaseException):
        shown, most = " ".join(_without_advice(value).split()), 4 * most
    else:
        shown = repr(value[: most + 1] if isinstance(value, str | bytes) else value)
    return shown if len(shown) <= most else f"{shown[:most]} ..."


def _without_advice(error: BaseException) -> str:
    """What a library says of a checkpoint that it cannot load, but for its advice to trust the file all the same."""
    said = str(error)
    if "weights_only" in said:
        return "it is a pickle that asks for more than tensors; nothing of it was run"
    if "trust_remote_code" in said:
        return "it comes with code of its own, which is not run"
    return said
