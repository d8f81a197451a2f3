"""What a run did, as a table and as JSON."""

from __future__ import annotations

import functools
import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.amounts import counted
from pipeline.cli.wiring.metering import Meter, Unmetered
from pipeline.codec.delivered.forms import FEATURES
from pipeline.ledger.layout import seconds_of
from pipeline.process.logs import escape
from pipeline.settings import Settings
from pipeline.settings.places import folder_of
from pipeline.sources.found import NAMED, NONE_LEFT, Left, Named
from pipeline.stage_names import AGGREGATE, DELIVER, STAGES
from pipeline.stages.tally import Tally
from pipeline.times import readable_time

LOAD = "import hathi; print(hathi.read_features({root}))"
SHOWN = 10
"""Paths of what is left out that a summary names."""


@dataclass
class Totals:
    """The sums of a run, by stage."""

    stages: dict[str, Tally] = field(default_factory=dict)
    open: int = 0
    """Shipments that other stages have still to work on."""
    waiting: int = 0
    next_due: str = ""
    held: int = 0
    brought: Left = NONE_LEFT
    """What a list that was copied here lacks, since it is not read."""
    named: dict[str, Named] = field(default_factory=dict)
    """By lake: what its sources named when ship last looked."""
    blocked: bool = False
    """The last round met problems: there is work that could not be done."""
    meter: Meter = field(default_factory=Unmetered, repr=False)
    """Told of each turn, too."""

    @property
    def problems(self) -> int:
        return sum(tally.problems for tally in self.stages.values())

    def add(self, stage: str, tally: Tally) -> None:
        self.stages.setdefault(stage, Tally()).add(tally)

    def of(self, stage: str) -> Tally:
        return self.stages.get(stage, Tally())

    @property
    def worked(self) -> bool:
        return any(tally.worked for tally in self.stages.values())

    @property
    def left(self) -> Left:
        """What lies at the sources of all lakes and is not read."""
        return functools.reduce(Left.plus, (one.left for one in self.named.values()), self.brought)

    @property
    def later(self) -> Left:
        """What is read once it is complete."""
        return functools.reduce(Left.plus, (one.later for one in self.named.values()), Left())

    @property
    def nothing_named(self) -> bool:
        """Ship looked at the sources, and there is nothing in them that can be read."""
        return bool(self.named) and not any(one.found for one in self.named.values())

    @property
    def counted(self) -> str:
        """The last stage that did something: features, failures and duplicates are those of its refs.

        An image that failed is no failure in what is delivered when another row of its item has a feature.
        """
        return next((stage for stage in (DELIVER, AGGREGATE) if self.of(stage).tasks), "compute")


def _rate(tally: Tally, number: int) -> float:
    return round(number / tally.seconds, 1) if tally.seconds else 0.0


def facts(totals: Totals) -> dict[str, Any]:
    """The figures that table and JSON show."""
    ship, compute, aggregate, deliver = (totals.of(s) for s in STAGES)
    counted = totals.of(totals.counted)
    return {
        "shipments": len(ship.shipments | aggregate.shipments | deliver.shipments),
        "refs": ship.counts.refs,
        "rejected": ship.counts.rejected,
        "images": compute.counts.refs,
        "counted_refs": counted.counts.refs,
        "counted_at": totals.counted,
        "features": counted.counts.features,
        "failures": dict(sorted(counted.reasons.items())),
        "duplicates": counted.counts.duplicates - counted.counts.alike,
        "damaged": counted.counts.damaged,
        "not_modified": counted.counts.not_modified,
        "equal_bytes": counted.counts.equal_bytes,
        "ids_alike": counted.counts.alike,
        "dropped": compute.dropped + aggregate.dropped,
        "delivered_bytes": deliver.bytes,
        "per_second": {
            "ship": _rate(ship, ship.counts.refs),
            "compute": _rate(compute, compute.counts.refs),
            "aggregate": _rate(aggregate, aggregate.counts.refs),
            "deliver": _rate(deliver, deliver.counts.features + deliver.counts.failures),
        },
        "seconds": {stage: round(tally.seconds, 3) for stage, tally in totals.stages.items()},
        "paced": dict(compute.paced),
        "problems": totals.problems,
        "open": totals.open,
        "waiting": totals.waiting,
        "next_due": totals.next_due,
        "held": totals.held,
        "left_out": totals.left.number,
        "left": dict(totals.left.first),
        "later": totals.later.number,
    }


def as_json(totals: Totals) -> str:
    """One line for programs."""
    return json.dumps(facts(totals), sort_keys=True)


