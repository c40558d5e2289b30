"""Would it hold for other sentences, and for other seeds? Intervals and tests on scores.

One system answers queries, and several queries may be recordings of one sentence: its scores are `(queries,)` and their
groups the sentences, which are drawn whole. Or a system is trained with several seeds, and each training answers the
same items: its scores are `(seeds, items)`, say the reciprocal rank of each sentence. Both are samples: other sentences
would give another mean, other seeds as well. All functions are pure, and repeat exactly for the same `seed` of their
own random numbers.
"""

from clasp_lib.significance.comparisons import (
    EXACT,
    Comparison,
    PairedComparison,
    compare_family,
    compare_paired,
    compare_systems,
    holm,
    sign_flip_test,
)
from clasp_lib.significance.intervals import (
    METHODS,
    Estimate,
    Interval,
    bootstrap_groups,
    estimate,
    interval_over_both,
    interval_over_items,
    interval_over_seeds,
)
from clasp_lib.significance.resampling import RESAMPLES

__all__ = [
    "EXACT",
    "METHODS",
    "RESAMPLES",
    "Comparison",
    "Estimate",
    "Interval",
    "PairedComparison",
    "bootstrap_groups",
    "compare_family",
    "compare_paired",
    "compare_systems",
    "estimate",
    "holm",
    "interval_over_both",
    "interval_over_items",
    "interval_over_seeds",
    "sign_flip_test",
]
