"""Sentences to speech.

`Synthesizer` is the whole interface: an engine that names its voices and turns a text and a voice into samples.
`ESpeak` is the one that needs neither a network nor a GPU; `BatchSynthesizer` is the interface of those that want one
(`clasp_lib.neural_synthesis`).
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from clasp_lib.audio import load_audio, resample
from clasp_lib.corpus import SPLITS, Split
from clasp_lib.errors import ClaspError, MissingDependencyError, TextError, brief


@dataclass(frozen=True)
class Voice:
    """One way of speaking.

    Attributes:
        accent: the engine's language code, such as "en-us".
        variant: the engine's speaker, such as "f3"; a variant belongs to one split only.
        rate: speed in words a minute.
        pitch: 0 (low) to 100 (high); 50 is the speaker's own.
    """

    accent: str
    variant: str
    rate: int = 175
    pitch: int = 50

    @property
    def name(self) -> str:
        """Accent and speaker, e.g. "en-us+f3": what must not be shared between splits."""
        return f"{self.accent}+{self.variant}"


class Mark(NamedTuple):
    """What is said from `start` on, a sample number of the clip: a word as written, or a phone of eSpeak NG's alphabet
    without stress marks ("_" is a pause)."""

    start: int
    symbol: str


class Utterance(NamedTuple):
    """A spoken sentence that knows when it says what: float32 samples, its phones and its words in order.

    Words that the engine runs into the one before ("of the") have no mark of their own.
    """

    samples: np.ndarray
    phones: list[Mark]
    words: list[Mark]


class Synthesizer(Protocol):
    """An engine that speaks. Unless it is a `BatchSynthesizer` it must be picklable: processes share its work."""

    sampling_rate: int

    def voices(self, split: Split, n: int, seed: int = 0) -> list[Voice]:
        """Draw `n` voices of a split. A speaker belongs to one split, if the engine has several; same arguments, same
        voices."""
        ...

    def synthesize(self, text: str, voice: Voice) -> np.ndarray:
        """Return float32 samples in [-1, 1], shape `(samples,)`, at `sampling_rate` Hz."""
        ...


@runtime_checkable
class BatchSynthesizer(Synthesizer, Protocol):
    """An engine that speaks many sentences at once, as a GPU wants it."""

    @property
    def digest(self) -> str:
        """Of its weights and of every setting that is heard."""
        ...

    def synthesize_batch(self, texts: Sequence[str], voices: Sequence[Voice]) -> list[np.ndarray | ClaspError]:
        """Speak each text in the voice beside it. A clip that cannot be spoken is its error, in its place."""
        ...


ACCENTS = ("en-us", "en-us-nyc", "en", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbcwmd", "en-gb-x-gbclan", "en-029")
"""The accents of English that eSpeak NG knows ("en" is British)."""

VARIANTS: dict[Split, tuple[str, ...]] = {
    "train": (
        *("m1", "m2", "m4", "m5", "m6", "m8", "f1", "f3", "f5", "klatt", "klatt3", "klatt5", "klatt6"),
        *("Alex", "Alicia", "Andy", "Denis", "Diogo", "Gene", "Hugo", "Jacky", "Lee", "Mario", "Michael", "Nguyen"),
        *("adam", "anika", "antonio", "belinda", "benjamin", "boris", "ed", "edward", "gustave"),
        *("iven", "iven2", "iven4", "john", "kaukovalta", "linda", "marcelo", "michel", "mike2", "norbert", "pablo"),
        *("paul", "quincy", "rob", "sandro", "steph", "steph3", "travis", "victor", "whisper"),
    ),
    "validation": ("m7", "f2", "klatt2", "Annie", "david", "grandma", "max", "shelby", "zac"),
    "test": (
        "m3",
        "f4",
        "klatt4",
        "Andrea",
        "Henrique",
        "Mike",
        "aunty",
        "ian",
        "iven3",
        "miguel",
        "pedro",
        "robert",
        "steph2",
    ),
}
"""The speakers of eSpeak NG, dealt once and for all to the three splits (robots, effects and croaks are left out,
and so are the two whose sound differs from one call to the next, Reed and caleb)."""


def draw_voices(split: Split, n: int, seed: int = 0) -> list[Voice]:
    """Draw `n` voices of a split: accent, speaker, rate (140 to 210 words a minute) and pitch (30 to 70).

    Speakers are dealt in shuffled rounds, so that each occurs about equally often. Same arguments, same voices.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    return [
        Voice(
            accent=ACCENTS[rng.integers(len(ACCENTS))],
            variant=speaker,
            rate=int(rng.integers(140, 211)),
            pitch=int(rng.integers(30, 71)),
        )
        for speaker in in_rounds(VARIANTS[split], n, rng)
    ]


