"""Feature extraction: stops and goes on, and stored vectors belong to exactly what they were made from."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Clip, Encoders, Tiny
from datasets import Dataset, DatasetDict

from clasp_lib.audio import encode_audio
from clasp_lib.encoders import SpeechEncoder
from clasp_lib.errors import AudioError, ClaspError, DatasetError
from clasp_lib.features import Features, concatenate_features, extract_features, extract_frames
from clasp_lib.speech_brown import dataset_of, save_dataset
from clasp_lib.vector_store import join_stores

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
    return dataset_of(rows)


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


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_stopped_run_goes_on_where_it_was(dataset: Dataset, encoders: Encoders, tmp_path: Path) -> None:
    whole = extract_features(dataset, *encoders, folder=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        extract_features(dataset, *counted(encoders, speech_share=1), folder=tmp_path / "parts")
    assert len(files(tmp_path / "parts")) == 1
    rest = counted(encoders)
    assert same(extract_features(dataset, *rest, folder=tmp_path / "parts"), whole)
    assert [encoder.calls for encoder in rest] == [2, 3, 3]
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_only_what_is_new_is_encoded(rows: list[dict], encoders: Encoders, tiny: Tiny, tmp_path: Path) -> None:
    def calls(rows: list[dict], encoders: Encoders) -> list[int]:
        used = counted(encoders)
        extract_features(dataset_of(rows), *used, folder=tmp_path)
        return [encoder.calls for encoder in used]

    four = rows[:4]
    assert calls(four, encoders) == [2, 2, 2]
    assert calls(rows, encoders) == [1, 1, 1]  # one clip more
    assert calls([rows[4], rows[1], rows[1]], encoders) == [0, 0, 0]  # other neighbours, twice the same
    assert calls([*four[:3], four[3] | {"text": "Another text."}], encoders) == [0, 0, 1]
    louder = rows[0] | {"audio": {"bytes": encode_audio(np.sin(np.arange(9_000)), 16_000, "FLAC"), "path": "0.flac"}}
    assert calls([louder, *four[1:]], encoders) == [1, 1, 0]
    assert calls(four, (SpeechEncoder(str(tiny.hubert), layer=1), *encoders[1:])) == [2, 0, 0]
    assert calls(four, (SpeechEncoder(str(tiny.hubert), reference=True), *encoders[1:])) == [2, 0, 0]
    assert calls(four, (SpeechEncoder(str(tiny.wav2vec2)), *encoders[1:])) == [2, 0, 0]


def test_new_weights_under_an_old_name_make_new_features(
    dataset: Dataset, encoders: Encoders, tiny: Tiny, tmp_path: Path
) -> None:
    old = extract_features(dataset, *encoders, folder=tmp_path)
    retrained = SpeechEncoder(str(tiny.hubert))
    retrained._model.encoder.layer_norm.weight.data.mul_(2)
    new = extract_features(dataset, retrained, *encoders[1:], folder=tmp_path)
    assert np.abs(new.speech - old.speech).max() > 0.1


BAD = {"audio": {"bytes": b"not audio", "path": "three.flac"}}


def test_a_bad_clip_leaves_what_was_finished_and_nothing_else(
    rows: list[dict], encoders: Encoders, tmp_path: Path
) -> None:
    with pytest.raises(AudioError, match=r"three\.flac"):
        extract_features(dataset_of([*rows[:3], rows[3] | BAD, rows[4]]), *encoders, folder=tmp_path)
    assert [Path(name).suffix for name in files(tmp_path)] == [".safetensors"]


def test_a_skipped_clip_is_reported_with_its_reason_and_not_replaced(
    rows: list[dict], encoders: Encoders, tmp_path: Path
) -> None:
    dataset = dataset_of([rows[0], rows[1] | {"text": " "}, *rows[2:3], rows[3] | BAD, rows[4]])
    for _ in range(2):  # the second time from what is stored
        features = extract_features(dataset, *encoders, folder=tmp_path, on_error="skip")
        assert features.sentence_ids == ["s0", "s2", "s4"] and len(features.speech) == 3
        assert [clip.id for clip in features.skipped] == ["c1", "c3"]
        assert "give a string with something in it" in features.skipped[0].reason
        assert "three.flac" in features.skipped[1].reason
    alone = extract_features(dataset_of([rows[0], rows[2], rows[4]]), *encoders)
    np.testing.assert_allclose(features.speech, alone.speech, atol=1e-5)
    with pytest.raises(ClaspError, match=r"c1: .*give a string"):
        extract_features(dataset, *encoders, folder=tmp_path)
    with pytest.raises(DatasetError, match="none of 1 clips"):
        extract_features(dataset_of([rows[3] | BAD]), *encoders, on_error="skip")


class Overflowing(Counted):
    """An encoder whose second clip is too much for it."""

    def encode(self, items: list, *args: Any) -> np.ndarray:
        vectors = np.array(self.encoder.encode(items, *args))
        if len(vectors) > 1:
            vectors[1, 0] = np.nan
        return vectors


def test_what_is_no_number_is_not_stored(dataset: Dataset, encoders: Encoders, tmp_path: Path) -> None:
    speech = Overflowing(encoders[0])
    with pytest.raises(ClaspError, match=r"clip number 1: .*NaN.*float32"):
        extract_features(dataset, speech, *encoders[1:], folder=tmp_path)
    assert files(tmp_path) == {}
    features = extract_features(dataset, speech, *encoders[1:], folder=tmp_path, on_error="skip")
    assert features.sentence_ids == ["s0", "s2", "s4"] and np.isfinite(features.speech).all()
    assert [clip.id for clip in features.skipped] == ["c1", "c3"] and "NaN" in features.skipped[0].reason


def test_parts_of_different_lengths_are_refused(dataset: Dataset, encoders: Encoders) -> None:
    features = extract_features(dataset, *encoders)
    for part in ({"text": features.text[:3]}, {"columns": {"negatives": np.zeros((3, 2, 4))}}, {"voices": ["one"] * 3}):
        with pytest.raises(DatasetError, match=r"5 rows, but \w+ has 3"):
            dataclasses.replace(features, **part)


def test_features_can_stay_on_disk(dataset: Dataset, encoders: Encoders, tmp_path: Path) -> None:
    mapped = extract_features(dataset, *encoders, folder=tmp_path, memory_mapped=True)
    assert all(isinstance(getattr(mapped, name), np.memmap) for name in ARRAYS)
    assert same(mapped, extract_features(dataset, *encoders))


def test_parts_are_joined_in_order(rows: list[dict], encoders: Encoders, dataset: Dataset) -> None:
    bad = rows[2] | BAD | {"id": "bad"}
    parts = [extract_features(dataset_of(part), *encoders, on_error="skip") for part in (rows[:2], [bad, *rows[2:]])]
    joined, whole = concatenate_features(parts), extract_features(dataset, *encoders)
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(joined, name), getattr(whole, name), atol=1e-5)
    assert joined.texts == whole.texts and [clip.id for clip in joined.skipped] == ["bad"]
    narrow = dataclasses.replace(whole, picture=whole.picture[:, :3])
    for wrong in ([], [whole, narrow]):
        with pytest.raises(DatasetError, match="same encoders"):
            concatenate_features(wrong)


def test_frames_are_what_the_mean_was_taken_of(dataset: Dataset, encoders: Encoders, tmp_path: Path) -> None:
    for _ in range(2):
        frames = extract_frames(dataset, encoders[0], tmp_path)
    means = np.stack([clip.numpy().mean(0) for clip in frames])
    np.testing.assert_allclose(means, extract_features(dataset, *encoders).speech, atol=1e-5)


def test_shards_of_two_machines_make_one_store(dataset: Dataset, encoders: Encoders, tmp_path: Path) -> None:
    for machine in range(2):
        extract_features(dataset.shard(2, machine), *encoders, folder=tmp_path / str(machine))
    join_stores([tmp_path / "0", tmp_path / "1"], tmp_path / "all")
    joined = counted(encoders)
    features = extract_features(dataset, *joined, folder=tmp_path / "all")
    assert [encoder.calls for encoder in joined] == [0, 0, 0]
    whole = extract_features(dataset, *encoders)
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(features, name), getattr(whole, name), atol=1e-5)


def test_a_damaged_shard_is_named(dataset: Dataset, encoders: Encoders, tmp_path: Path) -> None:
    extract_features(dataset, *encoders, folder=tmp_path)
    shard = min(tmp_path.rglob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:50])
    with pytest.raises(DatasetError) as caught:
        extract_features(dataset, *encoders, folder=tmp_path)
    assert str(shard) in str(caught.value)


def test_a_dataset_without_clips_is_refused(encoders: Encoders) -> None:
    with pytest.raises(ClaspError, match="no clips"):
        extract_features(dataset_of([]), *encoders)


EXTRACT = """
import sys
import clasp_lib.features
from clasp_lib.encoders import SpectrogramEncoder, SpeechEncoder, TextEncoder
from clasp_lib.speech_brown import load_dataset
clasp_lib.features.SHARD = 2
data, folder, *names = sys.argv[1:]
kinds = SpeechEncoder, SpectrogramEncoder, TextEncoder
encoders = [kind(name, device="cpu") for kind, name in zip(kinds, names)]
for encoder in encoders:
    encoder.digest
