"""Players carry their sound, say what is heard, and let no markup through."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import Clip

from clasp_lib.audio import encode_audio, load_audio
from clasp_lib.errors import AudioError
from clasp_lib.players import Player


class Elements(HTMLParser):
    """The elements of a piece of HTML, with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def sound(html: str) -> np.ndarray:
    (data,) = re.findall(r'src="data:audio/mpeg;base64,([^"]+)"', html)
    return load_audio({"bytes": base64.b64decode(data), "path": "player.mp3"})


def test_a_player_is_one_audio_element_with_a_name(clips: list[Clip]) -> None:
    player = Player(clips[0].samples, "The ferry")
    audio = [attributes for tag, attributes in Elements(player._repr_html_()).found if tag == "audio"]
    assert len(audio) == 1
    assert audio[0]["aria-label"] == "The ferry" and audio[0]["preload"] == "none" and "controls" in audio[0]
    assert len(player.html) < 40_000
    assert "The ferry" in repr(player) and f"{len(clips[0].samples) / 16_000:.1f} s" in repr(player)


@pytest.mark.parametrize("label", ["<script>x</script>", '" onclick="x', "a & b", "it's"])
def test_a_label_is_text_and_nothing_else(clips: list[Clip], label: str) -> None:
    found = Elements(Player(clips[2].samples, label)._repr_html_()).found
    assert [tag for tag, _ in found] == ["div", "audio", "div"]
    (audio,) = (attributes for tag, attributes in found if tag == "audio")
    assert audio["aria-label"] == label and set(audio) == {"controls", "preload", "aria-label", "src"}


def test_the_sound_is_the_clip(clips: list[Clip], tmp_path: Path) -> None:
    samples = clips[1].samples
    path = tmp_path / "clip.flac"
    path.write_bytes(encode_audio(samples, 16_000, "FLAC"))
    for item in (samples, path):
        heard = sound(Player(item, "x").html)
        assert len(heard) == len(samples)
        assert np.corrcoef(heard, samples)[0, 1] > 0.97


def test_a_part_can_be_played(clips: list[Clip]) -> None:
    samples = clips[1].samples
    heard = sound(Player(samples, "x", start_s=0.5, end_s=1.25).html)
    assert len(heard) == 12_000
    assert np.corrcoef(heard, samples[8_000:20_000])[0, 1] > 0.95


def test_of_a_long_file_only_the_part_is_read(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate = 22_050
    samples = np.concatenate([np.zeros(3 * rate), 0.1 * np.sin(np.arange(2 * rate) / 9), np.zeros(rate)])
    read: list[int] = []
    original = soundfile.SoundFile.read

    def counted(file: soundfile.SoundFile, frames: int = -1, *options: object, **named: object) -> np.ndarray:
        read.append(frames)
        return original(file, frames, *options, **named)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    for format in ("FLAC", "WAV", "OGG", "MP3"):
        path = tmp_path / f"long.{format.lower()}"
        path.write_bytes(encode_audio(samples, rate, format))
        part = Player(path, "x", start_s=2.9, end_s=3.4).samples
        assert read == [round(0.5 * rate)]
        whole = load_audio(path, max_seconds=None)[round(2.9 * 16_000) : round(3.4 * 16_000)]
        read.clear()
        assert abs(len(part) - len(whole)) <= 1
        assert np.corrcoef(part[:7_900], whole[:7_900])[0, 1] > 0.99, format
    assert 0 < len(Player(path, "x", start_s=5.5, end_s=99.0).samples) < 16_000  # what is beyond the end is not there


def test_a_part_of_what_is_no_recording_is_refused_with_the_usual_message(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="there is no such file"):
        Player(tmp_path / "missing.wav", "x", 0.0, 1.0)
    with pytest.raises(AudioError, match="is not a regular file"):
        Player(tmp_path, "x", 0.0, 1.0)
    broken = np.full(16_000, np.nan, np.float32)
    soundfile.write(tmp_path / "broken.wav", broken, 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match="NaN"):
        Player(tmp_path / "broken.wav", "x", 0.0, 0.5)


def test_a_faint_clip_is_made_louder_and_no_clip_too_loud(clips: list[Clip]) -> None:
    for gain in (0.05, 0.5, 1.0, 5.0):
        heard = np.abs(sound(Player(clips[0].samples * gain, "x").html)).max()
        before = np.abs(clips[0].samples * gain).max()
        assert heard <= 1.0
        assert heard == pytest.approx(0.9 * min(1.0, 4 * before), rel=0.15)


def test_a_clip_that_cannot_be_read_has_no_player(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"missing\.wav"):
        Player(tmp_path / "missing.wav", "x")
