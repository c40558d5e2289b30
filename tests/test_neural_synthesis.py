"""VITS: a clip depends on its text, voice and seed alone; durations, noise and lengths are those of transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from clasp_lib.audio import load_audio
from clasp_lib.corpus import CATEGORIES, SPLITS, Sentence, brown, pocket_brown
from clasp_lib.errors import CheckpointError, ClaspError, MissingDependencyError, TextError
from clasp_lib.neural_synthesis import Vits, phonemes, single, split_speakers
from clasp_lib.paper_tiny import SYMBOLS, VITS, make_checkpoints
from clasp_lib.speech_brown import Build, build_speech_brown
from clasp_lib.synthesis import BatchSynthesizer, ESpeak, Synthesizer, Voice, trimmed

TEXTS = [
    "The ferry left at dawn.",
    "Nobody had asked the baker why his window stayed dark all week.",
    "Rain.",
    "Mr. Smith (of the U.S. navy) came, and went!",
]
VOICES = [Voice("en-us", "vits3", 150), Voice("en-us", "vits0", 210), Voice("en-us", "vits5"), Voice("en-us", "vits1")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny VITS with six speakers and random weights, its files as those of kakao-enterprise/vits-vctk."""
    folder = make_checkpoints(tmp_path_factory.mktemp("hub") / "stand-ins") / VITS
    assert {path.name for path in folder.iterdir()} >= {"config.json", "model.safetensors", "vocab.json"}
    return folder


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> Vits:
    return Vits(str(checkpoint), device="cpu")


