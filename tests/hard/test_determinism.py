"""The same inputs on the same machine give the same bits: the dataset, the features, the training and the index.

Everything is built twice, in two processes that differ in what must not matter: what was done before, the seed of
Python's hashes, the number of workers, and the folder. Then every file is compared.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Clip, Tiny

from clasp_lib import CLASP, SpeechIndex
from clasp_lib.audio import load_audio
from hard.conftest import Ended

TOLERANCE = 5e-6
"""How far apart two numbers of a vector may be that was computed in another batch or with another number of threads.

Vectors have length one. A matrix product adds up in an order that depends on its shape and on the threads that share
it, and float32 rounds each sum by up to 6e-8 of its size; through all layers that grows several times. The tiny and the
pocket encoders stay below a tenth of this on a CPU. A cosine of two such vectors keeps its first four digits.
"""

CLOCK = ("seconds", "pairs_per_second")
"""What a log says of time, which is never the same."""


POCKET = ("pocket-ctc", "pocket-efficientnet", "all-MiniLM-L6-v2")


def build(folder: Path, sentences: int, workers: int, names: Sequence[str]) -> dict[str, Any]:
    """Dataset, features by the encoders of these names, training and index, small, in `folder`.

    Returns what is compared besides the files.
    """
    from clasp_lib.encoders import SpectrogramEncoder, SpeechEncoder, TextEncoder
    from clasp_lib.encoders.checkpoints import digest_of
    from clasp_lib.features import extract_features
    from clasp_lib.fusion import build_fusion
    from clasp_lib.losses import build_loss
    from clasp_lib.profiles import get_profile
    from clasp_lib.speech_brown import build_speech_brown, load_dataset, save_dataset
    from clasp_lib.training import TrainingSettings, train_fusion

    profile = get_profile("pocket")
    corpus = profile.sentences()
    made = build_speech_brown(
        corpus[:sentences],
        profile.synthesizer(),
        voices_per_sentence=profile.voices_per_sentence,
        seed=profile.seed,
        workers=workers,
        folder=folder / "shards",
    )
    save_dataset(made.dataset, folder / "dataset")
    dataset = load_dataset(folder / "dataset")
    encoders = SpeechEncoder(names[0]), SpectrogramEncoder(names[1]), TextEncoder(names[2])
    features = {
        split: extract_features(part, *encoders, folder=folder / "features", workers=workers)
        for split, part in dataset.items()
    }
    widths = [encoder.dimension for encoder in encoders]
    torch.manual_seed(0)
    fusion, loss = build_fusion("gating", *widths), build_loss("contrastive", widths[2])
    settings = TrainingSettings(epochs=3, batch_size=8, patience=3)
    history = train_fusion(
        fusion, loss, features["train"], features["validation"], settings, "cpu", False, folder / "run"
    )
    model = CLASP(fusion, *encoders, "gating")
    model.save_pretrained(folder / "model")
    test = dataset["test"]
    index = SpeechIndex.build(model, test, folder=folder / "index", show_progress_bar=False)
    index.remove(index.entries[0].id)
    hits = index.search(test["text"][0], k=5)
    return {
        "history": [{name: value for name, value in row.items() if name not in CLOCK} for row in history.rows],
        "fusion": digest_of(fusion),
        "loss": digest_of(loss),
        "fingerprint": model.fingerprint,
        "hits": [[hit.file, hit.score] for hit in hits],
    }


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file but those of the run, which hold times of day."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    kept = [file for file in files if "run" not in file.relative_to(folder).parts and file.name != ".lock"]
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in kept}


def in_a_process(folder: Path, code: str, *arguments: object, hash_seed: int) -> Any:
    """What code prints last, as JSON."""
    tests = Path(__file__).parents[1]
    variables = {"PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}", "PYTHONHASHSEED": str(hash_seed)}
    folder.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nfrom hard.test_determinism import *\n{code}", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("sentences", [12, pytest.param(160, marks=pytest.mark.slow)])
def test_everything_built_twice_is_the_same_bit_by_bit(
    sentences: int, tiny: Tiny, tmp_path: Path, ended: Ended
) -> None:
    """With tiny encoders, and in the long run with those of the pocket profile."""
    names = [str(tiny.hubert), str(tiny.efficientnet), str(tiny.sentences)] if sentences == 12 else POCKET
    folders = [tmp_path / "one" / "here", tmp_path / "two"]
    folders[0].mkdir(parents=True)
    told = build(folders[0], sentences, 1, names)
    code = "print(json.dumps(build(Path(sys.argv[1]), int(sys.argv[2]), 2, sys.argv[3:])))"
    assert in_a_process(folders[1], code, folders[1], sentences, *names, hash_seed=7) == json.loads(json.dumps(told))
    files = [digests(folder) for folder in folders]
    kinds = {name.split("/")[0] for name in files[0]}
    assert kinds == {"shards", "dataset", "features", "model", "index"}
    assert list(files[0]) == list(files[1])
    different = [name for name, digest in files[0].items() if files[1][name] != digest]
    assert not different, different
    ended("determinism", "files of two builds", "unharmed", len(files[0]))


@pytest.mark.slow
def test_the_pocket_dataset_is_the_same_bit_by_bit(tmp_path: Path, ended: Ended) -> None:
    """All of it: some thousand clips, from two processes and from one."""
    code = """
