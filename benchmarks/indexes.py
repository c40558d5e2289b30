"""Exact search against the bare matrix product, and faiss and Milvus Lite beside it, on vectors like those of clips.

The vectors are made of the clips of Pocket Brown by the recipe of `clasp_lib.records.index_vectors`, which is printed,
and queries are texts and clips of its test split. Each part is a process of its own; one that is finished is not run
again, so a stopped run goes on. `--again` times the queries anew, on a machine with nothing else to do. The chapter on
indexes reads the record of a million vectors, which takes about an hour of one core and 20 GB of disk:

    python benchmarks/indexes.py --vectors 1000000 --output clasp_lib/pocket/reports/indexes.json
"""

import argparse
from pathlib import Path

import torch
from summary import Comparison, keep

from clasp_lib import get_profile
from clasp_lib.provenance import provenance, write_record
from clasp_lib.records import index_vectors, indexes

LARGEST = 100_000


def main() -> None:
    """Measure what is missing, and print all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=LARGEST, help="of the largest index (%(default)s)")
    parser.add_argument("--folder", type=Path, help="for vectors, indexes and results (default: in the cache)")
    parser.add_argument("--again", action="store_true", help="time the queries anew")
    parser.add_argument("--output", type=Path, metavar="JSON", help="write the results there")
    args = parser.parse_args()
    profile = get_profile("pocket")
    folder = args.folder or profile.cache / "indexes"
    there = sum((folder / part.file).is_file() for part in indexes.parts(args.vectors))
    print(f"{there} parts were measured before; results and indexes are in {folder}")
    found = indexes.measure(profile, {}, 0, folder, args.vectors, args.again, lambda line: print(line, flush=True))
    if args.output:
        command = f"python benchmarks/indexes.py --vectors {args.vectors} --output {args.output.name}"
        write_record(args.output, provenance([command]) | found)
    print(index_vectors.__doc__)
    print(f"of {found['base']} clips; {torch.get_num_threads()} threads")
    show_shape(found)
    show_exact(found)
    show_faiss(found)
    show_milvus(found)
    keep("indexes", f"vectors made of {found['base']} clips; {torch.get_num_threads()} threads", compared(found))


def compared(found: dict) -> list[Comparison]:
    """Exact search beside the bare product, and each approximate kind beside exact search: one query of the largest."""
    rows, exact = max(indexes.of(found, "exact").items())
    row = exact["queries"]["1"]
    sides = ("exact search", row["exact_s"] * 1e3, "the bare product", row["bare_s"] * 1e3, "ms")
    result = [Comparison(f"One query, {rows:,} vectors", *sides, row["ratio"], "bound", 1.3)]
    for kind in ("hnsw", "ivfpq"):
        if row := indexes.of(found, f"{kind} queries").get(rows):
            ours = (f"faiss {kind}, recall {row['clips']['recall']:.3f}", row["clips"]["one_ms"])
            ratio = sides[1] / row["clips"]["one_ms"]
            result.append(Comparison(f"One query, {rows:,} vectors", *ours, *sides[:2], "ms", ratio))
    return result


def show_shape(found: dict) -> None:
    """How near the neighbours are, in the base and in the made vectors."""
    print(f"\n{'neighbours of queries':<46} nearest  tenth    any  intrinsic dimension")
    for name, row in found["shape"].items():
        print(f"{name:<46} {row['nearest']:7.3f} {row['tenth']:6.3f} {row['any']:6.3f} {row['dimension']:8.1f}")


def show_exact(found: dict) -> None:
    """Our time, that of `torch.mm`, and their ratio."""
    print(f"\n{'exact search':>12} {'queries':>8} {'bare ms':>9} {'ours ms':>9} {'ratio':>6}   (goal: at most 1.3)")
    for rows, part in indexes.of(found, "exact").items():
        for count, row in part["queries"].items():
            print(f"{rows:>12} {count:>8} {row['bare_s'] * 1e3:9.2f} {row['exact_s'] * 1e3:9.2f} {row['ratio']:6.2f}")


def show_faiss(found: dict) -> None:
    """Both kinds: build, memory, and queries at the recall asked for."""
    for kind in ("hnsw", "ivfpq"):
        print(
            f"\nfaiss {kind}: wall and CPU seconds to build; queries a second at recall@{found['k']} >= {found['goal']}"
        )
        queries = indexes.of(found, f"{kind} queries")
        for rows, built in indexes.of(found, f"{kind} build").items():
            print(
                f"{rows:>12} rows: {built['wall_s']:.0f} s, CPU {built['cpu_s']:.0f} s, "
                f"{built['index_bytes'] / rows:.0f} bytes a row, process grew {built['grown_bytes'] / 1e6:.0f} MB"
            )
            if rows in queries:
                show_queries(queries[rows], indexes.of(found, "exact").get(rows))


def show_milvus(found: dict) -> None:
    """Milvus Lite, searched exactly, and with a graph or clusters."""
    for kind in ("milvus FLAT", "milvus HNSW", "milvus IVF_SQ8"):
        print(f"\n{kind} (Milvus Lite)")
        queries = indexes.of(found, f"{kind} queries")
        for row in found["parts"]:
            if row["part"].startswith(kind) and "stopped_after_s" in row:
                print(f"{row['rows']:>12} rows: {row['part']} stopped after {row['stopped_after_s']:.0f} s")
            elif row["part"] == f"{kind} build":
                print(
                    f"{row['rows']:>12} rows: {row['wall_s']:.0f} s, of which {row['this_s']:.0f} s for this kind, "
                    f"{row['index_bytes'] / row['rows']:.0f} bytes a row, "
                    f"process grew {row['grown_bytes'] / 1e6:.0f} MB"
                )
                if row["rows"] in queries:
                    show_queries(queries[row["rows"]], indexes.of(found, "exact").get(row["rows"]))


def show_queries(row: dict, exact: dict | None) -> None:
    """Speed and recall of both kinds of queries; the ratio is to exact search for one query."""
    for name in ("clips", "texts"):
        part = row[name]
        ratio = (
            "" if exact is None else f", {exact['queries']['1']['exact_s'] * 1e3 / part['one_ms']:.1f} x exact search"
        )
        print(
            f"{'':>14}{name}: recall {part['recall']:.3f} at effort {part['effort']}; "
            f"one by one {part['one_ms']:.2f} ms, "
            f"{1e3 / part['one_ms']:.0f}/s{ratio}; in batches of {part['batch']}: {part['batch_per_s']:.0f}/s"
        )
    if "texts at the effort of clips" in row:
        print(f"{'':>14}texts at the effort of clips: recall {row['texts at the effort of clips']:.3f}")


if __name__ == "__main__":
    main()
