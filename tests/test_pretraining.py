"""The recipes of the shipped encoders: what is spelled, batched and decoded, and a run that stops and goes on."""

from __future__ import annotations

import concurrent.futures
import csv
import dataclasses
import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Clip, Tiny
from safetensors import safe_open

from clasp_lib import CLASP, RetrievalReport
from clasp_lib.audio import encode_audio
from clasp_lib.corpus import pocket_brown
from clasp_lib.encoders import SpectrogramEncoder, SpeechEncoder
from clasp_lib.evaluation import evaluate_both_directions
from clasp_lib.features import extract_features
from clasp_lib.pretraining import clips as recipe_clips
from clasp_lib.pretraining.clips import Clips, read_sentences, read_training_recordings, speak, spelled
from clasp_lib.pretraining.heads import train_heads
from clasp_lib.pretraining.picture import PictureRecipe, pretrain_picture
from clasp_lib.pretraining.speech import (
    LETTERS,
    SpeechRecipe,
    _edit_distance,
    _error_rate,
    batches,
    collate,
    ctc,
    greedy,
    pretrain_speech,
    train_pieces,
)
from clasp_lib.profiles import Profile
from clasp_lib.synthesis import VARIANTS, ESpeak, Voice, draw_voices
from clasp_lib.training import TrainingSettings, fuse


@pytest.fixture(scope="module")
def spoken(clips: list[Clip]) -> Clips:
    return Clips([(c.samples * 32767).astype(np.int16) for c in clips], [c.text for c in clips])


# Texts and clips ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("Don’t stop, Mr. O'Neil!", "don't stop mr o'neil"),
        ("'Tis the dogs' day -- half-done", "tis the dogs day half done"),
        ("  A\tB \n c ", "a b c"),
        ("1984?", ""),
    ],
)
def test_what_ctc_learns_to_write(text: str, letters: str) -> None:
    assert spelled(text) == letters
    assert set(spelled(text)) <= set(LETTERS)


