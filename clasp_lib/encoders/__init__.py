"""Frozen encoders: speech, spectrogram picture and text, each by the name of its checkpoint."""

from clasp_lib.encoders.spectrogram import SpectrogramEncoder
from clasp_lib.encoders.speech import SpeechEncoder
from clasp_lib.encoders.text import TextEncoder

__all__ = ["SpectrogramEncoder", "SpeechEncoder", "TextEncoder"]
