"""Delivered features: reading them, the newest of each item."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError
from pipeline.ledger.layout import Root
from pipeline.settings import Hdfs
from pipeline.stores.opening import open_place
from pipeline.stores.store import Lake

if TYPE_CHECKING:
    import pyarrow as pa

ITEM = "item_id"


def read_features(
    folder: str | os.PathLike[str],
    *,
    partner: int | None = None,
    columns: Sequence[str] | None = None,
    hdfs: Mapping[str, object] | None = None,
) -> pa.Table:
    """The delivered features under a root, one row for each partner and item: the feature that wins.

    Of each item that is the one in the greatest shipment name, whatever was delivered when: retries, back-fills and
    reruns stand where they belong, and failures hide nothing.  Current tables (`hathi compact`) are used where
    there are such.  Nothing half is read: a folder appears whole, and its manifest says what belongs to it.

    folder: the root, which is the folder of `--features` or a set's `root` on the lake: a path, or hdfs://host:port/path.
    partner: only this one.  columns: only these.
    hdfs: settings of `[lakes.NAME.hdfs]` for an HDFS root, e.g. {"user": "me"} or {"authentication": "kerberos"}.
    Returns an Arrow table sorted by partner and item: partner_id, item_id (uint64, as people write it), external_id,
    url, content_sha256, fetched_at, version, fingerprint, features (float32 lists of one length, of float16 too), etag,
    last_modified, shipment.  Features are comparable where their fingerprints are equal.
    Raises `Error` where there is nothing to read, or where a file is damaged; it names the file.

    >>> import hathi
    >>> table = hathi.read_features("out")
    >>> sorted(table["external_id"].to_pylist())
    ['SKU-1', 'SKU-2']
    >>> matrix = table["features"].combine_chunks().flatten().to_numpy().reshape(table.num_rows, -1)
    >>> matrix.shape
    (2, 128)
    """
    return scan_features(folder, partner=partner, columns=columns, hdfs=hdfs).read_all()


def scan_features(
    folder: str | os.PathLike[str],
    *,
    partner: int | None = None,
    columns: Sequence[str] | None = None,
    hdfs: Mapping[str, object] | None = None,
) -> pa.RecordBatchReader:
    """As `read_features`, but batch by batch: for more features than memory holds.

    Returns an Arrow reader: iterate over its batches, or hand it to DuckDB, Polars or `pyarrow.dataset.write_dataset`.

    >>> import hathi
    >>> sum(batch.num_rows for batch in hathi.scan_features("out", columns=["item_id"]))
    2
    """
    import pyarrow as pa

    from pipeline.stages.compact.merging import table_schema
    from pipeline.stages.compact.reading import delivered_by_partner, newest_rows

    lake, root = _place(os.fspath(folder), Hdfs.model_validate(dict(hdfs or {})))
    found = delivered_by_partner(lake, root, partner)
    if not found:
        whose = "" if partner is None else f" of partner {partner}"
        raise ConfigError(
            f"no features{whose} under {os.fspath(folder)}",
            "there is no folder SHIPMENT/PARTNER with features",
            "name the root: the folder of --features, or a set's root on the lake",
        )
    full = table_schema(found[0].dim)
    item = full.get_field_index(ITEM)
    full = full.set(item, pa.field(ITEM, pa.uint64(), nullable=False))
    names = full.names if columns is None else list(columns)
    if unknown := [name for name in names if name not in full.names]:
        raise ConfigError(f"no column {unknown[0]}", f"there are: {', '.join(full.names)}", "correct `columns`")
    schema = pa.schema([full.field(name) for name in names])

    def batches() -> Iterator[Any]:
        for rows in newest_rows(found):
            unsigned = pa.array(rows.column(ITEM).combine_chunks().to_numpy().view("uint64"))
            yield from rows.set_column(item, full.field(ITEM), unsigned).select(names).cast(schema).to_batches()

    return pa.RecordBatchReader.from_batches(schema, batches())


def _place(where: str, hdfs: Hdfs) -> tuple[Lake, Root]:
    """The lake that a root lies on, and the root on it."""
    if "://" in where and not where.startswith("file://"):
        above, _, name = where.rstrip("/").rpartition("/")
        if not name or above.endswith("/"):
            raise ConfigError(f"no folder in {where}", "", "name the root: hdfs://host:port/folder/of/features")
        return open_place(above, hdfs), Root(name)
    path = os.path.abspath(os.path.expanduser(where.removeprefix("file://")))
    open_place(path, hdfs)  # says so where it is no folder
    return open_place(os.path.dirname(path), hdfs), Root(os.path.basename(path))
