"""What may happen to speech on its way from the mouth to the machine, at stated strengths: to measure robustness.

Each disturbance is a pure function of a wave `(samples,)` float32 at 16 kHz, a strength in a stated unit and, where
chance plays a part, a generator of random numbers; `disturb` calls them by name. None cuts at full scale or turns the
speech down to avoid it: what is mixed in comes on top, and samples may exceed 1. A recorder's limit is a disturbance of
its own, `clipping`.

`clasp_lib.pretraining.augmentation` has relatives of these, for training: they draw their strengths at random, work on
torch tensors of unit variance and need torchaudio. These state their strengths, are tested against them, and need what
the core of the library has: numpy, scipy, soxr, soundfile. A model is not to be measured by the lines that trained it.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from clasp_lib.audio import MIN_SECONDS, SAMPLING_RATE
from clasp_lib.errors import AudioError, ClaspError

FRAME = SAMPLING_RATE // 50
"""Samples over which the level of speech is taken: 20 ms."""

ACTIVE = 30.0
"""A frame is speech if it is at most so many dB below the loudest one."""

LINE_LEVEL = 10 ** (-26 / 20)
"""Root mean square of speech on a telephone line: 26 dB below full scale (the nominal level of ITU-T P.830)."""

MP3_RATES = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
"""kbit/s that MP3 has at 16 kHz (MPEG-2, layer III: ISO/IEC 13818-3)."""

_MP3_DELAY = 576 + 529  # samples that encoder and decoder add in front, if the file does not say how many
_MP3_FRAME = 576  # samples


class Disturbed(NamedTuple):
    """A disturbed wave, and how strongly it was disturbed in fact: of a codec the bit rate that it really took."""

    wave: np.ndarray
    strength: float


@dataclass(frozen=True)
class Disturbance:
    """A kind of disturbance.

    Attributes:
        apply: `(wave, strength, rng, others) -> wave`.
        unit: of its strength. strengths: a curve's worth of them, from weak to strong.
        low, high: what a strength may be. allowed: the only ones there are; any from `low` to `high` if empty.
    """

    apply: Callable[[np.ndarray, float, np.random.Generator, Sequence[np.ndarray]], np.ndarray]
    unit: str
    strengths: tuple[float, ...]
    low: float
    high: float
    allowed: tuple[float, ...] = ()


def disturb(
    wave: np.ndarray, name: str, strength: float, key: Sequence[int] = (0,), others: Sequence[np.ndarray] = ()
) -> Disturbed:
    """`wave` through the disturbance of that name (see `DISTURBANCES`).

    Chance follows from the key and the name alone: the same clip gets the same noise at every strength, only louder, so
    that neighbours on a curve differ by the strength and by nothing else.

    Args:
        wave: (samples,) at 16 kHz. key: whole numbers from 0, say the seed and the clip's number.
        others: other speech; "babble" is made of it.

    Raises:
        ClaspError: no such disturbance, or a strength that it cannot have.
        AudioError: the wave is empty, silent, not finite or not one channel; or nothing of it would be left.
    """
    check_strength(name, strength)
    if min(key, default=0) < 0:
        raise ClaspError(f"key: is {tuple(key)}; give whole numbers from 0.")
    if name in CODECS:
        return coded(wave, name, strength)
    rng = np.random.default_rng([*key, zlib.crc32(name.encode())])
    return Disturbed(DISTURBANCES[name].apply(wave, strength, rng, others), strength)


def check_strength(name: str, strength: float) -> None:
    """Raise a ClaspError unless there is a disturbance of that name that can have this strength."""
    if name not in DISTURBANCES:
        raise ClaspError(f"disturbance {name!r} is not known. Choose from {', '.join(DISTURBANCES)}.")
    kind = DISTURBANCES[name]
    if kind.allowed and strength not in kind.allowed:
        raise ClaspError(f"{name}: strength {strength:g}; choose one of {', '.join(f'{s:g}' for s in kind.allowed)}.")
    if not kind.low <= strength <= kind.high:
        raise ClaspError(f"{name}: strength {strength:g}; give {kind.low:g} to {kind.high:g} ({kind.unit}).")


def speech_level(wave: np.ndarray) -> float:
    """Mean square of the samples while somebody speaks: over all frames within `ACTIVE` dB of the loudest one.

    Pauses do not count, so that silence around a sentence changes nothing (after the active speech level of ITU-T P.56,
    with a fixed threshold in place of its envelope).
    """
    energies = np.add.reduceat(np.square(wave, dtype=np.float64), np.arange(0, len(wave), FRAME))  # (frames,)
    sizes = np.full(len(energies), FRAME)
    sizes[-1] = len(wave) - FRAME * (len(energies) - 1)
    powers = energies / sizes
    active = powers >= powers.max() * 10 ** (-ACTIVE / 10)
    return float(energies[active].sum() / sizes[active].sum())


def white_noise(wave: np.ndarray, decibels: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise, equally strong at all frequencies, at a signal-to-noise ratio of `decibels`.

    The ratio is 10 log10(S / N): S the level of the speech (`speech_level`), N the mean square of what is added.
    """
    check_strength("white noise", decibels)
    wave = _checked(wave)
    return _mixed(wave, rng.standard_normal(len(wave)), decibels)


