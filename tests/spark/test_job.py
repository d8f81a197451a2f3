"""The baristas of a real cluster's executors: one for each, whoever begins it and whatever dies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.barista import executor
from pipeline.barista.executor import Job
from pipeline.errors import PermanentError
from pipeline.process.host import program_of, start_of
from tests.unit.barista.inputs import batch
from tests.unit.barista.served import Single, same, solver_in, until
from tests.unit.training.conftest import MISSING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.skipif(bool(MISSING), reason="a barista needs torch")
GIVEN = 5
"""The version of the weights that the tests' tasks give."""


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Single:
    return Single(solver_in(tmp_path_factory.mktemp("job") / "solver"))


@pytest.fixture
def job(single: Single) -> Job:
    return executor.job(single.read.path)


def computed(job: Job, weights: dict[str, Any], number: int) -> tuple[int, int, dict[str, Any]]:
    """In a task: the executor, its barista, the gradients of batch `number`."""
    with job.customer() as customer:
        customer.weights(GIVEN, weights)
        customer.gradient(batch(number), number=number, version=GIVEN)
        copied = {name: one.copy() for name, one in customer.gradients.items()}
        return executor.executor_of(os.getpid()), customer.about()["pid"], copied


def where(number: int) -> int:
    """In a task: its executor.  It takes a while, so that each executor has some."""
    time.sleep(0.2)
    return executor.executor_of(os.getpid())


def on_all(session: SparkSession, work: Callable[[int], Any], tasks: int = 8) -> list[Any]:
    return session.sparkContext.parallelize(range(tasks), tasks).map(work).collect()


def served(session: SparkSession, job: Job, single: Single) -> dict[int, int]:
    """The barista of each executor; its tasks have computed what one process computes, to the bit."""
    assert until(lambda: len(set(on_all(session, where))) == 2, 120), "both executors work"
    found = on_all(session, partial(computed, job, single.weights()))
    for number, (_, _, gradients) in enumerate(found):
        assert same(gradients, single.gradient(batch(number), number)[1])
    pairs = {(one, barista) for one, barista, _ in found}
    assert len({one for one, _ in pairs}) == len({barista for _, barista in pairs}) == len(pairs) == 2
    return dict(pairs)


def test_each_executor_has_one_barista_which_ends_with_it_and_is_replaced_when_it_is_killed(
    session: SparkSession, job: Job, single: Single
) -> None:
    first = served(session, job, single)
    assert {program_of(one) for one in first} == {"java"}
    one, other = sorted(first)
    os.kill(first[one], signal.SIGKILL)
    assert until(lambda: start_of(first[one]) == "")
    second = served(session, job, single)
    assert second[one] != first[one], "the next task has begun another"
    assert second[other] == first[other], "nobody else notices"
    os.kill(one, signal.SIGKILL)
    assert until(lambda: start_of(second[one]) == "", 30), "a barista ends with its executor"
    third = served(session, job, single)
    assert one not in third
    assert third[other] == first[other]


def leaving(job: Job, number: int) -> str:
    """In a task: writes a wrong shape, then leaves in the middle of a pass.  What was said of the shape."""
    said = ""
    customer = job.customer()
    try:
        customer.gradient({"data": batch(number)["data"][:, :, 1:]})
    except PermanentError as error:
        said = error.message
    customer.data["data"][...] = 7
    customer._socket.sendall(b'{"verb": "gradient", "rows": 8}')
    customer.close()
    return said


def test_customers_that_write_a_wrong_shape_or_leave_in_the_middle_do_the_others_no_harm(
    session: SparkSession, job: Job, single: Single
) -> None:
    few = replace(job, slots=2)
    assert set(on_all(session, partial(leaving, few))) == {"'data' is given with the shape (8, 1, 11, 12)"}
    served(session, few, single)


def hurt(job: Job, number: int) -> str:
    """In a task: what stands in the way of a pass, and what comes of it."""
    from pipeline.process.scratch import of_a_worker

    job = replace(job, name=f"{job.name}-{number}", version="9.9" if number == 0 else job.version)
    if number == 1:
        (of_a_worker("barista") / f"{job.name}.interface.socket").mkdir()
    try:
        with job.customer() as customer:
            if number == 2:
                os.kill(customer.about()["pid"], signal.SIGKILL)
            customer.gradient(batch(0), version=GIVEN)
    except PermanentError as error:
        return str(error)
    return ""


def test_what_stands_in_the_way_is_named_by_the_task(session: SparkSession, job: Job) -> None:
    """Another version of Hathi, a socket that is taken, a dead barista's file, weights that nobody has given."""
    versions, taken, dead, ungiven = on_all(session, partial(hurt, job), 4)
    assert "the driver 9.9" in versions
    assert "has Hathi" in versions
    assert "is taken" in taken
    assert "has ended" in dead
    assert "the weights are of version -1, not 5" in ungiven


def test_a_job_without_spark_is_its_own_processs(job: Job, single: Single) -> None:
    with job.customer() as customer:
        assert customer.version == executor.UNGIVEN
        assert customer.about()["order"]["solver"].endswith(f"barista/{job.name}.prototxt")
        assert customer.weights(0, single.weights())
        customer.stop()
    assert executor.executor_of(os.getpid()) == os.getpid()
