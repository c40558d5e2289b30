"""Speech to text by CTC: what is read off the frames, how mistakes are counted, and which checkpoints can do it."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import SMALL, Clip, Tiny
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    HubertConfig,
    HubertForCTC,
    PreTrainedTokenizerFast,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
)

from clasp_lib import CLASP
from clasp_lib.errors import AudioError, CheckpointError, ClaspError, MissingDependencyError
from clasp_lib.transcription import Transcriber, count_errors, error_rates, greedy, spelled

LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz'"]
"""The vocabulary of `wav2vec2-base-960h`, in lower case."""


@pytest.fixture(scope="module")
def recognisers(tmp_path_factory: pytest.TempPathFactory, clips: list[Clip]) -> dict[str, Path]:
    """Random CTC models in the layout of the hub: HuBERT (layer norm, word pieces), wav2vec2 (group norm, letters)."""
    folders = {name: tmp_path_factory.mktemp("recognisers") / name for name in ("pieces", "letters")}
    torch.manual_seed(0)
    small = SMALL | {"pad_token_id": 0}
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer, pieces.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=["<blank>"], show_progress=False)
    pieces.train_from_iterator([spelled(clip.text) for clip in clips], trainer)
    PreTrainedTokenizerFast(tokenizer_object=pieces, pad_token="<blank>").save_pretrained(folders["pieces"])
    layers = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
    HubertForCTC(HubertConfig(**small, **layers, vocab_size=60)).save_pretrained(folders["pieces"])
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folders["pieces"])

    folders["letters"].mkdir()
    vocabulary = folders["letters"] / "vocab.json"
    vocabulary.write_text(json.dumps({letter: i for i, letter in enumerate(LETTERS)}), encoding="utf-8")
    Wav2Vec2CTCTokenizer(str(vocabulary)).save_pretrained(folders["letters"])
    group = Wav2Vec2Config(**small, feat_extract_norm="group", vocab_size=len(LETTERS))
    Wav2Vec2ForCTC(group).save_pretrained(folders["letters"])
    Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(folders["letters"])
    return folders


@pytest.fixture(scope="module", params=["pieces", "letters"])
def transcriber(request: pytest.FixtureRequest, recognisers: dict[str, Path]) -> Transcriber:
    return Transcriber(str(recognisers[request.param]), device="cpu")


@pytest.fixture(scope="module")
def waves(clips: list[Clip]) -> list[np.ndarray]:
    """Clips of mixed lengths, two of them equally long."""
    samples = [clip.samples for clip in clips]
    return [*samples, samples[1][: len(samples[0])].copy()]


# Reading -----------------------------------------------------------------------------------------------------------


def test_greedy_merges_repeats_and_drops_blanks() -> None:
    path = [[1, 1, 0, 1, 2, 2, 0, 0, 3, 3], [0, 0, 2, 2, 0, 2, 1, 1, 1, 1]]
    logits = torch.nn.functional.one_hot(torch.tensor(path), 4).float()
    assert greedy(logits, [10, 6]) == [[1, 1, 2, 3], [2, 2]]  # the last four frames of the second are padding
    assert greedy(logits, [0, 1]) == [[], []]
    assert greedy(logits, torch.tensor([10, 6])) == greedy(logits, [10, 6])
    assert greedy(logits, [10, 6], blank=2) == [[1, 0, 1, 0, 3], [0, 0]]


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("Don’t stop, Mr. O'Neil!", "don't stop mr o'neil"),
        ("'Tis the dogs' day -- half-done", "tis the dogs day half done"),
        ("  A\tB \n c ", "a b c"),
        ("1984?", ""),
        ("", ""),
    ],
)
def test_a_text_is_spelled_in_letters_and_apostrophes(text: str, letters: str) -> None:
    assert spelled(text) == letters
    assert spelled(letters) == letters


def forced(transcriber: Transcriber, paths: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the transcriber writes if the best letters of the frames are those of `paths` ("_" is the blank)."""
    ids = [[0 if letter == "_" else LETTERS.index(letter) for letter in path] for path in paths]
    longest = max(map(len, ids))

    def outputs(waves: list[np.ndarray], **_: bool) -> tuple[SimpleNamespace, list[int]]:
        rows = [ids[int(wave[0])] for wave in waves]
        padded = torch.tensor([row + [LETTERS.index("z")] * (longest - len(row)) for row in rows])
        logits = torch.nn.functional.one_hot(padded, len(LETTERS)).float()
        return SimpleNamespace(logits=logits), list(map(len, rows))

    monkeypatch.setattr(transcriber, "_outputs", outputs)
    return transcriber.transcribe([np.full(2_000 + 7 * i, i, np.float32) for i in range(len(paths))], batch_size=2)


