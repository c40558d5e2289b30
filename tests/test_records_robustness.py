"""The records of robustness and of shifts: what they hold, and that this machine measures the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Clip
from datasets import Dataset

from clasp_lib import CLASP, get_profile
from clasp_lib.audio import load_audio
from clasp_lib.disturbances import DISTURBANCES, disturb
from clasp_lib.encoders.checkpoints import pocket_folder
from clasp_lib.features import Features
from clasp_lib.fusion import build_fusion
from clasp_lib.metrics import per_query, rank_queries
from clasp_lib.pretraining.measure import TRANSCRIPT, HeldOut
from clasp_lib.records import robustness, shifts
from clasp_lib.records.robustness import (
    BOTH,
    PICTURE_ONLY,
    SPEECH_ONLY,
    TRIMMED,
    after_trimming,
    remembered,
    trimmed,
)
from clasp_lib.robustness import CLEAN, TALKERS
from clasp_lib.shifts import domain_shift
from clasp_lib.transcription import Transcriber

REPORTS = pocket_folder("reports")


@pytest.fixture(scope="module")
def record() -> dict:
    return json.loads((REPORTS / "robustness.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def shifted() -> dict:
    return json.loads((REPORTS / "shifts.json").read_text("utf-8"))


def test_trimming_takes_silence_from_both_ends_and_nothing_else(clips: list[Clip]) -> None:
    for clip in clips:
        bare = trimmed(clip.samples)
        for seconds in (0.5, 2):
            padded = trimmed(disturb(clip.samples, "silence", seconds).wave)
            assert len(bare) <= len(padded) <= len(bare) + 2 * 6 * 320  # five frames, and a piece of one
            assert np.abs(np.correlate(padded, bare, "valid")).max() == pytest.approx(np.square(bare).sum(), rel=1e-4)
    loud = np.ones(1_000, np.float32)
    np.testing.assert_array_equal(trimmed(loud), loud)
    pause = np.concatenate([loud, np.zeros(16_000, np.float32), loud])
    np.testing.assert_array_equal(trimmed(pause), pause)


def test_soft_sounds_within_100_ms_of_the_speech_are_kept() -> None:
    wave = np.concatenate([np.full(16_000, 0.001), np.ones(3_200), np.full(16_000, 0.001)]).astype(np.float32)
    assert len(trimmed(wave)) == 3_200 + 2 * 5 * 320


def test_what_was_heard_is_remembered_for_the_same_arrays_only() -> None:
    asked = []
    encode = remembered(lambda waves: asked.append(len(waves)) or sum(wave.sum() for wave in waves))  # type: ignore[func-returns-value]
    first, second = [np.ones(3), np.ones(3)], [np.ones(3), np.full(3, 2.0)]
    assert [encode(first), encode(list(first)), encode(second), encode(first[:1])] == [6, 6, 9, 3]
    assert asked == [2, 2, 1]


def test_waves_from_which_the_same_is_left_are_encoded_once() -> None:
    asked: list[int] = []

    def lengths(waves: list[np.ndarray]) -> np.ndarray:
        asked.append(len(waves))
        return np.array([[len(wave)] for wave in waves])

    rng, system = np.random.default_rng(0), after_trimming(lengths)
    waves = [rng.standard_normal(n).astype(np.float32) for n in (3_200, 6_400, 9_600)]
    longer = [np.pad(wave, 3_200) for wave in waves]
    assert system(longer).tolist() == system([np.pad(wave, 6_400) for wave in waves]).tolist()
    assert asked == [3]
    assert system([longer[2], longer[0], longer[2]])[:, 0].argsort().tolist() == [1, 0, 2] and asked == [3]


def test_the_record_is_made_of_all_systems_in_every_cell(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waves = [clip.samples for clip in clips]
    test = HeldOut(waves, [clip.text for clip in clips], [clip.text for clip in clips])
    monkeypatch.setattr(robustness, "pocket_brown_test", lambda profile: test)
    monkeypatch.setattr(robustness, "STRENGTHS", {"silence": (1,), "white noise": (10,)})
    monkeypatch.setattr(robustness, "SLICE", 2)
    model = CLASP.from_pretrained("pocket", device="cpu")
    picture = build_fusion("picture_only", **model.fusion.config).eval()
    monkeypatch.setattr(robustness, "picture_only", lambda profile, folder: (picture, 12))
    found = robustness.measure(get_profile("pocket"), {}, 3, tmp_path)
    spoken = [row for row in found["rows"] if (row["direction"], row["measure"]) == ("speech_to_text", "mrr")]
    for name in (BOTH, SPEECH_ONLY, PICTURE_ONLY, TRANSCRIPT):
        assert [row["disturbance"] for row in spoken if row["system"] == name] == [CLEAN, "silence", "white noise"]
    assert [row["disturbance"] for row in spoken if row["system"] == TRIMMED] == [CLEAN, "silence"]
    assert (found["n"], found["clips"], found["seed"]) == (6, 6, 3) and found["picture_only"]["trained_on"] == 12
    assert found["slice"]["clips"] == [0, 2, 4] and len(found["slice"]["mrr"]) == 4 * 3 + 2
    json.dumps(found, allow_nan=False)


def test_the_record_of_robustness_says_how_it_was_made(record: dict) -> None:
    assert record["command"].startswith("python -m clasp_lib.records robustness")
    for key in ("date", "commit", "machine", "versions"):
        assert record[key] and "/" not in record["command"]
    assert (record["n"], record["clips"]) == (505, 505)
    assert (REPORTS / "robustness.json").stat().st_size < 600_000


def test_the_record_has_every_kind_of_disturbance_and_every_system(record: dict) -> None:
    spoken = [row for row in record["rows"] if (row["direction"], row["measure"]) == ("speech_to_text", "mrr")]
    cells = {(row["disturbance"], row["strength"]) for row in spoken}
    assert {name for name, _ in cells} == {CLEAN, *DISTURBANCES} - {"hum 60 Hz"}
    assert cells == {(CLEAN, None)} | {(name, s) for name, many in robustness.STRENGTHS.items() for s in many}
    for system in (BOTH, SPEECH_ONLY, PICTURE_ONLY, TRANSCRIPT):
        assert {(row["disturbance"], row["strength"]) for row in spoken if row["system"] == system} == cells
    for row in record["rows"]:
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1


def test_the_comparisons_are_differences_of_the_rows(record: dict) -> None:
    value = {
        (row["system"], row["disturbance"], row["strength"]): row["value"]
        for row in record["rows"]
        if (row["direction"], row["measure"]) == ("speech_to_text", "mrr")
    }
    for row in record["comparisons"]:
        first, second = (value[row[side], row["disturbance"], row["strength"]] for side in ("first", "second"))
        assert row["value"] == pytest.approx(first - second, abs=1e-5)


def test_clean_the_systems_are_as_good_as_their_other_record_says(record: dict) -> None:
    known = json.loads((REPORTS / "retrieval.json").read_text("utf-8"))["tests"]["pocket_brown_test"]["systems"]
    names = {BOTH: "pocket-concatenation", SPEECH_ONLY: "pocket-speech-only", TRANSCRIPT: TRANSCRIPT}
    for row in record["rows"]:
        if row["disturbance"] == CLEAN and row["system"] in names:
            there = known[names[row["system"]]][row["direction"]][row["measure"]]["value"]
            assert row["value"] == pytest.approx(there, abs=0.005), row["system"]


def test_a_slice_of_the_record_is_what_this_machine_measures(record: dict, spoken: Dataset) -> None:
    """A clip's own score needs no other clip but, for babble, those that talk: 21 clips, three cells each."""
    waves, numbers = [load_audio(item) for item in spoken["audio"]], record["slice"]["clips"]
    clasp, alone = (CLASP.from_pretrained(name, device="cpu") for name in ("pocket", "pocket-speech-only"))
    systems, _ = robustness.systems(clasp, alone, None, Transcriber("pocket-ctc", device="cpu"))
    texts = clasp.encode_text(list(spoken["text"]), show_progress_bar=False)
    known = {(row["system"], row["disturbance"], row["strength"]): row["scores"] for row in record["slice"]["mrr"]}
    noises = [(name, robustness.STRENGTHS[name][0]) for name in ("babble", "Opus")]
    for name, strength in [(CLEAN, None), *noises]:
        heard = [
            waves[i] if strength is None else disturb(waves[i], name, strength, (0, i), talkers(waves, i)).wave
            for i in numbers
        ]
        for system, encode in systems.items():
            ranking = rank_queries(encode(heard), texts, numbers, range(len(texts)))
            off = np.abs(per_query(ranking)["mrr"] - known[system, name, strength])
            assert np.median(off) < 0.01 and off.mean() < 0.03, (system, name)


