"""What is to be done about one job, as a pure function of the job, its pods and the time.

    Pending --all run--> Running --chief, or all, succeeded--> Complete
       ^                    | a replica failed, is lost, was sent away; scaled; pending for too long
       |                    v
       +--- next attempt --- Restarting --permanent code, limit, Never--> Failed
       +--- resumed -------- Suspended                       deadline --> Failed

The status is the only memory: whoever is killed between two writes is followed by one that plans the same.  A plan that
does more than to write what was seen is drastic: whoever performs it reads job and pods anew first, and plans again,
since a cache may be behind, and pods of two attempts must never run at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from pipeline.amounts import counted
from pipeline.kube.conditions import Condition, with_condition
from pipeline.kube.model import Cohort, Failure, Job, Pod, Status
from pipeline.kube.names import pod_name
from pipeline.kube.recovery import End, cause, end_of, is_permanent, wait_after

LOOK_SECONDS = 1.0
"""How soon to look again at pods that are going away."""
LAUNCH_SECONDS = 5.0
"""How soon to look again at pods that were just made."""
UNABLE = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError",
     "Unschedulable", "SchedulingGated"}
)  # fmt: skip
"""Reasons why a pod waits that a person has to know."""


@dataclass(frozen=True)
class Event:
    """What is told about the job: kubectl describe and `hathi kube why` show it.  warning: else Normal."""

    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True)
class Doomed:
    """A pod that is to be deleted, by its uid: another one may have its name by then."""

    name: str
    uid: str


@dataclass(frozen=True)
class Wanted:
    """A pod that is to be made.  size: replicas of its attempt."""

    attempt: int
    index: int
    size: int


@dataclass(frozen=True)
class Plan:
    """What to do.  remove: the job itself, by its time to live; again: seconds until the next look at the latest."""

    status: Status
    create: tuple[Wanted, ...] = ()
    delete: tuple[Doomed, ...] = ()
    service: bool = False
    remove: bool = False
    events: tuple[Event, ...] = ()
    again: float | None = None
    drastic: bool = False


@dataclass
class _Draft:
    """A plan while it is made."""

    job: Job
    pods: Sequence[Pod]
    now: float
    status: Status
    create: list[Wanted] = field(default_factory=list)
    delete: list[Doomed] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    again: list[float] = field(default_factory=list)
    drastic: bool = False
    remove: bool = False

    def mark(self, kind: str, true: bool, reason: str, message: str = "") -> None:
        """A condition gets a value."""
        new = Condition(kind, true, reason, message, self.now, self.job.generation)
        self.status = replace(self.status, conditions=with_condition(self.status.conditions, new))

    def tell(self, reason: str, message: str = "", *, warning: bool = False) -> None:
        self.events.append(Event(reason, message, warning))

    def doom(self, pods: Sequence[Pod]) -> None:
        """Delete those that are not being deleted yet."""
        self.delete += [Doomed(pod.name, pod.uid) for pod in pods if pod.gone_by is None]

    def end(self, kind: str, reason: str, message: str) -> None:
        """The job ends, for ever; its pods are seen to once that is written."""
        for other in ("Running", "Restarting", "Suspended"):
            self.mark(other, False, reason)
        self.mark(kind, True, reason, message)
        self.status = replace(self.status, completed=self.now)
        self.tell(reason, message, warning=kind == "Failed")
        self.again.append(0.0)
        self.drastic = True


def plan(job: Job, pods: Sequence[Pod], now: float, *, has_service: bool = True) -> Plan:
    """What to do about `job`, whose pods are `pods`, at `now` (seconds since 1970).

    has_service: whether its headless Service is known to be there.
    """
    draft = _Draft(job, pods, now, _begun(job))
    if not job.status.cohorts:
        draft.tell("Accepted", counted(job.spec.replicas, "replica"))
    steps: tuple[Callable[[_Draft], bool], ...] = (_after_the_end, _suspended, _overdue, _succeeded)
    if not any(step(draft) for step in steps):
        _go_on(draft)
    wants_service = bool(draft.create) and not has_service and job.spec.rendezvous.backend == "service"
    return Plan(
        status=_described(draft),
        create=tuple(draft.create),
        delete=tuple(draft.delete),
        service=wants_service and job.spec.replicas > 1,
        remove=draft.remove,
        events=tuple(draft.events),
        again=min(draft.again, default=None),
        drastic=draft.drastic or bool(draft.create) or bool(draft.delete),
    )


HINDRANCES = ("PodsRefused", "NameTaken")
"""Why pods cannot be made for now."""


def refused(job: Job, reason: str, words: str, now: float) -> Plan:
    """No API server takes the template: the job has failed, in the server's words."""
    draft = _Draft(job, (), now, _begun(job))
    draft.end("Failed", reason, words)
    return Plan(_described(draft), events=tuple(draft.events), again=0.0)


