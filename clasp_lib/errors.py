"""The one exception family of the library.

Every message names the file or argument, says what is wrong with it, and what would be right.
"""


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