def talkers(waves: list[np.ndarray], number: int) -> list[np.ndarray]:
    """Who babbles over a clip, where no two clips say the same: as `clasp_lib.robustness` draws them from seed 0."""
    strangers = np.delete(np.arange(len(waves)), number)
    return [waves[i] for i in np.random.default_rng([0, number]).choice(strangers, TALKERS, replace=False)]


def test_the_record_of_shifts_says_how_it_was_made(shifted: dict) -> None:
    assert shifted["command"] == "python -m clasp_lib.records shifts"
    for key in ("date", "commit", "machine", "versions"):
        assert shifted[key]
    assert shifted["pairs"]["test"] == sum({row["left_out"]: row["n"] for row in shifted["domain"]}.values()) == 505
    assert {row["left_out"] for row in shifted["length"]} == {"shortest", "longest"}


def test_the_loss_over_all_categories_follows_from_the_rows(shifted: dict) -> None:
    for recorded, found in zip(shifted["over_categories"], shifts.over_categories(shifted["domain"]), strict=True):
        assert found.pop("n") == recorded["n"] == 15
        assert found.pop("p_value") == pytest.approx(
            recorded["p_value"], abs=0.01
        )  # six digits can make or break a tie
        for name, value in found.items():
            assert value == (pytest.approx(recorded[name], abs=1e-3) if isinstance(value, float) else recorded[name])


def test_a_row_of_the_shifts_is_what_this_machine_trains(shifted: dict) -> None:
    parts = shifts.splits(get_profile("pocket"))
    three = (parts["train"], parts["validation"], parts["test"])
    for now in domain_shift(*three, shifts.fit, ["news"], seeds=range(shifts.DOMAIN_SEEDS)):
        same = ("left_out", "direction", "measure", "n", "clips", "trained_on", "seeds")
        (recorded,) = [row for row in shifted["domain"] if all(row[name] == now[name] for name in same)]
        for name in ("without", "with_it"):
            assert now[name] == pytest.approx(recorded[name], abs=0.05), (now["direction"], now["measure"])


def test_a_training_for_a_shift_gives_vectors_of_the_text_space() -> None:
    rng = np.random.default_rng(0)
    names = [f"{i}" for i in range(8)]
    text = rng.standard_normal((8, 24)).astype(np.float32)
    features = Features(
        rng.standard_normal((8, 32)).astype(np.float32), rng.standard_normal((8, 20)).astype(np.float32),
        text / np.linalg.norm(text, axis=1, keepdims=True), names, names, names, names,
    )  # fmt: skip
    vectors = [shifts.fit(features, features, 0)(features) for _ in range(2)]
    assert vectors[0].shape == (8, 24)
    np.testing.assert_array_equal(*vectors)
