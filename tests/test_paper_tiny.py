"""The tiny checkpoints load by the same code as the published ones, and every tensor of theirs arrives."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from clasp_lib import CLASP
from clasp_lib.convert import PUBLISHED, PUBLISHED_WEIGHTS, read_published
from clasp_lib.encoders import SpectrogramEncoder, SpeechEncoder, TextEncoder
from clasp_lib.fusion import build_fusion
from clasp_lib.paper_tiny import (
    EFFICIENTNET,
    HUBERT,
    LABSE,
    WAV2VEC2,
    WIDTHS,
    XLM_R,
    make_checkpoints,
)
from clasp_lib.paper_tiny.fusions import as_published, found_in_main


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoints(tmp_path_factory.mktemp("hub") / "paper-tiny")


def test_hubert_comes_as_a_pickled_state_dict_under_old_names(hub: Path) -> None:
    files = {file.name for file in (hub / HUBERT).iterdir()}
    assert "pytorch_model.bin" in files and not any(name.endswith(".safetensors") for name in files)
    state = torch.load(hub / HUBERT / "pytorch_model.bin", weights_only=True)
    assert "hubert.encoder.pos_conv_embed.conv.weight_g" in state and "lm_head.weight" in state
    loaded = SpeechEncoder(str(hub / HUBERT), device="cpu")._model.state_dict()
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        arrived = loaded[f"encoder.pos_conv_embed.conv.parametrizations.weight.{new}"]
        assert torch.equal(arrived, state[f"hubert.encoder.pos_conv_embed.conv.{old}"])
    same = [key for key in state if key.removeprefix("hubert.") in loaded]
    assert all(torch.equal(loaded[key.removeprefix("hubert.")], state[key]) for key in same) and len(same) > 40


def test_a_checkpoint_that_lacks_its_positions_is_refused(hub: Path, tmp_path: Path) -> None:
    import shutil

    from clasp_lib.errors import CheckpointError

    broken = tmp_path / "hubert"
    shutil.copytree(hub / HUBERT, broken)
    state = torch.load(broken / "pytorch_model.bin", weights_only=True)
    del state["hubert.encoder.pos_conv_embed.conv.weight_g"]
    torch.save(state, broken / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="lacks 1 of the model's tensors"):
        SpeechEncoder(str(broken), device="cpu")


@pytest.mark.parametrize("name", [HUBERT, WAV2VEC2])
def test_speech_encoders_give_fifty_frames_a_second(hub: Path, name: str) -> None:
    wave = np.random.default_rng(0).standard_normal(32_000).astype(np.float32)
    encoder = SpeechEncoder(str(hub / name), device="cpu")
    (frames,) = encoder.frames([wave])
    assert frames.shape == (99, WIDTHS["speech"])  # 2 s less the receptive field of 400 samples, a frame each 320
    np.testing.assert_allclose(encoder.encode([wave])[0], frames.mean(0), atol=1e-5)


def test_the_transcriber_reads_the_published_layout(hub: Path) -> None:
    pytest.importorskip("jiwer", reason="jiwer is not installed: it belongs to the extra [asr]")
    from clasp_lib.transcription import Transcriber

    wave = np.random.default_rng(1).standard_normal(16_000).astype(np.float32)
    (text,) = Transcriber(str(hub / HUBERT)).transcribe([wave])
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ' ".lower() + "ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def test_labse_is_first_token_then_dense_then_length_one(hub: Path) -> None:
    encoder = TextEncoder(str(hub / LABSE), device="cpu")
    assert [type(module).__name__ for module in encoder._model] == ["Transformer", "Pooling", "Dense", "Normalize"]
    state = torch.load(hub / LABSE / "2_Dense" / "pytorch_model.bin", weights_only=True)
    assert torch.equal(encoder._model[2].linear.weight.cpu(), state["linear.weight"])
    vectors = encoder.encode(["a ferry", "eine Fähre", "渡轮", "یک کشتی"])
    assert vectors.shape == (4, WIDTHS["text"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.abs(vectors - vectors[0]).max(1)[1:].min() > 1e-3  # no language is all unknown tokens


def test_xlm_r_is_the_mean_of_its_tokens(hub: Path) -> None:
    encoder = TextEncoder(str(hub / XLM_R), device="cpu")
    assert [type(module).__name__ for module in encoder._model] == ["Transformer", "Pooling"]
    tokens = encoder._model.tokenize(["a ferry"])
    with torch.no_grad():
        states = encoder._model[0].auto_model(**{k: tokens[k] for k in ("input_ids", "attention_mask")})[0]
    mean = torch.nn.functional.normalize(states.mean(1)[0], dim=0).numpy()
    np.testing.assert_allclose(encoder.encode(["a ferry"])[0], mean, atol=1e-5)


def test_they_are_made_once_and_alike(hub: Path, tmp_path: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in hub.rglob("*") if file.is_file()}
    assert make_checkpoints(hub) == hub
    assert before == {file: file.stat().st_mtime_ns for file in hub.rglob("*") if file.is_file()}
    again = make_checkpoints(tmp_path / "again")
    (again / "paper-tiny.json").write_text("{}")  # of another version of this library
    (again / HUBERT / "vocab.json").unlink()
    assert (make_checkpoints(again) / HUBERT / "vocab.json").is_file()
    for file in before:
        if file.suffix == ".json":
            assert json.loads(file.read_text()) == json.loads((again / file.relative_to(hub)).read_text())
    states = [torch.load(folder / HUBERT / "pytorch_model.bin", weights_only=True) for folder in (hub, again)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_pictures_do_not_die_out_in_the_random_efficientnet(hub: Path) -> None:
    random = np.random.default_rng(2)
    waves = [
        (random.standard_normal(22_050) * np.exp(-rate * np.linspace(0, 3, 22_050))).astype("f4") for rate in (0, 4)
    ]
    first, second = SpectrogramEncoder(str(hub / EFFICIENTNET), drawing="tensor", device="cpu").encode(waves)
    assert first.shape == (WIDTHS["picture"],) and 1 < np.linalg.norm(first) < 1e4
    assert first @ second / np.linalg.norm(first) / np.linalg.norm(second) < 0.999


@pytest.mark.parametrize("file", PUBLISHED_WEIGHTS)
def test_the_published_fusions_are_modules_pickled_in_a_notebook(hub: Path, file: str) -> None:
    with pytest.raises(pickle.UnpicklingError, match=r"__main__\.HubertLabse(Concat|Gating)"):
        torch.load(hub / PUBLISHED / file, weights_only=True)
    config, fusion = read_published(hub / PUBLISHED / file)
    assert config["fusion"] == ("gating" if "Gating" in file else "concatenation")
    assert config["fusion_config"] == {"speech_width": 32, "picture_width": 1000, "width": 24}
    assert (b"mode" in (hub / PUBLISHED / file).read_bytes()) == file.startswith("CLASP")
    norms = [layer for layer in fusion.modules() if isinstance(layer, torch.nn.BatchNorm1d)]
    assert len(norms) >= 4 and all(norm.running_mean.abs().max() > 0 for norm in norms)  # as if it were trained


@pytest.mark.parametrize(("name", "kind"), [("concatenation", "HubertLabseConcat"), ("gating", "HubertLabseGating")])
def test_what_is_written_under_the_authors_names_is_read_under_ours(name: str, kind: str, tmp_path: Path) -> None:
    fusion = build_fusion(name, *WIDTHS.values())
    module = as_published(kind, fusion)
    with found_in_main(type(module)):
        torch.save(module, tmp_path / "module.pt")
    _, again = read_published(tmp_path / "module.pt")
    state = again.state_dict()
    assert state.keys() == fusion.state_dict().keys()
    assert all(torch.equal(state[key], tensor) for key, tensor in fusion.state_dict().items())


@pytest.mark.parametrize("there", [False, True])
def test_main_is_left_as_it_was(there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = sys.modules["__main__"]
    if there:
        monkeypatch.setattr(home, "HubertLabseGating", "the reader's own", raising=False)
    before = dict(vars(home))
    make_checkpoints(tmp_path / "hub")
    assert vars(home) == before and before.get("HubertLabseGating") == ("the reader's own" if there else None)


def test_the_published_folder_is_a_model_on_the_tiny_encoders(hub: Path) -> None:
    waves = [np.random.default_rng(seed).standard_normal(8_000).astype(np.float32) for seed in range(2)]
    model = CLASP.from_pretrained(
        hub / PUBLISHED,
        speech_encoder=str(hub / HUBERT),
        spectrogram_encoder=str(hub / EFFICIENTNET),
        text_encoder=str(hub / LABSE),
        device="cpu",
    )
    assert model.fusion_name == "concatenation" and model.spectrogram_encoder.drawing == "matplotlib"
    speech, text = model.encode_speech(waves), model.encode_text(["a ferry"])
    assert speech.shape == (2, WIDTHS["text"]) and model.similarity(text, speech).shape == (1, 2)
    assert np.abs(speech[0] - speech[1]).max() > 1e-3
