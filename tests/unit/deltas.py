"""Delivered folders as `deliver` leaves them, with vectors of the test's own choice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.codec.delivered.forms import TextFiles
from pipeline.codec.delivered.parquet import FeaturesWriter
from pipeline.codec.hashed_file import Written
from pipeline.ledger.deliveries import IndexFile, PartnerManifest
from pipeline.ledger.layout import MANIFEST, SUCCESS, Root, ShipmentName
from pipeline.records import Numbers
from tests.unit.codec.rows import feature

ROOT = Root("features")
F = "f" * 64


def name_of(day: int, generation: int = 0) -> ShipmentName:
    """A shipment of a day in January."""
    return ShipmentName(f"202601{day:02d}T000000Z", 0, 0, generation, f"{day:06x}{generation:06x}")


def deliver(
    lake: Path,
    name: ShipmentName,
    vectors: Mapping[int, np.ndarray],
    partner: int = 7,
    *,
    fingerprint: str = F,
    text: bool | str = False,
    urls: Mapping[int, str] | None = None,
    externals: Mapping[int, str] | None = None,
    group: int = 7,
    numbers: Numbers = "float32",
    said: Mapping[str, object] | None = None,
) -> None:
    """One partner's folder.  text: as text alone, in a form.  group: rows of a row group; parts are small.
    said: fields of the manifest beside those of an older Hathi.
    """
    folder = lake / ROOT.partner(name, partner)
    folder.mkdir(parents=True)
    items = sorted(vectors)
    matrix = np.stack([vectors[item] for item in items]).astype(np.float32) if items else np.zeros((0, 3), np.float32)
    files: list[tuple[Path, Written]] = []
    if text:
        lines = TextFiles(folder, ["text" if text is True else text])
        lines.write(partner, items, matrix)
        files = lines.close()
    elif items:
        writer = FeaturesWriter(folder / "features", matrix.shape[1], name.version, fingerprint, 4000, numbers)
        for first in range(0, len(items), group):
            rows = [
                feature(
                    partner,
                    item,
                    number,
                    url=(urls or {}).get(item, f"http://a/{item}"),
                    external_id=(externals or {}).get(item, f"SKU-{item}"),
                )
                for number, item in enumerate(items[first : first + group])
            ]
            writer.write(rows, matrix[first : first + group])
        files = writer.close()
    body = PartnerManifest(
        shipment=str(name),
        partner_id=partner,
        set="demo",
        fingerprint=fingerprint,
        dim=matrix.shape[1],
        numbers=numbers,
        version=name.version,
        round=name.round,
        generation=name.generation,
        features=len(items),
        failures=0,
        files=tuple(
            IndexFile(name=path.relative_to(folder).as_posix(), size=w.size, sha256=w.sha256, rows=w.rows)
            for path, w in files
        ),
    ).model_copy(update=dict(said or {}))
    (folder / MANIFEST).write_bytes(body.encode())
    (folder / SUCCESS).touch()
