"""A child that a simulated worker begins: it writes what a training's child writes, as its plan and the clock say."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.process.child import Ended
from pipeline.service.work import preparing
from pipeline.service.work.shipping import MANIFEST
from tests.simulation.turn_loop import NotYet

EVERY = 3
"""Iterations between two snapshots."""
ASKED_TO_END, DIVERGED, KILLED = 75, 3, -9


class ToyChild:
    """One process.  now: the time.  It works on while its parent is frozen."""

    def __init__(self, command: Sequence[str], now: Callable[[], float], chance: random.Random, pid: int) -> None:
        self.pid, self._now = pid, now
        self._folder = Path(command[-1])
        self._out = self._folder / preparing.OUT
        self._steps: int = json.loads((self._folder / preparing.WORK).read_text())["steps"]
        snapshots = self._out / "snapshots"
        snapshots.mkdir(parents=True, exist_ok=True)
        self._at = max((int(one.name) for one in snapshots.iterdir()), default=0)
        self._second = chance.uniform(0.5, 3.0)
        self._due = now() + self._second
        self._breaks = self._at + chance.randint(1, 5) if chance.random() < 0.15 else 0
        self._code_then = chance.choice([KILLED, KILLED, 1, DIVERGED, DIVERGED])
        self._deaf, self._ends_at = chance.random() < 0.3, float("inf")
        self._parting = chance.uniform(0.0, 2.0)
        self._code: int | None = None

    def wait(self) -> Ended:
        """Raises NotYet while it lives."""
        self._go()
        if self._code is None:
            raise NotYet
        return Ended(self._code, b"toy")

    def end(self) -> None:
        self._go()
        if not self._deaf:
            self._ends_at = min(self._ends_at, self._now() + self._parting)

    def kill(self) -> None:
        self._go()
        if self._code is None:
            self._code = KILLED

    def _go(self) -> None:
        while self._code is None and min(self._due, self._ends_at) <= self._now():
            if self._ends_at <= self._due:
                self._snapshot()
                self._code = ASKED_TO_END
                return
            if self._at >= self._steps:  # it was killed between its last snapshot and its end
                self._code = 0
                return
            self._due += self._second
            self._at += 1
            if self._at == self._breaks:
                self._code = self._code_then
                return
            with (self._out / "metrics.jsonl").open("a") as file:
                file.write(json.dumps({"step": self._at, "time": self._due, "kind": "train", "values": {}}) + "\n")
            with (self._out / "log.txt").open("a") as file:
                file.write(f"{self.pid} is at {self._at}\n")
            if self._at % EVERY == 0 or self._at == self._steps:
                self._snapshot()
            if self._at >= self._steps:
                self._code = 0

    def _snapshot(self) -> None:
        folder = self._out / "snapshots" / str(self._at)
        if self._at and not folder.exists():
            folder.mkdir()
            (folder / "state").write_text(f"{self._folder.name[:29]} at {self._at}, by {self.pid}")
            (folder / MANIFEST).write_text("{}")
