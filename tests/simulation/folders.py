"""The world of the simulation in folders, so that damage can be done to files."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pipeline.ledger.protocol import Context
from pipeline.operations.verify import Finding, roots, verify
from pipeline.operations.verify.repair import repair
from pipeline.stages import opening, publishing
from pipeline.stores.local import LocalStore
from tests.simulation.world import HandClock, World, settings_of

HEADER = "partner_id,external_id,url\n"


def url(kind: str, number: int = 0) -> str:
    return f"http://shop.example/{kind}-{number}"


@dataclass
class Folders(World):
    """The world of the simulation, in folders: damage is done to files."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.hand = HandClock(time.time())

    @property
    def top(self) -> Path:
        return self.spill.parent

    def context(self, name: str = "box.one") -> Context:
        bucket = LocalStore(self.top / "bucket", fsync=False, now=lambda: self.hand.at)
        lake = LocalStore(self.top / "lake", fsync=False, now=lambda: self.hand.at)
        return replace(super().context(name), bucket=bucket, lake=lake)

    def put_refs(self, name: str, text: str) -> None:
        path = self.top / "lake" / "refs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (self.hand.at, self.hand.at))

    def in_bucket(self, pattern: str) -> Path:
        return sorted((self.top / "bucket").glob(pattern))[0]

    def on_lake(self, pattern: str) -> Path:
        return sorted((self.top / "lake").glob(pattern))[0]

    def look(self, *, deep: bool = False) -> list[Finding]:
        return list(verify(self.context("box.verify"), deep=deep))

    def mend(self) -> list[str]:
        context = self.context("box.repair")
        return [one.what for one in repair(context, roots(context))]


def world_of(tmp_path: Path, *lines: str, **changes: object) -> Folders:
    (tmp_path / "spill").mkdir()
    world = Folders(tmp_path / "spill", settings_of(**changes))
    world.put_refs("a.csv", HEADER + "".join(f"{line}\n" for line in lines))
    world.hand.at += 10
    return world


def hold(world: Folders) -> None:
    """Each attempt at the batch is lost, until it is held."""
    turns = world.turns()
    turns.take("ship")
    original = publishing.publish  # an attempt that dies on the way writes nothing

    def die(*args: object) -> None:
        raise KeyboardInterrupt

    try:
        publishing.publish = die  # type: ignore[assignment]
        opening.abandon, abandon = (lambda context, task: None), opening.abandon
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                turns.take("compute")
    finally:
        publishing.publish, opening.abandon = original, abandon
    world.run(turns)
