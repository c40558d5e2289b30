"""An index in a Milvus database: Milvus Lite in a path that ends in ".db", or a server or cluster by its URL.

Milvus keeps the vectors and what they stand for, and does the searching; how many of the true neighbours its index
finds (`recall`) depends on its kind and on `effort`, and is measured, not promised. Milvus Lite is one process on one
machine, written in Python: it looks at every entry once in each call of `search`, so that its time grows with the
collection, and is shared by the queries of a call. A server keeps its graph in C++ and does not.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from clasp_lib.errors import ClaspError, DatasetError
from clasp_lib.index.entries import FIELDS, Entry
from clasp_lib.index.filters import Where
from clasp_lib.index.milvus_collection import (
    BUILD_S,
    CALL_S,
    KINDS,
    as_entry,
    as_row,
    create_collection,
    create_index,
    make_ready,
    messages,
    read_about,
)
from clasp_lib.index.milvus_connection import Address, call, connected, disconnect, is_milvus, opened, parse_address
from clasp_lib.index.milvus_filter import PART, ROW, VECTOR, any_of, expression
from clasp_lib.index.store import model_of

__all__ = ["KINDS", "MOST_HITS", "MilvusStore", "is_milvus"]

MOST_HITS = 16_384
"""Milvus answers with no more per query."""

_PAGE = 16_384  # rows of an answer: the most that a server's iterator gives
_NAMES = 500  # ids in one expression
_QUERIES = 1_000  # of one call
_CROWD = 512  # rows in Milvus Lite's unsorted part: beyond that they are flushed before a search, which else is slow


class MilvusStore:
    """A `Store` in a Milvus collection. Make one with `create`, `open` or `open_or_create`.

    Attributes:
        about: what the collection remembers of the model that filled it.
        kind: of its index, one of `KINDS`; "FLAT" compares a query with everything, and its recall is 1.
        effort: how hard an index other than "FLAT" searches (`ef`, `nprobe`, `search_list`): more is slower and
            finds more.
    """

    def __init__(self, address: Address, client: Any, about: dict[str, Any], kind: str, effort: int) -> None:
        self.about, self.kind, self.effort = about, kind, effort
        self._address, self._client = address, client
        self._dimension = model_of(about, address).dimension
        self._last, self._counting = 0, threading.Lock()
        self._nonce = secrets.randbelow(1 << 12)

    @classmethod
    def create(cls, address: str, about: dict[str, Any], *, effort: int = 128) -> MilvusStore:
        """A new collection. In Milvus Lite it is searched exactly until `build_index`; a server gets an HNSW index.

        Args:
            address: a path that ends in ".db", or "http://[user:password@]host:19530[/database][/collection]";
                the collection is "clasp" if none is named. The environment variable MILVUS_TOKEN may hold the user and
                password ("user:password") or the key instead; it is used where the URL has none.
            about: as `clasp_lib.index.store.about_model` makes it.

        Raises:
            DatasetError: there is such a collection already, the server cannot be reached or refuses, or another
                process has the database open.
            MissingDependencyError: pymilvus or milvus-lite are not installed.
        """
        place = parse_address(address)
        with connected(place, new=True) as client:
            if call(place, client.has_collection, place.collection):
                raise DatasetError(f"{place}: has an index already. Open it, or choose another place.")
            create_collection(place, client, about)
            return cls._found(place, client, effort)

    @classmethod
    def open(cls, address: str, *, effort: int = 128) -> MilvusStore:
        """An index that is there; arguments as for `create`.

        Raises:
            DatasetError: there is no such collection, or it is not an index; or as for `create`.
        """
        place = parse_address(address)
        with connected(place) as client:
            if not call(place, client.has_collection, place.collection):
                raise DatasetError(f"{place}: holds no collection {place.collection!r}. Build an index there first.")
            return cls._found(place, client, effort)

    @classmethod
    def open_or_create(cls, address: str, about: dict[str, Any], *, effort: int = 128) -> MilvusStore:
        """The index that is there, whichever model built it, or a new one; as `open` and `create`."""
        place = parse_address(address)
        with connected(place, new=True) as client:
            if not call(place, client.has_collection, place.collection):
                create_collection(place, client, about)
            return cls._found(place, client, effort)

    @classmethod
    def _found(cls, place: Address, client: Any, effort: int) -> MilvusStore:
        about = read_about(place, call(place, client.describe_collection, place.collection))
        store = cls(place, client, about, make_ready(place, client), effort)
        if place.embedded:
            store._flush()  # what a killed process left in the log
        return store

    def __len__(self) -> int:
        found = self._call("query", filter="", output_fields=["count(*)"], consistency_level="Strong")
        return int(found[0]["count(*)"])

    def known(self) -> dict[str, str]:
        """The recordings that are there: by id, their digest."""
        # The first entry of a recording is written last (see `add`): a recording without it is not complete.
        if self._address.embedded:
            return {name: digest for name, digest in self._digests().items() if digest is not None}
        return {row["id"]: row["digest"] for row in self._rows(f"{PART} == 0", ["id", "digest"], _PAGE)}

    def add(self, entries: Sequence[Entry], vectors: np.ndarray) -> None:
        """Keep entries and their vectors (n, dimension); recordings of the same ids give way.

        Milvus takes a message whole or not at all. What does not fit into one is sent from its end, so that the first
        entry of a recording, by which `known` knows it, comes after all others: whoever is killed leaves no recording
        that looks complete and is not.

        Raises:
            ClaspError: vectors of another shape, or a text or a name of metadata that Milvus cannot hold.
            DatasetError: the database fails.
        """
        if not entries:
            return
        if vectors.shape != (len(entries), self._dimension):
            raise ClaspError(
                f"vectors: have the shape {vectors.shape}; {len(entries)} entries need ({len(entries)}, "
                f"{self._dimension})."
            )
        parts: dict[str, int] = {}
        rows, first = [], self._next_rows(len(entries))
        for i, (entry, vector) in enumerate(zip(entries, np.asarray(vectors, np.float32), strict=True)):
            parts[entry.id] = part = parts.get(entry.id, -1) + 1
            rows.append({ROW: first + (i << 12), PART: part, VECTOR: vector} | as_row(entry))
        self._delete(list(parts))
        there = opened(self._address)
        there.unflushed += len(rows)
        digests = self._digests() if self._address.embedded else {}
        digests |= dict.fromkeys(parts)
        for message in reversed(messages(rows, 4 * self._dimension)):
            self._call("insert", message)
        digests |= {row["id"]: row["digest"] for row in rows if row[PART] == 0}

    def remove(self, ids: Collection[str]) -> int:
        """Forget recordings; returns how many of them there were."""
        return self._delete(list(dict.fromkeys(ids)))

    def search(self, queries: np.ndarray, k: int, where: Where | None = None) -> list[list[tuple[float, Entry]]]:
        """For each query (q, dimension) the `k` nearest entries that fulfil a filter, best first, with their cosine.

        Entries of equal score stand in the order in which they came; which of them are among the `k` is Milvus'
        choice. A name that no entry has is fulfilled by none.

        Raises:
            ClaspError: `k` is not in 1 to `MOST_HITS`, queries of another width, or a filter that is none.
            DatasetError: the database fails.
        """
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MOST_HITS:
            raise ClaspError(f"k is {k!r}; Milvus answers with 1 to {MOST_HITS} hits. Export more with `vectors`.")
        queries = np.asarray(queries, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self._dimension:
            raise ClaspError(f"queries: have the shape {queries.shape}; give (queries, {self._dimension}).")
        condition, parameter = expression(where), KINDS.get(self.kind, ({}, None))[1]
        effort = {} if parameter is None else {parameter: max(self.effort, k)}
        if self.kind.startswith("IVF"):
            effort = {"nprobe": min(self.effort, KINDS[self.kind][0]["nlist"])}
        if opened(self._address).unflushed > _CROWD:
            self._flush()
        found: list[list[tuple[float, Entry]]] = []
        for start in range(0, len(queries), _QUERIES):
            answers = self._call(
                "search",
                data=list(queries[start : start + _QUERIES]),
                anns_field=VECTOR,
                limit=k,
                filter=condition,
                output_fields=[*FIELDS, "$meta"],
                search_params={"metric_type": "IP", "params": effort},
                consistency_level="Strong",
            )
            for hits in answers:
                best = sorted(hits, key=lambda hit: (-hit["distance"], hit[ROW]))
                found.append([(float(hit["distance"]), as_entry(hit["entity"])) for hit in best])
        return found

    def vectors(self) -> np.ndarray:
        """All vectors (n, dimension) float32, in the order in which they came."""
        rows = [(row[ROW], np.asarray(row[VECTOR], np.float32)) for row in self._rows("", [VECTOR], _PAGE)]
        rows.sort(key=lambda row: row[0])
        return np.stack([vector for _, vector in rows]) if rows else np.zeros((0, self._dimension), np.float32)

    def entries(self) -> list[Entry]:
        """All entries, likewise."""
        rows = sorted(self._rows("", [*FIELDS, "$meta"], 8 * _PAGE), key=lambda row: row[ROW])
        return [as_entry(row) for row in rows]

    def build_index(self, kind: str | None = None) -> None:
        """Replace the index of the vectors; meanwhile nobody can search.

        Milvus Lite builds in this process, with the cores that faiss may use, and keeps the result in the database.

        Args:
            kind: one of `KINDS`, or None for what fits the place: an HNSW index on a server, and none ("FLAT") in
                Milvus Lite, where it pays for many queries a call only.

        Raises:
            ClaspError: an unknown kind. DatasetError: the database fails, or has no such kind.
        """
        kind = kind or ("FLAT" if self._address.embedded else "HNSW")
        if kind not in KINDS:
            raise ClaspError(f"kind {kind!r}: choose one of {', '.join(KINDS)}.")
        if kind == "DISKANN" and self._address.embedded:
            raise ClaspError("kind 'DISKANN': Milvus Lite has no such index; a server has.")
        self._flush()
        if self._call("list_indexes"):
            self._call("release_collection")
            self._call("drop_index", VECTOR, timeout=BUILD_S)
        if kind != "FLAT" or not self._address.embedded:
            create_index(self._address, self._client, kind)
        self._call("load_collection", timeout=BUILD_S)
        self.kind = kind

    def close(self) -> None:
        """Let go of the connection; of a Milvus Lite database also of its lock, once nobody in this process uses it."""
        if self._client is not None:
            disconnect(self._address, self._client)
            self._client = None

    def _call(self, method: str, *args: Any, timeout: float = CALL_S, **options: Any) -> Any:
        if self._client is None:
            raise ClaspError(f"{self._address}: was closed. Open it again.")
        timeout = BUILD_S if self._address.embedded else timeout
        return call(
            self._address, getattr(self._client, method), self._address.collection, *args, timeout=timeout, **options
        )

    def _next_rows(self, count: int) -> int:
        """The first of `count` primary keys, 4096 apart: microseconds, and a number of this process below them."""
        with self._counting:
            now = max(time.time_ns() // 1_000 - 1_577_836_800_000_000, self._last + 1)  # since 2020
            self._last = now + count
        return (now << 12) + self._nonce

    def _rows(self, condition: str, fields: list[str], page: int) -> Iterator[dict[str, Any]]:
        """The rows that fulfil a condition, with the fields named and the primary key, in no certain order."""
        strong: dict[str, Any] = {"output_fields": [ROW, *fields], "consistency_level": "Strong"}
        if not self._address.embedded:
            pages = self._call(
                "query_iterator", filter=condition or f"{ROW} >= 0", batch_size=min(page, _PAGE), **strong
            )
            while rows := call(self._address, pages.next):
                yield from rows
            pages.close()
            return
        # Milvus Lite sorts everything for each page of an iterator; and it answers with all rows at once if asked.
        condition = condition or f"{ROW} >= 0"
        if len(self) <= page:
            yield from self._call("query", filter=condition, **strong)
            return
        keys = self._call("query", filter=condition, output_fields=[ROW], consistency_level="Strong")
        ordered = sorted(row[ROW] for row in keys)
        for start in range(0, len(ordered), page):
            low, high = ordered[start], ordered[min(start + page, len(ordered)) - 1]
            part = f"{condition} and {ROW} >= {low} and {ROW} <= {high}"
            yield from self._call("query", filter=part, **strong)

    def _digests(self) -> dict[str, str | None]:
        """What `Opened.digests` holds, looked up once: nobody else can change a database that this process has open."""
        there = opened(self._address)
        if there.digests is None:
            digests: dict[str, str | None] = {}
            for row in self._rows("", ["id", "digest", PART], 2**20):
                if row[PART] == 0 or row["id"] not in digests:
                    digests[row["id"]] = row["digest"] if row[PART] == 0 else None
            there.digests = digests
        return there.digests

    def _delete(self, ids: list[str]) -> int:
        if self._address.embedded:
            ids = [name for name in ids if name in self._digests()]
        found: dict[int, str] = {}
        for start in range(0, len(ids), _NAMES):
            rows = self._rows(any_of("id", ids[start : start + _NAMES]), ["id"], 2**20)
            found |= {row[ROW]: row["id"] for row in rows}
        keys = list(found)
        for start in range(0, len(keys), _PAGE):
            self._call("delete", ids=keys[start : start + _PAGE])
        if self._address.embedded:
            for name in ids:
                self._digests().pop(name, None)
        return len(set(found.values()))

    def _flush(self) -> None:
        self._call("flush", timeout=BUILD_S)
        opened(self._address).unflushed = 0
