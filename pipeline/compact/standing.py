"""What stands on a lake: delivered folders, and the partners' current tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline import manifest
from pipeline.errors import NotFound, PermanentError
from pipeline.layout import MANIFEST, Root, ShipmentName
from pipeline.manifest import CurrentManifest, IndexCurrent, PartnerManifest
from pipeline.stores.store import Lake


@dataclass(frozen=True)
class Current:
    """A partner's table.  folder: on the lake."""

    folder: str
    body: CurrentManifest

    def entry(self) -> IndexCurrent:
        """How the index names it."""
        _, _, below = self.folder.rpartition("/_current/")
        return IndexCurrent(
            folder=f"_current/{below}",
            number=self.body.number,
            files=self.body.files,
            features=self.body.features,
            newest=max(self.body.covers),
        )


def shipments(lake: Lake, root: Root) -> Iterator[ShipmentName]:
    """Those with a folder under the root, in the order of names."""
    prefix = f"{root.root}/"
    for entry in lake.list(prefix, folders=True):
        try:
            yield ShipmentName.parse(entry.key.removeprefix(prefix).rstrip("/"))
        except ValueError:
            continue  # the index, or not ours


def partners(lake: Lake, root: Root, name: ShipmentName) -> list[int]:
    """The partners that a shipment has a folder for."""
    return _numbers(lake, f"{root.shipment(name)}/")


def delta(lake: Lake, root: Root, name: ShipmentName, partner: int) -> PartnerManifest:
    """What a delivered folder says of itself.  Raises NotFound or FormatError."""
    where = f"{root.partner(name, partner)}/{MANIFEST}"
    return manifest.read(PartnerManifest, lake.get(where), where)


def tables(lake: Lake, root: Root) -> dict[int, list[int]]:
    """The numbers of each partner's tables, ascending."""
    return {partner: numbers(lake, root, partner) for partner in _numbers(lake, f"{root.currents}/")}


def numbers(lake: Lake, root: Root, partner: int) -> list[int]:
    """The numbers of one partner's tables, ascending."""
    return _numbers(lake, f"{root.currents_of(partner)}/")


def newest(lake: Lake, root: Root, partner: int) -> Current | None:
    """The partner's current table."""
    found = numbers(lake, root, partner)
    return table(lake, root, partner, found[-1]) if found else None


def table(lake: Lake, root: Root, partner: int, number: int) -> Current | None:
    """One table; None where none stands.  Raises PermanentError where something else does."""
    folder = root.current(partner, number)
    where = f"{folder}/{MANIFEST}"
    try:
        body = manifest.read(CurrentManifest, lake.get(where), where)
    except NotFound:
        if lake.stat(folder) is None:
            return None
        raise PermanentError(
            f"Alert: {folder} stands without a manifest", "not written by Hathi, or damaged", "move it away"
        ) from None
    return Current(folder, body)


def _numbers(lake: Lake, prefix: str) -> list[int]:
    names = (entry.key.removeprefix(prefix) for entry in lake.list(prefix, folders=True))
    return sorted(int(name[:-1]) for name in names if name.endswith("/") and name[:-1].isdecimal())
