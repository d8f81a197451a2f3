"""Workers of the service as processes, over both databases: training, cancels, kills, and bits that do not change."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.servers import tiny_training as tiny
from tests.servers.databases import empty, sites_of
from tests.servers.demand import Server, free_port
from tests.servers.demand import until as soon
from tests.servers.service import Person, Stand, standing

pytest.importorskip("torch", reason="LEFT OUT: a training needs torch: scripts/training.sh")
HATHI = Path(__file__).parents[2] / ".venv/bin/hathi"
LONG = 800
SQLITE = pytest.mark.parametrize("shared", ["sqlite"], indirect=True)
POSTGRES = pytest.mark.parametrize("shared", ["postgres"], indirect=True)


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("service")
    for site in sites_of(request, folder):
        with standing(site, folder) as stand:
            yield stand


@dataclass
class Workers:
    """`hathi service worker`, as many as were begun."""

    stand: Stand
    config: Path
    begun: list[Server]

    def begin(self) -> Server:
        folder = self.config.parent
        log = folder / f"worker-{len(self.begun)}.log"
        environ = {**os.environ, "PYTHONPATH": str(HATHI.parents[2])}
        command: list[str | Path] = [HATHI, "service", "worker", "--config", self.config]
        self.begun.append(Server.start(command, log=log, env=environ))
        return self.begun[-1]


@pytest.fixture
def workers(shared: Stand, tmp_path: Path) -> Iterator[Workers]:
    empty(shared.site)
    (tmp_path / "etc").mkdir()
    config = tmp_path / "etc/service.toml"
    config.write_text(
        f'state = "{tmp_path}/state"\nlogs.folder = "{tmp_path}/logs"\n[bucket]\nurl = "{shared.folder}/bucket"\n'
        f'[service]\ndatabase = "{shared.site.url}"\n'
    )
    made = Workers(shared, config, [])
    try:
        yield made
    finally:
        for server in made.begun:
            if server.runs:
                server.stop(40)


def until(ready: Callable[[], bool], what: str, seconds: float = 300.0) -> None:
    """An engine takes seconds to load, and on a machine that others use minutes."""
    soon(ready, what, seconds)


def submit(ann: Person, iterations: int, snapshot: int, **more: Any) -> str:
    inputs = {"train": ann.datafile(tiny.rows()), "test": ann.datafile(tiny.rows(1))}
    more.setdefault("seed", 7)
    return ann.job(solver_id=ann.solver(tiny.solver(iterations, snapshot), tiny.NET), inputs=inputs, **more)


def shown(ann: Person, job: str) -> dict[str, Any]:
    return dict(ann.got("GET", f"/v1/training-jobs/{job}"))


def ends(ann: Person, job: str, seconds: float = 300.0) -> dict[str, Any]:
    until(lambda: shown(ann, job)["finished_at"] is not None, f"{job} ends", seconds)
    return shown(ann, job)


def model(ann: Person, job: str) -> bytes:
    newest = ann.got("GET", f"/v1/training-jobs/{job}/snapshots")["items"][0]
    return ann.ask("GET", f"/v1/training-jobs/{job}/snapshots/{newest['iteration']}/net.caffemodel").content


@POSTGRES
def test_a_killed_worker_and_a_killed_child_change_no_bit(shared: Stand, workers: Workers) -> None:
    """One run that nobody disturbs; the same again, its child killed, then its worker: the weights are the same."""
    ann = shared.person("ayes", "ann")
    workers.begin()
    quiet = submit(ann, LONG, 100)
    end = ends(ann, quiet)
    assert (end["state"], end["attempt"], end["result"]["iteration"]) == ("succeeded", 1, LONG)
    assert end["progress"]["iteration"] == LONG

    job = submit(ann, LONG, 100)
    until(lambda: len(ann.got("GET", f"/v1/training-jobs/{job}/snapshots")["items"]) >= 1, "a snapshot")
    if shown(ann, job)["state"] == "running":
        os.kill(_child_of(workers.begun[0].process.pid), signal.SIGKILL)
        until(lambda: shown(ann, job)["attempt"] >= 2, "another attempt, after its child died")
    until(lambda: shown(ann, job)["state"] == "running", "it runs again")
    workers.begun[0].kill()
    before = shown(ann, job)["attempt"]
    workers.begin()
    end = ends(ann, job)
    assert end["state"] == "succeeded"
    assert end["attempt"] == before + 1, "claimed once, after the lease of the dead one"
    assert model(ann, job) == model(ann, quiet), "not a bit is different"
    steps = [
        point[0] for point in ann.got("GET", f"/v1/training-jobs/{job}/metrics?points=10000")["metrics"]["train/loss"]
    ]
    assert steps == sorted(set(steps)), "each step is told once, whatever was computed twice"


@SQLITE
def test_a_training_resumed_to_a_greater_max_iter_and_after_a_cancel_is_the_unbroken_one_to_the_bit(
    shared: Stand, workers: Workers
) -> None:
    ann = shared.person("ayes", "ann")
    workers.begin()
    endless = submit(ann, 50_000, 80)
    until(lambda: bool(ann.got("GET", f"/v1/training-jobs/{endless}/snapshots")["items"]), "a snapshot")
    ann.got("POST", f"/v1/training-jobs/{endless}/cancel")
    assert ends(ann, endless)["state"] == "cancelled"
    unbroken = submit(ann, 240, 80)
    back = ann.got("POST", f"/v1/training-jobs/{endless}/resume", {"iteration": 80, "max_iter": 160})["id"]
    longer = ann.got("POST", f"/v1/training-jobs/{back}/resume", {"max_iter": 240})["id"]
    waits = shown(ann, longer)
    assert (waits["state"], waits["waits_for"]) == ("waiting", [back])
    found = [(one["state"], one["result"]["iteration"]) for one in (ends(ann, job) for job in (unbroken, back, longer))]
    assert found == [("succeeded", 240), ("succeeded", 160), ("succeeded", 240)]
    weights = [hashlib.sha256(model(ann, job)).hexdigest() for job in (unbroken, longer, back)]
    assert weights[0] == weights[1] != weights[2], "not a bit is different"
    assert (_steps(ann, back)[0] >= 80, _steps(ann, longer)[0] >= 160) == (True, True), "what was, was not redone"


def _steps(ann: Person, job: str) -> list[int]:
    points = ann.got("GET", f"/v1/training-jobs/{job}/metrics?points=10000")["metrics"]["train/loss"]
    return [point[0] for point in points]


def _child_of(process: int) -> int:
    found: list[int] = []

    def look() -> bool:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        found[:] = [int(one) for one in children if b"service.work.child" in Path(f"/proc/{one}/cmdline").read_bytes()]
        return bool(found)

    until(look, "the worker's child")
    return found[0]


@SQLITE
def test_a_cancel_ends_a_child_that_trains_and_a_worker_that_ends_parts_with_its_job(
    shared: Stand, workers: Workers
) -> None:
    ann = shared.person("ayes", "ann")
    first = workers.begin()
    job = submit(ann, 1_000_000, 100_000)
    until(lambda: (shown(ann, job)["progress"].get("iteration") or 0) > 0, "it trains")
    child = _child_of(first.process.pid)
    assert ann.ask("POST", f"/v1/training-jobs/{job}/cancel").json()["cancel_requested"]
    assert ends(ann, job)["state"] == "cancelled"
    until(lambda: not Path(f"/proc/{child}").exists(), "its process is gone")

    job = submit(ann, 1_000_000, 500_000)
    until(lambda: (shown(ann, job)["progress"].get("iteration") or 0) > 0, "it trains")
    reached = shown(ann, job)["progress"]["iteration"]
    first.stop(40)
    parted = shown(ann, job)
    assert (parted["state"], parted["attempt"], parted["reason"]) == ("queued", 1, None)
    saved = ann.got("GET", f"/v1/training-jobs/{job}/snapshots")["items"][0]["iteration"]
    assert saved >= reached, "it wrote where it was"
    assert ann.ask("POST", f"/v1/training-jobs/{job}/cancel").json()["state"] == "cancelled"


@SQLITE
def test_what_is_wrong_with_a_job_is_said_and_the_next_one_trains(shared: Stand, workers: Workers) -> None:
    ann = shared.person("ayes", "ann")
    workers.begin()
    inputs = {"train": ann.datafile(tiny.rows()), "test": ann.datafile(tiny.rows(1))}
    fast = ann.solver(tiny.solver(400, 200).replace("0.1", "3e38", 1), tiny.NET)
    wild = ann.job(solver_id=fast, inputs=inputs)
    bad = {**inputs, "train": ann.datafile(b"\x89HDF\r\n\x1a\n" + b"x" * 500)}
    torn = ann.job(solver_id=ann.solver(tiny.solver(10, 5), tiny.NET), inputs=bad)
    unread = ann.job(solver_id=ann.solver(tiny.solver(10, 5), tiny.NET), inputs=inputs)
    shared.site.run(
        shared.site.bare("delete from @judgements where solver_id = (select max(solver_id) from @judgements)")
    )
    short = submit(ann, 10_000_000, 1_000_000, max_seconds=3)
    good = submit(ann, 10, 5)
    assert ends(ann, wild)["reason"] == "diverged"
    end = ends(ann, unread)
    assert (end["reason"], "post the solver again" in end["detail"]) == ("bad_spec", True), "of an older Hathi"
    assert ends(ann, torn)["reason"] == "no_data"
    assert "/tmp/" not in ends(ann, torn)["detail"], "nothing of the host is told"
    assert ends(ann, short)["reason"] == "time_limit"
    assert ends(ann, good)["state"] == "succeeded"


def test_one_command_trains_goes_on_after_a_kill_and_starts_again_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    port = free_port()
    config = tmp_path / "etc/service.toml"
    config.write_text(
        f'state = "../state"\nlogs.folder = "../logs"\n[bucket]\nurl = "../bucket"\n'
        f'[service]\ndatabase = "../service.db"\nlisten = "127.0.0.1:{port}"\n'
    )
    log = tmp_path / "start.log"
    server = Server.start([HATHI, "service", "start", "--config", config], log=log)
    try:
        server.until(lambda: "hathi_" in log.read_text(), "a first token")
        token = next(word for word in log.read_text().split() if word.startswith("hathi_"))
        assert f"http://127.0.0.1:{port}/openapi.json" in log.read_text()
        ann = Person(f"http://127.0.0.1:{port}", token)
        assert followed(ann.url, log) == [201, 401], "the link logs in, once"
        job = submit(ann, 2_000, 100)
        until(lambda: len(ann.got("GET", f"/v1/training-jobs/{job}/snapshots")["items"]) >= 1, "a snapshot")
        children = Path(f"/proc/{server.process.pid}/task").glob("*/children")
        pool = [int(one) for some in children for one in some.read_text().split()]
        worker = next(one for one in pool if b"train" in Path(f"/proc/{one}/cmdline").read_bytes().split(b"\0"))
        os.kill(worker, signal.SIGKILL)
        until(lambda: shown(ann, job)["attempt"] == 2, "another worker goes on", 120)
        server.process.send_signal(signal.SIGINT)
        server.process.wait(60)
        assert server.process.returncode == 0
    finally:
        server.stop(40)
    again = Server.start([HATHI, "service", "start", "--config", config], log=log)
    try:
        end = ends(ann_after(again, ann), job)
        assert (end["state"], end["result"]["iteration"]) == ("succeeded", 2_000)
        assert log.read_text().count("hathi_") == 1, "a token is shown once"
        assert followed(ann.url, log) == [201, 401], "a second start has a link of its own"
    finally:
        again.stop(40)


def followed(url: str, log: Path) -> list[int]:
    """What the newest link is answered, twice."""
    link = [word for word in log.read_text().split() if "/#link=" in word][-1]
    assert link.startswith(f"{url}/#link=")
    body = {"token": link.partition("=")[2]}
    return [Person(url).ask("POST", "/v1/session", body).status_code for _ in range(2)]


def ann_after(server: Server, ann: Person) -> Person:
    def answers() -> bool:
        try:
            return ann.ask("GET", "/readyz").ok
        except OSError:
            return False

    server.until(answers, "the API answers again")
    return ann
