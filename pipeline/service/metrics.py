"""Figures for Prometheus: the queue and its workers as the database has them, and an API server's answers.

Names and labels: docs/service.md.  Each scrape looks at the database by a connection of its own: it waits for nothing
that the server does, and the server for no scrape.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline.errors import PipelineError
from pipeline.service import backlog, tallies
from pipeline.service.database.opening import open_database
from pipeline.service.http.counting import UP_TO, Requests
from pipeline.service.scaling import Rules, Wanted, wanted_now
from pipeline.service.words import Slot

_COUNTERS = {
    tallies.CLAIMS: ("claims", "Attempts that workers began."),
    tallies.ETAS: ("etas", "Work that has succeeded and told its end before."),
    tallies.TOLD: ("eta_told_seconds", "Seconds that were left when that was told first, of all of them."),
    tallies.CAME: ("eta_came_seconds", "Seconds from then to their end."),
    tallies.ERROR: ("eta_error_seconds", "Seconds by which the two differ, of each without its sign."),
}
"""By tally: the metric and what it says."""


class ServiceMetrics(Collector):
    """All figures of one API server.  database: its URL or file."""

    def __init__(self, database: str, rules: Rules, requests: Requests) -> None:
        self._database, self._rules, self._requests = database, rules, requests
        self._took, self._looking = backlog.Took(), threading.Lock()
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Nothing is looked at before somebody asks."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """For the registry: everything as it is now."""
        up = GaugeMetricFamily("hathi_service_database_up", "1 when the database answers, else 0.")
        with self._looking:
            try:
                found, counts = asyncio.run(self._read())
            except PipelineError:
                found, counts = {}, {}
        up.add_metric([], int(bool(found)))
        yield up
        yield from gauges(found)
        yield from counters(counts)
        yield from _answers(self._requests)

    async def _read(self) -> tuple[Mapping[Slot, Wanted], Mapping[tuple[Slot, str], float]]:
        database = await open_database(self._database)
        try:
            return wanted_now(await backlog.read(database, self._took), self._rules), await tallies.read(database)
        finally:
            await database.close()


def gauges(found: Mapping[Slot, Wanted]) -> Iterator[Metric]:
    """The queue and its workers by kind."""
    work = GaugeMetricFamily("hathi_service_work", "Work that is not over.", labels=("kind", "state"))
    oldest = GaugeMetricFamily(
        "hathi_service_oldest_queued_seconds", "For so long the oldest queued work waits.", labels=["kind"]
    )
    workers = GaugeMetricFamily("hathi_service_workers", "Workers that were heard of lately.", labels=["kind"])
    desired = GaugeMetricFamily("hathi_service_workers_desired", "Workers that there should be.", labels=["kind"])
    for slot, one in found.items():
        work.add_metric([slot, "queued"], one.load.queued)
        work.add_metric([slot, "running"], one.load.running)
        oldest.add_metric([slot], one.load.oldest)
        workers.add_metric([slot], one.load.workers)
        desired.add_metric([slot], one.desired)
    yield from (work, oldest, workers, desired)


def counters(counts: Mapping[tuple[Slot, str], float]) -> Iterator[Metric]:
    """What was claimed, and how good the times were that trainings told of their end."""
    for name, (metric, text) in _COUNTERS.items():
        family = CounterMetricFamily(f"hathi_service_{metric}", text, labels=["kind"])
        for (slot, of), value in sorted(counts.items()):
            if of == name:
                family.add_metric([slot], value)
        yield family


def _answers(requests: Requests) -> Iterator[Metric]:
    answered = CounterMetricFamily("hathi_service_requests", "Answers of this server.", labels=("method", "status"))
    for (method, status), number in sorted(dict(requests.answered).items()):
        answered.add_metric([method, str(status)], number)
    yield answered
    took, seconds = dict(requests.took), requests.seconds
    sums = accumulate(took.get(place, 0) for place in range(len(UP_TO) + 1))
    buckets = list(zip((*map(str, UP_TO), "+Inf"), sums, strict=True))
    yield HistogramMetricFamily(
        "hathi_service_request_seconds", "Seconds until an answer began.", buckets=buckets, sum_value=seconds
    )
