"""What ships in the package: it loads, it is small, and its record says what this machine measures."""

from __future__ import annotations

import json
import re
from datetime import date
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from conftest import RATE
from datasets import Dataset

from clasp_lib import CLASP, RetrievalReport, get_profile
from clasp_lib.ablation import Question, System, cells, read_ablation, recompute, to_frame
from clasp_lib.ablation.record import verdict
from clasp_lib.audio import load_audio
from clasp_lib.encoders.checkpoints import SHIPPED as ENCODERS
from clasp_lib.encoders.checkpoints import pocket_folder
from clasp_lib.metrics import Interval
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
from clasp_lib.significance import Estimate, PairedComparison, holm, interval_over_seeds, sign_flip_test
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


@pytest.mark.slow
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


@pytest.fixture(scope="module")
def ablation() -> dict:
    return json.loads((pocket_folder("reports") / "ablation.json").read_text("utf-8"))


def of_system(rows: list[dict], system: dict) -> list[dict]:
    """Those of the rows that are about a system."""
    return [row for row in rows if all(row[name] == system[name] for name in System._fields)]


def test_the_ablation_is_that_of_the_specification_that_ships(ablation: dict) -> None:
    shipped = read_ablation(pocket_folder("ablation.toml"))
    assert ablation["spec"] == shipped.spec and ablation["default"] == shipped.default._asdict()
    rates = {System(*(row[name] for name in System._fields)): row["learning_rate"] for row in ablation["rows"]}
    found = [tuple(row[name] for name in (*System._fields, "seed", "learning_rate")) for row in ablation["rows"]]
    assert found == [tuple(cell) for cell in cells(shipped, rates)]
    asked = [Question(row["name"], System(**row["first"]), System(**row["second"])) for row in ablation["questions"]]
    assert asked == list(shipped.questions)


def test_the_ablation_says_how_it_was_made(ablation: dict) -> None:
    assert ablation["command"] == "python -m clasp_lib.ablation ablation.toml"
    assert date.fromisoformat(ablation["date"])
    assert re.fullmatch("[0-9a-f]{7,40}", ablation["commit"])
    assert ablation["machine"] and "torch" in ablation["versions"]


def test_each_system_of_the_ablation_has_the_learning_rate_that_suits_it(ablation: dict) -> None:
    for system in ablation["systems"]:
        tried = of_system(ablation["tuning"], system)
        assert sorted(row["learning_rate"] for row in tried) == sorted(ablation["spec"]["learning_rates"])
        best = max(tried, key=lambda row: row["validation_mrr"])
        assert [row["learning_rate"] for row in tried if row["chosen"]] == [best["learning_rate"]]
        assert {row["learning_rate"] for row in of_system(ablation["rows"], system)} == {best["learning_rate"]}


def test_the_means_and_intervals_of_the_ablation_follow_from_its_rows(ablation: dict) -> None:
    frame = to_frame(ablation)
    assert frame["pairs"].eq(ablation["pairs"]["train"]).all()
    for system in ablation["systems"]:
        assert system["sentences"] == ablation["pairs"]["test"]  # one clip each: the mean over clips is that over texts
        rows = of_system(ablation["rows"], system)
        assert [row["seed"] for row in rows] == list(range(system["seeds"]))
        for name in ("mrr", "hits_at_1"):
            values = np.array([[row[f"speech_to_text_{name}"]] for row in rows])  # (seeds, 1)
            value, *ends = interval_over_seeds(values)
            assert system[name]["value"] == pytest.approx(value, abs=1e-6)
            assert system[name]["seeds"] == pytest.approx(ends, abs=1e-6)
            assert system[name]["both"][0] <= value <= system[name]["both"][1]


def test_the_verdicts_of_the_ablation_follow_from_its_rows(ablation: dict) -> None:
    """All but the p-values and intervals over sentences, which need the ranks."""
    for row in ablation["questions"]:
        first, second = (of_system(ablation["rows"], row[side]) for side in ("first", "second"))
        mrr = (np.array([r["speech_to_text_mrr"] for r in rows[: row["seeds"]]]) for rows in (first, second))
        differences = np.subtract(*mrr)  # (seeds,)
        value, *ends = interval_over_seeds(differences[:, None])
        assert row["difference"]["value"] == pytest.approx(value, abs=1e-6)
        assert row["difference"]["seeds"] == pytest.approx(ends, abs=1e-6)
        assert row["p_seeds"] == pytest.approx(sign_flip_test(differences), abs=1e-6)
        assert row["p_value"] == max(row["p_items"], row["p_seeds"])
        intervals = (Interval(value, *row["difference"][kind]) for kind in ("items", "seeds", "both"))
        comparison = PairedComparison(Estimate(*intervals), row["p_items"], row["p_seeds"])
        question = Question(row["name"], System(**row["first"]), System(**row["second"]))
        family = len(ablation["questions"])
        assert row["verdict"] == verdict(question, comparison, row["corrected"], row["seeds"], family)
    p_values = [row["p_value"] for row in ablation["questions"]]
    assert [row["corrected"] for row in ablation["questions"]] == pytest.approx(holm(p_values))


def test_rows_of_the_ablation_are_what_this_machine_trains(ablation: dict, tmp_path: Path) -> None:
    """Two of the rows that train in seconds."""
    pairs = recompute(ablation, 2, 0, tmp_path, workers=1, only=lambda row: row["fusion"] in ("linear", "speech_only"))
    for recorded, found in pairs:
        for name in ("validation_mrr", "speech_to_text_mrr", "text_to_speech_mrr"):
            assert found[name] == pytest.approx(recorded[name], abs=0.02), (recorded, name)
