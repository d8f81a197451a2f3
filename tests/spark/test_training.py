"""A training on a real local cluster: executors in JVMs and processes of their own give the bits of one process."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.cli.main import main
from pipeline.errors import ConfigError, PipelineError, SolverError
from pipeline.training import job
from pipeline.training.assembly import How
from pipeline.training.attempts_file import rows_of
from pipeline.training.job import Wanted
from pipeline.training.sharing.computer import Here
from pipeline.training.sharing.processes import share_of
from tests.spark.training_kills import SAID, command, executor_of, workers_in
from tests.unit.training import shared_runs
from tests.unit.training.databases import demand_readers
from tests.unit.training.runs import Within, train

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from pipeline.cluster.training_task import Worked

demand_readers()
pytest.importorskip("torch")
PATIENCE = 900.0
SOLVER = Path("solver.prototxt")
HOW = How(threads=1, shards=8)
SHORT = 30
LOST = """An error occurred while calling z:org.apache.spark.api.python.PythonRDD.collectAndServe.
: org.apache.spark.SparkException: Job aborted due to stage failure: Could not recover from a failed barrier stage.
ExecutorLostFailure (executor 0 exited) Reason: Command exited with code 137
\tat org.apache.spark.scheduler.DAGScheduler.abortStage(DAGScheduler.scala:3044)"""
"""What py4j says of a job whose executor was killed."""
Stages = list[list["Worked"]]
Hathi = Callable[..., tuple[list[dict[str, Any]], str]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The bits of 50 iterations in one process, undisturbed."""
    folder = shared_runs.write(tmp_path_factory.mktemp("whole"))
    with Within(folder):
        train(Wanted(SOLVER, how=HOW))
    return shared_runs.bits(folder)


def on_spark(
    session: SparkSession, folder: Path, executors: int, until: int | None = None, patience: float | None = None
) -> Stages:
    """`hathi train --on spark` in this process, with the session of the tests."""
    from pipeline.cluster.training_driver import Watching, shared, stages_of

    said: list[str] = []
    with Within(folder):
        wanted = Wanted(SOLVER, how=HOW, until=until)
        watching = Watching(lambda: False, said.append)
        return list(stages_of(session, wanted, shared(wanted, patience), executors, watching))


def log(folder: Path) -> str:
    return (folder / "s_train.log").read_text()


def test_executors_have_the_bits_of_one_process_and_each_has_examples_of_its_own(
    session: SparkSession, whole: dict[str, str], tmp_path: Path, hathi: Hathi
) -> None:
    folder = shared_runs.write(tmp_path)
    stages = on_spark(session, folder, 2, until=20)
    assert [len(stage) for stage in stages] == [2]
    assert stages[0][0].iteration == 20
    assert len({one.process for one in stages[0]}) == 2
    assert len({jvm_of_a_task(one) for one in stages[0]}) == 2, "two executors, not one with two tasks"
    passes = [number for one in stages[0] for number in one.passes]
    assert sorted(passes) == list(range(20 * 8)), "no pass is left out, and none is computed twice"
    assert sum(len(one.passes) * one.examples for one in stages[0]) == 20 * 16
    out, err = hathi(folder, "--executors", "1", "--until", "40")
    assert [(row["step"], row["kind"]) for row in out[:-1]] == [(20, "test"), (20, "train"), (30, "train")]
    assert computed(err) == [20 * 16]
    out, err = hathi(folder, "--executors", "2")
    assert [(row["step"], row["kind"]) for row in out[:-1]] == [(40, "test"), (40, "train")]
    assert (out[-1]["ended"], out[-1]["iteration"]) == ("done", 50)
    assert computed(err) == [10 * 8, 10 * 8]
    assert "Iteration 40, lr = " in err, "the driver says what executor 0 logs"
    assert shared_runs.bits(folder) == whole
    attempts = rows_of(folder / "s_attempts.jsonl")
    assert [(row["kind"], row["iteration"]) for row in attempts] == [
        ("start", 20), ("end", 40), ("start", 40), ("end", 50)
    ]  # fmt: skip


def computed(said: str) -> list[int]:
    """Examples of each process, as the command counts them."""
    return [int(count.replace(",", "")) for count in re.findall(r"computed ([\d,]+) examples", said)]


