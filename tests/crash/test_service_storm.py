"""The service under kills, frozen workers, cancels, full disks and a database that is away: the small forms.

The long forms: `python -m tests.crash.service_storm`, `service_cancels` and `service_zombies`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crash.service_cancels import cancels
from tests.crash.service_site import ROOT, Whole, whole
from tests.crash.service_storm import Plan, storm
from tests.crash.service_zombies import zombies
from tests.servers import tiny_training as tiny
from tests.servers.databases import needs_the_extra
from tests.servers.demand import until

needs_the_extra()
pytest.importorskip("h5py", reason="LEFT OUT: a training reads HDF5: scripts/training.sh")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with whole(tmp_path_factory.mktemp("storm")) as made:
        yield made


def test_twelve_kills_of_each_part_lose_and_double_nothing(site: Whole, figures: Any) -> None:
    told = storm(site, Plan(kills=12, jobs=6, workers=2, iterations=600, pause=0.5, freezes=1), lambda _: None)
    figures(f"service storm: {told}")
    assert told["kills"] == 12
    assert told["attempts"] > told["jobs"], "some blows hit who was at work"


def test_a_cancel_ends_work_whatever_it_does(site: Whole, figures: Any) -> None:
    told = cancels(site, 12, 0)
    figures(f"service cancels: {told}")


def test_a_worker_that_stood_still_at_its_commit_changes_nothing(site: Whole, figures: Any) -> None:
    told = zombies(site, 4, 0)
    figures(f"service zombies: {told}")


def test_a_worker_outlives_a_database_that_is_away_longer_than_a_lease(site: Whole) -> None:
    """Its child ends by the worker's own clock before anybody else may have the work; then both go on."""
    for one in list(site.workers):
        site.end(one, seen=True)
    site.begin()
    inputs = {"train": site.datafile(tiny.rows()), "test": site.datafile(tiny.rows(1))}
    job = site.job("away", site.solver(100_000, 250), inputs, 1)
    until(lambda: bool(site.rows(f"select 1 as one from snapshots where work_id = '{job}'")), "a snapshot", 120)
    (worker,) = site.workers
    assert running(worker.server.process.pid)
    site.postgres_line.down()
    before = site.rows(f"select epoch, lease_until from work where id = '{job}'")[0]
    answer = site.once("GET", f"/v1/training-jobs/{job}")
    assert answer.status_code == 503
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert int(answer.headers["Retry-After"]) >= 1
    until(lambda: not running(worker.server.process.pid), "its child is gone", 60)
    assert time.time() + site.site.ahead < before["lease_until"], "the lease had not ended when the child did"
    assert worker.server.runs
    site.postgres_line.up()
    assert site.ask("GET", f"/v1/training-jobs/{job}")["attempt"] >= 1, "the API is there again by itself"
    until(lambda: kept_by(site, job) > before["epoch"], "it goes on", 120)
    site.ask("POST", f"/v1/training-jobs/{job}/cancel")
    until(lambda: over(site, job), "it ends", 120)


def running(process: int) -> bool:
    from tests.crash.service_storm import children_of

    return bool(children_of(process))


def kept_by(site: Whole, job: str) -> int:
    """The last attempt that has a snapshot."""
    return int(site.rows(f"select max(epoch) as epoch from snapshots where work_id = '{job}'")[0]["epoch"])


def over(site: Whole, job: str) -> bool:
    return bool(site.rows(f"select 1 as one from work where id = '{job}' and finished_at is not null"))


def test_a_full_disk_is_said_as_one_and_the_worker_lives_on(tmp_path: Path) -> None:
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, "-m", "tests.crash.service_disk", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    large, none = told["too large for the disk"], told["no room at all"]
    assert (large["job"]["state"], large["job"]["reason"]) == ("failed", "disk_limit")
    assert "No space left on device" in large["job"]["detail"]
    assert large["rests"] == 3, "others had their chance in between"
    assert none["job"]["finished_at"] is None, "its own disk is no reason against a job"
    assert none["job"]["state"] == "queued"
    for after in ("another job, afterwards", "room again"):
        assert told[after]["job"]["state"] == "succeeded", told[after]
