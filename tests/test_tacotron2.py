"""Tacotron 2 out of a bundle of torchaudio: whole clips of the right length, or an error of that clip."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from clasp_lib.corpus import SPLITS
from clasp_lib.errors import CheckpointError, ClaspError, MissingDependencyError, TextError
from clasp_lib.neural_synthesis import single
from clasp_lib.synthesis import BatchSynthesizer, Voice
from clasp_lib.tacotron2 import Tacotron2

pytest.importorskip("torchaudio", exc_type=ImportError)

WAVERNN, GRIFFIN_LIM = "TACOTRON2_WAVERNN_CHAR_LJSPEECH", "TACOTRON2_GRIFFINLIM_CHAR_LJSPEECH"
HOP = {WAVERNN: 275, GRIFFIN_LIM: 256}
TEXTS = ["Rain.", "The ferry left at dawn.", "Nobody asked the baker — “why”?", "Café."]
WIDTHS = dict.fromkeys(("symbol_embedding_dim", "encoder_embedding_dim", "postnet_embedding_dim"), 16)
WIDTHS |= dict.fromkeys(("decoder_rnn_dim", "attention_rnn_dim", "attention_hidden_dim", "prenet_dim"), 16)
VOCODER = dict.fromkeys(("n_rnn", "n_fc", "n_hidden", "n_output"), 8) | {"n_res_block": 1}
STEPS = 30


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict]]:
    """Bundles with tiny networks; their weights are random and come by the door through which a download comes."""
    from torchaudio import pipelines
    from torchaudio.models import Tacotron2 as Network
    from torchaudio.models import WaveRNN
    from torchaudio.pipelines._tts import impl

    asked: list[tuple[str, dict]] = []
    for name in (WAVERNN, GRIFFIN_LIM):
        bundle = getattr(pipelines, name)
        parts = {
            "_tacotron2_params": bundle._tacotron2_params
            | WIDTHS
            | {"decoder_max_step": STEPS, "gate_threshold": 0.9999}
        }
        if name == WAVERNN:
            parts["_wavernn_params"] = bundle._wavernn_params | VOCODER
        monkeypatch.setattr(pipelines, name, dataclasses.replace(bundle, **parts))

    def download(url: str, **options: object) -> dict[str, torch.Tensor]:
        asked.append((url, options))
        torch.manual_seed(0)
        if "wavernn_10k" in url:
            return WaveRNN(**getattr(pipelines, WAVERNN)._wavernn_params).state_dict()
        weights = Network(**getattr(pipelines, WAVERNN)._tacotron2_params).state_dict()
        for name in weights:  # lively enough to stop, sooner or later
            if name.startswith("decoder.") and name.endswith(("weight", "weight_ih", "weight_hh")):
                weights[name] *= 100 if "gate" in name else 1 if "attention_layer" in name else 2
        return weights

    monkeypatch.setattr(impl, "load_state_dict_from_url", download)
    return asked


@pytest.fixture(params=[WAVERNN, GRIFFIN_LIM])
def engine(request: pytest.FixtureRequest, downloads: list) -> Tacotron2:
    return Tacotron2(request.param, device="cpu")


def speak(engine: Tacotron2, texts: list[str]) -> list[np.ndarray | ClaspError]:
    return engine.synthesize_batch(texts, [engine.VOICE] * len(texts))


def test_clips_are_as_long_as_their_spectrograms(engine: Tacotron2, monkeypatch: pytest.MonkeyPatch) -> None:
    frames: list[list[int]] = []

    def infer(*args: torch.Tensor) -> tuple[torch.Tensor, ...]:
        out = type(engine._network).infer(engine._network, *args)
        frames.append(out[1].tolist())
        return out

    monkeypatch.setattr(engine._network, "infer", infer)
    rows = [engine._tokens(text, engine.VOICE) for text in sorted(TEXTS, key=len, reverse=True)]
    torch.manual_seed(0)
    waves = [wave for wave in engine._waves(rows) if wave is not None]
    lengths = [count for count in frames[0] if 5 <= count < STEPS]
    assert len(set(lengths)) > 2 and len(waves) == len(lengths)
    for wave, count in zip(waves, lengths, strict=True):
        assert abs(len(wave) - count * HOP[engine.name]) <= HOP[engine.name]


def test_a_batch_gives_the_same_clips_again(engine: Tacotron2) -> None:
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = speak(engine, TEXTS)
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody else's chance is touched
    torch.manual_seed(2)
    again = speak(engine, TEXTS)
    spoken = [clip for clip in first if isinstance(clip, np.ndarray)]
    assert len(spoken) >= 2
    for one, two in zip(first, again, strict=True):
        if isinstance(one, np.ndarray):
            assert one.dtype == np.float32 and one.ndim == 1 and np.abs(one).max() <= 1
            np.testing.assert_array_equal(one, two)
    other = Tacotron2(engine.name, seed=1, device="cpu")
    assert other.digest != engine.digest
    assert any(not np.array_equal(a, b) for a, b in zip(first, speak(other, TEXTS), strict=True))


def test_the_order_of_a_batch_does_not_matter(engine: Tacotron2) -> None:
    for one, two in zip(speak(engine, TEXTS), speak(engine, TEXTS[::-1])[::-1], strict=True):
        assert np.array_equal(one, two) if isinstance(one, np.ndarray) else str(one) == str(two)


@pytest.mark.parametrize("threshold", [1.1, -0.1])
@pytest.mark.filterwarnings("error")
def test_a_decoder_that_loses_its_place_is_an_error_of_the_clip(engine: Tacotron2, threshold: float) -> None:
    engine._network.decoder.gate_threshold = threshold  # never stops, or at once
    for clip, text in zip(speak(engine, TEXTS), TEXTS, strict=True):
        assert isinstance(clip, ClaspError) and "lost its place" in str(clip) and repr(text) in str(clip)
    with pytest.raises(ClaspError, match="lost its place"):
        engine.synthesize(TEXTS[0], engine.VOICE)


def test_a_lost_clip_does_not_spoil_its_batch(engine: Tacotron2) -> None:
    before = [len(clip) for clip in speak(engine, TEXTS) if isinstance(clip, np.ndarray)]
    engine._network.decoder.decoder_max_step = max(before) // HOP[engine.name]  # too few for the longest
    after = speak(engine, TEXTS)
    assert [isinstance(clip, ClaspError) for clip in after].count(True) > len(TEXTS) - len(before)
    assert any(isinstance(clip, np.ndarray) for clip in after)


def test_a_text_that_cannot_be_read_does_not_spoil_its_batch(engine: Tacotron2) -> None:
    texts = ["In 1961 it rained.", *TEXTS, "...", "Привет"]
    clips = speak(engine, texts)
    for i, message in ((0, "'1', '6', '9'.*in words"), (5, "no letter or digit"), (6, "cannot read")):
        with pytest.raises(TextError, match=message):
            single([clips[i]])
    assert any(isinstance(clip, np.ndarray) for clip in clips[1:5])
    assert engine.synthesize_batch([], []) == []


def test_there_is_one_voice(engine: Tacotron2) -> None:
    for split in SPLITS:
        assert engine.voices(split, 3) == [engine.VOICE] * 3
    for voice in (Voice("en-us", "m3"), Voice("en-us", "ljspeech", rate=150)):
        with pytest.raises(ClaspError, match="one voice"):
            engine.synthesize(TEXTS[0], voice)
    assert isinstance(engine, BatchSynthesizer) and engine.sampling_rate == 22_050


# Loading -----------------------------------------------------------------------------------------------------------


def test_downloads_are_opened_without_running_what_is_in_them(downloads: list[tuple[str, dict]]) -> None:
    Tacotron2(device="cpu")
    assert len(downloads) == 2
    for url, options in downloads:
        assert url.startswith("https://download.pytorch.org/torchaudio/models/") and options["weights_only"] is True


def test_an_unknown_bundle_is_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match=f"'TACOTRON3'.*{WAVERNN}"):
        Tacotron2("TACOTRON3")


@pytest.mark.parametrize("damage", [lambda w: {}, lambda w: 1 / 0])
def test_weights_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch, damage: Callable) -> None:
    from torchaudio.pipelines._tts import impl

    monkeypatch.setattr(impl, "load_state_dict_from_url", lambda url, **_: damage(url))
    with pytest.raises(CheckpointError, match=f"{WAVERNN}: cannot be loaded"):
        Tacotron2(WAVERNN)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingDependencyError, match="pip install deep-phonemizer"):
        Tacotron2("TACOTRON2_WAVERNN_PHONE_LJSPEECH")
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    with pytest.raises(MissingDependencyError, match=rf"pip install torchaudio=={torch.__version__.partition('+')[0]}"):
        Tacotron2()
