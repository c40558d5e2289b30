"""The recipes of the shipped encoders: how speech is disturbed and labelled, and runs that stop and go on."""

from __future__ import annotations

import concurrent.futures
import csv
import gzip
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import Clip, Tiny
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCTC, AutoTokenizer

from clasp_lib import CLASP
from clasp_lib.audio import encode_audio
from clasp_lib.corpus import pocket_brown
from clasp_lib.encoders import SpectrogramEncoder, SpeechEncoder
from clasp_lib.errors import CheckpointError, DatasetError
from clasp_lib.features import extract_features
from clasp_lib.pretraining import ablation, loop, sentence, speech
from clasp_lib.pretraining import clips as recipe_clips
from clasp_lib.pretraining.augmentation import (
    AUGMENTATIONS,
    SHARES,
    augment,
    babble,
    band_limit,
    codec,
    equalizer,
    noise,
    reverberation,
    speed,
)
from clasp_lib.pretraining.clips import Clips, open_clips, read_sentences, read_training_recordings, speak
from clasp_lib.pretraining.heads import features_of_clips, train_heads
from clasp_lib.pretraining.loop import ROUND, Batch, LoopSettings, batches, collate, load_progress, save_progress
from clasp_lib.pretraining.picture import PictureRecipe, pretrain_picture
from clasp_lib.pretraining.sentence import SentenceLearner, SentenceRecipe, pretrain_sentence
from clasp_lib.pretraining.speech import (
    CENTRE,
    IGNORED,
    PHONES_A_FRAME,
    STEP,
    WEIGHTS,
    SpeechLearner,
    SpeechRecipe,
    Targets,
    bag_loss,
    build_config,
    cross_entropy,
    ctc,
    mean_over_frames,
    pretrain_speech,
    train_pieces,
    transcribe,
)
from clasp_lib.profiles import Profile, get_profile
from clasp_lib.run_state import load_state
from clasp_lib.synthesis import VARIANTS, ESpeak, Mark, Utterance, Voice, draw_voices
from clasp_lib.training import TrainingSettings, validation_mrr
from clasp_lib.transcription import Transcriber, spelled


@pytest.fixture(scope="module")
def spoken(clips: list[Clip]) -> Clips:
    """The six sentences with their marks, and one of them once more without, as if a person had read it."""
    voices = draw_voices("test", len(clips))
    spoken = [ESpeak().utter(clip.text, voice) for clip, voice in zip(clips, voices, strict=True)]
    samples = [(u.samples * 32767).astype(np.int16) for u in spoken]
    timed = Clips(samples, [c.text for c in clips], [u.phones for u in spoken], [u.words for u in spoken])
    return timed + Clips(samples[:1], timed.texts[:1], [[]], [[]])


@pytest.fixture(scope="module")
def waves(clips: list[Clip]) -> list[torch.Tensor]:
    """The six sentences with zero mean and unit variance."""
    samples = [torch.from_numpy(clip.samples) for clip in clips]
    return [(wave - wave.mean()) / wave.std() for wave in samples]


@pytest.fixture(scope="module")
def clock() -> Iterator[None]:
    """Each training step takes one second, so that a run of so many seconds has so many steps."""
    ticks = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
        yield


# Texts and clips ---------------------------------------------------------------------------------------------------


