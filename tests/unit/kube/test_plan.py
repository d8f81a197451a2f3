"""What is done about a job, by its pods: each row of the table of docs/kubernetes.md."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kube.model import Job, Pod, Status
from pipeline.kube.plan import Plan, plan
from tests.unit.kube.jobs import NOW, job, pod


def after(one: Job, *steps: tuple[list[Pod], float]) -> tuple[Job, Plan]:
    """Plans one after the other, each from the status of the one before."""
    done = plan(one, [], NOW)
    for pods, later in steps:
        one = replace(one, status=done.status)
        done = plan(one, pods, NOW + later)
    return replace(one, status=done.status), done


def launched(replicas: int = 2, **spec: Any) -> Job:
    """A job whose pods all run."""
    one, _done = after(job(replicas=replicas, **spec), ([pod(index) for index in range(replicas)], 1.0))
    one = replace(one, status=plan(one, [pod(index) for index in range(replicas)], NOW + 1.0).status)
    assert one.status.holds("Running")
    return one


def state(done: Plan) -> tuple[str, int, int]:
    """State, attempt, failures that count."""
    return done.status.state, done.status.attempt, done.status.failures


def test_a_new_job_gets_its_status_first_and_then_a_pod_for_each_replica_and_a_service() -> None:
    done = plan(job(replicas=2), [], NOW, has_service=False)
    assert [(each.attempt, each.index, each.size) for each in done.create] == [(0, 0, 2), (0, 1, 2)]
    assert done.service
    assert done.drastic
    assert done.status.run == "u1"
    assert done.status.observed == 3
    assert done.status.state == "Pending"


def test_one_replica_alone_needs_no_service() -> None:
    assert not plan(job(), [], NOW, has_service=False).service


@pytest.mark.parametrize(
    ("ended", "reason", "counts"),
    [
        (pod(1, phase="Failed", code=1), "Error", True),
        (pod(1, phase="Failed", code=137, reason="OOMKilled"), "OOMKilled", True),
        (pod(1, phase="Failed", code=75), "TakenUp", False),
        (pod(1, phase="Failed", code=4), "Stopped", False),
        (pod(1, phase="Failed", code=143, disrupted=True), "Disrupted", False),
        (pod(1, going=30.0), "PodDeleted", False),
        (pod(1, going=30.0, disrupted=True), "Disrupted", False),
        (None, "PodLost", False),
    ],
    ids=["error", "killed for memory", "left with a snapshot", "stopped", "evicted", "deleted", "drained", "lost"],
)
def test_one_replica_that_ends_ends_the_attempt_of_all(ended: Pod | None, reason: str, counts: bool) -> None:
    one = launched()
    done = plan(one, [pod(0), *([ended] if ended else [])], NOW + 60)
    assert state(done) == ("Restarting", 1, int(counts))
    assert done.status.last_failure is not None
    assert (done.status.last_failure.reason, done.status.last_failure.index) == (reason, 1)
    assert done.create == (), "the status is written before anything is done"
    waits = done.status.cohorts[0].not_before
    assert waits is not None
    assert (waits > NOW + 60) == (counts or reason == "Stopped"), "only who may fail again at once waits"


def test_who_was_sent_away_is_the_cause_whatever_its_peers_exit_with() -> None:
    done = plan(launched(), [pod(0, phase="Failed", code=1), pod(1, going=30.0, disrupted=True)], NOW + 5)
    assert state(done) == ("Restarting", 1, 0)


def test_a_permanent_exit_code_is_the_end_even_beside_a_peer_that_was_sent_away() -> None:
    done = plan(launched(), [pod(0, phase="Failed", code=2), pod(1, going=30.0, disrupted=True)], NOW + 5)
    assert done.status.state == "Failed"
    assert "exit code 2" in done.status.message


def test_the_next_attempt_waits_until_nothing_of_the_old_one_can_run() -> None:
    one = launched()
    one = replace(one, status=plan(one, [pod(0), pod(1, going=0.0)], NOW + 5).status)
    done = plan(one, [pod(0), pod(1, going=0.0)], NOW + 5)
    assert [each.name for each in done.delete] == ["digits-0-0"]
    assert not done.create
    both = [pod(0, going=35.0), pod(1, going=0.0)]
    assert not plan(one, both, NOW + 36 + 60 - 2).create
    assert len(plan(one, both, NOW + 36 + 60).create) == 2, (
        "a node that does not answer is believed for lostAfterSeconds"
    )
    assert len(plan(one, [], NOW + 6).create) == 2


def test_failures_double_the_wait_and_end_the_job_at_the_limit_and_a_good_while_forgets_them() -> None:
    one = launched(recovery={"backoffLimit": 2, "backoffSeconds": 10, "forgetAfterSeconds": 600})
    waits, now = [], NOW + 5
    for attempt in range(2):
        done = plan(one, [pod(0, attempt), pod(1, attempt, phase="Failed", code=1)], now)
        (cohort,) = done.status.cohorts
        assert cohort.not_before is not None
        waits.append(cohort.not_before - now)
        one = replace(one, status=done.status)
        now = cohort.not_before
        for pods in ([], [pod(0, attempt + 1), pod(1, attempt + 1)]):
            one = replace(one, status=plan(one, pods, now).status)
        now += 5
    assert 9 <= waits[0] <= 11
    assert 18 <= waits[1] <= 22
    long = plan(one, [pod(0, 2), pod(1, 2, phase="Failed", code=1)], now + 600)
    assert state(long) == ("Restarting", 3, 1)
    last = plan(one, [pod(0, 2), pod(1, 2, phase="Failed", code=1)], now)
    assert last.status.state == "Failed"
    assert last.status.failures == 3
    assert "3 failures in a row" in last.status.message


def test_a_replica_alone_begins_again_where_the_scope_is_replica() -> None:
    one = launched(recovery={"scope": "Replica", "backoffSeconds": 0})
    one = replace(one, status=plan(one, [pod(0), pod(1, phase="Failed", code=1)], NOW + 5).status)
    done = plan(one, [pod(0), pod(1, phase="Failed", code=1)], NOW + 6)
    assert [(each.attempt, each.index) for each in done.create] == [(1, 1)]
    assert done.delete == ()


@pytest.mark.parametrize(
    ("success", "ended", "becomes"),
    [
        ({}, [0], "Complete"),
        ({}, [1], "Running"),
        ({"policy": "All"}, [0], "Running"),
        ({"policy": "All"}, [0, 1], "Complete"),
        ({"chiefIndex": 1}, [1], "Complete"),
    ],
)
def test_the_chief_or_all_decide_that_a_job_is_done(success: dict[str, Any], ended: list[int], becomes: str) -> None:
    pods = [pod(index, phase="Succeeded" if index in ended else "Running", **({"code": 0} if index in ended else {}))
            for index in range(2)]  # fmt: skip
    assert plan(launched(success=success), pods, NOW + 5).status.state == becomes


@pytest.mark.parametrize(
    ("policy", "gone"), [("Running", ["digits-0-1"]), ("All", ["digits-0-0", "digits-0-1"]), ("None", [])]
)
def test_pods_are_cleaned_up_in_every_end_as_the_policy_says(policy: str, gone: list[str]) -> None:
    pods = [pod(0, phase="Succeeded", code=0), pod(1)]
    one = launched(cleanPodPolicy=policy)
    ended = plan(one, pods, NOW + 5)
    assert ended.delete == (), "the end is written first"
    done = plan(replace(one, status=ended.status), pods, NOW + 5)
    assert [each.name for each in done.delete] == gone


def test_an_ended_job_is_deleted_after_its_time_to_live() -> None:
    one = launched(ttlSecondsAfterFinished=100)
    one = replace(one, status=plan(one, [pod(0, phase="Succeeded", code=0), pod(1)], NOW + 5).status)
    waiting = plan(one, [], NOW + 50)
    assert not waiting.remove
    assert waiting.again == pytest.approx(55)
    assert plan(one, [], NOW + 106).remove


def test_a_deadline_ends_a_job_and_counts_anew_after_a_suspension() -> None:
    one = launched(activeDeadlineSeconds=100)
    assert plan(one, [pod(0), pod(1)], NOW + 99).status.state == "Running"
    assert plan(one, [pod(0), pod(1)], NOW + 101).status.state == "Failed"
    stopped = replace(one, spec=replace(one.spec, suspend=True))
    stopped = replace(stopped, status=plan(stopped, [pod(0), pod(1)], NOW + 90).status)
    resumed = replace(stopped, spec=one.spec)
    done = plan(resumed, [], NOW + 500)
    assert len(done.create) == 2
    assert done.create[0].attempt == 1
    assert done.status.failures == 0
    assert not done.status.ended


def test_another_number_of_replicas_is_another_attempt_that_does_not_count() -> None:
    one = launched()
    one = replace(one, spec=replace(one.spec, replicas=4))
    done = plan(one, [pod(0), pod(1)], NOW + 5)
    assert state(done) == ("Restarting", 1, 0)
    assert done.status.cohorts[0].size == 4
    fresh = plan(replace(one, status=done.status), [], NOW + 6)
    assert [each.size for each in fresh.create] == [4, 4, 4, 4]


def test_a_pod_that_cannot_start_is_named_and_a_deadline_for_it_counts() -> None:
    one, done = after(job(replicas=2, recovery={"pendingDeadlineSeconds": 60}),
                      ([pod(0), pod(1, phase="Pending", reason="ImagePullBackOff")], 1.0))  # fmt: skip
    running = next(each for each in done.status.conditions if each.kind == "Running")
    assert (running.true, running.reason) == (False, "ImagePullBackOff")
    assert done.status.message == "digits-0-1: words"
    late = plan(one, [pod(0), pod(1, phase="Pending", reason="ImagePullBackOff")], NOW + 61)
    assert state(late) == ("Restarting", 1, 1)
    assert late.status.last_failure is not None
    assert late.status.last_failure.reason == "PendingDeadlineExceeded"


def test_a_job_at_rest_is_planned_as_it_stands() -> None:
    one = launched()
    done = plan(one, [pod(0), pod(1)], NOW + 60)
    assert done.status == one.status
    assert not done.drastic
    assert done.events == ()
    assert done.again is None


pods_of_any_kind = st.lists(
    st.builds(
        pod,
        st.integers(0, 3),
        st.integers(0, 2),
        st.sampled_from(["Pending", "Running", "Succeeded", "Failed"]),
        code=st.sampled_from([0, 1, 2, 4, 75, 137]),
        going=st.sampled_from([-1000.0, 0.0, 30.0]),
    )
    | st.builds(pod, st.integers(0, 3), st.integers(0, 2), st.sampled_from(["Pending", "Running"])),
    max_size=6,
    unique_by=lambda one: one.name,
)


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(pods_of_any_kind, st.floats(0, 100)), max_size=5), st.integers(1, 3), st.booleans())
def test_whatever_pods_there_are_a_plan_keeps_its_laws(
    steps: list[tuple[list[Pod], float]], replicas: int, alone: bool
) -> None:
    one = job(replicas=replicas, recovery={"scope": "Replica" if alone else "Gang"})
    now, before = NOW, Status()
    for pods, later in steps:
        now += later
        done = plan(one, pods, now)
        status = done.status
        assert not before.ended or (status.conditions == before.conditions and not done.create)
        assert status.attempt >= before.attempt
        assert not (status.ended and (status.holds("Running") or status.holds("Restarting")))
        assert len({each.kind for each in status.conditions}) == len(status.conditions)
        going = {each.name for each in pods if each.gone_by is not None}
        assert not going & {each.name for each in done.delete}, "who is being deleted is not deleted again"
        assert not {each.name for each in pods} & {f"digits-{each.attempt}-{each.index}" for each in done.create}
        one, before = replace(one, status=status), status
