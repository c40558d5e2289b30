"""What all figures share: colour-blind safe colours, readable on white and in dark mode."""

from __future__ import annotations

from typing import Any

from clasp_lib.errors import MissingDependencyError

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Of Okabe and Ito."""

DASHES = ("-", "--", "-.", ":", "-", "--")


def drawing() -> tuple[Any, Any]:
    """pyplot and seaborn, with the book's theme on; they are only imported when something is drawn."""
    try:
        import matplotlib.pyplot as plt
        import seaborn as sns
    except ImportError as error:
        raise MissingDependencyError(
            "figures need matplotlib and seaborn. Run: pip install 'clasp-lib[book]'"
        ) from error
    sns.set_theme(context="notebook", style="whitegrid", palette=list(COLOURS), font_scale=0.9)
    plt.rcParams |= {"figure.dpi": 110, "savefig.facecolor": "white", "figure.facecolor": "white"}
    return plt, sns
