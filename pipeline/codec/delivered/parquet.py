"""Delivered features as Parquet: the columns are a contract with other people's jobs, and only ever grow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.codec.delivered.parquet_parts import PART_BYTES, Parts
from pipeline.codec.hashed_file import Written
from pipeline.codec.shards import FEATURES, IMAGE, REUSED, FeatureRow, Matrix, computed, vector_array, vectors
from pipeline.errors import FormatError
from pipeline.records import Numbers, signed

GROUP_ROWS = 1024
"""Rows that a row group should have."""
IMAGE_ROWS, IMAGE_BYTES = 64, 8 * 2**20
"""Images that a row group has at the most, and their bytes; at least one image."""

SHIPMENT = "shipment"
"""A column that current tables have besides: the shipment that a row comes from."""


def rows_of_group(dim: int) -> int:
    """Rows that a row group has at the most, of features of that many values."""
    return GROUP_ROWS if dim else IMAGE_ROWS


def vectors_of(dim: int, numbers: Numbers) -> pa.DataType:
    """The type of delivered vectors."""
    return vectors(dim) if numbers == "float32" else pa.list_(pa.field("element", pa.float16(), nullable=False), dim)


def features_schema(dim: int, numbers: Numbers = "float32") -> pa.Schema:
    """The delivered columns; item_id carries the same 64 bits, signed.  dim: 0 for images in place of vectors."""
    what = pa.field(FEATURES, vectors_of(dim, numbers), nullable=False) if dim else computed(dim)
    return pa.schema(
        [
            pa.field("partner_id", pa.int64(), nullable=False),
            pa.field("item_id", pa.int64(), nullable=False),
            pa.field("external_id", pa.string(), nullable=False),
            pa.field("url", pa.string(), nullable=False),
            pa.field("content_sha256", pa.binary(32), nullable=False),
            pa.field("fetched_at", pa.timestamp("us", tz="UTC"), nullable=False),
            pa.field("version", pa.string(), nullable=False),
            pa.field("fingerprint", pa.string(), nullable=False),
            what,
            pa.field("etag", pa.string()),
            pa.field("last_modified", pa.string()),
            pa.field(REUSED, pa.string()),
        ]
    )


class FeaturesWriter:
    """Writes part-00000.parquet and so on; each call of `write` makes a row group."""

    def __init__(
        self,
        folder: Path,
        dim: int,
        version: str,
        fingerprint: str,
        part_bytes: int = PART_BYTES,
        numbers: Numbers = "float32",
    ) -> None:
        self._parts = Parts(folder, features_schema(dim, numbers), ["version", "fingerprint", REUSED], part_bytes)
        self._numbers = numbers
        self._what = FEATURES if dim else IMAGE
        self._version = version
        self._fingerprint = fingerprint

    def write(self, rows: Sequence[FeatureRow], matrix: Matrix) -> None:
        """Adds the rows; row n of the matrix (n, dim) belongs to rows[n].

        Raises FormatError for a value that float16 cannot hold, where these are its numbers.
        """
        columns = {
            "partner_id": [row.partner_id for row in rows],
            "item_id": [signed(row.item_id) for row in rows],
            "external_id": [row.external_id for row in rows],
            "url": [row.url for row in rows],
            "content_sha256": [row.content_sha256 for row in rows],
            "fetched_at": [row.fetched_at for row in rows],
            "version": [self._version] * len(rows),
            "fingerprint": [self._fingerprint] * len(rows),
            self._what: self._computed(rows, matrix),
            "etag": [row.etag for row in rows],
            "last_modified": [row.last_modified for row in rows],
            REUSED: [row.reused for row in rows],
        }
        self._parts.write(columns)

    def _computed(self, rows: Sequence[FeatureRow], matrix: Matrix) -> pa.Array:
        if self._what == IMAGE:
            return pa.array([row.image for row in rows], pa.binary())
        return vector_array(matrix) if self._numbers == "float32" else _halves(matrix)

    def close(self) -> list[tuple[Path, Written]]:
        """All parts, in order."""
        return self._parts.close()

    def abandon(self) -> None:
        """Closes a part that will not be used."""
        self._parts.abandon()


def _halves(matrix: Matrix) -> pa.Array:
    """The rows of a matrix (n, dim) as float16, each value rounded to the nearest."""
    with np.errstate(over="ignore"):
        halves = matrix.astype(np.float16)
    if not np.isfinite(halves).all():
        raise FormatError(
            "a feature does not fit in float16", "the greatest float16 is 65,504", 'parquet_numbers = "float32"'
        )
    return pa.FixedSizeListArray.from_arrays(pa.array(halves.reshape(-1)), type=vectors_of(matrix.shape[1], "float16"))
