"""Mutants of recordings: whichever way they come in, they are read whole and finite, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from clasp_lib.audio import MAX_SECONDS, SAMPLING_RATE, duration, encode_audio, load_audio, stream_audio
from clasp_lib.errors import AudioError
from hard.conftest import Ended
from hard.hammer import Hammer, Reader, hammer_on, in_two_parts

NAME = "mutant.sound"  # an ending that promises nothing: the content decides


def tone(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    """A swelling tone and a little noise, (samples, channels)."""
    time = np.arange(round(seconds * rate))[:, None] / rate
    noise = np.random.default_rng(rate).standard_normal((len(time), channels))
    return (0.4 * np.sin(2 * np.pi * 300 * time) * time / seconds + 0.02 * noise).astype(np.float32)


def written(folder: Path, format: str, *kinds: tuple[str, int, int]) -> list[bytes]:
    """Files of a format as libsndfile writes them: (subtype, rate, channels)."""
    found = []
    for subtype, rate, channels in kinds:
        file = folder / f"{subtype}-{rate}-{channels}"
        soundfile.write(file, tone(0.3, rate, channels), rate, format=format, subtype=subtype)
        found.append(file.read_bytes())
    return found


def reader(folder: Path, files: list[bytes]) -> Reader:
    """One that takes a mutant through all doors for sound."""
    file = folder / NAME

    def read(data: bytes) -> None:
        file.write_bytes(data)
        doors: list[Callable[[], Any]] = [
            lambda: load_audio(file),
            lambda: load_audio({"bytes": data, "path": NAME}),
            lambda: load_audio(file, 22_050, max_seconds=None),
            lambda: duration(file),
            lambda: list(stream_audio(file, 0.1)),
            lambda: list(stream_audio({"bytes": data, "path": NAME}, 10.0)),
        ]
        answers = [_opened(door) for door in doors]
        if isinstance(answers[0], np.ndarray):
            samples = answers[0]
            assert samples.dtype == np.float32 and samples.ndim == 1 and samples.flags.c_contiguous
            assert 0 < len(samples) <= MAX_SECONDS * SAMPLING_RATE + 1 and np.isfinite(samples).all()
            if isinstance(answers[1], np.ndarray):  # libsndfile asks a file for more than it asks of bytes
                np.testing.assert_array_equal(answers[1], samples)
            assert isinstance(answers[2], np.ndarray) and np.isfinite(answers[2]).all()
            assert 0 < answers[3] <= MAX_SECONDS
        for answer in answers[4:]:
            if isinstance(answer, list):
                assert all(np.isfinite(block).all() and block.dtype == np.float32 for block in answer)
        for answer in answers:
            if isinstance(answer, AudioError):
                raise answer

    return Reader(files, read, (NAME,))


def _opened(door: Callable[[], Any]) -> Any:
    try:
        return door()
    except AudioError as error:
        assert NAME in str(error), error
        return error


def wav(folder: Path) -> Reader:
    """Of three widths of number, and extensible."""
    kinds = (("PCM_16", 16_000, 1), ("FLOAT", 22_050, 2), ("PCM_24", 48_000, 1), ("PCM_U8", 8_000, 1))
    return reader(folder, written(folder, "WAV", *kinds) + written(folder, "WAVEX", ("PCM_16", 16_000, 3)))


def flac(folder: Path) -> Reader:
    return reader(folder, written(folder, "FLAC", ("PCM_16", 16_000, 1), ("PCM_24", 44_100, 2), ("PCM_S8", 8_000, 1)))


def mp3(folder: Path) -> Reader:
    made = [encode_audio(tone(0.5, rate)[:, 0], rate, "MP3") for rate in (16_000, 44_100)]
    return reader(folder, made + written(folder, "MP3", ("MPEG_LAYER_III", 22_050, 2)))


def ogg(folder: Path) -> Reader:
    made = [encode_audio(tone(0.3, rate)[:, 0], rate, "OGG") for rate in (16_000, 44_100)]
    return reader(folder, made + written(folder, "OGG", ("OPUS", 48_000, 1), ("VORBIS", 22_050, 2)))


def other_sound(folder: Path) -> Reader:
    """Formats that nobody was promised and libsndfile reads all the same."""
    made = written(folder, "AIFF", ("PCM_16", 16_000, 1)) + written(folder, "AU", ("ULAW", 8_000, 1))
    made += written(folder, "W64", ("PCM_16", 16_000, 1)) + written(folder, "CAF", ("ALAC_16", 16_000, 1))
    made += written(folder, "RF64", ("PCM_16", 16_000, 1)) + written(folder, "WAV", ("MS_ADPCM", 16_000, 1))
    return reader(folder, made)


@in_two_parts
@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "ogg", "other_sound"])
def test_no_mutant_of_a_recording_does_harm(kind: str, numbers: range, hammer: Hammer, ended: Ended) -> None:
    counts = hammer_on(hammer, f"hard.test_fuzz_audio:{kind}", numbers, ended)
    assert counts["refused"] > len(numbers) / 10  # else the wounds are too small to tell anything


def flac_of(frames: int) -> bytes:
    """A third of a second whose header says that it has so many frames (36 bits of STREAMINFO)."""
    data = encode_audio(tone(0.3, 16_000)[:, 0], 16_000, "FLAC")
    field = int.from_bytes(data[18:26], "big") >> 36 << 36 | frames
    return data[:18] + field.to_bytes(8, "big") + data[26:]


def test_a_header_is_not_believed_before_the_samples_are_there(tmp_path: Path, ended: Ended) -> None:
    """68 thousand million frames would be 256 GB; none at all is what is written to a pipe."""
    assert len(load_audio({"bytes": flac_of(4_800)})) == 4_800
    for name, frames, wanted in (("endless", 2**36 - 1, "truncated"), ("unknown", 0, "does not say how long it is")):
        file = tmp_path / f"{name}.flac"
        file.write_bytes(flac_of(frames))
        with ended.refused("audio files", f"{name} FLAC", file, wanted):
            load_audio(file, max_seconds=None)
        with ended.refused("audio files", f"{name} FLAC, in blocks", file, wanted):
            list(stream_audio(file, 10.0))
