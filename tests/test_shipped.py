"""What ships in the package: it loads, it is small, and its record says what this machine measures."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from conftest import RATE
from datasets import Dataset

from clasp_lib import CLASP, RetrievalReport, get_profile
from clasp_lib.audio import load_audio
from clasp_lib.encoders.checkpoints import SHIPPED as ENCODERS
from clasp_lib.encoders.checkpoints import pocket_folder
from clasp_lib.model import SHIPPED as MODELS
from clasp_lib.pretraining.augmentation import AUGMENTATIONS
from clasp_lib.pretraining.measure import (
    GOALS,
    TRANSCRIPT,
    HeldOut,
    _vectors,
    measure,
    recordings,
    table,
    update_card,
)
from clasp_lib.speech_brown import build_speech_brown
from clasp_lib.transcription import Transcriber

NAMES = sorted(set(MODELS) - {"pocket"})


@pytest.fixture(scope="module")
def record() -> dict:
    return json.loads((pocket_folder("reports") / "retrieval.json").read_text("utf-8"))


def test_training_with_a_disturbance_helps_against_it_but_for_two() -> None:
    """What the page beside this record says; the differences are [value, low, high]."""
    difference = json.loads((pocket_folder("reports") / "augmentations.json").read_text("utf-8"))["difference"]
    helped = {name for name, heard in difference.items() if name != "all" and heard[name][2] < 0}
    assert helped == set(AUGMENTATIONS) - {"speed", "equalizer"}
    assert all(difference["all"][name][2] < 0 for name in helped) and difference["all"]["none"][1] > 0


@pytest.fixture(scope="module")
def models() -> dict[str, CLASP]:
    return {name: CLASP.from_pretrained(name, device="cpu") for name in NAMES}


@pytest.fixture(scope="module")
def spoken() -> Dataset:
    """The test part of Pocket Brown, spoken anew: nothing here was stored by an earlier run."""
    profile = get_profile("pocket")
    only_test = {"train": 0, "validation": 0, "test": profile.voices_per_sentence["test"]}
    return build_speech_brown(
        profile.sentences(), profile.synthesizer(), voices_per_sentence=only_test, seed=profile.seed
    ).dataset["test"]


@pytest.fixture(scope="module")
def test_set(spoken: Dataset) -> HeldOut:
    return HeldOut([load_audio(item) for item in spoken["audio"]], list(spoken["text"]), list(spoken["sentence_id"]))


@pytest.fixture(scope="module")
def measured(models: dict[str, CLASP], test_set: HeldOut) -> dict:
    return measure(models, Transcriber("pocket-ctc", device="cpu"), test_set)


def test_what_ships_is_small() -> None:
    files = [path for path in pocket_folder("").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 40 * 2**20
    assert not [p for p in files if p.suffix in (".pt", ".bin", ".pkl", ".pickle", ".npy", ".tmp")]


@pytest.mark.parametrize("name", sorted({*ENCODERS.values(), *MODELS.values()}))
def test_shipped_weights_are_safetensors_with_a_config(name: str) -> None:
    folder = pocket_folder(name)
    assert json.loads((folder / "config.json").read_text("utf-8"))
    assert (folder / "model.safetensors").stat().st_size > 100_000


@pytest.mark.parametrize("name", MODELS)
def test_a_shipped_model_is_loaded_by_its_name(name: str) -> None:
    model = CLASP.from_pretrained(name, device="cpu")
    encoder, _, fusion = MODELS[name].partition("-")
    assert model.fusion_name == fusion.replace("-", "_")
    assert model.dimension == 384
    assert model.config["speech_encoder"] == f"pocket-{encoder}"  # by name: a path is only good on one machine
    assert model.config["spectrogram_encoder"] == "pocket-efficientnet"
    assert model.config["text_encoder"] == "all-MiniLM-L6-v2"


def test_what_was_shown_the_sentence_space_is_called_search() -> None:
    """Chapters on fusion, loss and ablation stand on the encoder that was not; see the model cards."""
    for name, folder in MODELS.items():
        assert ("search" in name) == folder.startswith("search-")
    assert get_profile("pocket").speech_encoder == "pocket-ctc"


def test_a_shipped_model_gives_a_clip_one_vector(models: dict[str, CLASP]) -> None:
    rng = np.random.default_rng(0)
    waves = [rng.standard_normal(round(s * RATE)).astype(np.float32) * 0.1 for s in (1.0, 3.7, 2.2, 0.4)]
    for model in models.values():
        alone = np.concatenate([model.encode_speech([wave]) for wave in waves])
        np.testing.assert_allclose(model.encode_speech(waves), alone, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_front_door_leads_to_the_same_vectors(
    name: str, models: dict[str, CLASP], test_set: HeldOut, spoken: Dataset
) -> None:
    rows = spoken[:8]
    batched = _vectors({name: models[name]}, test_set.waves[:40])[name][:8]
    np.testing.assert_allclose(models[name].encode_speech(rows["audio"]), batched, atol=1e-4)


def test_the_record_says_how_it_was_made(record: dict) -> None:
    assert record["command"].startswith("python -m clasp_lib.pretraining measure")
    for key in ("date", "commit", "machine", "versions"):
        assert record[key]
    assert "/" not in record["command"]  # no path of somebody's machine


def test_the_record_holds_every_test_and_every_system(record: dict) -> None:
    assert set(record["tests"]) == set(GOALS)
    for found in record["tests"].values():
        assert set(found["systems"]) == {TRANSCRIPT, *NAMES}
        assert {(row["first"], row["second"]) for row in found["comparisons"]} == set(combinations(found["systems"], 2))
        for both in found["systems"].values():
            for values in both.values():
                report = RetrievalReport.from_dict(values)
                assert report.hits_at_1.low <= report.hits_at_1.value <= report.hits_at_5.value
                assert report.hits_at_1.value <= report.mrr.value
    for name in ("brown_espeak", "brown_flite"):
        assert record["tests"][name]["clips"] == 1_500


def test_the_card_shows_the_record(record: dict, tmp_path: Path) -> None:
    card = pocket_folder("") / "README.md"
    copy = tmp_path / "README.md"
    copy.write_text(card.read_text("utf-8"), encoding="utf-8")
    update_card(copy, record)
    assert copy.read_text("utf-8") == card.read_text("utf-8")
    for row in table(record):
        assert row["system"] in card.read_text("utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_every_model_is_ten_times_better_than_chance(record: dict, name: str) -> None:
    for direction, values in record["tests"]["pocket_brown_test"]["systems"][name].items():
        report = RetrievalReport.from_dict(values)
        assert report.candidates >= 300 and report.n >= 300, direction
        assert report.hits_at_1.low >= 10 * report.chance, direction


def test_the_record_is_what_this_machine_measures(record: dict, measured: dict) -> None:
    compare_records(measured, record["tests"]["pocket_brown_test"])


def test_the_record_of_real_speech_is_what_this_machine_measures(
    record: dict, models: dict[str, CLASP], test_data: Path
) -> None:
    folder = test_data / "real_speech" / "common_voice_100" / "en"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    found = measure(models, Transcriber("pocket-ctc", device="cpu"), recordings(folder))
    compare_records(found, record["tests"]["common_voice_100_en"])


def compare_records(found: dict, recorded: dict) -> None:
    assert found["clips"] == recorded["clips"]
    for name, rate in recorded["transcription"].items():
        assert found["transcription"][name]["value"] == pytest.approx(rate["value"], abs=0.01), name
    for system, both in recorded["systems"].items():
        for direction, values in both.items():
            now = found["systems"][system][direction]
            assert (now["n"], now["candidates"]) == (values["n"], values["candidates"])
            for name in ("hits_at_1", "hits_at_5", "hits_at_10", "mrr", "ndcg_at_10"):
                assert now[name]["value"] == pytest.approx(values[name]["value"], abs=0.011), (system, name)
            assert now["mean_rank"]["value"] == pytest.approx(values["mean_rank"]["value"], rel=0.05), system
