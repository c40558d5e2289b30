"""The command line trains what the functions train, alone and under torchrun."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from conftest import Clip, Tiny

from clasp_lib import CLASP, profiles
from clasp_lib.cli import main
from clasp_lib.cli.train import EXAMPLES, _meanings
from clasp_lib.corpus import pocket_brown
from clasp_lib.profiles import Profile
from clasp_lib.synthesis import ESpeak
from clasp_lib.training import TrainingSettings


@pytest.fixture(scope="module", autouse=True)
def small(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Profile]:
    """Instead of pocket, a profile with tiny encoders and few sentences."""
    profile = Profile(
        name="small",
        speech_encoder=str(tiny.hubert),
        spectrogram_encoder=str(tiny.efficientnet),
        text_encoder=str(tiny.sentences),
        sentences=lambda: pocket_brown()[::40],
        synthesizer=ESpeak,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLASP_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setitem(profiles.PROFILES, "pocket", lambda: profile)
        yield profile


@pytest.mark.parametrize(
    ("fusion", "loss"),
    [("gating", "contrastive"), ("linear", "hard_negatives"), ("label_attention+speech_only", "huber")],
)
def test_a_model_is_trained_and_saved(
    fusion: str, loss: str, tmp_path: Path, clips: list[Clip], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--fusion", fusion, "--loss", loss, "--epochs", "3", "--batch-size", "20", "--precision", "bfloat16"]
    assert main(["train", str(tmp_path), *options]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text("utf-8").splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    best = max(rows, key=lambda row: row["mrr"])
    assert f"validation MRR {best['mrr']:.3f}, epoch {best['epoch']}" in capsys.readouterr().out
    model = CLASP.from_pretrained(tmp_path)
    assert model.fusion_name == fusion
    vectors = model.encode_speech([clip.samples for clip in clips])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_started_again_it_is_finished_and_other_settings_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["train", str(tmp_path), "--fusion", "linear", "--epochs", "2"]
    assert main(options) == 0
    first, log = capsys.readouterr().out, (tmp_path / "run" / "log.jsonl").read_bytes()
    assert main(options) == 0
    assert capsys.readouterr().out == first
    assert main([*options, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["folder", "best_epoch", "validation_mrr", "epochs"]
    assert f"validation MRR {document['validation_mrr']:.3f}, epoch {document['best_epoch']}" in first
    assert [row["epoch"] for row in document["epochs"]] == [1, 2]
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == log
    assert main([*options, "--learning-rate", "0.5"]) == 1
    assert "error: " in (message := capsys.readouterr().err) and "learning_rate 0.001, not 0.5" in message


def test_what_does_not_go_together_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(Profile, "dataset")
    assert main(["train", str(tmp_path), "--fusion", "attention+linear", "--loss", "augmentation"]) == 1
    assert "'augmentation' compares mean vectors, and 'attention+linear' takes frames" in capsys.readouterr().err


def test_names_that_are_not_known_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(tmp_path / "a"), "--fusion", "glue"]) == 1
    assert "fusion 'glue' is not known" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    with pytest.raises(SystemExit):
        main(["train", str(tmp_path), "--loss", "regret"])
    with pytest.raises(SystemExit):
        main([])


def test_what_cannot_be_done_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(tmp_path / "a"), "--epochs", "0"]) == 1
    assert capsys.readouterr().err == "error: epochs is 0; give 1 or more.\n"
    (tmp_path / "file").write_text("in the way")
    assert main(["train", str(tmp_path / "file"), "--fusion", "linear", "--epochs", "1"]) == 1
    assert "file/run: cannot be written" in capsys.readouterr().err.splitlines()[-1]


def test_every_setting_is_explained() -> None:
    assert set(_meanings()) >= {field.name for field in fields(TrainingSettings)}
    assert _meanings()["patience"] == "epochs without a better validation MRR after which training stops"


def test_the_first_example_of_the_help_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program, *line = shlex.split(EXAMPLES[0])
    assert program == "clasp" and main([*line, "--epochs", "1"]) == 0
    assert CLASP.from_pretrained("my_model").fusion_name == "gating"


@pytest.mark.slow
def test_two_processes_of_torchrun_train_as_one(tmp_path: Path) -> None:
    environment = os.environ | {"CLASP_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = ["-m", "clasp_lib", "train"]
    options = ["--profile", "paper-tiny", "--fusion", "linear", "--epochs", "2", "--batch-size", "8"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for launcher, folder in (([], "one"), (torchrun, "two")):
        line = [sys.executable, *launcher, *command, str(tmp_path / folder), *options]
        ended = subprocess.run(line, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        assert ended.stdout.count("validation MRR") == 1, "the first process speaks for all"
    one, two = (
        [json.loads(line) for line in (tmp_path / folder / "run" / "log.jsonl").read_text("utf-8").splitlines()]
        for folder in ("one", "two")
    )
    assert len(one) == len(two) == 2
    for row, other in zip(one, two, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-4)
    assert CLASP.from_pretrained(tmp_path / "two").fusion_name == "linear"