def hindered(job: Job, reason: str, words: str, now: float) -> Plan:
    """Pods may not be made now (a quota, a policy): the job waits, and says why."""
    draft = _Draft(job, (), now, _begun(job))
    _mark_waiting(draft, reason, words)
    draft.tell(reason, words, warning=True)
    return Plan(_described(draft), events=tuple(draft.events))


def _begun(job: Job) -> Status:
    """The status with what every job has from its first look on, and a cohort for each that is wanted."""
    spec, status = job.spec, job.status
    cohorts = status.cohorts
    if spec.cohorts == 1:
        cohorts = cohorts[:1] or (Cohort(size=spec.replicas),)
    else:
        more = range(len(cohorts), spec.cohorts)
        cohorts = (*cohorts[: spec.cohorts], *(Cohort() for _ in more))
    return replace(status, cohorts=cohorts, run=status.run or spec.run or job.uid, observed=job.generation)


def _after_the_end(draft: _Draft) -> bool:
    """What has ended stays ended: its pods are cleaned up, and after its time to live the job itself is deleted."""
    status, spec = draft.status, draft.job.spec
    if not status.ended:
        return False
    if spec.ttl is not None and status.completed is not None:
        left = status.completed + spec.ttl - draft.now
        if left <= 0:
            draft.remove = draft.drastic = True
            return True
        draft.again.append(left)
    draft.doom([pod for pod in draft.pods if spec.clean == "All" or (spec.clean == "Running" and pod.alive)])
    return True


def _suspended(draft: _Draft) -> bool:
    """A suspended job has no pods; what comes after is another attempt, which does not count."""
    status, now = draft.status, draft.now
    if not draft.job.spec.suspend:
        if status.holds("Suspended"):
            draft.mark("Suspended", False, "Resumed")
            draft.tell("Resumed")
        return False
    if not status.holds("Suspended"):
        draft.mark("Suspended", True, "Suspended", "spec.suspend is true")
        draft.mark("Running", False, "Suspended")
        draft.mark("Restarting", False, "Suspended")
        draft.tell("Suspended", "its pods are deleted")
        moved = tuple(_next_attempt(each) if each.began is not None else each for each in status.cohorts)
        draft.status = replace(draft.status, cohorts=moved, started=None)
    draft.doom([pod for pod in draft.pods if pod.alive])
    if any(pod.going(now, draft.job.spec.recovery.lost_after) for pod in draft.pods):
        draft.again.append(LOOK_SECONDS)
    return True


def _overdue(draft: _Draft) -> bool:
    """The deadline counts from the start, or from the last resumption."""
    limit = draft.job.spec.deadline
    started = draft.status.started if draft.status.started is not None else draft.now
    draft.status = replace(draft.status, started=started)
    if limit is None:
        return False
    left = started + limit - draft.now
    if left <= 0:
        draft.end("Failed", "DeadlineExceeded", f"it was active for more than {limit:.0f} s")
        return True
    draft.again.append(left)
    return False


def _succeeded(draft: _Draft) -> bool:
    """Successes are remembered for ever, or, in a gang, for the attempt."""
    spec, status = draft.job.spec, draft.status
    done = status.succeeded | {pod.index for pod in draft.pods if pod.phase == "Succeeded" and _is_current(draft, pod)}
    draft.status = replace(status, succeeded=done)
    if spec.chief is not None and spec.chief in done:
        draft.end("Complete", "ChiefSucceeded", f"replica {spec.chief} ended with 0")
        return True
    if done >= set(range(spec.replicas)):
        draft.end("Complete", "AllSucceeded", f"{counted(spec.replicas, 'replica')} ended with 0")
        return True
    return False


def _is_current(draft: _Draft, pod: Pod) -> bool:
    """Whether a pod is of its cohort's attempt."""
    number = 0 if draft.job.spec.cohorts == 1 else pod.index
    cohorts = draft.status.cohorts
    return number < len(cohorts) and pod.attempt == cohorts[number].attempt


def _go_on(draft: _Draft) -> None:
    """Each cohort is looked at by itself; then the job as a whole."""
    for number in range(len(draft.status.cohorts)):
        _look_at(draft, number)
        if draft.status.ended:
            draft.create, draft.delete = [], []
            return
    if draft.job.spec.cohorts > 1:
        draft.doom([pod for pod in draft.pods if pod.alive and pod.index >= draft.job.spec.replicas])
    _mark_running(draft)


def _look_at(draft: _Draft, number: int) -> None:
    """One cohort: what ended ends its attempt; what is not launched is launched."""
    cohort = draft.status.cohorts[number]
    indexes = _indexes(draft, number)
    pods = [pod for pod in draft.pods if pod.index in indexes or draft.job.spec.cohorts == 1]
    mine = {pod.index: pod for pod in pods if pod.attempt == cohort.attempt}
    older = [pod for pod in pods if pod.attempt != cohort.attempt]
    ends = _ends(draft, cohort, indexes, mine)
    if ends:
        _end_attempt(draft, number, cause(ends, draft.job.spec.recovery))
    elif not cohort.launched:
        _launch(draft, number, mine, older)
    else:
        draft.doom([pod for pod in older if pod.alive])


def _indexes(draft: _Draft, number: int) -> range:
    """The replicas of a cohort, as its attempt has them."""
    return range(draft.status.cohorts[number].size) if draft.job.spec.cohorts == 1 else range(number, number + 1)


def _ends(draft: _Draft, cohort: Cohort, indexes: range, mine: dict[int, Pod]) -> list[End]:
    """Why the attempt of a cohort is over; nothing while it goes on."""
    done = draft.status.succeeded
    ends = []
    for index in indexes:
        if index not in done and (cohort.launched or index in mine):
            ended = end_of(index, mine.get(index))
            if ended is not None:
                ends.append(ended)
    spec = draft.job.spec
    if not ends and spec.cohorts == 1 and cohort.began is not None and cohort.size != spec.replicas:
        ends = [End(-1, None, "Scaled", False)]
    waits = spec.recovery.pending_deadline
    if not ends and waits is not None and cohort.began is not None and not _all_run(draft, indexes, mine):
        left = cohort.began + waits - draft.now
        if left > 0:
            draft.again.append(left)
        else:
            stuck = next((pod for pod in mine.values() if pod.phase == "Pending"), None)
            ends = [End(-1 if stuck is None else stuck.index, stuck, "PendingDeadlineExceeded", True)]
    return ends


def _all_run(draft: _Draft, indexes: range, mine: dict[int, Pod]) -> bool:
    return all(
        index in draft.status.succeeded or (index in mine and mine[index].phase in ("Running", "Succeeded"))
        for index in indexes
    )


def _end_attempt(draft: _Draft, number: int, end: End) -> None:
    """The attempt is over: the next one comes after a wait, or the job fails."""
    job, cohort, recovery = draft.job, draft.status.cohorts[number], draft.job.spec.recovery
    failures = draft.status.failures
    ran = draft.now - (cohort.began if cohort.began is not None else draft.now)
    if end.counted:
        failures = (0 if ran >= recovery.forget_after else failures) + 1
    draft.status = replace(draft.status, failures=failures, last_failure=_failure(draft, cohort, end))
    said = _words_of(end, cohort.attempt)
    if is_permanent(end, recovery):
        draft.end("Failed", "NeverRestarted" if recovery.restart == "Never" else "PermanentFailure", said)
        return
    if failures > recovery.limit:
        draft.end("Failed", "BackoffLimitExceeded", f"{counted(failures, 'failure')} in a row; the last: {said}")
        return
    wait = wait_after(end, failures, ran, recovery, job.uid)
    following = replace(_next_attempt(cohort), not_before=draft.now + wait, size=_size(job))
    draft.status = replace(
        draft.status,
        cohorts=_with(draft.status.cohorts, number, following),
        restarts=draft.status.restarts + 1,
        succeeded=frozenset() if job.spec.cohorts == 1 else draft.status.succeeded,
    )
    draft.mark("Running", False, end.reason)
    draft.mark("Restarting", True, end.reason, said if end.counted else f"{said}; it does not count as a failure")
    draft.tell("Restarting", f"attempt {following.attempt} in {wait:.0f} s: {said}", warning=end.counted)
    draft.again.append(wait)
    draft.drastic = True


def _size(job: Job) -> int:
    """Replicas of a cohort's next attempt."""
    return job.spec.replicas if job.spec.cohorts == 1 else 1


def _next_attempt(cohort: Cohort) -> Cohort:
    return Cohort(attempt=cohort.attempt + 1, size=cohort.size)


def _with(cohorts: tuple[Cohort, ...], number: int, cohort: Cohort) -> tuple[Cohort, ...]:
    return (*cohorts[:number], cohort, *cohorts[number + 1 :])


