"""Exact search, faiss and Milvus Lite on the same vectors: the record behind the chapter on indexes.

Each part of the measurement is a process of its own and leaves a JSON file, so that a stopped run goes on after the
last part that was finished, memory is that of one index, and a part that takes too long is stopped and said to be.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from clasp_lib.errors import ClaspError
from clasp_lib.folders import replacing
from clasp_lib.index.approximate import Approximate
from clasp_lib.index.nearest import Exact
from clasp_lib.profiles import Profile, get_profile
from clasp_lib.provenance import write_record
from clasp_lib.records.index_vectors import Base, base_vectors, mixtures, shape_of, write_mixtures

SIZES = (1_000, 10_000, 100_000, 1_000_000)
GOAL, K = 0.95, 10
ASKED = (1, 16, 64, 256)
"""Queries at once, for exact search beside the bare matrix product."""

LIMIT_S = 1200.0
"""How long a part of Milvus Lite may take."""

MILVUS_GRAPH = 100_000
"""Rows up to which Milvus Lite gets its graph; of a million it takes it hours on one core, and clusters minutes."""

_TURNS, _ONE_BY_ONE, _MESSAGE = 5, 200, 10_000


class Part(NamedTuple):
    """One process: what it measures, of how many rows, and whether it times queries (worth doing again when idle)."""

    name: str
    rows: int
    timing: bool

    @property
    def file(self) -> str:
        return f"{self.name}-{self.rows}.json".replace(" ", "-")


def parts(rows: int) -> Iterator[Part]:
    """What there is to measure, up to so many rows."""
    for size in sorted({*(size for size in SIZES if size < rows), rows}):
        yield Part("exact", size, True)
        for kind in ("ivfpq", "hnsw"):
            yield Part(f"{kind} build", size, False)
            yield Part(f"{kind} queries", size, True)
        for kind in ("FLAT", "HNSW" if size <= MILVUS_GRAPH else "IVF_SQ8"):
            yield Part(f"milvus {kind} build", size, False)
            yield Part(f"milvus {kind} queries", size, True)


def measure(
    profile: Profile,
    recordings: Mapping[str, Path],
    seed: int = 0,
    folder: Path | None = None,
    rows: int = SIZES[-1],
    again: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """All parts, and what the vectors are like; recordings are not used.

    Args:
        folder: keeps vectors, indexes and what is finished (10 GB for a million rows).
        rows: of the largest size.
        again: measure anew the parts that time queries.
        say: is told what is being done.
    """
    folder = folder or profile.cache / "indexes"
    folder.mkdir(parents=True, exist_ok=True)
    base = _base(profile, folder)
    say(f"vectors: {rows} of {base.clips.shape[1]} numbers")
    vectors = write_mixtures(folder / f"vectors-{rows}.npy", base.clips, rows, seed)
    results = []
    for part in parts(rows):
        file = folder / part.file
        if again and part.timing:
            file.unlink(missing_ok=True)
        if not file.is_file():
            say(f"{part.name}, {part.rows} rows ...")
            _in_process(part, folder, rows)
        results.append({"part": part.name, "rows": part.rows} | json.loads(file.read_text("utf-8")))
    return {
        "seed": seed,
        "width": int(base.clips.shape[1]),
        "base": len(base.clips),
        "goal": GOAL,
        "k": K,
        "threads": torch.get_num_threads(),
        "shape": {
            "clips of the base": shape_of(base.asked_clips, base.clips),
            "made vectors, as many": shape_of(base.asked_clips, np.ascontiguousarray(vectors[: len(base.clips)])),
            "texts, base": shape_of(base.asked_texts, base.clips),
            "texts, made vectors, as many": shape_of(
                base.asked_texts, np.ascontiguousarray(vectors[: len(base.clips)])
            ),
        },
        "parts": results,
        "slice": {
            "block": 0,
            "rows": 8,
            "sums": mixtures(base.clips, 0, seed, 8).sum(1).astype(float).round(5).tolist(),
        },
    }


def run_part(part: Part, folder: Path, rows: int) -> dict[str, Any]:
    """Measure one part in this process."""
    vectors = np.load(folder / f"vectors-{rows}.npy", mmap_mode="r")[: part.rows]
    base = _base(get_profile("pocket"), folder)
    kind, _, task = part.name.rpartition(" ")
    if part.name == "exact":
        return _exact(vectors, base)
    if kind.startswith("milvus"):
        place = str(folder / f"{kind.replace(' ', '-')}-{part.rows}.db")
        return (_milvus_build if task == "build" else _milvus_queries)(place, vectors, base, kind.split()[1])
    file = folder / f"{kind}-{part.rows}.faiss"
    return _faiss_build(file, kind, vectors, base) if task == "build" else _faiss_queries(file, vectors, base)


def _exact(vectors: np.ndarray, base: Base) -> dict[str, Any]:
    """Against `torch.mm` of the same shapes into memory that is there; turns alternate, the fastest counts."""
    held = torch.from_numpy(np.array(vectors))  # (n, d), in memory
    exact, rows = Exact(held.numpy(), "cpu"), {}
    for count in ASKED:
        queries = np.ascontiguousarray(base.asked_texts[:count])
        product = partial(torch.mm, torch.from_numpy(queries), held.T, out=torch.empty(count, len(held)))
        search = partial(exact.search, queries, K)
        both = [(_seconds(product), _seconds(search)) for _ in range(_TURNS)]
        bare, ours = zip(*both, strict=True)
        rows[str(count)] = {"bare_s": min(bare), "exact_s": min(ours), "ratio": min(ours) / min(bare)}
    return {"queries": rows, "threads": torch.get_num_threads(), "bytes": held.numel() * 4}


def _faiss_build(file: Path, kind: str, vectors: np.ndarray, base: Base) -> dict[str, Any]:
    before, began, cpu = _held(), time.perf_counter(), time.process_time()
    index = Approximate.build(vectors, kind, GOAL, base.asked_texts[::2])
    spent = {"wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}
    grown = _held() - before
    index.save(file)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {**spent, "index_bytes": file.stat().st_size, "grown_bytes": grown, "peak_kb": peak}


def _faiss_queries(file: Path, vectors: np.ndarray, base: Base) -> dict[str, Any]:
    """Queries of each kind at the effort that was tuned on half of them, recall measured on the other half."""
    vectors = np.array(vectors)  # in memory, as for exact search
    before = _held()
    index = Approximate.load(file, vectors)
    out: dict[str, Any] = {"loaded_bytes": _held() - before, "curve": []}
    index.search(base.asked_texts[:8], K)
    settings = {}
    for name, queries in (("clips", base.asked_clips), ("texts", base.asked_texts)):
        tuned, asked = queries[::2], np.ascontiguousarray(queries[1::2])
        truth = index.exact.search(asked, K)[1]
        index.tune(GOAL, np.ascontiguousarray(tuned))
        settings[name] = index.effort, index.depth
        out[name] = {"effort": index.effort, "depth": index.depth} | _timed(index.search, asked, truth)
        if name == "texts":
            index.effort, index.depth = settings["clips"]
            out["texts at the effort of clips"] = _shares(index.search(asked, K)[1], truth)
            for effort in [effort for effort in index._efforts()[::2] if effort <= 2 * settings["texts"][0]]:
                index.effort, index.depth = effort, settings["texts"][1]
                out["curve"].append({"effort": effort} | _timed(index.search, asked, truth, one_by_one=False))
    index.tune(GOAL)
    out["made"] = {"effort": index.effort, "depth": index.depth}
    return out


def _milvus_build(place: str, vectors: np.ndarray, base: Base, kind: str) -> dict[str, Any]:
    """Insert everything into a database without an index; or copy that one and build an index in the copy."""
    from clasp_lib.index.entries import Entry
    from clasp_lib.index.milvus import MilvusStore
    from clasp_lib.index.store import about_model

    plain = Path(place.replace(f"-{kind}-", "-FLAT-"))
    spent = {"wall_s": 0.0, "cpu_s": 0.0}
    if kind != "FLAT":
        spent = json.loads((plain.parent / Part("milvus FLAT build", len(vectors), False).file).read_text("utf-8"))
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(plain, place)
    before, began, cpu = _held(), time.perf_counter(), time.process_time()
    if kind == "FLAT":
        shutil.rmtree(place, ignore_errors=True)
        store = MilvusStore.create(place, about_model("made", "0" * 64, vectors.shape[1]))
        for start in range(0, len(vectors), _MESSAGE):
            part = np.array(vectors[start : start + _MESSAGE])
            store.add([Entry(str(start + i), "made", 0.0, 1.0) for i in range(len(part))], part)
    else:
        store = MilvusStore.open(place)
    store.build_index(kind)
    wall_s, cpu_s, grown = time.perf_counter() - began, time.process_time() - cpu, _held() - before
    store.close()
    size = sum(file.stat().st_size for file in Path(place).rglob("*") if file.is_file())
    sums = {"wall_s": spent["wall_s"] + wall_s, "cpu_s": spent["cpu_s"] + cpu_s}
    return {**sums, "this_s": wall_s, "grown_bytes": grown, "index_bytes": size}


def _milvus_queries(place: str, vectors: np.ndarray, base: Base, kind: str) -> dict[str, Any]:
    from clasp_lib.index.milvus import MilvusStore

    exact, before, began = Exact(vectors, "cpu"), _held(), time.perf_counter()
    store = MilvusStore.open(place)

    def search(queries: np.ndarray, k: int) -> tuple[None, np.ndarray]:
        return None, np.array([[int(entry.id) for _, entry in hits] for hits in store.search(queries, k)])

    search(base.asked_texts[:1], K)
    out: dict[str, Any] = {"open_s": time.perf_counter() - began, "loaded_bytes": _held() - before}
    for name, queries in (("clips", base.asked_clips), ("texts", base.asked_texts)):
        tuned, asked = np.ascontiguousarray(queries[::2]), np.ascontiguousarray(queries[1::2])
        known, truth = exact.search(tuned, K)[1], exact.search(asked, K)[1]
        for effort in (16, 32, 64, 128, 256, 512, 1024, 2048):
            store.effort = effort
            if kind == "FLAT" or _shares(search(tuned, K)[1], known) >= GOAL + 0.01:
                break
        out[name] = {"effort": None if kind == "FLAT" else store.effort} | _timed(search, asked, truth, at_most=50)
    store.close()
    return out


def _timed(
    search: Callable[[np.ndarray, int], tuple[Any, np.ndarray]],
    queries: np.ndarray,
    truth: np.ndarray,
    one_by_one: bool = True,
    at_most: int = _ONE_BY_ONE,
) -> dict[str, float]:
    """Recall, and queries a second: all at once (the best of three), and one after the other (the median)."""
    found = search(queries, K)[1]
    batch = min(_seconds(lambda: search(queries, K)) for _ in range(3))
    out = {"recall": _shares(found, truth), "batch": len(queries), "batch_per_s": len(queries) / batch}
    if one_by_one:
        singles = [_seconds(partial(search, queries[i : i + 1], K)) for i in range(min(at_most, len(queries)))]
        out["one_ms"] = 1e3 * float(np.median(singles))
    return out


def _shares(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found[:, :, None] == truth[:, None, :]).any(1).mean())


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _held() -> int:
    """Bytes of memory that this process holds, without files that are mapped; 0 where Linux does not say."""
    try:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def _base(profile: Profile, folder: Path) -> Base:
    file = folder / "base.npz"
    if file.is_file():
        with np.load(file) as stored:
            return Base(*(stored[name] for name in Base._fields))
    base = base_vectors(profile)
    with replacing(file) as opened:
        np.savez(opened, **base._asdict())
    return base


def _in_process(part: Part, folder: Path, rows: int) -> None:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_run_and_write, args=(part, folder, rows))
    process.start()
    process.join(LIMIT_S if part.name.startswith("milvus") else None)
    if process.is_alive():
        process.kill()
        process.join()
        write_record(folder / part.file, {"stopped_after_s": LIMIT_S})
    elif not (folder / part.file).is_file():
        raise ClaspError(f"{part.name}, {part.rows} rows: failed; see above.")


def _run_and_write(part: Part, folder: Path, rows: int) -> None:
    write_record(folder / part.file, run_part(part, folder, rows))


def of(record: Mapping[str, Any], part: str) -> dict[int, dict[str, Any]]:
    """The results of one part of a record, by the number of rows; those that were stopped are left out."""
    found: Sequence[dict[str, Any]] = record["parts"]
    return {row["rows"]: row for row in found if row["part"] == part and "stopped_after_s" not in row}
