"""`hathi service start` as a person has it: its workers come and go with the queue, die, and are begun anew."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.servers.databases import needs_the_extra
from tests.servers.demand import Server, free_port, until
from tests.servers.picture_training import archive
from tests.servers.service import Person
from tests.servers.started import HATHI, Started, children_in, command_of

SECONDS = 300.0
"""On a machine that others use an import takes minutes."""
ENGAGED = "ESTOP engaged in the bucket: s/ESTOP; hathi start --remote deletes it"


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    needs_the_extra()
    made = Started(tmp_path)
    try:
        yield made
    finally:
        if made.server is not None:
            made.server.stop(40)


def imported(ann: Person, datafile: str, name: str = "d") -> str:
    return str(ann.got("POST", "/v1/datasets", {"name": name, "datafile_id": datafile})["id"])


def state(ann: Person, dataset: str) -> str:
    return str(ann.got("GET", f"/v1/datasets/{dataset}")["state"])


def test_workers_come_with_the_queue_and_go_when_it_is_empty(started: Started) -> None:
    """No worker, three, none, by count of processes; nothing was ended while it worked; a program was told."""
    told = started.folder / "told"
    tell = [sys.executable, "-c", f"import sys; print(sys.stdin.read(), file=open({str(told)!r}, 'a'))"]
    port = free_port()
    started.configure(f"""\
        metrics_listen = "127.0.0.1:{port}"
        [service.workers]
        light_min = 0
        light_max = 3
        [service.scaling]
        idle_seconds = 1
        command = {tell!r}
    """)
    started.begin()
    ann = started.person()
    datafile = ann.datafile(archive(40))
    assert started.workers("light") == []
    names = [imported(ann, datafile, f"d{n}") for n in range(4)]
    most = 0

    def over() -> bool:
        nonlocal most
        most = max(most, len(started.workers("light")))
        return all(state(ann, name) == "succeeded" for name in names)

    until(over, "all are imported", SECONDS)
    until(lambda: started.workers("light") == [], "nobody is left", SECONDS)
    assert most == 3
    assert started.workers("train") == []
    assert [started.row(name)["epoch"] for name in names] == [1] * 4, "each was done once, by one worker"
    assert started.log().count("one had nothing to do") == 3
    kind = ann.got("GET", "/v1/scaling")["kinds"]["light"]
    assert (kind["desired"], kind["queued"], kind["running"], kind["workers"]) == (0, 0, 0, 0)
    text = urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60).read().decode()
    assert 'hathi_service_workers_desired{kind="light"} 0.0' in text
    assert 'hathi_service_requests_total{method="POST",status="201"}' in text
    assert '"desired": 3' in told.read_text()


def busy(started: Started, ann: Person, work: str) -> int:
    """The process of the worker that has it, whose child does nothing more."""
    until(lambda: state(ann, work) == "running", "it runs", SECONDS)
    (worker,) = started.workers("light")
    until(lambda: _child_of(worker) is not None, "its child", SECONDS)
    child = _child_of(worker)
    assert child is not None
    folder = command_of(str(child))[-3]
    until(lambda: os.readlink(f"/proc/{child}/cwd").encode() == folder, "it dies with its worker from now on", SECONDS)
    os.kill(child, signal.SIGSTOP)
    assert started.row(work)["state"] == "running"
    return worker


def _child_of(worker: int) -> int | None:
    children = [one for path in Path(f"/proc/{worker}/task").glob("*/children") for one in children_in(path)]
    return next((int(one) for one in children if b"pipeline.service.work.import_child" in command_of(one)), None)


def test_a_dead_worker_or_a_dead_service_is_missed_at_once_and_its_work_goes_on(started: Started) -> None:
    started.configure("[service.workers]\nlight_max = 1\n")
    started.begin()
    ann = started.person()
    datafile = ann.datafile(archive(400))
    work = imported(ann, datafile)
    os.kill(busy(started, ann, work), signal.SIGKILL)
    until(lambda: started.row(work)["epoch"] == 2, "another worker has it", SECONDS)
    assert "had work, which goes to the next worker that asks" in started.log()
    worker = busy(started, ann, work)
    assert started.server is not None
    started.server.kill()
    until(lambda: not command_of(str(worker)), "the worker died with who began it", SECONDS)
    started.begin()
    until(lambda: started.row(work)["epoch"] == 3, "a worker of the next start has it", SECONDS)
    until(lambda: state(ann, work) == "succeeded", "it is imported", SECONDS)
    assert started.row(work)["strikes"] == 0
    assert started.log().count("is gone; what it held goes to the next worker that asks") == 1
    (idle,) = started.workers("light")
    (started.folder / "state/ESTOP").touch()
    until(lambda: started.server is not None and not started.server.runs, "ESTOP ends it", SECONDS)
    assert started.server.process.returncode == 4
    assert not command_of(str(idle))


def test_estop_in_the_bucket_ends_servers_and_workers_gives_work_back_and_lets_nothing_start(started: Started) -> None:
    tell = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    started.configure(f"[service.workers]\nlight_max = 1\n[service.scaling]\ncommand = {tell!r}\n")
    started.begin()
    ann, config = started.person(), started.folder / "etc/service.toml"
    work = imported(ann, ann.datafile(archive(200)))
    worker = busy(started, ann, work)

    def typed(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(HATHI), *words, "--config", str(config)]
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)

    alone = Server.start([HATHI, "service", "worker", "--kind", "train", "--config", config], log=started.folder / "w")
    scales = Server.start([HATHI, "service", "scale", "--config", config], log=started.folder / "s")
    try:
        until(lambda: len(started.rows("workers")) == 2, "both workers are in the queue", SECONDS)
        stopped = typed("stop", "--remote")
        assert (stopped.returncode, f"{started.folder}/bucket/s/ESTOP" in stopped.stdout) == (0, True), stopped.stderr
        until(lambda: started.row(work)["state"] == "running" and started.log().count(ENGAGED) == 2, "seen", SECONDS)
        child = _child_of(worker)
        assert child is not None
        os.kill(child, signal.SIGCONT)
        assert started.server is not None
        for server, log in ((started.server, started.log), (alone, alone.last_words), (scales, scales.last_words)):
            assert server.process.wait(SECONDS) == 4
            assert ENGAGED in log()
    finally:
        alone.stop()
        scales.stop()
    left = started.row(work)
    assert (left["state"], left["strikes"]) == ("queued", 0), "given back as by SIGTERM"
    assert {row["state"] for row in started.rows("workers")} == {"retired"}
    for words in (("start",), ("worker",), ("prune", "--yes")):
        refused = typed("service", *words)
        assert refused.returncode == 4, words
        assert "`hathi start --remote` deletes" in refused.stderr
    assert typed("start", "--remote").stdout.startswith("ESTOP is taken back")
    started.begin()
    until(lambda: state(ann, work) == "succeeded", "the next start goes on", SECONDS)


def test_a_worker_that_cannot_live_is_begun_again_with_pauses_and_the_api_answers(started: Started) -> None:
    started.configure("[service.workers]\nlight_max = 1\n")
    started.begin()
    ann = started.person()
    config = started.folder / "etc/service.toml"
    good = config.read_text()
    config.write_text(good + "nonsense = 1\n")
    (worker,) = _until_one(lambda: started.workers("light"))
    os.kill(worker, signal.SIGKILL)
    until(lambda: started.log().count("ended itself with exit code 2") >= 2, "it is tried again", SECONDS)
    assert ann.ask("GET", "/readyz").ok
    config.write_text(good)
    work = imported(ann, ann.datafile(archive(10)))
    until(lambda: state(ann, work) == "succeeded", "it works once it can", SECONDS)


def _until_one(found: Callable[[], list[int]]) -> list[int]:
    until(lambda: len(found()) == 1, "a worker", SECONDS)
    return found()


def test_a_worker_loads_no_engine_and_no_decoder() -> None:
    needs_the_extra()
    program = (
        "import sys, pipeline.cli.main, pipeline.cli.service, pipeline.cli.wiring.service_pool\n"
        "import pipeline.service.work.worker, pipeline.service.work.missing, pipeline.service.fetching\n"
        "named = ('torch', 'cv2', 'openvino', 'onnxruntime', 'fastapi', 'uvicorn')\n"
        "print([one for one in named if one in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr
