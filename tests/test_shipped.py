"""What ships in the package: it loads, it is small, and its record says what this machine measures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import RATE
from datasets import Dataset

from clasp_lib import CLASP, RetrievalReport, get_profile
from clasp_lib.encoders.checkpoints import SHIPPED as ENCODERS
from clasp_lib.encoders.checkpoints import pocket_folder
from clasp_lib.evaluation import evaluate_both_directions, evaluate_folder
from clasp_lib.features import Features, extract_features
from clasp_lib.model import SHIPPED as MODELS
from clasp_lib.speech_brown import build_speech_brown
from clasp_lib.training import fuse

FUSIONS = ("concatenation", "gating")
DIRECTIONS = ("text_to_speech", "speech_to_text")


@pytest.fixture(scope="module")
def record() -> dict:
    return json.loads((pocket_folder("reports") / "retrieval.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def models() -> dict[str, CLASP]:
    return {name: CLASP.from_pretrained(f"pocket-{name}", device="cpu") for name in FUSIONS}


@pytest.fixture(scope="module")
def spoken() -> Dataset:
    """The test part of Pocket Brown, spoken anew: nothing here was stored by an earlier run."""
    profile = get_profile("pocket")
    only_test = {"train": 0, "validation": 0, "test": profile.voices_per_sentence["test"]}
    return build_speech_brown(
        profile.sentences(), profile.synthesizer(), voices_per_sentence=only_test, seed=profile.seed
    ).dataset["test"]


@pytest.fixture(scope="module")
def features(spoken: Dataset) -> Features:
    return extract_features(spoken, *get_profile("pocket").encoders())


def test_what_ships_is_small() -> None:
    files = [path for path in pocket_folder("").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 40 * 2**20
    assert not [p for p in files if p.suffix in (".pt", ".bin", ".pkl", ".pickle", ".npy", ".tmp")]


@pytest.mark.parametrize("name", [*ENCODERS.values(), *FUSIONS])
def test_shipped_weights_are_safetensors_with_a_config(name: str) -> None:
    folder = pocket_folder(name)
    assert json.loads((folder / "config.json").read_text("utf-8"))
    assert (folder / "model.safetensors").stat().st_size > 100_000


@pytest.mark.parametrize("name", MODELS)
def test_a_shipped_model_is_loaded_by_its_name(name: str) -> None:
    model = CLASP.from_pretrained(name, device="cpu")
    assert model.fusion_name == MODELS[name]
    assert model.dimension == 384
    assert model.config["speech_encoder"] == "pocket-hubert"  # by name: a path would only be good on one machine
    assert model.config["spectrogram_encoder"] == "pocket-efficientnet"
    assert model.config["text_encoder"] == "all-MiniLM-L6-v2"


def test_a_shipped_model_gives_a_clip_one_vector(models: dict[str, CLASP]) -> None:
    rng = np.random.default_rng(0)
    waves = [rng.standard_normal(round(s * RATE)).astype(np.float32) * 0.1 for s in (1.0, 3.7, 2.2, 0.4)]
    for model in models.values():
        alone = np.concatenate([model.encode_speech([wave]) for wave in waves])
        np.testing.assert_allclose(model.encode_speech(waves), alone, atol=1e-4)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_front_door_leads_to_the_same_vectors(
    fusion: str, models: dict[str, CLASP], features: Features, spoken: Dataset
) -> None:
    rows = spoken[:8]
    model = models[fusion]
    np.testing.assert_allclose(model.encode_speech(rows["audio"]), fuse(model.fusion, features)[:8], atol=1e-4)
    np.testing.assert_allclose(model.encode_text(rows["text"]), features.text[:8], atol=1e-4)


def test_the_record_says_how_it_was_made(record: dict) -> None:
    assert record["command"].startswith("python -m clasp_lib.pretraining heads")
    for key in ("date", "commit", "machine", "versions"):
        assert record[key]
    assert "/" not in record["command"].replace("...", "")  # no path of somebody's machine


def reports(record: dict, label: str, fusion: str) -> dict[str, RetrievalReport]:
    return {d: RetrievalReport.from_dict(record[label][fusion][d]) for d in DIRECTIONS}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_record_is_ten_times_better_than_chance(record: dict, fusion: str) -> None:
    for direction, report in reports(record, "pocket_brown_test", fusion).items():
        assert report.candidates >= 300 and report.n >= 300, direction
        assert report.hits_at_1.low >= 10 * report.chance, direction
        assert report.hits_at_1.low <= report.hits_at_1.value <= report.hits_at_5.value <= report.hits_at_10.value
        assert report.hits_at_1.value <= report.mrr.value and report.median_rank.value <= report.mean_rank.value


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_record_is_what_this_machine_measures(
    record: dict, fusion: str, models: dict[str, CLASP], features: Features
) -> None:
    fused = fuse(models[fusion].fusion, features)
    measured = evaluate_both_directions(fused, features.text, features.sentence_ids)
    for direction, recorded in reports(record, "pocket_brown_test", fusion).items():
        found = measured[direction]
        assert (found.n, found.candidates) == (recorded.n, recorded.candidates)
        for name in ("hits_at_1", "hits_at_5", "hits_at_10", "mrr", "ndcg_at_10"):
            assert getattr(found, name).value == pytest.approx(getattr(recorded, name).value, abs=0.01), name
            assert getattr(found, name).low == pytest.approx(getattr(recorded, name).low, abs=0.02), name
        assert found.mean_rank.value == pytest.approx(recorded.mean_rank.value, rel=0.05)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_record_of_real_speech_is_what_this_machine_measures(
    record: dict, fusion: str, models: dict[str, CLASP], test_data: Path
) -> None:
    folder = test_data / "real_speech" / "common_voice_100" / "en"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    label = next((name for name in record if "common_voice" in name), "common_voice")
    assert label in record, "the record holds no measurement on human recordings"
    measured = evaluate_folder(models[fusion], folder)
    for direction, recorded in reports(record, label, fusion).items():
        assert measured[direction].hits_at_1.value == pytest.approx(recorded.hits_at_1.value, abs=0.011)
        assert measured[direction].mrr.value == pytest.approx(recorded.mrr.value, abs=0.01)