def test_training_is_spoken_by_training_voices_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders that had heard a test voice would make every held-out figure of the book worthless."""
    heard: list[str] = []

    class Recorder:
        def __init__(self, sampling_rate: int) -> None:
            self.sampling_rate = sampling_rate

        def synthesize(self, text: str, voice: Voice) -> np.ndarray:
            heard.append(voice.variant)
            return np.ones(10, np.float32)

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
    for text, samples, voice in zip(texts, clips.samples, draw_voices("train", 3, 4), strict=True):
        expected = (ESpeak().synthesize(text, voice) * 32767).astype(np.int16)
        np.testing.assert_array_equal(samples, expected)
    assert not list(tmp_path.glob("*.tmp"))
    assert clips.hours == pytest.approx(sum(map(len, clips.samples)) / 16_000 / 3600)
    assert len((clips + clips).repeated(2)) == 12


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
    assert train.samples[0].dtype == np.int16 and np.abs(train.samples[0]).max() > 1000


def test_the_voices_of_the_recipe_are_not_overridden() -> None:
    """The command line must not offer another split to speak the training clips."""
    source = (Path(recipe_clips.__file__).parent / "__main__.py").read_text("utf-8")
    assert set(re.findall(r"\bspeak\([^)]*?\"(\w+)\"", source)) == {"train", "validation"}


# Batches, CTC, decoding --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 57, 400])
def test_batches_hold_every_clip_once_and_stay_in_their_budget(n: int) -> None:
    lengths = np.random.default_rng(n).integers(8_000, 160_000, n).tolist()
    made = batches(lengths, 60.0, np.random.default_rng(0))
    assert sorted(i for batch in made for i in batch) == list(range(n))
    for batch in made:
        assert max(lengths[i] for i in batch) * len(batch) <= 60 * 16_000
    again = batches(lengths, 60.0, np.random.default_rng(0))
    assert all(np.array_equal(a, b) for a, b in zip(made, again, strict=True))
    if n == 400:
        padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in made)
        assert padded < 1.2 * sum(lengths)
        assert [b.tolist() for b in batches(lengths, 60.0, np.random.default_rng(1))] != [b.tolist() for b in made]


def test_a_batch_is_padded_normalised_and_noisy_on_demand() -> None:
    rng = np.random.default_rng(0)
    clips = [(3000 * rng.standard_normal(n) + 500).astype(np.int16) for n in (4000, 2500)]
    waves, mask = collate(clips)
    assert waves.shape == mask.shape == (2, 4000)
    assert mask.sum(1).tolist() == [4000, 2500] and not waves[1, 2500:].any()
    for row, n in enumerate((4000, 2500)):
        assert waves[row, :n].mean().abs() < 1e-4 and waves[row, :n].std() == pytest.approx(1, abs=1e-3)
    noisy = [collate([clips[1]], np.random.default_rng(s))[0][0] for s in range(20)]
    changed = [not torch.allclose(wave, waves[1, :2500], atol=1e-6) for wave in noisy]
    assert 4 < sum(changed) < 16  # half of the clips
    assert all(torch.corrcoef(torch.stack([wave, waves[1, :2500]]))[0, 1] > 0.8 for wave in noisy)


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


def test_greedy_merges_repeats_and_drops_blanks() -> None:
    path = [[1, 1, 0, 1, 2, 2, 0, 0, 3, 3], [0, 0, 2, 2, 0, 2, 1, 1, 1, 1]]
    logits = torch.nn.functional.one_hot(torch.tensor(path), 4).float()
    assert greedy(logits, torch.tensor([10, 6])) == [[1, 1, 2, 3], [2, 2]]
    assert greedy(logits, torch.tensor([0, 1])) == [[], []]


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [("", "", 0), ("abc", "", 3), ("", "ab", 2), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("abc", "abc", 0)],
)
def test_edit_distance_by_hand(a: str, b: str, distance: int) -> None:
    assert _edit_distance(a, b) == _edit_distance(b, a) == distance


def test_error_rates_are_summed_before_they_are_divided() -> None:
    assert _error_rate(["abcd", "ab"], ["abcd", "xy"]) == pytest.approx(2 / 6)
    assert _error_rate([["a", "cat"], ["sat"]], [["a", "hat"], ["sat", "down"]]) == pytest.approx(2 / 3)


def test_word_pieces_spell_what_they_were_trained_on() -> None:
    texts = ["The cat sat on the mat.", "A cat and a rat."] * 3
    pieces = train_pieces(texts, 60)
    ids = pieces.encode(spelled(texts[0])).ids
    assert 0 not in ids and pieces.id_to_token(0) == "<blank>"
    assert "".join(map(pieces.id_to_token, ids)).replace("▁", " ").strip() == "the cat sat on the mat"


# Whole runs, tiny --------------------------------------------------------------------------------------------------

TINY = SpeechRecipe(
    minutes=0.005,
    hidden_size=32,
    layers=2,
    letter_layer=1,
    pieces=48,
    seconds_a_batch=8,
    bfloat16=False,
)


def progress(folder: Path) -> dict[str, float]:
    with safe_open(folder / "state.safetensors", "pt") as state:
        return {name: float(value) for name, value in state.metadata().items()}


def test_a_run_goes_on_where_it_stopped(spoken: Clips, clips: list[Clip], tmp_path: Path) -> None:
    held_out: dict[str, Any] = {"some": Clips(spoken.samples[:2], spoken.texts[:2])}
    folder = pretrain_speech(spoken, held_out, tmp_path, TINY)
    first, report = progress(tmp_path), json.loads((tmp_path / "speech.json").read_text())
    assert first["step"] >= 1 and first["elapsed"] >= 0.3
    assert report["clips_seen"] == first["seen"] and report["error_rates"]["some"]["clips"] == 2
    encoder = SpeechEncoder(str(folder))
    assert (encoder.dimension, encoder.sampling_rate) == (32, 16_000)
    vectors = encoder.encode([clip.samples for clip in clips])
    assert vectors.shape == (6, 32) and np.isfinite(vectors).all()
    alone = np.concatenate([encoder.encode([clip.samples]) for clip in clips])
    np.testing.assert_allclose(vectors, alone, atol=1e-4)

    pretrain_speech(spoken, held_out, tmp_path, TINY)  # nothing is left to do: the state came back as it was
    assert progress(tmp_path) == first
    np.testing.assert_array_equal(SpeechEncoder(str(folder)).encode([clips[0].samples]), alone[:1])

    pretrain_speech(spoken, held_out, tmp_path, dataclasses.replace(TINY, minutes=0.01))
    second = progress(tmp_path)
    assert second["step"] > first["step"] and second["seen"] > first["seen"] and second["epoch"] >= first["epoch"]
    assert np.abs(SpeechEncoder(str(folder)).encode([clips[0].samples]) - alone[:1]).max() > 0
    assert not list(tmp_path.glob("*.tmp"))


def test_the_optimizer_goes_on_too(tmp_path: Path) -> None:
    from clasp_lib.pretraining.speech import _load_state, _save_state

    def learner() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        module = torch.nn.Linear(4, 3)
        return module, torch.optim.AdamW(module.parameters(), 0.1)

    def steps(module: torch.nn.Module, optimizer: torch.optim.Optimizer, n: int) -> None:
        for _ in range(n):
            optimizer.zero_grad()
            module(torch.arange(8.0).reshape(2, 4)).square().sum().backward()
            optimizer.step()

    straight, stopped, resumed = learner(), learner(), learner()
    steps(*straight, 6)
    steps(*stopped, 3)
    _save_state(tmp_path / "state.safetensors", *stopped, {"elapsed": 1.25, "step": 3})
    assert _load_state(tmp_path / "state.safetensors", *resumed) == {"elapsed": 1.25, "step": 3}
    steps(*resumed, 3)
    assert torch.equal(straight[0].weight, resumed[0].weight)


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


def test_heads_are_trained_saved_and_recorded(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is the measurement of the models that were saved beside it."""
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
    file = train_heads(profile, tmp_path / "out", settings, {}, ["python", "-m", "recipe"])
    record = json.loads(file.read_text("utf-8"))
    assert record["command"] == "python -m recipe" and record["training_pairs"] == len(profile.dataset()["train"])
    test = extract_features(profile.dataset()["test"], *profile.encoders())
    for name in ("concatenation", "gating"):
        model = CLASP.from_pretrained(tmp_path / "out" / name)
        measured = evaluate_both_directions(fuse(model.fusion, test), test.text, test.sentence_ids)
        for direction, report in measured.items():
            stored = RetrievalReport.from_dict(record["pocket_brown_test"][name][direction])
            assert stored.n == report.n and stored.mrr == pytest.approx(report.mrr, abs=1e-6)
    assert [p.name for p in file.parent.iterdir()] == ["retrieval.json"]
