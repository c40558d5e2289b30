"""Load, check, resample and store recordings.

A recording inside the library is a 1-D float32 array at a known sampling rate. Everything that a caller may hand in
(a path, an array, the `{"bytes", "path"}` and `{"array", "sampling_rate"}` dictionaries of `datasets`) becomes one
through `load_audio`, which raises an `AudioError` rather than let a broken clip through.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import soundfile
import soxr

from clasp_lib.errors import AudioError

AudioItem: TypeAlias = "str | Path | np.ndarray | Mapping[str, Any]"

SAMPLING_RATE = 16_000
"""What every speech encoder of the book expects, in Hz."""

MIN_SECONDS = 0.05
"""Below this there is no speech to encode: about two frames of the slowest encoder."""

MAX_SECONDS = 60.0
"""Longest clip that is encoded in one piece; longer recordings belong to `clasp_lib.locate`."""

_RATES = (1_000, 768_000)
_MAX_CHANNELS = 64
_OGG_PAGE = 65_307  # bytes, at most
_AT_ONCE = 2**25  # samples of all channels that are decoded in one go: a header may promise what is not there
_UNKNOWN = 2**62  # frames, or more, that libsndfile takes a FLAC stream to have whose writer did not know
_LOUDEST = 2**31  # as of 32-bit PCM that was not scaled; the squares of much larger numbers overflow


def load_audio(
    item: AudioItem,
    sampling_rate: int = SAMPLING_RATE,
    *,
    source_rate: int | None = None,
    min_seconds: float = MIN_SECONDS,
    max_seconds: float | None = MAX_SECONDS,
) -> np.ndarray:
    """Return one recording as mono float32 samples, shape `(samples,)`, at `sampling_rate` Hz.

    Args:
        item: a path; a 1-D array; `{"array", "sampling_rate"}`; or `{"bytes", "path"}`, where `bytes` is a whole
            encoded file (WAV, FLAC, MP3, Ogg) and wins over `path` if both are given.
        sampling_rate: the rate wanted, in Hz.
        source_rate: the rate of a bare array, in Hz; `sampling_rate` if not given.
        min_seconds, max_seconds: lengths outside are refused; `max_seconds=None` lifts the limit.

    Raises:
        AudioError: missing, empty, truncated or not audio; several dimensions; NaN or infinite samples; digital
            silence; too short or too long; absurd sampling rate. The message names the file.
    """
    name = describe(item)
    _check_rate(sampling_rate, "sampling_rate")
    if isinstance(item, str | Path):
        samples, rate = _read(_existing_file(item), name, max_seconds)
    elif isinstance(item, Mapping):
        samples, rate = _from_mapping(item, name, max_seconds)
    elif isinstance(item, np.ndarray):
        samples, rate = item, sampling_rate if source_rate is None else source_rate
    else:
        raise AudioError(
            f"{name}: cannot be read as audio. "
            "Give a path, a 1-D array, {'array', 'sampling_rate'} or {'bytes', 'path'}."
        )
    samples = _checked(samples, rate, name, min_seconds, max_seconds)
    return resample(samples, rate, sampling_rate)


def describe(item: object) -> str:
    """A short name for a recording, for messages: its path, or what kind of thing it is."""
    if isinstance(item, str | Path):
        return str(item)
    if isinstance(item, Mapping):
        return str(item.get("path") or f"audio given as {{{', '.join(map(repr, item))}}}")
    if isinstance(item, np.ndarray):
        return f"array of shape {item.shape}"
    return f"{type(item).__name__} object"


def resample(samples: np.ndarray, source_rate: int, target_rate: int) -> np.ndarray:
    """Band-limited resampling (soxr, high quality) of `(samples,)` from one rate in Hz to another."""
    if source_rate == target_rate:
        return np.ascontiguousarray(samples, dtype=np.float32)
    return soxr.resample(samples.astype(np.float32, copy=False), source_rate, target_rate)


def encode_audio(samples: np.ndarray, sampling_rate: int, format: str = "MP3") -> bytes:
    """Compress `(samples,)` in [-1, 1] into the bytes of a file: "MP3", "OGG" (Vorbis), "FLAC" or "WAV"."""
    subtype = {"MP3": "MPEG_LAYER_III", "OGG": "VORBIS", "FLAC": "PCM_16", "WAV": "PCM_16"}.get(format)
    if subtype is None:
        raise AudioError(f"format {format!r} is not known. Use 'MP3', 'OGG', 'FLAC' or 'WAV'.")
    buffer = io.BytesIO()
    try:
        soundfile.write(buffer, np.clip(samples, -1.0, 1.0), sampling_rate, format=format, subtype=subtype)
    except soundfile.LibsndfileError as error:  # MP3 has nine rates, and none above 48 kHz
        raise AudioError(f"{format} at {sampling_rate} Hz: cannot be written ({error.error_string}).") from error
    return _with_fixed_serial(buffer.getvalue()) if format == "OGG" else buffer.getvalue()


def duration(item: AudioItem) -> float:
    """Length in seconds, read from the header where there is one."""
    if isinstance(item, str | Path):
        with _opened(_existing_file(item), describe(item)) as file:
            return file.frames / file.samplerate
    return len(load_audio(item, max_seconds=None)) / SAMPLING_RATE


def stream_audio(
    item: AudioItem, block_seconds: float, sampling_rate: int = SAMPLING_RATE, *, source_rate: int | None = None
) -> Iterator[np.ndarray]:
    """Yield a recording of any length in mono blocks of about `block_seconds`, resampled as one signal.

    A file is read in constant memory. Digital silence passes, and so does what is short: nobody knows what is to come.

    Args:
        source_rate: the rate of a bare array, in Hz; `sampling_rate` if not given.

    Raises:
        AudioError: as `load_audio`; what is wrong further on in a file is found when it is reached.
    """
    name = describe(item)
    if isinstance(item, Mapping) and item.get("array") is None and item.get("bytes") is None and item.get("path"):
        item = item["path"]
    data = item.get("bytes") if isinstance(item, Mapping) and item.get("array") is None else None
    if isinstance(data, bytes | bytearray) and data:
        yield from _stream_file(io.BytesIO(data), name, block_seconds, sampling_rate)
    elif isinstance(item, str | Path):
        yield from _stream_file(_existing_file(item), name, block_seconds, sampling_rate)
    else:
        rate = sampling_rate if source_rate is None else source_rate
        if isinstance(item, Mapping) and item.get("sampling_rate"):
            rate = item["sampling_rate"]
        samples = load_audio(item, rate, source_rate=rate, max_seconds=None)
        size = max(1, round(block_seconds * rate))
        yield from _resampled((samples[i : i + size] for i in range(0, len(samples), size)), rate, sampling_rate)


def stream_chunks(
    chunks: Iterable[np.ndarray], source_rate: int, sampling_rate: int = SAMPLING_RATE
) -> Iterator[np.ndarray]:
    """The same for sound that comes in chunks, as from a microphone: 1-D arrays of any length at `source_rate` Hz.

    How the sound is divided into chunks changes the blocks that come out, and not one of their samples.

    Raises:
        AudioError: a chunk that is no 1-D array or holds NaN or infinite samples; the message gives its number, the
            first is number 0. An absurd rate.
    """
    _check_rate(source_rate, "chunks of sound")
    named = ((f"chunk number {number}", chunk) for number, chunk in enumerate(chunks))
    yield from _resampled((_as_floats(chunk, name) for name, chunk in named), int(source_rate), sampling_rate)


def _stream_file(
    source: Path | io.BytesIO, name: str, block_seconds: float, sampling_rate: int
) -> Iterator[np.ndarray]:
    with _opened(source, name) as file:
        _check_format(file.samplerate, file.channels, name)
        size = max(1, round(block_seconds * file.samplerate))
        yield from _resampled(_blocks(file, name, size), file.samplerate, sampling_rate)


def _blocks(file: soundfile.SoundFile, name: str, size: int) -> Iterator[np.ndarray]:
    while len(mono := _mono(file, name, size)):
        yield _finite(mono, name)
        if len(mono) < size:
            return


def _resampled(chunks: Iterable[np.ndarray], source_rate: int, target_rate: int) -> Iterator[np.ndarray]:
    """Chunks as one signal at another rate; soxr gives the same samples however the signal is divided."""
    if source_rate == target_rate:
        yield from (chunk for chunk in chunks if len(chunk))
        return
    resampler = soxr.ResampleStream(source_rate, target_rate, 1, dtype="float32")
    for chunk in chunks:
        if len(out := resampler.resample_chunk(chunk)):
            yield out
    if len(tail := resampler.resample_chunk(np.zeros(0, np.float32), last=True)):
        yield tail


def _existing_file(path: str | Path) -> Path:
    try:
        path = Path(path)
        if not path.exists():
            raise AudioError(f"{path}: there is no such file.")
        if not path.is_file():
            raise AudioError(f"{path}: is not a regular file. Give the path of one recording.")
        if path.stat().st_size == 0:
            raise AudioError(f"{path}: is empty (0 bytes). The recording or download was probably interrupted.")
    except (OSError, TypeError, ValueError) as error:  # a symlink loop, no permission, a NUL byte in the name
        if isinstance(error, AudioError):
            raise
        reason = getattr(error, "strerror", None) or error  # without the name once more
        raise AudioError(f"{path!s}: cannot be opened ({reason}).") from error
    return path


def _opened(source: Any, name: str) -> soundfile.SoundFile:
    _check_whole(source, name)
    if isinstance(source, Path):  # soundfile wants names in strict UTF-8, which those of another system may not be
        source = os.fspath(source) if os.name == "nt" else os.fsencode(source)
    try:
        file = soundfile.SoundFile(source)
    except (soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
        reason = getattr(error, "error_string", error)  # without the name once more
        raise AudioError(
            f"{name}: is not audio that can be read, or its header is damaged ({reason}). Use WAV, FLAC, MP3 or Ogg."
        ) from error
    if file.frames >= _UNKNOWN:
        file.close()
        raise AudioError(f"{name}: does not say how long it is, as if written to a pipe. Save it once more as a file.")
    return file


def _check_rate(rate: object, name: str) -> None:
    if not isinstance(rate, int | np.integer) or isinstance(rate, bool):
        raise AudioError(f"{name}: sampling rate {rate!r} is not a whole number of Hz.")
    _check_format(int(rate), 1, name)


def _check_format(rate: int, channels: int, name: str) -> None:
    if not _RATES[0] <= rate <= _RATES[1]:
        raise AudioError(f"{name}: sampling rate {rate} Hz is not plausible; expected {_RATES[0]} to {_RATES[1]} Hz.")
    if not 1 <= channels <= _MAX_CHANNELS:
        raise AudioError(f"{name}: has {channels} channels; expected 1 to {_MAX_CHANNELS}.")


def _read(source: Any, name: str, max_seconds: float | None) -> tuple[np.ndarray, int]:
    with _opened(source, name) as file:
        _check_format(file.samplerate, file.channels, name)
        _check_longest(file.frames / file.samplerate, name, max_seconds)  # before the samples fill the memory
        parts = list(_blocks(file, name, max(1, _AT_ONCE // file.channels)))
        return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.float32), *parts]), file.samplerate


def _mono(file: soundfile.SoundFile, name: str, frames: int) -> np.ndarray:
    """The next `frames` frames, or as many as are left, averaged over the channels."""
    try:
        here = file.tell()
        samples = file.read(frames, dtype="float32", always_2d=True)  # (frames, channels)
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(f"{name}: cannot be decoded to its end ({error}). The file is probably truncated.") from error
    if len(samples) < min(frames, file.frames - here):
        raise AudioError(
            f"{name}: is truncated: {here + len(samples)} of the {file.frames} frames its header promises. "
            "Copy it again."
        )
    return samples.mean(axis=1)


def _check_whole(source: Any, name: str) -> None:
    """Refuse a WAV, AIFF or Ogg file that breaks off: libsndfile reads what is there as if it were all."""
    if isinstance(source, io.BytesIO):
        _check_container(source, name)
        source.seek(0)
    else:
        try:
            with open(source, "rb") as file:
                _check_container(file, name)
        except OSError as error:
            raise AudioError(f"{name}: cannot be opened ({error}).") from error


def _check_container(file: BinaryIO, name: str) -> None:
    head, length = file.read(8), file.seek(0, io.SEEK_END)
    if head[:4] in (b"RIFF", b"FORM"):
        promised = int.from_bytes(head[4:], "little" if head[:4] == b"RIFF" else "big") + 8
        # One byte of padding may be missing. Who writes to a pipe does not know the size and puts the largest there.
        whole = promised - 1 <= length or promised >= 0x7FFF0000
    elif head[:4] == b"OggS":
        file.seek(max(0, length - _OGG_PAGE))
        page = file.read().rpartition(b"OggS")[2]  # the last one, without its four letters
        segments = page[22] if len(page) > 22 else 255
        whole = len(page) >= 23 + segments + sum(page[23 : 23 + segments]) and bool(page[1] & 4)  # 4: end of stream
    else:
        return
    if not whole:
        raise AudioError(f"{name}: is truncated: the file breaks off before the end of the recording. Copy it again.")


def _from_mapping(item: Mapping[str, Any], name: str, max_seconds: float | None) -> tuple[np.ndarray, int]:
    if item.get("array") is not None:
        if not item.get("sampling_rate"):
            raise AudioError(f"{name}: an 'array' needs its 'sampling_rate' in Hz beside it.")
        try:
            return np.asarray(item["array"]), item["sampling_rate"]
        except ValueError as error:
            raise AudioError(f"{name}: 'array' is not one row of numbers ({error}).") from error
    data = item.get("bytes")
    if data is not None:
        if not isinstance(data, bytes | bytearray) or len(data) == 0:
            raise AudioError(f"{name}: 'bytes' must be the content of an audio file and not empty.")
        return _read(io.BytesIO(data), name, max_seconds)
    if item.get("path"):
        return _read(_existing_file(item["path"]), name, max_seconds)
    raise AudioError(f"{name}: has neither 'array' nor 'bytes' nor 'path'.")


def _with_fixed_serial(ogg: bytes) -> bytes:
    """Give an Ogg stream the serial number 0 instead of a random one, so that the same samples give the same bytes.

    Each page carries a checksum. It is a remainder of polynomials over GF(2), hence linear: a change of the serial
    number changes it by that number times a power of x (Ogg: RFC 3533, section 6).
    """
    data, start = bytearray(ogg), 0
    while start < len(data):
        segments = data[start + 26]
        end = start + 27 + segments + sum(data[start + 27 : start + 27 + segments])
        serial = int.from_bytes(data[start + 14 : start + 18], "big")
        checksum = int.from_bytes(data[start + 22 : start + 26], "little")
        checksum ^= _gf2_product(serial, _gf2_power_of_x(32 + 8 * (end - start - 18)))
        data[start + 14 : start + 18] = bytes(4)
        data[start + 22 : start + 26] = checksum.to_bytes(4, "little")
        start = end
    return bytes(data)


def _gf2_product(a: int, b: int) -> int:
    """Product of two polynomials over GF(2) modulo that of Ogg's checksum."""
    product = 0
    for bit in reversed(range(32)):
        product = product << 1 ^ (0x104C11DB7 if product >> 31 else 0) ^ (a if b >> bit & 1 else 0)
    return product


