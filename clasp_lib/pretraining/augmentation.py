"""What rooms, microphones and codecs do to speech: seven disturbances, for training and for measuring robustness.

Each takes a wave `(samples,)` at 16 kHz with unit variance, a generator of random numbers and other speech to borrow
from, and returns a wave. Only `speed` changes the length.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from scipy.fft import next_fast_len

from clasp_lib.audio import SAMPLING_RATE

Augmentation = Callable[[torch.Tensor, np.random.Generator, Sequence[torch.Tensor]], torch.Tensor]


def noise(wave: torch.Tensor, rng: np.random.Generator, others: Sequence[torch.Tensor]) -> torch.Tensor:
    """Steady noise at 5 to 30 dB, white to pink: its power falls with the frequency to the power of 0 to 1."""
    samples = next_fast_len(len(wave), real=True)
    spectrum = torch.fft.rfft(torch.from_numpy(rng.standard_normal(samples, np.float32)))
    frequency = torch.arange(1, len(spectrum) + 1, dtype=torch.float32)
    coloured = torch.fft.irfft(spectrum * frequency ** -rng.uniform(0, 0.5), samples)[: len(wave)]
    return _mixed(wave, coloured, rng.uniform(5, 30))


def babble(wave: torch.Tensor, rng: np.random.Generator, others: Sequence[torch.Tensor]) -> torch.Tensor:
    """Three other people speak at once, together 8 to 25 dB below the speaker."""
    crowd = torch.zeros_like(wave)
    for i in rng.integers(len(others), size=3):
        looped = others[i].repeat(-(-len(wave) // len(others[i])))[: len(wave)]
        crowd += torch.roll(looped, int(rng.integers(len(wave))))
    return _mixed(wave, crowd, rng.uniform(8, 25))


def reverberation(wave: torch.Tensor, rng: np.random.Generator, others: Sequence[torch.Tensor]) -> torch.Tensor:
    """A room: the direct sound, then noise that decays by 60 dB in 0.15 to 0.6 s."""
    from torchaudio.functional import fftconvolve

    seconds = rng.uniform(0.15, 0.6)
    time = torch.arange(int(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    echoes = torch.from_numpy(rng.standard_normal(len(time), np.float32)) * 10 ** (-3 * time / seconds)
    echoes *= 10 ** (-rng.uniform(0, 10) / 20) / echoes.norm()
    echoes[0] = 1.0
    whole = next_fast_len(len(wave) + len(echoes) - 1, real=True)
    padded = torch.nn.functional.pad(wave, (0, whole - len(wave) - len(echoes) + 1))
    return fftconvolve(padded, echoes)[: len(wave)]


def speed(wave: torch.Tensor, rng: np.random.Generator, others: Sequence[torch.Tensor]) -> torch.Tensor:
    """Played 5 to 20% too slowly or too quickly: tempo and pitch change together."""
    from torchaudio.functional import resample

    return resample(wave, 20, int(rng.choice([16, 17, 18, 19, 21, 22, 23, 24])))


def equalizer(wave: torch.Tensor, rng: np.random.Generator, others: Sequence[torch.Tensor]) -> torch.Tensor:
    """A microphone that colours the sound: smoothly over the frequencies, up to 12 dB louder or softer."""
    samples = next_fast_len(len(wave), real=True)
    frequency = np.linspace(0, SAMPLING_RATE / 2, samples // 2 + 1)
    corners = np.geomspace(60, SAMPLING_RATE / 2, 8)
    decibels = np.interp(np.log(frequency + 1), np.log(corners + 1), rng.uniform(-12, 12, len(corners)))
    gains = torch.from_numpy(10 ** (decibels / 20)).float()
    return torch.fft.irfft(torch.fft.rfft(wave, samples) * gains, samples)[: len(wave)]


def band_limit(wave: torch.Tensor, rng: np.random.Generator, others: Sequence[torch.Tensor]) -> torch.Tensor:
    """A telephone or a poor loudspeaker: nothing above 2.5 to 6 kHz."""
    from torchaudio.functional import resample

    narrow = int(rng.integers(5, 13))
    return torch.nn.functional.pad(resample(resample(wave, 16, narrow), narrow, 16), (0, 16))[: len(wave)]


def codec(wave: torch.Tensor, rng: np.random.Generator, others: Sequence[torch.Tensor]) -> torch.Tensor:
    """Once through MP3 (about 25 kbit/s) or Opus (about 10 kbit/s) at their strongest compression."""
    import soundfile

    container, subtype = (("MP3", "MPEG_LAYER_III"), ("OGG", "OPUS"))[rng.integers(2)]
    peak = float(wave.abs().max()) or 1.0
    file = io.BytesIO()
    quiet = (0.5 * wave / peak).numpy()
    soundfile.write(file, quiet, SAMPLING_RATE, format=container, subtype=subtype, compression_level=0.99)
    file.seek(0)
    decoded = torch.from_numpy(soundfile.read(file, dtype="float32")[0]) * (peak / 0.5)
    return torch.nn.functional.pad(decoded, (0, max(0, len(wave) - len(decoded))))[: len(wave)]


AUGMENTATIONS: dict[str, Augmentation] = {
    "noise": noise,
    "babble": babble,
    "reverberation": reverberation,
    "speed": speed,
    "equalizer": equalizer,
    "band limit": band_limit,
    "codec": codec,
}


SHARES = {
    "noise": 0.1,
    "babble": 0.08,
    "reverberation": 0.1,
    "speed": 0.12,
    "equalizer": 0.12,
    "band limit": 0.06,
    "codec": 0.02,
}
"""How much of the training speech each of them disturbs."""


def augment(
    wave: torch.Tensor, rng: np.random.Generator, others: Sequence[torch.Tensor], shares: Mapping[str, float]
) -> torch.Tensor:
    """Disturbed by one of `AUGMENTATIONS`, each with the probability of its share, or left as it is."""
    dice = rng.random()
    for name, share in shares.items():
        dice -= share
        if dice < 0:
            return AUGMENTATIONS[name](wave, rng, others)
    return wave


def _mixed(wave: torch.Tensor, other: torch.Tensor, decibels: float) -> torch.Tensor:
    """`other` added at a level of `decibels` below `wave`."""
    return wave + other * (wave.norm() / other.norm().clamp_min(1e-9) * 10 ** (-decibels / 20))
