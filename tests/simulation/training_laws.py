"""What must never be seen of trainings in a bucket, checked at each change; and what must hold at rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.errors import FormatError
from pipeline.ledger.bodies import body_of
from pipeline.ledger.layout import JOB_ATTEMPT, SNAPSHOT, JobKeys, JobName, Keys
from pipeline.ledger.trainings import JobAttemptEnd, JobOut, JobSnapshot, JobSpec, JobStop, Reached
from pipeline.training.attempt import STOP_SECONDS
from pipeline.training.state import parent_of
from tests.simulation.laws import Violation
from tests.simulation.memory import Disk
from tests.simulation.toy_training import MODEL, STATE, Toy, steps_shown, trained

KEYS = Keys("shop")
STOP_WITHIN = 5.0
"""Seconds after which a person's stop has been seen by whoever trains."""
BLIND_STEPS = 3
"""Steps that may begin later, each after a question that was not answered."""


class TrainingLaws:
    """Watches a bucket.  cpus: all kinds that may train; a step of any of them may follow on a step of another."""

    def __init__(self, bucket: Disk, cpus: tuple[str, ...]) -> None:
        self.bucket, self.cpus = bucket, cpus
        self.history: dict[str, bytes] = {}
        self.contents: dict[str, bytes] = {}
        """What was ever put under `d/`: prune deletes it, and it still decides what may follow."""
        self.first: Violation | None = None
        self.stopped: dict[JobName, float] = {}
        self.saw: set[tuple[str, JobName]] = set()
        """Processes that were told of a stop."""
        self.blind: dict[tuple[str, JobName], int] = {}
        bucket.watch = self._watch

    def _watch(self, what: str, key: str, content: bytes) -> None:
        try:
            self._changes(what, key, content)
        except Violation as violation:
            self.first = self.first or violation
            raise

    def check(self) -> None:
        """After each step: raises what was seen first."""
        if self.first is not None:
            raise self.first

    def body(self, kind: type[Any], key: str) -> Any:
        """What was ever committed at a key; None where nothing was."""
        if key not in self.history:
            return None
        try:
            return body_of(kind, self.history[key], key)
        except FormatError as error:
            raise Violation(str(error)) from error

    def names(self) -> list[JobName]:
        """Every training that ever had a spec."""
        return sorted(JobName.parse(key.split("/")[2]) for key in self.history if key.endswith("/spec"))

    # --- what a process does ---

    def told(self, process: str, keys: Sequence[str]) -> None:
        """A process was told that these keys stand."""
        for name in self.stopped:
            if KEYS.job(name).stop in keys:
                self.saw.add((process, name))

    def asks(self, process: str, verb: str, key: str) -> None:
        """A process is about to ask the bucket for something."""
        if verb != "put_new" or not key.startswith(KEYS.jobs):
            return
        name = JobName.parse(key.split("/")[2])
        rest = key.removeprefix(KEYS.job(name).top)
        if (process, name) in self.saw and not rest.endswith(".x") and rest not in ("stop", "spec"):
            self._break(f"{process} was told that a person ended {name}, and commits {rest}")

    def steps(self, process: str, name: JobName, now: float) -> None:
        """A process begins a step of a training."""
        if name in self.stopped and now - self.stopped[name] > STOP_WITHIN + STOP_SECONDS:
            number = self.blind[process, name] = self.blind.get((process, name), 0) + 1
            if number > BLIND_STEPS:
                self._break(f"{process} goes on with {name}, which a person ended {now - self.stopped[name]:.0f} s ago")

    def _break(self, words: str) -> None:
        self.first = self.first or Violation(words)
        raise self.first

    # --- the bucket ---

    def _changes(self, what: str, key: str, content: bytes) -> None:
        if key.startswith(KEYS.jobs):
            if what == "removed":
                raise Violation(f"deleted: {key}")
            if key in self.history:
                raise Violation(f"written twice: {key}")
            self.history[key] = content
            self._committed(KEYS.job(JobName.parse(key.split("/")[2])), key)
        elif key.startswith(KEYS.jobs_data):
            if what == "removed":
                self._data_removed(KEYS.job(JobName.parse(key.split("/")[3])), key)
            else:
                self.contents[key] = content

    def _committed(self, keys: JobKeys, key: str) -> None:
        rest = key.removeprefix(keys.top)
        if rest == "stop":
            self.stopped[keys.name] = self.bucket.now()
        elif SNAPSHOT.fullmatch(rest):
            self._is_a_link(keys, self.body(JobSnapshot, key))
        elif (match := JOB_ATTEMPT.fullmatch(rest)) and match["ended"]:
            parting = self.body(JobAttemptEnd, key).parting
            if parting is not None:
                self._has_its_files(key, parting)
                self._follows(keys, parting)
        elif rest == "out":
            self._is_the_last_link(keys, self.body(JobOut, key))

    def chain(self, keys: JobKeys) -> list[JobSnapshot]:
        """All snapshots of a training, in order."""
        found = [key for key in self.history if key.startswith(f"{keys.top}s/")]
        return [self.body(JobSnapshot, key) for key in sorted(found)]

    def _is_a_link(self, keys: JobKeys, one: JobSnapshot) -> None:
        """It comes from the link before it, by digest, and holds what follows from that one's bits and rows."""
        spec = self.body(JobSpec, keys.spec)
        where = f"snapshot {one.iteration} of {keys.name}"
        chain = self.chain(keys)
        before = chain[-2] if len(chain) > 1 else None
        if chain[-1] != one:
            raise Violation(f"{where} comes after {chain[-1].iteration}")
        if one.parent != parent_of(before):
            raise Violation(f"{where} does not come from {before.iteration if before else 'the start'}")
        self._has_its_files(where, one)
        self._follows(keys, one)
        shown = [(row["step"], row["kind"]) for link in chain for row in map(json.loads, link.rows)]
        wanted = [step for step in steps_shown(spec) if step[0] < one.iteration]
        if shown != wanted:
            raise Violation(f"rows up to {where}: {shown}, not {wanted}")

    def _has_its_files(self, where: str, one: Reached) -> None:
        for file in one.files:
            if file.key not in self.bucket.files:
                raise Violation(f"{where} names {file.key}, which is not there")

    def _toy(self, one: Reached) -> Toy:
        files = {file.name: self.contents[file.key] for file in one.files}
        return Toy.read(files[MODEL], files[STATE])

    def _follows(self, keys: JobKeys, one: Reached) -> None:
        """Its weights are reached from its parent's, by steps of CPUs that there are."""
        spec = self.body(JobSpec, keys.spec)
        reached = {Toy.first(spec)}
        if one.parent is not None:
            parent = self.body(JobSnapshot, keys.snapshot(one.parent.iteration))
            if parent is None:
                raise Violation(f"iteration {one.iteration} of {keys.name} comes from what does not stand")
            reached = {self._toy(parent)}
        for _ in range(next(iter(reached)).iteration, one.iteration):
            reached = {at.step(cpu) for at in reached for cpu in self.cpus}
        if self._toy(one) not in reached:
            raise Violation(f"iteration {one.iteration} of {keys.name} does not follow from its parent's bits")

    def _is_the_last_link(self, keys: JobKeys, out: JobOut) -> None:
        if out.kind == "failed":
            return
        last = self.chain(keys)[-1]
        if out.snapshot != parent_of(last) or out.files != last.files:
            raise Violation(f"the model of {keys.name} is not its last snapshot")
        for file in out.files:
            if file.key not in self.bucket.files:
                raise Violation(f"the model of {keys.name} names {file.key}, which is not there")

    def _data_removed(self, keys: JobKeys, key: str) -> None:
        out = self.body(JobOut, keys.out)
        if out is not None and key in {file.key for file in out.files}:
            raise Violation(f"deleted, and the model of {keys.name} names it: {key}")
        for one in self.chain(keys)[-2:]:
            if key in {file.key for file in one.files}:
                raise Violation(f"deleted, and one of the last two snapshots of {keys.name} names it: {key}")

    # --- at rest ---

    def closed(self, name: JobName) -> bool:
        """Whether it is at its end."""
        keys = KEYS.job(name)
        return keys.out in self.history or keys.stop in self.history

    def check_at_rest(self, failed: Callable[[JobName], bool]) -> None:
        """Each training has its end, and whose end is a model has the undisturbed run's.  failed: whether one may."""
        for name in self.names():
            keys = KEYS.job(name)
            spec, out = self.body(JobSpec, keys.spec), self.body(JobOut, keys.out)
            stop = self.body(JobStop, keys.stop)
            if out is None and stop is None:
                raise Violation(f"not at its end: {name}")
            if keys.hint in self.bucket.files:
                raise Violation(f"the hint of {name} stands though it is at its end")
            if out is None:
                continue
            if out.kind == "failed":
                if not failed(name):
                    raise Violation(f"{name} failed: {out.cause}")
                continue
            rows = [json.loads(row) for link in self.chain(keys) for row in link.rows] + [*map(json.loads, out.rows)]
            if [(row["step"], row["kind"]) for row in rows] != steps_shown(spec):
                raise Violation(f"the rows of {name} are not those of an undisturbed run")
            if len(self.cpus) == 1 and self._toy(self.chain(keys)[-1]) != trained(spec, self.cpus[0]):
                raise Violation(f"the model of {name} is not that of an undisturbed run")
