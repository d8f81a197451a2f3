"""A training on a real local cluster: executors in JVMs and processes of their own give the bits of one process."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.errors import ConfigError, PipelineError, SolverError
from pipeline.training import job
from pipeline.training.assembly import How
from pipeline.training.job import Wanted
from pipeline.training.sharing.computer import Here
from pipeline.training.sharing.processes import Share, share_of
from pipeline.training.sharing.rounds import Rounds
from tests.spark.training_kills import executor_of, workers_in
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
Stages = list[list["Worked"]]


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
    session: SparkSession, whole: dict[str, str], tmp_path: Path
) -> None:
    folder = shared_runs.write(tmp_path)
    stages = on_spark(session, folder, 2, until=20)
    stages += on_spark(session, folder, 1, until=40)
    stages += on_spark(session, folder, 2)
    assert shared_runs.bits(folder) == whole
    assert [len(stage) for stage in stages] == [2, 1, 2]
    assert [stage[0].iteration for stage in stages] == [20, 40, 50]
    assert len({one.process for one in stages[0]}) == 2
    assert len({jvm_of_a_task(one) for one in stages[2]}) == 2, "two executors, not one with two tasks"
    passes = [number for stage in stages for one in stage for number in one.passes]
    assert sorted(passes) == list(range(50 * 8)), "no pass is left out, and none is computed twice"
    assert sum(len(one.passes) * one.examples for stage in stages for one in stage) == 50 * 16


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


def by_rounds(folder: Path, local_steps: int, rounds: Callable[[Share], Rounds]) -> dict[str, str]:
    """The driver's loop; the bits of its end."""
    wanted = Wanted(SOLVER, how=replace(HOW, local_steps=local_steps))
    with Within(folder):
        out = job.by_prefix(lambda line: None, lambda read, shown: None, lambda row: None)
        job.train(wanted, replace(out, rounds=rounds(share_of(wanted))))
    return shared_runs.bits(folder, 12)


@pytest.mark.parametrize("local_steps", [1, 4])
def test_the_drivers_loop_has_the_bits_of_one_process(session: SparkSession, local_steps: int, tmp_path: Path) -> None:
    from pipeline.cluster.spark_training import OnSpark, Ways

    text = shared_runs.solver(12)
    spark = OnSpark(session, 2, 8, Ways(lambda: False, lambda says: None, lambda: 0))
    folder = shared_runs.write(tmp_path / "driver", None, text)
    found = by_rounds(folder, local_steps, lambda share: spark.rounds(share, local_steps))
    alone = shared_runs.write(tmp_path / "alone", None, text)
    if local_steps == 1:
        with Within(alone):
            train(Wanted(SOLVER, how=HOW))
        assert found == shared_runs.bits(alone, 12)
    else:
        assert found == by_rounds(alone, local_steps, lambda share: Here(share, local_steps))