@pytest.fixture
def hathi(session: SparkSession, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Hathi:
    """`hathi train --on spark --json` in a folder, in the session of the tests: its rows, and what it says."""
    from pipeline.cli.wiring import on_spark as wiring

    monkeypatch.setattr(wiring, "open_session", lambda master, more: nullcontext(session))

    def run(folder: Path, *more: str) -> tuple[list[dict[str, Any]], str]:
        capsys.readouterr()
        words = ["train", "solver.prototxt", "--on", "spark", "--shards", "8", "--threads", "1", "--json", *more]
        with Within(folder):
            assert main(words) == 0
        out, err = capsys.readouterr()
        return [json.loads(line) for line in out.splitlines()], err

    return run


def jvm_of_a_task(one: Worked) -> str:
    """Of a Python worker that still waits for tasks: its parent's parent, the executor."""
    return str(executor_of(one.process))


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The bits of 30 iterations: the first stage goes to 20, and somebody dies in the second, the last."""
    folder = shared_runs.write(tmp_path_factory.mktemp("short"), None, shared_runs.solver(SHORT))
    with Within(folder):
        train(Wanted(SOLVER, how=HOW))
    return shared_runs.bits(folder, SHORT)


@contextmanager
def once_it_trains(folder: Path, count: int, do: Callable[[list[int]], None]) -> Iterator[list[int]]:
    """Meanwhile: once the first snapshot is there and so many workers train on, does something to them."""
    hit: list[int] = []

    def watch() -> None:
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends:
            found = workers_in(folder) if (folder / "s_iter_20.resume.json").exists() else []
            if len(found) == count:
                do(found)
                hit.extend(found)
                return
            time.sleep(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield hit
    finally:
        thread.join()


def kill_a_worker(found: list[int]) -> None:
    os.kill(found[0], signal.SIGKILL)


def kill_an_executor(found: list[int]) -> None:
    os.kill(executor_of(found[-1]), signal.SIGKILL)


def stop_a_worker(found: list[int]) -> None:
    os.kill(found[1], signal.SIGSTOP)


@pytest.mark.parametrize("do", [kill_a_worker, kill_an_executor, stop_a_worker])
def test_whatever_is_killed_or_hangs_the_training_ends_with_the_same_bits(
    do: Callable[[list[int]], None], session: SparkSession, short: dict[str, str], tmp_path: Path
) -> None:
    folder = shared_runs.write(tmp_path, None, shared_runs.solver(SHORT))
    with once_it_trains(folder, 2, do) as hit:
        stages = on_spark(session, folder, 2, patience=6.0 if do is stop_a_worker else None)
    assert len(hit) == 2
    assert shared_runs.bits(folder, SHORT) == short
    assert stages[-1][0].iteration == SHORT
    said = log(folder)
    if do is stop_a_worker:
        assert f"process {hit[1]}) is silent for 6 s: it hangs" in said
    elif do is kill_a_worker:
        assert "is gone" in said
    else:  # its worker may train on to the end of the stage, without anybody to tell of it
        assert any(one.process not in hit for one in stages[-1]), "the stage was tried again, by another executor"
    ends = time.monotonic() + 60
    while do is not kill_an_executor and Path(f"/proc/{hit[0 if do is kill_a_worker else 1]}").exists():
        assert time.monotonic() < ends, "who hangs is ended"
        time.sleep(0.05)


def test_what_cannot_be_is_refused_by_name(session: SparkSession, tmp_path: Path) -> None:
    folder = shared_runs.write(tmp_path)
    with pytest.raises(ConfigError, match="there are more executors than shards: 9 and 8"):
        on_spark(session, folder, 9)
    with pytest.raises(ConfigError, match="3 executors are wanted, and the cluster has 2 slots"):
        on_spark(session, folder, 3)
    shared_runs.write(tmp_path, shared_runs.net(source="not_there"))
    with pytest.raises(SolverError, match=r"executor \d \(127\.0\.0\.1, process \d+\): layer 'data': .*not_there"):
        on_spark(session, folder, 2)
    shared_runs.write(tmp_path)
    (folder / "solver.prototxt").write_text(shared_runs.solver(more="weights: 'nothing.caffemodel'"))
    with pytest.raises(PipelineError, match=r"nothing\.caffemodel"):
        on_spark(session, folder, 2)


def alone_by_rounds(folder: Path, local_steps: int) -> dict[str, str]:
    """The loop of rounds in one process; the bits of its end."""
    wanted = Wanted(SOLVER, how=replace(HOW, local_steps=local_steps))
    with Within(folder):
        out = job.by_prefix(lambda line: None, lambda read, shown: None, lambda row: None)
        job.train(wanted, replace(out, rounds=Here(share_of(wanted), local_steps)))
    return shared_runs.bits(folder, 12)


@pytest.mark.parametrize("local_steps", [1, 4])
def test_the_drivers_loop_has_the_bits_of_one_process(local_steps: int, tmp_path: Path, hathi: Hathi) -> None:
    text = shared_runs.solver(12)
    folder = shared_runs.write(tmp_path / "driver", None, text)
    out, _ = hathi(folder, "--executors", "2", "--local-steps", str(local_steps))
    assert [(row["step"], row["kind"]) for row in out[:-1]] == [(0, "test"), (0, "train"), (10, "train")]
    assert (out[-1]["ended"], out[-1]["iteration"]) == ("done", 12)
    alone = shared_runs.write(tmp_path / "alone", None, text)
    if local_steps == 1:
        with Within(alone):
            train(Wanted(SOLVER, how=HOW))
        assert shared_runs.bits(folder, 12) == shared_runs.bits(alone, 12)
    else:
        assert shared_runs.bits(folder, 12) == alone_by_rounds(alone, local_steps)


def test_four_executors_have_the_bits_of_one_process(
    session: SparkSession, whole: dict[str, str], tmp_path: Path
) -> None:
    """By the command, on a cluster of its own; the session says that Spark is here."""
    folder = shared_runs.write(tmp_path)
    process = command(folder, 4, "--shards", "8")
    try:
        process.wait(PATIENCE)
    finally:
        process.kill()
    out = (folder / SAID).read_text()
    assert process.returncode == 0, out
    assert "8 shards on 4 executors" in out
    assert computed(out) == [50 * 16 // 4] * 4
    assert shared_runs.bits(folder) == whole


@pytest.mark.parametrize(
    ("says", "cause"),
    [
        (LOST, "failed barrier stage. ExecutorLostFailure (executor 0 exited) Reason: Command exited with code 137"),
        (f"{LOST}\nCaused by: pipeline.errors.TemporaryError: executor 1 is gone", "executor 1 is gone"),
        ("Connection refused", "Connection refused"),
    ],
)  # fmt: skip
def test_why_spark_gave_up_is_said_in_its_words_or_an_executors(says: str, cause: str) -> None:
    pytest.importorskip("pyspark")
    from pipeline.cluster.spark_training import _given_up

    assert _given_up(RuntimeError(says)).detail.endswith(cause)
