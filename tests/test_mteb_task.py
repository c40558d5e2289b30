"""MTEB runs on a saved CLASP folder, without a network, and finds what `clasp_lib.evaluation` finds."""

from __future__ import annotations

import builtins
import csv
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Clip
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router

from clasp_lib import CLASP
from clasp_lib.audio import encode_audio
from clasp_lib.errors import AudioError, ClaspError, MissingDependencyError
from clasp_lib.evaluation import evaluate_both_directions
from clasp_lib.mteb_task import DIRECTIONS, mteb_model, retrieval_task
from clasp_lib.sentence_transformers_modules import as_sentence_transformer
from clasp_lib.speech_brown import read_recordings


@pytest.fixture
def mteb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path / "mteb"))
    pytest.importorskip("torchaudio")
    return pytest.importorskip("mteb", reason="mteb is not installed: it belongs to the extra [mteb]")


@pytest.fixture(scope="module")
def recordings(clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six sentences; three are said twice, and two a third time: in other letters, and at another rate."""
    folder = tmp_path_factory.mktemp("recordings")
    takes = [(c.text, c.samples, 16_000) for c in clips]
    takes += [(c.text.upper(), other.samples[::-1], 16_000) for c, other in zip(clips[:3], clips[3:])]
    takes += [(c.text, c.samples[::2], 8_000) for c in clips[:2]]
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "text"])
        for number, (text, samples, rate) in enumerate(takes):
            (folder / f"{number}.wav").write_bytes(encode_audio(samples, rate, "WAV"))
            table.writerow([f"{number}.wav", text])
    return read_recordings(folder)[0]


@pytest.fixture
def door(model: CLASP, tmp_path: Path) -> SentenceTransformer:
    model.save_pretrained(tmp_path / "clasp")
    return SentenceTransformer(str(tmp_path / "clasp"), device="cpu", trust_remote_code=True)


def test_mteb_finds_what_our_evaluation_finds(
    mteb: Any, door: SentenceTransformer, model: CLASP, recordings: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: asked.append(address))
    tasks = [retrieval_task(recordings, direction) for direction in DIRECTIONS]
    result = mteb.evaluate(mteb_model(door), tasks, cache=None, show_progress_bar=False)
    assert asked == []
    speech, text = model.encode_speech(list(recordings["audio"])), model.encode_text(list(recordings["text"]))
    expected = evaluate_both_directions(speech, text, list(recordings["sentence_id"]))
    assert len(result.task_results) == 2
    for found, (direction, report) in zip(result.task_results, expected.items()):
        assert found.task_name == f"Recordings-{direction}"
        (scores,) = found.scores["test"]
        assert 0.2 < report.mrr.value < 0.9  # random weights: neither all right nor all wrong
        assert scores["main_score"] == scores["ndcg_at_10"] == pytest.approx(report.ndcg_at_10.value, abs=1e-5)
        assert scores["mrr_at_1000"] == pytest.approx(report.mrr.value, abs=1e-5)
        assert scores["map_at_1000"] == pytest.approx(report.map.value, abs=1e-5)  # type: ignore[union-attr]
        for k in (1, 5, 10):
            assert scores[f"hit_rate_at_{k}"] == pytest.approx(getattr(report, f"hits_at_{k}").value, abs=1e-5)


def test_a_task_asks_for_each_sentence_once_and_decodes_no_clip_before_its_turn(mteb: Any, recordings: Dataset) -> None:
    broken = recordings.map(lambda row: {"audio": {"bytes": b"RIFF", "path": "broken.wav"}})
    there = retrieval_task(broken, "text_to_speech").dataset["default"]["test"]
    assert (len(there["queries"]), len(there["corpus"])) == (6, 11)
    assert sorted(map(len, there["relevant_docs"].values())) == [1, 1, 1, 2, 3, 3]
    assert list(there["corpus"]["id"]) == list(recordings["id"])
    with pytest.raises(AudioError, match=r"broken\.wav"):
        np.asarray(there["corpus"][0]["audio"]["array"])
    back = retrieval_task(recordings, "speech_to_text").dataset["default"]["test"]
    assert (len(back["queries"]), len(back["corpus"])) == (11, 6)
    assert all(len(answers) == 1 for answers in back["relevant_docs"].values())
    decoded = back["queries"][9]["audio"]  # stored at 8 000 Hz
    assert decoded["sampling_rate"] == 16_000
    samples = np.asarray(decoded["array"])
    assert samples.dtype == np.float32 and len(samples) == pytest.approx(16_000 * recordings[9]["duration"], abs=2)


def test_results_name_the_model_and_what_it_takes(mteb: Any, model: CLASP) -> None:
    known = mteb_model(as_sentence_transformer(model), "somebody/their-clasp").mteb_model_meta
    assert (known.name, known.revision, known.modalities) == (
        "somebody/their-clasp",
        model.fingerprint,
        ["text", "audio"],
    )
    assert known.embed_dim == model.dimension


def test_bad_input_is_refused(mteb: Any, recordings: Dataset, door: SentenceTransformer) -> None:
    with pytest.raises(ClaspError, match=r"'sideways'.*text_to_speech, speech_to_text"):
        retrieval_task(recordings, "sideways")
    with pytest.raises(ClaspError, match="0 clips"):
        retrieval_task(recordings.select([]))
    with pytest.raises(ClaspError, match="2 clips and 1 ids"):
        retrieval_task(recordings.select([3, 3]))
    other = SentenceTransformer(modules=[Router({"text": [door[0].sub_modules["text"][0]]}, allow_empty_key=False)])
    with pytest.raises(ClaspError, match="is a Router; give a CLASP model"):
        mteb_model(other)


def test_without_mteb_its_extra_is_named(recordings: Dataset, model: CLASP, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.split(".")[0] == "mteb":
            raise ImportError("No module named 'mteb'")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    for call in (lambda: retrieval_task(recordings), lambda: mteb_model(as_sentence_transformer(model))):
        with pytest.raises(MissingDependencyError, match=r"pip install 'clasp-lib\[mteb\]'"):
            call()
