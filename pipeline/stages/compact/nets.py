"""Features of several nets under one root: which of them a reader takes, so that two never meet in one table by chance.

After a promotion features of two nets stand side by side, until each partner's newest snapshot was computed anew.
Which net is the current one follows from the folders that stand: nobody has to say it, and nothing has to be written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pipeline.amounts import counted
from pipeline.errors import ConfigError, NotFound
from pipeline.ledger.layout import Root, ShipmentName
from pipeline.stages.compact.standing import Current, delta
from pipeline.stores.store import Lake

CURRENT, ALL = "current", "all"
"""What a reader may say in place of a fingerprint."""


@dataclass(frozen=True)
class Stand:
    """A delivered folder: whose, and which net made its features."""

    partner: int
    name: ShipmentName
    fingerprint: str


def stands_of(
    lake: Lake,
    root: Root,
    folders: Mapping[int, Iterable[ShipmentName]],
    currents: Mapping[int, Current],
    *,
    every: bool = False,
) -> Iterator[Stand]:
    """Of each partner the folders of its two newest versions, which decide; of one without folders its table.

    folders: by partner, as they stand; currents: tables.  every: the folders of all versions.  Costs their manifests.
    """
    for partner, names in folders.items():
        versions = sorted({name.version for name in names})[-2:]
        for name in names:
            if every or name.version in versions:
                try:
                    body = delta(lake, root, name, partner)
                except NotFound:
                    continue  # pruned meanwhile, or incomplete: who reads it says so
                if body.features or body.failures:
                    yield Stand(partner, name, body.fingerprint)
    for partner, current in currents.items():
        if not folders.get(partner) and current.body.fingerprints:  # its folders were pruned: most of its rows decide
            prints = current.body.fingerprints
            most = max(prints, key=lambda one: (prints[one], one))
            yield Stand(partner, ShipmentName.parse(max(current.body.covers)), most)


def holders(stands: Iterable[Stand]) -> frozenset[str]:
    """Of one partner's folders: the nets under which its newest snapshot stands whole.

    A snapshot of fewer parts than another of the two newest ones is still on its way.
    """
    parts: dict[tuple[str, str], set[int]] = defaultdict(set)
    for one in stands:
        parts[one.fingerprint, one.name.version].add(one.name.part)
    most = max(map(len, parts.values()))
    whole = [pair for pair, known in parts.items() if len(known) == most]
    version = max(version for _, version in whole)
    return frozenset(print_ for print_, of in whole if of == version)


def current_net(stands: Iterable[Stand]) -> str:
    """The net under which the newest snapshots of most partners stand whole; of several the one that came last.

    "" where nothing stands.  While a back-fill runs this is the net that was in use before, for each reader alike.
    """
    by_partner: dict[int, list[Stand]] = defaultdict(list)
    for one in stands:
        by_partner[one.partner].append(one)
    held: dict[str, int] = defaultdict(int)
    last: dict[str, int] = defaultdict(int)
    names: dict[str, str] = {}
    for mine in by_partner.values():
        for print_ in holders(mine):
            held[print_] += 1
        last[max(mine, key=lambda one: str(one.name)).fingerprint] += 1
        for one in mine:
            names[one.fingerprint] = max(names.get(one.fingerprint, ""), str(one.name))
    return max(names, key=lambda one: (held[one], last[one], names[one]), default="")


def chosen(wanted: str, stands: Iterable[Stand], known: Iterable[str]) -> str | None:
    """The fingerprint that a reader's word means; None for all, and where nothing stands.

    wanted: `current`, `all`, or the first digits of a fingerprint.  known: those of tables.  Raises ConfigError.
    """
    if wanted == ALL:
        return None
    stands = list(stands)
    if wanted == CURRENT:
        return current_net(stands) or None
    prints = sorted({*(one.fingerprint for one in stands), *known})
    found = [one for one in prints if one.startswith(wanted)] if wanted else []
    if len(found) != 1:
        what = (
            f"no features of fingerprint {wanted!r}"
            if not found
            else f"{wanted!r} begins {counted(len(found), 'fingerprint')}"
        )
        raise ConfigError(what, f"there are: {', '.join(one[:12] for one in prints)}", 'or say "current" or "all"')
    return found[0]
