"""A run with several workers, as real processes: all is done once; what kills a worker costs its batches a strike."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.cli.wiring.pool import instructions_for
from pipeline.cluster.worker_pool import Heard, Pool, Slot, Worker, WorkerFailed, devices, portion, slots, strike
from pipeline.ledger.layout import AGGREGATE, ShipmentName, Task
from pipeline.ledger.manifest import AttemptEnd
from pipeline.ledger.protocol import SHIPMENTS_OF_A_POLL, beat, claim, give_up, state_of
from pipeline.process.child import Ended
from pipeline.settings import Settings, load
from sample import random_features
from tests.environment import environ
from tests.integration.conftest import ROOT, picture
from tests.unit.test_stages import shipments, url, world_of

BATCHES, REFS = 8, 12


class Shop(BaseHTTPRequestHandler):
    """Pictures by number; once it is told to, those that begin with /later/ wait to be let through."""

    protocol_version = "HTTP/1.1"
    asked: queue.SimpleQueue[str] = queue.SimpleQueue()
    open = threading.Event()

    def do_GET(self) -> None:
        if self.path.startswith("/later/"):
            self.asked.put(self.path)
            self.open.wait(120)
        content = picture(int(self.path.rpartition("/")[2].partition(".")[0]))
        with contextlib.suppress(ConnectionError):  # the process that asked was killed
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        return


class Web(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@pytest.fixture
def web() -> Iterator[str]:
    Shop.open.clear()
    server = Web(("127.0.0.1", 0), Shop)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    Shop.open.set()
    server.shutdown()
    server.server_close()


@dataclass(frozen=True)
class Box:
    """A lake with two files of refs, a bucket, and a compute box with two workers."""

    folder: Path

    def write(self, web: str, slow: bool = False, **compute: object) -> None:
        for file in range(2):
            path = self.folder / "lake" / "refs" / f"{file}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            kind = "/later" if slow else ""
            rows = [f"{file},{file}-{n},{web}{kind}/{file * 1000 + n}.png" for n in range(BATCHES * REFS // 2)]
            path.write_text("\n".join(["partner_id,sku,url", *rows, ""]))
        random_features.write(self.folder / "w.caffemodel")
        more = "\n".join(f"{key} = {value}" for key, value in compute.items())
        self.config.write_text(f'''
state = "state"
[bucket]
url = "bucket"
fsync = false
[lakes.shop]
url = "lake"
[[lakes.shop.sources]]
path = "refs"
[sets.demo]
net = "{ROOT / "sample" / "random_features.prototxt"}"
weights = "w.caffemodel"
blob = "features"
root = "features"
[ship]
batch_refs = {REFS}
[fetch]
allow_private = true
requests_per_second = 1000.0
connections_per_host = 64
batch_seconds = 600.0
total_seconds = 300.0
min_bytes_per_second = 0.0
[compute]
workers = 2
open_batches = 4
free_bytes = 0
{more}
[logs]
folder = "logs"
''')

    @property
    def config(self) -> Path:
        return self.folder / "hathi.toml"

    @property
    def commits(self) -> Path:
        return self.folder / "bucket" / "shop" / "c"

    @property
    def log(self) -> str:
        return (self.folder / "logs" / "compute-aggregate.log").read_text()

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli.main", "run", "--config", str(self.config), *words],
            cwd=ROOT,
            env=environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        with self.start(*words) as process:
            out, err = process.communicate(timeout=240)
        return process.returncode, out, err

    def bodies(self, pattern: str) -> list[dict[str, object]]:
        return [json.loads(path.read_text()) for path in sorted(self.commits.glob(pattern))]

    def delivered(self) -> list[str]:
        files = (self.folder / "lake" / "features").glob("*T*/*/features/*.parquet")
        return sorted(row for file in files for row in pq.read_table(file, columns=["url"])["url"].to_pylist())


@pytest.fixture
def box(tmp_path: Path, web: str) -> Box:
    made = Box(tmp_path)
    made.write(web)
    return made


def wait_until(happened: Callable[[], object], what: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert process.poll() is None, f"the run ended before: {what}"
        assert time.monotonic() < deadline, f"not within two minutes: {what}"
        time.sleep(0.05)


def children(process: subprocess.Popen[str]) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def pids(bodies: list[dict[str, object]]) -> set[int]:
    return {int(str(body["process"]).split(".")[2]) for body in bodies}


def test_two_workers_compute_each_batch_once_and_their_parent_says_it_in_one_summary(box: Box) -> None:
    assert box.run("--once", "ship")[0] == 0
    code, out, err = box.run("--once", "--json", "compute", "aggregate")
    assert code == 0, err
    tries = box.bodies("*/*/t/*/00001")
    assert len(tries) == BATCHES
    assert not list(box.commits.glob("*/*/t/*/00002")), "no batch was begun twice"
    assert len(box.bodies("*/*/r/*")) == BATCHES
    assert len(box.bodies("*/out")) == 2
    assert json.loads(out)["images"] == BATCHES * REFS
    summaries = [line for line in box.log.splitlines() if "\t[compute]\tSummary: " in line]
    assert len(summaries) == 1, box.log
    assert f"computed {BATCHES * REFS} features of {BATCHES * REFS} images" in summaries[0]
    assert not list((box.folder / "bucket/shop/h/alive").glob("*")), "each took its sign of life back"
    assert not list((box.folder / "state/spill").iterdir())
    assert not (box.folder / "state/_PIPE_RUNNING").exists()
    assert box.run("--once", "deliver")[0] == 0
    assert len(box.delivered()) == BATCHES * REFS


def test_a_worker_that_is_killed_costs_its_batches_a_strike_and_all_is_done_by_the_end(box: Box, web: str) -> None:
    box.write(web, slow=True)
    assert box.run("--once", "ship")[0] == 0
    with box.start("--once", "compute", "aggregate") as process:
        wait_until(lambda: len(pids(box.bodies("*/*/t/*/00001"))) == 2, "both workers hold batches", process)
        victim = min(pids(box.bodies("*/*/t/*/00001")))
        assert victim in children(process)
        held = [one for one in box.bodies("*/*/t/*/00001") if victim in pids([one])]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(box.bodies("*/*/t/*/*.x")) >= len(held), "the parent wrote the strikes", process)
        Shop.open.set()
        _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    ends = box.bodies("*/*/t/*/*.x")
    assert {(end["kind"], end["cause"]) for end in ends} == {("strike", "its worker was killed by SIGKILL")}
    assert len(box.bodies("*/*/r/*")) == BATCHES
    assert len(box.bodies("*/out")) == 2
    (said,) = [line for line in box.log.splitlines() if "was killed by SIGKILL; a strike" in line]
    assert f"a strike against {len(ends)} batch" in said
    assert " | out of memory? The kernel's log " in said, "it was ended by somebody, and that is not known"
    assert said.endswith("if memory ran out, lower compute.workers or compute.open_bytes")
    assert box.run("--once", "deliver")[0] == 0
    assert len(set(box.delivered())) == len(box.delivered()) == BATCHES * REFS


def test_a_stop_is_passed_on_and_what_was_open_is_no_strike(box: Box, web: str) -> None:
    box.write(web, slow=True)
    assert box.run("--once", "ship")[0] == 0
    estop = box.folder / "state/ESTOP"
    with box.start("--once", "compute", "aggregate") as process:
        wait_until(lambda: len(pids(box.bodies("*/*/t/*/00001"))) == 2, "both workers hold batches", process)
        workers = children(process)
        assert len(workers) == 2
        estop.touch()
        process.communicate(timeout=60)
    assert process.returncode == 4
    assert not [pid for pid in workers if running(pid)]
    assert not (box.folder / "state/_PIPE_RUNNING").exists()
    assert {end["kind"] for end in box.bodies("*/*/t/*/*.x")} <= {"abandoned"}
    assert box.bodies("*/*/r/*") == []


def test_estop_in_the_bucket_that_a_worker_meets_stops_all_of_them_and_the_run_ends_with_4(box: Box, web: str) -> None:
    box.write(web, slow=True)
    assert box.run("--once", "ship")[0] == 0
    with box.start("--once", "compute", "aggregate") as process:
        wait_until(lambda: len(pids(box.bodies("*/*/t/*/00001"))) == 2, "both workers hold batches", process)
        (box.folder / "bucket/shop/h/alive/ESTOP").touch()  # the next beats are minutes away: a worker's poll sees it
        Shop.open.set()
        _, err = process.communicate(timeout=240)
    assert process.returncode == 4, err
    assert box.log.count("ESTOP engaged in the bucket: shop/h/alive/ESTOP") == 1, box.log
    assert {end["kind"] for end in box.bodies("*/*/t/*/*.x")} <= {"abandoned"}


def test_workers_die_with_their_parent_and_the_next_run_says_so_and_goes_on(box: Box, web: str) -> None:
    box.write(web, slow=True)
    assert box.run("--once", "ship")[0] == 0
    with box.start("--once", "compute", "aggregate") as process:
        wait_until(lambda: len(pids(box.bodies("*/*/t/*/00001"))) == 2, "both workers hold batches", process)
        workers = children(process)
        process.kill()
        process.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while left := [pid for pid in workers if running(pid)]:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.05)
    Shop.open.set()
    code, _, err = box.run("--once", "compute", "aggregate")
    assert code == 0, err
    assert f"the last run died: pid {process.pid}" in box.log
    assert len(box.bodies("*/out")) == 2


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_what_no_worker_can_do_ends_the_run_with_cause_and_remedy(box: Box) -> None:
    assert box.run("--once", "ship")[0] == 0
    (box.folder / "w.caffemodel").write_bytes(b"not a net")
    code, _, err = box.run("--once", "compute", "aggregate")
    assert code == 2, err
    assert "w.caffemodel" in err
    assert "w.caffemodel" in box.log.splitlines()[-1]
    assert "Traceback" not in err


def test_a_slot_whose_workers_keep_dying_stays_empty_and_one_that_speaks_ends_the_run(tmp_path: Path) -> None:
    said: list[str] = []
    lost: list[Ended] = []
    marks = tmp_path / "marks"
    marks.mkdir()
    dying = f"import os, sys, tempfile; tempfile.mkstemp(dir={str(marks)!r}); os.kill(os.getpid(), 9)"
    speaking = """
