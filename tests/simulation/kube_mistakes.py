"""Mistakes of an operator that look harmless, planted one at a time: the simulation has to find each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from pipeline.kube import perform, plan, recovery
from pipeline.kube.model import Job, Pod, Status
from pipeline.kube.perform import Performer, Seen
from pipeline.kube.plan import Plan
from pipeline.kube.recovery import End

Plant = Callable[[pytest.MonkeyPatch], None]


def pods_from_a_stale_cache(patch: pytest.MonkeyPatch) -> None:
    """What a cache says is done without a look at how it is now."""
    real = plan.plan

    def hasty(job: Job, pods: Sequence[Pod], now: float, *, has_service: bool = True) -> Plan:
        return replace(real(job, pods, now, has_service=has_service), drastic=False)

    patch.setattr(perform, "plan", hasty)


def evictions_that_count(patch: pytest.MonkeyPatch) -> None:
    real = recovery.end_of

    def end_of(index: int, pod: Pod | None) -> End | None:
        found = real(index, pod)
        return None if found is None else replace(found, counted=True)

    patch.setattr(plan, "end_of", end_of)


def lost_pods_made_again(patch: pytest.MonkeyPatch) -> None:
    """It is forgotten that an attempt was launched: a pod that vanished is made again, and its peers hang."""
    real = plan._look_at

    def look_at(draft: Any, number: int) -> None:
        cohort = draft.status.cohorts[number]
        if cohort.launched:
            forgotten = plan._with(draft.status.cohorts, number, replace(cohort, launched=False))
            draft.status = replace(draft.status, cohorts=forgotten)
        real(draft, number)

    patch.setattr(plan, "_look_at", look_at)


def pods_deleted_by_name(patch: pytest.MonkeyPatch) -> None:
    """Without the uid: another job of the same name may have that pod by now."""

    def delete(self: Performer, job: Job, name: str, uid: str) -> None:
        self.api.call("DELETE", f"/api/v1/namespaces/{job.namespace}/pods/{name}", {})

    patch.setattr(Performer, "_delete", delete)


def an_end_that_is_undone(patch: pytest.MonkeyPatch) -> None:
    """What has ended is planned as what has not."""

    def begun(job: Job) -> Status:
        status = real(job)
        kept = tuple(each for each in status.conditions if each.kind not in ("Complete", "Failed"))
        return replace(status, conditions=kept)

    real = plan._begun
    patch.setattr(plan, "_begun", begun)


def no_wait_after_a_failure(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(plan, "wait_after", lambda *words: 0.0)


def a_chief_that_nobody_looks_at(patch: pytest.MonkeyPatch) -> None:
    """As the seed's operator had it: the chief is declared, and all replicas are waited for."""
    from pipeline.kube.reading import job_of as real

    def job_of(body: Any, kind: str) -> Job:
        job = real(body, kind)
        return replace(job, spec=replace(job.spec, chief=None))

    patch.setattr(perform, "job_of", job_of)


def a_status_without_its_version(patch: pytest.MonkeyPatch) -> None:
    """The last writer wins."""
    real = Performer._write

    def write(self: Performer, job: Job, seen: Seen, todo: Plan) -> Job:
        return real(self, replace(job, version=None), seen, todo)  # type: ignore[arg-type]

    patch.setattr(Performer, "_write", write)


def a_new_attempt_beside_the_old(patch: pytest.MonkeyPatch) -> None:
    """The pods of the old attempt are deleted, and nobody waits until they are gone."""
    patch.setattr(Pod, "going", lambda self, now, lost_after: False)


def writing_without_a_look_at_the_lease(patch: pytest.MonkeyPatch) -> None:
    """Whoever stood still makes the pods of an attempt that is long over."""

    def ask(self: Performer, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self.api.call(method, path, body)

    patch.setattr(Performer, "_ask", ask)


def pods_that_stay_after_the_end(patch: pytest.MonkeyPatch) -> None:
    real = plan._after_the_end

    def after(draft: Any) -> bool:
        found = real(draft)
        draft.delete = []
        return found

    patch.setattr(plan, "_after_the_end", after)


MISTAKES: tuple[Plant, ...] = (
    pods_from_a_stale_cache,
    evictions_that_count,
    lost_pods_made_again,
    pods_deleted_by_name,
    an_end_that_is_undone,
    no_wait_after_a_failure,
    a_chief_that_nobody_looks_at,
    a_status_without_its_version,
    a_new_attempt_beside_the_old,
    writing_without_a_look_at_the_lease,
    pods_that_stay_after_the_end,
)
