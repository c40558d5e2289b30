"""For whom is it good? The same measures for each source, category, voice or length."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clasp_lib.errors import ClaspError
from clasp_lib.metrics import Interval, bootstrap, checked_vectors, rank_queries
from clasp_lib.significance.resampling import finite_values

SMALL_GROUP = 50
"""Of fewer sentences a share is known to ±0.14 at best, and the bootstrap's intervals begin to be too narrow."""

NOT_GIVEN = "(not given)"
"""The group of queries whose own is None, NaN or empty."""


@dataclass(frozen=True)
class GroupReport:
    """Measures of the queries of one group.

    Attributes:
        n: queries. sentences: different ids among them, which is what intervals count.
        candidates: what each query is ranked against. own_pool: whether these are the group's own only.
        measures: by the names of `clasp_lib.metrics.MEASURES`, each with its 95% interval.
    """

    group: str
    n: int
    sentences: int
    candidates: int
    own_pool: bool
    seed: int
    measures: dict[str, Interval]

    @property
    def small(self) -> bool:
        """Fewer than `SMALL_GROUP` sentences: read the interval, not the number."""
        return self.sentences < SMALL_GROUP


def evaluate_groups(
    query_vectors: np.ndarray,
    candidate_vectors: np.ndarray,
    query_ids: Sequence[Hashable],
    candidate_ids: Sequence[Hashable],
    groups: Sequence[Any],
    *,
    own_pool: bool = False,
    seed: int = 0,
) -> list[GroupReport]:
    """Measure each group of queries by itself, the groups in the order of their names.

    By default the pool stays the whole: every group answers the same question, and its score says how hard its queries
    are. Weighted by n, the groups' means are then the score of all. With `own_pool` a query is ranked among the
    candidates that are right for some query of its group: what a user meets who searches only that part. Such pools
    differ in size, and often in how alike their candidates are, so that these scores must not be compared with each
    other, or only in pools of one size (`clasp_lib.protocols.pool_curve`).

    Args:
        query_vectors: (queries, d). candidate_vectors: (candidates, d). See `rank_queries`.
        groups: what each query belongs to; None, NaN and "" are the group "(not given)".

    Raises:
        ClaspError: another number of groups than of queries, and what `rank_queries` refuses.
    """
    queries, candidates = checked_vectors(query_vectors, candidate_vectors, query_ids, candidate_ids)
    if len(groups) != len(queries):
        raise ClaspError(f"groups: are {len(groups)}, but there are {len(queries)} queries; give one for each.")
    members: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(_name(group), []).append(i)
    reports = []
    for name in sorted(members, key=_natural):
        rows = members[name]
        ids = [query_ids[i] for i in rows]
        pool = list(range(len(candidate_ids)))
        if own_pool:
            mine = set(ids)
            pool = [i for i in pool if candidate_ids[i] in mine]
        ranking = rank_queries(
            queries[rows].numpy(), candidates[pool].numpy(), ids, [candidate_ids[i] for i in pool]
        )  # the same product in parts: no more work than all queries at once
        measures = bootstrap(ranking, ids, seed=seed)
        reports.append(GroupReport(name, len(rows), len(set(ids)), len(pool), own_pool, seed, measures))
    return reports


def group_rows(
    reports: Sequence[GroupReport], measures: Sequence[str] = ("hits_at_1", "mrr", "mean_rank")
) -> list[dict[str, Any]]:
    """Reports as rows of a table: group, n, sentences, pool, each measure as text with its interval, and a warning."""
    return [
        {
            "group": report.group,
            "n": report.n,
            "sentences": report.sentences,
            "pool": report.candidates,
            **{name: str(report.measures[name]) for name in measures},
            "warning": f"⚠ fewer than {SMALL_GROUP} sentences" if report.small else "",
        }
        for report in reports
    ]


def length_groups(lengths: Sequence[float], parts: int = 4) -> list[str]:
    """Which of `parts` about equally large groups each length is in, as "3 to 7": the least and the most in the group,
    or "7" if they are the same.

    Equal lengths are in one group, so that there may be fewer groups than parts.

    Raises:
        ClaspError: no lengths, lengths that are not finite, or fewer than two parts.
    """
    values = finite_values("lengths", lengths)
    if parts < 2:
        raise ClaspError(f"parts={parts}: give at least 2.")
    edges = np.quantile(values, np.arange(1, parts) / parts, method="inverted_cdf")  # lengths that occur
    part = np.searchsorted(edges, values)  # (n,): up to and with an edge is below it
    ends = {p: (values[part == p].min(), values[part == p].max()) for p in np.unique(part)}
    names = {p: f"{low:g}" if low == high else f"{low:g} to {high:g}" for p, (low, high) in ends.items()}
    return [names[p] for p in part]


def _name(group: Any) -> str:
    return NOT_GIVEN if group is None or group != group or group == "" else str(group)


def _natural(name: str) -> list[tuple[int, float | str]]:
    """Numbers in names sort as numbers: "7 to 9" before "10 to 12"."""
    parts = re.split(r"(\d+(?:\.\d+)?)", name)
    return [(0, float(part)) if i % 2 else (1, part) for i, part in enumerate(parts) if part]
