"""The ablation runner: strict specifications, runs that are found again, one table whatever the number of workers."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Tiny

from clasp_lib import profiles
from clasp_lib.ablation import Cell, Question, System, cells, read_ablation, recompute, run_ablation, to_frame
from clasp_lib.ablation.__main__ import main
from clasp_lib.ablation.data import Data, disturbed_features, read_features
from clasp_lib.ablation.record import verdict
from clasp_lib.ablation.runs import Job, read_result, train_cell
from clasp_lib.corpus import pocket_brown
from clasp_lib.encoders.checkpoints import pocket_folder
from clasp_lib.errors import CheckpointError, ClaspError
from clasp_lib.features import extract_features
from clasp_lib.fusion import FUSIONS
from clasp_lib.losses import LOSSES
from clasp_lib.metrics import Interval
from clasp_lib.pooling import POOLINGS
from clasp_lib.profiles import Profile
from clasp_lib.significance import Estimate, PairedComparison, holm
from clasp_lib.synthesis import ESpeak
from clasp_lib.training import TrainingSettings

DEFAULT = System("concatenation", "contrastive", "pocket-ctc")
SPEC = """
profile = "pocket"
seeds = 3
learning_rates = [1e-3, 5e-3]
tuning_seeds = 2

[settings]
epochs = 2
batch_size = 16
patience = 2

[[grid]]
fusions = ["concatenation", "linear"]

[[grid]]
fusions = ["speech_only"]
losses = ["huber"]
seeds = 2

[[questions]]
name = "more than one layer?"
first = { fusion = "concatenation" }
second = { fusion = "linear" }

[[questions]]
name = "something else altogether?"
first = { fusion = "speech_only", loss = "huber" }
second = {}
"""


SETTINGS = TrainingSettings(epochs=2, batch_size=16)


def written(folder: Path, text: str = SPEC) -> Path:
    file = folder / "spec.toml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def pocket(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Profile]:
    """A profile called "pocket" with tiny encoders and few sentences."""
    profile = Profile(
        name="pocket",
        speech_encoder=str(tiny.hubert),
        spectrogram_encoder=str(tiny.efficientnet),
        text_encoder=str(tiny.sentences),
        sentences=lambda: pocket_brown()[::40],  # 84 in 15 categories
        synthesizer=ESpeak,
        voices_per_sentence={"train": 2, "validation": 1, "test": 2},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLASP_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setitem(profiles.PROFILES, "pocket", lambda: profile)
        yield profile


@pytest.fixture(scope="module")
def work(pocket: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the specification above asks for, trained by one worker."""
    folder = tmp_path_factory.mktemp("ablation")
    run_ablation(read_ablation(written(folder)), folder / "work", workers=1)
    return folder / "work"


