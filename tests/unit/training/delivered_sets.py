"""Roots as `deliver` leaves them, with images or vectors and failures of the test's own choice."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.codec.delivered.failures import FailuresWriter
from pipeline.codec.delivered.parquet import FeaturesWriter
from pipeline.codec.shards import FeatureRow
from pipeline.ledger.deliveries import IndexFile, PartnerManifest
from pipeline.ledger.layout import MANIFEST, SUCCESS, Root, ShipmentName
from pipeline.records import item_id_of
from tests.unit.codec.rows import failure, feature
from tests.unit.deltas import name_of

PRINT = "f" * 64


def deliver(
    lake: Path,
    day: int,
    values: Mapping[str, bytes | np.ndarray],
    failures: Mapping[str, str] | None = None,
    *,
    partner: int = 7,
    fingerprint: str = PRINT,
    source: str = "",
) -> ShipmentName:
    """One partner's folder of a day.  values: images or vectors by external id; failures: reasons by external id."""
    name, root = name_of(day), Root("out")
    folder = lake / root.partner(name, partner)
    folder.mkdir(parents=True)
    order = sorted(values, key=item_id_of)
    dim = max((len(one) for one in values.values() if isinstance(one, np.ndarray)), default=0)
    rows = [_row(partner, at, external, values[external]) for at, external in enumerate(order)]
    files = []
    if rows:
        writer = FeaturesWriter(folder / "features", dim, name.version, fingerprint)
        matrix = np.array([values[one] if dim else [] for one in order], np.float32).reshape(len(rows), dim)
        for first in range(0, len(rows), 64):
            writer.write(rows[first : first + 64], matrix[first : first + 64])
        files += writer.close()
    if failures:
        lost = FailuresWriter(folder / "failures", name.version, fingerprint, True)
        some = sorted(failures, key=item_id_of)
        lost.write([failure(partner, item_id_of(one), at, external_id=one, reason=failures[one])
                    for at, one in enumerate(some)])  # fmt: skip
        files += lost.close()
    body = PartnerManifest(
        shipment=str(name),
        partner_id=partner,
        set="pictures",
        fingerprint=fingerprint,
        source=source,
        delivered=name.version if source else "",
        last=bool(source),
        dim=dim,
        version=name.version,
        round=0,
        generation=0,
        features=len(rows),
        failures=len(failures or {}),
        files=tuple(
            IndexFile(name=path.relative_to(folder).as_posix(), size=w.size, sha256=w.sha256, rows=w.rows)
            for path, w in files
        ),
    )
    (folder / MANIFEST).write_bytes(body.encode())
    (folder / SUCCESS).touch()
    return name


def _row(partner: int, at: int, external: str, value: bytes | np.ndarray) -> FeatureRow:
    image = value if isinstance(value, bytes) else None
    content = value if isinstance(value, bytes) else np.asarray(value, np.float32).tobytes()
    return feature(
        partner, item_id_of(external), at, external_id=external, image=image,
        content_sha256=hashlib.sha256(content).digest(),
    )  # fmt: skip