def babble(wave: np.ndarray, decibels: float, rng: np.random.Generator, others: Sequence[np.ndarray]) -> np.ndarray:
    """All of `others` speak at once, equally loud, from random places on and again from the start when they end.

    Together they are at a signal-to-noise ratio of `decibels`, as in `white_noise`.

    Raises:
        AudioError: there are no others.
    """
    check_strength("babble", decibels)
    wave = _checked(wave)
    if len(others) == 0:
        raise AudioError("babble: is made of other clips, and none are given in `others`.")
    crowd = np.zeros(len(wave))
    for other in map(_checked, others):
        crowd += np.resize(np.roll(other, rng.integers(len(other))), len(wave)) / np.sqrt(speech_level(other))
    return _mixed(wave, crowd, decibels)


def hum(wave: np.ndarray, decibels: float, rng: np.random.Generator, mains: float = 50) -> np.ndarray:
    """The mains: `mains` Hz and its multiples up to the tenth, the k-th with amplitude 1 / k and a random phase.

    At a signal-to-noise ratio of `decibels`, as in `white_noise`.
    """
    check_strength(f"hum {mains:g} Hz", decibels)
    wave = _checked(wave)
    order = np.arange(1, 11)[:, None]  # (10, 1)
    angle = 2 * np.pi * mains * order * np.arange(len(wave)) / SAMPLING_RATE  # (10, samples)
    return _mixed(wave, (np.sin(angle + rng.uniform(0, 2 * np.pi, (10, 1))) / order).sum(0), decibels)


