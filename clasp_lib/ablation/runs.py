"""The trainings of an ablation, in as many processes as there are CPUs; what is finished is never done again."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from clasp_lib.ablation.data import digest, read_features, read_labels
from clasp_lib.ablation.specification import Cell
from clasp_lib.corpus import SPLITS
from clasp_lib.errors import ClaspError
from clasp_lib.evaluation import first_rows
from clasp_lib.features import Features
from clasp_lib.fusion import Fusion, build_fusion
from clasp_lib.losses import build_loss
from clasp_lib.metrics import rank_queries
from clasp_lib.run_state import load_state, save_state
from clasp_lib.speaking import end_with_parent
from clasp_lib.training import TrainingSettings, fuse, train_fusion


class Job(NamedTuple):
    """A training, and where it finds what it reads (`clasp_lib.ablation.data.Data.pieces`)."""

    cell: Cell
    settings: TrainingSettings
    pieces: Mapping[str, str]
    folder: Path
    store: Path

    @property
    def result(self) -> Path:
        """The file of its result, named by all that it depends on."""
        depends_on = [self.cell, asdict(self.settings), dict(self.pieces)]
        return self.folder / "runs" / f"{digest(depends_on)}.safetensors"


class Result(NamedTuple):
    """What came of a training.

    Attributes:
        facts: `best_epoch`, `validation_mrr`, `seconds`.
        ranks: of the right answer on the test split, by direction: of each clip's text among the texts, of each text's
            clip among the clips.
        sentences: (clips,) which of the texts each clip says.
    """

    facts: dict[str, Any]
    ranks: dict[str, np.ndarray]
    sentences: np.ndarray


def run_jobs(jobs: Sequence[Job], workers: int | None = None, description: str = "ablation") -> list[Result]:
    """The results of all jobs, in their order; those that are in the folder already are only read.

    On a CPU each worker process has one thread, whatever their number, since sums that are split among threads differ
    in their last bits: results do not depend on how many workers there are.

    Args:
        workers: processes; default one for each CPU, or a single one where there is a GPU.

    Raises:
        ClaspError: a training failed; the message names it, and what was finished stays.
    """
    workers = workers or (1 if torch.cuda.is_available() else os.cpu_count() or 1)
    missing = [job for job in jobs if not job.result.is_file()]
    if not jobs:
        return []
    with tqdm(total=len(jobs), initial=len(jobs) - len(missing), desc=description, unit="run") as bar:
        if missing:
            _run(missing, min(workers, len(missing)), bar)
    return [read_result(job.result) for job in jobs]


def _run(jobs: Sequence[Job], workers: int, bar: tqdm) -> None:
    spawn = multiprocessing.get_context("spawn")  # a forked process cannot use a GPU, nor be sure of its threads
    with ProcessPoolExecutor(workers, spawn, initializer=begin_worker) as pool:
        tasks = [pool.submit(train_cell, job) for job in jobs]
        try:
            for task in as_completed(tasks):
                task.result()
                bar.update()
        except BrokenProcessPool as error:
            raise ClaspError(
                f"a worker process was ended from outside, perhaps for want of memory ({workers} were at work). "
                "Start again, with fewer workers: what is finished stays."
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def begin_worker() -> None:
    """What each worker process does first: one thread, and an end when whoever started it is killed."""
    torch.set_num_threads(1)
    end_with_parent()


def train_cell(job: Job) -> None:
    """Train one fusion, rank the test split with it, and leave the result in the folder."""
    cell, began = job.cell, time.perf_counter()
    train, validation, test = (read_features(job.folder, job.store, job.pieces, split) for split in SPLITS)
    torch.manual_seed(cell.seed)
    width = train.text.shape[1]
    fusion = build_fusion(cell.fusion, train.speech.shape[1], train.picture.shape[1], width)
    if "train labels" in job.pieces:
        fusion.pooling.set_labels(read_labels(job.folder, job.pieces))  # type: ignore[union-attr, operator]
    loss = build_loss(cell.loss, width, len(set(train.categories)))
    settings = replace(job.settings, seed=cell.seed, learning_rate=cell.learning_rate)
    try:
        history = train_fusion(fusion, loss, train, validation, settings, show_progress_bar=False)
    except ClaspError as error:
        raise ClaspError(f"{', '.join(cell.system)}, seed {cell.seed}, rate {cell.learning_rate}: {error}") from error
    ranks, sentences = _ranks(fusion, test)
    best = history.rows[history.best_epoch - 1]
    facts = {"best_epoch": history.best_epoch, "validation_mrr": best["mrr"], "seconds": time.perf_counter() - began}
    tensors = {name: torch.from_numpy(values) for name, values in {**ranks, "sentences": sentences}.items()}
    save_state(job.result, tensors, facts)


def read_result(file: Path) -> Result:
    """A result from the folder.

    Raises:
        CheckpointError: damaged.
    """
    tensors, facts = load_state(file)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    sentences = arrays.pop("sentences")
    return Result(facts, arrays, sentences)


def _ranks(fusion: Fusion, test: Features) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Ranks in both directions, as in `clasp_lib.evaluation.evaluate_both_directions`, and the texts of the clips."""
    first = first_rows(test.sentence_ids)
    ids, texts = list(first), test.text[list(first.values())]
    vectors = fuse(fusion, test)
    numbers = {sentence: number for number, sentence in enumerate(ids)}
    ranks = {
        "speech_to_text": rank_queries(vectors, texts, test.sentence_ids, ids).rank,
        "text_to_speech": rank_queries(texts, vectors, ids, test.sentence_ids).rank,
    }
    return ranks, np.array([numbers[sentence] for sentence in test.sentence_ids], np.int64)
