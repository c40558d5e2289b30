"""Where in a long recording is something said? Windows between silences, each compared with the query.

`cutting` finds pieces of speech, `windows` makes windows of them, `moments` encodes and searches, `transcript` adds
what a recogniser reads. A recording is a stream: a file of any length, or live sound.
"""

from clasp_lib.localization.cutting import Cutting
from clasp_lib.localization.moments import (
    EncodedRecording,
    EncodedWindow,
    Encoder,
    Moment,
    best_moments,
    encode_recording,
    length_cost,
    locate,
    speaking_time,
    stream_windows,
)
from clasp_lib.localization.transcript import WithTranscript

__all__ = [
    "Cutting",
    "EncodedRecording",
    "EncodedWindow",
    "Encoder",
    "Moment",
    "WithTranscript",
    "best_moments",
    "encode_recording",
    "length_cost",
    "locate",
    "speaking_time",
    "stream_windows",
]
