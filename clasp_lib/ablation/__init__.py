"""What does each part do? Trainings over fusions, losses, speech encoders and seeds, and what can be said of them.

    python -m clasp_lib.ablation SPEC.toml --folder WORK --output record.json

The specification is one TOML file; `clasp_lib/pocket/ablation.toml` is the book's. What was finished is found again
in the folder, so that a run that was killed goes on, and ends with the same tables.
"""

from clasp_lib.ablation.record import recompute, run_ablation, to_frame
from clasp_lib.ablation.specification import Ablation, Cell, Question, System, cells, read_ablation

__all__ = [
    "Ablation",
    "Cell",
    "Question",
    "System",
    "cells",
    "read_ablation",
    "recompute",
    "run_ablation",
    "to_frame",
]