def test_training_is_spoken_by_training_voices_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders that had heard a test voice would make every held-out figure of the book worthless."""
    heard: list[str] = []

    class Recorder:
        def __init__(self, sampling_rate: int) -> None:
            self.sampling_rate = sampling_rate

        def utter(self, text: str, voice: Voice) -> Utterance:
            heard.append(voice.variant)
            return Utterance(np.ones(10, np.float32), [], [])

    monkeypatch.setattr(recipe_clips, "ESpeak", Recorder)
    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", concurrent.futures.ThreadPoolExecutor)
    clips = speak([f"Sentence {i}." for i in range(2500)], "train", tmp_path, 0, 1)
    assert len(clips) == len(heard) == 2500
    assert set(heard) == set(VARIANTS["train"])
    heard.clear()
    speak(["one", "two"], "validation", tmp_path, 0, 1)
    assert set(heard) <= set(VARIANTS["validation"]) and heard
    heard.clear()
    speak([f"Sentence {i}." for i in range(2500)], "train", tmp_path, 0, 1)
    assert heard == []  # shards that are there are not made again


def test_clips_come_back_as_they_were_spoken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_clips, "SHARD", 2)
    texts = ["One fish.", "Two old fish.", "Red fish, blue fish."]
    clips = speak(texts, "train", tmp_path, 4, 1)
    assert clips.texts == texts and len(list(tmp_path.glob("*.npy"))) == 2
    for i, voice in enumerate(draw_voices("train", 3, 4)):
        expected = ESpeak().utter(texts[i], voice)
        np.testing.assert_array_equal(clips.samples[i], (expected.samples * 32767).astype(np.int16))
        assert (clips.phones[i], clips.words[i]) == (expected.phones, expected.words)
        assert all(isinstance(mark, Mark) for mark in clips.phones[i] + clips.words[i])
    assert not list(tmp_path.glob("*.tmp"))
    assert clips.hours == pytest.approx(sum(map(len, clips.samples)) / 16_000 / 3600)
    twice = (clips + clips).repeated(2)
    assert [len(part) for part in (twice.samples, twice.texts, twice.phones, twice.words)] == [12] * 4
    assert twice.words[3:6] == clips.words and twice.chosen(range(4)).phones == [*clips.phones, clips.phones[0]]
    assert open_clips(tmp_path, "train", 2).texts == texts[::2]  # evenly from all of them
    with pytest.raises(DatasetError, match="holds 3 clips of train"):
        open_clips(tmp_path, "train", 4)


def test_sentences_are_drawn_without_digits_and_repeats(tmp_path: Path) -> None:
    rows = [f"Plain sentence about {word}." for word in ("rain", "snow", "hail", "fog")]
    bad = ["It was 1984.", "Too short.", "word " * 19, "The NATO treaty was signed.", "Café au lait, please."]
    path = tmp_path / "sentences.tsv.gz"
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        file.write("source\ttext\n" + "".join(f'a "quote\t{text}\n' for text in [*rows, *bad, *rows]))
    drawn = read_sentences(path, 10, seed=0)
    assert sorted(drawn) == sorted(rows)
    assert read_sentences(path, 2, seed=0) == drawn[:2]
    assert {tuple(read_sentences(path, 4, seed=s)) for s in range(8)} != {tuple(drawn)}


def test_speakers_are_held_out_whole(tmp_path: Path, clips: list[Clip]) -> None:
    with open(tmp_path / "metadata.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "text", "speaker"])
        for i, speaker in enumerate(["ann", "ann", "ann", "bob", "cid", "cid"]):
            (tmp_path / f"{i}.flac").write_bytes(encode_audio(clips[i].samples, 16_000, "FLAC"))
            writer.writerow([f"{i}.flac", clips[i].text, speaker])
    train, held_out = read_training_recordings(tmp_path, speakers_held_out=10)  # at most half of them
    assert train.texts == [clips[i].text for i in (0, 1, 2, 4, 5)] and held_out.texts == [clips[3].text]
    assert train.phones == train.words == [[]] * 5 and held_out.phones == [[]]  # nobody knows when they said what
    assert train.samples[0].dtype == np.int16 and np.abs(train.samples[0]).max() > 1000


# Disturbances ------------------------------------------------------------------------------------------------------


def decibels_below(wave: torch.Tensor, disturbed: torch.Tensor) -> float:
    return float(20 * torch.log10(wave.norm() / (disturbed - wave).norm()))


def band_power(wave: torch.Tensor, low: float, high: float) -> float:
    """Mean power per frequency between two frequencies in Hz."""
    power = torch.fft.rfft(wave).abs().square()
    hertz = torch.fft.rfftfreq(len(wave), 1 / 16_000)
    return float(power[(hertz >= low) & (hertz < high)].mean())


@pytest.mark.parametrize("length", [1361, 1600, 16_001, 30_011])  # three of them are primes
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_disturbance_keeps_the_length_except_for_speed(name: str, length: int, waves: list[torch.Tensor]) -> None:
    wave = waves[3][:length]
    before = wave.clone()
    for seed in range(6):
        disturbed = AUGMENTATIONS[name](wave, np.random.default_rng(seed), waves)
        again = AUGMENTATIONS[name](wave, np.random.default_rng(seed), waves)
        assert disturbed.ndim == 1 and disturbed.dtype == torch.float32 and disturbed.isfinite().all()
        assert torch.equal(disturbed, again)
        if name == "speed":
            assert 0.79 < len(disturbed) / length < 1.21 and abs(len(disturbed) - length) > 0.04 * length
        else:
            assert len(disturbed) == length and not torch.allclose(disturbed, wave, atol=1e-3)
    assert torch.equal(wave, before)


def test_noise_is_as_loud_as_intended_and_white_to_pink(waves: list[torch.Tensor]) -> None:
    wave = waves[1]
    levels, slopes = [], []
    for seed in range(50):
        disturbed = noise(wave, np.random.default_rng(seed), waves)
        levels.append(decibels_below(wave, disturbed))
        octaves = [band_power(disturbed - wave, 125 * 2**k, 250 * 2**k) for k in range(6)]
        slopes.append(np.polyfit(np.arange(6), np.log2(octaves), 1)[0])
    assert 4.9 < min(levels) < 8 and 27 < max(levels) < 30.1
    assert -1.15 < min(slopes) < -0.8 and -0.2 < max(slopes) < 0.15


def test_babble_is_as_loud_as_intended_and_made_of_other_speech(waves: list[torch.Tensor]) -> None:
    levels = [decibels_below(waves[1], babble(waves[1], np.random.default_rng(s), waves[2:])) for s in range(50)]
    assert 7.9 < min(levels) < 10 and 23 < max(levels) < 25.1
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(8_000) / 16_000)  # shorter than the speech: it is repeated
    for seed in range(3):
        added = babble(waves[1], np.random.default_rng(seed), [tone]) - waves[1]
        assert torch.fft.rfft(added).abs().argmax() / len(added) * 16_000 == pytest.approx(1000, abs=2)


def test_a_room_keeps_the_direct_sound_and_fades_away() -> None:
    clap = torch.zeros(16_001)
    clap[2_000] = 1
    loudness = []
    for seed in range(20):
        heard = reverberation(clap, np.random.default_rng(seed), [])
        assert heard[:2_000].abs().max() < 1e-5 and heard[2_000] == pytest.approx(1, abs=1e-4)
        loudness.append(float(heard[2_001:].square().sum()))
        assert heard[2_001:3_000].abs().mean() > 3 * heard[4_400:].abs().mean()  # 0.15 s later
        assert heard[2_000 + 9_600 :].abs().max() < 1e-5  # 0.6 s later
    assert 0.08 < min(loudness) < 0.2 and 0.7 < max(loudness) < 1.02


def test_speed_changes_tempo_and_pitch_together() -> None:
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(16_000) / 16_000)
    ratios = set()
    for seed in range(60):
        played = speed(tone, np.random.default_rng(seed), [])
        ratios.add(round(len(played) / len(tone), 2))
        pitch = torch.fft.rfft(played).abs().argmax() / len(played) * 16_000
        assert pitch == pytest.approx(440 * len(tone) / len(played), abs=2)
    assert ratios == {0.8, 0.85, 0.9, 0.95, 1.05, 1.1, 1.15, 1.2}


def test_an_equalizer_colours_and_adds_nothing(waves: list[torch.Tensor]) -> None:
    hiss = torch.from_numpy(np.random.default_rng(0).standard_normal(32_000, np.float32))
    gains = []
    for seed in range(40):
        heard = equalizer(hiss, np.random.default_rng(seed), [])
        bands = [band_power(heard, f, 1.1 * f) / band_power(hiss, f, 1.1 * f) for f in (100, 400, 1_600, 6_000)]
        gains.append(10 * np.log10(bands))
        louder = equalizer(3 * hiss, np.random.default_rng(seed), [])
        torch.testing.assert_close(louder, 3 * heard, rtol=1e-3, atol=1e-3)  # linear: it is a filter
    assert -12.5 < np.min(gains) < -8 and 8 < np.max(gains) < 12.5
    assert np.all(np.std(gains, axis=0) > 4) and abs(np.corrcoef(np.array(gains).T)[0, 3]) < 0.5


def test_a_narrow_band_is_quiet_above_and_whole_below() -> None:
    hiss = torch.from_numpy(np.random.default_rng(0).standard_normal(32_000, np.float32))
    heard = [band_limit(hiss, np.random.default_rng(seed), []) for seed in range(30)]
    for wave in heard:
        assert band_power(wave, 6_000, 8_000) < 0.03 * band_power(hiss, 6_000, 8_000)
        assert band_power(wave, 6_500, 8_000) < 0.01 * band_power(hiss, 6_500, 8_000)
        assert band_power(wave, 20, 2_000) == pytest.approx(band_power(hiss, 20, 2_000), rel=0.05)
    kept = [band_power(wave, 3_000, 4_500) / band_power(hiss, 3_000, 4_500) for wave in heard]
    assert min(kept) < 0.01 and max(kept) > 0.9  # a telephone at one end, nearly everything at the other


def test_a_codec_is_heard_but_close_and_in_time(waves: list[torch.Tensor]) -> None:
    for wave in (waves[1], 1e-3 * waves[4]):
        decoded = [codec(wave, np.random.default_rng(seed), []) for seed in range(6)]
        assert len({float(d.norm()) for d in decoded}) == 2  # MP3 and Opus
        for heard in decoded:
            assert 0.8 < torch.corrcoef(torch.stack([wave, heard]))[0, 1] < 0.999
            assert heard.norm() == pytest.approx(float(wave.norm()), rel=0.2)
            lags = {lag: float(wave @ torch.roll(heard, lag)) for lag in range(-400, 401)}
            assert abs(max(lags, key=lambda lag: lags[lag])) <= 16  # samples: phones are labelled every 160


def test_silence_stays_finite() -> None:
    for name, disturb in AUGMENTATIONS.items():
        for seed in range(3):
            disturbed = disturb(torch.zeros(5_003), np.random.default_rng(seed), [torch.zeros(4_001)])
            assert disturbed.isfinite().all(), name


def test_each_disturbance_takes_its_share(monkeypatch: pytest.MonkeyPatch, waves: list[torch.Tensor]) -> None:
    drawn: list[str] = []
    for name in AUGMENTATIONS:
        monkeypatch.setitem(AUGMENTATIONS, name, lambda wave, rng, others, name=name: drawn.append(name))
    n, rng = 20_000, np.random.default_rng(0)
    untouched = sum(augment(waves[0], rng, waves, SHARES) is waves[0] for _ in range(n))
    assert set(SHARES) == set(AUGMENTATIONS) and sum(SHARES.values()) < 1
    counts = {**Counter(drawn), "none": untouched}
    for name, share in {**SHARES, "none": 1 - sum(SHARES.values())}.items():
        assert abs(counts[name] - share * n) < 4 * math.sqrt(n * share * (1 - share)), name


def test_disturbances_are_reproducible_from_the_generator(waves: list[torch.Tensor]) -> None:
    def disturbed(seed: int) -> list[torch.Tensor]:
        rng = np.random.default_rng(seed)
        return [augment(wave, rng, waves, SHARES) for wave in waves * 4]

    first, again, other = disturbed(0), disturbed(0), disturbed(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(len(a) == len(b) and torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert all(augment(waves[0], np.random.default_rng(s), waves, {}) is waves[0] for s in range(5))


# Batches -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 57, 400])
def test_batches_hold_every_clip_once_and_stay_in_their_budget(n: int) -> None:
    lengths = np.random.default_rng(n).integers(8_000, 160_000, n)
    made = batches(lengths.tolist(), 60.0, np.random.default_rng(0))
    assert sorted(i for batch in made for i in batch) == list(range(n))
    for batch in made:
        rounded = np.unique(-(-lengths[batch] // ROUND) * ROUND)
        assert len(rounded) == 1 and rounded[0] * len(batch) <= 60 * 16_000
    again = batches(lengths.tolist(), 60.0, np.random.default_rng(0))
    assert all(np.array_equal(a, b) for a, b in zip(made, again, strict=True))
    if n == 400:
        other = batches(lengths.tolist(), 60.0, np.random.default_rng(1))
        assert {tuple(sorted(b)) for b in other} != {tuple(sorted(b)) for b in made}  # also other company


def test_a_clip_over_the_budget_is_a_batch_of_its_own() -> None:
    made = batches([50 * 16_000, 16_000, 50 * 16_000], 10.0, np.random.default_rng(0))
    assert sorted(batch.tolist() for batch in made) == [[0], [1], [2]]


def test_a_batch_is_padded_and_normalised() -> None:
    rng = np.random.default_rng(0)
    clips = [(3000 * rng.standard_normal(n) + 500).astype(np.int16) for n in (ROUND + 1, 2500)]
    waves, mask, stretch = collate(clips)
    assert waves.shape == mask.shape == (2, 2 * ROUND) and stretch == [1.0, 1.0]
    assert mask.sum(1).tolist() == [ROUND + 1, 2500] and not waves[mask == 0].any()
    for row, n in enumerate((ROUND + 1, 2500)):
        assert waves[row, :n].mean().abs() < 1e-4 and waves[row, :n].std() == pytest.approx(1, abs=1e-3)
    assert collate([clips[0][:ROUND]]).waves.shape == (1, ROUND)
    assert torch.equal(collate(clips, np.random.default_rng(0), {}).waves, waves)
    assert torch.equal(collate(clips, None, SHARES).waves, waves)  # measuring disturbs nothing


def test_a_batch_is_disturbed_on_demand() -> None:
    rng = np.random.default_rng(0)
    clips = [(3000 * rng.standard_normal(n)).astype(np.int16) for n in (9_000, 7_000)]
    clean = collate(clips).waves
    noisy = collate(clips, np.random.default_rng(0), {"noise": 1.0})
    assert noisy.stretch == [1.0, 1.0] and noisy.mask.sum(1).tolist() == [9_000, 7_000]
    for row, n in enumerate((9_000, 7_000)):
        assert noisy.waves[row, :n].std() == pytest.approx(1, abs=1e-3)
        assert 0.8 < torch.corrcoef(torch.stack([noisy.waves[row, :n], clean[row, :n]]))[0, 1] < 0.9999
    assert torch.equal(noisy.waves, collate(clips, np.random.default_rng(0), {"noise": 1.0}).waves)
    fast = [collate(clips, np.random.default_rng(seed), {"speed": 1.0}) for seed in range(8)]
    for batch in fast:
        for real, clip, stretch in zip(batch.mask.sum(1).tolist(), clips, batch.stretch, strict=True):
            assert real == pytest.approx(len(clip) * stretch) and 0.79 < stretch < 1.21
    assert min(min(b.stretch) for b in fast) < 0.9 and max(max(b.stretch) for b in fast) > 1.1


# What is asked and answered ----------------------------------------------------------------------------------------

TINY = SpeechRecipe(
    LoopSettings(3 / 60, 1e-3, seconds_a_batch=8, warmup_steps=2, weights=WEIGHTS, bfloat16=False),
    hidden_size=32,
    layers=2,
    phone_layer=1,
    letter_layer=1,
    pieces=48,
    words=20,
)


def for_seconds(seconds: int) -> SpeechRecipe:
    return replace(TINY, loop=replace(TINY.loop, minutes=seconds / 60))


def test_frames_are_where_the_convolutions_put_them() -> None:
    config = build_config(TINY)
    span, step = 1, 1
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        span, step = span + (kernel - 1) * step, step * stride
    assert (step, span / 2) == (STEP, CENTRE)
    assert STEP // PHONES_A_FRAME == 160  # 10 ms
    learner = SpeechLearner(TINY, phones=7).eval()
    mask = torch.ones(2, ROUND, dtype=torch.long)
    mask[1, 5_000:] = 0
    with torch.no_grad():
        answers = learner(torch.randn(2, ROUND), mask)
    frames = 1 + (ROUND - span) // STEP
    assert answers.frames.tolist() == [frames, 1 + (5_000 - span) // STEP]
    assert answers.phones.shape == (2, frames, 4, 7) and answers.letters.shape == (2, frames, 29)
    assert answers.pieces.shape == (2, frames, 48) and answers.states.shape == (2, frames, 32)


@pytest.fixture
def targets() -> Targets:
    """Three clips of a second: two that know when they say what, and a recording."""
    phones = [
        [Mark(100, "D"), Mark(1_500, "@"), Mark(4_000, "k"), Mark(4_000, "a"), Mark(9_000, "t"), Mark(12_000, "_")],
        [Mark(0, "k"), Mark(700, "a"), Mark(8_000, "t")],
    ]
    words = [[Mark(0, "The"), Mark(4_000, "cat's")], [Mark(0, "the"), Mark(8_000, "rare")]]
    samples = [np.zeros(16_000, np.int16)] * 3
    texts = ["The cat's", "the rare", "Nobody knows when."]
    clips = Clips(samples, texts, [*phones, []], [*words, []])
    return Targets(clips, train_pieces(texts * 3, 60), words=2)


@pytest.mark.parametrize("stretch", [1.0, 0.8, 1.15])
@pytest.mark.parametrize("clip", [0, 1])
def test_phones_follow_their_marks(targets: Targets, clip: int, stretch: float) -> None:
    marks = [
        [(100, "D"), (1_500, "@"), (4_000, "a"), (9_000, "t"), (12_000, "_")],  # "k" lasts no time at all
        [(0, "k"), (700, "a"), (8_000, "t")],
    ][clip]
    frames = 1 + (int(16_000 * stretch) - 1_360) // 640
    labels = targets.phones_of(clip, frames, stretch)
    assert labels.shape == (frames, 4)
    names = {number: symbol for symbol, number in targets.symbols.items()}
    for tenth, label in enumerate(labels.ravel()):
        middle = 440 + 160 * tenth  # 680 - 240: the first of four within the first frame
        said = [symbol for start, symbol in marks if start * stretch <= middle] or [marks[0][1]]
        assert names[label] == said[-1], (tenth, middle)


@pytest.mark.parametrize("stretch", [1.0, 0.8, 1.2])
def test_a_word_is_asked_for_while_it_is_spoken(targets: Targets, stretch: float) -> None:
    frames, rng = 1 + (int(16_000 * stretch) - 1_360) // 640, np.random.default_rng(0)
    drawn = [targets.words_of(0, frames, stretch, rng) for _ in range(200)]
    for at, numbers in drawn:
        assert at.shape == numbers.shape == (2,) and len(set(numbers.tolist())) == 2
        for frame, (start, end) in zip(at, [(0, 4_000), (4_000, 16_000)], strict=True):
            assert 0 <= frame < frames
            middle = 680 + 640 * frame
            ends = frame in (0, frames - 1)  # no frame is centred on the first and the last moments
            assert ends or start * stretch - 320 <= middle <= end * stretch + 320
    last = [int(at[1]) for at, _ in drawn]
    assert set(last) >= set(range(int(4_680 * stretch) // 640, frames)) and last.count(frames - 1) < 40


def test_a_word_is_a_number_however_it_is_written(targets: Targets) -> None:
    rng = np.random.default_rng(0)
    (_, first), (at, second) = targets.words_of(0, 20, 1.0, rng), targets.words_of(1, 20, 1.0, rng)
    assert first[0] == second[0] == 0  # "The" and "the": the most frequent word
    assert len(at) == len(second) == 1  # "rare" did not make it into a vocabulary of two


def test_a_recording_has_letters_but_no_times(targets: Targets) -> None:
    assert (targets.phones_of(2, 9, 1.0) == IGNORED).all() and targets.phones_of(2, 9, 1.0).shape == (9, 4)
    at, numbers = targets.words_of(2, 9, 1.0, np.random.default_rng(0))
    assert len(at) == len(numbers) == 0
    assert "".join(speech.LETTERS[i - 1] for i in targets.letters[2]) == "nobody knows when"
    assert len(targets.pieces[2]) > 0


def test_word_pieces_spell_what_they_were_trained_on(tmp_path: Path) -> None:
    texts = ["The cat sat on the mat.", "A cat and a rat, O'Hara's."] * 3
    pieces = train_pieces(texts, 60)
    assert pieces.pad_token == "<blank>" and pieces.pad_token_id == 0 and len(pieces) <= 60
    pieces.save_pretrained(tmp_path)
    for tokenizer in (pieces, AutoTokenizer.from_pretrained(tmp_path)):
        for text in texts:
            ids = tokenizer.encode(spelled(text))
            assert 0 not in ids and len(ids) < len(spelled(text))
            assert tokenizer.decode(ids).strip() == spelled(text)


def test_ctc_is_the_sum_over_all_alignments() -> None:
    """Two frames, three classes: "a" is said by aa, a_ and _a (0 is the blank, written _)."""
    probabilities = torch.tensor([[[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]]])
    said = 0.5 * 0.3 + 0.5 * 0.6 + 0.2 * 0.3
    loss = ctc(probabilities.log(), torch.tensor([2]), [torch.tensor([1])])
    assert loss.item() == pytest.approx(-np.log(said), abs=1e-5)
    pair = ctc(probabilities.log(), torch.tensor([2]), [torch.tensor([1, 2])])  # only one way; per symbol
    assert pair.item() == pytest.approx(-np.log(0.5 * 0.1) / 2, abs=1e-5)
    longer = torch.cat([probabilities.log(), torch.full((1, 3, 3), 9.0)], dim=1)  # frames of padding do not count
    assert ctc(longer, torch.tensor([2]), [torch.tensor([1])]).item() == pytest.approx(-np.log(said), abs=1e-5)
    impossible = ctc(probabilities.log(), torch.tensor([2]), [torch.tensor([1, 1, 1])])
    assert impossible.item() == 0  # left out rather than infinite


def test_cross_entropy_skips_what_nobody_knows() -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.full((2, 3, 4), IGNORED)
    for some_logits, some_targets in ((logits, targets), (logits[0, 0, :0], targets[0, 0, :0])):
        loss = cross_entropy(some_logits, some_targets)
        assert loss.item() == 0
        logits.grad = None
        loss.backward()
        assert not logits.grad.any()  # NaN counts as something
    targets[0, 1, 2], targets[1, 2, 3] = 3, 0
    by_hand = -(logits[0, 1, 2].log_softmax(-1)[3] + logits[1, 2, 3].log_softmax(-1)[0]) / 2
    assert cross_entropy(logits, targets).item() == pytest.approx(by_hand.item(), abs=1e-6)


def test_the_mean_leaves_padding_out() -> None:
    states = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]], [[5.0, 6.0], [9.0, 9.0], [9.0, 9.0]]])
    means = mean_over_frames(states, torch.tensor([2, 1]))
    assert means.tolist() == [[2.0, 3.0], [5.0, 6.0]]


def test_each_word_of_a_bag_has_an_equal_share() -> None:
    logits = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    log_p = logits.log_softmax(-1)
    bags = [np.array([1, 4]), np.array([], dtype=np.int64), np.array([0])]
    loss = bag_loss(logits, bags)
    expected = -((log_p[0, 1] + log_p[0, 4]) / 2 + log_p[2, 0]) / 3  # a clip of unknown words teaches nothing
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    nothing = bag_loss(logits, [np.array([], dtype=np.int64)] * 3)
    nothing.backward()
    assert nothing.item() == 0 and not logits.grad.any()


def test_a_bag_holds_the_known_words_of_any_clip(targets: Targets) -> None:
    names = {"the": 0, "cat's": 1}  # "rare" is not of the two most frequent
    assert [bag.tolist() for bag in targets.bags] == [[names["the"], names["cat's"]], [names["the"]], []]


# The loop ----------------------------------------------------------------------------------------------------------


def test_the_learning_rate_warms_up_stays_level_and_cools_down() -> None:
    settings = LoopSettings(minutes=10, learning_rate=0.02, warmup_steps=50, cooldown=0.25)
    assert [settings.rate(step, 0.1) for step in (0, 24, 49)] == pytest.approx([0.02 / 50, 0.01, 0.02])
    assert [settings.rate(900, done) for done in (0.0, 0.5, 0.75)] == pytest.approx([0.02] * 3)
    assert [settings.rate(900, done) for done in (0.8, 0.875, 0.95)] == pytest.approx([0.016, 0.01, 0.004])
    assert settings.rate(900, 1.0) == settings.rate(900, 1.01) == 0  # the last step may end late


class Pair(torch.nn.Module):
    """Two numbers that want to be one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))


