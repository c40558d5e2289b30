"""How speech and text lie in their common space: the gap between the two, how close pairs are, and who are hubs.

Vectors are of length one. Intervals are percentiles of a bootstrap over sentences.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from clasp_lib.arrays import number_array
from clasp_lib.errors import ClaspError
from clasp_lib.probes import Probe, probe
from clasp_lib.significance import Interval
from clasp_lib.significance.resampling import number_groups


@dataclass(frozen=True)
class Space:
    """Where two modalities lie, each number with its 95% interval.

    Attributes:
        gap: the distance of the two mean vectors (Liang et al. 2022). 0 where there is no gap; unlike the plain
            distance of two means, it does not grow with the noise of a small sample.
        share: the part of the variance of all vectors that the gap explains, 0 to 1.
        alignment: mean squared distance of a pair (Wang and Isola 2020, with their alpha of 2). Small is close.
        speech_uniformity, text_uniformity: log of the mean of exp(-2 squared distance) over pairs of different
            sentences of one modality (the same, t = 2). Low is spread out: random points of a sphere of many dimensions
            have nearly -4.
        n: pairs. sentences: different texts among them.
    """

    gap: Interval
    share: Interval
    alignment: Interval
    speech_uniformity: Interval
    text_uniformity: Interval
    n: int
    sentences: int

    def intervals(self) -> dict[str, Interval]:
        """The five measures by name."""
        found = {field.name.replace("_", " "): getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Interval)}


def describe_space(
    speech: np.ndarray, text: np.ndarray, ids: Sequence[Hashable], resamples: int = 1_000, seed: int = 0
) -> Space:
    """Measure a space by pairs of speech and text; see `Space`.

    The squared length of a mean of n vectors is estimated by the mean of their dot products over all pairs of
    *different* sentences: a vector's product with itself, or with the same text again, is not evidence of a gap.

    Args:
        speech, text: (n, d), row by row a pair; normalised here. ids: the sentence of each row. The distances of all
            rows are held at once: 100 MB for 3 500 of them.

    Raises:
        ClaspError: shapes that do not fit, values that are not finite, zero vectors, or fewer than two sentences.
    """
    speech, text = _unit("speech", speech), _unit("text", text)
    if speech.shape != text.shape or len(ids) != len(speech):
        raise ClaspError(f"speech {speech.shape}, text {text.shape}, {len(ids)} ids: give pairs, one id for each.")
    codes = number_groups(ids, len(ids))
    order = np.argsort(codes, kind="stable")
    speech, text = speech[order], text[order]
    _, starts, sizes = np.unique(codes[order], return_index=True, return_counts=True)  # (sentences,) each
    n = len(sizes)
    if n < 2:
        raise ClaspError("ids: all of one sentence; a space needs at least two.")
    rng = np.random.default_rng(seed)
    counts = np.concatenate([np.ones((1, n)), rng.multinomial(n, np.full(n, 1 / n), size=resamples)])
    counts = counts[(counts > 0).sum(1) > 1]  # a sample of one sentence only has no pairs; the first row is the data
    pairs = (counts @ sizes) ** 2 - counts**2 @ sizes**2  # of different sentences

    def squared_mean(vectors: np.ndarray) -> np.ndarray:
        sums = np.add.reduceat(vectors, starts)  # (sentences, d)
        return (((counts @ sums) ** 2).sum(1) - counts**2 @ (sums**2).sum(1)) / pairs

    def uniformity(vectors: np.ndarray) -> np.ndarray:
        near = np.exp(4 * (vectors @ vectors.T - 1))  # (rows, rows): |a - b|^2 = 2 - 2ab
        near = np.add.reduceat(np.add.reduceat(near, starts), starts, axis=1)  # (sentences, sentences)
        np.fill_diagonal(near, 0)
        return np.log(((counts @ near) * counts).sum(1) / pairs)

    gap = np.maximum(squared_mean(speech - text), 0)  # (1 + resamples,)
    apart = ((speech - text) ** 2).sum(1)  # (rows,)
    drawn = {
        "gap": np.sqrt(gap),
        "share": np.clip(gap / 4 / (1 - squared_mean((speech + text) / 2)), 0, 1),
        "alignment": counts @ np.add.reduceat(apart, starts) / (counts @ sizes),
        "speech_uniformity": uniformity(speech),
        "text_uniformity": uniformity(text),
    }
    found = {name: Interval(*map(float, (v[0], *np.percentile(v[1:], [2.5, 97.5])))) for name, v in drawn.items()}
    return Space(**found, n=len(speech), sentences=n)


def separability(speech: np.ndarray, text: np.ndarray, ids: Sequence[Hashable], seed: int = 0, folds: int = 5) -> Probe:
    """How often `probe` tells speech from text: about 0.5 if the two lie alike, 1 if a plane parts them."""
    both = np.concatenate([_unit("speech", speech), _unit("text", text)])
    labels = ["speech"] * len(speech) + ["text"] * len(text)
    return probe(both, labels, [*ids, *ids], seed, folds)


def centred(vectors: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Unit vectors (n, d) without `mean` (d,), brought back to length one.

    Take the mean of each modality from other data than are measured: it is a setting like any other.
    """
    vectors, mean = _unit("vectors", vectors), number_array("mean", mean, "(d,)")
    if vectors.shape[1:] != mean.shape:
        raise ClaspError(f"mean: has shape {mean.shape}, the vectors {vectors.shape}.")
    return _unit("vectors", vectors - mean)