dataset = load_dataset(data)["test"]
print("go", flush=True)
clasp_lib.features.extract_features(dataset, *encoders, folder=folder, batch_size=1)
"""


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_with_the_same_files(
    rows: list[dict], encoders: Encoders, tiny: Tiny, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0)
    waves = [noise.standard_normal(n).astype(np.float32) for n in noise.integers(8_000, 48_000, 40)]
    audio = [{"bytes": encode_audio(0.2 * wave, 16_000, "FLAC"), "path": f"{i}.flac"} for i, wave in enumerate(waves)]
    many = dataset_of(
        [rows[0] | {"id": f"n{i}", "text": f"Number {i}.", "audio": item} for i, item in enumerate(audio)]
    )
    save_dataset(DatasetDict({"test": many}), tmp_path / "data")

    def run(folder: Path, kill_after: int | None = None, delay: float = 0.0) -> None:
        """A run in a process of its own; killed, if asked, some moment after so many shards have been written."""
        names = [str(getattr(tiny, kind)) for kind in ("hubert", "efficientnet", "sentences")]
        arguments = [sys.executable, "-c", EXTRACT, str(tmp_path / "data"), str(folder), *names]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None and process.stdout.readline() == "go\n"
            if kill_after is not None:
                while len(list(folder.rglob("*.safetensors"))) < kill_after and process.poll() is None:
                    time.sleep(0.001)
                time.sleep(delay)
                process.kill()

    run(tmp_path / "undisturbed")
    undisturbed = files(tmp_path / "undisturbed")
    assert len(undisturbed) == 60
    rng, unfinished = np.random.default_rng(1), 0
    for attempt in range(20):
        folder = tmp_path / f"killed-{attempt}"
        run(folder, kill_after=int(rng.integers(0, 50)), delay=rng.uniform(0, 0.03))
        unfinished += len(files(folder)) < 60
        extract_features(many, *encoders, folder=folder, batch_size=1)
        assert files(folder) == undisturbed
    assert unfinished > 10, "most of the kills came after the run had finished"
