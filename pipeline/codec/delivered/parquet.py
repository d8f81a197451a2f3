"""Delivered features as Parquet: the columns are a contract with other people's jobs, and only ever grow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from pipeline.codec.delivered.parquet_parts import PART_BYTES, Parts
from pipeline.codec.hashed_file import Written
from pipeline.codec.shards import FeatureRow, Matrix, vector_array, vectors
from pipeline.records import signed

GROUP_ROWS = 1024
"""Rows that a row group should have."""


def features_schema(dim: int) -> pa.Schema:
    """The delivered columns; item_id carries the same 64 bits, signed."""
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
            pa.field("features", vectors(dim), nullable=False),
            pa.field("etag", pa.string()),
            pa.field("last_modified", pa.string()),
        ]
    )


class FeaturesWriter:
    """Writes part-00000.parquet and so on; each call of `write` makes a row group."""

    def __init__(self, folder: Path, dim: int, version: str, fingerprint: str, part_bytes: int = PART_BYTES) -> None:
        self._parts = Parts(folder, features_schema(dim), ["version", "fingerprint"], part_bytes)
        self._version = version
        self._fingerprint = fingerprint

    def write(self, rows: Sequence[FeatureRow], matrix: Matrix) -> None:
        """Adds the rows; row n of the matrix (n, dim) belongs to rows[n]."""
        columns = {
            "partner_id": [row.partner_id for row in rows],
            "item_id": [signed(row.item_id) for row in rows],
            "external_id": [row.external_id for row in rows],
            "url": [row.url for row in rows],
            "content_sha256": [row.content_sha256 for row in rows],
            "fetched_at": [row.fetched_at for row in rows],
            "version": [self._version] * len(rows),
            "fingerprint": [self._fingerprint] * len(rows),
            "features": vector_array(matrix),
            "etag": [row.etag for row in rows],
            "last_modified": [row.last_modified for row in rows],
        }
        self._parts.write(columns)

    def close(self) -> list[tuple[Path, Written]]:
        """All parts, in order."""
        return self._parts.close()

    def abandon(self) -> None:
        """Closes a part that will not be used."""
        self._parts.abandon()
