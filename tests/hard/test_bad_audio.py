"""Broken recordings at every door that takes one: each is refused by name, with what is wrong and what would be right.

Doors: `load_audio`, `stream_audio`, `CLASP.encode_speech`, `SpeechIndex.build` (which raises, or reports what it left
out), `locate`, `read_recordings`, `extract_features`, and the demo.
"""

from __future__ import annotations

import io
import os
import re
import socket
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import RATE, Clip, Encoders

from clasp_lib import CLASP, SpeechIndex, locate
from clasp_lib.audio import duration, encode_audio, load_audio, stream_audio, stream_chunks
from clasp_lib.demo.desk import Desk
from clasp_lib.demo.limits import Limits, Refused
from clasp_lib.errors import AudioError, ClaspError
from clasp_lib.features import extract_features
from clasp_lib.speech_brown import dataset_of, read_recordings
from hard.conftest import Ended, check_message, within

GROUP = "bad audio"
NO_AUDIO = "is not audio that can be read.*Use WAV, FLAC, MP3 or Ogg"
CUT = "is truncated.*Copy it again|cannot be decoded to its end.*truncated"
SILENT = "is silent.*Check the microphone"


def noise(seconds: float = 0.5, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """Float32 (samples,), or (samples, channels)."""
    samples = 0.1 * np.random.default_rng(0).standard_normal((round(seconds * rate), channels))
    return samples.astype(np.float32).squeeze()


def wav(data: bytes, channels: int = 1, rate: int = RATE, bits: int = 16) -> bytes:
    """A PCM file whose header may say what no sane writer would."""
    block = channels * bits // 8
    second = rate * block & 0xFFFFFFFF
    head = struct.pack("<IHHIIHH", 16, 1, channels, rate, second, block & 0xFFFF, bits)
    return (
        b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt " + head + b"data" + struct.pack("<I", len(data)) + data
    )


def pcm(samples: np.ndarray) -> bytes:
    return (samples * 32_767).astype("<i2").tobytes()


def written(format: str, subtype: str, samples: np.ndarray | None = None, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, noise(rate=rate) if samples is None else samples, rate, subtype, format=format)
    return file.getvalue()


def floats(value: float, subtype: str = "FLOAT") -> bytes:
    """A recording in which one sample has this value."""
    samples = noise().astype(np.float64)
    samples[4_000] = value
    return written("WAV", subtype, samples)


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr("recording.wav", wav(pcm(noise())))
    return file.getvalue()


def broken_files() -> Iterator[tuple[str, bytes, str]]:
    """Names, contents, and what must be said of them."""
    yield "empty.wav", b"", r"is empty \(0 bytes\).*interrupted"
    yield "one-byte.wav", b"R", NO_AUDIO
    whole = wav(pcm(noise()))
    for name, length in (("in-riff", 3), ("before-wave", 8), ("before-fmt", 12), ("in-fmt", 22), ("before-data", 36)):
        yield f"{name}.wav", whole[:length], f"{CUT}|{NO_AUDIO}"
    yield "before-samples.wav", whole[:44], CUT
    yield "in-samples.wav", whole[: len(whole) // 2], CUT
    yield "header-alone.wav", wav(b""), "holds no samples|lasts 0"
    for format, suffix in (("FLAC", "flac"), ("MP3", "mp3"), ("OGG", "ogg")):
        data = encode_audio(noise(2), RATE, format)
        for length in (2, 4, 20, 60, len(data) // 3, len(data) * 9 // 10):
            yield f"cut-at-{length}.{suffix}", data[:length], f"{CUT}|{NO_AUDIO}"
    opus = written("OGG", "OPUS")
    yield "cut-opus.opus", opus[: len(opus) // 2], f"{CUT}|{NO_AUDIO}"
    aiff = written("AIFF", "PCM_16")
    yield "cut.aiff", aiff[: len(aiff) // 2], CUT
    yield "text.wav", b"This is not a recording, whatever it is called.\n" * 40, NO_AUDIO
    yield "page.mp3", b"<!DOCTYPE html><html><body>Please log in.</body></html>" * 40, NO_AUDIO
    yield "picture.ogg", b"\x89PNG\r\n\x1a\n" + bytes(2_000), NO_AUDIO
    yield "archive.flac", archive(), NO_AUDIO
    yield (
        "pickle.wav",
        b"\x80\x04\x95\x1e\0\0\0\0\0\0\0\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R." * 30,
        NO_AUDIO,
    )
    yield "zeros.wav", bytes(40_000), NO_AUDIO
    yield "samples-without-header.raw", pcm(noise()), NO_AUDIO
    yield "zero-hertz.wav", wav(pcm(noise()), rate=0), f"{NO_AUDIO}|0 Hz is not plausible; expected 1000 to 768000"
    yield "one-hertz.wav", wav(pcm(noise()), rate=1), "1 Hz is not plausible; expected 1000 to 768000 Hz"
    yield "ten-megahertz.wav", wav(pcm(noise()), rate=10_000_000), "10000000 Hz is not plausible; expected 1000"
    yield "no-channels.wav", wav(pcm(noise()), channels=0), f"{NO_AUDIO}|0 channels"
    yield "65-channels.wav", wav(pcm(noise(0.5, channels=65)), channels=65), "65 channels; expected 1 to 64"
    yield "300-channels.wav", wav(pcm(noise(0.5, channels=300)), channels=300), "300 channels; expected 1 to 64"
    yield "65535-channels.wav", wav(pcm(noise(4)), channels=65_535), f"{NO_AUDIO}|65535 channels"
    yield "nan.wav", floats(np.nan), "NaN or infinite samples. Re-export"
    yield "infinite.wav", floats(np.inf), "NaN or infinite samples. Re-export"
    yield "minus-infinite.wav", floats(-np.inf), "NaN or infinite samples. Re-export"
    yield "nan-in-doubles.wav", floats(np.nan, "DOUBLE"), "NaN or infinite samples. Re-export"
    yield "beyond-float32.wav", floats(1e300, "DOUBLE"), "NaN or infinite samples. Re-export"
    yield "as-loud-as-a-star.wav", floats(1e30), "holds samples up to 1e\\+30; expected -1 to 1"
    yield "silent.wav", wav(bytes(RATE)), SILENT
    yield "nothing-but-dc.wav", wav(pcm(np.full(RATE, 0.25))), SILENT
    yield "channels-that-cancel.wav", wav(pcm(np.stack([noise(), -noise()], 1)), channels=2), SILENT
    yield "one-sample.wav", wav(pcm(noise()[:1])), r"lasts 0\.000 s; an encoder needs at least 0\.05 s"
    yield "ten-milliseconds.wav", wav(pcm(noise()[:160])), r"lasts 0\.010 s; an encoder needs at least 0\.05 s"
    yield "a-minute-and-more.wav", wav(pcm(np.tile(noise(), 121))), "lasts 60.5 s, more than the limit of 60 s.*locate"


FILES = {name: (content, said) for name, content, said in broken_files()}
STREAMED = ("silent", "nothing", "channels-that", "one-sample", "ten-milli", "a-minute", "header-alone")
"""Beginnings of names: a stream does not know what is to come, and a long recording belongs there."""


@pytest.fixture(scope="module")
def good(clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "good.wav"
    soundfile.write(path, clips[0].samples, RATE)
    return path


@pytest.fixture(scope="module")
def found(model: CLASP, good: Path) -> SpeechIndex:
    """An index of one good recording."""
    return SpeechIndex.build(model, [good])


def said_of(path: Path, said: str) -> tuple[Any, ...]:
    return path.name, re.compile(said, re.DOTALL)


@pytest.mark.parametrize("name", FILES)
def test_a_broken_file_is_refused_at_every_door(
    name: str, model: CLASP, good: Path, found: SpeechIndex, tmp_path: Path, ended: Ended
) -> None:
    content, said = FILES[name]
    path = tmp_path / name
    path.write_bytes(content)
    wanted = said_of(path, said)
    doors: dict[str, Callable[[], object]] = {
        "load_audio": lambda: load_audio(path),
        "load_audio, bytes": lambda: load_audio({"bytes": content, "path": name}),
        "encode_speech": lambda: model.encode_speech([good, path]),
        "SpeechIndex.build": lambda: SpeechIndex.build(model, [path, good]),
        "SpeechIndex.search": lambda: found.search(path),
    }
    if not name.startswith(STREAMED):
        doors["stream_audio"] = lambda: list(stream_audio(path, 0.1))
        doors["locate"] = lambda: locate(model, path, "anything")
    with within(60):
        for door, call in doors.items():
            if content or "bytes" not in door:
                with ended.refused(GROUP, f"{name}: {door}", *wanted) as caught:
                    call()
                assert isinstance(caught.value, AudioError)


def test_of_a_folder_of_broken_files_the_good_one_is_taken(
    model: CLASP, good: Path, tmp_path: Path, ended: Ended
) -> None:
    rows = ["file,text", "good.wav,a good one"]
    (tmp_path / "good.wav").write_bytes(good.read_bytes())
    for number, (name, (content, _)) in enumerate(FILES.items()):
        (tmp_path / name).write_bytes(content)
        rows.append(f"{name},text number {number}")
    (tmp_path / "metadata.csv").write_text("\n".join(rows), "utf-8")
    dataset, skipped = read_recordings(tmp_path, on_error="skip")
    assert dataset["id"] == ["good.wav"] and [clip.id for clip in skipped] == list(FILES)
    for clip in skipped:
        check_message(clip.reason, *said_of(tmp_path / clip.id, FILES[clip.id][1]))
        ended(GROUP, f"{clip.id}: read_recordings, skip", "skipped with a report")
    with pytest.raises(AudioError, match=re.escape(next(iter(FILES)))):
        read_recordings(tmp_path)
    index = SpeechIndex.build(model, tmp_path, on_error="skip")
    assert len(index) == 1 and [Path(clip.id).name for clip in index.skipped] == list(FILES)
    for clip in index.skipped:
        name = Path(clip.id).name
        check_message(clip.reason, *said_of(tmp_path / name, FILES[name][1]))
        ended(GROUP, f"{name}: SpeechIndex.build, skip", "skipped with a report")


def test_features_leave_out_broken_clips_and_say_why(encoders: Encoders, good: Path, ended: Ended) -> None:
    def row(name: str, content: bytes) -> dict[str, Any]:
        known = {"id": name, "sentence_id": name, "text": name, "category": "", "voice": "", "duration": 1.0}
        return known | {"audio": {"bytes": content, "path": name}}

    broken = {name: content for name, (content, _) in FILES.items() if content}
    dataset = dataset_of([row("good.wav", good.read_bytes()), *(row(*pair) for pair in broken.items())])
    features = extract_features(dataset, *encoders, on_error="skip")
    assert len(features) == 1 and [clip.id for clip in features.skipped] == list(broken)
    for clip in features.skipped:
        check_message(clip.reason, re.compile(FILES[clip.id][1], re.DOTALL))
        ended(GROUP, f"{clip.id}: extract_features, skip", "skipped with a report")
    with pytest.raises(AudioError):
        extract_features(dataset, *encoders)


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith(("a-minute", "one-byte"))])
def test_the_demo_refuses_a_broken_upload_and_keeps_nothing(
    name: str, model: CLASP, found: SpeechIndex, tmp_path: Path, ended: Ended
) -> None:
    desk = Desk(model, found, Limits(recording_minutes=0.5, spoken_query_seconds=5), tmp_path)
    for door, ask in (
        ("demo, spoken query", lambda file: desk.search_by_speech(str(file), 3, {})),
        ("demo, recording", lambda file: desk.take("somebody", str(file), name)),
    ):
        file = tmp_path / f"{len(door)}" / name
        file.parent.mkdir()
        file.write_bytes(FILES[name][0])
        with ended.refused(GROUP, f"{name}: {door}") as caught:
            ask(file)
        assert isinstance(caught.value, Refused) and str(tmp_path) not in str(caught.value)
        assert not file.exists() and not [path for path in tmp_path.rglob("*") if path.is_file()]


# Places ------------------------------------------------------------------------------------------------------------


def places(folder: Path) -> Iterator[tuple[str, str | Path, str]]:
    """Where no recording is: how it is called here, the path, and what must be said of it."""
    missing = "there is no such file"
    yield "missing", folder / "missing.wav", missing
    yield "in a folder that is missing", folder / "none" / "x.wav", missing
    yield "no name", "", "is not a regular file|no such file"
    yield "directory", folder, "is not a regular file. Give the path of one recording"
    yield "NUL in the name", folder / "a\0b.wav", "cannot be opened|no such file"
    yield "name too long", folder / ("x" * 300), "cannot be opened|no such file"
    yield "below a file", folder / "plain.wav" / "x.wav", f"{missing}|cannot be opened"
    yield "address", "https://example.org/one.wav", missing
    if os.name != "nt":
        (folder / "one.wav").symlink_to(folder / "two.wav")
        (folder / "two.wav").symlink_to(folder / "one.wav")
        yield "loop of links", folder / "one.wav", f"{missing}|cannot be opened"
        (folder / "dangling.wav").symlink_to(folder / "gone.wav")
        yield "link to nothing", folder / "dangling.wav", missing
        os.mkfifo(folder / "pipe.wav")
        yield "pipe", folder / "pipe.wav", "is not a regular file"
        yield "device", "/dev/zero", "is not a regular file"
        with socket.socket(socket.AF_UNIX) as listening, pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)  # their names may be no longer than a hundred letters
            listening.bind("socket.wav")
        yield "socket", folder / "socket.wav", "is not a regular file|no such file|cannot be opened"


def test_a_place_without_a_recording_is_refused_at_every_door(
    model: CLASP, good: Path, found: SpeechIndex, tmp_path: Path, ended: Ended
) -> None:
    (tmp_path / "plain.wav").write_bytes(b"x")
    for name, path, said in places(tmp_path):
        doors: dict[str, Callable[[], object]] = {
            "load_audio": lambda path=path: load_audio(path),
            "load_audio, path in a mapping": lambda path=path: load_audio({"path": str(path)} if path else {}),
            "duration": lambda path=path: duration(path),
            "stream_audio": lambda path=path: list(stream_audio(path, 1.0)),
            "encode_speech": lambda path=path: model.encode_speech([path]),
            "SpeechIndex.build": lambda path=path: SpeechIndex.build(model, [good, path]),
            "SpeechIndex.search": lambda path=path: found.search(Path(path)),
            "locate": lambda path=path: locate(model, path, "anything"),
        }
        with within(60):
            for door, call in doors.items():
                wanted = "neither" if "mapping" in door and not path else f"{said}"
                with ended.refused(GROUP, f"{name}: {door}", re.compile(wanted)) as caught:
                    call()
                assert Path(path).name in str(caught.value)
        index = SpeechIndex.build(model, [good, path], on_error="skip")
        assert len(index) == 1 and len(index.skipped) == 1
        ended(GROUP, f"{name}: SpeechIndex.build, skip", "skipped with a report")


def test_a_file_that_may_not_be_read_is_refused_by_name(
    model: CLASP, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: Ended
) -> None:
    """Root may read everything, so the system's answer is given in its stead."""
    path = tmp_path / "secret.wav"
    path.write_bytes(good.read_bytes())

    def denied(file: Any, *args: Any, **options: Any) -> Any:
        if file == path:
            raise PermissionError(13, "Permission denied", str(file))
        return open(file, *args, **options)

    monkeypatch.setattr("clasp_lib.audio.open", denied, raising=False)
    for door, call in (
        ("load_audio", lambda: load_audio(path)),
        ("duration", lambda: duration(path)),
        ("encode_speech", lambda: model.encode_speech([path])),
        ("SpeechIndex.build", lambda: SpeechIndex.build(model, [path])),
    ):
        with ended.refused(GROUP, f"no permission: {door}", path, "Permission denied"):
            call()
    index = SpeechIndex.build(model, [good, path], on_error="skip")
    check_message(index.skipped[0].reason, path, "Permission denied")
    ended(GROUP, "no permission: SpeechIndex.build, skip", "skipped with a report")


@pytest.mark.skipif(os.name == "nt", reason="pipes and links of POSIX")
def test_what_cannot_be_read_in_a_folder_is_named_and_not_passed_over(
    model: CLASP, good: Path, tmp_path: Path, ended: Ended
) -> None:
    (tmp_path / "good.wav").write_bytes(good.read_bytes())
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere")
    (tmp_path / "here").symlink_to(tmp_path)
    with within(60), ended.refused(GROUP, "folder with a dangling link", "gone.wav", "no such file"):
        SpeechIndex.build(model, tmp_path)
    index = SpeechIndex.build(model, tmp_path, on_error="skip")
    assert sorted(Path(clip.id).name for clip in index.skipped) == ["gone.wav", "pipe.wav"] and len(index) == 1
    ended(GROUP, "folder with pipe and link: SpeechIndex.build, skip", "skipped with a report", 2)


# Items that are no files -------------------------------------------------------------------------------------------

TONE = noise()
ITEMS: dict[str, tuple[Any, str]] = {
    "nothing": (None, "NoneType object: cannot be read as audio. Give a path"),
    "number": (3.0, "float object: cannot be read as audio"),
    "bare bytes": (b"RIFF....", "bytes object: cannot be read as audio"),
    "list of samples": (TONE.tolist(), "list object: cannot be read as audio"),
    "empty mapping": ({}, "neither 'array' nor 'bytes' nor 'path'"),
    "mapping of other keys": ({"samples": TONE}, "'samples'.*neither 'array' nor 'bytes' nor 'path'"),
    "two channels": (np.stack([TONE, TONE]), r"shape \(2, 8000\); give one channel"),
    "no dimension": (np.float32(3) * np.ones(()), r"shape \(\); give one channel|cannot be read"),
    "no samples": (TONE[:0], "holds no samples"),
    "unsigned": (np.zeros(RATE, np.uint8), "uint8 values; expected float samples"),
    "truth values": (TONE > 0, "bool values; expected float samples"),
    "complex": (TONE.astype(complex), "complex128 values; expected"),
    "words": (np.array(["a"] * RATE), "<U1 values; expected"),
    "objects": (np.array([None] * RATE), "object values; expected"),
    "dates": (np.zeros(RATE, "datetime64[s]"), "datetime64.*expected"),
    "NaN": (np.where(np.arange(len(TONE)) == 5, np.nan, TONE), "NaN or infinite"),
    "infinite": (np.where(np.arange(len(TONE)) == 5, -np.inf, TONE), "NaN or infinite"),
    "too loud": (TONE * np.float32(1e20), "holds samples up to .*; expected -1 to 1"),
    "rate of zero": ({"array": TONE, "sampling_rate": 0}, "needs its 'sampling_rate'"),
    "rate below zero": ({"array": TONE, "sampling_rate": -16_000}, "-16000 Hz is not plausible"),
    "rate of ten million": ({"array": TONE, "sampling_rate": 10_000_000}, "10000000 Hz is not plausible"),
    "rate as text": ({"array": TONE, "sampling_rate": "16000"}, "'16000' is not a whole number"),
    "rate with a fraction": ({"array": TONE, "sampling_rate": 16_000.5}, "16000.5 is not a whole number"),
    "rate as truth value": ({"array": TONE, "sampling_rate": True}, "True is not a whole number"),
    "rate is missing": ({"array": TONE}, "needs its 'sampling_rate'"),
    "ragged": ({"array": [[1.0], [1.0, 2.0]], "sampling_rate": RATE}, "'array' is not one row of numbers"),
    "empty bytes": ({"bytes": b"", "path": "x.ogg"}, "x.ogg.*not empty"),
    "text as bytes": ({"bytes": "RIFF"}, "'bytes' must be the content"),
    "path is a number": ({"path": 5}, "5: (cannot be opened|there is no such file)"),
    "path is a list": ({"path": ["a.wav"]}, "cannot be opened|there is no such file"),
}


@pytest.mark.parametrize("name", ITEMS)
def test_a_broken_item_is_refused_at_every_door(
    name: str, model: CLASP, good: Path, found: SpeechIndex, ended: Ended
) -> None:
    item, said = ITEMS[name]
    doors: dict[str, Callable[[], object]] = {
        "load_audio": lambda: load_audio(item),
        "encode_speech": lambda: model.encode_speech([good, item, good]),
        "SpeechIndex.build": lambda: SpeechIndex.build(model, [good, item]),
        "SpeechIndex.search": lambda: found.search(item),
    }
    if not isinstance(item, list):  # which is taken for chunks of sound
        doors["locate"] = lambda: locate(model, item, "anything")
    for door, call in doors.items():
        wanted = "cannot be read as a recording|cannot be read as audio|chunk number 0" if door == "locate" else ""
        with ended.refused(GROUP, f"{name}: {door}", re.compile(f"{said}|{wanted}" if wanted else said, re.DOTALL)):
            call()
    index = SpeechIndex.build(model, [good, item], on_error="skip")
    assert len(index) == len(index.skipped) == 1
    check_message(index.skipped[0].reason, re.compile(said, re.DOTALL))
    ended(GROUP, f"{name}: SpeechIndex.build, skip", "skipped with a report")


NO_LISTS: dict[str, Any] = {
    "nothing": None,
    "number": 3,
    "name": "one.wav",
    "path": Path("one.wav"),
    "bytes": b"RIFF",
    "array": TONE,
    "three dimensions": np.zeros((2, 3, 4), np.float32),
    "mapping": {"array": TONE, "sampling_rate": RATE},
    "generator": (TONE for _ in range(2)),
    "set": {"one.wav"},
}


@pytest.mark.parametrize("name", NO_LISTS)
def test_what_is_no_list_of_recordings_is_refused(name: str, model: CLASP, ended: Ended) -> None:
    with ended.refused(GROUP, f"{name} for a list: encode_speech", re.compile(r"list of recordings|Wrap it: \[item\]")):
        model.encode_speech(NO_LISTS[name])
    if name not in ("generator", "set", "three dimensions"):  # these are read one by one
        said = re.compile("give a list|Give a list|Wrap it|no such folder")
        with ended.refused(GROUP, f"{name} for a list: SpeechIndex.build", said):
            SpeechIndex.build(model, NO_LISTS[name])


@pytest.mark.parametrize("rate", [0, -1, 1, 999, 768_001, 16_000.0, "16000", True])
def test_a_rate_that_no_recorder_has_is_refused_at_every_door(
    rate: Any, model: CLASP, tmp_path: Path, ended: Ended
) -> None:
    for door, call in (
        ("load_audio, source", lambda: load_audio(TONE, source_rate=rate)),
        ("load_audio, target", lambda: load_audio(TONE, rate, source_rate=RATE)),
        ("encode_speech", lambda: model.encode_speech([TONE], sampling_rate=rate)),
        ("SpeechIndex.build", lambda: SpeechIndex.build(model, [TONE], sampling_rate=rate)),
        ("locate, array", lambda: locate(model, TONE, "a", sampling_rate=rate)),
        ("locate, chunks", lambda: locate(model, [TONE], "a", sampling_rate=rate)),
        ("stream_chunks", lambda: list(stream_chunks([TONE], rate))),
    ):
        said = re.compile("is not plausible; expected 1000 to 768000 Hz|is not a whole number of Hz")
        with ended.refused(GROUP, f"rate {rate!r}: {door}", said):
            call()


@pytest.mark.parametrize("format", ["AAC", "RAW", "", "mp3"])
def test_a_format_that_is_not_written_is_refused(format: str, ended: Ended) -> None:
    with ended.refused(GROUP, f"format {format!r}", repr(format), "Use 'MP3', 'OGG', 'FLAC' or 'WAV'"):
        encode_audio(TONE, RATE, format)


def test_a_rate_that_a_format_cannot_hold_is_refused(ended: Ended) -> None:
    with ended.refused(GROUP, "MP3 at 96 kHz", "MP3 at 96000 Hz"):
        encode_audio(noise(rate=96_000), 96_000, "MP3")


# Six hours ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def six_hours(tmp_path: Path) -> Path:
    """A WAV file of digital silence that takes no room on the disk."""
    path, size = tmp_path / "night.wav", 6 * 3_600 * 8_000 * 2
    path.write_bytes(wav(b"", rate=8_000)[:40] + struct.pack("<I", size))
    with open(path, "r+b") as file:
        file.seek(4)
        file.write(struct.pack("<I", 36 + size))
        file.truncate(44 + size)
    return path


def test_six_hours_are_refused_before_they_fill_the_memory(
    model: CLASP, good: Path, six_hours: Path, ended: Ended
) -> None:
    assert duration(six_hours) == 6 * 3_600
    for door, call in (
        ("load_audio", lambda: load_audio(six_hours)),
        ("encode_speech", lambda: model.encode_speech([six_hours])),
        ("SpeechIndex.build", lambda: SpeechIndex.build(model, [six_hours])),
    ):
        with within(20), ended.refused(GROUP, f"six hours: {door}", six_hours, "lasts 21600.0 s", "clasp_lib.locate"):
            call()
    index = SpeechIndex.build(model, [good, six_hours], on_error="skip")
    check_message(index.skipped[0].reason, six_hours, "21600.0 s")
    ended(GROUP, "six hours: SpeechIndex.build, skip", "skipped with a report")
    desk = Desk(model, None, Limits(recording_minutes=1, upload_mb=1_000), six_hours.parent)
    with within(60), ended.refused(GROUP, "six hours: demo", "too long"):
        desk.take("somebody", str(six_hours), "night.wav")
    assert not six_hours.exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="memory is measured as POSIX counts it")
def test_six_hours_are_read_in_little_memory(model: CLASP, six_hours: Path, ended: Ended) -> None:
    import resource

    unit = 1 if os.uname().sysname == "Darwin" else 1_024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    with ended.refused(GROUP, "six hours: locate", six_hours, "silent throughout"):
        locate(model, six_hours, "anything")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before < 200 * 2**20


# Odd, and right ----------------------------------------------------------------------------------------------------


def odd_files() -> Iterator[tuple[str, bytes]]:
    """Recordings of `noise()` that are unusual and whole."""
    for subtype in ("PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM"):
        yield f"{subtype}.wav", written("WAV", subtype)
    for format in ("RF64", "W64", "CAF", "AIFF", "AU", "WAVEX"):
        yield f"in.{format.lower()}", written(format, "PCM_16")
    yield "PCM_S8.flac", written("FLAC", "PCM_S8")
    yield "PCM_24.flac", written("FLAC", "PCM_24")
    yield "opus.opus", written("OGG", "OPUS")
    yield "flac-inside.wav", written("FLAC", "PCM_16")
    yield "mp3-inside.txt", encode_audio(noise(), RATE, "MP3")
    yield "ogg-inside", encode_audio(noise(), RATE, "OGG")
    yield "SHOUTED.WAV", wav(pcm(noise()))
    yield " name with spaces .wav", wav(pcm(noise()))
    yield "-leading dash.wav", wav(pcm(noise()))
    yield "باران 🌧 雨.wav", wav(pcm(noise()))
    yield "64-channels.wav", wav(pcm(np.repeat(noise()[:, None], 64, 1)), channels=64)
    yield "sizes-of-a-pipe.wav", wav(b"").replace(struct.pack("<I", 36), b"\xff" * 4)[:40] + b"\xff" * 4 + pcm(noise())
    yield "chunk-at-the-end.wav", wav(pcm(noise())) + b"LIST\x04\0\0\0INFO"
    if os.name != "nt":
        yield "line\nbreak.wav", wav(pcm(noise()))


ODD = dict(odd_files())


@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_is_read_at_every_door(name: str, model: CLASP, tmp_path: Path, ended: Ended) -> None:
    path = tmp_path / name
    path.write_bytes(ODD[name])
    samples = load_audio(path)
    n = min(len(samples), len(noise()))
    assert abs(len(samples) - len(noise())) < 0.1 * len(noise())
    lossy = name.startswith(("opus", "mp3", "ogg", "IMA"))
    if not lossy:
        assert np.corrcoef(samples[:n], noise()[:n])[0, 1] > 0.99
    [vector] = model.encode_speech([path])
    assert np.isfinite(vector).all() and np.linalg.norm(vector) == pytest.approx(1, abs=1e-4)
    index = SpeechIndex.build(model, [path])
    assert index.search(path, k=1)[0].file == str(path)
    ended(GROUP, f"{name.encode('ascii', 'backslashreplace').decode()!r}", "accepted")


@pytest.mark.skipif(os.name == "nt", reason="names are bytes in POSIX alone")
def test_a_name_that_is_not_utf8_is_read_but_not_indexed(
    model: CLASP, good: Path, tmp_path: Path, ended: Ended
) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path / "caf") + b"\xe9.wav"))
    try:
        path.write_bytes(good.read_bytes())
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    assert len(load_audio(path)) == len(load_audio(good)) and duration(path) == duration(good)
    np.testing.assert_allclose(model.encode_speech([path]), model.encode_speech([good]), atol=1e-5)
    assert locate(model, path, "anything")
    ended(GROUP, "name that is not UTF-8", "accepted", 3)
    with ended.refused(GROUP, "name that is not UTF-8: SpeechIndex.build", r"caf\udce9.wav", "UTF-8"):
        SpeechIndex.build(model, [path])
    for place in (None, tmp_path / "index"):
        index = SpeechIndex.build(model, [good, path], folder=place, on_error="skip")
        assert len(index) == 1 and "UTF-8" in index.skipped[0].reason
        ended(GROUP, "name that is not UTF-8: SpeechIndex.build, skip", "skipped with a report")


