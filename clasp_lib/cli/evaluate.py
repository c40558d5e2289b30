"""`clasp evaluate FOLDER`: see `clasp_lib.report`."""

from clasp_lib.report.command import ABOUT, add_arguments, run

__all__ = ["ABOUT", "EXAMPLES", "add_arguments", "run"]

EXAMPLES = (
    "clasp evaluate recordings --output my_report",
    "clasp evaluate recordings --recogniser pocket-ctc --on-error skip",
)
