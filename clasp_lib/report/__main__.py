"""`python -m clasp_lib.report FOLDER`, as `clasp evaluate FOLDER`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from clasp_lib.console import finish
from clasp_lib.report.command import ABOUT, add_arguments, run


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run."""
    parser = argparse.ArgumentParser(prog="python -m clasp_lib.report", description=ABOUT)
    add_arguments(parser)
    given = sys.argv[1:] if arguments is None else list(arguments)
    line = ["python", "-m", "clasp_lib.report", *given]
    parser.set_defaults(run=run, line=line)
    return finish(lambda: parser.parse_args(given), line, program=arguments is None)


if __name__ == "__main__":
    sys.exit(main())