class Noise(TorchFunctionMode):
    """Gives `VitsModel.forward` the noise that one clip of ours has, in the order in which it asks for it."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        self.rng = rng

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func in (torch.randn, torch.randn_like):
            _, channels, length = args if func is torch.randn else args[0].shape
            drawn = self.rng.standard_normal((length, channels), np.float32)
            return torch.from_numpy(drawn.T[None].copy())
        return func(*args, **(kwargs or {}))


# Batches -----------------------------------------------------------------------------------------------------------


def test_a_clip_does_not_depend_on_its_batch(engine: Vits) -> None:
    together = engine.synthesize_batch(TEXTS, VOICES)
    backwards = engine.synthesize_batch(TEXTS[::-1], VOICES[::-1])[::-1]
    for text, voice, one, other in zip(TEXTS, VOICES, together, backwards, strict=True):
        alone = engine.synthesize(text, voice)
        assert alone.dtype == np.float32 and alone.ndim == 1 and 0.01 < np.abs(alone).max() <= 1
        np.testing.assert_allclose(one, alone, atol=1e-3)
        np.testing.assert_allclose(other, alone, atol=1e-3)
        np.testing.assert_array_equal(engine.synthesize(text, voice), alone)
    assert len({len(clip) for clip in together if isinstance(clip, np.ndarray)}) == len(TEXTS)


@pytest.mark.parametrize("stochastic", [True, False])
def test_a_clip_is_what_transformers_makes_of_the_same_noise(
    checkpoint: Path, tmp_path: Path, stochastic: bool
) -> None:
    from transformers import VitsConfig, VitsModel, VitsTokenizer

    from clasp_lib.neural_synthesis import _generator

    if not stochastic:
        torch.manual_seed(1)
        config = VitsConfig.from_pretrained(checkpoint, use_stochastic_duration_prediction=False)
        model = VitsModel(config)
        with torch.no_grad():
            model.duration_predictor.proj.weight.mul_(0.2)
        model.save_pretrained(tmp_path)
        for name in ("vocab.json", "tokenizer_config.json"):
            shutil.copy(checkpoint / name, tmp_path)
        checkpoint = tmp_path
    engine = Vits(str(checkpoint), seed=7, device="cpu")
    model = VitsModel.from_pretrained(checkpoint).eval()
    tokenizer = VitsTokenizer.from_pretrained(checkpoint, phonemize=False)
    for text, voice, clip in zip(TEXTS, VOICES, engine.synthesize_batch(TEXTS, VOICES), strict=True):
        inputs = tokenizer(phonemes([text])[0], return_tensors="pt")
        rng = _generator(7, text, voice)
        if not stochastic:
            rng.standard_normal((inputs["input_ids"].shape[1], 2), np.float32)  # ours draws it all the same
        with torch.no_grad(), Noise(rng):
            out = model(**inputs, speaker_id=int(voice.variant[4:]), speaking_rate=voice.rate / 175)
        expected, _ = trimmed(out.waveform[0].numpy(), 22_050)
        np.testing.assert_allclose(clip, expected, atol=1e-3)


def test_seed_voice_and_rate_are_heard(checkpoint: Path, engine: Vits) -> None:
    clip = engine.synthesize(TEXTS[0], VOICES[0])
    other_seed = Vits(str(checkpoint), seed=1, device="cpu")
    slow, fast = (engine.synthesize(TEXTS[1], Voice("en-us", "vits2", rate)) for rate in (100, 300))
    assert len(slow) > 1.5 * len(fast)
    for different in (other_seed.synthesize(TEXTS[0], VOICES[0]), engine.synthesize(TEXTS[0], VOICES[1])):
        assert len(different) != len(clip) or np.abs(different - clip).max() > 1e-2
    assert other_seed.digest != engine.digest == Vits(str(checkpoint), device="cpu").digest


def test_the_vocoder_may_run_in_half_precision(checkpoint: Path, engine: Vits) -> None:
    half = Vits(str(checkpoint), device="cpu")
    assert not half._half  # on a CPU nothing is gained by it
    half._half = True
    quick, exact = half.synthesize(TEXTS[0], VOICES[0]), engine.synthesize(TEXTS[0], VOICES[0])
    assert len(quick) == len(exact)
    error = np.sqrt(np.mean((quick - exact) ** 2) / np.mean(exact**2))
    assert 0 < error < 0.03


def test_what_half_precision_cannot_hold_is_done_again(checkpoint: Path) -> None:
    engine = Vits(str(checkpoint), device="cpu")
    with torch.no_grad():
        engine._model.decoder.conv_pre.weight.mul_(1e6)
    exact = engine.synthesize(TEXTS[0], VOICES[0])
    engine._half = True
    np.testing.assert_array_equal(engine.synthesize(TEXTS[0], VOICES[0]), exact)


def test_speech_brown_is_built_with_it_and_resumed(
    checkpoint: Path, engine: Vits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clasp_lib.speech_brown._BATCHES", 1)
    sentences = [sentence for category in CATEGORIES for sentence in pocket_brown() if sentence.category == category]
    sentences = [Sentence("silent", "...", "news"), *sentences[:: len(sentences) // 15]]

    def build(folder: Path | None, engine: Vits) -> Build:
        fractions = {"train": 0.5, "validation": 0.25, "test": 0.25}
        return build_speech_brown(
            sentences, engine, fractions=fractions, batch_size=4, folder=folder, on_error="skip", workers=1
        )

    whole = build(None, engine)
    assert [clip.id for clip in whole.skipped] == ["silent-0"]
    clips = [row for part in whole.dataset.values() for row in part]
    assert len(clips) == len(sentences) - 1
    for row in clips:
        assert len(load_audio(row["audio"], 22_050)) / 22_050 == pytest.approx(row["duration"], abs=1e-3)
    voices = [set(part["voice"]) for part in whole.dataset.values()]
    assert not (voices[0] & voices[1] or voices[0] & voices[2] or voices[1] & voices[2])
    calls: list[int] = []

    def killed(self: Vits, texts: list[str], voices: list[Voice]) -> list[np.ndarray | ClaspError]:
        calls.append(len(texts))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return speak(self, texts, voices)

    speak = Vits.synthesize_batch
    monkeypatch.setattr(Vits, "synthesize_batch", killed)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, Vits(str(checkpoint), device="cpu"))
    resumed = build(tmp_path, Vits(str(checkpoint), device="cpu"))  # another process would load it anew
    assert {split: part.to_dict() for split, part in resumed.dataset.items()} == {
        split: part.to_dict() for split, part in whole.dataset.items()
    }
    assert resumed.skipped == whole.skipped


# Voices ------------------------------------------------------------------------------------------------------------


def test_no_speaker_is_in_two_splits(engine: Vits) -> None:
    assert {split: len(speakers) for split, speakers in split_speakers(109).items()} == dict(
        zip(SPLITS, (82, 11, 16), strict=True)
    )
    for n in (3, 6, 109):
        everyone = [speaker for speakers in split_speakers(n).values() for speaker in speakers]
        assert sorted(everyone) == sorted(f"vits{i}" for i in range(n))
        assert all(split_speakers(n).values())
    for split in SPLITS:
        voices = engine.voices(split, 40, seed=3)
        assert voices == engine.voices(split, 40, seed=3) != engine.voices(split, 40, seed=4)
        assert {voice.variant for voice in voices} == set(engine.speakers[split])
        assert all(140 <= voice.rate <= 210 for voice in voices)
    assert engine.voices("train", 0) == []


def test_the_engine_keeps_to_the_interface(engine: Vits) -> None:
    typed: Synthesizer = engine
    assert isinstance(typed, BatchSynthesizer) and not isinstance(ESpeak(), BatchSynthesizer)
    assert engine.sampling_rate == 22_050


# Bad input ---------------------------------------------------------------------------------------------------------

BAD_VOICES = [Voice("en-us", "vits6"), Voice("en-us", "m3"), Voice("en", "vits1"), Voice("en-us", "vits1", pitch=60)]
BAD_VOICES += [Voice("en-us", "vits-1"), Voice("en-us", "vits01"), Voice("en-us", "1"), Voice("en-us", "vits1", rate=0)]


@pytest.mark.parametrize("voice", BAD_VOICES, ids=str)
def test_an_unknown_voice_is_refused(engine: Vits, voice: Voice) -> None:
    with pytest.raises(ClaspError, match=r"'vits0' to 'vits5'"):
        engine.synthesize(TEXTS[0], voice)


def test_a_bad_clip_does_not_spoil_its_batch(engine: Vits) -> None:
    bad = {
        0: ("...", VOICES[0], "no letter or digit"),
        2: ("", VOICES[0], "no letter or digit"),
        3: (TEXTS[1], Voice("en", "m3"), "not a voice"),
        4: ("word " * 2000, VOICES[0], "more than 60 s"),
        5: (TEXTS[1], Voice("en-us", "vits0", rate=1), "more than 60 s"),
    }
    texts = [bad[i][0] if i in bad else TEXTS[0] for i in range(6)]
    clips = engine.synthesize_batch(texts, [bad[i][1] if i in bad else VOICES[0] for i in range(6)])
    for i, (_, _, message) in bad.items():
        assert isinstance(clips[i], ClaspError)
        with pytest.raises(ClaspError, match=message):
            single([clips[i]])
    np.testing.assert_allclose(clips[1], engine.synthesize(TEXTS[0], VOICES[0]), atol=1e-3)
    assert engine.synthesize_batch([], []) == []
    assert all(isinstance(clip, TextError) for clip in engine.synthesize_batch(["...", "?"], VOICES[:2]))


@pytest.mark.parametrize("change", [{"num_speakers": 2}, {"model_type": "hubert"}, {"vocab_size": 20}])
def test_another_checkpoint_is_refused(checkpoint: Path, tmp_path: Path, change: dict) -> None:
    shutil.copytree(checkpoint, tmp_path / "bad")
    config = json.loads((checkpoint / "config.json").read_text())
    (tmp_path / "bad" / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match="bad"):
        Vits(str(tmp_path / "bad"), device="cpu")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "vocab.json"])
def test_an_incomplete_checkpoint_is_refused(checkpoint: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(checkpoint, tmp_path / "bad")
    (tmp_path / "bad" / name).unlink()
    with pytest.raises(CheckpointError, match="bad"):
        Vits(str(tmp_path / "bad"), device="cpu")


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_checkpoints_of_2023_open_as_those_of_today(checkpoint: Path, engine: Vits, tmp_path: Path, file: str) -> None:
    """Weight norm had other names then, which older checkpoints of the hub still have."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(checkpoint, tmp_path / "old")
    (tmp_path / "old" / "model.safetensors").unlink()
    tensors = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in load_file(checkpoint / "model.safetensors").items()
    }
    assert any(name.endswith("weight_g") for name in tensors)
    if file == "pytorch_model.bin":
        torch.save(tensors, tmp_path / "old" / file)
    else:
        save_file(tensors, tmp_path / "old" / file, {"format": "pt"})
    old = Vits(str(tmp_path / "old"), device="cpu")
    assert old.digest == engine.digest


