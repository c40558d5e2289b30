"""Sentences are spoken: by a pool of processes, or in batches by an engine that is faster so."""

from __future__ import annotations

import concurrent.futures
import hashlib
import multiprocessing
import os
import pickle
import threading
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import numpy as np

from clasp_lib.audio import encode_audio
from clasp_lib.corpus import Sentence
from clasp_lib.errors import ClaspError, OnError, Skipped
from clasp_lib.synthesis import BatchSynthesizer, Synthesizer, Voice


class Job(NamedTuple):
    """One clip to be spoken."""

    sentence: Sentence
    take: int
    voice: Voice

    @property
    def id(self) -> str:
        return f"{self.sentence.id}-{self.take}"


def engine_identity(synthesizer: Synthesizer) -> str:
    """What an engine is: its weights and settings."""
    if isinstance(synthesizer, BatchSynthesizer):
        return synthesizer.digest
    return hashlib.sha256(pickle.dumps(synthesizer)).hexdigest()  # written, never read


def spoken(
    chunks: Sequence[Sequence[Job]],
    synthesizer: Synthesizer,
    audio_format: str,
    on_error: OnError,
    workers: int | None,
    batch_size: int,
) -> Generator[tuple[list[dict], list[Skipped]], None, None]:
    """The rows of each chunk, and what was left out of it, in order: from a pool of processes, or in batches here."""
    if isinstance(synthesizer, BatchSynthesizer):
        for chunk in chunks:
            yield _speak_batches(chunk, synthesizer, audio_format, on_error, workers, batch_size)
        return
    spawn = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(workers, spawn, initializer=end_with_parent)
    try:
        for task in [pool.submit(_speak_chunk, chunk, synthesizer, audio_format, on_error) for chunk in chunks]:
            yield task.result()
    finally:
        pool.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """What a process of a pool does first. Without this it waits for ever for the next job of one that was killed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _speak_batches(
    jobs: Sequence[Job],
    synthesizer: BatchSynthesizer,
    audio_format: str,
    on_error: OnError,
    workers: int | None,
    batch_size: int,
) -> tuple[list[dict], list[Skipped]]:
    """Similar lengths share a batch; threads compress one batch while the next is spoken."""
    order = sorted(range(len(jobs)), key=lambda i: len(jobs[i].sentence.text))
    rows: dict[int, concurrent.futures.Future[dict]] = {}
    skipped: dict[int, Skipped] = {}
    with concurrent.futures.ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for start in range(0, len(jobs), batch_size):
            batch = order[start : start + batch_size]
            clips = synthesizer.synthesize_batch([jobs[i].sentence.text for i in batch], [jobs[i].voice for i in batch])
            for i, clip in zip(batch, clips, strict=True):
                if not isinstance(clip, ClaspError):
                    rows[i] = pool.submit(_row, jobs[i], clip, synthesizer.sampling_rate, audio_format)
                elif on_error == "raise":
                    raise clip
                else:
                    skipped[i] = Skipped(jobs[i].id, str(clip))
        return [rows[i].result() for i in sorted(rows)], [skipped[i] for i in sorted(skipped)]


def _speak_chunk(
    jobs: Sequence[Job], synthesizer: Synthesizer, audio_format: str, on_error: OnError
) -> tuple[list[dict], list[Skipped]]:
    rows, skipped = [], []
    for job in jobs:
        try:
            samples = synthesizer.synthesize(job.sentence.text, job.voice)
        except ClaspError as error:
            if on_error == "raise":
                raise
            skipped.append(Skipped(job.id, str(error)))
            continue
        rows.append(_row(job, samples, synthesizer.sampling_rate, audio_format))
    return rows, skipped


def _row(job: Job, samples: np.ndarray, sampling_rate: int, audio_format: str) -> dict[str, Any]:
    sentence = job.sentence
    row: dict[str, Any] = {
        "id": job.id,
        "sentence_id": sentence.id,
        "text": sentence.text,
        "category": sentence.category,
    }
    row |= {"voice": job.voice.name, "duration": len(samples) / sampling_rate}
    data = encode_audio(samples, sampling_rate, audio_format)
    return row | {"audio": {"bytes": data, "path": f"{job.id}.{audio_format.lower()}"}}
