"""One attempt at a training: whatever was there before, and whoever trains beside it, one chain comes of it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import LawBroken, NotFound, PermanentError, Stopped
from pipeline.ledger.data import Damaged
from pipeline.ledger.layout import Keys
from pipeline.ledger.protocol import Context
from pipeline.ledger.trainings import JobOut, JobSpec
from pipeline.operations.prune.deletion import perform as forget
from pipeline.operations.prune.trainings import plan_trainings
from pipeline.operations.verify import verify
from pipeline.training import jobs
from pipeline.training.attempt import Limits, Task, limits_of, perform, plan
from pipeline.training.retention import best_of, kept, rows_of
from pipeline.training.state import Failed, Finished, Job, Waiting
from pipeline.training.state import Stopped as Ended
from pipeline.training.trainer import Made
from tests.simulation.toy_training import MODEL, Toy, ToyTrainer, steps_shown, trained
from tests.simulation.world import World

SPEC = JobSpec(model="toy", solver="", max_iter=12, every=5, seed=1)
KEYS = Keys("shop").job(SPEC.name())
NOBODY: frozenset[str] = frozenset()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def train(world: World, trainer: ToyTrainer, name: str = "box.one", stopping: Callable[[], bool] | None = None) -> Job:
    """One attempt by a box, as it plans it."""
    context = world.context(name)
    if stopping is not None:
        context = replace(context, stopping=stopping)
    task = task_of(context)
    assert task is not None
    done = perform(context, task, trainer)
    assert done is not None
    return done


def task_of(context: Context) -> Task | None:
    return plan(jobs.look(context, KEYS.name), NOBODY, limits_of(context), context.process.clock.now())


def after(steps: int) -> Callable[[], bool]:
    """Asks a process to end once it was asked so many times."""
    asked = iter(range(steps))
    return lambda: next(asked, None) is None


def chain_of(world: World) -> Job:
    return jobs.look(world.context("box.look"), KEYS.name, chain=True)


def is_whole(world: World) -> None:
    job = chain_of(world)
    assert (job.iterations, job.unreadable) == ((5, 10, 12), ())
    assert [(row["step"], row["kind"]) for row in rows_of(job)] == steps_shown(SPEC)
    assert job.out is not None
    model = next(file for file in job.out.files if file.name == MODEL)
    assert world.bucket.files[model.key][0].decode() == trained(SPEC).weights


def test_a_training_leaves_a_chain_a_model_and_no_hint(world: World) -> None:
    name, new = jobs.submit(world.context(), SPEC)
    assert (name, new) == (KEYS.name, True)
    assert KEYS.hint in world.bucket.files
    assert list(jobs.hinted(world.context())) == list(jobs.every(world.context())) == [name]
    job = train(world, ToyTrainer(SPEC))
    assert job.standing(NOBODY) == Finished(12)
    assert KEYS.hint not in world.bucket.files
    assert task_of(world.context()) is None
    is_whole(world)
    named = {file.key for one in chain_of(world).snapshots.values() for file in one.files}
    assert named == set(world.bucket.under(KEYS.data))


def test_the_same_training_twice_is_one_job(world: World) -> None:
    jobs.submit(world.context(), SPEC)
    assert jobs.submit(world.context("other"), SPEC) == (KEYS.name, False)


@pytest.mark.parametrize("steps", range(13))
def test_a_process_that_is_asked_to_end_leaves_what_the_next_one_goes_on_from(steps: int, world: World) -> None:
    jobs.submit(world.context(), SPEC)
    with pytest.raises(Stopped):
        train(world, ToyTrainer(SPEC), stopping=after(steps) if steps < 12 else lambda: True)
    assert chain_of(world).tries[-1].end is not None
    second = ToyTrainer(SPEC)
    train(world, second, "box.two")
    assert second.begun == [steps if steps < 12 else 0]
    is_whole(world)


def test_snapshots_are_of_fixed_iterations_however_often_a_training_is_stopped(world: World) -> None:
    jobs.submit(world.context(), SPEC)
    for number in range(8):
        try:
            train(world, ToyTrainer(SPEC), f"box.{number}", after(2))
        except Stopped:
            continue
        break
    is_whole(world)


def test_a_process_that_is_killed_costs_what_it_did_since_the_last_snapshot(world: World) -> None:
    jobs.submit(world.context(), SPEC)

    class Killed(BaseException):
        pass

    def kill() -> None:
        if first.at.iteration == 8:
            raise Killed

    first = ToyTrainer(SPEC, pause=kill)
    with pytest.raises(Killed):
        train(world, first)
    second = ToyTrainer(SPEC)
    train(world, second, "box.two")
    assert second.begun == [5]
    is_whole(world)


def beside(world: World, other: ToyTrainer, at: int) -> None:
    """A second box takes the training over and ends it, while the first one is at this iteration."""
    ran: list[Job] = []

    def pause() -> None:
        if not ran and first.at.iteration == at:
            ran.append(train(world, other, "box.other"))

    first = ToyTrainer(SPEC, now=lambda: 1.0)
    first.pause = pause
    jobs.submit(world.context(), SPEC)
    train(world, first)


@pytest.mark.parametrize("cpu", ["one", "another"])
@pytest.mark.parametrize("at", [3, 5, 8, 11])
def test_a_process_that_wakes_after_another_has_ended_the_training_changes_nothing(
    cpu: str, at: int, world: World
) -> None:
    beside(world, ToyTrainer(SPEC, cpu, now=lambda: 2.0), at)
    job = chain_of(world)
    assert (job.iterations, job.unreadable) == ((5, 10, 12), ())
    assert [(row["step"], row["kind"]) for row in rows_of(job)] == steps_shown(SPEC)
    named = {file.key for one in job.snapshots.values() for file in one.files}
    assert named == set(world.bucket.under(KEYS.data)), "who lost deleted his own data and nothing else"


def interleaved(world: World, cpu: str) -> tuple[ToyTrainer, ToyTrainer]:
    """The second box writes the snapshot of iteration 5 first, and ends there; then the first one comes to it."""
    jobs.submit(world.context(), SPEC)
    second = ToyTrainer(SPEC, cpu, now=lambda: 2.0)
    first = ToyTrainer(SPEC, now=lambda: 1.0)

    def pause() -> None:
        if first.at.iteration == 5 and not second.begun:
            with pytest.raises(Stopped):
                train(world, second, "box.other", after(5))

    first.pause = pause
    train(world, first)
    return first, second


def test_who_loses_with_his_own_bytes_goes_on_without_reading_them(world: World) -> None:
    first, _ = interleaved(world, "one")
    assert first.begun == [0]
    is_whole(world)


def test_who_loses_with_other_bytes_goes_on_from_the_winners(world: World) -> None:
    first, second = interleaved(world, "another")
    assert (first.begun, second.begun) == ([0, 5], [0])
    job = chain_of(world)
    at = Toy.first(SPEC)
    for iteration in range(12):
        at = at.step("another" if iteration < 5 else "one")
    assert job.out is not None
    assert world.bucket.files[next(f.key for f in job.out.files if f.name == MODEL)][0].decode() == at.weights
    assert job.unreadable == ()


def test_a_stop_ends_a_training_within_seconds_and_for_good(world: World) -> None:
    jobs.submit(world.context(), SPEC)
    trainer = ToyTrainer(SPEC)

    def pause() -> None:
        world.hand.at += 1.0
        if trainer.at.iteration == 7:
            jobs.stop(world.context("cli"), KEYS.name, "ann", "wrong data")

    trainer.pause = pause
    job = train(world, trainer)
    assert job.standing(NOBODY) == Ended(5, "ann")
    assert job.tries[-1].end is not None
    assert job.tries[-1].end.cause == "a person ended the training"
    assert trainer.at == Toy(0, "")
    assert task_of(world.context()) is None
    assert KEYS.hint not in world.bucket.files
    assert jobs.stop(world.context("cli"), KEYS.name, "bob").by == "ann"


def test_a_training_that_diverges_fails_at_once_and_keeps_its_snapshots(world: World) -> None:
    jobs.submit(world.context(), SPEC)
    job = train(world, ToyTrainer(SPEC, diverges=7))
    assert job.standing(NOBODY) == Failed(7, "the loss is not finite")
    assert job.iterations == (5,)
    assert task_of(world.context()) is None


class Broken(ToyTrainer):
    def next(self, wanted: Callable[[], bool]) -> Made:
        raise PermanentError("out of memory")


def test_after_strikes_without_a_snapshot_a_training_rests_and_then_fails_with_the_cause(world: World) -> None:
    jobs.submit(world.context(), SPEC)
    for number in range(limits_of(world.context()).strikes):
        with pytest.raises(PermanentError):
            train(world, Broken(SPEC), f"box.{number}")
        assert (task_of(world.context()) is None) == (number < 2)
        world.hand.at += 60.0
    task = task_of(world.context())
    assert task is not None
    assert task.failed.startswith("since iteration 0 it failed 3 times and lost its process 0 times: out of memory")
    job = train(world, Broken(SPEC))
    assert isinstance(job.standing(NOBODY), Failed)
    assert jobs.look(world.context(), KEYS.name).out == job.out


def test_a_task_that_somebody_claimed_is_left_to_him(world: World) -> None:
    jobs.submit(world.context(), SPEC)
    task = task_of(world.context())
    assert task is not None
    with pytest.raises(Stopped):
        train(world, ToyTrainer(SPEC), stopping=lambda: True)
    assert perform(world.context("box.two"), task, ToyTrainer(SPEC)) is None


def test_nobody_begins_while_another_process_lives(world: World) -> None:
    jobs.submit(world.context(), SPEC)

    def pause() -> None:
        job = jobs.look(world.context("box.two"), KEYS.name)
        assert plan(job, frozenset({"box.one"}), Limits(3, 20), 0.0) is None
        assert plan(job, NOBODY, Limits(3, 20), 0.0) is not None

    train(world, ToyTrainer(SPEC, pause=pause))


def test_a_trainer_that_writes_a_snapshot_of_another_iteration_is_a_bug_and_publishes_nothing(world: World) -> None:
    jobs.submit(world.context(), SPEC)
    trainer = ToyTrainer(SPEC.model_copy(update={"every": 3}))
    with pytest.raises(LawBroken, match="a snapshot of iteration 3"):
        train(world, trainer)
    assert chain_of(world).iterations == ()


def test_a_parting_whose_files_are_gone_costs_its_iterations_and_no_more(world: World) -> None:
    jobs.submit(world.context(), SPEC)
    with pytest.raises(Stopped):
        train(world, ToyTrainer(SPEC), stopping=after(8))
    start = chain_of(world).start
    assert start is not None
    assert start.iteration == 8
    for file in start.files:
        world.bucket.remove(file.key)
    second = ToyTrainer(SPEC)
    train(world, second, "box.two")
    assert second.begun == [5]
    is_whole(world)


def test_a_snapshot_whose_files_are_gone_is_told_with_what_to_do(world: World) -> None:
    jobs.submit(world.context(), SPEC)
    with pytest.raises(Stopped):
        train(world, ToyTrainer(SPEC), stopping=after(5))
    for key in list(world.bucket.under(KEYS.data)):
        world.bucket.remove(key)
    with pytest.raises(NotFound, match="its training needs it") as raised:
        train(world, ToyTrainer(SPEC))
    assert f"hathi train stop {KEYS.name}" in raised.value.hint


def test_a_chain_that_does_not_fit_is_left_alone(world: World) -> None:
    jobs.submit(world.context(), SPEC)
    train(world, ToyTrainer(SPEC))
    world.bucket.remove(KEYS.out)
    world.bucket.remove(KEYS.snapshot(10))
    assert task_of(world.context("box.two")) is None
    assert [one.key for one in jobs.look(world.context("box.two"), KEYS.name).unreadable] == [KEYS.snapshot(12)]
    assert any("is not a snapshot that comes from the one before it" in text for text in world.said)


def test_a_snapshot_that_names_what_is_not_its_own_reads_no_other_place_and_deletes_nothing(world: World) -> None:
    jobs.submit(world.context(), SPEC)
    with pytest.raises(Stopped):
        train(world, ToyTrainer(SPEC), stopping=after(5))
    link = chain_of(world).snapshots[5]
    secret, others = "shop/c/secret", f"{Keys('shop').data}shipment/0/x"
    for key in (secret, others):
        world.bucket.write(key, b"secret")
    for key in (secret, others):
        files = tuple(file.model_copy(update={"key": key}) for file in link.files)
        world.bucket.write(KEYS.snapshot(5), link.model_copy(update={"files": files}).encode())
        with pytest.raises(Damaged):
            train(world, ToyTrainer(SPEC), f"box.{len(key)}")
        world.hand.at += 100.0
    jobs.stop(world.context("cli"), KEYS.name, "ann")
    world.hand.at += 30 * 86400.0
    for one in plan_trainings(world.context("box.prune"), world.hand.at):
        assert one.key.startswith(KEYS.data)
    assert {secret, others} <= set(world.bucket.files)


# --- what stays ---

LONG = JobSpec(model="toy", solver="", max_iter=48, every=4, seed=1)
LONG_KEYS = Keys("shop").job(LONG.name())


def long_chain(world: World, steps: int = 10_000) -> Job:
    jobs.submit(world.context(), LONG)
    job = jobs.look(world.context(), LONG_KEYS.name)
    task = plan(job, NOBODY, Limits(3, 20), 0.0)
    assert task is not None
    with contextlib.suppress(Stopped):
        perform(replace(world.context(), stopping=after(steps)), task, ToyTrainer(LONG))
    return jobs.look(world.context(), LONG_KEYS.name, chain=True)


def prune(world: World) -> list[str]:
    context = world.context("box.prune")
    found = list(plan_trainings(context, world.hand.at))
    for one in found:
        forget(context, one)
    return [one.key for one in found]


@pytest.mark.parametrize("steps", [30, 10_000])
def test_the_last_two_the_best_and_the_model_stay(steps: int, world: World) -> None:
    job = long_chain(world, steps)
    accuracies = {row["step"]: row["values"]["test/accuracy"] for row in rows_of(job)
                  if row["kind"] == "test" and row["values"] and row["step"] in job.iterations}  # fmt: skip
    best = best_of(job)
    assert best == max(accuracies, key=accuracies.__getitem__)
    removed = prune(world)
    left = {iteration for iteration, one in job.snapshots.items() if one.files[0].key in world.bucket.files}
    assert left == {*job.iterations[-2:], best}
    assert kept(job) == set(world.bucket.under(LONG_KEYS.data))
    assert len(removed) == 2 * (len(job.iterations) - len(left))
    assert prune(world) == []
    again = jobs.look(world.context(), LONG_KEYS.name, chain=True)
    assert (rows_of(again), again.unreadable) == (rows_of(job), ())


def test_a_pruned_training_goes_on(world: World) -> None:
    long_chain(world, 30)
    prune(world)
    job = long_chain(world)
    assert job.out is not None
    assert world.bucket.files[job.out.files[0].key][0].decode() == trained(LONG).weights


def test_data_that_nobody_names_stays_while_the_training_is_open_and_goes_a_week_later(world: World) -> None:
    long_chain(world, 30)
    stray = LONG_KEYS.file("0f", MODEL)
    world.bucket.write(stray, b"x")
    world.hand.at += 30 * 86400.0
    assert stray not in prune(world)
    jobs.stop(world.context(), LONG_KEYS.name, "ann")
    assert stray in prune(world)


def test_a_lost_hint_of_an_open_training_is_put_back(world: World) -> None:
    job = long_chain(world, 30)
    world.bucket.remove(LONG_KEYS.hint)
    assert LONG_KEYS.hint in prune(world)
    assert LONG_KEYS.hint in world.bucket.files
    assert isinstance(job.standing(NOBODY), Waiting)
    long_chain(world)
    assert prune(world) is not None
    assert LONG_KEYS.hint not in world.bucket.files


def test_a_process_that_slept_while_its_snapshot_was_pruned_goes_on_from_the_newest(world: World) -> None:
    long_chain(world, 9)  # up to a parting at 9
    context = world.context("box.two")
    task = plan(jobs.look(context, LONG_KEYS.name), NOBODY, Limits(3, 20), 0.0)
    assert task is not None

    class Slept(ToyTrainer):
        def begin(self, start: object) -> None:
            if not self.begun and not slept:
                slept.append(1)
                long_chain(world, 30)
                prune(world)
            super().begin(start)  # type: ignore[arg-type]

    slept: list[int] = []
    trainer = Slept(LONG)
    perform(context, task, trainer)
    out = jobs.look(context, LONG_KEYS.name).out
    assert isinstance(out, JobOut)
    assert trainer.begun[0] > 9


def test_verify_and_prune_know_what_is_a_trainings(world: World) -> None:
    world.put_refs("a.csv", "partner_id,external_id,url\n7,a,http://shop/ok-1\n")
    world.hand.at += 10
    world.run()
    long_chain(world)
    stray = f"{Keys('shop').jobs_data}nothing/x"
    world.bucket.write(stray, b"")
    before = set(world.bucket.under(LONG_KEYS.top))
    world.said.clear()
    assert list(verify(world.context("box.verify"), deep=True)) == []
    world.pruner().prune()
    whole = jobs.look(world.context(), LONG_KEYS.name, chain=True)
    assert set(world.bucket.under(LONG_KEYS.data)) == kept(whole)
    assert set(world.bucket.under(LONG_KEYS.top)) == before
    assert stray in world.bucket.files
    assert world.said == [f"Hathi leaves alone a key that is not its own: {stray}"]


def test_best_is_the_least_loss_where_no_accuracy_is_told(world: World) -> None:
    job = long_chain(world)
    rows = [
        json.dumps({"step": one, "kind": "test", "values": {"test/loss": abs(one - 21) / 10}}) for one in (8, 20, 28)
    ]
    first = job.snapshots[4].model_copy(update={"rows": tuple(rows)})
    bare = {n: one.model_copy(update={"rows": ()}) for n, one in job.snapshots.items()}
    assert best_of(replace(job, out=None, snapshots={**bare, 4: first})) == 20
    assert best_of(replace(job, out=None, snapshots=bare)) is None


def test_best_goes_by_what_the_layers_of_an_output_are_and_not_by_its_name(world: World) -> None:
    """An accuracy may be called acc; elements of a vector are of single classes."""
    job = long_chain(world)
    assert job.spec is not None
    text = """test_net_param { layer { name: "a" type: "Accuracy" bottom: "x" bottom: "l" top: "right" } }"""
    spec = job.spec.model_copy(update={"solver": text})
    values = {8: (0.9, 0.5), 20: (0.8, 0.1), 28: (0.9, 0.4)}
    rows = [
        json.dumps({"step": at, "kind": "test",
                    "values": {"test/right": right, "test/loss": loss, "test/right/3": at / 28}})
        for at, (right, loss) in values.items()
    ]  # fmt: skip
    first = job.snapshots[4].model_copy(update={"rows": tuple(rows)})
    bare = {n: one.model_copy(update={"rows": ()}) for n, one in job.snapshots.items()}
    told = replace(job, out=None, snapshots={**bare, 4: first})
    assert best_of(replace(told, spec=spec)) == 8
    assert best_of(told) == 20, "nothing says what it is: the least loss"