def test_doubled_letters_survive_where_a_blank_is_between_them(
    recognisers: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    transcriber = Transcriber(str(recognisers["letters"]), device="cpu")
    paths = ["hhel_lo_||__ttoo_o", "fiiin|o'", "___", "|_a|_", "hel_l_lo"]
    assert forced(transcriber, paths, monkeypatch) == ["hello too", "fin o'", "", "a", "helllo"]


def test_word_pieces_are_joined_to_words(recognisers: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    transcriber = Transcriber(str(recognisers["pieces"]), device="cpu")
    said = "the ferry left at dawn"
    ids = PreTrainedTokenizerFast.from_pretrained(recognisers["pieces"]).encode(said)
    path = torch.tensor([[symbol for i in ids for symbol in (i, i, 0)]])
    logits = torch.nn.functional.one_hot(path, 60).float()
    monkeypatch.setattr(transcriber, "_outputs", lambda waves: (SimpleNamespace(logits=logits), [path.shape[1]]))
    assert len(ids) < len(said) and transcriber.transcribe([np.zeros(9_000, np.float32)]) == [said]


# Transcriber -------------------------------------------------------------------------------------------------------


def test_a_transcript_does_not_depend_on_its_batch(transcriber: Transcriber, waves: list[np.ndarray]) -> None:
    alone = [transcriber.transcribe([wave])[0] for wave in waves]
    assert all(alone) and len(set(alone)) == len(waves)
    assert all(text == text.strip() for text in alone)
    for batch_size in (2, 3, 16):
        assert transcriber.transcribe(waves, batch_size) == alone
    order = [3, 6, 0, 5, 1, 4, 2]
    assert transcriber.transcribe([waves[i] for i in order], 3) == [alone[i] for i in order]
    assert transcriber.transcribe([]) == []


def test_a_group_norm_model_runs_in_batches_of_one_length(
    transcriber: Transcriber, waves: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its convolutions would hear the padding."""
    heard: list[list[int]] = []
    outputs = transcriber._outputs

    def recorded(batch: list[np.ndarray], **options: bool) -> object:
        heard.append([len(wave) for wave in batch])
        return outputs(batch, **options)

    monkeypatch.setattr(transcriber, "_outputs", recorded)
    transcriber.transcribe(waves, batch_size=4)
    assert sorted(itertools.chain(*heard)) == sorted(map(len, waves))
    if transcriber._model.config.feat_extract_norm == "group":
        assert sorted(map(len, heard)) == [1, 1, 1, 1, 1, 2] and all(len(set(batch)) == 1 for batch in heard)
    else:
        assert sorted(map(len, heard)) == [3, 4]


def test_a_clip_too_short_for_a_frame_is_refused(transcriber: Transcriber, waves: list[np.ndarray]) -> None:
    assert transcriber.min_samples == 40 + 20 * (7 + 8 * 3)
    shortest = waves[0][3_000 : 3_000 + transcriber.min_samples]
    assert len(transcriber.transcribe([shortest])) == 1
    with pytest.raises(AudioError, match=f"at least {transcriber.min_samples}"):
        transcriber.transcribe([waves[0], shortest[:-1]])


@pytest.mark.parametrize("name", ["hubert", "wav2vec2"])
def test_an_encoder_without_a_ctc_head_cannot_transcribe(name: str, tiny: Tiny) -> None:
    with pytest.raises(CheckpointError, match="has no CTC head") as caught:
        Transcriber(str(getattr(tiny, name)), device="cpu")
    assert str(getattr(tiny, name)) in str(caught.value)


@pytest.mark.parametrize("name", ["pieces", "letters"])
def test_a_recogniser_without_its_tokenizer_is_refused_by_name(
    name: str, recognisers: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(recognisers[name], folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "special_tokens_map.json"):
        (folder / file).unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match="tokenizer") as caught:
        Transcriber(str(folder), device="cpu")
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", ["efficientnet", "sentences", "nowhere"])
def test_what_is_no_speech_model_cannot_transcribe(name: str, tiny: Tiny) -> None:
    folder = str(tiny.hubert.parent / name)
    with pytest.raises(CheckpointError) as caught:
        Transcriber(folder, device="cpu")
    assert folder in str(caught.value)


# Errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "heard", "letters", "words"),
    [
        ("kitten", "sitting", (3, 6), (1, 1)),
        ("flaw", "lawn", (2, 4), (1, 1)),
        ("abc", "abc", (0, 3), (0, 1)),
        ("a cat sat", "a hat sat down", (6, 9), (2, 3)),  # a space counts as a letter
        ("one two three", "two three", (4, 13), (1, 3)),
        ("one two", "two one", (6, 7), (2, 2)),  # nothing but the space is in its place
        ("don't", "dont", (1, 5), (1, 1)),
        ("so it is", "", (8, 8), (3, 3)),
        ("no", "no no no", (6, 2), (2, 1)),  # more errors than letters
    ],
)
def test_errors_by_hand(said: str, heard: str, letters: tuple[int, int], words: tuple[int, int]) -> None:
    found = count_errors([said], [heard])
    assert {name: value.tolist() for name, value in found.items()} == {
        "letter_errors": [letters[0]],
        "letters": [letters[1]],
        "word_errors": [words[0]],
        "words": [words[1]],
    }


def test_errors_are_counted_text_by_text() -> None:
    found = count_errors(["abcd", "ab cd", "x"], ["abcd", "ab ce", "y"])
    assert found["letter_errors"].tolist() == [0, 1, 1] and found["letters"].tolist() == [4, 5, 1]
    assert found["word_errors"].tolist() == [0, 1, 1] and found["words"].tolist() == [1, 2, 1]
    assert all(counts.dtype.kind == "i" for counts in found.values())
    with pytest.raises(ValueError):
        count_errors(["a", "b"], ["a"])


@pytest.mark.parametrize("empty", ["", " ", "\n"])
def test_an_empty_reference_has_no_error_rate(empty: str) -> None:
    for count in (count_errors, error_rates):
        with pytest.raises(ClaspError, match="empty text"):
            count(["fine", empty], ["fine", "something"])


def test_error_rates_are_summed_before_they_are_divided() -> None:
    said, heard = ["a b c d", "e f"], ["a b c d", "e g"]
    rates = error_rates(said, heard)
    assert rates["word_error_rate"].value == pytest.approx(1 / 6)  # not the mean of 0 and 1/2
    assert rates["letter_error_rate"].value == pytest.approx(1 / 10)


def test_an_error_rate_comes_with_an_interval() -> None:
    said = ["one two three four"] * 200
    heard = ["one two three"] * 50 + said[50:]
    rate = error_rates(said, heard)["word_error_rate"]
    deviation = np.sqrt(0.25 * 0.75 / 200) / 4  # of the mean of 200 texts, a quarter of which miss a quarter
    assert rate.value == 1 / 16
    assert rate.low == pytest.approx(rate.value - 1.96 * deviation, abs=0.004)
    assert rate.high == pytest.approx(rate.value + 1.96 * deviation, abs=0.004)
    assert error_rates(said, heard)["word_error_rate"] == rate != error_rates(said, heard, seed=1)["word_error_rate"]
    assert error_rates(said, said)["letter_error_rate"] == (0, 0, 0)


def test_a_missing_jiwer_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'clasp-lib\[asr\]'"):
        count_errors(["a"], ["a"])


def test_a_transcript_can_be_read_in_the_states_that_the_speech_encoder_gives(clips: list[Clip]) -> None:
    waves = [clip.samples for clip in clips]
    frames = CLASP.from_pretrained("pocket", device="cpu").speech_encoder.frames(waves)
    transcriber = Transcriber("pocket-ctc", device="cpu")
    found = transcriber.read(frames)
    assert found == transcriber.transcribe(waves) and any(found)