from clasp_lib.profiles import get_profile
from clasp_lib.speech_brown import build_speech_brown, save_dataset
if __name__ == "__main__":
    profile = get_profile("pocket")
    made = build_speech_brown(profile.sentences(), profile.synthesizer(), seed=profile.seed, workers=int(sys.argv[2]),
                              voices_per_sentence=profile.voices_per_sentence)
    save_dataset(made.dataset, Path(sys.argv[1]) / "dataset")
    print(json.dumps(digests(Path(sys.argv[1]))))
"""
    built = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        built.append(in_a_process(folder, code, folder, workers, hash_seed=workers))
    assert built[0] == built[1] and any(name.endswith(".arrow") for name in built[0])
    ended("determinism", "files of the pocket dataset", "unharmed", len(built[0]))


# Across batch sizes and threads ------------------------------------------------------------------------------------


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["tiny", pytest.param("pocket", marks=pytest.mark.slow)])
def test_vectors_are_within_the_tolerance_across_batch_sizes_and_threads(
    name: str, model: CLASP, clips: list[Clip], threads: None, ended: Ended
) -> None:
    loaded = model if name == "tiny" else CLASP.from_pretrained(name, device="cpu")
    clips = clips[::2] if name == "tiny" else clips
    texts, sounds = [clip.text for clip in clips], [clip.samples for clip in clips]
    torch.set_num_threads(1)
    speech, text = loaded.encode_speech(sounds, batch_size=1), loaded.encode_text(texts, batch_size=1)
    np.testing.assert_array_equal(loaded.encode_speech(sounds, batch_size=1), speech)
    for count, size in ((1, 2), (1, 16), (2, 16)):
        torch.set_num_threads(count)
        name = f"{count} threads, batches of {size}"
        heard, read = loaded.encode_speech(sounds, batch_size=size), loaded.encode_text(texts, batch_size=size)
        np.testing.assert_allclose(heard, speech, rtol=0, atol=TOLERANCE, err_msg=name)
        np.testing.assert_allclose(read, text, rtol=0, atol=TOLERANCE, err_msg=name)
        np.testing.assert_allclose(read @ heard.T, text @ speech.T, rtol=0, atol=5 * TOLERANCE, err_msg=name)
        ended("determinism", name, "unharmed")


def test_a_search_gives_the_same_bits_across_queries_at_once_and_threads(threads: None, ended: Ended) -> None:
    from clasp_lib.index.nearest import Exact

    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((5_000, 96)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[:40] + 0
    torch.set_num_threads(1)
    scores, rows = Exact(vectors, "cpu").search(queries, 7)
    for count in (1, 2, 4):
        torch.set_num_threads(count)
        for size in (1, 7, 40):
            parts = [Exact(vectors, "cpu").search(queries[i : i + size], 7) for i in range(0, 40, size)]
            np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), scores)
            np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), rows)
            ended("determinism", f"search, {count} threads, {size} queries", "unharmed")


def test_decoding_does_not_depend_on_threads(clips: list[Clip], ended: Ended) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from clasp_lib.audio import encode_audio

    files = [encode_audio(clip.samples, 16_000, format) for clip in clips for format in ("OGG", "MP3", "FLAC")]
    alone = [load_audio({"bytes": data}, 22_050) for data in files]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(alone, pool.map(lambda data: load_audio({"bytes": data}, 22_050), files), strict=True):
            np.testing.assert_array_equal(one, other)
    ended("determinism", "decoding in threads", "unharmed", len(files))
