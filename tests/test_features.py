"""Feature extraction: stops and goes on, and stored vectors belong to exactly what they were made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Clip, Encoders, Tiny
from datasets import Dataset

from clasp_lib.audio import encode_audio
from clasp_lib.encoders import SpeechEncoder
from clasp_lib.errors import AudioError, ClaspError, DatasetError
from clasp_lib.features import Features, extract_features
from clasp_lib.speech_brown import _dataset

ARRAYS = ("speech", "picture", "text")


class Counted:
    """An encoder that counts what it is asked for, and fails once it has done its share."""

    def __init__(self, encoder: Any, share: int = 10**9) -> None:
        self.encoder, self.share, self.calls = encoder, share, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoder, name)

    def encode(self, items: list, *args: Any) -> np.ndarray:
        if not len(items):
            return self.encoder.encode(items, *args)
        self.calls += 1
        if self.calls > self.share:
            raise KeyboardInterrupt
        return self.encoder.encode(items, *args)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clasp_lib.features.SHARD", 2)


@pytest.fixture(scope="module")
def rows(clips: list[Clip]) -> list[dict]:
    return [
        {
            "id": f"c{i}",
            "sentence_id": f"s{i}",
            "text": clip.text,
            "category": "news",
            "voice": f"v{i}",
            "audio": {"bytes": encode_audio(clip.samples, 16_000, "FLAC"), "path": f"{i}.flac"},
            "duration": len(clip.samples) / 16_000,
        }
        for i, clip in enumerate(clips[:5])
    ]


@pytest.fixture(scope="module")
def dataset(rows: list[dict]) -> Dataset:
    return _dataset(rows)


def counted(encoders: Encoders, speech_share: int = 10**9) -> list[Counted]:
    return [Counted(encoders[0], speech_share), Counted(encoders[1]), Counted(encoders[2])]


def same(one: Features, two: Features) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(two, name)) for name in ARRAYS)


def test_features_are_what_the_encoders_say(dataset: Dataset, encoders: Encoders, clips: list[Clip]) -> None:
    features = extract_features(dataset, *encoders)
    assert len(features) == 5
    samples = [clip.samples for clip in clips[:5]]
    np.testing.assert_allclose(features.speech, encoders[0].encode(samples), atol=1e-3)  # FLAC rounds to 16 bits
    np.testing.assert_allclose(features.picture, encoders[1].encode(samples), atol=1e-3)
    np.testing.assert_allclose(features.text, encoders[2].encode([c.text for c in clips[:5]]), atol=1e-5)
    assert features.sentence_ids == [f"s{i}" for i in range(5)]
    assert features.texts == [clip.text for clip in clips[:5]]
    assert features.categories == ["news"] * 5 and features.voices == [f"v{i}" for i in range(5)]


def test_a_second_run_encodes_nothing(dataset: Dataset, encoders: Encoders, tmp_path: Path) -> None:
    first, second = counted(encoders), counted(encoders)
    one = extract_features(dataset, *first, folder=tmp_path / "deep" / "features")
    assert [e.calls for e in first] == [3, 3, 3]
    two = extract_features(dataset, *second, folder=tmp_path / "deep" / "features")
    assert [e.calls for e in second] == [0, 0, 0]
    assert same(one, two)


def test_a_stopped_run_goes_on_where_it_was(dataset: Dataset, encoders: Encoders, tmp_path: Path) -> None:
    whole = extract_features(dataset, *encoders)
    with pytest.raises(KeyboardInterrupt):
        extract_features(dataset, *counted(encoders, speech_share=1), folder=tmp_path)
    assert [p.suffix for p in tmp_path.iterdir()] == [".safetensors"]
    rest = counted(encoders)
    assert same(extract_features(dataset, *rest, folder=tmp_path), whole)
    assert rest[0].calls == 2 and len(list(tmp_path.iterdir())) == 3


def test_what_was_made_from_something_else_is_not_reused(
    rows: list[dict], encoders: Encoders, tiny: Tiny, tmp_path: Path
) -> None:
    def calls(rows: list[dict], encoders: Encoders) -> int:
        used = counted(encoders)
        extract_features(_dataset(rows), *used, folder=tmp_path)
        return used[0].calls

    rows = rows[:4]
    assert calls(rows, encoders) == 2
    assert calls([*rows[:3], rows[3] | {"text": "Another text."}], encoders) == 1
    louder = rows[0] | {"audio": rows[1]["audio"]}
    assert calls([louder, *rows[1:]], encoders) == 1
    assert calls(rows[:2], encoders) == 0
    assert calls(rows[1:3], encoders) == 1  # other neighbours, another shard
    assert calls(rows, (SpeechEncoder(str(tiny.hubert), layer=1), *encoders[1:])) == 2
    assert calls(rows, (SpeechEncoder(str(tiny.wav2vec2)), *encoders[1:])) == 2


def test_new_weights_under_an_old_name_make_new_features(
    dataset: Dataset, encoders: Encoders, tiny: Tiny, tmp_path: Path
) -> None:
    old = extract_features(dataset, *encoders, folder=tmp_path)
    retrained = SpeechEncoder(str(tiny.hubert))
    retrained._model.encoder.layer_norm.weight.data.mul_(2)
    new = extract_features(dataset, retrained, *encoders[1:], folder=tmp_path)
    assert np.abs(new.speech - old.speech).max() > 0.1


def test_a_bad_clip_leaves_what_was_finished_and_nothing_else(
    rows: list[dict], encoders: Encoders, tmp_path: Path
) -> None:
    rows = [*rows[:3], rows[3] | {"audio": {"bytes": b"not audio", "path": "three.flac"}}, rows[4]]
    with pytest.raises(AudioError, match=r"three\.flac"):
        extract_features(_dataset(rows), *encoders, folder=tmp_path)
    assert [p.suffix for p in tmp_path.iterdir()] == [".safetensors"]


def test_a_full_disk_leaves_no_half_shard(
    dataset: Dataset, encoders: Encoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(part: dict, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.numpy.save_file", fail)
        with pytest.raises(OSError, match="no space left"):
            extract_features(dataset, *encoders, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_shard_is_named(dataset: Dataset, encoders: Encoders, tmp_path: Path) -> None:
    extract_features(dataset, *encoders, folder=tmp_path)
    shard = min(tmp_path.iterdir())
    shard.write_bytes(shard.read_bytes()[:50])
    with pytest.raises(DatasetError) as caught:
        extract_features(dataset, *encoders, folder=tmp_path)
    assert str(shard) in str(caught.value)


def test_a_dataset_without_clips_is_refused(encoders: Encoders) -> None:
    with pytest.raises(ClaspError, match="no clips"):
        extract_features(_dataset([]), *encoders)
