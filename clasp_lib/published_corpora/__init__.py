"""Published corpora with the usual columns: Speech Brown, FLEURS and Common Voice.

One function a corpus, because each is laid out in its own way. What they return has the columns of
`clasp_lib.speech_brown.columns`, audio still encoded, and a list of what was left out and why. Recordings of one's own
enter through `clasp_lib.speech_brown.read_recordings`.

A corpus is read as it was published. A clip that is missing, damaged, silent, longer than a minute or without a text
raises, or is reported with `on_error="skip"`; nothing takes its place. Tables and metadata that make no sense always
raise.
"""

from clasp_lib.published_corpora.common_voice import read_common_voice
from clasp_lib.published_corpora.fleurs import read_fleurs
from clasp_lib.published_corpora.speech_brown import (
    deal_clips,
    read_speech_brown,
    speech_brown_sentences,
    true_categories,
)

__all__ = [
    "deal_clips",
    "read_common_voice",
    "read_fleurs",
    "read_speech_brown",
    "speech_brown_sentences",
    "true_categories",
]