def roots(settings: Settings) -> list[str]:
    """The folders (or lake paths) where features are delivered."""
    found = []
    for lake_name, lake in sorted(settings.lakes.items()):
        for _, one in sorted(settings.sets.items()):
            if one.lakes is None or lake_name in one.lakes:
                folder = folder_of(lake.url) if lake.url is not None else None
                base = str(lake.url or f"lake {lake_name}:" if folder is None else folder).rstrip("/")
                found.append(f"{base}/{one.folder}")
    return sorted(set(found))


def _near(path: str) -> str:
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path


def print_table(totals: Totals, settings: Settings, own: bool = False) -> None:
    """The end of a run, for people; on stdout.  own: over a list of one's own."""
    shown = facts(totals)
    if totals.worked:
        print("hathi run")
        for name, value in _rows(totals, shown):
            print(f"{name:<18}{value}")
    elif totals.blocked:
        print("nothing could be done; see the lines above")
    else:
        print("nothing to do" if not (own and totals.nothing_named) else "nothing can be read there")
    _print_left(totals, "/" if own else "")
    if own and "blocked" in shown["failures"] and not settings.fetch.allow_private:
        print("blocked: addresses in your network and ports other than 80 and 443; --allow-private lifts these rules")
    if shown["open"]:
        print(f"open: {counted(shown['open'], 'shipment')}; see `hathi status`")
    if shown["waiting"]:
        when = readable_time(seconds_of(shown["next_due"]))
        print(f"waiting: {counted(shown['waiting'], 'shipment')} of retries, the first due {when}")
    if shown["held"]:
        print(f"held: {counted(shown['held'], 'batch', 'batches')}; see `hathi quarantine list`")
    where = roots(settings)
    for root in where:
        print(f"features: {_near(root)}")
    if where and any(Path(where[0]).glob(f"*/*/{FEATURES}/*.parquet")):
        code = LOAD.format(root=json.dumps(_near(where[0]), ensure_ascii=False))
        print(f"load:     {shlex.join([_near(sys.executable), '-c', code])}")


def _print_left(totals: Totals, top: str) -> None:
    """What was not read: a person must not believe that it was.  top: before each path."""
    for left, text in ((totals.left, "left out: {}, not read"), (totals.later, "not read yet: {}")):
        if not left.number:
            continue
        print(text.format(counted(left.number, "file or folder", "files or folders")))
        for path, why in list(left.first.items())[:SHOWN]:
            print(f"  {escape(top + path)}: {why}")
        if left.number > SHOWN:
            print(f"  and {left.number - SHOWN:,} more; the log names the first {NAMED}")


def _rows(totals: Totals, shown: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "shipments", f"{shown['shipments']:,}"
    rejected = f", {counted(shown['rejected'], 'row')} rejected" if shown["rejected"] else ""
    yield "refs shipped", f"{shown['refs']:,}{rejected}"
    yield "images", f"{shown['images']:,}"
    if shown["counted_at"] != "compute" and shown["counted_refs"] != shown["refs"]:
        yield (
            "refs " + ("delivered" if shown["counted_at"] == "deliver" else "aggregated"),
            f"{shown['counted_refs']:,}",
        )
    yield "features", f"{shown['features']:,}"
    if shown["damaged"]:
        yield "  of torn JPEGs", f"  {shown['damaged']:,}  (a part of the picture is missing)"
    for name, what in (("not_modified", "the host said so"), ("equal_bytes", "the host sent the same bytes")):
        if shown[name]:
            yield "  used again", f"  {shown[name]:,}  (the image did not change: {what})"
    yield "failures", f"{sum(shown['failures'].values()):,}"
    for reason, number in shown["failures"].items():
        yield f"  {reason}", f"  {number:,}"
    yield "duplicates", f"{shown['duplicates']:,}"
    if shown["ids_alike"]:
        kept = 'one item has the feature; ids = "as_written" keeps them apart'
        yield "ids alike", f"{shown['ids_alike']:,}  (they differ in letter case or percent-coding only: {kept})"
    if shown["dropped"]:
        yield "dropped", f"{shown['dropped']:,}  (another host's result was there first)"
    for stage, unit in zip(STAGES, ("refs", "images", "rows", "rows"), strict=True):
        if stage in totals.stages:
            yield f"{stage} {unit}/s", f"{shown['per_second'][stage]:,.1f}"
    for limit in list(shown["paced"].values())[:SHOWN]:
        yield "pace", limit
