"""compute and aggregate on a real local cluster: what is delivered equals the run of one box, whatever dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.cli import spark as command
from pipeline.cli.output.table import Totals
from pipeline.cli.wiring.running import Program, running
from pipeline.stage_names import ON_THE_BOX
from tests.environment import environ
from tests.integration.conftest import ROOT, row
from tests.servers.demand import Server
from tests.spark.conftest import Lake, demand_spark, lines, make_lake, spark_environ, submitted
from tests.spark.web import slow_web

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def on_cluster(lake: Lake, session: SparkSession, spread: int = 0) -> Totals:
    """`hathi spark` in this process, with the session of the tests."""
    from pipeline.cluster.spark import Cluster, Shape

    settings = lake.settings
    cluster = Cluster(session, settings, Shape.of(session.sparkContext, 2, spread))
    with running(Program("spark", settings, ON_THE_BOX, watchdog=False)) as process:
        return command.work(process, cluster, False, lambda stage, done, to_do: None)


def assert_equal(lake: Lake, alone: Lake) -> None:
    """What was delivered is the same: folders, rows, text byte for byte; and the ledger is whole."""
    assert lake.rows("features") == alone.rows("features")
    assert lake.rows("failures") == alone.rows("failures")
    assert lake.texts() == alone.texts()
    assert len(lake.texts()) > 0
    lake.hathi("verify", "--deep")


def one_box(lake: Lake) -> Lake:
    """The same lake, computed by one box."""
    alone = lake.twin("alone")
    alone.hathi("run", "ship", "compute", "aggregate", "deliver")
    return alone


def test_what_is_delivered_equals_the_run_of_one_box(tmp_path: Path, session: SparkSession, events: Path) -> None:
    lake = make_lake(tmp_path / "lake", {partner: lines(partner, 40) for partner in (1, 2, 3)})
    alone = one_box(lake)
    lake.hathi("run", "ship")
    tasks, shuffled = tasks_and_shuffled(events)
    totals = on_cluster(lake, session)
    lake.hathi("run", "deliver")
    assert_equal(lake, alone)
    assert (totals.of("compute").counts.refs, totals.of("aggregate").counts.refs) == (120, 120)
    assert len({result["process"] for result in lake.results()}) >= 2, "both workers computed"
    after = tasks_and_shuffled(events)
    assert after[0] > tasks
    assert after[1] == shuffled, "trainings of the same session shuffle, features never"


def tasks_and_shuffled(events: Path) -> tuple[int, int]:
    """The session's tasks so far, and the bytes that they have shuffled, by Spark's own event log."""
    total = tasks = 0
    for file in (file for file in events.rglob("events_*") if file.is_file()):
        for line in file.read_text().splitlines():
            event = json.loads(line)
            if event["Event"] == "SparkListenerTaskEnd" and event.get("Task Metrics"):
                tasks += 1
                total += event["Task Metrics"]["Shuffle Write Metrics"]["Shuffle Bytes Written"]
    return tasks, total


def test_a_partner_with_nine_tenths_of_the_refs_is_spread_over_the_workers(
    tmp_path: Path, session: SparkSession
) -> None:
    lake = make_lake(tmp_path / "lake", {1: lines(1, 180), 2: lines(2, 20)}, ship__batches_per_shipment=64)
    alone = one_box(lake)
    lake.hathi("run", "ship")
    on_cluster(lake, session)
    lake.hathi("run", "deliver")
    assert_equal(lake, alone)
    shares = Counter(result["process"] for result in lake.results() if result["refs"] == 16)
    assert len(shares) >= 2
    assert max(shares.values()) <= 0.7 * sum(shares.values())
    assert Counter(Counter(place for place, _ in lake.attempts()).values()) == {1: len(lake.results())}


@contextmanager
def striking(lake: Lake, strike: Callable[[int], bool]) -> Iterator[list[int]]:
    """Looks at each attempt's process while this lasts; `strike` says whether it was the one to strike."""
    over = threading.Event()
    struck: list[int] = []

    def hunt() -> None:
        seen: set[str] = set()
        while not over.wait(0.02):
            for _, process in lake.attempts():
                pid = int(process.split(".")[-3])
                if process not in seen and not struck and strike(pid):
                    struck.append(pid)
                seen.add(process)

    hunter = threading.Thread(target=hunt)
    hunter.start()
    try:
        yield struck
    finally:
        over.set()
        hunter.join()


def kill_worker(pid: int) -> bool:
    os.kill(pid, signal.SIGKILL)
    return True