def reverberation(wave: np.ndarray, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """A room whose sound decays by 60 dB in `seconds` (RT60).

    The impulse response is 1 at the start, then Gaussian noise times 10^(-3 t / RT60) (Polack 1988). Its tail has
    RT60 / 0.5 s times the energy of the direct sound: in rooms of one size, and from one distance, the energy of a
    diffuse field grows with RT60. The result is as long as the wave, which cuts the last word's tail, and its mean
    square is that of the wave.
    """
    from scipy.signal import fftconvolve

    check_strength("reverberation", seconds)
    wave = _checked(wave)
    time = np.arange(1, int(seconds * SAMPLING_RATE) + 1) / SAMPLING_RATE
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    tail *= np.sqrt(seconds / 0.5 / np.square(tail).sum())
    heard = fftconvolve(wave.astype(np.float64), np.concatenate([[1.0], tail]))[: len(wave)]
    power = np.square(wave, dtype=np.float64).mean()
    return (heard * np.sqrt(power / np.square(heard).mean())).astype(np.float32)


def telephone(wave: np.ndarray, calls: float = 1) -> np.ndarray:
    """Through `calls` telephone lines in a row: 8 kHz, 300 to 3400 Hz, 8 bits of mu-law.

    The band is that of a Butterworth filter (-3 dB at its ends, 4 poles at each), fed at `LINE_LEVEL`, or lower if a
    peak would pass full scale. A sample x becomes the nearest of 255 steps of sign(x) ln(1 + 255 |x|) / ln 256 and is
    expanded again (ITU-T G.711, which replaces the curve by straight pieces). The level is put back at the end.
    """
    from scipy.signal import butter, sosfilt

    check_strength("telephone", calls)
    wave = _checked(wave)
    gain = min(LINE_LEVEL / np.sqrt(speech_level(wave)), 1 / np.abs(wave).max())
    line = soxr.resample(wave.astype(np.float64) * gain, SAMPLING_RATE, 8_000)
    band = butter(4, (300, 3400), "bandpass", fs=8_000, output="sos")
    for _ in range(int(calls)):
        line = np.clip(sosfilt(band, line), -1, 1)
        steps = np.round(127 * np.sign(line) * np.log1p(255 * np.abs(line)) / np.log(256))
        line = np.sign(steps) * np.expm1(np.abs(steps) / 127 * np.log(256)) / 255
    heard = soxr.resample(line, 8_000, SAMPLING_RATE) / gain
    return _fitted(heard, len(wave))


def clipping(wave: np.ndarray, share: float) -> np.ndarray:
    """Overdriven: the threshold is such that `share` of all samples reach or pass it, and they are cut to it.

    Raises:
        AudioError: so large a share of the wave is digital silence that the threshold would be 0.
    """
    check_strength("clipping", share)
    wave = _checked(wave)
    count = max(1, round(share * len(wave)))
    threshold = np.partition(np.abs(wave), len(wave) - count)[len(wave) - count]
    if threshold == 0:
        raise AudioError(f"clipping: fewer than {share:g} of the samples differ from 0; clip a smaller share.")
    return np.clip(wave, -threshold, threshold)


def speed(wave: np.ndarray, factor: float) -> np.ndarray:
    """Played `factor` times as fast: length is divided, tempo and pitch are multiplied by it."""
    check_strength("speed", factor)
    wave = _checked(wave)
    return _long_enough("speed", soxr.resample(wave, SAMPLING_RATE * factor, SAMPLING_RATE))


def truncation(wave: np.ndarray, share: float) -> np.ndarray:
    """The last `share` of the wave is missing."""
    check_strength("truncation", share)
    wave = _checked(wave)
    return _long_enough("truncation", wave[: len(wave) - round(share * len(wave))].copy())


def silence(wave: np.ndarray, seconds: float) -> np.ndarray:
    """Digital silence of `seconds` before, and as much after."""
    check_strength("silence", seconds)
    return np.pad(_checked(wave), round(seconds * SAMPLING_RATE))


def mp3(wave: np.ndarray, kilobits: float) -> np.ndarray:
    """Once through MP3 (LAME) at a constant bit rate, one of `MP3_RATES` kbit/s; see `coded`."""
    return coded(wave, "MP3", kilobits).wave


def opus(wave: np.ndarray, kilobits: float) -> np.ndarray:
    """Once through Opus at 6 to 256 kbit/s, which its variable bit rate aims at and pauses undercut; see `coded`."""
    return coded(wave, "Opus", kilobits).wave


def coded(wave: np.ndarray, codec: str, kilobits: float) -> Disturbed:
    """Compressed by "MP3" or "Opus" and decoded again, with the bit rate that it really took (`bit_rate`).

    The codec hears the wave with a peak of 0.5; the level is put back. Length and beginning stay where they were.
    libsndfile knows no bit rates, only a compression level from 0 to 1: for MP3 at 16 kHz the level means
    160 - 152 level kbit/s, for Opus 256 - 250 level (its documentation does not say so; the tests measure it).
    """
    if codec not in CODECS:
        raise ClaspError(f"codec {codec!r} is not known. Choose from {', '.join(CODECS)}.")
    check_strength(codec, kilobits)
    wave = _checked(wave)
    data = _encoded(wave * (0.5 / np.abs(wave).max()), codec, kilobits)
    decoded, _ = soundfile.read(io.BytesIO(data), dtype="float64")
    if codec == "MP3" and len(decoded) > len(wave):  # at low rates the frame that tells the delay does not fit
        decoded = decoded[_MP3_DELAY:]
    return Disturbed(_fitted(decoded * (np.abs(wave).max() / 0.5), len(wave)), bit_rate(data))


def bit_rate(data: bytes) -> float:
    """kbit/s of an MP3 at 16 kHz or an Ogg Opus stream, from its frames: without the container's own bytes.

    In an Ogg file of a few seconds the container and its two headers are a fifth of all bytes at 6 kbit/s.

    Raises:
        AudioError: the bytes are neither of the two, or break off before the first sound.
    """
    strange = AudioError("bit_rate: these bytes are neither MP3 at 16 kHz nor Ogg Opus.")
    start = bits = samples = pages = 0
    if data[:4] == b"OggS":
        while start + 26 < len(data):  # page by page (RFC 3533, section 6)
            segments = data[start + 26]
            size = sum(data[start + 27 : start + 27 + segments])
            bits += 8 * size if pages >= 2 else 0  # the first two hold headers (RFC 7845, section 3)
            samples = int.from_bytes(data[start + 6 : start + 14], "little")  # until now, at 48 kHz
            start, pages = start + 27 + segments + size, pages + 1
        if not samples:
            raise strange
        return bits / samples * 48
    while start + 4 <= len(data):  # frame by frame
        if data[start] != 0xFF or not 1 <= data[start + 2] >> 4 <= len(MP3_RATES):
            raise strange
        size = MP3_RATES[(data[start + 2] >> 4) - 1] * 1000 // 8 * _MP3_FRAME // SAMPLING_RATE
        start, bits, samples = start + size, bits + 8 * size, samples + _MP3_FRAME
    if not samples:
        raise strange
    return bits / samples * SAMPLING_RATE / 1000


def _encoded(wave: np.ndarray, codec: str, kilobits: float) -> bytes:
    """The bytes of a file at that rate."""
    file, low, high = io.BytesIO(), DISTURBANCES[codec].low, DISTURBANCES[codec].high
    level = min((high - kilobits) / (high - low), 0.9999)  # 1 itself is refused
    container, subtype, mode = CODECS[codec]
    soundfile.write(
        file, wave, SAMPLING_RATE, format=container, subtype=subtype, compression_level=level, bitrate_mode=mode
    )
    return file.getvalue()


def _mixed(wave: np.ndarray, other: np.ndarray, decibels: float) -> np.ndarray:
    """`other` added, its mean square `decibels` below the level of the speech."""
    gain = np.sqrt(speech_level(wave) / np.square(other).mean() / 10 ** (decibels / 10))
    return (wave + gain * other).astype(np.float32)


def _checked(wave: np.ndarray) -> np.ndarray:
    if not isinstance(wave, np.ndarray) or wave.ndim != 1 or not np.issubdtype(wave.dtype, np.floating):
        shape = getattr(wave, "shape", type(wave).__name__)
        raise AudioError(f"wave: is {shape}; give one channel of float samples at 16 kHz, shape (samples,).")
    if len(wave) == 0 or not np.isfinite(wave).all():
        raise AudioError("wave: is empty, or holds NaN or infinite samples.")
    if not wave.any():
        raise AudioError("wave: is silent, so that nothing can be set in proportion to it.")
    return wave.astype(np.float32, copy=False)


def _long_enough(name: str, wave: np.ndarray) -> np.ndarray:
    if len(wave) < MIN_SECONDS * SAMPLING_RATE:
        raise AudioError(f"{name}: leaves {len(wave) / SAMPLING_RATE:.3f} s; an encoder needs {MIN_SECONDS:g} s.")
    return wave


def _fitted(wave: np.ndarray, samples: int) -> np.ndarray:
    """Cut or filled up with silence to so many samples, float32."""
    return np.pad(wave, (0, max(0, samples - len(wave))))[:samples].astype(np.float32)


CODECS = {"MP3": ("MP3", "MPEG_LAYER_III", "CONSTANT"), "Opus": ("OGG", "OPUS", None)}
"""Container, subtype and bit rate mode for soundfile: this libsndfile has no modes for Opus, whose rate is variable."""

_NOISE = ("dB of speech over it", (30.0, 20.0, 15.0, 10.0, 5.0, 0.0, -5.0), -60.0, 100.0)

DISTURBANCES: dict[str, Disturbance] = {
    "white noise": Disturbance(lambda w, s, rng, _: white_noise(w, s, rng), *_NOISE),
    "babble": Disturbance(babble, *_NOISE),
    "hum 50 Hz": Disturbance(lambda w, s, rng, _: hum(w, s, rng, 50), *_NOISE),
    "hum 60 Hz": Disturbance(lambda w, s, rng, _: hum(w, s, rng, 60), *_NOISE),
    "reverberation": Disturbance(
        lambda w, s, rng, _: reverberation(w, s, rng), "s to decay by 60 dB", (0.2, 0.4, 0.8, 1.6), 0.05, 10.0
    ),
    "telephone": Disturbance(lambda w, s, *_: telephone(w, s), "calls in a row", (1, 2, 4), 1, 16, tuple(range(1, 17))),
    "MP3": Disturbance(lambda w, s, *_: mp3(w, s), "kbit/s", (64, 32, 24, 16, 8), 8, 160, MP3_RATES),
    "Opus": Disturbance(lambda w, s, *_: opus(w, s), "kbit/s", (32, 16, 12, 8, 6), 6, 256),
    "clipping": Disturbance(lambda w, s, *_: clipping(w, s), "share of samples", (0.01, 0.05, 0.1, 0.2, 0.4), 0, 0.99),
    "speed": Disturbance(lambda w, s, *_: speed(w, s), "times as fast", (0.7, 0.8, 0.9, 1.1, 1.2, 1.4), 0.25, 4),
    "truncation": Disturbance(lambda w, s, *_: truncation(w, s), "share cut off", (0.1, 0.25, 0.5, 0.75), 0, 0.99),
    "silence": Disturbance(lambda w, s, *_: silence(w, s), "s before and after", (0.5, 1, 2, 4), 0, 30),
}
"""All disturbances by name."""