class Trial:
    """A run of `Pair` over five clips in `folder`, and what it was given."""

    def __init__(self, folder: Path, stop_at: int = 0, **options: object) -> None:
        self.pair, self.given, self.batches = Pair(), [], []
        clips = Clips([np.arange(2_000 + i, dtype=np.int16) for i in range(5)], list("abcde"), [[]] * 5, [[]] * 5)
        settings = LoopSettings(5.0, 0.05, seconds_a_batch=2 * ROUND / 16_000, augmented={}, bfloat16=False)

        def losses(numbers: np.ndarray, batch: Batch) -> dict[str, torch.Tensor]:
            if stop_at and len(self.given) == stop_at:
                raise KeyboardInterrupt
            self.given.append(numbers.tolist())
            self.batches.append(batch)
            return {"first": (self.pair.first - 1).square().sum(), "second": (self.pair.second - 1).square().sum()}

        self.progress, self.measurements = None, 0

        def measure() -> dict[str, float]:
            self.measurements += 1
            return {"measured": 0.5}

        arguments = (losses, measure, clips, folder, "trial", replace(settings, **options))
        if stop_at:
            with pytest.raises(KeyboardInterrupt):
                loop.run(self.pair, *arguments)
        else:
            self.progress, measured = loop.run(self.pair, *arguments)
            assert measured == {"measured": 0.5}


