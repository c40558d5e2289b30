"""The rows that are probably nearest, found without looking at all of them: faiss' graphs and inverted files.

Both kinds hold the vectors in a coarser form and find candidates with it. The candidates are then scored with the true
vectors (`Exact.rescored`), so that scores are exact and only rows can be missed. How many are missed is measured after
building, and the effort of a search is raised until so few are missed as was asked.

Queries matter. A text lies far from all clips, and its nearest clips lie far from each other: at the effort that finds
95% of the nearest clips of a clip, a graph misses some three times as many of those of a text (chapter "Indexes" of the
book). So pass texts as `queries` where texts will be searched for. Without, queries are made that lie as far out.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clasp_lib.errors import ClaspError, DatasetError
from clasp_lib.folders import write_whole
from clasp_lib.index.faiss_kinds import ADDED, FEWEST, KINDS, add_rows, choose_kind, import_faiss, new_index
from clasp_lib.index.nearest import Exact, check_search, checked_arrays

MEASURED_AT = 10
"""Recall is measured for so many nearest rows."""

FAR = 0.2
"""Cosine of a made query with the vector that it was made of."""

FILTERED_EXACTLY = (20_000, 0.05)
"""Where a filter leaves fewer rows than this, or a smaller share of them, all that are left are compared."""

_FORMAT = 2
_SAMPLE, _LEAST_SAMPLE = 400, 50  # queries on which recall is measured
_MOST_EFFORT = 2**14
_DEPTHS = (40, 80, 160, 320, 640, 1280, 2560, 5120)  # candidates of clusters that are scored exactly, for ten


@dataclass(frozen=True)
class Recall:
    """The share of the nearest `MEASURED_AT` rows that was found, with its 95% interval for other queries.

    Attributes:
        goal: what was asked for; reached if the interval's lower end is not below it.
        queries: how many were asked. made: whether they were made from the rows, as none were given.
        rows: among how many. Rows that were added later are not in it.
    """

    value: float
    low: float
    high: float
    goal: float
    queries: int
    made: bool
    rows: int

    @property
    def reached(self) -> bool:
        """Whether other queries can be expected to find as much as was asked."""
        return self.low >= self.goal

    def __str__(self) -> str:
        kind = "made from the rows" if self.made else "given"
        return (
            f"recall@{MEASURED_AT} {self.value:.3f} [{self.low:.3f}, {self.high:.3f}], goal {self.goal}, "
            f"{self.queries} queries ({kind}), {self.rows} rows"
        )


class Approximate:
    """Nearest rows by a faiss index; make one with `build` or `load`.

    Attributes:
        kind: of `KINDS`. name: for people.
        effort: of a search for ten rows: candidates that a graph keeps in view (efSearch), or clusters that are read
            (nprobe). depth: candidates that are scored exactly.
        recall: as measured at that effort. added: rows that came after the index was built or saved.
    """

    def __init__(self, index: Any, exact: Exact, kind: str, effort: int, depth: int, recall: Recall | None) -> None:
        self.index, self.exact, self.kind, self.name = index, exact, kind, KINDS[kind]
        self.effort, self.depth, self.recall = effort, depth, recall
        self.added = 0

    def __len__(self) -> int:
        return len(self.exact)

    @classmethod
    def build(
        cls,
        vectors: np.ndarray | Sequence[np.ndarray],
        kind: str = "auto",
        recall: float = 0.95,
        queries: np.ndarray | None = None,
        seed: int = 0,
    ) -> Approximate:
        """Build an index and find the effort at which it reaches a recall; warns if none does.

        "auto" builds the graph for up to `HNSW_UP_TO` rows, else the clusters. Those are built in less time, take an
        eighth of the memory, and find text queries faster in large collections, where the graph has to keep thousands
        of nodes in view. What speaks for the graph is that it reads few true vectors: take it if they lie on a slow
        disk. Equal with equal rows and seed; the graph only with one thread (`faiss.omp_set_num_threads(1)`), since
        threads compete for its links.

        Args:
            vectors: as for `Exact`; they are kept, not copied, and may be mapped to memory.
            recall: goal for the lower end of the 95% interval of recall@10.
            queries: (q, d) unit vectors like those that will be searched for, none of which is in `vectors`; at least
                50, of which at most 400 are drawn. Else queries are made: a row and noise, at a cosine of `FAR`.

        Raises:
            ClaspError: no rows, vectors or queries that do not fit, an unknown kind, or too few rows for it.
            MissingDependencyError: faiss is not installed.
        """
        exact = Exact(vectors, "cpu")
        if not len(exact):
            raise ClaspError("vectors: there are none to build an index of.")
        if kind == "auto":
            kind = choose_kind(len(exact))
        if kind not in KINDS:
            raise ClaspError(f"kind {kind!r}: choose one of auto, {', '.join(KINDS)}.")
        if kind == "ivfpq" and len(exact) < FEWEST:
            raise ClaspError(f"kind 'ivfpq': needs at least {FEWEST} rows, and there are {len(exact)}. Take 'hnsw'.")
        _check_goal(recall, queries, exact.dimension)
        index = new_index(kind, exact, np.random.default_rng(seed))
        for array in checked_arrays(vectors):
            add_rows(index, array)
        built = cls(index, exact, kind, 1, _DEPTHS[0], None)
        built.tune(recall, queries, seed)
        return built

    def tune(self, recall: float = 0.95, queries: np.ndarray | None = None, seed: int = 0) -> Recall:
        """Find the least effort that reaches a recall, take it from now on, and return what was measured there.

        Raises:
            ClaspError: queries that do not fit.
        """
        _check_goal(recall, queries, self.exact.dimension)
        rng = np.random.default_rng(seed)
        made = queries is None or len(queries) < _LEAST_SAMPLE
        asked = self._made_queries(rng) if made or queries is None else queries
        if len(asked) > _SAMPLE:
            asked = asked[rng.choice(len(asked), _SAMPLE, replace=False)]
        k = min(MEASURED_AT, len(self))
        asked = np.ascontiguousarray(asked)
        truth = self.exact.search(asked, k)[1]  # (q, k)
        best: tuple[float, int, int, Recall] | None = None
        for effort in self._efforts():
            candidates = self._candidates(asked, effort, max(self._depths()), None)  # (q, depth), nearest first
            there = candidates[:, :, None] == truth[:, None, :]  # (q, depth, k)
            places = np.where(there.any(1), there.argmax(1), len(self))  # (q, k): a true row among the candidates
            for depth in self._depths():  # exact scores put every true row first that is among the candidates
                measured = _measured((places < depth).mean(1), recall, made, len(self))
                cost = self._cost(effort, depth)
                if measured.reached:
                    if best is None or not best[3].reached or cost < best[0]:
                        best = cost, effort, depth, measured
                    break  # more depth costs more
                if best is None or (not best[3].reached and measured.value > best[3].value):
                    best = cost, effort, depth, measured
            if best is not None and best[3].reached and self._cost(effort, 0) >= best[0]:
                break  # whatever follows costs more
        assert best is not None
        _, self.effort, self.depth, self.recall = best
        if not self.recall.reached:
            warnings.warn(f"{self.name}: the goal is not reached, {self.recall}.", stacklevel=2)
        return self.recall

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `clasp_lib.index.nearest.Nearest.search`; rows may be missed, as `recall` says.

        The effort grows with the square root of `k` beyond ten, and as that of the share that a filter leaves shrinks;
        and clusters are read until they hold ten times `k` rows, about. All rows are compared where that costs no more:
        if `k` is a twentieth of them, if a filter leaves as few as `FILTERED_EXACTLY` says, and for queries that find
        fewer than `k` rows though there are more.
        """
        check_search(queries, k, allowed, len(self), self.exact.dimension)
        n = len(self) if allowed is None else int(np.count_nonzero(allowed))
        few, small_share = FILTERED_EXACTLY
        filtered = allowed is not None and n < max(few, small_share * len(self))
        if not len(queries) or filtered or 20 * k >= n:
            return self.exact.search(queries, k, allowed)
        larger = max(1.0, k / MEASURED_AT)
        least = k if self.kind == "hnsw" else 10 * k * int(self.index.nlist) / n  # clusters with ten times `k` rows
        effort = min(int(np.ceil(max(self.effort * (larger * len(self) / n) ** 0.5, least))), self._limit())
        rows = self._candidates(queries, effort, int(np.ceil(self.depth * larger)), allowed)  # (q, depth)
        scores, rows = self.exact.rescored(queries, rows, k)
        short = np.flatnonzero(rows[:, -1] < 0)
        if len(short):
            scores[short], rows[short] = self.exact.search(np.ascontiguousarray(queries[short]), k, allowed)
        return scores, rows

    def add(self, vectors: np.ndarray) -> None:
        """Put further rows (m, d) behind those that are there. `recall` stays as it was measured; `tune` measures anew.

        Raises:
            ClaspError: they do not fit.
        """
        exact = Exact([*self.exact.arrays, vectors], "cpu")
        add_rows(self.index, vectors)
        self.exact = exact
        self.added += len(vectors)

    def save(self, file: str | Path, digest: str = "") -> None:
        """Write the index, and beside it a small JSON file with its checksum and what it was built of.

        Args:
            digest: what the caller calls the vectors, asked for again by `load`.
        """
        import faiss

        file = Path(file)
        unfinished = file.with_name(f"{file.name}.{os.getpid()}.tmp")
        try:
            faiss.write_index(self.index, str(unfinished))
            about = {
                "format": _FORMAT,
                "sha256": _sha256(unfinished),
                "kind": self.kind,
                "rows": len(self),
                "dimension": self.exact.dimension,
                "digest": digest,
                "sample": _sample_digest(self.exact, len(self)),
                "effort": self.effort,
                "depth": self.depth,
                "recall": None if self.recall is None else asdict(self.recall),
            }
            os.replace(unfinished, file)
            about["note_sha256"] = _note_sha256(about)
            write_whole(_beside(file), (json.dumps(about, indent=1) + "\n").encode())
            self.added = 0
        finally:
            unfinished.unlink(missing_ok=True)

    @classmethod
    def load(cls, file: str | Path, vectors: np.ndarray | Sequence[np.ndarray], digest: str = "") -> Approximate:
        """Open a saved index; `vectors` are those that it was built of, and any that came behind them, which are added.

        Raises:
            DatasetError: missing, damaged, or of other vectors. Build it again.
            MissingDependencyError: faiss is not installed.
        """
        faiss, file, exact = import_faiss(), Path(file), Exact(vectors, "cpu")
        try:
            about = json.loads(_beside(file).read_text("utf-8"))
            version = about["format"]
            settings = str(about["kind"]), max(1, int(about["effort"])), max(MEASURED_AT, int(about["depth"]))
            recall = None if about["recall"] is None else Recall(**about["recall"])
            if recall is not None and not all(isinstance(value, int | float) for value in asdict(recall).values()):
                raise TypeError("its recall is not made of numbers")
            same = {name: about[name] for name in ("sha256", "digest", "dimension", "sample")}
            same["rows"] = int(about["rows"])
            found_sha256, whole = _sha256(file), about.pop("note_sha256", None) == _note_sha256(about)
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise DatasetError(f"{file}: cannot be opened ({error}). Build the index again.") from error
        if version != _FORMAT or settings[0] not in KINDS:
            raise DatasetError(f"{_beside(file)}: is of another version ({version}). Build the index again.")
        if found_sha256 != same["sha256"] or not whole:
            raise DatasetError(f"{file}: is damaged (its checksum is another). Build the index again.")
        rows = same["rows"]
        here = {"digest": digest, "rows": min(rows, len(exact)), "dimension": exact.dimension}
        here["sample"] = _sample_digest(exact, here["rows"])
        if other := [name for name, value in here.items() if value != same[name]]:
            raise DatasetError(f"{file}: was built of other vectors ({', '.join(other)}). Build the index again.")
        try:  # after the checksum: faiss trusts what it reads
            index = faiss.read_index(str(file))
        except RuntimeError as error:
            raise DatasetError(f"{file}: cannot be read ({error}). Build the index again.") from error
        if (index.ntotal, index.d, hasattr(index, "hnsw")) != (rows, exact.dimension, settings[0] == "hnsw"):
            raise DatasetError(f"{file}: is not what {_beside(file).name} says of it. Build the index again.")
        loaded = cls(index, exact, *settings, recall)
        loaded.added = len(exact) - rows
        for start in range(rows, len(exact), ADDED):
            index.add(exact.take(np.arange(start, min(start + ADDED, len(exact)))))
        return loaded

    def _candidates(self, queries: np.ndarray, effort: int, depth: int, allowed: np.ndarray | None) -> np.ndarray:
        """Rows (q, depth) that are near by the coarse vectors, nearest first; -1 where there are fewer."""
        faiss = import_faiss()
        bits = None if allowed is None else np.packbits(allowed, bitorder="little")
        selector = None if bits is None else faiss.IDSelectorBitmap(bits)
        if self.kind == "hnsw":
            parameters = faiss.SearchParametersHNSW(efSearch=effort, sel=selector)
        else:
            parameters = faiss.SearchParametersIVF(nprobe=effort, sel=selector)
        return self.index.search(queries, min(depth, len(self)), params=parameters)[1]

    def _made_queries(self, rng: np.random.Generator) -> np.ndarray:
        """Unit vectors (q, d) at a cosine of `FAR` with as many rows."""
        count = min(_SAMPLE, len(self))
        rows = self.exact.take(np.sort(rng.choice(len(self), count, replace=False)))  # (q, d)
        noise = rng.standard_normal(rows.shape)
        noise -= (noise * rows).sum(1, keepdims=True) * rows  # at right angles to the row
        noise /= np.maximum(np.linalg.norm(noise, axis=1, keepdims=True), 1e-12)
        made = FAR * rows + (1 - FAR**2) ** 0.5 * noise
        return made.astype(np.float32)

    def _limit(self) -> int:
        return min(_MOST_EFFORT, len(self)) if self.kind == "hnsw" else int(self.index.nlist)

    def _efforts(self) -> list[int]:
        """From small to large, in steps of about the square root of two."""
        first, limit = (16 if self.kind == "hnsw" else 1), self._limit()
        steps = [round(first * 2 ** (i / 2)) for i in range(64)]
        return sorted({min(step, limit) for step in steps})

    def _depths(self) -> tuple[int, ...]:
        return _DEPTHS[:1] if self.kind == "hnsw" else tuple(depth for depth in _DEPTHS if depth <= 2 * len(self))

    def _cost(self, effort: int, depth: int) -> float:
        """Of a search, in true vectors read: one takes as long as some 250 codes that lie in a row."""
        if self.kind == "hnsw":
            return effort + depth
        return effort * len(self) / int(self.index.nlist) / 250 + depth


def _measured(shares: np.ndarray, goal: float, made: bool, rows: int) -> Recall:
    """Of what each query (q,) found: the mean, and 1.96 standard errors to both sides."""
    value = float(shares.mean())
    margin = 1.96 * float(shares.std(ddof=1)) / len(shares) ** 0.5 if len(shares) > 1 else 0.0
    return Recall(value, max(0.0, value - margin), min(1.0, value + margin), goal, len(shares), made, rows)


def _check_goal(recall: float, queries: np.ndarray | None, dimension: int) -> None:
    if not 0 < recall < 1:
        raise ClaspError(f"recall {recall}: give a share between 0 and 1, such as 0.95; for all, search exactly.")
    if queries is not None:
        check_search(queries, 1, None, 1, dimension)


def _sample_digest(exact: Exact, rows: int) -> str:
    """SHA-256 of 64 of the first rows, evenly spread: tells that vectors are others, not that all are the same."""
    numbers = np.unique(np.linspace(0, max(rows - 1, 0), 64).astype(np.int64))
    return hashlib.sha256(exact.take(numbers).tobytes() if rows else b"").hexdigest()


def _note_sha256(about: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")
