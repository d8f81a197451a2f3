"""Delivered failures as Parquet: which items have no feature, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import parquet as pq

from pipeline.codec.arrow_damage import ARROW_ERRORS, damage_of
from pipeline.codec.delivered.parquet_parts import PART_BYTES, Parts
from pipeline.codec.hashed_file import Written
from pipeline.codec.shards import FailureRow
from pipeline.errors import FormatError
from pipeline.process.redaction import redact_query
from pipeline.records import BREAKER_OPEN, signed, unsigned

GROUP_ROWS = 8192
"""Rows that a row group should have."""
Behind = tuple[str, str]
"""What is behind a failure: (host, reason); the host is "" for images without one, and for URLs that are none."""
UNASKED = "host_busy: breaker open"
"""Stands for the reason where the host was not asked any more: what it had failed of before is the cause."""
_HOST = r"^[A-Za-z][A-Za-z0-9+.\-]*://(?:[^/?#@\\]*@)?(?P<host>\[[^\]/?#]*\]|[^/?#:\\]*)"
_HOST_LENGTH = 300


def failures_schema() -> pa.Schema:
    """The delivered columns; item_id carries the same 64 bits, signed."""
    return pa.schema(
        [
            pa.field("partner_id", pa.int64(), nullable=False),
            pa.field("item_id", pa.int64(), nullable=False),
            pa.field("external_id", pa.string(), nullable=False),
            pa.field("url", pa.string(), nullable=False),
            pa.field("reason", pa.string(), nullable=False),
            pa.field("retriable", pa.bool_(), nullable=False),
            pa.field("detail", pa.string(), nullable=False),
            pa.field("version", pa.string(), nullable=False),
            pa.field("fingerprint", pa.string(), nullable=False),
        ]
    )


class FailuresWriter:
    """Writes part-00000.parquet and so on; each call of `write` makes a row group."""

    def __init__(
        self, folder: Path, version: str, fingerprint: str, redact_queries: bool, part_bytes: int = PART_BYTES
    ) -> None:
        self._parts = Parts(folder, failures_schema(), ["reason", "detail", "version", "fingerprint"], part_bytes)
        self._version = version
        self._fingerprint = fingerprint
        self._redact = redact_queries

    def write(self, rows: Sequence[FailureRow]) -> None:
        """Adds the rows; a URL that serves as external id is redacted as the URL is."""
        self._parts.write(
            {
                "partner_id": [row.partner_id for row in rows],
                "item_id": [signed(row.item_id) for row in rows],
                "external_id": [self._shown(row.external_id, row.url) for row in rows],
                "url": [self._shown(row.url, row.url) for row in rows],
                "reason": [row.reason for row in rows],
                "retriable": [row.retriable for row in rows],
                "detail": [row.detail for row in rows],
                "version": [self._version] * len(rows),
                "fingerprint": [self._fingerprint] * len(rows),
            }
        )

    def close(self) -> list[tuple[Path, Written]]:
        """All parts, in order."""
        return self._parts.close()

    def abandon(self) -> None:
        """Closes a part that will not be used."""
        self._parts.abandon()

    def _shown(self, text: str, url: str) -> str:
        return redact_query(text) if self._redact and text == url else text


def held_detail(batch: int) -> str:
    """What the row of a held ref says of itself: the batch that it is of."""
    return f"batch {batch}"


def held_items(path: Path, batch: int) -> frozenset[tuple[int, int]]:
    """(partner, item as unsigned) of the rows of a delivered file that are `held`, and of this batch.

    Raises FormatError for what is no such file.
    """
    try:
        table = pq.read_table(path, columns=["partner_id", "item_id", "reason", "detail"])
        cells = list(zip(*(table.column(name).to_pylist() for name in table.schema.names), strict=True))
    except ARROW_ERRORS as error:
        raise FormatError(
            "a file of failures cannot be read", damage_of(error), "find the damaged file with hathi verify --deep"
        ) from error
    mine = held_detail(batch)
    return frozenset((partner, unsigned(item)) for partner, item, *why in cells if why == ["held", mine])


def hosts_and_reasons(table: pa.Table) -> Counter[Behind]:
    """How many rows each host and reason have, by columns; `table` has `url` and `reason`."""
    hosts = pc.utf8_lower(pc.fill_null(pc.struct_field(pc.extract_regex(table.column("url"), _HOST), "host"), ""))
    pairs = pa.table({"host": hosts, "reason": table.column("reason")})
    sums = pairs.group_by(["host", "reason"]).aggregate([([], "count_all")])
    found: Counter[Behind] = Counter()
    for row in sums.to_pylist():
        found[row["host"][:_HOST_LENGTH], row["reason"]] += row["count_all"]
    return found


def count_failures(name: str, stream: BinaryIO, rows: int) -> Counter[Behind]:
    """Hosts and reasons (or UNASKED) of a delivered file's first row groups, until `rows` are read.

    Raises FormatError.
    """
    found: Counter[Behind] = Counter()
    try:
        file = pq.ParquetFile(stream)
        for group in range(file.metadata.num_row_groups):
            if found.total() >= rows:
                break
            table = file.read_row_group(group, columns=["url", "reason", "detail"], use_threads=False)
            unasked = pc.and_(pc.equal(table["reason"], "host_busy"), pc.starts_with(table["detail"], BREAKER_OPEN))
            reasons = pc.if_else(unasked, UNASKED, table["reason"])
            found += hosts_and_reasons(pa.table({"url": table["url"], "reason": reasons}))
    except ARROW_ERRORS as error:
        raise FormatError("a file of failures is damaged", f"{name}: {damage_of(error)}", "hathi verify") from error
    return found
