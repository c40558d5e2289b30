"""What is ranked against what? Protocols of evaluation on top of `clasp_lib.metrics`, for vectors and tables.

- `pools`: drawn candidates ("soft") beside the whole pool ("hard");
- `pool_size`: how a score falls as the pool grows;
- `groups`: one score for each source, category, voice or length;
- `leaks`: texts, speakers and voices that training and test share, and texts that go by several ids.
"""

from clasp_lib.protocols.groups import GroupReport, evaluate_groups, group_rows, length_groups
from clasp_lib.protocols.leaks import Leak, Leaks, Merged, find_leaks, merge_duplicates, near_duplicates, refuse_leaks
from clasp_lib.protocols.pool_size import Extrapolation, expected_scores, extrapolate, pool_curve
from clasp_lib.protocols.pools import PoolReport, evaluate_soft, soft_scores, wrong_candidates

__all__ = [
    "Extrapolation",
    "GroupReport",
    "Leak",
    "Leaks",
    "Merged",
    "PoolReport",
    "evaluate_groups",
    "evaluate_soft",
    "expected_scores",
    "extrapolate",
    "find_leaks",
    "group_rows",
    "length_groups",
    "merge_duplicates",
    "near_duplicates",
    "pool_curve",
    "refuse_leaks",
    "soft_scores",
    "wrong_candidates",
]