def test_missing_tensors_are_not_made_up(checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(checkpoint, tmp_path / "bad")
    tensors = load_file(checkpoint / "model.safetensors")
    del tensors["embed_speaker.weight"]
    save_file(tensors, tmp_path / "bad" / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 .*embed_speaker"):
        Vits(str(tmp_path / "bad"), device="cpu")


def test_a_missing_engine_says_what_to_install(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    monkeypatch.setattr("clasp_lib.synthesis.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'clasp-lib\[pocket\]'"):
        Vits(str(checkpoint), device="cpu")


# Phonemes ----------------------------------------------------------------------------------------------------------

# Sentences of VCTK as VITS was taught them (its filelists/*.txt.cleaned); eSpeak NG has changed a little since.
TAUGHT = {
    "If not, he should go home.": "ɪf nˈɑːt, hiː ʃˌʊd ɡˌoʊ hˈoʊm.",
    "Now, suddenly, we have this new landscape.": "nˈaʊ, sˈʌdənli, wiː hæv ðɪs nˈuː lˈændskeɪp.",
    "It is a job creation scheme.)": "ɪt ɪz ɐ dʒˈɑːb kɹiːˈeɪʃən skˈiːm.",
    "Is that right?": "ɪz ðæt ɹˈaɪt?",
}
READ = {
    "Mr. Smith and Gen. Lee came.": "mˈɪstɚ smˈɪθ ænd dʒˈɛnɚɹəl lˈiː kˈeɪm.",
    "`` Hello '' , he said -- twice .": '"həlˈoʊ", hiː sˈɛd — twˈaɪs.',
    "(maybe)": "mˈeɪbiː",
    "The U.S. paid 1,000 dollars.": "ðə jˌuːˈɛs pˈeɪd wˈʌn θˈaʊzənd dˈɑːlɚz.",
}


@pytest.mark.parametrize("text", [*TAUGHT, *READ])
def test_texts_are_read_as_vits_was_taught(text: str) -> None:
    read, expected = phonemes([text])[0], (TAUGHT | READ)[text]
    plain = [line.replace("ɾ", "t") for line in (read, expected)]  # which t is tapped is what has changed
    assert plain[0] == plain[1]


def test_every_sound_of_english_is_in_the_vocabulary() -> None:
    texts = [sentence.text for sentence in pocket_brown()]
    read = phonemes(texts)
    strange = {ch for line in read for ch in line if ch not in SYMBOLS}
    assert not any(ch.isalpha() for ch in strange)
    assert sum(not set(line) <= set(SYMBOLS) for line in read) < 5
    assert phonemes(texts[:200][::-1])[::-1] == read[:200]


@pytest.fixture
def real_brown(test_data: Path) -> Iterator[list[str]]:
    path = test_data / "brown" / "brown.zip"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    yield [s.text for s in brown(path) if any(ch.isalnum() for ch in s.text)]


def test_every_sound_of_the_brown_corpus_is_in_the_vocabulary(real_brown: list[str]) -> None:
    assert not [line for line in phonemes(real_brown) if any(ch.isalpha() and ch not in SYMBOLS for ch in line)]


def test_phonemes_refuse_what_cannot_be_read() -> None:
    with pytest.raises(TextError, match="no letter or digit"):
        phonemes(["fine", "..."])
    with pytest.raises(ClaspError, match="no such accent"):
        phonemes(["fine"], "xx-yy")
    assert phonemes([]) == []
