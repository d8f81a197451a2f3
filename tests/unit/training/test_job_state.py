"""A training's state follows from what exists, and from nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.errors import FormatError
from pipeline.ledger.bodies import Body, NewerFormat, body_of
from pipeline.ledger.layout import JobName, Keys
from pipeline.ledger.manifest import Attempt, AttemptEnd
from pipeline.ledger.trainings import (
    JobAttemptEnd,
    JobOut,
    JobSnapshot,
    JobSpec,
    JobStop,
    Reached,
)
from pipeline.training.retention import forgettable, kept
from pipeline.training.state import Failed, Finished, Running, Stopped, Waiting, parent_of
from tests.unit.training.jobs import AT, KEYS, SPEC, file_of, job_of, link

NOBODY: frozenset[str] = frozenset()
ROW = json.dumps({"step": 6, "values": {"train/loss": 0.5}})


def test_keys_of_a_training_are_spelt_as_the_protocol_says() -> None:
    name = SPEC.name()
    assert [KEYS.spec, KEYS.attempt(3), KEYS.attempt_end(3), KEYS.snapshot(500), KEYS.out, KEYS.stop, KEYS.hint,
            KEYS.file("0f", "net.caffemodel")] == [
        f"shop/j/{name}/spec", f"shop/j/{name}/t/00003", f"shop/j/{name}/t/00003.x", f"shop/j/{name}/s/0000000500",
        f"shop/j/{name}/out", f"shop/j/{name}/stop", f"shop/h/train/{name}", f"shop/d/j/{name}/0f/net.caffemodel",
    ]  # fmt: skip
    assert JobName.parse(str(name)) == name


@pytest.mark.parametrize("text", ["", "lenet", "lenet-12", "lenet-0123456789aB", "/x-0123456789ab", "-0123456789ab"])
def test_what_names_no_training_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a job"):
        JobName.parse(text)


@pytest.mark.parametrize("model", ["LeNet", "my net / 2", "../..", "", "ß" * 90, "a" * 90])
def test_any_models_name_makes_a_name_that_a_key_can_hold(model: str) -> None:
    name = JobName.of(model, 1)
    assert JobName.parse(str(name)) == name
    assert name != JobName.of(model + "x", 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [("solver", "x"), ("nets", {"a": "b"}), ("weights", (file_of("c"),)), ("data", {"a": "b"}), ("max_iter", 21),
     ("every", 6), ("seed", 0), ("exact", True), ("as_caffe", True), ("threads", 2), ("salt", "1"), ("level", 1),
     ("stages", ("s",)), ("engine", "jax"), ("model", "other"), ("precision", "bf16"), ("shards", 8)],
)  # fmt: skip
def test_all_that_decides_a_number_decides_the_name(field: str, value: Any) -> None:
    assert SPEC.model_copy(update={field: value}).name() != SPEC.name()


@pytest.mark.parametrize(("field", "value"), [("folder", "/data"), ("nonce", "12"), ("format", 1)])
def test_what_decides_no_number_leaves_the_name(field: str, value: Any) -> None:
    assert SPEC.model_copy(update={field: value}).name() == SPEC.name()


def test_a_training_of_before_there_was_a_precision_has_the_name_that_it_had() -> None:
    decides = SPEC.model_dump(mode="json", exclude={"format", "nonce", "folder", "weights", "precision", "shards"})
    assert SPEC.name() == JobName.of(SPEC.model, decides, [[one.name, one.sha256] for one in SPEC.weights])


def test_where_the_files_of_a_snapshot_lie_and_who_wrote_it_is_not_in_its_digest() -> None:
    one = link(5)
    elsewhere = tuple(file.model_copy(update={"key": KEYS.file("9", file.name)}) for file in one.files)
    other = one.model_copy(update={"process": "other", "attempt": 9, "nonce": "1", "files": elsewhere})
    assert other.digest() == one.digest()
    assert link(5, content="b").digest() != one.digest()
    assert link(5, rows=['{"step": 1}']).digest() != one.digest()


@pytest.mark.parametrize(
    "body",
    [SPEC, link(5, rows=['{"step": 4}']), link(10, link(5), [ROW]),
     JobAttemptEnd(kind="abandoned", parting=Reached(iteration=7, parent=parent_of(link(5)), files=(), rows=(ROW,))),
     JobOut(kind="model", iteration=20, snapshot=parent_of(link(20)), files=(file_of("a"),), rows=('{"step": 20}',),
            engine="torch 9", cpu="a CPU", process="box", at=AT),
     JobOut(kind="failed", iteration=3, cause="diverged", process="box", at=AT), JobStop(by="ann", at=AT)],
    ids=lambda body: type(body).__name__,
)  # fmt: skip
def test_a_document_is_read_back_as_it_was_written(body: Body) -> None:
    assert body_of(type(body), body.encode(), "key") == body


@pytest.mark.parametrize(
    ("body", "says"),
    [(link(10, link(5), ['{"step": 4}']), "a row of step 4"), (link(10, link(5), ['{"step": 10}']), "a row of step 10"),
     (link(10, link(5), ["nonsense"]), "a row of step None"), (link(5, link(5)), "comes from 5"),
     (JobOut(kind="model", iteration=5, process="b", at=AT), "names no snapshot"),
     (JobOut(kind="failed", iteration=5, rows=('{"step": 4}',), process="b", at=AT), "a row of step 4"),
     (JobAttemptEnd(kind="abandoned", parting=Reached(iteration=5, parent=parent_of(link(7)), files=())),
      "comes from 7")],
)  # fmt: skip
def test_a_document_that_contradicts_itself_is_not_read(body: Body, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        body_of(type(body), body.encode(), "key")


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "../solver"), ("name", "/etc/passwd"), ("name", "a/b/c"), ("name", ""), ("key", "shop/d/../c/x"),
     ("key", "/etc/passwd"), ("sha256", "00"), ("size", -1)],
)  # fmt: skip
def test_a_file_of_a_training_cannot_lie_elsewhere(field: str, value: object) -> None:
    body = json.loads(link(5).encode())
    body["files"][0][field] = value
    with pytest.raises(FormatError, match=f"files.0.{field}"):
        body_of(JobSnapshot, json.dumps(body).encode(), "key")


def test_an_end_of_an_older_version_is_an_end_without_a_parting() -> None:
    read = body_of(JobAttemptEnd, AttemptEnd(kind="strike", cause="x").encode(), "key")
    assert (read.kind, read.cause, read.parting) == ("strike", "x", None)


def test_what_exists_says_what_a_training_waits_for() -> None:
    alive = frozenset({"box"})
    bodies: dict[str, Body] = {KEYS.spec: SPEC}
    assert job_of(bodies).standing(alive) == Waiting(0)
    bodies[KEYS.attempt(1)] = Attempt(process="box", at=AT)
    assert job_of(bodies).standing(alive) == Running(0, "box")
    assert job_of(bodies).standing(NOBODY) == Waiting(0)
    bodies[KEYS.snapshot(5)] = link(5)
    assert job_of(bodies).standing(alive) == Running(5, "box")
    bodies[KEYS.attempt_end(1)] = JobAttemptEnd(kind="abandoned")
    assert job_of(bodies).standing(alive) == Waiting(5)
    bodies[KEYS.stop] = JobStop(by="ann", at=AT)
    assert job_of(bodies).standing(alive) == Stopped(5, "ann")
    bodies[KEYS.out] = JobOut(kind="failed", iteration=7, cause="diverged", process="box", at=AT)
    assert job_of(bodies).standing(alive) == Failed(7, "diverged")
    bodies[KEYS.out] = JobOut(kind="model", iteration=20, snapshot=parent_of(link(5)), files=(file_of("a"),),
                              process="box", at=AT)  # fmt: skip
    assert job_of(bodies).standing(alive) == Finished(20)
    assert job_of(bodies).closed


def test_a_chain_is_read_by_its_last_two_links_or_whole() -> None:
    links = [link(5)]
    for iteration in (10, 15, 20):
        links.append(link(iteration, links[-1]))
    bodies: dict[str, Body] = {KEYS.spec: SPEC, **{KEYS.snapshot(one.iteration): one for one in links}}
    assert sorted(job_of(bodies).snapshots) == [15, 20]
    whole = job_of(bodies, chain=True)
    assert (sorted(whole.snapshots), whole.iterations, whole.unreadable) == ([5, 10, 15, 20], (5, 10, 15, 20), ())
    assert whole.newest == links[-1]


@pytest.mark.parametrize(
    "second",
    [link(10), link(10, link(5, content="b")), link(10, link(4)), link(11, link(5))],
    ids=["from the start", "from other bytes", "from another iteration", "under another key"],
)
def test_a_link_that_does_not_fit_makes_everybody_leave_the_training_alone(second: JobSnapshot) -> None:
    job = job_of({KEYS.spec: SPEC, KEYS.snapshot(5): link(5), KEYS.snapshot(10): second})
    assert [one.key for one in job.unreadable] == [KEYS.snapshot(10)]


def test_a_link_that_is_missing_before_another_is_seen() -> None:
    job = job_of({KEYS.spec: SPEC, KEYS.snapshot(10): link(10, link(5))})
    assert [one.key for one in job.unreadable] == [KEYS.snapshot(10)]


def test_a_spec_under_another_name_is_none() -> None:
    job = job_of({KEYS.spec: SPEC.model_copy(update={"seed": 3})})
    assert (job.spec, [one.key for one in job.unreadable]) == (None, [KEYS.spec])


def test_what_cannot_be_read_is_told_and_a_newer_format_is_told_apart() -> None:
    job = job_of({KEYS.spec: SPEC}, {KEYS.out: NewerFormat("newer"), KEYS.snapshot(5): FormatError("torn")})
    assert [(one.key, one.newer) for one in job.unreadable] == [(KEYS.out, True), (KEYS.snapshot(5), False)]
    assert not job.closed


def parting(iteration: int, before: Reached | None, content: str = "c") -> Body:
    reached = Reached(iteration=iteration, parent=parent_of(before), files=(file_of(content),))
    return JobAttemptEnd(kind="abandoned", parting=reached)


def test_a_training_goes_on_at_the_last_parting_that_came_from_the_newest_snapshot() -> None:
    bodies: dict[str, Body] = {KEYS.spec: SPEC, KEYS.attempt(1): Attempt(process="box", at=AT)}
    assert job_of(bodies).start is None
    bodies[KEYS.attempt_end(1)] = parting(3, None)
    start = job_of(bodies).start
    assert start is not None
    assert start.iteration == 3
    bodies[KEYS.snapshot(5)] = link(5)
    assert job_of(bodies).start == link(5)  # a parting of before is behind it
    bodies[KEYS.attempt_end(2)] = parting(8, link(5))
    bodies[KEYS.attempt_end(3)] = parting(7, link(5))
    bodies[KEYS.attempt_end(4)] = parting(9, link(5, content="d"))  # other bytes lost against the snapshot
    start = job_of(bodies).start
    assert start is not None
    assert start.iteration == 8


def test_strikes_and_losses_count_from_the_newest_snapshot_on() -> None:
    bodies: dict[str, Body] = {KEYS.spec: SPEC}
    for number in range(1, 5):
        bodies[KEYS.attempt(number)] = Attempt(process="box", at=AT)
    bodies[KEYS.attempt_end(1)] = JobAttemptEnd(kind="strike", cause="old")
    bodies[KEYS.attempt_end(4)] = JobAttemptEnd(kind="strike", cause="new")
    bodies[KEYS.snapshot(5)] = link(5).model_copy(update={"attempt": 2})
    counted = job_of(bodies).since_progress(NOBODY)
    assert (counted.next_number, counted.strikes, counted.lost, counted.cause) == (5, 1, 1, "new")
    assert job_of(bodies).since_progress(frozenset({"box"})).live


def test_a_chain_has_snapshots_of_fixed_iterations() -> None:
    spec = JobSpec(model="n", solver="", max_iter=12, every=5)
    assert [n for n in range(20) if spec.due(n)] == [5, 10, 12]
    assert Keys("shop").job(spec.name()).name == spec.name()


def test_the_predictions_that_a_result_names_stay_as_its_model_does() -> None:
    told = file_of("f", "predictions.parquet")
    out = JobOut(kind="failed", iteration=3, cause="diverged", predictions=(told,), process="box", at=AT)
    job = job_of({KEYS.spec: SPEC, KEYS.out: out}, chain=True)
    assert told.key in kept(job)
    assert list(forgettable(job, {told.key: 0.0, KEYS.file("1", "x"): 0.0}, 1.0)) == [
        (KEYS.file("1", "x"), "no document of its training names it")
    ]
