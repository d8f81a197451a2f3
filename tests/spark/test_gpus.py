"""A cluster that has GPUs by Spark's words, and begins slow tasks a second time: both as Spark documents it."""

from __future__ import annotations

import json
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.conftest import ROOT
from tests.servers.demand import Server, free_port
from tests.spark.conftest import Lake, demand_spark, lines, make_lake, spark_environ, submitted
from tests.spark.test_spark import assert_equal, one_box, urls
from tests.spark.web import slow_web

PRETENDED = """#!/bin/sh
echo '{"name": "gpu", "addresses": ["0", "1"]}'
"""
GPUS = {
    "spark.executor.resource.gpu.amount": "2",
    "spark.task.resource.gpu.amount": "1",
}
SPECULATION = {
    "spark.speculation": "true",
    "spark.speculation.multiplier": "0.1",
    "spark.speculation.quantile": "0.25",
}
HOSTS = ("127.0.0.1", "127.0.0.2")
"""Two of loopback's: Spark begins no task a second time on the host where it runs."""


@contextmanager
def standalone(folder: Path) -> Iterator[str]:
    """A master and two workers as real processes, each with two pretended GPUs: the master's URL."""
    import pyspark

    script = folder / "gpus.sh"
    script.write_text(PRETENDED)
    script.chmod(0o755)
    gpus = f"-Dspark.worker.resource.gpu.amount=2 -Dspark.worker.resource.gpu.discoveryScript={script}"
    tool = Path(pyspark.__file__).parent / "bin" / "spark-class"
    port = free_port()
    url = f"spark://127.0.0.1:{port}"
    started: list[Server] = []

    def start(kind: str, host: str, *words: str) -> Server:
        command = [
            str(tool),
            f"org.apache.spark.deploy.{kind}",
            "--host",
            host,
            "--webui-port",
            str(free_port()),
            *words,
        ]
        more = {"SPARK_LOCAL_IP": host, "SPARK_WORKER_OPTS": gpus, "SPARK_WORKER_DIR": str(folder / f"work-{host}")}
        log = folder / f"{len(started)}.log"
        started.append(Server.start(command, log=log, env=spark_environ() | more, cwd=folder))
        return started[-1]

    try:
        master = start("master.Master", HOSTS[0], "--port", str(port))
        master.until(lambda: "New state: ALIVE" in master.log.read_text(), "the master", 300)
        for host in HOSTS:
            start("worker.Worker", host, "--cores", "2", "--memory", "1g", url)
        for worker in started[1:]:
            worker.until(lambda one=worker: "Successfully registered" in one.log.read_text(), "a worker", 300)
        yield url
    finally:
        for one in reversed(started):
            one.stop()


def most_tries(lake: Lake) -> int:
    """At a batch."""
    return max(Counter(place for place, _ in lake.attempts()).values(), default=0)


@contextmanager
def opened_at_the_second_try(lake: Lake, gate: threading.Event) -> Iterator[None]:
    """Pictures come once a batch that waits for them is tried a second time."""
    over = threading.Event()

    def watch() -> None:
        while most_tries(lake) < 2 and not over.wait(0.1):
            pass
        gate.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def test_a_worker_has_the_gpu_that_spark_gave_its_task_and_speculative_tasks_are_told_of_and_double_nothing(
    tmp_path: Path,
) -> None:
    demand_spark()
    gate = threading.Event()
    gate.set()
    patient = {"fetch__total_seconds": 600.0, "fetch__min_bytes_per_second": 0}
    with slow_web(0.0, gate) as url, standalone(tmp_path) as master:
        refs = {1: lines(1, 32), 2: urls(url, 2, 24)}
        lake = make_lake(tmp_path / "lake", refs, **patient)
        alone = one_box(lake)
        lake.hathi("run", "ship")
        gate.clear()
        program = [str(ROOT / "tests/spark/with_gpus.py"), str(lake.config), str(tmp_path / "found.json")]
        words = submitted(*program, master=master, conf=GPUS | SPECULATION)
        with opened_at_the_second_try(lake, gate):
            done = subprocess.run(words, env=spark_environ(), cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
        lake.hathi("run", "deliver")
    assert_equal(lake, alone)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["problems"] == 0
    for one in found["workers"]:
        assert one["given"] in (["0"], ["1"])
        if one["taken"]:  # else it has loaded no net
            assert [one["seen"]] == one["taken"]
            assert one["seen"] in ("0", "1")
    assert any(one["taken"] for one in found["workers"])
    assert most_tries(lake) >= 2, "a batch was computed a second time"
    logs = "".join(file.read_text() for file in (lake.folder / "logs").glob("spark*.log"))
    assert "speculative task" in logs