def lines(file: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_a_run_gives_each_clip_once_an_epoch_and_keeps_a_record(clock: None, tmp_path: Path) -> None:
    trial = Trial(tmp_path / "new", weights={"second": 0.0}, measure_every=2.0)
    assert trial.progress == {"elapsed": 300, "step": 300, "epoch": 100, "seen": 500}  # 5 clips in pairs: 3 steps
    for epoch in range(100):
        assert sorted(itertools.chain(*trial.given[3 * epoch : 3 * epoch + 3])) == list(range(5))
    assert len({str(trial.given[3 * epoch : 3 * epoch + 3]) for epoch in range(100)}) > 50
    for numbers, batch in zip(trial.given, trial.batches, strict=True):
        assert batch.mask.sum(1).tolist() == [2_000 + i for i in numbers]
    assert trial.pair.first.item() == pytest.approx(1, abs=0.05) and trial.pair.second.item() == 0
    written = lines(tmp_path / "new" / "trial.jsonl")
    assert [line["step"] for line in written if "first" in line] == [100, 200, 300]
    assert [line["step"] for line in written if "measured" in line] == [121, 242, 300]
    assert trial.measurements == 3  # the last one is what the run gives back: nothing is measured twice
    assert written[-1] == {"step": 300, "minutes": 5.0, "clips": 500, "measured": 0.5}
    losses = [line["first"] for line in written if "first" in line]
    assert losses == sorted(losses, reverse=True) and losses[0] > losses[2]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["trial.jsonl", "trial.state.safetensors"]


def test_an_interrupted_run_goes_on_from_its_last_state(clock: None, tmp_path: Path) -> None:
    stopped = Trial(tmp_path, stop_at=220)
    assert len(stopped.given) == 220
    resumed = Trial(tmp_path)
    assert resumed.progress["step"] == resumed.progress["elapsed"] == 300
    assert len(resumed.given) == 300 - 121  # the state is saved every two minutes
    assert resumed.progress["seen"] == sum(map(len, stopped.given[:121])) + sum(map(len, resumed.given))
    recorded = [line["step"] for line in lines(tmp_path / "trial.jsonl") if "first" in line]
    assert recorded == [100, 200, 300]  # the lost steps up to 220 are not in the record twice
    assert abs(resumed.pair.first.item() - 1) < 0.05
    longer = Trial(tmp_path, minutes=6.0)
    assert longer.progress["step"] == 360 and len(longer.given) == 60
    spent = Trial(tmp_path, minutes=6.0)
    assert spent.given == [] and spent.measurements == 1


def test_a_state_is_whole_and_the_optimizer_goes_on(tmp_path: Path) -> None:
    def learner() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        module = torch.nn.Linear(4, 3)
        module.register_buffer("statistics", torch.zeros(2))
        module.register_parameter("unused", torch.nn.Parameter(torch.zeros(2)))  # the optimizer has no moments of it
        return module, torch.optim.AdamW(module.parameters(), 0.1, betas=(0.9, 0.98))

    def steps(module: torch.nn.Module, optimizer: torch.optim.Optimizer, n: int) -> None:
        for _ in range(n):
            optimizer.zero_grad()
            module(torch.arange(8.0).reshape(2, 4)).square().sum().backward()
            optimizer.step()
            module.statistics += 1

    straight, stopped, resumed, forgetful = learner(), learner(), learner(), learner()
    steps(*straight, 6)
    steps(*stopped, 3)
    progress = {"elapsed": 0.1 + 0.2, "step": 3.0}
    save_progress(tmp_path / "state.safetensors", *stopped, progress)
    assert load_progress(tmp_path / "state.safetensors", *resumed) == progress  # to the last digit
    steps(*resumed, 3)
    for name, tensor in straight[0].state_dict().items():
        assert torch.equal(tensor, resumed[0].state_dict()[name]), name
    for number, moments in straight[1].state_dict()["state"].items():
        for name, tensor in moments.items():
            assert torch.equal(tensor, resumed[1].state_dict()["state"][number][name]), (number, name)
    forgetful[0].load_state_dict(stopped[0].state_dict())
    steps(*forgetful, 3)
    assert not torch.equal(straight[0].weight, forgetful[0].weight)  # the moments matter
    assert [p.name for p in tmp_path.iterdir()] == ["state.safetensors"]


# Whole runs, tiny --------------------------------------------------------------------------------------------------


def progress(folder: Path, name: str = "ctc") -> dict[str, float]:
    return load_state(folder / f"{name}.state.safetensors")[1]


@pytest.fixture(scope="module")
def encoder(clock: None, spoken: Clips, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transcribing encoder after three steps."""
    return pretrain_speech(spoken, {"some": spoken.chosen(range(2))}, tmp_path_factory.mktemp("run"), TINY)


def test_a_transcribing_encoder_is_exported_for_everyone(encoder: Path, spoken: Clips, clips: list[Clip]) -> None:
    report = json.loads((encoder.parent / "ctc.json").read_text("utf-8"))
    assert progress(encoder.parent)["step"] == 3 and report["clips_seen"] == progress(encoder.parent)["seen"] >= 3
    assert report["train_clips"] == 7 and report["held_out_clips"] == {"some": 2}
    assert set(report["error_rates"]) == {"some_letter_error_rate", "some_word_error_rate"}
    assert report["recipe"]["loop"]["weights"] == WEIGHTS
    assert lines(encoder.parent / "ctc.jsonl")[-1].items() >= {"step": 3, **report["error_rates"]}.items()
    assert not list(encoder.parent.glob("*.tmp"))

    waves = [clip.samples for clip in clips]
    features = SpeechEncoder(str(encoder), device="cpu")
    assert (features.dimension, features.sampling_rate) == (32, 16_000)
    assert features.parameters == report["parameters"] and features.min_samples == 2 * CENTRE
    vectors = features.encode(waves)
    assert vectors.shape == (6, 32) and np.isfinite(vectors).all() and vectors.std(0).max() > 0
    alone = np.concatenate([features.encode([wave]) for wave in waves])
    np.testing.assert_allclose(vectors, alone, atol=1e-4)

    model = AutoModelForCTC.from_pretrained(encoder)
    assert type(model).__name__ == "HubertForCTC" and model.lm_head.out_features == 48
    assert all(tensor.dtype == torch.float16 for tensor in load_file(encoder / "model.safetensors").values())
    assert len(Transcriber(str(encoder), device="cpu").transcribe(waves)) == 6


def test_the_exported_encoder_hears_what_the_learner_heard(spoken: Clips, clips: list[Clip], tmp_path: Path) -> None:
    torch.manual_seed(1)
    learner = SpeechLearner(TINY, phones=3)
    with torch.no_grad():
        for weights in learner.piece_head.parameters():
            weights.normal_(std=0.5)  # so that the best piece changes from frame to frame
    learner.half().float()  # what is stored
    pieces = train_pieces(spoken.texts, 48)
    learnt = transcribe(learner, spoken, pieces)
    assert learner.training and learnt[0] == learnt[6] and len(set(learnt)) == 6 and all(learnt)
    folder = speech.export(learner, pieces, tmp_path / "ctc")
    samples = [samples.astype(np.float32) / 32767 for samples in spoken.samples]
    assert Transcriber(str(folder), device="cpu").transcribe(samples, batch_size=3) == learnt


def test_a_finished_run_goes_on_when_it_is_given_more_time(clock: None, spoken: Clips, tmp_path: Path) -> None:
    held_out = {"some": spoken.chosen(range(1))}
    folder = pretrain_speech(spoken, held_out, tmp_path, for_seconds(2))
    first, weights = progress(tmp_path), load_file(folder / "model.safetensors")
    assert first["step"] == first["elapsed"] == 2

    pretrain_speech(spoken, held_out, tmp_path, for_seconds(2))  # nothing is left to do: all comes back as it was
    assert progress(tmp_path) == first
    same = load_file(folder / "model.safetensors")
    assert all(torch.equal(tensor, same[name]) for name, tensor in weights.items())

    pretrain_speech(spoken, held_out, tmp_path, for_seconds(5))
    second, changed = progress(tmp_path), load_file(folder / "model.safetensors")
    assert second["step"] == second["elapsed"] == 5 and second["seen"] > first["seen"]
    assert [line["step"] for line in lines(tmp_path / "ctc.jsonl")] == [2, 5]
    assert not torch.equal(weights["lm_head.weight"], changed["lm_head.weight"])
    state = load_file(tmp_path / "ctc.state.safetensors")
    assert {float(t) for name, t in state.items() if name.startswith("optimizer.") and name.endswith(".step")} == {5}


def test_a_run_may_start_from_an_exported_encoder(
    clock: None, encoder: Path, spoken: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Clips(spoken.samples, ["Quick brown foxes jump."] * 7, spoken.phones, spoken.words)
    before: list[dict[str, torch.Tensor]] = []
    real_run = loop.run

    def run(learner: SpeechLearner, *arguments: object) -> loop.Finished:
        parts = {"hubert": learner.hubert, "lm_head": learner.piece_head}
        before.append({f"{p}.{n}": t.clone() for p, part in parts.items() for n, t in part.state_dict().items()})
        return real_run(learner, *arguments)

    monkeypatch.setattr(speech, "run", run)
    folder = pretrain_speech(other, {}, tmp_path, for_seconds(1), start=encoder)
    stored, trained = load_file(encoder / "model.safetensors"), load_file(folder / "model.safetensors")
    assert before[0].keys() == stored.keys() == trained.keys()
    assert all(torch.equal(tensor.half(), stored[name]) for name, tensor in before[0].items())
    assert any(not torch.equal(tensor, trained[name]) for name, tensor in stored.items())
    kept = AutoTokenizer.from_pretrained(folder).get_vocab()
    assert kept == AutoTokenizer.from_pretrained(encoder).get_vocab()
    assert kept != train_pieces(other.texts, TINY.pieces).get_vocab()
    assert progress(tmp_path)["step"] == 1


def test_the_state_of_a_run_is_newer_than_its_start(clock: None, encoder: Path, spoken: Clips, tmp_path: Path) -> None:
    pretrain_speech(spoken, {}, tmp_path, for_seconds(2), start=encoder)
    pretrain_speech(spoken, {}, tmp_path, for_seconds(3), start=encoder)
    assert progress(tmp_path)["step"] == 3


def test_runs_with_one_disturbance_each_part_from_one_start(
    clock: None, spoken: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: dict[str, dict[str, float]] = {}
    rates: dict[str, list[float]] = {}
    real_run = loop.run

    def run(learner: SpeechLearner, losses, measure, clips, folder: Path, name, settings) -> loop.Finished:
        trained[folder.name] = dict(settings.augmented)
        rates[folder.name] = [settings.rate(90, elapsed / settings.minutes / 60) for elapsed in range(5)]
        return real_run(learner, losses, measure, clips, folder, name, settings)

    monkeypatch.setattr(speech, "run", run)
    found = ablation.ablate(spoken, spoken.chosen(range(3)), tmp_path, for_seconds(2), clean_minutes=2 / 60)
    folders = {"clean", "none", "all", *(name.replace(" ", "-") for name in AUGMENTATIONS)}
    assert set(trained) == folders == {path.name for path in tmp_path.iterdir()}
    assert trained["clean"] == trained["none"] == {} and trained["noise"] == {"noise": 0.5} and trained["all"] == SHARES
    assert rates["clean"][:2] == [1e-3] * 2  # level
    assert rates["noise"] == pytest.approx([1e-3, 1e-3, 1e-3, 5e-4, 0])  # and from the parting down to nothing
    steps = {name: progress(tmp_path / name)["step"] for name in folders}
    assert steps.pop("clean") == 2 and set(steps.values()) == {4}
    clean, noisy = (load_file(tmp_path / name / "ctc" / "model.safetensors") for name in ("none", "noise"))
    assert any(not torch.equal(tensor, noisy[name]) for name, tensor in clean.items())

    ways = {"none", *AUGMENTATIONS}
    assert set(found["letter_error_rate"]) == {"none", "all", *AUGMENTATIONS} == {"none", *found["difference"]}
    assert all(set(row) == ways for row in found["letter_error_rate"].values())
    for name, row in found["difference"].items():
        for way, (value, low, high) in row.items():
            both = [found["letter_error_rate"][run][way][0] for run in (name, "none")]
            assert value == pytest.approx(both[0] - both[1], abs=2e-4) and low <= value <= high
    assert ablation.ablate(spoken, spoken.chosen(range(3)), tmp_path, for_seconds(2), clean_minutes=2 / 60) == found
    assert {name: progress(tmp_path / name)["step"] for name in steps} == steps


# At sentence level -------------------------------------------------------------------------------------------------

SENTENCES = SentenceRecipe(LoopSettings(4 / 60, 2e-3, seconds_a_batch=12, warmup_steps=2))


@pytest.fixture(scope="module")
def meanings(spoken: Clips) -> np.ndarray:
    """Unit vectors in place of the sentence encoder's; the last clip has the text of the first."""
    vectors = np.random.default_rng(0).standard_normal((len(spoken), 24)).astype(np.float32)
    vectors[-1] = vectors[0]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_sentence_vector_is_a_linear_map_of_the_mean_frame(encoder: Path, spoken: Clips) -> None:
    learner = SentenceLearner(encoder, 24)
    learnt = sentence.means(learner, spoken)
    assert learner.training and learnt.shape == (7, 32)
    means = SpeechEncoder(str(encoder), device="cpu").encode([s.astype(np.float32) / 32767 for s in spoken.samples])
    np.testing.assert_allclose(learnt, means, atol=1e-4)
    with torch.no_grad():
        vectors = learner.project(torch.from_numpy(learnt)).numpy()
        expected = torch.nn.functional.normalize(learner.head(torch.from_numpy(means)), dim=-1).numpy()
    np.testing.assert_allclose(vectors, expected, atol=1e-4)
    assert np.abs(vectors[1:] - vectors[0]).max() > 1e-2


def test_the_linear_layer_starts_where_a_line_fits(encoder: Path) -> None:
    rng = np.random.default_rng(0)
    means = (rng.standard_normal((500, 32)) * 0.1 + 1).astype(np.float32)
    line, offset = rng.standard_normal((32, 24)), rng.standard_normal(24)
    learner = SentenceLearner(encoder, 24)
    sentence.fit_head(learner, means, means @ line + offset)
    np.testing.assert_allclose(learner.head.weight.detach().numpy(), line.T, atol=0.02)
    np.testing.assert_allclose(learner.head.bias.detach().numpy(), offset, atol=0.3)


def test_an_encoder_is_trained_further_on_sentences(
    clock: None, encoder: Path, spoken: Clips, meanings: np.ndarray, clips: list[Clip], tmp_path: Path
) -> None:
    held_out = {"some": (spoken.chosen(range(4)), meanings[:4])}
    folder = pretrain_sentence(spoken, meanings, held_out, encoder, tmp_path, SENTENCES)
    assert folder == tmp_path / "search" and progress(tmp_path, "search")["step"] == 4
    report = json.loads((tmp_path / "search.json").read_text("utf-8"))
    assert report["clips_seen"] >= 4 and report["held_out_clips"] == {"some": 4}
    assert 0.25 <= report["retrieval"]["some_mrr"] <= 1 >= report["retrieval"]["some_hits_at_1"] >= 0
    assert lines(tmp_path / "search.jsonl")[-1].items() >= report["retrieval"].items()
    waves = [clip.samples for clip in clips]
    before, after = (SpeechEncoder(str(path), device="cpu").encode(waves) for path in (encoder, folder))
    assert after.shape == (6, 32) and np.isfinite(after).all() and np.abs(before - after).max() > 1e-3
    with pytest.raises(CheckpointError, match="no CTC head"):
        Transcriber(str(folder), device="cpu")
    stored = load_file(folder / "model.safetensors")
    assert not [name for name in stored if name.startswith(("head", "lm_head"))]
    # A finished run goes on here too, and a transcribing encoder may start from an encoder without a head.
    longer = replace(SENTENCES, loop=replace(SENTENCES.loop, minutes=5 / 60))
    pretrain_sentence(spoken, meanings, held_out, encoder, tmp_path, longer)
    assert progress(tmp_path, "search")["step"] == 5
    untouched = pretrain_speech(spoken, {}, tmp_path / "again", for_seconds(0), start=folder)
    again, stored = load_file(untouched / "model.safetensors"), load_file(folder / "model.safetensors")
    assert {f"hubert.{name}" for name in stored} == set(again) - {"lm_head.weight", "lm_head.bias"}
    assert all(torch.equal(tensor, again[f"hubert.{name}"]) for name, tensor in stored.items())


def test_clips_of_one_text_are_one_answer(
    encoder: Path, spoken: Clips, meanings: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second clip of a text must not be told to move away from the text's vector."""
    found: list[float] = []

    def run(learner: SentenceLearner, losses, measure, clips: Clips, folder: Path, *_: object) -> loop.Finished:
        learner.eval()
        with torch.no_grad():
            for i in range(len(clips)):
                found.append(losses(np.array([i]), collate([clips.samples[i]]))["contrastive_loss"].item())
        with torch.no_grad():
            vectors = learner.project(torch.from_numpy(sentence.means(learner, clips)))
        cosines = vectors.double() @ torch.from_numpy(meanings[:6]).double().T / SENTENCES.temperature  # six texts
        right = torch.tensor([*range(6), 0])
        expected = torch.nn.functional.cross_entropy(cosines, right, reduction="none")
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4)
        return loop.Finished({"seen": 0.0}, {})

    monkeypatch.setattr(sentence, "run", run)
    monkeypatch.setattr(sentence, "fit_head", lambda *_: None)  # seven clips it would fit too well to see a loss
    pretrain_sentence(spoken, meanings, {}, encoder, tmp_path, SENTENCES)
    assert len(found) == 7


# Pictures and heads ------------------------------------------------------------------------------------------------


def test_a_picture_encoder_is_trained_and_exported(spoken: Clips, clips: list[Clip], tmp_path: Path) -> None:
    recipe = PictureRecipe(minutes=0.005, model="test_efficientnet", words=12, size=(64, 96), batch_size=3)
    folder = pretrain_picture(spoken, {"some": spoken}, tmp_path, recipe)
    encoder = SpectrogramEncoder(str(folder))
    assert (encoder.size, encoder.dimension) == ((64, 96), 12)
    vectors = encoder.encode([clip.samples for clip in clips])
    assert vectors.shape == (6, 12) and np.isfinite(vectors).all() and vectors.std(0).max() > 0
    report = json.loads((tmp_path / "picture.json").read_text())
    assert report["steps"] >= 1 and 0 < report["average_precision"]["some"]["average_precision"] <= 1
    assert not list(tmp_path.glob("*.tmp"))


def test_heads_are_trained_and_saved_small(
    tiny: Tiny, spoken: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLASP_CACHE", str(tmp_path / "cache"))
    profile = Profile(
        name="tiny",
        speech_encoder=str(tiny.hubert),
        spectrogram_encoder=str(tiny.efficientnet),
        text_encoder=str(tiny.sentences),
        sentences=lambda: pocket_brown()[:30],
        synthesizer=ESpeak,
        voices_per_sentence={"train": 2, "validation": 1, "test": 2},
    )
    settings = TrainingSettings(epochs=2, batch_size=8)
    names = {"one": "concatenation", "two": "speech_only"}
    more = features_of_clips(spoken, profile)
    found = train_heads(profile, names, tmp_path / "out", settings, more)
    assert list(found) == list(names) and all(0 < mrr <= 1 for mrr in found.values())
    validation = extract_features(profile.dataset()["validation"], *profile.encoders())
    for name, kind in names.items():
        model = CLASP.from_pretrained(tmp_path / "out" / name)
        assert model.fusion_name == kind and (tmp_path / "out" / name / "README.md").exists()
        assert validation_mrr(model.fusion, validation) == pytest.approx(found[name], abs=0.02)  # half precision
        with safe_open(tmp_path / "out" / name / "model.safetensors", "pt") as stored:
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
        assert {t.dtype for t in tensors.values() if t.ndim > 1} == {torch.float16}
        assert all(t.dtype == torch.float32 for key, t in tensors.items() if key.endswith("running_var"))


def test_features_of_clips_can_borrow_all_but_the_speech(tiny: Tiny, spoken: Clips) -> None:
    profile = replace(
        get_profile("pocket"),
        speech_encoder=str(tiny.hubert),
        spectrogram_encoder=str(tiny.efficientnet),
        text_encoder=str(tiny.sentences),
    )
    first = features_of_clips(spoken, profile, chunk=4)
    second = features_of_clips(spoken, replace(profile, speech_encoder=str(tiny.wav2vec2)), first)
    assert second.picture is first.picture and second.text is first.text
    waves = [samples.astype(np.float32) / 32768 for samples in spoken.samples]
    np.testing.assert_allclose(second.speech, SpeechEncoder(str(tiny.wav2vec2)).encode(waves), atol=1e-4)
    np.testing.assert_allclose(first.picture, SpectrogramEncoder(str(tiny.efficientnet)).encode(waves), atol=1e-4)
