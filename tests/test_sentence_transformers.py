"""CLASP behind the interface of sentence-transformers: the same vectors, and its evaluators."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch
from conftest import Clip, Encoders, tiny_model
from packaging.version import Version
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from clasp_lib import CLASP
from clasp_lib.audio import encode_audio
from clasp_lib.errors import AudioError, CheckpointError, ClaspError, TextError
from clasp_lib.sentence_transformers_modules import ClaspRouter, as_sentence_transformer

TEXTS = ["A query.", "Another, rather longer query.", "ab"]


@pytest.fixture(scope="module")
def folder(model: CLASP, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("door") / "clasp"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu", trust_remote_code=True)


@pytest.fixture(scope="module")
def files(clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("recordings")
    paths = [folder / f"{number}.wav" for number in range(len(clips))]
    for path, clip in zip(paths, clips, strict=True):
        path.write_bytes(encode_audio(clip.samples, 16_000, "WAV"))
    return paths


# The same vectors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", ["concatenation", "gating", "attention+concatenation"])
def test_the_vectors_are_those_of_the_model(fusion: str, encoders: Encoders, clips: list[Clip], tmp_path: Path) -> None:
    model = tiny_model(encoders, fusion, seed=5)
    model.save_pretrained(tmp_path / "clasp")
    recordings = [clip.samples for clip in clips]
    speech, text = model.encode_speech(recordings), model.encode_text(TEXTS)
    assert np.abs(speech[0] - speech[1]).max() > 1e-3
    for other in (
        SentenceTransformer(str(tmp_path / "clasp"), device="cpu", trust_remote_code=True),
        as_sentence_transformer(model),
    ):
        np.testing.assert_allclose(other.encode(recordings), speech, atol=1e-5)
        np.testing.assert_allclose(other.encode(recordings, batch_size=2), speech, atol=1e-5)
        np.testing.assert_allclose(other.encode(TEXTS), text, atol=1e-5)
        np.testing.assert_allclose(other.similarity(text, speech), model.similarity(text, speech), atol=1e-5)


def test_it_is_a_router_of_two_modalities(loaded: SentenceTransformer, model: CLASP) -> None:
    assert isinstance(loaded[0], Router) and list(loaded[0].sub_modules) == ["text", "audio"]
    assert loaded.modalities == ["audio", "text"]
    assert loaded.supports("audio") and not loaded.supports("image") and not loaded.supports(("audio", "text"))
    assert loaded.get_embedding_dimension() == model.dimension == 24
    assert loaded.similarity_fn_name == "cosine"
    assert loaded.max_seq_length is None and loaded.tokenizer("a b")["input_ids"]
    parts = (model.speech_encoder, model.spectrogram_encoder, model.text_encoder)
    fusion = sum(p.numel() for p in model.fusion.parameters())
    assert sum(p.numel() for p in loaded.parameters()) == fusion + sum(part.parameters for part in parts)


def test_every_kind_of_recording_gives_the_same_vector(
    loaded: SentenceTransformer, model: CLASP, files: list[Path], clips: list[Clip]
) -> None:
    expected = model.encode_speech([files[1]])[0]
    samples = clips[1].samples
    decoder = SimpleNamespace(
        get_all_samples=lambda: SimpleNamespace(data=torch.tensor(samples)[None].repeat(2, 1), sample_rate=16_000)
    )
    kinds: list[Any] = [
        str(files[1]),
        files[1],
        samples,
        torch.tensor(samples),
        {"array": samples, "sampling_rate": 16_000},
        {"array": torch.tensor(samples), "sampling_rate": 16_000},
        {"bytes": files[1].read_bytes(), "path": "anything"},
        {"audio": str(files[1])},
        {"audio": {"array": samples, "sampling_rate": 16_000}},
        {"audio": torch.tensor(samples)},
        {"audio": decoder},
    ]
    for kind in kinds:
        assert loaded.encode(kind) @ expected > 0.9999, kind
        assert loaded.encode([kind])[0] @ expected > 0.9999, kind
    np.testing.assert_allclose(loaded.encode(kinds) @ expected, 1, atol=1e-4)
    slow = {"array": samples, "sampling_rate": 8_000}
    np.testing.assert_allclose(loaded.encode([slow]), model.encode_speech([slow]), atol=1e-5)
    assert loaded.encode([slow])[0] @ expected < 0.9999


def test_queries_and_documents_may_be_of_either_kind(
    loaded: SentenceTransformer, model: CLASP, files: list[Path]
) -> None:
    text, speech = model.encode_text(TEXTS), model.encode_speech(files)
    paths = [str(path) for path in files]
    for encode in (loaded.encode_query, loaded.encode_document):
        np.testing.assert_allclose(encode(TEXTS), text, atol=1e-5)
        np.testing.assert_allclose(encode([{"text": text} for text in TEXTS]), text, atol=1e-5)
        np.testing.assert_allclose(encode(paths), speech, atol=1e-5)


def test_a_prompt_is_put_before_texts_only(loaded: SentenceTransformer, model: CLASP, files: list[Path]) -> None:
    prompted = loaded.encode(TEXTS, prompt="query: ")
    np.testing.assert_allclose(prompted, model.encode_text([f"query: {text}" for text in TEXTS]), atol=1e-5)
    assert np.abs(prompted - model.encode_text(TEXTS)).max() > 1e-3
    np.testing.assert_allclose(loaded.encode(files, prompt="query: "), model.encode_speech(files), atol=1e-5)


def test_a_name_without_a_file_is_a_text(loaded: SentenceTransformer, model: CLASP, files: list[Path]) -> None:
    np.testing.assert_allclose(loaded.encode(["missing.wav"]), model.encode_text(["missing.wav"]), atol=1e-5)
    found = loaded.encode([str(files[0])], modality="text")
    np.testing.assert_allclose(found, model.encode_text([str(files[0])]), atol=1e-5)


def test_the_vectors_can_be_asked_for_in_other_forms(loaded: SentenceTransformer, files: list[Path]) -> None:
    whole = loaded.encode(files, convert_to_tensor=True)
    assert isinstance(whole, torch.Tensor) and whole.shape == (6, 24) and whole.dtype == torch.float32
    short = loaded.encode(files, truncate_dim=8)
    np.testing.assert_allclose(short, whole[:, :8], atol=1e-6)
    assert len(loaded.encode([])) == 0


def test_the_inputs_follow_the_networks_to_another_device(
    folder: Path, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = SentenceTransformer(str(folder), device="cpu", trust_remote_code=True).to("meta")
    assert {str(tensor.device) for tensor in [*moved.parameters(), *moved.buffers()]} == {"meta"}
    clasp, seen = moved[0].clasp, []

    def encode_speech(items: Any, **options: Any) -> np.ndarray:
        seen.extend([clasp.device, clasp.speech_encoder.device, clasp.spectrogram_encoder.device])
        return np.zeros((len(items), 24), np.float32)

    monkeypatch.setattr(clasp, "encode_speech", encode_speech)
    assert moved.encode([clips[0].samples], convert_to_tensor=True).device.type == "meta"
    assert [str(device) for device in seen] == ["meta"] * 3


# Bad input ----------------------------------------------------------------------------------------------------------


def test_a_bad_item_is_refused(loaded: SentenceTransformer, tmp_path: Path, clips: list[Clip]) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    with pytest.raises(AudioError, match=r"broken\.wav"):
        loaded.encode([str(broken)])
    with pytest.raises(AudioError, match=r"gone\.wav"):
        loaded.encode([tmp_path / "gone.wav"])
    with pytest.raises(AudioError, match="silent"):
        loaded.encode([np.zeros(16_000, np.float32)])
    with pytest.raises(AudioError, match="one channel"):
        loaded.encode([torch.tensor(clips[0].samples)[None]])
    with pytest.raises(TextError, match="''"):
        loaded.encode(["fine", ""])
    with pytest.raises(TextError, match="two"):
        loaded.encode([("one", "two")], prompt="query: ")
    with pytest.raises(ValueError, match="mixes multiple modalities"):
        loaded.encode(["a text", clips[0].samples])
    with pytest.raises(ValueError, match="modality='message'"):
        loaded.encode(["a text", tmp_path / "gone.wav"])
    with pytest.raises(ValueError, match="image"):
        loaded.encode([np.zeros((3, 8, 8), np.float32)])


@pytest.mark.parametrize("option", [{"model_kwargs": {"dtype": "float16"}}, {"backend": "onnx"}])
def test_options_that_clasp_does_not_have_are_refused(option: dict[str, Any], folder: Path) -> None:
    with pytest.raises(ClaspError, match=next(iter(option))):
        SentenceTransformer(str(folder), device="cpu", trust_remote_code=True, **option)


def test_a_damaged_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "clasp"
    shutil.copytree(folder, damaged)
    (damaged / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="clasp"):
        SentenceTransformer(str(damaged), device="cpu", trust_remote_code=True)


def test_an_older_sentence_transformers_is_named() -> None:
    code = (
        "import sentence_transformers; sentence_transformers.__version__ = '5.5.1'\n"
        "from clasp_lib.errors import MissingDependencyError\n"
        "try:\n    import clasp_lib.sentence_transformers_modules\n"
        "except MissingDependencyError as error:\n    assert '5.6 or newer' in str(error) and '5.5.1' in str(error)\n"
        "else:\n    raise AssertionError('imported')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Folders ------------------------------------------------------------------------------------------------------------


def test_the_folder_names_the_module_and_no_code(folder: Path) -> None:
    (module,) = json.loads((folder / "modules.json").read_text())
    assert module["type"] == f"{ClaspRouter.__module__}.{ClaspRouter.__qualname__}"
    assert not [path.name for path in folder.iterdir() if path.suffix not in (".json", ".safetensors", ".md")]
    assert "trust_remote_code=True" in (folder / "README.md").read_text()


@pytest.mark.skipif(Version(sentence_transformers.__version__) < Version("6"), reason="asked for since version 6.0")
def test_sentence_transformers_asks_for_the_flag(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"(?s)ClaspRouter.*trust_remote_code=True") as caught:
        SentenceTransformer(str(folder), device="cpu")
    assert not isinstance(caught.value, ClaspError)


def test_the_flag_runs_nothing_that_lies_in_the_folder(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "clasp"
    shutil.copytree(folder, copy)
    for place in ("clasp_lib.py", "sentence_transformers_modules.py", "clasp_lib/sentence_transformers_modules.py"):
        (copy / place).parent.mkdir(exist_ok=True)
        (copy / place).write_text("raise SystemExit('run')")
    model = SentenceTransformer(str(copy), device="cpu", trust_remote_code=True)
    assert type(model[0]) is ClaspRouter


def test_saving_through_sentence_transformers_keeps_the_model(
    loaded: SentenceTransformer, model: CLASP, files: list[Path], tmp_path: Path
) -> None:
    loaded.save_pretrained(str(tmp_path / "again"))
    assert CLASP.from_pretrained(tmp_path / "again").fingerprint == model.fingerprint
    again = SentenceTransformer(str(tmp_path / "again"), device="cpu", trust_remote_code=True)
    np.testing.assert_allclose(again.encode(files), model.encode_speech(files), atol=1e-5)
    assert not list((tmp_path / "again").glob("*/"))


def test_a_folder_of_before_loads_and_can_be_saved_again(folder: Path, model: CLASP, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    for file in ("modules.json", "config_sentence_transformers.json"):
        (old / file).unlink()
    before = CLASP.from_pretrained(old)
    assert before.fingerprint == model.fingerprint
    np.testing.assert_allclose(as_sentence_transformer(before).encode(TEXTS), model.encode_text(TEXTS), atol=1e-5)
    before.save_pretrained(old)
    door = SentenceTransformer(str(old), device="cpu", trust_remote_code=True)
    np.testing.assert_allclose(door.encode(TEXTS), model.encode_text(TEXTS), atol=1e-5)


def test_a_folder_called_as_a_shipped_model_is_that_folder(
    folder: Path, model: CLASP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path / "pocket")
    monkeypatch.chdir(tmp_path)
    door = SentenceTransformer("pocket", device="cpu", trust_remote_code=True)
    assert door[0].clasp.fingerprint == model.fingerprint


# Evaluators ---------------------------------------------------------------------------------------------------------


def ranks_of(model: CLASP, clips: list[Clip], recordings: Sequence[Any]) -> np.ndarray:
    """Where the clip of each text stands among all, 1 the first: `(n,)`."""
    scores = model.similarity(model.encode_text([clip.text for clip in clips]), model.encode_speech(recordings))
    return 1 + (scores > np.diag(scores)[:, None]).sum(1)


def test_its_evaluator_gives_the_measures_of_our_vectors(
    loaded: SentenceTransformer, model: CLASP, files: list[Path], clips: list[Clip]
) -> None:
    names = [str(number) for number in range(len(clips))]
    evaluator = InformationRetrievalEvaluator(
        queries={name: clip.text for name, clip in zip(names, clips, strict=True)},
        corpus={name: str(path) for name, path in zip(names, files, strict=True)},
        relevant_docs={name: {name} for name in names},
        accuracy_at_k=[1, 5],
        mrr_at_k=[10],
        ndcg_at_k=[10],
        show_progress_bar=False,
        write_csv=False,
    )
    found = evaluator(loaded)
    ranks = ranks_of(model, clips, files)
    assert 1 < ranks.mean() < 6  # random weights: neither all right nor all wrong
    assert found["cosine_accuracy@1"] == pytest.approx((ranks == 1).mean())
    assert found["cosine_accuracy@5"] == pytest.approx((ranks <= 5).mean())
    assert found["cosine_mrr@10"] == pytest.approx((1 / ranks).mean())
    assert found["cosine_ndcg@10"] == pytest.approx((1 / np.log2(1 + ranks)).mean())