def _gf2_power_of_x(exponent: int) -> int:
    result, factor = 1, 2
    while exponent:
        result = _gf2_product(result, factor) if exponent & 1 else result
        factor, exponent = _gf2_product(factor, factor), exponent >> 1
    return result


def _checked(samples: np.ndarray, rate: int, name: str, min_seconds: float, max_seconds: float | None) -> np.ndarray:
    _check_kind(samples, name)
    _check_rate(rate, name)
    if len(samples) == 0:
        raise AudioError(f"{name}: holds no samples.")
    seconds = len(samples) / rate
    if seconds < min_seconds:
        raise AudioError(f"{name}: lasts {seconds:.3f} s; an encoder needs at least {min_seconds:g} s.")
    _check_longest(seconds, name, max_seconds)
    samples = _as_floats(samples, name)
    if np.ptp(samples) < 1e-6:
        raise AudioError(f"{name}: is silent (every sample has the same value). Check the microphone or the file.")
    return samples


def _check_kind(samples: np.ndarray, name: str) -> None:
    if not isinstance(samples, np.ndarray):
        raise AudioError(f"{name}: is a {type(samples).__name__}; give a 1-D array of samples.")
    if samples.ndim != 1:
        raise AudioError(f"{name}: has shape {samples.shape}; give one channel, shape (samples,).")
    if not (np.issubdtype(samples.dtype, np.floating) or np.issubdtype(samples.dtype, np.signedinteger)):
        raise AudioError(
            f"{name}: holds {samples.dtype} values; expected float samples in [-1, 1] or signed integer PCM."
        )


def _as_floats(samples: np.ndarray, name: str) -> np.ndarray:
    """Float32 in [-1, 1] from floats or signed integers `(samples,)`, all of them finite."""
    _check_kind(samples, name)
    if np.issubdtype(samples.dtype, np.integer):
        samples = samples / -float(np.iinfo(samples.dtype).min)
    return _finite(samples.astype(np.float32, copy=False), name)


def _finite(samples: np.ndarray, name: str) -> np.ndarray:
    if not np.isfinite(samples).all():
        raise AudioError(f"{name}: holds NaN or infinite samples. Re-export the recording.")
    if (loudest := max(samples.max(initial=0), -samples.min(initial=0))) > _LOUDEST:
        raise AudioError(f"{name}: holds samples up to {loudest:g}; expected -1 to 1. Re-export the recording.")
    return samples


def _check_longest(seconds: float, name: str, max_seconds: float | None) -> None:
    if max_seconds is not None and seconds > max_seconds:
        raise AudioError(
            f"{name}: lasts {seconds:.1f} s, more than the limit of {max_seconds:g} s for one clip. "
            "Cut it, or use clasp_lib.locate, which reads recordings of any length in windows."
        )
