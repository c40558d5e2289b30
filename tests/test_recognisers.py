"""Recognisers by name: the configuration decides what kind one is, and Whisper in the hub's layout says something."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Tiny

from clasp_lib.errors import AudioError, CheckpointError, ClaspError
from clasp_lib.paper_tiny import speech
from clasp_lib.transcription import Transcriber, Whisper, load_recogniser


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    torch.manual_seed(0)
    for number, make in enumerate((speech.whisper, speech.hubert, speech.wav2vec2)):
        make(folder / f"checkpoint{number}")  # names that say nothing
    return folder


@pytest.fixture(scope="module")
def whisper(hub: Path) -> Whisper:
    found = load_recogniser(str(hub / "checkpoint0"), device="cpu")
    assert isinstance(found, Whisper)
    return found


@pytest.fixture(scope="module")
def waves() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(round(16_000 * s)).astype(np.float32) * s for s in (0.5, 3.0, 1.2, 30.0, 2.0)]


@pytest.mark.parametrize(("number", "kind"), [(0, Whisper), (1, Transcriber), (2, Transcriber)])
def test_the_configuration_decides_what_is_loaded(hub: Path, number: int, kind: type) -> None:
    recogniser = load_recogniser(str(hub / f"checkpoint{number}"), device="cpu")
    assert type(recogniser) is kind and recogniser.sampling_rate == 16_000
    assert recogniser.name == str(hub / f"checkpoint{number}") and recogniser.parameters > 10_000


def test_the_tiny_whisper_is_laid_out_as_the_hubs(hub: Path) -> None:
    folder = hub / "checkpoint0"
    names = {file.name for file in folder.iterdir()}
    assert names >= {"config.json", "generation_config.json", "preprocessor_config.json", "model.safetensors"}
    assert names >= {"vocab.json", "merges.txt", "normalizer.json", "added_tokens.json", "tokenizer_config.json"}
    settings = json.loads((folder / "generation_config.json").read_text("utf-8"))
    assert settings["is_multilingual"] and len(settings["lang_to_id"]) == 99 and "<|fa|>" in settings["lang_to_id"]
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert config["vocab_size"] == settings["no_timestamps_token_id"] + 1 + 1501
    assert config["decoder_start_token_id"] == settings["decoder_start_token_id"]


def test_a_transcript_of_whisper_does_not_depend_on_its_batch(whisper: Whisper, waves: list[np.ndarray]) -> None:
    alone = [whisper.transcribe([wave])[0] for wave in waves]
    assert len(set(alone)) > 1 and all(alone)
    assert all(character.isalpha() or character == " " for text in alone for character in text)  # no special token
    for batch_size in (2, 16):
        assert whisper.transcribe(waves, batch_size) == alone
    assert whisper.transcribe([]) == []


def test_whisper_is_told_the_language_or_guesses_it(
    hub: Path, waves: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict] = []
    for language in (None, "fa"):
        recogniser = load_recogniser(str(hub / "checkpoint0"), device="cpu", language=language)
        generate = recogniser._model.generate

        def recorded(*args: object, generate=generate, **options: object) -> object:
            asked.append(options)
            return generate(*args, **options)

        monkeypatch.setattr(recogniser._model, "generate", recorded)
        assert recogniser.transcribe(waves[:1])
    assert [options.get("language") for options in asked] == [None, "fa"]
    assert all(options["task"] == "transcribe" and options["num_beams"] == 1 for options in asked)
    with pytest.raises(ClaspError, match=r"language 'xx'.*fa, "):
        load_recogniser(str(hub / "checkpoint0"), device="cpu", language="xx")


def test_a_whisper_of_english_alone_is_not_told_a_language(hub: Path, waves: list[np.ndarray], tmp_path: Path) -> None:
    folder = tmp_path / "english"
    shutil.copytree(hub / "checkpoint0", folder)
    file = folder / "generation_config.json"
    settings = json.loads(file.read_text("utf-8")) | {"is_multilingual": False}
    del settings["lang_to_id"], settings["task_to_id"]
    file.write_text(json.dumps(settings), encoding="utf-8")
    for language in (None, "en"):
        assert load_recogniser(str(folder), device="cpu", language=language).transcribe(waves[:1])[0]
    with pytest.raises(ClaspError, match="knows English only"):
        load_recogniser(str(folder), device="cpu", language="de")


@pytest.mark.parametrize("seconds", [0, 30.1])
def test_what_whisper_cannot_hear_at_once_is_refused(whisper: Whisper, seconds: float) -> None:
    fine = np.ones(1_600, np.float32)
    with pytest.raises(AudioError, match=rf"clip number 1 lasts {seconds:.1f} s.*up to 30 s"):
        whisper.transcribe([fine, np.ones(round(16_000 * seconds), np.float32)])


def test_a_language_is_for_whisper(hub: Path) -> None:
    with pytest.raises(ClaspError, match=r"'fa'.*hubert model, which has one language"):
        load_recogniser(str(hub / "checkpoint1"), device="cpu", language="fa")


def test_what_recognises_no_speech_is_refused_by_name(hub: Path, tiny: Tiny, tmp_path: Path) -> None:
    for name in ("nowhere", str(tiny.sentences), str(tiny.hubert)):
        with pytest.raises(CheckpointError) as caught:
            load_recogniser(name, device="cpu")
        assert name in str(caught.value)
    broken = tmp_path / "whisper"
    shutil.copytree(hub / "checkpoint0", broken)
    (broken / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match="cannot be loaded as a Whisper"):
        load_recogniser(str(broken), device="cpu")


def test_a_whisper_that_lacks_weights_is_refused(hub: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "whisper"
    shutil.copytree(hub / "checkpoint0", broken)
    weights = load_file(broken / "model.safetensors")
    del weights["model.encoder.conv1.weight"]
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 of .* model\.encoder\.conv1\.weight"):
        load_recogniser(str(broken), device="cpu")
