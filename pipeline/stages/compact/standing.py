"""What stands on a lake: delivered folders, and the partners' current tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from pipeline.codec.delivered.forms import tables as delivered_tables
from pipeline.errors import NotFound, PermanentError
from pipeline.ledger.bodies import read_body
from pipeline.ledger.deliveries import CurrentManifest, IndexCurrent, PartnerManifest
from pipeline.ledger.layout import MANIFEST, Root, ShipmentName, number_of
from pipeline.ledger.listing import names_under
from pipeline.ledger.protocol import law
from pipeline.stages.compact.merging import Input
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
    return names_under(lake, f"{root.root}/")


def partners(lake: Lake, root: Root, name: ShipmentName) -> list[int]:
    """The partners that a shipment has a folder for."""
    return _numbers(lake, f"{root.shipment(name)}/", str)


def by_partner(
    lake: Lake, root: Root, only_partner: int | None = None, safe_point: Callable[[], None] = lambda: None
) -> dict[int, list[ShipmentName]]:
    """The shipments that have a folder for each partner, in the order of names.  Costs a listing for each shipment."""
    found: dict[int, list[ShipmentName]] = {}
    for name in shipments(lake, root):
        safe_point()
        for one in partners(lake, root, name):
            if only_partner in (None, one):
                found.setdefault(one, []).append(name)
    return found


def inputs_of(
    lake: Lake, root: Root, partner: int, current: Current | None, bodies: Mapping[ShipmentName, PartnerManifest]
) -> Iterator[Input]:
    """The files of a partner's table and of deltas beside it, ready to be merged.

    Raises PermanentError for what was delivered as text alone, LawBroken for a manifest that does not add up.
    """
    if current is not None:
        for file in delivered_tables(current.body.files):
            path = f"{current.folder}/{file.name}"
            yield Input(path, partial(lake.open, path), None, file.rows, current.body.numbers)
    for name, body in bodies.items():
        folder = root.partner(name, partner)
        files = delivered_tables(body.files)
        if not files:
            raise PermanentError(
                f"{folder} has no Parquet files", "it was delivered as text alone", "add parquet to the set's formats"
            )
        law(f"{folder}", body.features, rows=sum(file.rows for file in files))
        for file in files:
            path = f"{folder}/{file.name}"
            yield Input(path, partial(lake.open, path), str(name), file.rows, body.numbers)


def delta(lake: Lake, root: Root, name: ShipmentName, partner: int) -> PartnerManifest:
    """What a delivered folder says of itself.  Raises NotFound or FormatError."""
    where = f"{root.partner(name, partner)}/{MANIFEST}"
    return read_body(lake, PartnerManifest, where)


def tables(lake: Lake, root: Root) -> dict[int, list[int]]:
    """The numbers of each partner's tables, ascending."""
    return {partner: numbers(lake, root, partner) for partner in _numbers(lake, f"{root.currents}/", str)}


def numbers(lake: Lake, root: Root, partner: int) -> list[int]:
    """The numbers of one partner's tables, ascending."""
    return _numbers(lake, f"{root.currents_of(partner)}/", "{:010d}".format)


def newest(lake: Lake, root: Root, partner: int) -> Current | None:
    """The partner's current table."""
    found = numbers(lake, root, partner)
    return table(lake, root, partner, found[-1]) if found else None


def table(lake: Lake, root: Root, partner: int, number: int) -> Current | None:
    """One table; None where none stands.  Raises PermanentError where something else does."""
    folder = root.current(partner, number)
    where = f"{folder}/{MANIFEST}"
    try:
        body = read_body(lake, CurrentManifest, where)
    except NotFound:
        if lake.stat(folder) is None:
            return None
        raise PermanentError(
            f"Alert: the folder {folder} has no manifest",
            "Hathi did not write it, or it is damaged",
            "move the folder away",
        ) from None
    return Current(folder, body)


def _numbers(lake: Lake, prefix: str, spelt: Callable[[int], str]) -> list[int]:
    """The folders below a prefix that are numbers, spelt as we spell them; others are not ours."""
    names = (entry.key.removeprefix(prefix) for entry in lake.list(prefix, folders=True))
    found = ((number_of(name[:-1]), name) for name in names if name.endswith("/"))
    return sorted(number for number, name in found if number is not None and f"{spelt(number)}/" == name)
