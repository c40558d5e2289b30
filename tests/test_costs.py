"""Costs by stage: whatever is counted adds up, and a file is counted if loading reads it. No test minds a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Clip, Tiny

from clasp_lib import CLASP
from clasp_lib.costs import (
    DIRECT,
    ORACLE,
    RECOGNISED,
    STAGES,
    Parts,
    _folder_bytes,
    _index,
    _peaks,
    measure_costs,
    stored_bytes,
)
from clasp_lib.encoders.checkpoints import pocket_folder
from clasp_lib.errors import ClaspError
from clasp_lib.paper_tiny import speech
from clasp_lib.transcription import Transcriber, load_recogniser


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory: pytest.TempPathFactory) -> Transcriber:
    folder = tmp_path_factory.mktemp("recogniser") / "hubert"
    torch.manual_seed(0)
    speech.hubert(folder)
    found = load_recogniser(str(folder), device="cpu")
    assert isinstance(found, Transcriber)
    return found


@pytest.fixture(scope="module")
def said(clips: list[Clip]) -> tuple[list[np.ndarray], list[str]]:
    return [clip.samples for clip in clips], [clip.text for clip in clips]


@pytest.fixture(scope="module")
def costs(model: CLASP, recogniser: Transcriber, said: tuple) -> dict[str, Any]:
    return measure_costs(model, recogniser, *said, passes=3, memory=False)


def test_every_stage_of_every_pipeline_is_counted(costs: dict[str, Any]) -> None:
    assert list(costs["columns"]) == [ORACLE, RECOGNISED, DIRECT]
    for name, column in costs["columns"].items():
        for phase, stages in STAGES[name].items():
            assert tuple(column[phase]["stages"]) == stages
    assert set(costs["stages"]) == {"recognise", "speech encoder", "picture encoder", "fusion", "embed text"}
    assert (costs["clips"], costs["queries"], costs["passes"], costs["batch_size"]) == (6, 6, 3, 16)
    assert costs["threads"] == torch.get_num_threads() and costs["device"] == "cpu"
    assert json.loads(json.dumps(costs)) == costs


@pytest.mark.parametrize("kind", ["parameters", "bytes"])
def test_parameters_and_bytes_add_up(costs: dict[str, Any], kind: str) -> None:
    stages = {name: size[kind] for name, size in costs["stages"].items()}
    text = stages["embed text"]
    fused = sum(stages[name] for name in ("speech encoder", "picture encoder", "fusion"))
    whole = {name: [column[p][kind] for p in ("index", "query", "whole")] for name, column in costs["columns"].items()}
    assert whole[ORACLE] == [text, text, text]
    assert whole[RECOGNISED] == [stages["recognise"] + text, text, stages["recognise"] + text]  # the text once
    assert whole[DIRECT] == [fused, text, fused + text]


def test_parameters_and_bytes_are_those_of_what_is_loaded(
    costs: dict[str, Any], model: CLASP, recogniser: Transcriber, tmp_path: Path
) -> None:
    stages = costs["stages"]
    assert stages["recognise"]["parameters"] == recogniser.parameters
    assert stages["embed text"]["parameters"] == model.text_encoder.parameters
    model.save_pretrained(tmp_path)
    assert stages["fusion"]["bytes"] == (tmp_path / "model.safetensors").stat().st_size
    counted = ("pytorch_model.bin", "config.json", "vocab.json", "special_tokens_map.json")
    counted += ("tokenizer_config.json", "preprocessor_config.json")
    assert stages["recognise"]["bytes"] == sum(Path(recogniser.name, file).stat().st_size for file in counted)


def test_seconds_of_a_pipeline_are_those_of_its_stages(costs: dict[str, Any]) -> None:
    for column in costs["columns"].values():
        for phase in ("index", "query"):
            stages = column[phase]["stages"].values()
            assert column[phase]["seconds"] == pytest.approx(sum(stage["value"] for stage in stages))
            assert all(0 < stage["low"] <= stage["value"] <= stage["high"] for stage in stages)


def test_without_a_recogniser_its_pipeline_is_absent(model: CLASP, said: tuple) -> None:
    costs = measure_costs(model, None, *said, passes=1, memory=False)
    assert list(costs["columns"]) == [ORACLE, DIRECT] and "recognise" not in costs["stages"]


def test_what_is_timed_is_what_the_model_does(model: CLASP, said: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stages of the direct way, run one by one, give the model's own vectors."""
    import contextlib

    given: list[torch.Tensor] = []
    normalize = torch.nn.functional.normalize

    def recorded(vectors: torch.Tensor, dim: int) -> torch.Tensor:
        if vectors.shape[1] == model.dimension:  # a fusion may bring its inputs to length one, too
            given.append(normalize(vectors, dim=dim))
        return normalize(vectors, dim=dim)

    monkeypatch.setattr(torch.nn.functional, "normalize", recorded)
    parts = Parts(None, model.speech_encoder, model.spectrogram_encoder, model.fusion, None)
    _index(DIRECT, parts, *said, 4, lambda _: contextlib.nullcontext())
    monkeypatch.undo()
    np.testing.assert_allclose(torch.cat(given).numpy(), model.encode_speech(said[0]), atol=1e-4)


