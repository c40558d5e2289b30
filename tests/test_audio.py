"""Every kind of recording becomes the same samples, and every broken one an error that names it."""

from __future__ import annotations

import io
import os
import re
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from clasp_lib.audio import duration, encode_audio, load_audio, resample, stream_audio
from clasp_lib.errors import AudioError

RATE = 16_000


def tone(seconds: float = 1.0, rate: int = RATE, hertz: float = 440.0) -> np.ndarray:
    """A sine that swells, so that no two stretches of it are alike."""
    time = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * time) * (0.2 + 0.8 * time / seconds)).astype(np.float32)


def loudest_hertz(samples: np.ndarray, rate: int = RATE) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * rate / len(samples))


def wav(data: bytes, channels: int = 1, rate: int = RATE) -> bytes:
    """A 16-bit WAV file whose header may say what no sane writer would."""
    second = (rate * 2 * channels) & 0xFFFFFFFF
    head = struct.pack("<IHHIIHH", 16, 1, channels, rate, second, 2 * channels, 16)
    return (
        b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt " + head + b"data" + struct.pack("<I", len(data)) + data
    )


def pcm(samples: np.ndarray) -> bytes:
    return (samples * 32767).astype("<i2").tobytes()


# What is read ------------------------------------------------------------------------------------------------------


def items_of_one_tone(folder: Path) -> Iterator[tuple[str, Any]]:
    samples = tone()
    path = folder / "tone.wav"
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    yield "path", path
    yield "str", str(path)
    yield "array", samples
    yield "double", samples.astype(np.float64)
    yield "array with its rate", {"array": samples, "sampling_rate": RATE}
    yield "list with its rate", {"array": samples.tolist(), "sampling_rate": RATE}
    yield "numpy's integers", {"array": samples, "sampling_rate": np.int32(RATE)}
    yield "bytes", {"bytes": path.read_bytes(), "path": None}
    yield "bytes before path", {"bytes": path.read_bytes(), "path": "nowhere.wav"}
    yield "path in a dictionary", {"bytes": None, "path": str(path)}
    yield "not contiguous", np.repeat(samples, 2)[::2]


def test_all_items_give_the_same_samples(tmp_path: Path) -> None:
    for kind, item in items_of_one_tone(tmp_path):
        samples = load_audio(item)
        assert samples.dtype == np.float32 and samples.flags.c_contiguous, kind
        np.testing.assert_allclose(samples, tone(), atol=1e-6, err_msg=kind)
        assert duration(item) == pytest.approx(1.0), kind


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
def test_integer_pcm_is_scaled_to_one(dtype: type) -> None:
    samples = tone(hertz=100)
    scale = float(np.iinfo(dtype).max)
    loaded = load_audio((samples * scale).astype(dtype))
    np.testing.assert_allclose(loaded, samples, atol=2.1 / scale + 1e-6)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_resampling_keeps_pitch_and_length(rate: int, tmp_path: Path) -> None:
    path = tmp_path / "tone.flac"
    soundfile.write(path, tone(2, rate, 1000), rate)
    for loaded in (load_audio(path), load_audio(tone(2, rate, 1000), source_rate=rate)):
        assert len(loaded) == pytest.approx(2 * RATE, abs=2)
        assert loudest_hertz(loaded) == pytest.approx(1000, abs=1)


def test_resampling_leaves_out_what_the_new_rate_cannot_hold() -> None:
    low, high = tone(1, 48_000, 1000), tone(1, 48_000, 11_000)
    difference = resample(low + high, 48_000, RATE) - resample(low, 48_000, RATE)
    assert np.abs(difference[200:-200]).max() < 1e-5  # the ends of the tone are clicks, which hold every frequency


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([tone(), np.zeros(RATE, np.float32)], axis=1), RATE, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(path), tone() / 2, atol=1e-6)


# Storing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["MP3", "OGG", "FLAC", "WAV"])
@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_compressed_audio_comes_back(format: str, rate: int) -> None:
    rng = np.random.default_rng(0)
    samples = np.convolve(rng.standard_normal(2 * rate), np.ones(8) / 8, "same").astype(np.float32)
    samples *= 0.5 / np.abs(samples).max()
    data = encode_audio(samples, rate, format)
    back = load_audio({"bytes": data, "path": None}, rate)
    assert len(back) == len(samples)
    assert np.corrcoef(back, samples)[0, 1] > (0.95 if format in ("MP3", "OGG") else 0.9999)
    assert data == encode_audio(samples, rate, format)
    if format in ("MP3", "OGG"):
        assert len(data) < len(samples)  # less than half of 16-bit PCM


def test_storing_cuts_off_what_is_too_loud() -> None:
    back = load_audio({"bytes": encode_audio(3 * tone(), RATE, "WAV")})
    assert 0.99 < np.abs(back).max() <= 1
    with pytest.raises(AudioError, match="'AAC' is not known"):
        encode_audio(tone(), RATE, "AAC")


