"""Two more synthesizers to learn from, so that the encoders learn English and not one engine: SVOX Pico and Festival.

Both speak with voices made from recordings of people: Pico two women (British and American), Festival two American men.
Few voices become many by rate, pitch and `throat`. Flite, which tests what was learnt, shares none of these voices.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clasp_lib.audio import load_audio, resample
from clasp_lib.errors import ClaspError, MissingDependencyError
from clasp_lib.synthesis import Mark, Utterance, trimmed

_RATE = 16_000
"""Hz; both engines' own sampling rate."""


class Person(NamedTuple):
    """A speaker of an engine, made different.

    `rate` is in words a minute, `pitch` 0 to 100 around 50, the speaker's own. The clip is then played `throat` times
    as fast, which moves pitch, tempo and the resonances of the throat together: above 1 the speaker seems smaller.
    """

    speaker: str
    rate: int
    pitch: int
    throat: float


def draw_people(speakers: Sequence[str], n: int, seed: int) -> list[Person]:
    """The speakers in turn, each with a random rate (140 to 210), pitch (30 to 70) and throat (0.82 to 1.15)."""
    rng = np.random.default_rng(seed)
    draws = zip(rng.integers(140, 211, n), rng.integers(30, 71, n), rng.uniform(0.82, 1.15, n), strict=True)
    return [Person(speakers[i % len(speakers)], int(r), int(p), round(t, 2)) for i, (r, p, t) in enumerate(draws)]


class Pico:
    """SVOX Pico (Apache-2.0), by the package `ttspico`; it tells no times.

    Raises:
        MissingDependencyError: `ttspico` is not installed.
    """

    SPEAKERS = ("en-GB", "en-US")

    def __init__(self) -> None:
        if importlib.util.find_spec("ttspico") is None:
            raise MissingDependencyError("SVOX Pico is not installed. Run: pip install ttspico (needs a C compiler)")

    def utter_all(self, texts: Sequence[str], people: Sequence[Person]) -> list[Utterance]:
        """Each text by its person; the same list gives the same samples."""
        import ttspico

        engines = {name: ttspico.TtsEngine(name) for name in self.SPEAKERS}
        spoken = []
        for text, person in zip(texts, people, strict=True):
            engine = engines[person.speaker]
            engine.rate, engine.pitch = round(person.rate / 1.75), round(100 * 2 ** ((person.pitch - 50) / 50))
            samples = np.frombuffer(engine.speak(_plain(text)), np.int16).astype(np.float32) / 32768
            spoken.append(_finished(samples, [], person.throat))
        return spoken


class Festival:
    """Festival with its two American diphone voices; it tells when words begin.

    Raises:
        MissingDependencyError: there is no program `festival`.
    """

    SPEAKERS = ("kal_diphone", "ked_diphone")

    def __init__(self) -> None:
        if shutil.which("festival") is None:
            raise MissingDependencyError(
                "Festival is not installed. Debian and Ubuntu: "
                "sudo apt-get install festival festvox-kallpc16k festvox-kdlpc16k"
            )

    def utter_all(self, texts: Sequence[str], people: Sequence[Person]) -> list[Utterance]:
        """Each text by its person, all in one process.

        Raises:
            ClaspError: Festival fails, for instance because a voice is not installed.
        """
        with tempfile.TemporaryDirectory() as folder:
            stems = [Path(folder) / str(i) for i in range(len(texts))]
            script = Path(folder) / "speak.scm"
            script.write_text("\n".join(map(_scheme, stems, texts, people)), encoding="utf-8")
            done = subprocess.run(["festival", "-b", str(script)], capture_output=True, text=True)
            if done.returncode:
                raise ClaspError(f"Festival failed: {done.stderr.strip()[-300:] or f'exit code {done.returncode}'}.")
            return [
                _finished(load_audio(stem.with_suffix(".wav"), _RATE), _words(stem.with_suffix(".words")), who.throat)
                for stem, who in zip(stems, people, strict=True)
            ]


def _scheme(stem: Path, text: str, person: Person) -> str:
    """Lines of Festival's Scheme that speak a text into `stem`.wav and `stem`.words."""
    pitch = 105 * 2 ** ((person.pitch - 50) / 50)
    return f"""(voice_{person.speaker})
(Parameter.set 'Duration_Stretch {175 / person.rate:.2f})
(set! int_lr_params '((target_f0_mean {pitch:.0f}) (target_f0_std {pitch / 7:.0f})
                      (model_f0_mean 170) (model_f0_std 34)))
(set! said (utt.synth (Utterance Text "{_plain(text)}")))
(utt.save.wave said "{stem}.wav" 'riff)
(utt.save.words said "{stem}.words")"""


def _words(file: Path) -> list[Mark]:
    """When words begin, from Festival's file of when they end: "seconds 100 word" in each line after the first."""
    lines = [line.split(maxsplit=2) for line in file.read_text("utf-8").splitlines()[1:]]
    starts = [0, *(round(float(end) * _RATE) for end, _, _ in lines)]
    return [Mark(start, word) for start, (_, _, word) in zip(starts, lines, strict=False)]


def _finished(samples: np.ndarray, words: list[Mark], throat: float) -> Utterance:
    """Without the silence around it, and played `throat` times as fast."""
    clip, first = trimmed(samples, _RATE)
    clip = np.clip(resample(clip, round(_RATE * throat), _RATE), -1.0, 1.0)
    return Utterance(clip, [], [Mark(max(0, round((start - first) / throat)), word) for start, word in words])


def _plain(text: str) -> str:
    """Without the characters that an engine takes for markup or for the end of a string."""
    return text.translate(str.maketrans("", "", '"\\<>&'))
