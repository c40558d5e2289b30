"""Many vectors that lie as those of real clips do, for measuring indexes: mixtures of clips of Pocket Brown.

The shipped models are 384 wide and the published system is 768 wide, so a clip's vector is those of two models of the
same clip, one behind the other, divided by sqrt(2); a text's is its text vector twice, likewise. The cosine of two is
then the mean of the two models' cosines. The base are the clips of the train and validation splits. A made vector is

    a x + (1 - a) y + `SPREAD` z,  scaled to length one,

x and y two clips of the base, a drawn evenly from `SHARE` to 1, z normal with the covariance of the base. Queries are
the texts and clips of the test split, whose sentences and voices are not in the base.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from clasp_lib.features import extract_features
from clasp_lib.folders import replacing
from clasp_lib.model import CLASP
from clasp_lib.profiles import Profile
from clasp_lib.training import fuse

MODELS = ("pocket-search-linear", "pocket-linear")
SHARE, SPREAD = 0.5, 0.7
BLOCK = 10_000
"""Rows that one state of the random numbers makes: any block can be made again without those before it."""


class Base(NamedTuple):
    """Unit vectors of 768 numbers: `clips` (5 342 of them) to make more from; `asked_clips` and `asked_texts` (505)."""

    clips: np.ndarray
    asked_clips: np.ndarray
    asked_texts: np.ndarray


def base_vectors(profile: Profile) -> Base:
    """Encode the clips and texts of the profile's dataset with both models; what was encoded before is read."""
    dataset = profile.dataset()
    models = [CLASP.from_pretrained(name, device="cpu") for name in MODELS]
    clips: dict[str, np.ndarray] = {}
    for split in ("train", "validation", "test"):
        parts = []
        for model in models:
            encoders = model.speech_encoder, model.spectrogram_encoder, model.text_encoder
            features = extract_features(dataset[split], *encoders, folder=profile.cache / "features", description=split)
            parts.append(fuse(model.fusion, features))
        clips[split] = _unit(np.concatenate(parts, 1))  # (n, 768)
        texts = _unit(np.concatenate([features.text] * 2, 1))  # (n, 768)
    return Base(np.concatenate([clips["train"], clips["validation"]]), clips["test"], texts)


def mixtures(base: np.ndarray, block: int, seed: int = 0, rows: int = BLOCK) -> np.ndarray:
    """The first `rows` vectors (rows, d) of a block, made of `base` (n, d)."""
    rng = np.random.default_rng([seed, block])
    x, y = rng.integers(len(base), size=(2, BLOCK))[:, :rows]
    share = rng.uniform(SHARE, 1, BLOCK)[:rows, None].astype(np.float32)
    noise = rng.standard_normal((BLOCK, base.shape[1]), dtype=np.float32)[:rows]
    return _unit(share * base[x] + (1 - share) * base[y] + SPREAD * noise @ _spread_of(base))


def write_mixtures(file: Path, base: np.ndarray, rows: int, seed: int = 0) -> np.ndarray:
    """Made vectors (rows, d) in a .npy file, mapped to memory; read if they are there."""
    if not file.is_file():
        about = {"descr": "<f4", "fortran_order": False, "shape": (rows, base.shape[1])}
        with replacing(file) as opened:
            np.lib.format.write_array_header_1_0(opened, about)
            for start in range(0, rows, BLOCK):
                opened.write(mixtures(base, start // BLOCK, seed, min(BLOCK, rows - start)).tobytes())
    return np.load(file, mmap_mode="r")


def shape_of(queries: np.ndarray, vectors: np.ndarray, k: int = 20) -> dict[str, float]:
    """How the neighbours of queries (q, d) among vectors (n, d) lie.

    Returns:
        The median cosine with the nearest and the tenth, and with all; and the intrinsic dimension from the distances
        to the `k` nearest (Levina and Bickel 2004, equation 8, averaged as MacKay and Ghahramani advise).
    """
    cosines = queries @ vectors.T  # (q, n)
    nearest = -np.sort(-cosines, axis=1)[:, :k].astype(np.float64)  # (q, k)
    distances = np.sqrt(np.maximum(2 - 2 * nearest, 1e-9))
    logs = np.log(distances[:, -1:] / distances[:, :-1])  # (q, k - 1)
    return {
        "nearest": float(np.median(nearest[:, 0])),
        "tenth": float(np.median(nearest[:, 9])),
        "any": float(np.median(cosines)),
        "dimension": float(1 / logs.mean()),
    }


def _spread_of(base: np.ndarray) -> np.ndarray:
    """A matrix (d, d) that gives normal rows the covariance of `base`."""
    values, vectors = np.linalg.eigh(np.cov(base.T, dtype=np.float64))
    return (vectors * np.sqrt(np.maximum(values, 0))).T.astype(np.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
