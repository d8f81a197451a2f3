"""What a root delivers, as one sequence of rows: for each partner and item the feature of the greatest shipment.

It reads as a consumer does: partners' current tables where there are such, the deltas that they do not cover, and the
manifests that say what belongs to each.  A block of each file is in memory, whatever a root holds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.amounts import counted
from pipeline.codec.delivered.parquet import SHIPMENT
from pipeline.errors import ConfigError, FormatError, NotFound
from pipeline.ledger.layout import MANIFEST, Root
from pipeline.stages.compact.merging import Input, Target, merged, table_schema
from pipeline.stages.compact.nets import ALL, chosen, stands_of
from pipeline.stages.compact.standing import by_partner, delta, inputs_of, newest, tables
from pipeline.stages.compact.writing import fewer
from pipeline.stores.store import Lake


@dataclass(frozen=True)
class Delivered:
    """A partner's files.  names: the shipments of all their rows, ascending."""

    partner: int
    dim: int
    inputs: tuple[Input, ...]
    names: tuple[str, ...]


def delivered_by_partner(
    lake: Lake, root: Root, only_partner: int | None = None, fingerprint: str = ALL
) -> list[Delivered]:
    """Every partner that has features, in the order of their numbers.  Costs a listing for each shipment.

    fingerprint: of which net, as `nets.chosen` takes it; of one net a partner has rows even where a newer net's stand
    in its table: they are in folders that the table covers, as long as these are not pruned.
    Raises FormatError for a folder without a manifest, ConfigError where features have several lengths.
    """
    folders = by_partner(lake, root, only_partner)
    compacted = [partner for partner in tables(lake, root) if only_partner in (None, partner)]
    currents = {partner: newest(lake, root, partner) for partner in sorted({*folders, *compacted})}
    net = None
    if fingerprint != ALL:
        known = {one: current for one, current in currents.items() if current is not None}
        prints = {print_ for current in known.values() for print_ in current.body.fingerprints}
        net = chosen(fingerprint, stands_of(lake, root, folders, known), prints, alone=only_partner is not None)
    found = []
    for partner, current in currents.items():
        covered = set(current.body.covers) if current else set()
        pure = current is None or net is None or current.body.fingerprints.keys() <= {net}
        bodies = {}
        for name in folders.get(partner, ()):
            if str(name) in covered and pure:
                continue
            try:
                body = delta(lake, root, name, partner)
            except NotFound as error:
                where = f"{root.partner(name, partner)}/{MANIFEST}"
                raise FormatError(
                    "a delivered folder is incomplete", f"no {where}", "copy whole folders, with their manifests"
                ) from error
            if body.features and net in (None, body.fingerprint) and (net is not None or str(name) not in covered):
                bodies[name] = body
        if current is not None and net is not None and net not in current.body.fingerprints:
            current = None
        inputs = tuple(replace(one, fingerprint=net) for one in inputs_of(lake, root, partner, current, bodies))
        if inputs:
            dim = bodies[max(bodies)].dim if bodies else current.body.dim if current else 0
            found.append(Delivered(partner, dim, inputs, tuple(sorted(covered | {str(name) for name in bodies}))))
    lengths = {one.dim: one.partner for one in found}
    if len(lengths) > 1:
        some = ", ".join(f"partner {partner}: {counted(dim, 'value')}" for dim, partner in sorted(lengths.items()))
        raise ConfigError("the features have different lengths", some, "read one partner at a time: partner=N")
    return found


def newest_rows(found: list[Delivered]) -> Iterator[pa.Table]:
    """The rows that win, in blocks, by partner and unsigned item; the columns of `table_schema`.

    Features are float16 where every file of a partner has such, else float32.

    Raises FormatError for a file that is damaged or is not what its manifest says.
    """
    for one in found:
        with tempfile.TemporaryDirectory(prefix="hathi-merge-") as folder:
            target = Target(one.partner, one.names, one.dim)
            inputs = fewer(Path(folder), one.inputs, target, lambda rows: None)
            names = pa.array(one.names, pa.string())
            for rows in merged(inputs, target):
                shipments = names.take(pa.array(np.asarray(rows.ranks)))
                yield rows.table.append_column(table_schema(one.dim).field(SHIPMENT), shipments)
