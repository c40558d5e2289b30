"""What a Milvus collection of this library looks like: fields, a note of the model, an index; entries as rows."""

from __future__ import annotations

import json
from typing import Any

from clasp_lib.errors import ClaspError, DatasetError
from clasp_lib.index.entries import FIELDS, Entry
from clasp_lib.index.milvus_connection import Address, call
from clasp_lib.index.milvus_filter import PART, ROW, VECTOR, check_name, check_text
from clasp_lib.index.store import model_of

KINDS: dict[str, tuple[dict[str, int], str | None]] = {
    "FLAT": ({}, None),
    "HNSW": ({"M": 16, "efConstruction": 200}, "ef"),
    "IVF_FLAT": ({"nlist": 1024}, "nprobe"),
    "IVF_SQ8": ({"nlist": 1024}, "nprobe"),
    "DISKANN": ({}, "search_list"),
}
"""Kinds of index: how they are built, and the parameter of a search that `effort` sets. DISKANN needs a cluster."""

CALL_S, BUILD_S = 60.0, 12 * 3600.0
"""How long a call of a server may take, and one that builds an index, or of this process."""

_LOAD_S = 600.0
_MESSAGE_BYTES = 16 * 2**20  # a server takes 64 MiB
_TEXT_BYTES = 65_535  # of a VARCHAR
_NOTE = "clasp.about"  # the property of the collection that holds `about`


def create_collection(place: Address, client: Any, about: dict[str, Any]) -> None:
    from pymilvus import DataType

    note = json.dumps(about, sort_keys=True)
    schema = client.create_schema(auto_id=False, enable_dynamic_field=True, description=note)
    schema.add_field(ROW, DataType.INT64, is_primary=True)
    schema.add_field(PART, DataType.INT64)
    for name in ("id", "file", "digest"):
        schema.add_field(name, DataType.VARCHAR, max_length=_TEXT_BYTES)
    schema.add_field("text", DataType.VARCHAR, max_length=_TEXT_BYTES, nullable=True)
    for name in ("start_s", "end_s"):
        schema.add_field(name, DataType.DOUBLE)
    schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=model_of(about, place).dimension)
    # Milvus Lite forgets the description; the properties stay.
    options = {"schema": schema, "properties": {_NOTE: note}, "consistency_level": "Strong", "timeout": CALL_S}
    call(place, client.create_collection, place.collection, **options)


def read_about(place: Address, described: dict[str, Any]) -> dict[str, Any]:
    note = described.get("properties", {}).get(_NOTE) or described.get("description", "")
    try:
        about = json.loads(note)
        model_of(about, place)
    except ValueError as error:
        if isinstance(error, ClaspError):
            raise
        raise DatasetError(
            f"{place}: its collection {place.collection!r} was not made by this library. Choose another place."
        ) from error
    return about


def create_index(place: Address, client: Any, kind: str) -> None:
    params = client.prepare_index_params()
    params.add_index(VECTOR, index_type=kind, metric_type="IP", params=KINDS[kind][0])
    call(place, client.create_index, place.collection, params, timeout=BUILD_S)


def make_ready(place: Address, client: Any) -> str:
    """See that a collection can be searched; returns the kind of its index."""
    names = call(place, client.list_indexes, place.collection, VECTOR, timeout=CALL_S)
    kind = "FLAT"
    if names:
        kind = call(place, client.describe_index, place.collection, names[0], timeout=CALL_S)["index_type"]
    elif not place.embedded:
        kind = "HNSW"
        create_index(place, client, kind)
    call(place, client.load_collection, place.collection, timeout=BUILD_S if place.embedded else _LOAD_S)
    return kind


def as_row(entry: Entry) -> dict[str, Any]:
    row = {name: getattr(entry, name) for name in FIELDS}
    for name, value in entry.metadata.items():
        check_name(name)
        row[name] = value
    for name, value in row.items():
        if isinstance(value, str):
            check_text(value, f"{entry.file}: {name}")
            if len(value.encode()) > _TEXT_BYTES:
                raise ClaspError(
                    f"{entry.file}: {name} has more than {_TEXT_BYTES} bytes; Milvus holds no longer text."
                )
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ClaspError(f"{entry.file}: {name} is {value}, which does not fit into 64 bits.")
    return row


def as_entry(row: dict[str, Any]) -> Entry:
    metadata = {name: value for name, value in row.items() if name not in (*FIELDS, ROW, PART, VECTOR, "$meta")}
    return Entry(**{name: row[name] for name in FIELDS}, metadata=metadata)


def messages(rows: list[dict[str, Any]], vector_bytes: int) -> list[list[dict[str, Any]]]:
    """The rows in order, as few lists as stay below `_MESSAGE_BYTES`."""
    out: list[list[dict[str, Any]]] = [[]]
    filled = 0
    for row in rows:
        size = vector_bytes + 100
        size += sum(len(key) + 4 * len(value) if isinstance(value, str) else 32 for key, value in row.items())
        if out[-1] and filled + size > _MESSAGE_BYTES:
            out.append([])
            filled = 0
        out[-1].append(row)
        filled += size
    return out
