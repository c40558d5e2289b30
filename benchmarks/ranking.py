"""Ranking a whole pool: `rank_queries` against a Python loop over queries, same vectors, one run."""

import time

import numpy as np

from clasp_lib.metrics import rank_queries

QUERIES, DIMENSION, LOOPED = 4_000, 384, 200


def loop(queries: np.ndarray, candidates: np.ndarray) -> list[int]:
    """The plain way: score, sort and look for one query after the other."""
    ranks = []
    for i, query in enumerate(queries):
        scores = [float(query @ candidate) for candidate in candidates]
        order = sorted(range(len(scores)), key=lambda j: -scores[j])
        ranks.append(order.index(i) + 1)
    return ranks


def main() -> None:
    """Time both, check that they agree, print the ratio."""
    rng = np.random.default_rng(0)
    candidates = rng.standard_normal((QUERIES, DIMENSION)).astype(np.float32)
    queries = candidates + 3 * rng.standard_normal((QUERIES, DIMENSION)).astype(np.float32)
    ids = range(QUERIES)
    rank_queries(queries[:64], candidates, ids[:64], ids)  # warm up
    began = time.perf_counter()
    ranking = rank_queries(queries, candidates, ids, ids)
    matrix = time.perf_counter() - began
    began = time.perf_counter()
    looped = loop(queries[:LOOPED], candidates)
    per_row = (time.perf_counter() - began) * QUERIES / LOOPED
    assert np.mean(ranking.rank[:LOOPED] == looped) > 0.99  # float32 sums differ in the last bit
    print(f"{QUERIES} x {QUERIES} x {DIMENSION}: rank_queries {matrix:.2f} s")
    print(f"a loop over queries, timed on {LOOPED} and scaled: {per_row:.1f} s")
    print(f"ratio {per_row / matrix:.0f}")


if __name__ == "__main__":
    main()
