"""The files of an index in a folder: some entries and their vectors, written once and never changed.

A segment is a safetensors file of vectors and a Parquet file of entries with one name. The manifest says which segments
there are, in which order, and the SHA-256 of each file, so that a damaged or missing one is noticed.
"""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from clasp_lib.errors import DatasetError, brief
from clasp_lib.folders import write_whole
from clasp_lib.index.entries import FIELDS

if TYPE_CHECKING:
    import pyarrow


class Segment(NamedTuple):
    """What the manifest says of a segment: its name, how many entries it has, and the SHA-256 of its two files."""

    name: str
    entries: int
    vectors_sha256: str
    entries_sha256: str

    @property
    def files(self) -> tuple[str, str]:
        """Of vectors, and of entries."""
        return f"{self.name}.safetensors", f"{self.name}.parquet"


def write_segment(folder: Path, table: pyarrow.Table, vectors: np.ndarray) -> Segment:
    """Write entries and vectors (n, d) into two files that are named by what is in them."""
    import pyarrow.parquet
    from safetensors.numpy import save

    stored = save({"vectors": np.ascontiguousarray(vectors, np.float32)})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    digests = [hashlib.sha256(data).hexdigest() for data in (stored, buffer.getvalue())]
    segment = Segment(hashlib.sha256("".join(digests).encode()).hexdigest()[:20], len(table), *digests)
    for file, data in zip(segment.files, (stored, buffer.getvalue()), strict=True):
        write_whole(folder / file, data)
    return segment


def read_segment(folder: Path, segment: Segment, *, verify: bool = True) -> tuple[pyarrow.Table, np.ndarray]:
    """Entries as a table, and vectors (n, d) mapped to memory.

    Args:
        verify: read both files once and compare them with their checksums.

    Raises:
        DatasetError: a file is missing, has changed since it was written, or cannot be read.
    """
    import pyarrow
    import pyarrow.parquet
    from safetensors import SafetensorError, safe_open

    if not isinstance(segment.name, str) or not re.fullmatch("[0-9a-f]{20}", segment.name):
        raise DatasetError(f"{folder}: names a part {brief(segment.name)}, which is none of its own. Build it again.")
    files = [folder / file for file in segment.files]
    try:
        if verify:
            for file, expected in zip(files, (segment.vectors_sha256, segment.entries_sha256), strict=True):
                with open(file, "rb") as opened:
                    if hashlib.file_digest(opened, "sha256").hexdigest() != expected:
                        raise DatasetError(
                            f"{file}: has changed since it was written (its checksum is another). Restore it from a "
                            "copy, or delete the folder and build the index again."
                        )
        with safe_open(files[0], framework="pt") as stored:
            vectors = stored.get_tensor("vectors").numpy()  # (n, d)
        table = pyarrow.parquet.read_table(files[1], memory_map=True)
    except (OSError, RuntimeError, SafetensorError, pyarrow.ArrowException, KeyError) as error:
        raise DatasetError(f"{folder}: a part of the index cannot be read ({error}). Build it again.") from error
    fit = len(vectors) == len(table) == segment.entries and set(FIELDS) <= set(table.column_names)
    if not fit or vectors.dtype != np.float32:
        raise DatasetError(f"{folder}: the parts of {segment.name} do not fit. Build the index again.")
    return table, vectors
