"""kill -9 of workers, children, API servers and PostgreSQL at random instants, frozen workers, cut lines, lost answers.

`python -m tests.crash.service_storm --kills 300 --jobs 60 --workers 6`: a client posts trainings over REST and asks
again after each error; whatever is killed is begun again.  Prints what happened; 1 where a law was broken.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from pipeline.service import queue
from tests.crash import small_trainer
from tests.crash.service_site import Whole, Worker, whole
from tests.servers import tiny_training as tiny
from tests.servers.demand import until

SEEDS = 4
KILLS = ("worker", "child", "api", "postgres")
FAULTS = ("freeze", "s3 answer", "s3 request", "s3 cut", "s3 down", "postgres cut", "postgres down")
FROZEN_SECONDS = queue.LEASE_SECONDS + 3.0
DOWN_SECONDS = 3.0


@dataclass(frozen=True)
class Plan:
    """How much of a storm.  jobs: at least; more, so that each blow finds who is at work.  pause: mean seconds.

    seconds: no blow after so many.
    """

    kills: int
    jobs: int
    workers: int
    seed: int = 0
    iterations: int = 600
    snapshot: int = 100
    pause: float = 1.0
    freezes: int = 1
    seconds: float = float("inf")
    engine: str = "small"


@dataclass
class Storm:
    """Blows upon a service at work."""

    site: Whole
    plan: Plan
    random: random.Random
    say: Callable[[str], None]
    counts: Counter[str] = field(default_factory=Counter)
    thaws: list[tuple[float, Worker]] = field(default_factory=list)
    when: list[tuple[float, str]] = field(default_factory=list)
    """What happened, by the clock of all."""

    def blow(self, what: str) -> bool:
        """One of KILLS or FAULTS; False where there is nothing to hit just now."""
        began = time.time()
        if not getattr(self, f"_{what.replace(' ', '_')}")():
            return False
        self.counts[what] += 1
        self.when.append((began, f"{what}, {time.time() - began:.1f} s"))
        return True

    def thaw(self, *, every: bool = False) -> None:
        now = time.monotonic()
        for at, worker in list(self.thaws):
            if every or now >= at:
                self.thaws.remove((at, worker))
                worker.server.thaw()
                self.when.append((time.time(), "thaw"))

    def _free(self) -> list[Worker]:
        frozen = [worker for _, worker in self.thaws]
        return [one for one in self.site.workers if one not in frozen]

    def _worker(self) -> bool:
        if not (there := self._free()):
            return False
        self.site.end(self.random.choice(there), seen=False)
        self.site.begin()
        return True

    def _child(self) -> bool:
        """The child of work that has no strike yet: three in a row would rightly end it."""
        safe = {row["id"] for row in self.site.rows("select id from work where state = 'running' and strikes = 0")}
        children = [one for worker in self._free() for one in children_of(worker.server.process.pid)]
        there = [pid for pid, command in children if any(job in command for job in safe)]
        if not there:
            return False
        os.kill(self.random.choice(there), signal.SIGKILL)
        return True

    def _api(self) -> bool:
        at = self.random.randrange(len(self.site.servers))
        self.site.servers[at].kill()
        self.site.serve(at)
        return True

    def _postgres(self) -> bool:
        (self.site.database_server or self.site.database.server).kill()
        self.site.restart_database()
        return True

    def _freeze(self) -> bool:
        if len(there := self._free()) < 2:
            return False
        worker = self.random.choice(there)
        worker.server.freeze()
        self.thaws.append((time.monotonic() + FROZEN_SECONDS, worker))
        return True

    def _s3_answer(self) -> bool:
        self.site.s3_line.lose_answer(b"(PUT|GET) ", self.random.randint(1, 3))
        return True

    def _s3_request(self) -> bool:
        self.site.s3_line.lose_request(b"(PUT|GET) ", self.random.randint(1, 3))
        return True

    def _s3_cut(self) -> bool:
        self.site.s3_line.down()
        self.site.s3_line.up()
        return True

    def _s3_down(self) -> bool:
        self.site.s3_line.down()
        time.sleep(DOWN_SECONDS)
        self.site.s3_line.up()
        return True

    def _postgres_cut(self) -> bool:
        self.site.postgres_line.down()
        self.site.postgres_line.up()
        return True

    def _postgres_down(self) -> bool:
        self.site.postgres_line.down()
        time.sleep(DOWN_SECONDS)
        self.site.postgres_line.up()
        return True


def children_of(process: int) -> list[tuple[int, str]]:
    """Numbers and commands of the trainings of a worker."""
    found = []
    for listed in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            for one in listed.read_text().split():
                command = Path(f"/proc/{one}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                if "small_trainer" in command or "work.child" in command:
                    found.append((int(one), command))
        except OSError:
            continue  # it has just ended
    return found


def storm(site: Whole, plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Runs it to its end, and judges.  Raises AssertionError for a law that was broken."""
    chance = random.Random(plan.seed)
    site.computed.mkdir(parents=True, exist_ok=True)
    solver = site.solver(plan.iterations, plan.snapshot)
    inputs = {"train": site.datafile(tiny.rows()), "test": site.datafile(tiny.rows(1))}
    for _ in range(plan.workers):
        site.begin()
    quiet = {}
    if plan.engine != "small":
        for seed in range(SEEDS):
            quiet[seed] = site.job(f"quiet-{seed}", solver, inputs, seed)
        until(lambda: over(site) == SEEDS, "the undisturbed runs end", 900)
    now = Storm(site, plan, chance, say)
    wishes = SimpleQueue[int | None]()
    client = threading.Thread(target=post, args=(site, wishes, solver, inputs), daemon=True)
    client.start()
    posted = plan.jobs // 2 + 1
    for number in range(posted):
        wishes.put(number)
    began, told = time.monotonic(), time.monotonic()
    blows = [one for one in KILLS for _ in range(plan.kills // len(KILLS) + 1)]
    blows = chance.sample(blows, plan.kills)
    others = [one for one in FAULTS[1:] for _ in range(max(1, plan.kills // 24))] + ["freeze"] * (plan.freezes - 1)
    for one in others:
        blows.insert(chance.randrange(len(blows)), one)
    first = ["freeze"] if plan.freezes else []
    until(lambda: bool(site.rows("select 1 as one from snapshots")), "the first snapshot", 300)
    for what in [*first, *blows]:
        if time.monotonic() - began > plan.seconds:
            break
        hit = False
        while not hit:
            site.tend()
            if posted < plan.jobs or posted < over(site) - len(quiet) + 2 * plan.workers:
                wishes.put(posted)
                posted += 1
            hit = now.blow(what)
            now.thaw()
            time.sleep(chance.uniform(0, 2 * plan.pause))
        if time.monotonic() - told > 20:
            told = time.monotonic()
            say(f"{told - began:.0f} s: {sum(now.counts[one] for one in KILLS)} kills, {over(site)} jobs are over")
    while now.thaws:
        now.thaw()
        time.sleep(0.2)
    for number in range(posted, plan.jobs):
        wishes.put(number)
    wishes.put(None)

    def answered() -> bool:
        site.tend()
        return not client.is_alive()

    until(answered, "the client has its answers", 900)
    total = len(site.told)

    def all_over() -> bool:
        site.tend()
        return over(site) == total

    until(all_over, "all jobs are over", 900)
    time.sleep(2.0)  # whoever was thawed last says what it has to say
    return judged(site, plan, now, inputs) | {"seconds": round(time.monotonic() - began, 1)}


def post(site: Whole, wishes: SimpleQueue[int | None], solver: str, inputs: dict[str, str]) -> None:
    """The client: a job for each wish.  What ends it before is a mistake of the service."""
    try:
        for number in iter(wishes.get, None):
            site.job(f"job-{number}", solver, inputs, number % SEEDS)
    except (AssertionError, TimeoutError) as error:
        site.mistakes.append(f"the client: {error}")


def over(site: Whole) -> int:
    found = site.rows("select count(*) as n from work where finished_at is not null and kind = 'train'")
    return int(found[0]["n"])


def judged(site: Whole, plan: Plan, now: Storm, inputs: dict[str, str]) -> dict[str, Any]:
    """The laws, each by what the database noted and by what lies in the bucket."""
    jobs = {row["id"]: row for row in site.rows("select * from work where kind = 'train'")}
    assert set(site.told.values()) == set(jobs), "each 201 is a job, and each job was told once"
    assert len(set(site.told.values())) == len(site.told), "no two keys are one job"
    assert not site.mistakes, site.mistakes[:3]
    wrong = {
        id: (row["state"], row["reason"], row["detail"]) for id, row in jobs.items() if row["state"] != "succeeded"
    }
    assert not wrong, wrong
    for job in jobs:
        assert site.ask("GET", f"/v1/training-jobs/{job}")["state"] == "succeeded"
    noted = site.rows("select * from storm order by n")
    ended = Counter(row["work"] for row in noted if row["now"] in ("succeeded", "failed", "cancelled"))
    assert ended == Counter(list(jobs)), "each ended once"
    for row in noted:
        assert row["was"] not in ("succeeded", "failed", "cancelled"), row
        assert row["now_epoch"] == row["was_epoch"] + (row["now"] == "running"), row
    strays = site.rows("select * from strays")
    assert not strays, "a fenced attempt added rows"
    if plan.engine == "small":
        path = site.folder / "train.h5"
        path.write_bytes(tiny.rows())
        right = {seed: small_trainer.undisturbed(path, seed, plan.iterations) for seed in range(SEEDS)}
    else:
        right = {seed: site.weights(site.told[f"quiet-{seed}"]) for seed in range(SEEDS)}
    for key, job in site.told.items():
        assert site.weights(job) == right[int(key.rpartition("-")[2]) % SEEDS], f"{job}: other weights"
    objects, named = site.objects(), site.named()
    assert named <= objects, sorted(named - objects)[:3]
    for key in objects:
        job, attempt = key.split("/")[3:5]
        assert 1 <= int(attempt.removeprefix("a")) <= jobs[job]["epoch"], f"{key} is of no attempt"
    taken = [row for row in noted if (row["was"], row["now"]) == ("running", "running")]
    lost = [row["at"] - row["was_lease"] for row in taken]
    slowest = max(taken, key=lambda row: row["at"] - row["was_lease"], default=None)
    meanwhile = [f"{at - slowest['was_lease']:+.1f} s: {what}" for at, what in now.when
                 if slowest["was_lease"] - 20 < at < slowest["at"]] if slowest else []  # fmt: skip
    waits: dict[str, Any] = {}
    if lost:
        waits = {"median": round(statistics.median(lost), 2), "most": round(max(lost), 2), "meanwhile": meanwhile}
    behind = [row for row in noted if (row["was"], row["now"]) == ("queued", "running") and row["behind"]]
    assert not behind, "lost work comes before what is queued"
    return {
        "kills": sum(now.counts[one] for one in KILLS), "blows": dict(sorted(now.counts.items())),
        "jobs": len(jobs), "attempts": sum(row["epoch"] for row in jobs.values()), "taken over": len(lost),
        "seconds from the lease's end": waits,
        "iterations": computed(site, jobs, noted, plan), "orphans": len(objects - named), "objects": len(objects),
        "ended by themselves": dict(site.ended),
    }  # fmt: skip


def computed(site: Whole, jobs: dict[str, Any], noted: list[dict[str, Any]], plan: Plan) -> dict[str, Any]:
    """Iterations that were computed twice.  Each attempt begins where the newest snapshot was that a row named then."""
    if plan.engine != "small":
        return {}
    starts = {(row["work"], row["now_epoch"]): row["reached"] for row in noted if row["now"] == "running"}
    most, wanted, done = 0, plan.iterations * len(jobs), 0
    for job in jobs:
        runs = [(int(one.name.rpartition(".")[2]), one.stat().st_size) for one in site.computed.glob(f"{job}-*")]
        done += sum(size for _, size in runs)
        allowed = Counter(start for (work, _), start in starts.items() if work == job)
        assert not Counter(start for start, _ in runs) - allowed, f"{job} did not go on from its newest snapshot"
        again = sum(size for _, size in runs) - plan.iterations
        assert again >= 0, f"{job} computed too little"
        most = max(most, again / (len(runs) - 1)) if len(runs) > 1 else most
    return {"wanted": wanted, "computed": done, "share again": round(done / wanted - 1.0, 3),
            "most again by an attempt more, in snapshots": round(most / plan.snapshot, 2)}  # fmt: skip


def main() -> int:
    """Exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, usual in (
        ("--kills", 300),
        ("--jobs", 60),
        ("--workers", 6),
        ("--seed", 0),
        ("--iterations", 600),
        ("--freezes", 10),
    ):
        parser.add_argument(name, type=int, default=usual)
    parser.add_argument("--pause", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no blow after so many")
    parser.add_argument("--engine", choices=("small", "torch"), default="small")
    plan = Plan(**vars(parser.parse_args()))
    with tempfile.TemporaryDirectory(prefix="hathi-storm-") as folder, whole(Path(folder), engine=plan.engine) as site:
        try:
            print(json.dumps(storm(site, plan, lambda text: print(text, flush=True)), indent=1))
        except (AssertionError, TimeoutError) as error:
            print(f"broken: {error}")
            for log in sorted(Path(folder).glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
