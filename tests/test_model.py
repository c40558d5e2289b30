"""CLASP as people call it: any mixture of recordings in, unit vectors out, in order, whatever the batch."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Clip, Encoders, Tiny, tiny_model
from safetensors.torch import load_file, save_file

from clasp_lib import CLASP
from clasp_lib.audio import encode_audio, load_audio, resample
from clasp_lib.encoders import SpectrogramEncoder, SpeechEncoder
from clasp_lib.errors import AudioError, CheckpointError, ClaspError, TextError
from clasp_lib.fusion import FUSIONS, Pooled, build_fusion
from clasp_lib.pooling import LabelAttentionPooling

LAYOUT = {"README.md", "config.json", "model.safetensors", "modules.json", "config_sentence_transformers.json"}


@pytest.fixture(scope="module")
def saved(model: CLASP, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "clasp"
    model.save_pretrained(folder)
    return folder


def samples(clips: list[Clip]) -> list[np.ndarray]:
    return [clip.samples for clip in clips]


# Vectors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_clip_has_one_vector_whatever_the_batch(fusion: str, encoders: Encoders, clips: list[Clip]) -> None:
    model = tiny_model(encoders, fusion)
    alone = np.concatenate([model.encode_speech([s]) for s in samples(clips)])
    assert alone.shape == (6, 24) and alone.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-5)
    for batch_size in (1, 2, 4, 16):
        np.testing.assert_allclose(model.encode_speech(samples(clips), batch_size=batch_size), alone, atol=1e-4)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3


def test_a_group_norm_encoder_gives_one_vector_too(tiny: Tiny, encoders: Encoders, clips: list[Clip]) -> None:
    model = tiny_model((SpeechEncoder(str(tiny.wav2vec2)), *encoders[1:]))
    alone = np.concatenate([model.encode_speech([s]) for s in samples(clips)])
    np.testing.assert_allclose(model.encode_speech(samples(clips)), alone, atol=1e-4)


def test_every_kind_of_item_gives_the_same_vector(model: CLASP, clips: list[Clip], tmp_path: Path) -> None:
    data = encode_audio(clips[1].samples, 16_000, "WAV")
    path = tmp_path / "clip.wav"
    path.write_bytes(data)
    rounded = np.round(clips[1].samples * 32768).astype(np.int16)
    items: list[Any] = [
        path,
        str(path),
        {"bytes": data, "path": "anything"},
        {"bytes": None, "path": str(path)},
        {"array": clips[1].samples, "sampling_rate": 16_000},
        {"array": resample(clips[1].samples, 16_000, 48_000), "sampling_rate": 48_000},
        clips[1].samples,
        rounded,
    ]
    expected = model.encode_speech([path])[0]
    for item, vector in zip(items, model.encode_speech(items), strict=True):
        assert vector @ expected > 0.999, type(item)
    other = model.encode_speech([clips[3].samples])[0]
    assert other @ expected < 0.99
    low = [resample(clips[1].samples, 16_000, 8_000)]
    np.testing.assert_allclose(
        model.encode_speech(low, sampling_rate=8_000),
        model.encode_speech([{"array": low[0], "sampling_rate": 8_000}]),
        atol=1e-6,
    )


def test_each_encoder_gets_the_recording_at_its_own_rate(
    tiny: Tiny, encoders: Encoders, clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = SpectrogramEncoder(str(tiny.efficientnet), drawing="tensor")
    assert (encoders[0].sampling_rate, drawn.sampling_rate) == (16_000, 22_050)
    model = tiny_model((encoders[0], drawn, encoders[2]))
    time = np.arange(44_100) / 44_100
    bright = (np.sin(2 * np.pi * 300 * time) + np.sin(2 * np.pi * 10_000 * time)).astype(np.float32) / 2
    path = tmp_path / "bright.wav"
    path.write_bytes(encode_audio(bright, 44_100, "WAV"))
    items: list[Any] = [path, bright, {"array": clips[0].samples, "sampling_rate": 16_000}]
    seen: dict[int, list[np.ndarray]] = {}
    for encoder in (encoders[0], drawn):
        encode = encoder.encode

        def record(waves: Any, *options: Any, rate: int = encoder.sampling_rate, encode: Any = encode) -> np.ndarray:
            seen.setdefault(rate, []).extend(waves)
            return encode(waves, *options)

        monkeypatch.setattr(encoder, "encode", record)
    assert model.encode_speech(items, sampling_rate=44_100).shape == (3, 24)
    for rate, waves in seen.items():
        for item, wave in zip(items, waves, strict=True):
            np.testing.assert_array_equal(wave, load_audio(item, rate, source_rate=44_100))
    spectrum = np.abs(np.fft.rfft(seen[22_050][1]))
    assert spectrum[9_990:10_010].max() > 0.5 * spectrum.max()  # by way of 16 kHz it would be gone


def test_order_is_kept_over_chunks(model: CLASP, clips: list[Clip], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = model.encode_speech(samples(clips))
    monkeypatch.setattr("clasp_lib.model._CHUNK", 4)
    order = [5, 2, 0, 4, 1, 3, 2]
    found = model.encode_speech([clips[i].samples for i in order], batch_size=3)
    np.testing.assert_allclose(found, expected[order], atol=1e-4)
    rows = np.stack([s[:5000] for s in samples(clips)])
    assert model.encode_speech(rows).shape == (6, 24)  # a 2-D array is a list of clips


def test_nothing_in_gives_nothing_out(model: CLASP) -> None:
    assert model.encode_speech([]).shape == model.encode_text([]).shape == (0, 24)
    assert model.similarity(model.encode_text(["a"]), model.encode_speech([])).shape == (1, 0)


def test_similarity_is_the_cosine(model: CLASP, clips: list[Clip]) -> None:
    speech = model.encode_speech(samples(clips))
    text = model.encode_text([clip.text for clip in clips[:4]])
    assert text.dtype == np.float32
    similar = model.similarity(text, speech)
    assert similar.shape == (4, 6) and similar.dtype == np.float32
    np.testing.assert_allclose(similar, text @ speech.T, atol=1e-6)
    np.testing.assert_allclose(model.similarity(3 * text, speech * 0.1), similar, atol=1e-6)
    np.testing.assert_allclose(np.diag(model.similarity(speech, speech)), 1, atol=1e-6)


def test_encoding_draws_no_bar_for_a_few_clips(
    model: CLASP, clips: list[Clip], capsys: pytest.CaptureFixture[str]
) -> None:
    model.encode_speech(samples(clips))
    model.encode_text(["a", "b"])
    assert capsys.readouterr().err == ""
    model.encode_speech(samples(clips), batch_size=2)
    assert "6/6" in capsys.readouterr().err
    model.encode_speech(samples(clips), batch_size=2, show_progress_bar=False)
    assert capsys.readouterr().err == ""


# Frames ------------------------------------------------------------------------------------------------------------


def pooled_model(encoders: Encoders, fusion: str) -> CLASP:
    """A tiny model whose pooling has learned something: it is not the mean any more."""
    model = tiny_model(encoders, fusion)
    assert isinstance(model.fusion, Pooled)
    if isinstance(model.fusion.pooling, LabelAttentionPooling):
        model.fusion.pooling.set_labels(encoders[2].encode(["news", "humor", "religion"]))
    generator = torch.Generator().manual_seed(1)
    for parameter in model.fusion.pooling.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return model


POOLED = ["attention+concatenation", "sparsemax+gmf", "label_attention+speech_only", "label_sparsemax+linear"]


@pytest.mark.parametrize("fusion", POOLED)
def test_a_clip_has_one_vector_with_frames_too(fusion: str, encoders: Encoders, clips: list[Clip]) -> None:
    model = pooled_model(encoders, fusion)
    alone = np.concatenate([model.encode_speech([s]) for s in samples(clips)])
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-5)
    for batch_size in (1, 2, 4, 16):
        np.testing.assert_allclose(model.encode_speech(samples(clips), batch_size=batch_size), alone, atol=1e-4)
    order = [5, 2, 0, 4, 1, 3, 2]
    found = model.encode_speech([clips[i].samples for i in order], batch_size=3)
    np.testing.assert_allclose(found, alone[order], atol=1e-4)
    assert model.encode_speech([]).shape == (0, 24)


def test_a_group_norm_encoder_gives_one_vector_with_frames_too(
    tiny: Tiny, encoders: Encoders, clips: list[Clip]
) -> None:
    model = pooled_model((SpeechEncoder(str(tiny.wav2vec2)), *encoders[1:]), "attention+speech_only")
    alone = np.concatenate([model.encode_speech([s]) for s in samples(clips)])
    np.testing.assert_allclose(model.encode_speech(samples(clips)), alone, atol=1e-4)


def test_a_pooling_that_has_not_learned_encodes_as_the_mean_does(encoders: Encoders, clips: list[Clip]) -> None:
    pooled, plain = tiny_model(encoders, "attention+concatenation"), tiny_model(encoders)
    assert isinstance(pooled.fusion, Pooled)
    pooled.fusion.fusion.load_state_dict(plain.fusion.state_dict())
    expected = plain.encode_speech(samples(clips))
    np.testing.assert_allclose(pooled.encode_speech(samples(clips)), expected, atol=1e-4)
    learned = pooled_model(encoders, "attention+concatenation")
    assert isinstance(learned.fusion, Pooled)
    learned.fusion.fusion.load_state_dict(plain.fusion.state_dict())
    assert np.abs(learned.encode_speech(samples(clips)) - expected).max() > 1e-3


def test_frames_and_pictures_come_at_their_own_rates(
    tiny: Tiny, encoders: Encoders, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, heard = SpectrogramEncoder(str(tiny.efficientnet), drawing="tensor"), SpeechEncoder(str(tiny.hubert))
    model, seen = pooled_model((heard, drawn, encoders[2]), "attention+concatenation"), {}
    frames, encode = heard.frames, drawn.encode

    def record(name: str, run: Any, waves: Any, batch_size: int) -> Any:
        seen[name] = [len(wave) for wave in waves]
        return run(waves, batch_size)

    monkeypatch.setattr(heard, "frames", partial(record, "frames", frames))
    monkeypatch.setattr(drawn, "encode", partial(record, "encode", encode))
    model.encode_speech([clips[0].samples])
    (at_16_000,), (at_22_050,) = seen["frames"], seen["encode"]
    assert at_16_000 == len(clips[0].samples)
    assert at_22_050 == pytest.approx(at_16_000 * 22_050 / 16_000, abs=2)


def test_the_frames_of_a_batch_only_are_held(
    encoders: Encoders, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = pooled_model(encoders, "attention+linear"), []
    frames = encoders[0].frames

    def count(waves: list[np.ndarray], batch_size: int) -> list[np.ndarray]:
        seen.append([len(wave) for wave in waves])
        return frames(waves, batch_size)

    monkeypatch.setattr(encoders[0], "frames", count)
    model.encode_speech(samples(clips), batch_size=4)
    lengths = sorted((len(s) for s in samples(clips)), reverse=True)
    assert seen == [lengths[:4], lengths[4:]]


def test_labels_that_are_missing_are_asked_for(encoders: Encoders, clips: list[Clip]) -> None:
    with pytest.raises(ClaspError, match="set_labels"):
        tiny_model(encoders, "label_attention+concatenation").encode_speech([clips[0].samples])


# What is refused ---------------------------------------------------------------------------------------------------


def test_one_item_is_not_taken_for_a_list(model: CLASP, clips: list[Clip]) -> None:
    for item in ("clip.wav", Path("clip.wav"), clips[0].samples, {"bytes": b"RIFF"}):
        with pytest.raises(AudioError, match=r"Wrap it: \[item\]"):
            model.encode_speech(item)  # type: ignore[arg-type]
    with pytest.raises(ClaspError, match=r"Wrap it: \['a query'\]"):
        model.encode_text("a query")


def test_a_bad_item_among_good_ones_is_named(model: CLASP, clips: list[Clip], tmp_path: Path) -> None:
    good, missing = clips[0].samples, tmp_path / "missing.wav"
    for bad, name in (
        (missing, str(missing)),
        (np.zeros(16_000, np.float32), "silent"),
        (good[:500], "0.031 s"),
        ({"path": None}, "'path'"),
        (None, "NoneType"),
        (np.where(np.arange(len(good)) == 77, np.nan, good), "NaN"),
    ):
        with pytest.raises(AudioError) as caught:
            model.encode_speech([good, bad, good])
        assert name in str(caught.value)
    with pytest.raises(AudioError, match="1 Hz"):
        model.encode_speech([good], sampling_rate=1)
    with pytest.raises(AudioError, match="0 Hz"):
        model.encode_speech([good], sampling_rate=0)
    with pytest.raises(TextError, match="number 1"):
        model.encode_text(["fine", ""])


def test_a_clip_below_the_receptive_field_is_named(tiny: Tiny, encoders: Encoders, tmp_path: Path) -> None:
    speech = SpeechEncoder(str(tiny.hubert))
    speech.min_samples = 2000
    path = tmp_path / "short.wav"
    path.write_bytes(encode_audio(np.sin(np.arange(1500) * 0.1).astype(np.float32), 16_000, "WAV"))
    with pytest.raises(AudioError, match=r"short\.wav: lasts 0\.094 s"):
        tiny_model((speech, *encoders[1:])).encode_speech([path])


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, None])
def test_a_batch_size_must_be_a_number(model: CLASP, clips: list[Clip], batch_size: Any) -> None:
    with pytest.raises(ClaspError, match="batch_size"):
        model.encode_speech(samples(clips), batch_size=batch_size)
    with pytest.raises(ClaspError, match="batch_size"):
        model.encode_text(["a"], batch_size=batch_size)


@pytest.mark.parametrize("vectors", [np.zeros((3, 23)), np.zeros(24), np.zeros((2, 3, 24)), 5.0])
def test_vectors_of_another_width_are_refused(model: CLASP, vectors: Any) -> None:
    good = np.ones((2, 24), np.float32)
    with pytest.raises(ClaspError, match=r"second argument.*\(n, 24\)"):
        model.similarity(good, vectors)
    with pytest.raises(ClaspError, match="first argument"):
        model.similarity(vectors, good)


def test_a_fusion_of_other_widths_is_refused(encoders: Encoders) -> None:
    with pytest.raises(ClaspError, match=r"built for .*'speech_width': 8.*encoders give .*'speech_width': 32"):
        CLASP(build_fusion("gating", 8, 20, 24), *encoders, "gating")


# Saving and loading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_saved_model_gives_the_same_vectors(
    fusion: str, encoders: Encoders, clips: list[Clip], tmp_path: Path
) -> None:
    model = tiny_model(encoders, fusion, seed=3)
    model.save_pretrained(tmp_path / "clasp")
    loaded = CLASP.from_pretrained(tmp_path / "clasp")
    np.testing.assert_array_equal(loaded.encode_speech(samples(clips)), model.encode_speech(samples(clips)))
    np.testing.assert_array_equal(loaded.encode_text(["A query."]), model.encode_text(["A query."]))
    assert loaded.fingerprint == model.fingerprint
    assert loaded.fusion_name == fusion and not loaded.fusion.training


@pytest.mark.parametrize("fusion", POOLED)
def test_a_saved_model_with_frames_gives_the_same_vectors(
    fusion: str, encoders: Encoders, clips: list[Clip], tmp_path: Path
) -> None:
    model = pooled_model(encoders, fusion)
    model.save_pretrained(tmp_path / "clasp")
    assert json.loads((tmp_path / "clasp" / "config.json").read_text())["fusion"] == fusion
    assert fusion in (tmp_path / "clasp" / "README.md").read_text()
    loaded = CLASP.from_pretrained(tmp_path / "clasp")
    assert loaded.fusion_name == fusion and loaded.fingerprint == model.fingerprint
    np.testing.assert_array_equal(loaded.encode_speech(samples(clips)), model.encode_speech(samples(clips)))
    tensors = load_file(tmp_path / "clasp" / "model.safetensors")
    assert fusion.startswith("label") == ("pooling.labels" in tensors)
    if fusion.startswith("label"):  # of another width: refused, not resized
        save_file(tensors | {"pooling.labels": torch.ones(3, 23)}, tmp_path / "clasp" / "model.safetensors")
        with pytest.raises(CheckpointError, match="labels"):
            CLASP.from_pretrained(tmp_path / "clasp")


def test_a_model_without_labels_can_be_saved_for_later(encoders: Encoders, tmp_path: Path) -> None:
    tiny_model(encoders, "label_attention+linear").save_pretrained(tmp_path / "clasp")
    fusion = CLASP.from_pretrained(tmp_path / "clasp").fusion
    assert isinstance(fusion, Pooled) and isinstance(fusion.pooling, LabelAttentionPooling)
    assert fusion.pooling.labels.shape == (0, 24)


def test_how_the_encoders_are_used_is_saved(tiny: Tiny, encoders: Encoders, clips: list[Clip], tmp_path: Path) -> None:
    speech = SpeechEncoder(str(tiny.hubert), layer=1, reference=True)
    picture = SpectrogramEncoder(str(tiny.efficientnet), drawing="tensor")
    model = tiny_model((speech, picture, encoders[2]))
    model.save_pretrained(tmp_path / "clasp")
    config = json.loads((tmp_path / "clasp" / "config.json").read_text())
    assert (config["speech_layer"], config["speech_reference"], config["drawing"]) == (1, True, "tensor")
    loaded = CLASP.from_pretrained(tmp_path / "clasp")
    assert loaded.speech_encoder.reference is True and loaded.spectrogram_encoder.drawing == "tensor"
    np.testing.assert_array_equal(loaded.encode_speech(samples(clips)), model.encode_speech(samples(clips)))
    assert loaded.fingerprint == model.fingerprint


def test_an_older_configuration_means_the_clean_path(saved: Path, model: CLASP, tmp_path: Path) -> None:
    folder = tmp_path / "clasp"
    shutil.copytree(saved, folder)
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("speech_reference") is False and config.pop("drawing") == "mel"
    (folder / "config.json").write_text(json.dumps(config))
    assert CLASP.from_pretrained(folder).fingerprint == model.fingerprint


def test_copies_of_the_encoders_may_be_named(
    tiny: Tiny, saved: Path, model: CLASP, clips: list[Clip], tmp_path: Path
) -> None:
    folder, copies = tmp_path / "clasp", {}
    shutil.copytree(saved, folder)
    config = json.loads((folder / "config.json").read_text())
    for part, place in (
        ("speech_encoder", tiny.hubert),
        ("spectrogram_encoder", tiny.efficientnet),
        ("text_encoder", tiny.sentences),
    ):
        copies[part] = str(shutil.copytree(place, tmp_path / part))
        config[part] = "no/such-encoder"
    (folder / "config.json").write_text(json.dumps(config))
    loaded = CLASP.from_pretrained(folder, **copies)
    assert copies.items() <= loaded.config.items()
    np.testing.assert_array_equal(loaded.encode_speech(samples(clips)), model.encode_speech(samples(clips)))


def test_a_saved_model_is_laid_out_for_the_hub(saved: Path) -> None:
    assert {p.name for p in saved.iterdir()} == LAYOUT
    config = json.loads((saved / "config.json").read_text())
    assert config["model_type"] == "clasp" and config["fusion"] == "concatenation"
    assert config["fusion_config"] == {"speech_width": 32, "picture_width": 20, "width": 24}
    assert "speech-retrieval" in (saved / "README.md").read_text()
    weights = load_file(saved / "model.safetensors")
    assert weights.keys() == build_fusion("concatenation", 32, 20, 24).state_dict().keys()
    assert callable(CLASP.push_to_hub)


def test_saving_again_replaces(encoders: Encoders, saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clasp"
    shutil.copytree(saved, folder)
    other = tiny_model(encoders, "gating", seed=9)
    other.save_pretrained(folder)
    assert CLASP.from_pretrained(str(folder)).fingerprint == other.fingerprint
    assert {p.name for p in folder.iterdir()} == LAYOUT


@pytest.mark.parametrize(
    "at", ["safetensors.torch.save_file", "clasp_lib.model.json.dumps", "clasp_lib.model.ModelCard"]
)
def test_a_save_that_fails_leaves_what_was_there(
    at: str, encoders: Encoders, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "clasp"
    shutil.copytree(saved, folder)
    (folder / "README.md").unlink()
    (folder / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch, pytest.raises(CheckpointError, match=r"cannot be written .no space"):
        patch.setattr(at, full)
        tiny_model(encoders, "gating").save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (folder / "README.md").write_text("my card")
    tiny_model(encoders, "gating").save_pretrained(folder)
    assert CLASP.from_pretrained(folder).fusion_name == "gating"
    assert (folder / "README.md").read_text() == "my card" and (folder / "notes.txt").read_text() == "mine"


def test_a_model_is_pushed_with_its_files(model: CLASP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed: dict[str, Any] = {}

    class Api:
        def __init__(self, *arguments: Any, **options: Any) -> None: ...

        def create_repo(self, repo_id: str, **options: Any) -> Any:
            return SimpleNamespace(repo_id=f"me/{repo_id}")

        def upload_folder(self, repo_id: str, folder_path: Path, **options: Any) -> str:
            pushed[repo_id] = {path.name for path in Path(folder_path).iterdir()}
            return "https://hub"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    assert model.save_pretrained(tmp_path / "clasp", push_to_hub=True, private=True) == "https://hub"
    assert pushed == {"me/clasp": LAYOUT}


def test_the_fingerprint_is_that_of_all_weights(tiny: Tiny, encoders: Encoders) -> None:
    model = tiny_model(encoders)
    first = model.fingerprint
    assert first == tiny_model(encoders).fingerprint
    assert first != tiny_model(encoders, seed=1).fingerprint
    assert first != tiny_model(encoders, "gating").fingerprint
    with torch.no_grad():
        next(model.fusion.parameters()).add_(1e-3)  # trained further
    assert first != model.fingerprint
    layer = SpeechEncoder(str(tiny.hubert), layer=1)
    assert first != tiny_model((layer, *encoders[1:])).fingerprint
    assert first != tiny_model((SpeechEncoder(str(tiny.hubert), reference=True), *encoders[1:])).fingerprint
    drawn = SpectrogramEncoder(str(tiny.efficientnet), drawing="tensor")
    assert first != tiny_model((encoders[0], drawn, encoders[2])).fingerprint
    retrained = SpeechEncoder(str(tiny.hubert))
    retrained._model.encoder.layer_norm.weight.data.mul_(2)
    assert first != tiny_model((retrained, *encoders[1:])).fingerprint


def damage(saved: Path, folder: Path, how: str) -> Path:
    shutil.copytree(saved, folder)
    weights, config = folder / "model.safetensors", json.loads((folder / "config.json").read_text())
    if how == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:-50])
    elif how == "no weights":
        weights.unlink()
    elif how == "no config":
        (folder / "config.json").unlink()
    elif how == "config is no JSON":
        (folder / "config.json").write_text("{")
    elif how == "config is a list":
        (folder / "config.json").write_text("[]")
    elif how == "a weight is missing":
        tensors = load_file(weights)
        tensors.pop(sorted(tensors)[0])
        save_file(tensors, weights)
    elif how == "empty folder":
        shutil.rmtree(folder)
        folder.mkdir()
    else:
        changes: dict[str, dict] = {
            "unknown fusion": {"fusion": "average"},
            "other widths": {"fusion_config": {"speech_width": 8, "picture_width": 20, "width": 24}},
            "unknown option": {"fusion_config": {"speech_width": 32, "picture_width": 20, "width": 24, "depth": 3}},
            "missing encoder": {"speech_encoder": str(folder / "gone")},
            "encoder of another kind": {"speech_encoder": config["text_encoder"]},
            "no such layer": {"speech_layer": 7},
        }
        (folder / "config.json").write_text(json.dumps(config | changes[how]))
    return folder


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("truncated weights", CheckpointError),
        ("no weights", CheckpointError),
        ("no config", CheckpointError),
        ("config is no JSON", CheckpointError),
        ("config is a list", CheckpointError),
        ("a weight is missing", CheckpointError),
        ("empty folder", CheckpointError),
        ("unknown fusion", ClaspError),
        ("other widths", CheckpointError),
        ("unknown option", CheckpointError),
        ("missing encoder", CheckpointError),
        ("encoder of another kind", CheckpointError),
        ("no such layer", CheckpointError),
    ],
)
def test_a_damaged_model_is_refused(how: str, error: type[Exception], saved: Path, tmp_path: Path) -> None:
    folder = damage(saved, tmp_path / "clasp", how)
    with pytest.raises(error) as caught:
        CLASP.from_pretrained(folder)
    if how == "unknown fusion":
        assert "'average'" in str(caught.value)
    elif "encoder" not in how and "layer" not in how:
        assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", ["no/such-model", "nowhere", "not a name!", "a/b/c"])
def test_a_missing_model_is_refused_without_a_network(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"pocket.*nor a folder") as caught:
        CLASP.from_pretrained(name, cache_dir=tmp_path / "cache")
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["nowhere", "not a name!", "a/b/c", "/no/such/folder", Path("no/such")])
def test_what_is_no_id_of_the_hub_is_not_looked_up_there(
    name: str | Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("clasp_lib.model.hf_hub_download", lambda *a, **k: pytest.fail("asked the hub"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="looks like 'owner/name'"):
        CLASP.from_pretrained(name)


def test_no_name_is_not_the_current_folder(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(saved)
    with pytest.raises(CheckpointError, match="'': is neither"):
        CLASP.from_pretrained("")
    assert CLASP.from_pretrained(".").fusion_name == "concatenation"


def test_a_shipped_name_is_never_looked_up_on_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("clasp_lib.model.pocket_folder", lambda name: tmp_path / name)
    monkeypatch.setattr("clasp_lib.model.hf_hub_download", lambda *a, **k: pytest.fail("asked the hub"))
    with pytest.raises(CheckpointError, match="pocket"):
        CLASP.from_pretrained("pocket")