from pipeline.errors import ConfigError
from pipeline.process.life import live
def work(channel):
    raise ConfigError("no")
live(work)
"""

    def pool_of(script: str) -> Pool:
        def begin(slot: Slot, heard: Heard) -> Worker:
            return Worker(slot, [sys.executable, "-c", script], {}, heard)

        return Pool([Slot(0, (0,))], begin, lambda *_: None, lambda _, end: lost.append(end), said.append)

    pool_of(dying).work(lambda: False, lambda: None)
    assert len(list(marks.iterdir())) == 4
    assert [end.how for end in lost] == ["was killed by SIGKILL"] * 4
    assert len(said) == 1
    assert "it is not started again in this run" in said[0]
    with pytest.raises(WorkerFailed) as caught:
        pool_of(speaking).work(lambda: False, lambda: None)
    assert caught.value.exit_code == 2


def test_slots_share_cores_and_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert slots(0, (), range(4)) == [Slot(0, (0, 1, 2, 3))]
    assert slots(0, ("0", "1"), range(5)) == [Slot(0, (0, 1), "0"), Slot(1, (2, 3, 4), "1")]
    assert slots(3, (), [7]) == [Slot(0, (7,)), Slot(1, (7,)), Slot(2, (7,))]
    assert Counter(slot.device for slot in slots(4, ("GPU-a", "GPU-b"), range(4))) == {"GPU-a": 2, "GPU-b": 2}
    assert devices({"CUDA_VISIBLE_DEVICES": "2,5"}) == ("2", "5")
    assert devices({"CUDA_VISIBLE_DEVICES": ""}) == ()
    driver = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for script, found in {
        "echo 'GPU 0: NVIDIA H200 (UUID: GPU-1)'; echo 'GPU 1: NVIDIA H200 (UUID: GPU-2)'": ("0", "1"),
        "echo 'NVIDIA-SMI has failed'; exit 9": (),
        "exec sleep 1000": (),
    }.items():
        driver.write_text(f"#!/bin/sh\n{script}\n")
        driver.chmod(0o755)
        assert devices({}, seconds=1.0 if "sleep" in script else 60.0) == found


def test_a_worker_gets_its_part_of_what_the_box_may_take(box: Box) -> None:
    whole = load(box.config, {"HATHI_FETCH__SHARE": "0.5", "HATHI_COMPUTE__THREADS": "3"})
    mine = portion(whole, 2, 100.0)
    assert mine.fetch.share == 0.25
    assert mine.compute.threads == 1
    assert mine.compute.open_batches == 2
    assert mine.compute.open_bytes * 2 == whole.compute.open_bytes
    assert mine.compute.spill_bytes * 2 == whole.compute.spill_bytes
    assert mine.compute.max_run_seconds == 100.0
    assert mine.sets == whole.sets


def test_a_secret_reaches_a_worker_and_nothing_else_shows_it(box: Box) -> None:
    settings = load(box.config, {"HATHI_BUCKET__SECRET_KEY": "hunter2", "HATHI_NOTIFY__WEBHOOK": "https://h/?t=x"})
    instructions = instructions_for(Slot(1, (0,)), portion(settings, 2, 9.0), ["compute"], "compute")
    read = Settings.model_validate_json(json.loads(json.dumps(instructions))["settings"])
    assert read == portion(settings, 2, 9.0)
    assert read.bucket.secret_key is not None
    assert read.bucket.secret_key.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(settings)


def test_a_strike_is_against_each_batch_that_the_dead_one_held_and_no_other(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(f"7,item{n},{url('ok', n)}" for n in range(3)))
    for number in range(SHIPMENTS_OF_A_POLL + 5):
        world.put_refs(f"{number:03}.csv", f"partner_id,external_id,url\n7,more{number},{url('ok', number)}\n")
    world.turns().take("ship")
    names: list[ShipmentName] = sorted(shipments(world).values())
    assert len(names) > SHIPMENTS_OF_A_POLL
    task = Task.batch(world.fingerprints["demo"], 0)
    dead, other = world.context("box.dead"), world.context("box.other")
    for context in (dead, other):
        beat(context)
    for name in (names[0], names[-1]):
        assert claim(dead, name, task, 1)
    assert claim(dead, names[1], task, 1)
    give_up(dead, names[1], task, 1, AttemptEnd(kind="abandoned", cause="the run was stopped"))
    assert claim(dead, names[2], AGGREGATE, 1)
    assert claim(other, names[3], task, 1)

    assert strike(world.context("box.parent"), "box.dead", "its worker was killed by SIGKILL") == 2

    ends = {}
    for name in names[:4] + names[-1:]:
        for tries in state_of(other, name).tries.values():
            ends[name] = [one.end and one.end.kind for one in tries]
    kinds = [["strike"], ["abandoned"], [None], [None], ["strike"]]
    assert ends == dict(zip(names[:4] + names[-1:], kinds, strict=True))
    assert [key for key in world.bucket.files if "/alive/" in key] == ["shop/h/alive/box.other"]