def kill_executor(pid: int) -> bool:
    """The JVM above a Python worker: worker, its daemon, the executor."""
    daemon = parent_of(pid)
    jvm = parent_of(daemon)
    assert "CoarseGrainedExecutorBackend" in Path(f"/proc/{jvm}/cmdline").read_text()
    os.kill(jvm, signal.SIGKILL)
    return True


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("kill", [kill_worker, kill_executor])
def test_whatever_is_killed_in_mid_run_nothing_is_lost_or_doubled(
    tmp_path: Path, session: SparkSession, kill: Callable[[int], bool]
) -> None:
    with slow_web(0.3) as url:
        refs = {partner: urls(url, partner, 48) for partner in (1, 2)}
        lake = make_lake(tmp_path / "lake", refs, fetch__connections_per_host=2)
        alone = one_box(lake)
        lake.hathi("run", "ship")
        with striking(lake, kill) as struck:
            on_cluster(lake, session)
        assert len(struck) == 1
        lake.hathi("run", "deliver")
    assert_equal(lake, alone)
    tried = Counter(place for place, _ in lake.attempts())
    assert max(tried.values()) >= 2, "the killed one's batches were taken up by another attempt"


def test_a_box_from_cron_works_beside_the_cluster_on_the_same_bucket(tmp_path: Path, session: SparkSession) -> None:
    with slow_web(0.3) as url:
        refs = {partner: urls(url, partner, 48) for partner in (1, 2, 3)}
        lake = make_lake(tmp_path / "lake", refs, fetch__connections_per_host=2)
        alone = one_box(lake)
        lake.hathi("run", "ship")
        words = [sys.executable, "-m", "pipeline.cli.main", "run", "--once", "compute", "aggregate"]
        box = Server.start([*words, "--config", lake.config], log=tmp_path / "box.log", env=environ(), cwd=ROOT)
        box.until(lambda: bool(lake.attempts()), "the box has claimed a batch", 120.0)
        on_cluster(lake, session)
        assert box.process.wait(240) == 0, box.last_words()
        lake.hathi("run", "compute", "aggregate", "deliver")
    assert_equal(lake, alone)
    workers = {result["process"].split(".")[-3] for result in lake.results()}
    assert str(box.process.pid) in workers
    assert len(workers) >= 2, "the cluster has computed, too"
    assert Counter(Counter(place for place, _ in lake.attempts()).values()) == {1: len(lake.results())}


def urls(url: str, partner: int, number: int) -> list[str]:
    return [
        json.dumps({"partner_id": partner, "external_id": f"sku-{n}", "url": f"{url}/{partner}/{n}.png"})
        for n in range(number)
    ]