@pytest.fixture
def record(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The record of that folder; it is made without any training, since all is there."""
    monkeypatch.setattr("clasp_lib.ablation.runs.ProcessPoolExecutor", None)
    return run_ablation(read_ablation(written(tmp_path)), work)


def without_clock(record: Mapping[str, Any]) -> dict[str, Any]:
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in record["rows"]]
    return {key: record[key] for key in ("spec", "pairs", "tuning", "systems", "questions")} | {"rows": rows}


def test_a_specification_is_read(tmp_path: Path) -> None:
    found = read_ablation(written(tmp_path))
    assert found.systems == {
        DEFAULT: 3,
        DEFAULT._replace(fusion="linear"): 3,
        DEFAULT._replace(fusion="speech_only", loss="huber"): 2,
    }
    assert found.settings.epochs == 2 and found.settings.learning_rate == 1e-3
    assert found.learning_rates == (1e-3, 5e-3) and found.default == DEFAULT
    assert found.questions[1] == ("something else altogether?", System("speech_only", "huber", "pocket-ctc"), DEFAULT)


def test_a_grid_is_multiplied_out_and_the_larger_number_of_seeds_counts(tmp_path: Path) -> None:
    text = 'profile = "pocket"\nseeds = 4\n[[grid]]\nlosses = ["huber", "contrastive"]\n[[grid]]\n'
    text += 'fusions = ["gating", "concatenation"]\nspeech_encoders = ["pocket-ctc", "pocket-search"]\nseeds = 2\n'
    found = read_ablation(written(tmp_path, text))
    assert found.systems == {
        DEFAULT._replace(loss="huber"): 4,
        DEFAULT: 4,
        DEFAULT._replace(fusion="gating"): 2,
        System("gating", "contrastive", "pocket-search"): 2,
        System("concatenation", "contrastive", "pocket-search"): 2,
    }
    assert found.learning_rates == (1e-3,)


def test_cells_are_those_of_tuning_until_the_rates_are_known(tmp_path: Path) -> None:
    found = read_ablation(written(tmp_path))
    tried = cells(found)
    assert len(tried) == 3 * 2 * 2 and tried[0] == Cell(*DEFAULT, seed=0, learning_rate=1e-3)
    rates = dict.fromkeys(found.systems, 5e-3)
    final = cells(found, rates)
    assert [cell.seed for cell in final] == [0, 1, 2, 0, 1, 2, 0, 1]
    assert {cell.system for cell in final} == set(found.systems)
    assert set(final) & set(tried)  # those that tuning has trained are not trained again


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seeds = 3\n", ""), "'seeds' is missing"),
        (("seeds = 3\n", "seeds = 3\nsneeds = 4\n"), "'sneeds' is not known"),
        (("seeds = 3\n", "seeds = true\n"), "seeds is True; expected int"),
        (('"huber"]\nseeds = 2\n', '"huber"]\nseeds = 1\n'), r"\[\[grid\]\] 2: seeds is 1"),
        (('"pocket"', '"socket"'), "profile 'socket' is not known"),
        (("epochs = 2", "epochs = 2.5"), r"\[settings\]: epochs is 2.5; expected int"),
        (("epochs = 2", "epochs = 0"), r"\[settings\]: epochs is 0; give 1 or more"),
        (("epochs = 2", 'precision = "float8"'), r"\[settings\]: precision 'float8' is not known"),
        (("epochs = 2", "seed = 2"), r"\[settings\]: 'seed' is not known"),
        (("epochs = 2", "learning_rate = 0.1"), "'learning_rate' is not known"),
        (("[1e-3, 5e-3]", "[]"), "learning_rates is"),
        (("[1e-3, 5e-3]", "[1e-3, 5]"), "learning_rates is"),
        (("tuning_seeds = 2", "tuning_seeds = 0"), "tuning_seeds is 0"),
        (('["huber"]', '["huger"]'), r"spec.toml, \[\[grid\]\] 2: loss 'huger' is not known"),
        (('"linear"]', '"liner"]'), r"spec.toml, \[\[grid\]\] 1: fusion 'liner' is not known"),
        (('["huber"]', "[]"), "lists of names"),
        (('["huber"]', "[3]"), "lists of names"),
        (('losses = ["huber"]', 'loss = ["huber"]'), r"\[\[grid\]\] 2: 'loss' is not known"),
        (('fusion = "linear" }', 'fusion = "gating" }'), r"\[\[questions\]\] 1: no grid trains \('gating'"),
        (('fusion = "linear" }', 'vision = "gating" }'), "second: 'vision' is not known"),
        (('second = { fusion = "linear" }', 'second = { fusion = "concatenation" }'), "both sides are the same"),
        (('second = { fusion = "linear" }', ""), "'second' is missing"),
        (('"something else altogether?"', '"more than one layer?"'), "the same name"),
        (("[settings]", "[settings"), "cannot be read as TOML"),
        (
            ('["speech_only"]\nlosses = ["huber"]', '["attention+gating"]\nlosses = ["augmentation"]'),
            "'augmentation' compares mean vectors, and 'attention",
        ),
    ],
)
def test_a_specification_that_is_wrong_is_refused(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    assert change[0] in SPEC
    with pytest.raises(ClaspError, match=message) as refused:
        read_ablation(written(tmp_path, SPEC.replace(*change, 1)))
    assert "spec.toml" in str(refused.value)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClaspError, match=r"none\.toml: cannot be read"):
        read_ablation(tmp_path / "none.toml")


def test_the_record_holds_what_was_measured(record: dict[str, Any]) -> None:
    assert json.loads(json.dumps(record)) == record  # plain numbers
    assert "/" not in record["command"]
    frame = to_frame(record)
    assert len(frame) == 8 and frame["pairs"].eq(record["pairs"]["train"]).all()
    assert frame["validation_mrr"].between(0, 1).all() and frame["best_epoch"].isin([1, 2]).all()
    assert frame["speech_to_text_hits_at_1"].le(frame["speech_to_text_mrr"]).all()
    by_system = {(row["fusion"], row["loss"]): row for row in record["systems"]}
    means = frame.groupby(["fusion", "loss"])[["speech_to_text_mrr", "speech_to_text_hits_at_1"]].mean()
    for key, row in by_system.items():  # each sentence of the test has two clips: the mean of means is the mean
        assert row["sentences"] == record["pairs"]["test"] / 2
        assert row["mrr"]["value"] == pytest.approx(means.loc[key, "speech_to_text_mrr"])
        assert row["hits_at_1"]["value"] == pytest.approx(means.loc[key, "speech_to_text_hits_at_1"])
        assert row["mrr"]["both"][0] <= row["mrr"]["value"] <= row["mrr"]["both"][1]
    for row in record["questions"]:
        first, second = (by_system[row[side]["fusion"], row[side]["loss"]] for side in ("first", "second"))
        if row["seeds"] == 3:
            assert row["difference"]["value"] == pytest.approx(first["mrr"]["value"] - second["mrr"]["value"])
        assert row["p_value"] == max(row["p_items"], row["p_seeds"]) <= row["corrected"]
        assert row["verdict"].startswith("not shown") and "seeds are too few" in row["verdict"]
    assert [row["corrected"] for row in record["questions"]] == holm([row["p_value"] for row in record["questions"]])
    for system in {System(*list(row.values())[:3]) for row in record["rows"]}:
        rows = [row for row in record["tuning"] if System(*list(row.values())[:3]) == system]
        best = max(rows, key=lambda row: row["validation_mrr"])
        assert [row["learning_rate"] for row in rows if row["chosen"]] == [best["learning_rate"]]
        used = {row["learning_rate"] for row in record["rows"] if System(*list(row.values())[:3]) == system}
        assert used == {best["learning_rate"]}


def test_the_table_is_the_same_after_a_stop_and_with_two_workers(
    record: dict[str, Any], work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    shutil.copytree(work, tmp_path / "work")
    runs = sorted((tmp_path / "work" / "runs").iterdir())
    for file in runs[::2]:
        file.unlink()  # as if it had been killed before these
    kept = {file: file.stat().st_mtime_ns for file in runs[1::2]}
    again = run_ablation(read_ablation(written(tmp_path)), tmp_path / "work", workers=2)
    assert without_clock(again) == without_clock(record)
    assert sorted((tmp_path / "work" / "runs").iterdir()) == runs
    assert {file: file.stat().st_mtime_ns for file in kept} == kept  # found, not trained again


def test_rows_can_be_trained_again(record: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    pairs = recompute(record, 2, 0, tmp_path / "again", workers=1, only=lambda row: row["loss"] == "contrastive")
    assert len(pairs) == 2
    for recorded, found in pairs:
        assert recorded["loss"] == "contrastive"
        assert {**recorded, "seconds": 0} == {**found, "seconds": 0}
    with pytest.raises(ClaspError, match="of 8 rows of the record 2 may be drawn"):
        recompute(record, 3, 0, tmp_path / "again", only=lambda row: row["loss"] == "huber")


def test_another_seed_rate_setting_or_piece_is_another_result(tmp_path: Path) -> None:
    cell = Cell(*DEFAULT, seed=0, learning_rate=1e-3)
    job = Job(cell, SETTINGS, {"train": "a", "test": "b"}, tmp_path, tmp_path)
    others = [
        job._replace(cell=cell._replace(seed=1)),
        job._replace(cell=cell._replace(learning_rate=2e-3)),
        job._replace(cell=cell._replace(loss="huber")),
        job._replace(settings=dataclasses.replace(SETTINGS, epochs=3)),
        job._replace(pieces={"train": "a", "test": "c"}),
    ]
    assert len({one.result for one in [job, *others]}) == 6
    assert job._replace(store=tmp_path / "elsewhere").result == job.result  # where things lie is no part of them


def test_a_training_that_fails_is_named(pocket: Profile, tmp_path: Path) -> None:
    system = System("linear", "contrastive", pocket.speech_encoder)
    data = Data(pocket, tmp_path)
    settings = dataclasses.replace(SETTINGS, batch_size=1)
    job = Job(Cell(*system, 3, 1e-3), settings, data.pieces([system])[system], tmp_path, data.store)
    with pytest.raises(ClaspError, match=r"linear, contrastive, .*, seed 3, rate 0.001: .*batches of at least two"):
        train_cell(job)
    assert not job.result.exists()


@pytest.mark.slow
def test_workers_end_when_the_run_is_killed(tmp_path: Path) -> None:
    program = """if __name__ == "__main__":
    import multiprocessing, os, time
    from concurrent.futures import ProcessPoolExecutor
    from clasp_lib.ablation.runs import begin_worker
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(2, spawn, initializer=begin_worker)
    pids = {pool.submit(os.getpid).result() for _ in range(2)}
    print(*pids, flush=True)
    time.sleep(600)
"""
    file = tmp_path / "run.py"
    file.write_text(program, encoding="utf-8")
    with subprocess.Popen([sys.executable, str(file)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        workers = [int(pid) for pid in run.stdout.readline().split()]
        run.kill()
    assert workers
    deadline = time.monotonic() + 60
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in workers)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")  # ended, not yet buried


def test_a_damaged_file_is_named(work: Path, tmp_path: Path) -> None:
    file = tmp_path / "damaged.safetensors"
    file.write_bytes(next((work / "runs").iterdir()).read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=r"damaged\.safetensors: is damaged, .* Delete it"):
        read_result(file)


def test_disturbed_clips_are_others_and_repeat(pocket: Profile, tmp_path: Path) -> None:
    rows, encoders = pocket.dataset()["test"].select(range(12)), pocket.encoders()
    plain = extract_features(rows, *encoders)
    one, two, other = (disturbed_features(rows, *encoders, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.speech, two.speech)
    assert one.sentence_ids == plain.sentence_ids
    np.testing.assert_array_equal(one.text, plain.text)
    for name in ("speech", "picture"):
        assert np.abs(getattr(one, name) - getattr(plain, name)).max(1).min() > 1e-4  # every clip sounds different
        assert not np.array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize(
    ("value", "p_items", "p_seeds", "corrected", "seeds", "expected"),
    [
        (0.1, 0.001, 0.002, 0.02, 10, "gating is better than concatenation"),
        (-0.1, 0.001, 0.002, 0.02, 10, "gating is worse than concatenation"),
        (0.1, 0.001, 0.002, 0.06, 10, "differ: among 20 questions, chance alone may do as much"),
        (0.1, 0.1, 0.002, 1.0, 10, "differ: other sentences may decide otherwise"),
        (0.1, 0.001, 0.2, 1.0, 10, "differ: other seeds may decide otherwise"),
        (0.1, 0.2, 0.2, 1.0, 10, "differ: other sentences and other seeds may decide otherwise"),
        (0.1, 0.001, 0.0625, 1.0, 5, "differ: 5 seeds are too few to show anything"),
    ],
)
def test_the_verdict_says_what_the_numbers_say(
    value: float, p_items: float, p_seeds: float, corrected: float, seeds: int, expected: str
) -> None:
    interval = Interval(value, value - 1, value + 1)
    comparison = PairedComparison(Estimate(interval, interval, interval), p_items, p_seeds)
    question = Question("do gates help?", DEFAULT._replace(fusion="gating"), DEFAULT)
    assert verdict(question, comparison, corrected, seeds, 20).endswith(expected)


def test_the_command_writes_the_record_and_prints_verdicts(
    record: dict[str, Any], work: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    spec, output = str(written(tmp_path)), tmp_path / "reports" / "record.json"
    assert main([spec, "--folder", str(work), "--output", str(output)]) == 0
    assert without_clock(json.loads(output.read_text("utf-8"))) == without_clock(record)
    assert "more than one layer?: not shown that concatenation and linear differ" in capsys.readouterr().out
    for bad in (
        [str(tmp_path / "none.toml"), "--output", str(output)],
        [spec, "--output", str(output / "record.json")],
    ):
        assert main([*bad, "--folder", str(work)]) == 1
        assert "error: " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([spec, "--folder", str(work), "--output", str(output), "--workers", "0"])


def test_the_books_specification_can_answer_its_questions() -> None:
    """Each question has at least ten seeds, and the smallest p-value of so many survives Holm's correction."""
    found = read_ablation(pocket_folder("ablation.toml"))
    family = len(found.questions)
    assert len({frozenset(question[1:]) for question in found.questions}) == family
    for question in found.questions:
        seeds = min(found.systems[system] for system in question[1:])
        assert seeds >= 10 and family * 2 / 2**seeds < 0.05
    assert {system.fusion for system in found.systems if "+" not in system.fusion} == set(FUSIONS)
    # No sentence is twice in a batch, so that there is nothing to mask.
    assert {system.loss for system in found.systems} == set(LOSSES) - {"contrastive_masked"}
    assert {system.fusion.partition("+")[0] for system in found.systems if "+" in system.fusion} == set(POOLINGS)


def test_what_a_loss_and_a_fusion_ask_for_is_made(pocket: Profile, tmp_path: Path) -> None:
    encoder = pocket.speech_encoder
    systems = [
        System("concatenation", "contrastive", encoder),
        System("concatenation", "hard_negatives", encoder),
        System("linear", "contrastive_augmentation", encoder),
        System("label_attention+speech_only", "label_anchored", encoder),
    ]
    data = Data(pocket, tmp_path)
    pieces = data.pieces(systems)
    assert data.pieces(systems) == pieces
    assert list(pieces[systems[0]]) == ["train", "validation", "test"]
    n = data.pairs["train"]
    for system, names in zip(systems, ([], ["negatives"], ["other_picture", "other_speech"], []), strict=True):
        train = read_features(tmp_path, data.store, pieces[system], "train")
        assert sorted(train.columns) == names and all(len(train.columns[name]) == n for name in names)
        assert (train.frames is not None) == ("+" in system.fusion)
        job = Job(Cell(*system, 0, 1e-3), SETTINGS, pieces[system], tmp_path, data.store)
        train_cell(job)
        assert 0 < read_result(job.result).facts["validation_mrr"] <= 1
    assert read_features(tmp_path, data.store, pieces[systems[1]], "train").columns["negatives"].shape == (n, 4, 24)
    frames = read_features(tmp_path, data.store, pieces[systems[3]], "test").frames
    speech = read_features(tmp_path, data.store, pieces[systems[3]], "test").speech
    assert frames is not None
    means = torch.stack([clip.mean(0) for clip in frames]).numpy()
    np.testing.assert_allclose(means, speech, atol=1e-5)
