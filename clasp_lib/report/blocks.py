"""What a report is made of, before it is Markdown or a page: paragraphs, notes, tables and plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from clasp_lib.metrics import Interval

Cell: TypeAlias = "str | int | float | Interval"

WAYS = {"text_to_speech": "text → speech", "speech_to_text": "speech → text"}

MEASURES = {
    "hits_at_1": ("HITS@1", "The share of queries whose first answer is right. 1 is best."),
    "hits_at_5": ("HITS@5", "The share of queries with a right answer among the first five."),
    "hits_at_10": ("HITS@10", "The share of queries with a right answer among the first ten."),
    "mrr": ("MRR", "The mean of 1 / rank of the first right answer: 1 if it is always first, 0.5 if always second."),
    "mean_rank": ("mean rank", "The mean place of the first right answer. 1 is best; a few far places weigh much."),
    "median_rank": ("median rank", "Half of the queries find their answer at this place or before."),
    "ndcg_at_10": ("nDCG@10", "How far up all right answers stand within the first ten, by 1 / log2(place + 1)."),
    "map": ("MAP", "The share of right ones up to each right answer, averaged: it counts all right answers."),
}
"""The name of each measure, and what it says in plain words."""


@dataclass(frozen=True)
class Table:
    """Rows of cells; intervals are shown as such, numbers to the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""


@dataclass(frozen=True)
class Plot:
    """Drawn when asked; what it shows is also told in `alt`, and its numbers stand in a table or in `report.json`."""

    caption: str
    alt: str
    draw: Callable[[str, str], str]
    """A name for its parts, and the alternative text, to an `<svg>` element."""


@dataclass(frozen=True)
class Note:
    """A paragraph that must not be missed."""

    text: str


Block: TypeAlias = "str | Table | Plot | Note"


@dataclass(frozen=True)
class Section:
    """A heading and what is below it. on_page: told on the page only, not in Markdown."""

    title: str
    blocks: list[Block]
    on_page: bool = False
    folded: bool = False
