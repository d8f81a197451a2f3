"""Delivered features: reading them, the newest of each item."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.app.newest_features import newest_features, place_at
from pipeline.settings import Hdfs

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray


def read_features(
    folder: str | os.PathLike[str],
    *,
    partner: int | None = None,
    columns: Sequence[str] | None = None,
    fingerprint: str = "current",
    hdfs: Mapping[str, object] | None = None,
) -> pa.Table:
    """The delivered features under a root, one row for each partner and item: the feature that wins.

    Of each item that is the one in the greatest shipment name, whatever was delivered when: retries, back-fills and
    reruns stand where they belong, and failures hide nothing.  Current tables (`hathi compact`) are used where
    there are such.  Nothing half is read: a folder appears whole, and its manifest says what belongs to it.

    folder: the root, which is the folder of `--features` or a set's `root` on the lake: a path, or hdfs://host:port/path.
    partner: only this one.  columns: only these.
    fingerprint: of which net.  "current" (default): of the one under which the newest snapshots stand whole; while a
    back-fill runs that is the net before, and afterwards the new one, for all items at once.  The first digits of a
    fingerprint: of that net alone, which is the way back.  "all": the newest of each item, whichever net made it;
    such vectors are not comparable.  `fingerprints` counts them.  With `partner` that partner's snapshots alone decide.
    hdfs: settings of `[lakes.NAME.hdfs]` for an HDFS root, e.g. {"user": "me"} or {"authentication": "kerberos"}.
    Returns an Arrow table sorted by partner and item: partner_id, item_id (uint64, as people write it), external_id,
    url, content_sha256, fetched_at, version, fingerprint, features (float32 lists of one length, of float16 too), etag,
    last_modified, reused, shipment.  Under the root of a set that
    keeps images a column `image` (binary) stands in the place of features.
    Raises `Error` where there is nothing to read, or where a file is damaged; it names the file.

    >>> import hathi
    >>> table = hathi.read_features("out")
    >>> sorted(table["external_id"].to_pylist())
    ['SKU-1', 'SKU-2']
    >>> frame = table.to_pandas()  # a data frame
    >>> len(frame["features"][0])
    128
    """
    return scan_features(folder, partner=partner, columns=columns, fingerprint=fingerprint, hdfs=hdfs).read_all()


def scan_features(
    folder: str | os.PathLike[str],
    *,
    partner: int | None = None,
    columns: Sequence[str] | None = None,
    fingerprint: str = "current",
    hdfs: Mapping[str, object] | None = None,
) -> pa.RecordBatchReader:
    """As `read_features`, but batch by batch: for more features than memory holds.

    Returns an Arrow reader: iterate over its batches, or hand it to DuckDB, Polars or `pyarrow.dataset.write_dataset`.

    >>> import hathi
    >>> sum(batch.num_rows for batch in hathi.scan_features("out", columns=["item_id"]))
    2
    """
    lake, root = place_at(os.fspath(folder), Hdfs.model_validate(dict(hdfs or {})))
    return newest_features(lake, root, os.fspath(folder), partner=partner, columns=columns, fingerprint=fingerprint)


def read_matrix(
    folder: str | os.PathLike[str],
    *,
    partner: int | None = None,
    fingerprint: str = "current",
    hdfs: Mapping[str, object] | None = None,
) -> tuple[pa.Table, NDArray[np.float32]]:
    """As `read_features`, in two parts for NumPy: who, and the values, row for row.

    Returns an Arrow table of all columns but `features`, and an array float32 (items, values), read-only.
    `ids.to_pandas()` is a data frame whose row n belongs to `matrix[n]`.  Images are no features: they are refused.

    >>> import hathi
    >>> ids, matrix = hathi.read_matrix("out")
    >>> matrix.shape, str(matrix.dtype)
    ((2, 128), 'float32')
    >>> sorted(ids["external_id"].to_pylist()), ids["item_id"].to_numpy().dtype.name
    (['SKU-1', 'SKU-2'], 'uint64')
    """
    from pipeline.codec.delivered.blocks import images_not_features
    from pipeline.codec.shards import IMAGE

    table = read_features(folder, partner=partner, fingerprint=fingerprint, hdfs=hdfs)
    if IMAGE in table.column_names:
        raise images_not_features(os.fspath(folder))
    matrix = table["features"].combine_chunks().flatten().to_numpy().reshape(table.num_rows, -1)
    return table.drop_columns(["features"]), matrix


@dataclass(frozen=True)
class Net:
    """Features of one net under a root.

    fingerprint: of the net.  items: whose newest feature it made; items that a newer net failed on are an older one's.
    current: whether `read_features` takes it where nobody says another one.
    lacks: of a net that came later, (partner, source) of what the current one holds and this one does not yet: when
    nothing is left of it, this net is the current one.
    """

    fingerprint: str
    items: int
    current: bool
    lacks: tuple[tuple[int, str], ...] = ()


def fingerprints(folder: str | os.PathLike[str], *, hdfs: Mapping[str, object] | None = None) -> list[Net]:
    """Which nets made the features under a root, and of how many items; the current one first.

    Reads ids and fingerprints of every item, no vectors.  Raises as `read_features`.

    >>> import hathi
    >>> [(one.items, one.current) for one in hathi.fingerprints("out")]
    [(2, True)]
    """
    from pipeline.app.newest_features import items_by_net

    lake, root = place_at(os.fspath(folder), Hdfs.model_validate(dict(hdfs or {})))
    nets, items = items_by_net(lake, root, os.fspath(folder))
    found = [Net(one, count, one == nets.fingerprint, nets.lacks.get(one, ())) for one, count in items.items()]
    return sorted(found, key=lambda one: (not one.current, -one.items, one.fingerprint))