@pytest.mark.parametrize("rate", [1_000, 7_999, 44_100, 768_000])
def test_an_odd_rate_is_resampled(rate: int, model: CLASP, ended: Ended) -> None:
    samples = load_audio(noise(0.5, rate), source_rate=rate)
    assert len(samples) == pytest.approx(0.5 * RATE, abs=2)
    assert np.isfinite(model.encode_speech([noise(0.5, rate)], sampling_rate=rate)).all()
    ended(GROUP, f"{rate} Hz", "accepted")


@pytest.mark.skipif(os.name == "nt", reason="links of POSIX")
def test_a_link_to_a_recording_is_read(model: CLASP, good: Path, tmp_path: Path, ended: Ended) -> None:
    (tmp_path / "link.wav").symlink_to(good)
    assert len(SpeechIndex.build(model, [tmp_path / "link.wav"])) == 1
    ended(GROUP, "link to a recording", "accepted")


def test_chunks_with_a_broken_one_are_refused_by_number(model: CLASP, ended: Ended) -> None:
    for name, chunk in (
        ("NaN", TONE * np.nan),
        ("two channels", np.stack([TONE, TONE])),
        ("text", "abc"),
        ("none", None),
    ):
        with ended.refused(GROUP, f"chunk of {name}", "chunk number 1"):
            locate(model, [TONE, chunk, TONE], "anything")  # type: ignore[list-item]
    for name, chunks in (("no chunks", []), ("empty chunks", [TONE[:0]]), ("silent chunks", [np.zeros(RATE)])):
        with ended.refused(GROUP, name, re.compile("no samples|silent")) as caught:
            locate(model, chunks, "anything")
        assert isinstance(caught.value, ClaspError)
