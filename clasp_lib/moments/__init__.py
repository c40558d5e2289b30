"""How good is `locate`? Recordings with known segments, what counts as found, chance, and the keyword baseline."""

from clasp_lib.moments.joining import Joined, Joining, Segment, join_all, join_clips, read_segments
from clasp_lib.moments.keywords import keyword_scores, keywords
from clasp_lib.moments.scoring import FOUND, Judged, chance, judge, temporal_iou

__all__ = [
    "FOUND",
    "Joined",
    "Joining",
    "Judged",
    "Segment",
    "chance",
    "join_all",
    "join_clips",
    "judge",
    "keyword_scores",
    "keywords",
    "read_segments",
    "temporal_iou",
]
