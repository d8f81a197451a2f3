"""The thread that fetches: jobs in, outcomes out; every host by its own rules, none waiting for another.

One thread drives all transfers through libcurl's multi interface.  Each host has a queue, a number of connections and
a rate of its own, and a breaker that opens when the host fails again and again.  A host that is slow or dead takes up
its own connections and nothing else.

A job ends as an outcome, never as an exception: the bytes of an image, or a failure with a reason of the closed list in
`records.REASONS`.  Redirects, retries within a job and the judgement of addresses (nothing private, unless allowed)
happen here; what the bytes are is not judged here.  The bytes in flight are bounded by `fetch.buffer_budget`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from queue import SimpleQueue
from random import Random
from typing import Any

from pipeline import settings
from pipeline.clock import Clock
from pipeline.fetch.answer import seconds_to_wait
from pipeline.fetch.bodies import in_file, is_light, joined, results
from pipeline.fetch.buffer_budget import BufferRoom
from pipeline.fetch.conditions import is_unchanged
from pipeline.fetch.dns import Directory, Places
from pipeline.fetch.held_back import HeldBack
from pipeline.fetch.host import Host
from pipeline.fetch.hosts import Hosts
from pipeline.fetch.job import Body, Ended, Job, Trace, Waiter
from pipeline.fetch.reactor import Reactor
from pipeline.fetch.redirect import follow
from pipeline.fetch.target import Target
from pipeline.fetch.transfer import Transfer
from pipeline.fetch.wire import Wire
from pipeline.records import BREAKER_OPEN, REASONS, Condition, Failure, NotModified

_SWEEP_SECONDS = 0.1
_LONGEST_WAIT, _IDLE_WAIT = 0.05, 1.0
_GATHER, _GATHER_SECONDS = 64, 0.002
"""Results are handed over together, so many or those of two turns: each handing over wakes a thread."""
_GROUP_SECONDS = 0.25
"""Deadlines are rounded up to this, so that they share timers."""


class Engine:
    """`run` is the thread; `submit`, `wake` and `stop` are for others."""

    def __init__(
        self,
        limits: settings.Fetch,
        clock: Clock,
        random: Random,
        reactor: Reactor,
        directory: Directory,
        room: BufferRoom,
        new_transfer: Callable[[], Transfer],
        finished: SimpleQueue[Any],
        bodies: SimpleQueue[Any],
        trace: Trace | None,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._random = random
        self._reactor = reactor
        self._directory = directory
        self._room = room
        self._new_transfer = new_transfer
        self._finished = finished
        self._bodies = bodies
        self._trace = trace
        self._wire = Wire(reactor, limits.connections)
        self._hosts = Hosts(limits, clock)
        self._idle: list[Transfer] = []
        self._jobs: dict[tuple[str, bytes, Condition | None], Job] = {}
        self._deadlines: dict[float, set[Waiter]] = {}
        self._ended: list[Ended] = []
        self._stop = False
        self._sweep_at = 0.0
        self.held = HeldBack()

    def submit(self, batch: list[tuple[Waiter, Target]]) -> None:
        """From any thread: fetch these."""
        self._reactor.post(lambda: self._accept(batch))

    def wake(self) -> None:
        """From any thread: there may be room again."""
        self._reactor.wake()

    def stop(self) -> None:
        """From any thread: end `run` at once; what is open then is cut off."""
        self._reactor.post(self._end_run)

    @property
    def active(self) -> int:
        """From any thread: requests that are under way."""
        return len(self._wire.active)

    def _end_run(self) -> None:
        self._stop = True

    def run(self) -> None:
        """The thread: until it is stopped."""
        try:
            while not self._stop:
                self._turn()
        finally:
            self._directory.close()
            self._wire.close()
            for transfer in self._idle:
                transfer.curl.close()

    def _turn(self) -> None:
        held = bool(self._ended)
        longest = _GATHER_SECONDS if held else _LONGEST_WAIT if self._jobs else _IDLE_WAIT
        self._reactor.turn(self._wire.wait(longest))
        now = self._clock.monotonic()
        for transfer, code in self._wire.reap():
            failure = transfer.complete() if code == 0 else transfer.broken(code)
            self._transfer_ended(transfer, failure, now)
        for transfer in self._room.resumable():
            transfer.resume(now)
        if abs(now - self._sweep_at) >= _SWEEP_SECONDS:
            self._sweep_at = now
            self._sweep(now)
        self._serve_all(now)
        if self._ended and (held or len(self._ended) >= _GATHER or not self._jobs):
            self._finished.put(self._ended)
            self._ended = []

    # --- work comes in ---

    def _accept(self, batch: list[tuple[Waiter, Target]]) -> None:
        for waiter, target in batch:
            key = (target.url, target.user, waiter.condition)
            job = self._jobs.get(key)
            if job is None:
                job = self._jobs[key] = Job(target, waiter.condition, waiter.sink)
                self._enqueue(job)
            job.waiters.append(waiter)
            waiter.job = job
            if waiter.deadline is not None:
                self._set_deadline(waiter)

    def _set_deadline(self, waiter: Waiter) -> None:
        assert waiter.deadline is not None
        waiter.deadline = when = -(-waiter.deadline // _GROUP_SECONDS) * _GROUP_SECONDS
        group = self._deadlines.get(when)
        if group is None:
            group = self._deadlines[when] = set()
            self._reactor.call_at(when, lambda: self._expire(when))
        group.add(waiter)

    def _expire(self, when: float) -> None:
        for waiter in self._deadlines.pop(when, ()):
            job = waiter.job
            assert job is not None
            job.waiters.remove(waiter)
            failure = (
                Failure.of("timeout", "batch deadline")
                if job.transfer is not None
                else job.last or Failure.of("host_busy", "batch deadline")
            )
            self._end_waiter(job, waiter, failure)
            if not job.waiters:
                self._forget(job)
                if job.transfer is not None:
                    self._cut_off(job.transfer)

    def _cut_off(self, transfer: Transfer) -> None:
        self._wire.cancel(transfer)
        transfer.job.transfer = None
        self._free(transfer, handed=False)

    def _enqueue(self, job: Job) -> None:
        """What was begun goes first, so that batches are done in their order."""
        host = self._hosts.of(job.target)
        if job.requests:
            host.queue.appendleft(job)
        else:
            host.queue.append(job)
        self._hosts.list(host)

    # --- hosts are served ---

    def _serve_all(self, now: float) -> None:
        ready = self._hosts.ready
        while ready and len(self._wire.active) < self._limits.connections and not self._room.full():
            host = ready.popleft()
            host.listed = False
            self._serve(host, now)
            domain = host.domain
            if domain.waiting and domain.active < domain.limit:
                ready.append(domain.waiting.popleft())

    def _serve(self, host: Host, now: float) -> None:
        """Start one request of this host, or see to it that it is asked again when one may start."""
        queue = host.queue
        while queue and not queue[0].waiters:
            queue.popleft()
        if not queue:
            return
        if host.is_open(now):
            self._drain(host)
            return
        if host.active >= host.limit or host.probing:
            return  # listed again when a transfer ends
        if host.domain.active >= host.domain.limit:
            host.listed = True
            host.domain.waiting.append(host)
            return
        wait = host.wait(now)
        if wait > 0:
            host.listed = True
            self.held.note(host, now)
            self._reactor.call_at(now + wait, lambda: self._hosts.ready.append(host))
            return
        places = self._places(host, queue[0].target)
        if places is None:
            return  # listed again when the answer comes
        job = queue.popleft()
        if places.failure is not None:
            self._unreachable(job, host, places, now)
        else:
            self._begin(job, host, places, now)
        self._hosts.list(host)

    def _drain(self, host: Host) -> None:
        while host.queue:
            job = host.queue.popleft()
            self._end(job, job.last or Failure.of("host_busy", BREAKER_OPEN))

    def _places(self, host: Host, target: Target) -> Places | None:
        if target.address is not None:
            return self._directory.of_address(target.address)
        places = self._directory.known(target.host)
        if places is None and not host.resolving:
            host.resolving = True
            self._directory.ask(target.host, lambda _places: self._resolved(host))
            places = self._directory.known(target.host)
        return None if host.resolving else places

    def _resolved(self, host: Host) -> None:
        host.resolving = False
        self._hosts.list(host)

    def _unreachable(self, job: Job, host: Host, places: Places, now: float) -> None:
        failure = places.failure
        assert failure is not None
        if failure.reason == "blocked" and job.hops:
            failure = Failure.of("redirect", f"to {failure.detail}")
        self._say(job, "resolved", f"{job.target.host}: {failure.detail}")
        self._failed(job, host, failure, now, final=places.final)

    def _begin(self, job: Job, host: Host, places: Places, now: float) -> None:
        address = places.addresses[job.tries % len(places.addresses)]
        transfer = self._idle.pop() if self._idle else self._new_transfer()
        job.transfer = transfer
        job.requests += 1
        if self._trace is not None:
            self._say(job, "resolved", f"{job.target.host} is {address}, checked and pinned")
        transfer.begin(job, host, address, now, host.begin())
        self._wire.start(transfer)

    # --- transfers end ---

    def _sweep(self, now: float) -> None:
        for transfer in list(self._wire.active.values()):
            if transfer.overdue(now, self._limits.total_seconds - transfer.job.spent):
                self._wire.cancel(transfer)
                self._transfer_ended(transfer, transfer.verdict, now)

    def _transfer_ended(self, transfer: Transfer, failure: Failure | None, now: float) -> None:
        job, host, head = transfer.job, transfer.host, transfer.head
        job.transfer = None
        job.spent += now - transfer.started
        if self._trace is not None:
            for step, text in transfer.story():
                self._say(job, step, text)
        got_on = job.sink is not None and job.sink.got_on()
        if got_on:
            job.tries = 0  # a long body that breaks now and then comes all the same
        if failure is None or got_on or not REASONS[failure.reason].against_host:
            host.went_well()
        else:
            host.went_badly(now, hung=failure.reason == "timeout")
        if failure is not None and head is not None and head.status in (429, 503):
            host.push_back(seconds_to_wait(head.retry_after, self._now()), now, self._random)
        if failure is not None:
            self._failed(job, host, failure, now)
        elif transfer.redirects:
            self._redirected(job, host, transfer, now)
        elif transfer.answered:
            self._answered(job, transfer)
        else:
            assert head is not None
            self._forget(job)
            if job.sink is not None:
                self._ended += [in_file(job, one, head) for one in job.waiters]
                self._free(transfer, handed=False)
                return
            body = Body(job, transfer.parts, transfer.size, head, job.target.url, self._now(), transfer.packed)
            self._free(transfer, handed=True)
            if is_light(body):
                self._ended += results(body, joined(body))
            else:
                self._bodies.put(body)
            return
        self._free(transfer, handed=False)

    def _free(self, transfer: Transfer, handed: bool) -> None:
        host = transfer.host
        self._room.leave(transfer, handed)
        host.end(transfer.probe)
        transfer.release()
        self._idle.append(transfer)
        self._hosts.list(host)
        if host.domain.waiting:
            self._hosts.ready.append(host.domain.waiting.popleft())

    def _redirected(self, job: Job, host: Host, transfer: Transfer, now: float) -> None:
        assert transfer.head is not None
        job.cookie = job.cookie or transfer.head.cookie
        target = follow(job, transfer.head.location, self._limits)
        if isinstance(target, Failure):
            self._failed(job, host, target, now)
            return
        self._say(job, "redirected", f"to {target.url}")
        job.target = target
        self._enqueue(job)

    def _answered(self, job: Job, transfer: Transfer) -> None:
        """An answer to a condition; one that is not to be believed costs another request, without it."""
        assert transfer.head is not None
        assert job.condition is not None
        if is_unchanged(job.condition, transfer.head):
            self._forget(job)
            self._ended += [Ended(one, NotModified(one.url), 0, job.requests) for one in job.waiters]
            return
        self._say(job, "again", f"status {transfer.head.status} is no answer to the condition; without one")
        job.condition = None
        job.again()
        self._enqueue(job)

    def _failed(self, job: Job, host: Host, failure: Failure, now: float, final: bool = False) -> None:
        """A try has failed: once more a little later, or never within this attempt."""
        job.tries += 1
        job.last = failure
        spent = job.spent + job.spent_before
        if (
            final
            or not failure.retriable
            or job.tries >= self._limits.attempts
            or host.is_open(now)
            or spent >= self._limits.total_seconds
        ):
            self._end(job, failure)
            return
        job.again()
        delay = self._limits.retry_seconds * 2 ** (job.tries - 1) * self._random.uniform(0.5, 1.5)
        self._say(job, "again", f"after {failure.reason} ({failure.detail}), try {job.tries + 1}")
        self._reactor.call_at(now + delay, lambda: self._again(job))

    def _again(self, job: Job) -> None:
        if job.waiters:
            self._enqueue(job)

    def _end(self, job: Job, failure: Failure) -> None:
        self._forget(job)
        for waiter in job.waiters:
            self._end_waiter(job, waiter, failure)

    def _end_waiter(self, job: Job, waiter: Waiter, failure: Failure) -> None:
        self._ended.append(
            Ended(waiter, Failure(failure.reason, failure.detail, failure.retriable, waiter.url), 0, job.requests)
        )

    def _forget(self, job: Job) -> None:
        """Equal URLs that come from now on are fetched anew; no deadline disturbs this one any more."""
        self._jobs.pop(job.key, None)
        for waiter in job.waiters:
            if waiter.deadline is not None and (group := self._deadlines.get(waiter.deadline)) is not None:
                group.discard(waiter)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)

    def _say(self, job: Job, step: str, text: str) -> None:
        if self._trace is not None:
            for waiter in job.waiters:
                self._trace(waiter.url, step, text)