def in_rounds(speakers: Sequence[str], n: int, rng: np.random.Generator) -> list[str]:
    """Deal `n` turns to `speakers` in shuffled rounds, so that each occurs about equally often."""
    rounds = [rng.permutation(len(speakers)) for _ in range(-(-n // len(speakers)))]
    return [speakers[i] for i in np.concatenate(rounds)[:n]] if rounds else []


def check_speakable(text: object) -> None:
    """Raise a TextError for what is not a text, holds nothing that can be spoken, or what an engine would pass over."""
    if not isinstance(text, str) or not any(ch.isalnum() for ch in text):
        raise TextError(f"text {brief(text)}: holds no letter or digit, so there is nothing to speak.")
    if any("\ud800" <= ch <= "\udfff" or ch == "\0" for ch in text):
        raise TextError(f"text {brief(text)}: holds half a character or a NUL. Decode it as UTF-8 again.")


def trimmed(samples: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    """Samples with at most 0.1 s of silence (40 dB below the peak) before and after the sound, and how many were cut
    off in front; none are left of a silent clip."""
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max(initial=1e-9))
    if len(loud) == 0:
        return samples[:0], 0
    first = max(0, int(loud[0]) - rate // 10)
    return samples[first : loud[-1] + rate // 10], first


class ESpeak:
    """eSpeak NG, a formant synthesizer: small, quick (hundreds of times faster than speech), 100 languages.

    The engine comes with the wheel `espeakng-loader` (extra `[pocket]`). The same text and voice give the same samples,
    whatever was spoken before and in whichever process. Use a pool of processes, not threads: calls are serialised.

    Raises:
        MissingDependencyError: `espeakng-loader` is not installed.
    """

    def __init__(self, sampling_rate: int = 16_000) -> None:
        _need_espeak()
        self.sampling_rate = sampling_rate

    def voices(self, split: Split, n: int, seed: int = 0) -> list[Voice]:
        """Draw voices with `draw_voices`."""
        return draw_voices(split, n, seed)

    def synthesize(self, text: str, voice: Voice) -> np.ndarray:
        """Speak `text`; see `Synthesizer`. Silence before and after the sentence is kept to 0.1 s.

        Raises:
            TextError: the text is empty or holds nothing that can be spoken.
            ClaspError: the engine does not know the voice.
        """
        return self.utter(text, voice).samples

    def utter(self, text: str, voice: Voice) -> Utterance:
        """Speak `text` and tell when each phone and each word begins; the samples are those of `synthesize`.

        Raises:
            TextError, ClaspError: as `synthesize`.
        """
        check_speakable(text)
        samples, rate, events = _speak(text, voice)
        samples, first = trimmed(samples, rate)
        if len(samples) == 0:
            raise TextError(f"text {text!r}: the voice {voice.name!r} makes no sound of it.")
        clip = np.clip(resample(samples, rate, self.sampling_rate), -1.0, 1.0)  # a resampler may overshoot
        marks: dict[int, list[Mark]] = {_WORD: [], _PHONE: []}
        for kind, sample, symbol in events:
            start = round((sample - first) * self.sampling_rate / rate)
            if start < len(clip):
                marks[kind].append(Mark(max(0, start), symbol))
        return Utterance(clip, marks[_PHONE], marks[_WORD])


class Flite:
    """Flite, another small synthesizer (Black and Lenzo 2001), with voices learnt from recordings of people.

    Nothing of the library is trained on it: it tests whether an encoder has learnt speech, or only eSpeak NG. The
    program `flite` is a package of Debian and Ubuntu. `Voice.variant` is one of its voices, which keep their own rate
    and pitch.

    Raises:
        MissingDependencyError: there is no program `flite`.
    """

    VOICES = ("slt", "rms", "awb")

    def __init__(self, sampling_rate: int = 16_000) -> None:
        if shutil.which("flite") is None:
            raise MissingDependencyError("flite is not installed. Debian and Ubuntu: sudo apt-get install flite")
        self.sampling_rate = sampling_rate

    def voices(self, split: Split, n: int, seed: int = 0) -> list[Voice]:
        """The three voices in turn, for testing only.

        Raises:
            ClaspError: voices of another split are asked for.
        """
        if n and split != "test":
            raise ClaspError(f"flite speaks only the split 'test', so that nothing learns its voices; not {split!r}.")
        return [Voice("en-us", self.VOICES[i % len(self.VOICES)]) for i in range(n)]

    def synthesize(self, text: str, voice: Voice) -> np.ndarray:
        """Speak `text`; see `Synthesizer`.

        Raises:
            TextError: the text holds nothing that can be spoken.
            ClaspError: flite does not know the voice, or fails.
        """
        check_speakable(text)
        if voice.variant not in self.VOICES:
            raise ClaspError(f"voice {voice.variant!r}: choose from flite's {', '.join(self.VOICES)}.")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "speech.wav"
            done = subprocess.run(
                ["flite", "-voice", voice.variant, "-t", text, "-o", str(file)], capture_output=True, text=True
            )
            if done.returncode or not file.exists():
                raise ClaspError(f"flite failed on {text!r}: {done.stderr.strip() or f'exit code {done.returncode}'}.")
            return load_audio(file, self.sampling_rate)


_LOCK = threading.Lock()
_SYNCHRONOUS, _UTF8, _RATE, _PITCH, _PHONE_EVENTS = 2, 1, 1, 3, 1  # constants of espeak-ng's speak_lib.h
_END, _WORD, _PHONE = 0, 1, 7  # kinds of events


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h; `text_position` counts characters from 1."""

    _fields_ = (
        *(("kind", ctypes.c_int), ("identifier", ctypes.c_uint), ("text_position", ctypes.c_int)),
        *(("length", ctypes.c_int), ("milliseconds", ctypes.c_int), ("sample", ctypes.c_int)),
        *(("user_data", ctypes.c_void_p), ("string", ctypes.c_char * 8)),
    )


def _speak(text: str, voice: Voice) -> tuple[np.ndarray, int, list[tuple[int, int, str]]]:
    """One utterance by a freshly loaded engine: float32 samples, their rate in Hz, and (kind, sample, symbol) events.

    The C library keeps oscillators and noise running from one utterance to the next, so that a clip would depend on all
    clips before it. Loading it anew (5 ms) and seeding its noise makes a clip a function of text and voice alone.
    """
    import espeakng_loader

    data_folder = Path(espeakng_loader.get_data_path())
    blocks: list[np.ndarray] = []
    events: list[tuple[int, int, str]] = []
    written, said = list(re.finditer(r"\S*\w\S*", text)), -1

    def collect(samples: Any, count: int, news: Any) -> int:
        nonlocal said
        if samples and count > 0:
            blocks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        i = 0
        while news and news[i].kind != _END:
            event, i = news[i], i + 1
            if event.kind == _WORD:
                # A group spoken as one ("most of") puts its later words one letter into its first; "&" is no word.
                position = event.text_position - 1
                at = next((i for i, word in enumerate(written) if word.start() <= position < word.end()), None)
                if at is not None and position > written[at].start() and at <= said and said + 1 < len(written):
                    at = said + 1
                if at is not None:
                    said = at
                    events.append((_WORD, event.sample, re.sub(r"^\W+|\W+$", "", written[at].group())))
            elif event.kind == _PHONE and event.string:
                # Stress (' , %) is not a sound of its own, and every pause is one.
                symbol = event.string.decode("utf-8", "replace").strip("',%=|") or "_"
                events.append((_PHONE, event.sample, "_" if symbol.startswith("_") else symbol))
        return 0

    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
    callback = kind(collect)
    with espeak_library(_PHONE_EVENTS) as (library, rate):
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        # The engine falls back to a default speaker without a word, so the variant is checked here.
        known = (data_folder / "voices" / "!v" / voice.variant).is_file()
        if not known or library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise ClaspError(f"voice {voice.name!r}: eSpeak NG has no such accent or speaker.")
        library.espeak_SetParameter(_RATE, voice.rate, 0)
        library.espeak_SetParameter(_PITCH, voice.pitch, 0)
        library.espeak_SetSynthCallback(callback)
        data = text.encode("utf-8", "ignore") + b"\0"
        library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 0, 0, _UTF8, None, None)
        library.espeak_Synchronize()
    samples = np.concatenate(blocks) if blocks else np.zeros(0, np.int16)
    return samples.astype(np.float32) / 32768, rate, events


@contextlib.contextmanager
def espeak_library(options: int = 0) -> Iterator[tuple[ctypes.CDLL, int]]:
    """The C library, loaded for this block alone and by nobody else meanwhile, and the rate of its sound in Hz.

    Raises:
        MissingDependencyError: `espeakng-loader` is not installed.
    """
    _need_espeak()
    import espeakng_loader

    data_folder = Path(espeakng_loader.get_data_path())
    with _LOCK:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
        try:
            rate = library.espeak_Initialize(_SYNCHRONOUS, 0, str(data_folder.parent).encode(), options)
            if rate <= 0:
                raise ClaspError(f"eSpeak NG cannot start from {data_folder}. Reinstall the package espeakng-loader.")
            yield library, rate
        finally:
            library.espeak_Terminate()
            _unload(library)


def _need_espeak() -> None:
    if importlib.util.find_spec("espeakng_loader") is None:
        raise MissingDependencyError("eSpeak NG is not installed. Run: pip install 'clasp-lib[pocket]'")


def _unload(library: ctypes.CDLL) -> None:
    import _ctypes

    if sys.platform == "win32":
        _ctypes.FreeLibrary(library._handle)
    else:
        _ctypes.dlclose(library._handle)
