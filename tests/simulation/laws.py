"""What must never be seen in a bucket or on a lake, checked at each change; and what must hold at rest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from pipeline.ledger.bodies import body_of
from pipeline.ledger.deliveries import Index, PartnerManifest
from pipeline.ledger.layout import INDEX, MANIFEST, SUCCESS, Keys, ShipmentName
from pipeline.ledger.manifest import Attempt, Batch, Done, End, Out, Plan, Result
from pipeline.ledger.state import child_of, next_of
from pipeline.settings import Settings
from pipeline.stages.operator_requests import CLOSED
from tests.simulation.memory import Disk
from tests.simulation.scheduler import Proc

KEYS = Keys("shop")


class Violation(AssertionError):
    """Something that must never be was seen."""


class Laws:
    """Watches a bucket and a lake.  History outlives prune: what was once committed is remembered here."""

    def __init__(self, bucket: Disk, lake: Disk, settings: Settings, running: Callable[[], Proc | None]) -> None:
        self.bucket, self.lake, self.settings, self._running = bucket, lake, settings, running
        self.history: dict[str, bytes] = {}
        self.named: dict[str, str] = {}
        """Data keys that a manifest names, and which."""
        self.indexes: dict[str, Index] = {}
        self.roots = {one.root: name for name, one in settings.sets.items()}
        self._parsed: dict[str, Any] = {}
        self.learns = False
        """Whether batches are in the light form, so that their items can be read here."""
        self.first: Violation | None = None
        self.spoilt: dict[str, set[str]] = {}
        """Keys whose content cannot be read just now, and the processes that have tried."""
        self.attempts: dict[str, int] = {}
        """Attempts at `out` that there were when a key became unreadable."""
        self._appeared: set[str] = set()
        bucket.watch = self._watching(self._bucket_changes)
        lake.watch = self._watching(self._lake_changes)

    def _watching(self, check: Callable[[str, str, bytes], None]) -> Callable[[str, str, bytes], None]:
        """The first violation is kept: what a process does with the exception is its own affair."""

        def watch(what: str, key: str, content: bytes) -> None:
            try:
                check(what, key, content)
            except Violation as violation:
                self.first = self.first or violation
                raise

        return watch

    def check(self) -> None:
        """After each step: raises what was seen first; a folder that appeared in it is whole."""
        if self.first is not None:
            raise self.first
        for folder in self._appeared:
            self._is_whole(folder)
        self._appeared.clear()

    def body(self, kind: type[Any], key: str) -> Any:
        """What was ever committed at a key; None where nothing was."""
        if key not in self.history:
            return None
        if key not in self._parsed:
            self._parsed[key] = body_of(kind, self.history[key], key)
        return self._parsed[key]

    # --- the bucket ---

    def _bucket_changes(self, what: str, key: str, content: bytes) -> None:
        if key.startswith(KEYS.commits):
            if what == "removed":
                self._pruned(key)
            else:
                self._committed(key, content)
        elif key.startswith(KEYS.data) and what == "removed":
            self._data_removed(key)
        elif key.startswith(KEYS.open_hints) and what == "removed":
            name = ShipmentName.parse(key.rpartition("/")[2])
            if KEYS.plan(name) in self.history and not self.closed(name):
                raise Violation(f"the hint of an open shipment was deleted: {name}")

    def _committed(self, key: str, content: bytes) -> None:
        if key in self.history:
            raise Violation(f"written twice: {key}")
        self.history[key] = content
        if "/b/" in key and self.learns:
            self.learn(self.bucket.files[self.body(Batch, key).data.key][0])
        name = ShipmentName.parse(key.split("/")[2])
        rest = key.split("/", 3)[3]
        if rest == "out":
            self._one_result_each(key, name)
        if rest.startswith("t/out/"):
            self._is_not_done_over(name)
        for data in self._data_of(key, rest):
            if data not in self.bucket.files:
                raise Violation(f"{key} names {data}, which is not there")
            self.named[data] = key
        if "/r/" in rest or "/q/" in rest:
            result = self.body(Result, key)
            batch = self.body(Batch, KEYS.batch(name, int(rest[-5:])))
            if result.kind == "shard" and result.refs != batch.refs:
                raise Violation(f"the law at {key}")
            if result.kind == "held":
                self._was_really_given_up(name, result, rest)

    def _data_of(self, key: str, rest: str) -> list[str]:
        if rest.startswith("b/"):
            return [self.body(Batch, key).data.key]
        if "/r/" in rest:
            result = self.body(Result, key)
            return [file.key for file in (result.features_file, result.failures_file) if file is not None]
        if rest == "out":
            out = self.body(Out, key)
            files = [file.key for partner in out.partners.values() for file in partner.files]
            return files + ([out.carried.key] if out.carried else [])
        return []

    def _one_result_each(self, key: str, name: ShipmentName) -> None:
        """No out mixes two fingerprints, and each batch has one result."""
        out, end = self.body(Out, key), self.body(End, KEYS.end(name))
        refs = 0
        for number in range(end.batches):
            result = self.body(Result, KEYS.result(name, out.fingerprint, number))
            second = KEYS.result(name, out.fingerprint, number).replace("/r/", "/q/")
            if result is None or (result.fingerprint != out.fingerprint):
                raise Violation(f"{key} mixes fingerprints")
            if second in self.history:
                raise Violation(f"two results for batch {number} of {name}")
            refs += result.refs
        if refs != out.refs:
            raise Violation(f"the law at {key}: {refs} refs in results, {out.refs} in out")

    def _was_really_given_up(self, name: ShipmentName, result: Result, rest: str) -> None:
        """A batch is held only after strikes, or after attempts whose processes really stopped or froze."""
        limits = self.settings.compute
        fingerprint, _, batch = rest.split("/")
        prefix = f"{KEYS.shipment(name)}{fingerprint}/t/{batch}/"
        mine = [key for key in self.history if key.startswith(prefix)]
        strikes = sum(1 for key in mine if key.endswith(".x") and b'"strike"' in self.history[key])
        alone = [key for key in mine if not key.endswith(".x") and self.body(Attempt, key).alone]
        lost = sum(1 for key in alone if f"{key}.x" not in self.history)
        if strikes < limits.strikes_alone and lost < limits.lost_alone:
            raise Violation(f"held without reason: batch {batch} of {name}: {strikes} strikes, {lost} lost")

    def _data_removed(self, key: str) -> None:
        proc = self._running()
        name = ShipmentName.parse(key.split("/")[2])
        self._was_readable(key, name)
        if proc is None or proc.kind != "prune":
            if key in self.named:
                raise Violation(f"{proc.name if proc else '?'} deletes {key}, which {self.named[key]} names")
        elif KEYS.plan(name) in self.bucket.files and not self.closed(name):
            raise Violation(f"data of an open shipment was pruned: {key}")

    def _was_readable(self, key: str, name: ShipmentName) -> None:
        """Who could not read what stands of a shipment deletes nothing that its manifests name."""
        proc = self._running()
        for spoilt, tried in self.spoilt.items():
            if str(name) in spoilt and proc is not None and proc.name in tried and (key in self.named or "/c/" in key):
                raise Violation(f"{proc.name} could not read {spoilt}, and deletes {key}")

    def _is_not_done_over(self, name: ShipmentName) -> None:
        """Of what cannot be read nothing is merged or delivered again in each poll."""
        for spoilt, tried in self.spoilt.items():
            made = self.attempts_at_out(name)
            if str(name) in spoilt and tried and made > self.attempts[spoilt] + 2:
                raise Violation(f"{spoilt} cannot be read, and is made again and again: {made} attempts")

    def attempts_at_out(self, name: ShipmentName) -> int:
        """How many there were so far."""
        return sum(key.startswith(f"{KEYS.shipment(name)}t/out/") and not key.endswith(".x") for key in self.history)

    def _pruned(self, key: str) -> None:
        proc = self._running()
        name = ShipmentName.parse(key.split("/")[2])
        self._was_readable(key, name)
        if proc is None or proc.kind != "prune":
            raise Violation(f"only prune deletes under c/: {key}")
        if not self.closed(name):
            raise Violation(f"the record of an open shipment was pruned: {key}")
        if not key.endswith("/plan"):
            return
        plan = self.body(Plan, key)
        if plan.kind == "retry" and KEYS.plan(ShipmentName.parse(plan.parent)) in self.bucket.files:
            raise Violation(f"{name} was forgotten before its parent")
        for other in self.bucket.files:
            if other.startswith(KEYS.commits) and other.endswith("/plan") and name.part:
                before = ShipmentName.parse(other.split("/")[2])
                if before.part == name.part - 1 and str(next_of(before, self.body(Plan, other))) == str(name):
                    raise Violation(f"{name} was forgotten before the part before it")

    # --- the lake ---

    def _lake_changes(self, what: str, key: str, content: bytes) -> None:
        parts = key.split("/")
        if parts[0] not in self.roots:
            return
        if parts[1] == INDEX:
            self._index_goes_on(parts[0], key, content)
        elif len(parts) > 2 and not parts[1].startswith("_"):
            if what != "moved":
                raise Violation(f"a delivered folder changes: {what} {key}")
            if key in self.lake.files:
                raise Violation(f"a delivered file was replaced: {key}")
            self._appeared.add("/".join(parts[:3]))

    def _index_goes_on(self, root: str, key: str, content: bytes) -> None:
        new = body_of(Index, content, key)
        old = self.indexes.get(root, Index())
        if new.version != old.version + 1:
            raise Violation(f"the index goes from version {old.version} to {new.version}")
        lost = {one.folder for one in old.deliveries} - {one.folder for one in new.deliveries}
        aged = {one.folder for one in old.deliveries if one.delivered < _days_before(new, self.settings)}
        if lost - aged:
            raise Violation(f"the index loses {lost - aged}")
        for one in new.deliveries:
            if f"{root}/{one.folder}/{SUCCESS}" not in self.lake.files:
                raise Violation(f"the index names {one.folder}, which is not there")
        self.indexes[root] = new

    # --- at rest ---

    def closed(self, name: ShipmentName) -> bool:
        """The definition of docs/protocol.md 9, from what was ever committed."""
        plan, end = self.body(Plan, KEYS.plan(name)), self.body(End, KEYS.end(name))
        if plan is None or end is None:
            return False
        if end.void is not None:
            return True
        out, done = self.body(Out, KEYS.out(name)), self.body(Done, KEYS.done(name))
        if done is not None and done.void is not None:
            return True
        if out is None or done is None:
            return False
        child = out.carried is None or KEYS.end(child_of(name, plan)) in self.history
        return child and (end.next is None or KEYS.plan(next_of(name, plan)) in self.history)

    def given_up(self, name: ShipmentName) -> bool:
        """Whether a person closed it though it had its end."""
        done = self.body(Done, KEYS.done(name))
        return done is not None and done.void is not None

    def _is_shipped_again(self, name: ShipmentName, end: End) -> None:
        """What a person closed has a later round of the same snapshot."""
        done = self.body(Done, KEYS.done(name))
        words = [end.void or "", (done.void or "") if done is not None else ""]
        if not any(word.startswith(CLOSED) for word in words):
            return
        plan = self.body(Plan, KEYS.plan(name))
        for other in self.names():
            body = self.body(Plan, KEYS.plan(other))
            if other.round > name.round and (body.snapshot_digest, body.set) == (plan.snapshot_digest, plan.set):
                return
        raise Violation(f"{name} was closed, and its snapshot is not shipped again")

    def names(self) -> list[ShipmentName]:
        """Every shipment that ever had a plan."""
        return sorted(ShipmentName.parse(key.split("/")[2]) for key in self.history if key.endswith("/plan"))

    def covered(self) -> bool:
        """Whether each file that stands was shipped as it is, for each set."""
        shipped = set()
        for name in self.names():
            plan, end = self.body(Plan, KEYS.plan(name)), self.body(End, KEYS.end(name))
            if name.part == 0 and (end is None or end.void is None):
                shipped |= {(f.path, f.length, f.modified, plan.set) for f in plan.snapshot.files}
        return all(
            (path, len(content), int(modified * 1000), set_name) in shipped
            for path, (content, modified, _) in self.lake.files.items()
            if path.startswith("refs/")
            for set_name in self.settings.sets
        )

    def check_at_rest(self) -> None:
        """Everything is closed, the law holds along each chain, and the greatest name gives the right feature."""
        for name in self.names():
            if not self.closed(name):
                raise Violation(f"not closed at rest: {name}")
            self._law_of(name)
        for root, set_name in self.roots.items():
            self._folders_are_whole(root)
            if self.learns:
                self._greatest_name_is_right(root, set_name)
                self._one_feature_each(root)

    def _law_of(self, name: ShipmentName) -> None:
        plan, end = self.body(Plan, KEYS.plan(name)), self.body(End, KEYS.end(name))
        if end.void is not None or self.given_up(name):
            self._is_shipped_again(name, end)
            return
        out = self.body(Out, KEYS.out(name))
        batches = [self.body(Batch, KEYS.batch(name, number)) for number in range(end.batches)]
        if end.rows != end.refs + end.rejected or sum(batch.refs for batch in batches) != end.refs:
            raise Violation(f"the law at end of {name}")
        if end.refs != out.refs or out.refs != out.features + out.failures + out.duplicates:
            raise Violation(f"the law at out of {name}")
        root = self.settings.sets[plan.set].root
        rows = 0
        for partner in out.partners:
            folder = f"{root}/{name}/{partner}"
            body = body_of(PartnerManifest, self.lake.files[f"{folder}/{MANIFEST}"][0], folder)
            rows += sum(file.rows for file in body.files if file.name.startswith(("features/", "failures/")))
            rows += body.forgotten
        if rows != out.features + out.failures:
            raise Violation(f"the law at delivery of {name}")
        if out.carried is not None:
            child = self.body(End, KEYS.end(child_of(name, plan)))
            if child.refs != out.carried.rows and not (child.void or "").startswith(CLOSED):
                raise Violation(f"the law at the child of {name}")

    def _folders_are_whole(self, root: str) -> None:
        parts = (key.split("/") for key in self.lake.under(f"{root}/"))
        for folder in {"/".join(part[:3]) for part in parts if len(part) > 3 and not part[1].startswith("_")}:
            self._is_whole(folder)

    def _is_whole(self, folder: str) -> None:
        """A partner's folder has its manifest, its _SUCCESS, and every byte that the manifest names."""
        if not {f"{folder}/{MANIFEST}", f"{folder}/{SUCCESS}"} <= set(self.lake.under(f"{folder}/")):
            raise Violation(f"{folder} is seen half")
        body = body_of(PartnerManifest, self.lake.files[f"{folder}/{MANIFEST}"][0], folder)
        for file in body.files:
            content = self.lake.files.get(f"{folder}/{file.name}", (b"", 0.0, 0))[0]
            if hashlib.sha256(content).hexdigest() != file.sha256:
                raise Violation(f"{folder}/{file.name} is not what its manifest says")

    def _one_feature_each(self, root: str) -> None:
        """Of a part, its retries and its releases one alone has an item's feature, whichever sorts last."""
        seen: dict[tuple[object, ...], str] = {}
        for key, (content, _, _) in self.lake.files.items():
            parts = key.split("/")
            if parts[0] != root or len(parts) != 5 or parts[3] != "features":
                continue
            name = ShipmentName.parse(parts[1])
            plan = self.body(Plan, KEYS.plan(name))
            for line in content.splitlines():
                row = json.loads(line)
                item = (name.version, name.round, name.part, plan.snapshot_digest, row[0], row[1])
                if seen.setdefault(item, parts[1]) != parts[1]:
                    raise Violation(f"{row[:5]} has a feature in {seen[item]} and in {parts[1]}")

    def _greatest_name_is_right(self, root: str, set_name: str) -> None:
        """For each item the feature in the greatest name is of the newest snapshot that could give one."""
        winners: dict[tuple[int, str], tuple[str, str]] = {}
        for key, (content, _, _) in self.lake.files.items():
            parts = key.split("/")
            if parts[0] == root and len(parts) == 5 and parts[3] == "features":
                for line in content.splitlines():
                    row = json.loads(line)
                    item = (row[0], row[3])
                    winners[item] = max(winners.get(item, ("", "")), (parts[1], row[4]))
        newest: dict[tuple[int, str], ShipmentName] = {}
        for name in self.names():
            plan, end = self.body(Plan, KEYS.plan(name)), self.body(End, KEYS.end(name))
            if plan.set != set_name or end.void is not None or self._has_held(name) or self.given_up(name):
                continue
            for number in range(end.batches):
                for item in self.good_items.get(self.body(Batch, KEYS.batch(name, number)).data.sha256, ()):
                    newest[item] = max(newest.get(item, name), name)
        for item, name in newest.items():
            won = winners.get(item)
            if self.is_forgotten(item, name):
                continue
            if won is None or ShipmentName.parse(won[0]) < name:
                raise Violation(f"{item} has {won}, but {name} has its feature")

    def is_forgotten(self, item: tuple[int, str], name: ShipmentName) -> bool:
        """Whether a person asked for an item of a shipment to be gone: nobody does in this world."""
        return False

    @property
    def good_items(self) -> dict[str, set[tuple[int, str]]]:
        """By the hash of a batch's data: items of it whose URL always gives a feature."""
        return self.__dict__.setdefault("_good", {})

    def learn(self, content: bytes) -> None:
        """Remember which items of a batch (light form) have an `ok` URL."""
        rows = json.loads(content)
        good = {(row[0], row[2]) for row in rows if "/ok-" in row[3]}
        self.good_items[hashlib.sha256(content).hexdigest()] = good

    def _has_held(self, name: ShipmentName) -> bool:
        out = self.body(Out, KEYS.out(name))
        return out is not None and out.held > 0


def _days_before(index: Index, settings: Settings) -> str:
    from pipeline.ledger.layout import seconds_of, version_of

    newest = max((one.delivered for one in index.deliveries), default="20200101T000000Z")
    return version_of(seconds_of(newest) - settings.deliver.index_days * 86400.0 + 1.0)
