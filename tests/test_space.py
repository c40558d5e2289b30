"""The gap, alignment, uniformity and hubs are what their formulas say, and a picture repeats itself."""

from __future__ import annotations

import numpy as np
import pytest

from clasp_lib.errors import ClaspError
from clasp_lib.space import centred, describe_space, embed_in_plane, find_hubs, separability


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def sphere(n: int, width: int, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((n, width)))


def test_measures_are_their_formulas() -> None:
    """Pair by pair, in loops; three clips say the same sentence."""
    speech, text = sphere(12, 4, 0) + 0.3, sphere(12, 4, 1)
    ids = [0, 0, 0, *range(3, 12)]
    text[:3] = text[0]
    mixed = np.random.default_rng(2).permutation(12)
    found = describe_space(speech[mixed], text[mixed], [ids[i] for i in mixed], resamples=10)
    speech = unit(speech)
    pairs = [(i, j) for i in range(12) for j in range(12) if ids[i] != ids[j]]
    gap = np.mean([(speech - text)[i] @ (speech - text)[j] for i, j in pairs])
    middle = np.mean([(speech + text)[i] @ (speech + text)[j] / 4 for i, j in pairs])
    assert found.gap.value == pytest.approx(np.sqrt(gap))
    assert found.share.value == pytest.approx(gap / 4 / (1 - middle))
    assert found.alignment.value == pytest.approx(np.mean([(s - t) @ (s - t) for s, t in zip(speech, text)]))
    for vectors, value in ((speech, found.speech_uniformity), (text, found.text_uniformity)):
        near = [np.exp(-2 * (vectors[i] - vectors[j]) @ (vectors[i] - vectors[j])) for i, j in pairs]
        assert value.value == pytest.approx(np.log(np.mean(near)))
    assert (found.n, found.sentences) == (12, 10)


def test_two_halves_of_one_cloud_have_no_gap_however_few_they_are() -> None:
    gaps, plain = [], []
    for seed in range(40):
        speech, text = sphere(20, 50, 2 * seed), sphere(20, 50, 2 * seed + 1)
        gaps.append(describe_space(speech, text, range(20), resamples=1).gap.value ** 2)
        plain.append(np.linalg.norm(speech.mean(0) - text.mean(0)))
    assert np.mean(plain) > 0.25, "the plain distance of means is far from zero by noise alone"
    assert np.mean(gaps) < 0.02


def test_the_interval_covers_a_known_gap() -> None:
    shift = np.zeros(30)
    shift[0] = 0.4
    large = describe_space(sphere(2000, 30, 0) + shift, sphere(2000, 30, 1), range(2000), resamples=1).gap.value
    hits = 0
    for seed in range(30):
        speech, text = sphere(200, 30, 2 * seed + 2) + shift, sphere(200, 30, 2 * seed + 3)
        gap = describe_space(speech, text, range(200), resamples=200).gap
        hits += gap.low <= large <= gap.high
    assert hits >= 25


def test_two_points_are_as_far_apart_as_can_be() -> None:
    north = np.tile([[1.0, 0.0]], (5, 1))
    found = describe_space(north, -north, range(5), resamples=5)
    assert found.gap.value == pytest.approx(2) and found.share.value == pytest.approx(1)
    assert found.alignment.value == pytest.approx(4) and found.speech_uniformity.value == pytest.approx(0)


def test_a_plane_parts_what_lies_apart() -> None:
    speech, text = sphere(100, 20, 0), sphere(100, 20, 1)
    assert abs(separability(speech, text, range(100)).score.value - 0.5) < 0.12
    apart = separability(speech + np.eye(20)[0], text - np.eye(20)[0], range(100))
    assert apart.score.value > 0.99 and apart.groups == 100 and apart.chance == 0.5


def test_centring_takes_the_mean_away() -> None:
    vectors = sphere(500, 20) + 0.5
    bare = centred(vectors, unit(vectors).mean(0))
    np.testing.assert_allclose(np.linalg.norm(bare, axis=1), 1)
    assert np.linalg.norm(bare.mean(0)) < 0.1 < np.linalg.norm(unit(vectors).mean(0))


def test_a_hub_is_found_by_everybody() -> None:
    queries = sphere(50, 10) + 2 * np.eye(10)[0]
    candidates = np.concatenate([np.eye(10)[:1], -sphere(49, 10, 1) - 2 * np.eye(10)[0]])
    hubs = find_hubs(queries, candidates, k=1)
    assert hubs.occurrences[0] == 50 and hubs.occurrences.sum() == 50
    assert hubs.skewness == pytest.approx(np.mean(((hubs.occurrences - 1) / hubs.occurrences.std()) ** 3))
    assert find_hubs(queries, candidates, k=50).skewness == 0


def test_a_picture_repeats_itself_and_keeps_clusters_apart() -> None:
    vectors = np.concatenate([sphere(30, 80, 0) + 3, sphere(30, 80, 1) - 3])
    first, second = (embed_in_plane(vectors, seed=1, perplexity=10) for _ in range(2))
    assert first.shape == (60, 2) and (first == second).all()
    assert not np.allclose(first, embed_in_plane(vectors, seed=2, perplexity=10, start="random"))
    centres = first[:30].mean(0), first[30:].mean(0)
    nearer = [np.argmin([np.linalg.norm(p - c) for c in centres]) for p in first]
    assert nearer == [0] * 30 + [1] * 30


def test_bad_input_is_refused() -> None:
    good = sphere(10, 4)
    for call, message in (
        (lambda: describe_space(good, good[:9], range(10)), "pairs"),
        (lambda: describe_space(good, good, ["one"] * 10), "at least two"),
        (lambda: describe_space(np.zeros((10, 4)), good, range(10)), "zero"),
        (lambda: describe_space(good * np.nan, good, range(10)), "finite"),
        (lambda: centred(good, np.zeros(3)), "mean"),
        (lambda: find_hubs(good, good, k=11), "k: 11"),
        (lambda: find_hubs(good, good[:, :3]), "wide"),
        (lambda: embed_in_plane(good, perplexity=10), "perplexity"),
        (lambda: embed_in_plane(good * np.inf), "finite"),
        (lambda: embed_in_plane(good, perplexity=3, start="lot"), "start 'lot'"),
    ):
        with pytest.raises(ClaspError, match=message):
            call()
