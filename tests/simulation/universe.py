"""One schedule: two ships, two boxes, two delivers and a source that changes, under faults; what must hold is checked
at each change and at the end."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import manifest
from pipeline.clock import Clock, Process
from pipeline.errors import PipelineError
from pipeline.layout import Keys, ShipmentName
from pipeline.manifest import Done, End, Index, Out, Plan, Result
from pipeline.runner import Context, beat
from pipeline.settings import FeatureSet, Settings
from pipeline.stages.forms import Forms
from pipeline.state import child_of, next_of
from pipeline.turns import Turns
from tests.simulation.light import LIGHT, read_lines
from tests.simulation.memory import Disk, MemoryStore
from tests.simulation.scheduler import Killed, Proc, Scheduler
from tests.simulation.world import HandClock, StubServed, settings_of

KEYS = Keys("shop")
LINES = ("ok", "ok", "ok", "ok", "gone", "down", "later", "nan", "junk")


class Violation(AssertionError):
    """Something that must never be was seen."""


def simulated_settings() -> Settings:
    return settings_of(
        sets={
            "demo": FeatureSet(net="n", blob="b", root="features"),
            "other": FeatureSet(net="n", blob="b", root="features2"),
        },
        ship={"batch_refs": 3, "batches_per_shipment": 2, "gone_seconds": 3600.0, "open_shipments": 6},
        compute={"strikes": 1, "lost": 2, "strikes_alone": 2, "lost_alone": 3},
    )


@dataclass
class Universe:
    """A seeded world."""

    seed: int
    forms: Forms = LIGHT
    settings: Settings = field(default_factory=simulated_settings)
    hand: HandClock = field(default_factory=HandClock)

    def __post_init__(self) -> None:
        self.bucket = Disk(lambda: self.hand.at)
        self.lake = Disk(lambda: self.hand.at)
        self.scheduler = Scheduler(self.seed, self.hand)
        self.random = self.scheduler.random
        self.upgraded = False
        self.asked: dict[str, int] = {}
        self.once_written: set[str] = set()
        self.index_versions: dict[str, Index] = {}
        self.said: list[str] = []
        self._nonces = 0
        self._urls = 0
        self._spill = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").exists() else None)
        self.bucket.watch = self._bucket_changes
        self.lake.watch = self._lake_changes
        for kind, stages in (("ship", ("ship",)), ("box", ("compute", "aggregate")), ("deliver", ("deliver",))):
            for _ in range(2):
                self.scheduler.add(kind, lambda proc, stages=stages: self._daemon(proc, stages))  # type: ignore[misc]

    def close(self) -> None:
        self._spill.cleanup()

    # --- the processes ---

    def _daemon(self, proc: Proc, stages: tuple[str, ...]) -> None:
        """A daemon, or a box that cron starts again and again."""
        turns = self._turns(proc)
        while True:
            for stage in stages:
                try:
                    turns.take(stage)
                except PipelineError as error:
                    self.said.append(f"{proc.name} {stage}: {error}")
            self.scheduler.sleep(proc, 20.0 + 40.0 * self.random.random())

    def _turns(self, proc: Proc) -> Turns:
        context = self._context(proc)
        mute = MemoryStore(self.bucket)
        proc.beat = lambda: mute.put(KEYS.alive_hint(proc.name), b"")
        clock = context.process.clock
        fingerprint = {"demo": "ab" * 32, "other": "cd" * 32}
        if self.upgraded and proc.number == 0:
            fingerprint["demo"] = "ef" * 32

        def serve(name: str) -> StubServed:
            return StubServed(fingerprint[name], clock, self.asked, max_batches=3)

        return Turns(context, serve, strict=False)

    def _context(self, proc: Proc) -> Context:
        life = proc.lives
        gate = self.scheduler.gate(proc, life)
        clock = Clock(
            now=lambda: self.hand.at, monotonic=lambda: self.hand.at, sleep=lambda s: self.scheduler.sleep(proc, s)
        )
        return Context(
            lake_name="shop",
            bucket=MemoryStore(self.bucket, gate),
            lake=MemoryStore(self.lake, gate),
            settings=self.settings,
            process=Process(name=proc.name, clock=clock, nonce=self._nonce, gone=lambda name: False),
            spill=Path(self._spill.name),
            say=self.said.append,
            once=lambda key, text: self.said.append(text),
            forms=self.forms,
        )

    def _nonce(self) -> str:
        self._nonces += 1
        return f"{self._nonces:016x}"

    # --- the source ---

    def change_source(self) -> None:
        """A partner's file appears, changes or disappears."""
        name = f"refs/{self.random.choice('abc')}.csv"
        if self.random.random() < 0.15:
            self.lake.files.pop(name, None)
            return
        lines = []
        for _ in range(self.random.randint(0, 14)):
            self._urls += 1
            kind = self.random.choice(LINES)
            rest = f"{self.random.randint(1, 5)}-{self._urls}" if kind == "later" else str(self._urls)
            item = self.random.choice("pqrstuvwxyz")
            lines.append(f"{self.random.randint(7, 8)},{item},http://shop/{kind}-{rest}")
        if self.random.random() < 0.2:
            lines.insert(self.random.randint(0, len(lines)), "!")
        if self.random.random() < 0.1:
            lines.append("!!")
            lines.append("7,lost,http://shop/ok-0")
        self.lake.write(name, ("\n".join(lines) + "\n" if lines else "").encode())

    # --- a run ---

    def run(self, steps: int) -> None:
        """Faults for so many steps, then none until nothing is due any more."""
        changes = {self.random.randint(0, steps * 2 // 3) for _ in range(6)} | {0}
        upgrade = self.random.randint(0, steps)
        for number in range(steps):
            if number in changes:
                self.change_source()
            if number == upgrade:
                self.upgraded = True
            self.scheduler.step()
        self.scheduler.faults = False
        for proc in self.scheduler.procs:
            proc.frozen = 0.0
        quiet = 0
        while quiet < 60:
            self.scheduler.step()
            open_now = self._open_hints()
            if open_now or self.scheduler.late:
                quiet = 0
                if self.scheduler.steps > steps * 60 + 60_000:
                    raise Violation(f"does not come to rest: {open_now[:4]} {self.said[-6:]}")
                self._skip_to_next_due(open_now)
            else:
                quiet += 1
        self.check_at_rest()

    def _open_hints(self) -> list[str]:
        """Hints of shipments that exist; one whose plan was never written is prune's."""
        hints = [key for key in self.bucket.files if key.startswith(KEYS.open_hints)]
        return [key for key in hints if KEYS.plan(ShipmentName.parse(key.rpartition("/")[2])) in self.bucket.files]

    def _skip_to_next_due(self, hints: list[str]) -> None:
        """Nobody waits for days in real time."""
        from pipeline.layout import seconds_of

        dues = [hint.removeprefix(KEYS.open_hints).partition("/")[0] for hint in hints]
        if dues and all(due > "0001" and seconds_of(due) > self.hand.at for due in dues):
            self.hand.at = min(seconds_of(due) for due in dues)

    # --- what must hold at each change ---

    def _bucket_changes(self, what: str, key: str, content: bytes) -> None:
        if key.startswith(KEYS.commits):
            if what != "removed":
                if key in self.once_written:
                    raise Violation(f"written twice: {key}")
                self.once_written.add(key)
                if key.endswith("/out"):
                    self._one_fingerprint(key, content)
            else:
                raise Violation(f"nothing but prune deletes under c/: {key}")
        elif key.startswith(KEYS.open_hints) and what == "removed":
            name = ShipmentName.parse(key.rpartition("/")[2])
            if not self.closed(name):
                raise Violation(f"the hint of an open shipment was deleted: {name}")

    def _one_fingerprint(self, key: str, content: bytes) -> None:
        out = manifest.read(Out, content, key)
        name = ShipmentName.parse(key.split("/")[2])
        end = self.body(End, KEYS.end(name))
        assert end is not None
        for number in range(end.batches):
            result = self.body(Result, KEYS.result(name, out.fingerprint, number))
            if result is None or result.fingerprint != out.fingerprint:
                raise Violation(f"{key} mixes fingerprints")

    def _lake_changes(self, what: str, key: str, content: bytes) -> None:
        parts = key.split("/")
        if parts[0] not in ("features", "features2"):
            return
        if key.endswith("/outputByPartner"):
            self._index_goes_on(parts[0], key, content)
        elif len(parts) > 2 and not parts[1].startswith("_") and what != "moved":
            raise Violation(f"a delivered folder changes: {what} {key}")
        elif len(parts) > 2 and not parts[1].startswith("_") and key in self.lake.files:
            raise Violation(f"a delivered file was replaced: {key}")

    def _index_goes_on(self, root: str, key: str, content: bytes) -> None:
        new = manifest.read(Index, content, key)
        old = self.index_versions.get(root, Index())
        if new.version != old.version + 1:
            raise Violation(f"the index goes from version {old.version} to {new.version}")
        lost = {one.folder for one in old.deliveries} - {one.folder for one in new.deliveries}
        fresh = {one.folder for one in old.deliveries if one.delivered >= new.deliveries[-1].delivered}
        if lost & fresh:
            raise Violation(f"the index loses {lost}")
        self.index_versions[root] = new

    def check_folders(self) -> None:
        """No delivered folder is seen half."""
        for key in list(self.lake.files):
            parts = key.split("/")
            if parts[0] in ("features", "features2") and len(parts) > 3 and not parts[1].startswith("_"):
                folder = "/".join(parts[:3])
                if f"{folder}/_SUCCESS" not in self.lake.files:
                    raise Violation(f"{folder} is seen half")

    # --- what must hold at rest ---

    def body(self, kind: type[Any], key: str) -> Any:
        if key not in self.bucket.files:
            return None
        return manifest.read(kind, self.bucket.files[key][0], key)

    def closed(self, name: ShipmentName) -> bool:
        """The definition of PROTOCOL 9, from what exists."""
        plan, end = self.body(Plan, KEYS.plan(name)), self.body(End, KEYS.end(name))
        if plan is None or end is None:
            return False
        if end.void is not None:
            return True
        out, done = self.body(Out, KEYS.out(name)), self.body(Done, KEYS.done(name))
        if out is None or done is None:
            return False
        child = out.carried is None or KEYS.end(child_of(name, plan)) in self.bucket.files
        return child and (end.next is None or KEYS.plan(next_of(name, plan)) in self.bucket.files)

    def names(self) -> list[ShipmentName]:
        return sorted({ShipmentName.parse(key.split("/")[2]) for key in self.once_written})

    def check_at_rest(self) -> None:
        """Everything is closed, the law holds along each chain, and the greatest name gives the right feature."""
        self.check_folders()
        for name in self.names():
            if not self.closed(name):
                raise Violation(f"not closed at rest: {name}")
            self._law_of(name)
        for root in ("features", "features2"):
            self._index_names_what_is_there(root)
        self._every_current_file_is_delivered()

    def _law_of(self, name: ShipmentName) -> None:
        plan, end = self.body(Plan, KEYS.plan(name)), self.body(End, KEYS.end(name))
        if end.void is not None:
            return
        out = self.body(Out, KEYS.out(name))
        if end.rows != end.refs + end.rejected:
            raise Violation(f"the law at end of {name}")
        if end.refs != out.refs or out.refs != out.features + out.failures + out.duplicates:
            raise Violation(f"the law at out of {name}")
        rows = 0
        root = self.settings.sets[plan.set].root
        for partner in out.partners:
            folder = f"{root}/{name}/{partner}/"
            body = json.loads(self.lake.files[f"{folder}_manifest.json"][0])
            for file in body["files"]:
                content = self.lake.files[folder + file["name"]][0]
                if hashlib.sha256(content).hexdigest() != file["sha256"]:
                    raise Violation(f"{folder}{file['name']} is not what its manifest says")
                rows += file["rows"] if not file["name"].endswith(".txt.gz") else 0
        if rows != out.features + out.failures:
            raise Violation(f"the law at delivery of {name}")
        if out.carried is not None:
            child = self.body(End, KEYS.end(child_of(name, plan)))
            if child.refs != out.carried.rows:
                raise Violation(f"the law at the child of {name}")

    def _index_names_what_is_there(self, root: str) -> None:
        delivered = {
            key.removeprefix(f"{root}/").removesuffix("/_SUCCESS")
            for key in self.lake.files
            if key.startswith(root + "/") and key.endswith("/_SUCCESS")
        }
        ever = {one.folder for one in self.index_versions.get(root, Index()).deliveries}
        if not ever <= delivered:
            raise Violation(f"the index of {root} names what is not there: {ever - delivered}")

    def _every_current_file_is_delivered(self) -> None:
        """Each item of each file that still stands has the outcome that its greatest name gives it."""
        covered = self._snapshots()
        for path, (content, modified, _) in self.lake.files.items():
            if not path.startswith("refs/"):
                continue
            for set_name in self.settings.sets:
                if (path, len(content), int(modified * 1000), set_name) not in covered:
                    raise Violation(f"{path} was never shipped for {set_name}")

    def _snapshots(self) -> set[tuple[str, int, int, str]]:
        found = set()
        for name in self.names():
            plan = self.body(Plan, KEYS.plan(name))
            end = self.body(End, KEYS.end(name))
            if name.part == 0 and end.void is None:
                found |= {(f.path, f.length, f.modified, plan.set) for f in plan.snapshot.files}
        return found


__all__ = ["Killed", "Universe", "Violation", "beat", "read_lines"]