def _failure(draft: _Draft, cohort: Cohort, end: End) -> Failure | None:
    """What the status keeps of an end; that the job was scaled is none."""
    if end.index < 0:
        return draft.status.last_failure
    pod = end.pod
    return Failure(
        attempt=cohort.attempt,
        index=end.index,
        pod=pod_name(draft.job.name, cohort.attempt, end.index) if pod is None else pod.name,
        reason=end.reason,
        time=draft.now,
        counted=end.counted,
        node="" if pod is None else pod.node,
        exit_code=end.exit_code,
        message="" if pod is None else pod.message,
    )


def _words_of(end: End, attempt: int) -> str:
    """An end in a sentence."""
    if end.index < 0:
        return f"attempt {attempt}: {end.reason}"
    code = "" if end.exit_code is None else f", exit code {end.exit_code}"
    return f"replica {end.index} of attempt {attempt}: {end.reason}{code}"


def _launch(draft: _Draft, number: int, mine: dict[int, Pod], older: Sequence[Pod]) -> None:
    """The pods of an attempt are made once nothing older can run any more and its time has come."""
    cohort, now = draft.status.cohorts[number], draft.now
    draft.doom([pod for pod in older if pod.alive])
    if any(pod.going(now, draft.job.spec.recovery.lost_after) for pod in older):
        draft.again.append(LOOK_SECONDS)
        return
    if cohort.not_before is not None and now < cohort.not_before:
        draft.again.append(cohort.not_before - now)
        return
    if cohort.began is None:
        cohort = replace(cohort, began=now, size=_size(draft.job))
    elif all(index in mine or index in draft.status.succeeded for index in _indexes(draft, number)):
        cohort = replace(cohort, launched=True)
        draft.tell("Launched", f"attempt {cohort.attempt}: {counted(cohort.size, 'replica')}")
    draft.status = replace(draft.status, cohorts=_with(draft.status.cohorts, number, cohort))
    if not cohort.launched:
        missing = [each for each in _indexes(draft, number) if each not in mine and each not in draft.status.succeeded]
        draft.create += [Wanted(cohort.attempt, index, draft.job.spec.replicas) for index in missing]
        draft.again.append(LAUNCH_SECONDS)


def _mark_running(draft: _Draft) -> None:
    """Running is True while every replica of its attempt runs or has succeeded."""
    status = draft.status
    current = {pod.index: pod for pod in draft.pods if _is_current(draft, pod)}
    whole = all(cohort.launched for cohort in status.cohorts) and all(
        _all_run(draft, _indexes(draft, number), current) for number in range(len(status.cohorts))
    )
    if whole:
        draft.mark("Running", True, "AllReplicasRunning", f"attempt {status.attempt}")
        draft.mark("Restarting", False, "Restarted", f"attempt {status.attempt}")
        return
    stuck = next((pod for pod in current.values() if pod.phase == "Pending" and pod.reason in UNABLE), None)
    if stuck is not None:
        _mark_waiting(draft, stuck.reason, f"{stuck.name}: {stuck.message}")
    elif not status.holds("Restarting") and not (draft.create and _is_hindered(status)):
        _mark_waiting(draft, "Pending", "")


def _is_hindered(status: Status) -> bool:
    """Whether pods could not be made when that was tried last; it stays so until they are."""
    return any(each.kind == "Running" and not each.true and each.reason in HINDRANCES for each in status.conditions)


def _mark_waiting(draft: _Draft, reason: str, message: str) -> None:
    """Running is False, with its reason; a job that never ran has the condition from here on."""
    old = next((each for each in draft.status.conditions if each.kind == "Running"), None)
    since = draft.now if old is None or old.true else old.since
    new = Condition("Running", False, reason, message, since, draft.job.generation)
    rest = tuple(each for each in draft.status.conditions if each.kind != "Running")
    draft.status = replace(draft.status, conditions=(*rest, new))


def _described(draft: _Draft) -> Status:
    """The status with what people read: a word, a sentence, how many replicas are ready."""
    status = draft.status
    ready = sum(
        pod.ready for pod in draft.pods if pod.phase == "Running" and pod.gone_by is None and _is_current(draft, pod)
    )
    kinds = ("Complete", "Failed", "Suspended", "Restarting", "Running")
    state = next((kind for kind in kinds if status.holds(kind)), "Pending")
    said = next((each.message or each.reason for each in status.conditions if each.kind == state and each.true), "")
    if state == "Pending":
        said = next((each.message for each in status.conditions if each.kind == "Running"), "")
    return replace(status, ready=ready, state=state, message=said)
