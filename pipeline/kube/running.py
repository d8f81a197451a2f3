"""The operator: watches, a queue, threads that take steps, a lease.  Nothing is kept in memory but caches."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.clock import Clock
from pipeline.errors import PipelineError
from pipeline.kube.api import Api
from pipeline.kube.figures import Figures
from pipeline.kube.informer import Informer, trimmed_job, trimmed_pod
from pipeline.kube.lease import RENEW_SECONDS, Lease
from pipeline.kube.model import Job
from pipeline.kube.names import CAFFE2_KIND, JOB, KIND, resource_path
from pipeline.kube.perform import CONFLICT_SECONDS, RESOURCES, NotLeading, Performer, Seen
from pipeline.kube.plan import Event
from pipeline.kube.queue import Due, Key

FAILED_SECONDS = 1.0
"""How soon a step that failed is taken again."""


@dataclass(frozen=True)
class Wish:
    """How an operator is begun.  namespace: "" for all; threads: steps at a time.

    lease: the namespace where its lease stands, "" for none; me: its name there.
    """

    namespace: str = ""
    caffe2: bool = False
    threads: int = 4
    lease: str = ""
    me: str = ""


@dataclass
class _Index:
    """Bodies by the key of their job."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    pods: dict[tuple[str, str], dict[str, dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))
    jobs: dict[Key, str] = field(default_factory=dict)


class Operator:
    """One operator.  say: a line of its log."""

    def __init__(self, api: Api, wish: Wish, say: Callable[[str], None], clock: Clock) -> None:
        self._api, self._wish, self._say, self._clock = api, wish, say, clock
        self._due = Due(clock.monotonic)
        self._index = _Index()
        self._ending = threading.Event()
        self._missed = threading.Event()
        """A step was left out, since another operator leads."""
        self._troubles: dict[Key, str] = {}
        self.lease = Lease(api, wish.lease, wish.me, clock) if wish.lease else None
        kinds = (KIND, CAFFE2_KIND) if wish.caffe2 else (KIND,)
        self._jobs = {kind: self._watch(kind) for kind in kinds}
        self._pods = Informer(
            api, resource_path("v1", "pods", wish.namespace), self._pod_changed, trimmed_pod, clock, labelSelector=JOB
        )
        self.figures = Figures([*self._jobs.values(), self._pods], self._states, api.asked, lambda: self.leads)
        self._performer = Performer(api, clock, may=lambda: self.leads, wrote=self._wrote, noted=self._noted, say=say)

    @property
    def leads(self) -> bool:
        """Whether it works: without a lease it always does."""
        return self.lease is None or self.lease.leads

    @property
    def ready(self) -> bool:
        """Whether it has seen everything once."""
        return all(each.synced.is_set() for each in self.figures.informers)

    def start(self) -> None:
        for informer in self.figures.informers:
            informer.start()
        if self.lease is not None:
            threading.Thread(target=self._keep_lease, name="lease", daemon=True).start()
        for number in range(self._wish.threads):
            threading.Thread(target=self._work, name=f"step {number}", daemon=True).start()

    def stop(self) -> None:
        """No step is begun any more; the lease is given back."""
        self._ending.set()
        self._due.close()
        for informer in self.figures.informers:
            informer.stop()
        if self.lease is not None:
            self.lease.release()

    def _watch(self, kind: str) -> Informer:
        version, plural = RESOURCES[kind]
        path = resource_path(version, plural, self._wish.namespace)
        return Informer(self._api, path, lambda body: self._job_changed(kind, body), trimmed_job, self._clock)

    def _job_changed(self, kind: str, body: dict[str, Any]) -> None:
        meta = body["metadata"]
        key = (kind, meta["namespace"], meta["name"])
        with self._index.lock:
            if self._jobs[kind].one(meta["uid"]) is not None:
                self._index.jobs[key] = meta["uid"]
            elif self._index.jobs.get(key) == meta["uid"]:
                del self._index.jobs[key]
        self._due.add(key)

    def _pod_changed(self, body: dict[str, Any]) -> None:
        meta = body["metadata"]
        space, job = meta["namespace"], meta["labels"][JOB]
        with self._index.lock:
            there = self._index.pods[space, job]
            kept = self._pods.one(meta["uid"])
            if kept is None:
                there.pop(meta["uid"], None)
            else:
                there[meta["uid"]] = kept
            if not there:
                del self._index.pods[space, job]
        for kind in self._jobs:
            if (kind, space, job) in self._index.jobs:
                self._due.add((kind, space, job))

    def _wrote(self, body: dict[str, Any]) -> None:
        for informer in self._jobs.values():
            informer.keep(body)

    def _noted(self, job: Job, event: Event) -> None:
        self.figures.noted(job, event)
        self._say(f"{job.namespace}/{job.name}: {event.reason}: {event.message}")

    def _states(self) -> Counter[tuple[str, str]]:
        counts: Counter[tuple[str, str]] = Counter()
        for kind, informer in self._jobs.items():
            for body in informer.all():
                status = body.get("status") or {}
                ours = status.get("hathi") or {} if kind == CAFFE2_KIND else status
                counts[kind, ours.get("state") or "Pending"] += 1
        return counts

    def _keep_lease(self) -> None:
        assert self.lease is not None
        said = ""
        led = False
        while not self._ending.is_set():
            try:
                leads = self.lease.renew()
                said = ""
            except PipelineError as error:
                leads = self.lease.leads
                if error.message != said:
                    self._say(f"the lease cannot be renewed: {error}")
                said = error.message
            if leads and not led:
                self._say("this operator leads")
            if leads and (self._missed.is_set() or not led):
                self._missed.clear()
                self._everything()
            led = leads
            self._ending.wait(RENEW_SECONDS)

    def _everything(self) -> None:
        """Each job is looked at: who led before may have left something half done."""
        with self._index.lock:
            keys = list(self._index.jobs)
        for key in keys:
            self._due.add(key)

    def _work(self) -> None:
        while (key := self._due.take()) is not None:
            self._due.done(key, self._step(key))

    def _step(self, key: Key) -> float | None:
        """Seconds until the job is looked at again; None: when it changes."""
        if not self.leads:
            self._missed.set()  # whoever leads looks at it; we look at everything once we lead
            return None
        if not self.ready:
            return CONFLICT_SECONDS
        kind, space, name = key
        with self._index.lock:
            uid = self._index.jobs.get(key, "")
            pods = list(self._index.pods.get((space, name), {}).values())
        body = self._jobs[kind].one(uid)
        if body is None:
            return None
        began = time.perf_counter()
        try:
            again = self._performer.step(kind, Seen(body, pods))
        except NotLeading:
            self._missed.set()
            return None
        except PipelineError as error:
            self._trouble(key, str(error))
            self.figures.stepped("failed", time.perf_counter() - began)
            return FAILED_SECONDS
        self._troubles.pop(key, None)
        self.figures.stepped("conflict" if again == CONFLICT_SECONDS else "done", time.perf_counter() - began)
        return again

    def _trouble(self, key: Key, words: str) -> None:
        """Said once, until something else is wrong or it works again."""
        if self._troubles.get(key) != words:
            self._troubles[key] = words
            self._say(f"{key[1]}/{key[2]}: this step is taken again: {words}")