# Streaming ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("seconds", [3.0, 3.217])
def test_streaming_gives_the_whole_recording(rate: int, seconds: float, tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.standard_normal((round(seconds * rate), 2)).astype(np.float32)
    soundfile.write(path, noise, rate, subtype="FLOAT")
    whole = load_audio(path)
    for block_seconds in (0.25, 0.5, 10):
        blocks = list(stream_audio(path, block_seconds))
        joined = np.concatenate(blocks)
        assert len(joined) == pytest.approx(len(whole), abs=1)
        n = min(len(joined), len(whole))
        np.testing.assert_allclose(joined[:n], whole[:n], atol=1e-5)
        assert len(blocks) >= seconds / block_seconds - 1


# What is refused ---------------------------------------------------------------------------------------------------


def bad_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """What can be wrong with a file; each is given a name of its own."""
    sound = 0.1 * np.random.default_rng(0).standard_normal(2 * RATE).astype(np.float32)
    yield "missing", folder / "missing.wav"
    yield "directory", folder
    yield "NUL in the name", folder / "a\0b.wav"
    yield "name too long", folder / ("x" * 5000)
    contents = {
        "empty.wav": b"",
        "text.wav": b"This is not a recording. " * 100,
        "picture.mp3": b"\x89PNG\r\n\x1a\n" + bytes(1000),
        "header-only.wav": wav(b""),
        "one-hertz.wav": wav(pcm(sound), rate=1),
        "ten-megahertz.wav": wav(pcm(sound), rate=10_000_000),
        "zero-hertz.wav": wav(pcm(sound), rate=0),
        "no-channels.wav": wav(pcm(sound), channels=0),
        "hundred-channels.wav": wav(pcm(sound), channels=100),
        "silent.wav": wav(bytes(2 * RATE)),
        "constant.wav": wav(pcm(np.full(RATE, 0.25))),
        "short.wav": wav(pcm(sound[:100])),
        "long.wav": wav(pcm(np.tile(sound, 31))),
    }
    for format, suffix in (("WAV", "wav"), ("FLAC", "flac"), ("OGG", "ogg"), ("MP3", "mp3")):
        data = encode_audio(sound, RATE, format)
        for share in (0.02, 0.3, 0.6, 0.95):
            contents[f"truncated-{share}.{suffix}"] = data[: int(share * len(data))]
    opus = io.BytesIO()
    soundfile.write(opus, sound, RATE, format="OGG", subtype="OPUS")
    contents["truncated-opus.ogg"] = opus.getvalue()[: len(opus.getvalue()) // 2]
    for name, value in (("nan.wav", np.nan), ("infinite.wav", np.inf)):
        broken = io.BytesIO()
        soundfile.write(broken, np.where(np.arange(len(sound)) == 9000, value, sound), RATE, "FLOAT", format="WAV")
        contents[name] = broken.getvalue()
    for name, content in contents.items():
        path = folder / name
        path.write_bytes(content)
        yield name, path


def test_a_broken_file_is_refused_by_name(tmp_path: Path) -> None:
    for what, path in bad_files(tmp_path):
        with pytest.raises(AudioError) as caught:
            pytest.fail(f"{what}: {len(load_audio(path))} samples were read")
        assert str(caught.value).startswith(str(path)), what
        if path.exists() if "\0" not in str(path) and len(path.name) < 255 else False:
            continue
        with pytest.raises(AudioError, match=re.escape(str(path))):
            duration(path)


def test_a_broken_file_is_refused_as_bytes(tmp_path: Path) -> None:
    for what, path in bad_files(tmp_path):
        if "\0" in str(path) or len(path.name) > 255 or not path.is_file():
            continue
        with pytest.raises(AudioError, match=re.escape("clip-7.ogg")):
            pytest.fail(f"{what}: {len(load_audio({'bytes': path.read_bytes(), 'path': 'clip-7.ogg'}))} samples read")


def test_streaming_refuses_what_loading_refuses(tmp_path: Path) -> None:
    # A long or a silent recording may be streamed; its windows are judged one by one.
    fine = {"silent.wav", "constant.wav", "short.wav", "long.wav", "header-only.wav"}
    for what, path in bad_files(tmp_path):
        if what in fine:
            continue
        with pytest.raises(AudioError, match=re.escape(str(path))):
            pytest.fail(f"{what}: {sum(map(len, stream_audio(path, 0.5)))} samples were streamed")


def test_whole_files_are_not_taken_for_truncated_ones(tmp_path: Path) -> None:
    data = bytearray(wav(pcm(tone())))
    assert len(load_audio({"bytes": bytes(data)})) == RATE
    assert len(load_audio({"bytes": bytes(data) + b"LIST\x04\0\0\0INFO"})) == RATE  # more than its header promises
    for offset in (4, 40):  # a program that writes to a pipe cannot know the sizes
        data[offset : offset + 4] = b"\xff" * 4
    assert len(load_audio({"bytes": bytes(data)})) == RATE
    for format, subtype in (
        ("AIFF", "PCM_16"),
        ("OGG", "OPUS"),
        ("WAV", "PCM_24"),
        ("RF64", "PCM_16"),
        ("AU", "FLOAT"),
    ):
        buffer = io.BytesIO()
        soundfile.write(buffer, tone(3), RATE, subtype, format=format)
        assert len(load_audio({"bytes": buffer.getvalue()})) == 3 * RATE, format


BAD_ITEMS: list[tuple[str, Any, str]] = [
    ("two dimensions", np.zeros((2, RATE), np.float32), r"\(2, 16000\)"),
    ("no dimension", {"array": np.float32(3), "sampling_rate": RATE}, "shape"),
    ("no samples", np.zeros(0, np.float32), "no samples"),
    ("unsigned", np.zeros(RATE, np.uint8), "uint8"),
    ("logical", np.zeros(RATE, bool), "bool"),
    ("complex", np.zeros(RATE, complex), "complex"),
    ("words", np.array(["a"] * RATE), "<U1"),
    ("objects", np.array([None] * RATE), "object"),
    ("NaN", np.where(np.arange(RATE) == 5, np.nan, tone()), "NaN or infinite"),
    ("infinite", np.where(np.arange(RATE) == 5, np.inf, tone()), "NaN or infinite"),
    ("too large for float32", tone().astype(np.float64) * 1e300, "NaN or infinite"),
    ("silent", np.zeros(RATE, np.float32), "silent"),
    ("constant", np.full(RATE, 0.3, np.float32), "silent"),
    ("short", tone(0.01), "at least 0.05 s"),
    ("long", np.tile(tone(), 61), "limit of 60 s"),
    ("rate of 1", {"array": tone(), "sampling_rate": 1}, "1 Hz is not plausible"),
    ("rate of ten million", {"array": tone(), "sampling_rate": 10_000_000}, "10000000 Hz is not plausible"),
    ("rate below zero", {"array": tone(), "sampling_rate": -16_000}, "not plausible"),
    ("rate as text", {"array": tone(), "sampling_rate": "16000"}, "whole number"),
    ("rate with a fraction", {"array": tone(), "sampling_rate": 16000.5}, "whole number"),
    ("no rate", {"array": tone()}, "'sampling_rate'"),
    ("ragged", {"array": [[1.0], [1.0, 2.0]], "sampling_rate": RATE}, "'array'"),
    ("no keys", {}, "neither 'array' nor 'bytes' nor 'path'"),
    ("other keys", {"samples": tone()}, "'samples'"),
    ("empty bytes", {"bytes": b"", "path": "x.wav"}, "x.wav"),
    ("text as bytes", {"bytes": "RIFF"}, "'bytes'"),
    ("path is a number", {"path": 5}, "5: cannot be opened"),
    ("nothing", None, "NoneType"),
    ("number", 3.0, "float"),
    ("bare bytes", b"RIFF", "bytes"),
    ("list", [0.1, 0.2], "list"),
]


@pytest.mark.parametrize(("item", "message"), [b[1:] for b in BAD_ITEMS], ids=[b[0] for b in BAD_ITEMS])
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_a_broken_item_is_refused_with_the_reason(item: Any, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        load_audio(item)


def test_a_rate_of_zero_is_not_taken_for_none() -> None:
    with pytest.raises(AudioError, match="0 Hz"):
        load_audio(tone(), source_rate=0)


def test_limits_can_be_moved() -> None:
    long = np.tile(tone(), 61)
    assert len(load_audio(long, max_seconds=None)) == len(long)
    assert len(load_audio(tone(0.01), min_seconds=0)) == 160
    with pytest.raises(AudioError, match=r"limit of 0\.5 s"):
        load_audio(tone(), max_seconds=0.5)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("read", [load_audio, duration, lambda path: list(stream_audio(path, 1.0))])
def test_a_pipe_does_not_hang(read: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "pipe.wav"
    os.mkfifo(path)

    def give_up(*_: object) -> None:
        raise TimeoutError("reading a pipe without a writer never ends")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(20)
    try:
        with pytest.raises(AudioError, match="not a regular file"):
            read(path)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "secret.wav"
    path.write_bytes(wav(pcm(tone())))
    path.chmod(0)
    with pytest.raises(AudioError, match=re.escape(str(path))):
        load_audio(path)


def test_a_loop_of_links_is_refused_by_name(tmp_path: Path) -> None:
    one, two = tmp_path / "one.wav", tmp_path / "two.wav"
    one.symlink_to(two)
    two.symlink_to(one)
    with pytest.raises(AudioError, match=re.escape(str(one))):
        load_audio(one)


def test_real_recordings_are_read(test_data: Path) -> None:
    folder = test_data / "real_speech" / "common_voice_100" / "en"
    if not folder.is_dir():
        pytest.skip(f"CLASP_TEST_DATA names a folder without this part of the developers' data: {folder}")
    files = sorted((folder / "audio").iterdir()) if (folder / "audio").is_dir() else sorted(folder.glob("*.ogg"))
    assert len(files) == 100
    for file in files:
        samples = load_audio(file)
        assert len(samples) / RATE == pytest.approx(duration(file), abs=0.01)