def test_memory_is_measured_in_a_process_for_each_pipeline(model: CLASP, recogniser: Transcriber, said: tuple) -> None:
    waves, texts = said
    costs = measure_costs(model, recogniser, waves[:2], texts[:2], passes=1)
    for column in costs["columns"].values():
        peak = column["peak_memory"]
        assert set(peak) == {"baseline", "index", "whole"}
        assert peak["baseline"] > 2**20 and 0 <= peak["index"] <= peak["whole"] < 2**32


def test_a_process_that_fails_says_why(
    model: CLASP, recogniser: Transcriber, said: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recogniser, "name", "nowhere/at-all")
    with pytest.raises(ClaspError, match=r"memory of 'recognised transcript' failed: nowhere/at-all"):
        _peaks([RECOGNISED], model, recogniser, *said, batch_size=4)


def test_the_weights_that_loading_prefers_are_counted_once(tmp_path: Path) -> None:
    sizes = {
        "model.safetensors": 100,
        "pytorch_model.bin": 90,
        "config.json": 5,
        "tokenizer.json": 7,
        "README.md": 1_000,
    }
    sizes |= {"tf_model.h5": 80, "onnx/model.onnx": 70}
    for file, size in sizes.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(b"x" * size)
    assert _folder_bytes(tmp_path) == stored_bytes(str(tmp_path), 3) == 112
    (tmp_path / "2_Dense").mkdir()
    (tmp_path / "2_Dense" / "pytorch_model.bin").write_bytes(b"x" * 30)
    listed = json.dumps([{"path": ""}, {"path": "2_Dense"}])
    (tmp_path / "modules.json").write_text(listed, encoding="utf-8")
    assert _folder_bytes(tmp_path) == 112 + 30 + len(listed)


def test_files_are_found_by_the_names_that_encoders_have(tiny: Tiny, tmp_path: Path) -> None:
    weights = pocket_folder("ctc") / "model.safetensors"
    assert 0 < stored_bytes("pocket-ctc", 1) - weights.stat().st_size < 100_000
    (tmp_path / "efficientnet_b0_x.pth").write_bytes(b"x" * 11)
    assert stored_bytes(str(tmp_path / "efficientnet_b0_x.pth"), 1) == 11
    assert stored_bytes("a_timm_name_without_files", 10) == 40


def test_what_cannot_be_measured_is_refused(model: CLASP, said: tuple) -> None:
    waves, texts = said
    for bad in (([], []), (waves, texts[:1])):
        with pytest.raises(ClaspError, match="give at least one"):
            measure_costs(model, None, *bad)

    class Other:
        name, sampling_rate = "other", 16_000

    with pytest.raises(ClaspError, match="a Other has no cost that is known"):
        measure_costs(model, Other(), waves, texts)  # type: ignore[arg-type]