def test_a_driver_that_is_killed_and_started_again_goes_on(tmp_path: Path) -> None:
    demand_spark()
    with slow_web(0.3) as url:
        lake = make_lake(tmp_path / "lake", {1: urls(url, 1, 64)}, fetch__connections_per_host=2)
        alone = one_box(lake)
        lake.hathi("run", "ship")
        words = submit(lake)
        first = Server.start(words, log=tmp_path / "first.log", env=spark_environ(), cwd=tmp_path)
        first.until(lambda: bool(lake.results()), "a first result", 240.0)
        os.killpg(first.process.pid, signal.SIGKILL)
        first.process.wait()
        done = len(lake.results())
        assert done < 4
        again = subprocess.run(words, env=spark_environ(), cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert again.returncode == 0, again.stderr[-2000:]
        lake.hathi("run", "deliver")
    assert_equal(lake, alone)


def submit(lake: Lake) -> list[str]:
    """The documented way: spark-submit with the module and its options."""
    return submitted(str(ROOT / "scripts" / "spark_submit.py"), "--config", str(lake.config))


def test_an_image_that_kills_its_worker_costs_itself_alone(tmp_path: Path, session: SparkSession) -> None:
    poison = "the-killer"
    refs = lines(1, 32, first=1)
    refs[20] = row(poison, b"\x89PNG poison", 1)
    lake = make_lake(tmp_path / "lake", {1: refs}, compute__lost=2)
    lake.hathi("run", "ship")
    with hunting(lake, poison.encode()) as hit:
        on_cluster(lake, session)
    lake.hathi("run", "deliver")
    assert len(hit) >= 2
    reasons = Counter(one["reason"] for one in lake.rows("failures"))
    assert reasons["poison"] == 1
    (victim,) = [one for one in lake.rows("failures") if one["reason"] == "poison"]
    assert victim["external_id"] == poison
    assert len(lake.rows("features")) + len(lake.rows("failures")) == 32
    lake.hathi("verify", "--deep")


@contextmanager
def hunting(lake: Lake, content: bytes) -> Iterator[list[int]]:
    """While this lasts, a worker that has the batch with these bytes, or a child that holds them, is killed."""
    over = threading.Event()
    hit: list[int] = []

    def hunt() -> None:
        ended: set[str] = set()
        while not over.wait(0.005):
            for entry in Path("/proc").iterdir():
                if holds(entry, content):
                    os.kill(int(entry.name), signal.SIGKILL)
                    hit.append(int(entry.name))
            for place, process in lake.attempts():
                if place.endswith("/00001") and process not in ended and len(ended) < 2:
                    ended.add(process)
                    pid = int(process.split(".")[-3])
                    os.kill(pid, signal.SIGKILL)
                    hit.append(pid)

    hunter = threading.Thread(target=hunt)
    hunter.start()
    try:
        yield hit
    finally:
        over.set()
        hunter.join()


def holds(entry: Path, content: bytes) -> bool:
    """Whether a process is the child of a batch alone, with these bytes among its refs."""
    try:
        words = (entry / "cmdline").read_text().split("\0")
        return "pipeline.extraction.isolation" in words and content in (Path(words[3]) / "refs.pb").read_bytes()
    except (OSError, IndexError):
        return False  # no process, or one that has just ended


def test_a_column_of_urls_gets_features_and_failures(session: SparkSession, tmp_path: Path) -> None:
    from hathi.spark import features
    from pipeline.settings import Fetch
    from sample import random_features

    random_features.write(tmp_path / "random.caffemodel")
    with slow_web(0.0) as url:
        wanted = [(n, f"{url}/1/{n}.png") for n in range(40)] + [(40, f"{url}/missing"), (41, None), (42, "http://")]
        frame = session.createDataFrame(wanted, "id int, picture string")
        found = features(
            frame,
            "picture",
            {
                "net": str(ROOT / "sample" / "random_features.prototxt"),
                "weights": str(tmp_path / "random.caffemodel"),
                "blob": "features",
            },
            fetch=Fetch(allow_private=True, attempts=1),
        )
        rows = {one["id"]: one for one in found.collect()}
    assert len(rows) == 43
    for number in range(40):
        assert rows[number]["failure"] is None
        assert len(rows[number]["features"]) == 128
    reasons = {number: rows[number]["failure"]["reason"] for number in (40, 41, 42)}
    assert reasons == {40: "http_4xx", 41: "bad_ref", 42: "bad_url"}
    assert all(rows[number]["features"] is None for number in reasons)


def test_columns_that_are_missing_or_taken_are_refused(session: SparkSession) -> None:
    from hathi.spark import features
    from pipeline.errors import ConfigError

    frame = session.createDataFrame([(1, "x")], "id int, failure string")
    with pytest.raises(ConfigError, match="no column 'url'"):
        features(frame, "url", {"net": "n", "blob": "b"})
    with pytest.raises(ConfigError, match="the table has a column 'failure'"):
        features(frame, "failure", {"net": "n", "blob": "b"})


def test_delivered_folders_are_read_by_glob_and_by_the_index_with_plain_spark(
    session: SparkSession, tmp_path: Path
) -> None:
    lake = make_lake(tmp_path / "lake", {1: lines(1, 20), 2: lines(2, 20)})
    lake.hathi("run", "ship", "compute", "aggregate", "deliver")
    expected = {(one["partner_id"], one["item_id"]) for one in lake.rows("features")}
    frame = session.read.parquet(f"{lake.delivered}/*/*/features/*.parquet")
    assert {(one["partner_id"], one["item_id"]) for one in frame.collect()} == expected
    index: dict[str, Any] = json.loads((lake.delivered / "outputByPartner").read_text())
    named = [f"{lake.delivered}/{file}" for partner in index["partners"].values() for file in partner["files"]]
    tables = [name for name in named if "/features/part-" in name]
    again = session.read.parquet(*tables)
    assert {(one["partner_id"], one["item_id"]) for one in again.collect()} == expected
    assert {field.name for field in again.schema} >= {"partner_id", "item_id", "features", "content_sha256"}


def test_executors_get_files_as_they_were_and_an_onnx_models_second_file_too(tmp_path: Path) -> None:
    """Under names that tell their content: Spark never carries two files of one name."""
    demand_spark()
    from pipeline.cluster.spark import SPARK_FILE, Carrying
    from pipeline.nets import load

    class Carried:
        def __init__(self) -> None:
            self.files: dict[str, bytes] = {}
            self.listFiles: list[str] = []

        def addFile(self, uri: str) -> None:
            path = Path(uri.removeprefix("file://"))
            assert path.name not in self.files, "as Spark refuses it"
            self.files[path.name] = path.read_bytes()
            self.listFiles.append(uri)

    spark = Carried()
    carrying = Carrying(spark)  # type: ignore[arg-type]
    mean = tmp_path / "mean.npy"
    mean.write_bytes(b"one")
    first = carrying._carry(str(mean))
    mean.write_bytes(b"two")
    second = carrying._carry(str(mean))
    assert [spark.files[name.removeprefix(SPARK_FILE)] for name in (first, second)] == [b"one", b"two"]
    assert Carrying(spark)._carry(str(mean)) == second, "another one of the same session"  # type: ignore[arg-type]
    model = ROOT / "tests" / "golden" / "onnx" / "vit_opset18_outside.onnx"
    carried = carrying._carry(str(model)).removeprefix(SPARK_FILE)
    for name, content in spark.files.items():
        (tmp_path / name).write_bytes(content)
    here, there = (load(path, engine="openvino") for path in (model, tmp_path / carried))
    (blob,), (name,) = here.outputs[:1], here.inputs
    shapes = {name: (2, *here.inputs[name][1:])}
    assert here.fingerprint(blob, shapes) == there.fingerprint(blob, shapes)
