"""The record of the three columns says what this machine measures: a tenth of it is measured anew."""

from __future__ import annotations

import json
from datetime import date

import numpy as np
import pytest
from datasets import Dataset

from clasp_lib import CLASP, RetrievalReport
from clasp_lib.audio import load_audio
from clasp_lib.costs import DIRECT, ORACLE, RECOGNISED, STAGES
from clasp_lib.encoders.checkpoints import pocket_folder
from clasp_lib.metrics import rank_queries
from clasp_lib.pipelines import COLUMNS, DIRECTIONS, embed_columns, word_errors
from clasp_lib.pretraining.measure import recordings
from clasp_lib.records.transcripts import MODELS, OWN, RECOGNISER, columns_of
from clasp_lib.significance import holm
from clasp_lib.transcription import error_rates, load_recogniser, spelled


@pytest.fixture(scope="module")
def record() -> dict:
    return json.loads((pocket_folder("reports") / "transcripts.json").read_text("utf-8"))


def test_the_record_says_how_it_was_made(record: dict) -> None:
    assert record["command"].startswith("python -m clasp_lib.records transcripts")
    assert "/" not in record["command"] and date.fromisoformat(record["date"])
    assert record["commit"] and record["machine"] and "torch" in record["versions"]
    assert record["recogniser"] == RECOGNISER and set(record["tests"]) == {OWN, "common_voice_100_en"}


def test_the_record_holds_three_columns_of_every_model(record: dict) -> None:
    for found in record["tests"].values():
        assert set(found["models"]) == set(MODELS)
        for part in found["models"].values():
            assert list(part["columns"]) == list(COLUMNS)
            for both in part["columns"].values():
                for report in (RetrievalReport.from_dict(both[way]) for way in DIRECTIONS):
                    assert report.hits_at_1.low <= report.hits_at_1.value <= report.mrr.value
                    assert sorted((report.n, report.candidates)) == [found["sentences"], found["clips"]]
            rows = part["comparisons"]
            assert [row["p_holm"] for row in rows] == pytest.approx(holm([row["p_value"] for row in rows]))
            for name in COLUMNS:
                parts = [row for row in part["errors"] if row["column"] == name]
                assert sum(row["n"] for row in parts) == found["clips"]


def test_of_people_only_sums_are_kept(record: dict) -> None:
    """No text, transcript, file or speaker of theirs."""
    texts = json.dumps({name: found for name, found in record["tests"].items() if name != OWN})
    assert "common_voice_en_" not in texts and "speaker" not in texts and "transcripts" not in texts
    assert len(record["transcripts"]) == record["tests"][OWN]["clips"]


def test_measures_follow_from_the_ranks_and_transcripts_that_are_kept(record: dict, spoken: Dataset) -> None:
    found = record["tests"][OWN]
    texts = list(spoken["text"])
    rates = error_rates(list(map(spelled, texts)), list(map(spelled, record["transcripts"])), 10)
    for name, rate in found["transcription"].items():
        assert rate["value"] == pytest.approx(rates[name].value)
    wrong = word_errors(texts, record["transcripts"])
    for model in MODELS:
        for column in COLUMNS:
            ranks = np.array(record["ranks"][model][column])
            report = RetrievalReport.from_dict(found["models"][model]["columns"][column]["speech_to_text"])
            assert (ranks == 1).mean() == pytest.approx(report.hits_at_1.value, abs=0.003)  # half a tie apart
            assert (1 / ranks).mean() == pytest.approx(report.mrr.value, abs=0.003)
            assert ranks.mean() == pytest.approx(report.mean_rank.value)
            for row in found["models"][model]["errors"]:
                chosen = (wrong >= row["from"] - 1e-9) & (wrong <= row["to"] + 1e-9)
                assert chosen.sum() == row["n"]
                if row["column"] == column:
                    assert (1 / ranks[chosen]).mean() == pytest.approx(row["mrr"]["value"], abs=0.005)


def test_a_tenth_of_the_clips_is_what_this_machine_measures(record: dict, spoken: Dataset) -> None:
    tenth = list(range(0, len(spoken), 10))
    texts, ids = list(spoken["text"]), list(spoken["sentence_id"])
    waves = [load_audio(item) for item in spoken.select(tenth)["audio"]]
    transcripts = load_recogniser(RECOGNISER, device="cpu").transcribe(waves)
    same = [mine == record["transcripts"][i] for mine, i in zip(transcripts, tenth, strict=True)]
    assert np.mean(same) >= 0.9
    models = {name: CLASP.from_pretrained(name, device="cpu") for name in MODELS}
    vectors = models[MODELS[0]].encode_text(texts)
    for name, model in models.items():
        columns = embed_columns(model, waves, [texts[i] for i in tenth], transcripts)
        for column, speech in columns.items():
            ranks = rank_queries(speech, vectors, [ids[i] for i in tenth], ids).rank
            kept = np.array(record["ranks"][name][column])[tenth]
            assert np.mean(ranks == kept) >= 0.9, (name, column)
            assert (1 / ranks).mean() == pytest.approx((1 / kept).mean(), abs=0.02), (name, column)


def test_the_record_of_people_is_what_this_machine_measures(record: dict, test_data) -> None:
    folder = test_data / "real_speech" / "common_voice_100" / "en"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    test, recogniser = recordings(folder), load_recogniser(RECOGNISER, device="cpu")
    model = CLASP.from_pretrained(MODELS[0], device="cpu")
    found = columns_of(model, recogniser, test, recogniser.transcribe(test.waves))
    kept = record["tests"]["common_voice_100_en"]
    for name, rate in kept["transcription"].items():
        assert found["transcription"][name]["value"] == pytest.approx(rate["value"], abs=0.01)
    for column, both in kept["models"][MODELS[0]]["columns"].items():
        for direction, values in both.items():
            now = found["columns"][column][direction]
            assert now["mrr"]["value"] == pytest.approx(values["mrr"]["value"], abs=0.011), (column, direction)


def test_the_recorded_costs_are_those_of_what_ships_and_add_up(record: dict) -> None:
    costs = record["costs"]
    model, recogniser = CLASP.from_pretrained(MODELS[0], device="cpu"), load_recogniser(RECOGNISER, device="cpu")
    counted = {name: stage["parameters"] for name, stage in costs["stages"].items()}
    assert counted == {
        "recognise": recogniser.parameters,
        "speech encoder": model.speech_encoder.parameters,
        "picture encoder": model.spectrogram_encoder.parameters,
        "fusion": sum(p.numel() for p in model.fusion.parameters()),
        "embed text": model.text_encoder.parameters,
    }
    for name in (ORACLE, RECOGNISED, DIRECT):
        for kind in ("parameters", "bytes"):
            sizes = {stage: size[kind] for stage, size in costs["stages"].items()}
            for phase, stages in STAGES[name].items():
                assert costs["columns"][name][phase][kind] == sum(sizes[stage] for stage in stages)
            used = {stage for stages in STAGES[name].values() for stage in stages}
            assert costs["columns"][name]["whole"][kind] == sum(sizes[stage] for stage in used)
        peak = costs["columns"][name]["peak_memory"]
        assert 0 < peak["index"] <= peak["whole"]