class Hubs(NamedTuple):
    """How often each candidate is among the nearest `k` of a query, (candidates,), and how uneven that is.

    `skewness` is the third standardised moment (Radovanović et al. 2010, section 2): about 0 if all are found about as
    often, several if a few hubs are near everything.
    """

    occurrences: np.ndarray
    skewness: float
    k: int


def find_hubs(query_vectors: np.ndarray, candidate_vectors: np.ndarray, k: int = 10) -> Hubs:
    """Count whom the queries (queries, d) find among the candidates (candidates, d), by cosine.

    Raises:
        ClaspError: shapes that do not fit, values that are not finite, zero vectors, or fewer candidates than `k`.
    """
    queries, candidates = _unit("query_vectors", query_vectors), _unit("candidate_vectors", candidate_vectors)
    if queries.shape[1] != candidates.shape[1]:
        raise ClaspError(f"queries are {queries.shape[1]} wide, candidates {candidates.shape[1]}.")
    if not 1 <= k <= len(candidates):
        raise ClaspError(f"k: {k}; give 1 to {len(candidates)}, the number of candidates.")
    counts = np.zeros(len(candidates), int)
    for start in range(0, len(queries), 1024):
        scores = queries[start : start + 1024] @ candidates.T  # (chunk, candidates)
        nearest = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        counts += np.bincount(nearest.reshape(-1), minlength=len(candidates))
    spread = counts.std()
    skewness = float((((counts - counts.mean()) / spread) ** 3).mean()) if spread > 0 else 0.0
    return Hubs(counts, skewness, k)


def embed_in_plane(
    vectors: np.ndarray, seed: int = 0, perplexity: float = 30.0, start: str = "pca", components: int = 50
) -> np.ndarray:
    """A picture of vectors (n, d): at most `components` principal components, then t-SNE by scikit-learn, (n, 2).

    t-SNE is that of van der Maaten and Hinton 2008. It goes on from where it begins: from the first two components
    ("pca"), which keeps the coarse arrangement and makes the seed matter little, or from places by lot ("random").

    Raises:
        ClaspError: vectors that are not finite, another start, or a perplexity that is not below their number.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    vectors = number_array("vectors", vectors, "(n, d)", np.float32)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise ClaspError(f"vectors: have shape {vectors.shape}; give finite numbers, shape (n, d).")
    if not 0 < perplexity < len(vectors):
        raise ClaspError(f"perplexity: {perplexity}; it must be above 0 and below the {len(vectors)} vectors.")
    if start not in ("pca", "random"):
        raise ClaspError(f"start {start!r} is not known. Choose from pca, random.")
    components = min(components, *vectors.shape)
    reduced = PCA(components, random_state=seed).fit_transform(vectors)  # (n, components)
    return TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(reduced)


def _unit(name: str, vectors: np.ndarray) -> np.ndarray:
    vectors = number_array(name, vectors, "(n, d)")
    if vectors.ndim != 2 or len(vectors) == 0 or not np.isfinite(vectors).all():
        raise ClaspError(f"{name}: have shape {vectors.shape}; give finite numbers, shape (n, d), at least one row.")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if (lengths == 0).any():
        raise ClaspError(f"{name}: row {int((lengths == 0).argmax())} is zero and has no direction.")
    return vectors / lengths
