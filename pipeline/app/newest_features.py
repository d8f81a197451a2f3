"""The newest feature of each item under a root, batch by batch: what `hathi.read_features` and `--out` give."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError
from pipeline.ledger.layout import Root
from pipeline.settings import Hdfs
from pipeline.stores.opening import open_place
from pipeline.stores.store import Lake

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.stages.compact.nets import InUse

ITEM = "item_id"


def newest_features(
    lake: Lake,
    root: Root,
    where: str,
    *,
    partner: int | None = None,
    columns: Sequence[str] | None = None,
    fingerprint: str = "current",
) -> pa.RecordBatchReader:
    """An Arrow reader: one row for each partner and item, sorted by them; item ids are uint64, features float32.
    Behind them stand the columns of an own list that were kept.

    where: the root as a person named it.  partner: only this one.  columns: only these.
    fingerprint: of which net: "current", "all", or the first digits of one (`stages/compact/nets.py`).
    Raises ConfigError where there is nothing to read or no such column, FormatError for a file that is damaged.
    """
    import pyarrow as pa

    from pipeline.app.kept_columns import kept_under
    from pipeline.stages.compact.merging import table_schema
    from pipeline.stages.compact.reading import delivered_by_partner, newest_rows

    found = delivered_by_partner(lake, root, partner, fingerprint)
    if not found:
        whose = "" if partner is None else f" of partner {partner}"
        raise ConfigError(
            f"no features{whose} under {where}",
            "there is no folder SHIPMENT/PARTNER with features",
            "name the root: the folder of --features, or a set's root on the lake",
        )
    full = table_schema(found[0].dim)
    item = full.get_field_index(ITEM)
    full = full.set(item, pa.field(ITEM, pa.uint64(), nullable=False))
    own = full.names
    kept = kept_under(lake, root) if columns is None or not set(columns) <= set(own) else None
    for field in kept.fields if kept is not None else ():
        full = full.append(field)
    names = full.names if columns is None else list(columns)
    if unknown := [name for name in names if name not in full.names]:
        raise ConfigError(f"no column {unknown[0]}", f"there are: {', '.join(full.names)}", "correct `columns`")
    schema = pa.schema([full.field(name) for name in names])

    def batches() -> Iterator[Any]:
        asked = [name for name in names if name not in own]
        beside = kept.beside(asked) if kept is not None and asked else None
        for rows in newest_rows(found):
            unsigned = pa.array(rows.column(ITEM).combine_chunks().to_numpy().view("uint64"))
            rows = rows.set_column(item, full.field(ITEM), unsigned)
            if beside is not None:
                for name, column in zip(asked, beside.of(rows)[0].columns, strict=True):
                    rows = rows.append_column(full.field(name), column)
            yield from rows.select(names).cast(schema).to_batches()
        if kept is not None:
            kept.close()

    return pa.RecordBatchReader.from_batches(schema, batches())


def items_by_net(lake: Lake, root: Root, where: str) -> tuple[InUse, dict[str, int]]:
    """The net in use, and items by the fingerprint of their newest feature.  Raises as `newest_features`."""
    from pipeline.stages.compact.nets import net_in_use

    items: Counter[str] = Counter()
    for batch in newest_features(lake, root, where, columns=["fingerprint"], fingerprint="all"):
        items.update(batch.column(0).to_pylist())
    return net_in_use(lake, root), dict(sorted(items.items()))


def place_at(where: str, hdfs: Hdfs) -> tuple[Lake, Root]:
    """The lake that a root lies on, and the root on it.  where: a path, or hdfs://host:port/path.

    Raises ConfigError where there is none.
    """
    if "://" in where and not where.startswith("file://"):
        above, _, name = where.rstrip("/").rpartition("/")
        if not name or above.endswith("/"):
            raise ConfigError(f"no folder in {where}", "", "name the root: hdfs://host:port/folder/of/features")
        return open_place(above, hdfs), Root(name)
    path = os.path.abspath(os.path.expanduser(where.removeprefix("file://")))
    open_place(path, hdfs)  # says so where it is no folder
    return open_place(os.path.dirname(path), hdfs, Path(path, "_tmp")), Root(os.path.basename(path))
