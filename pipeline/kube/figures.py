"""The operator's figures for Prometheus, and whether it is well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline.kube.informer import Informer
from pipeline.kube.model import Job
from pipeline.kube.plan import Event

BUCKETS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
"""Seconds of a step."""


@dataclass(eq=False)
class Figures(Collector):
    """What is counted; written by the operator's threads, read by whoever asks."""

    informers: Sequence[Informer]
    states: Callable[[], Counter[tuple[str, str]]]
    """Jobs by kind and state."""
    requests: Counter[tuple[str, str]]
    leads: Callable[[], bool]
    events: Counter[tuple[str, str]] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    _seconds: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    _sum: float = 0.0

    def noted(self, job: Job, event: Event) -> None:
        self.events[job.kind, event.reason] += 1

    def stepped(self, how: str, seconds: float) -> None:
        """how: done, conflict or failed."""
        self.steps[how] += 1
        self._sum += seconds
        self._seconds[next((place for place, edge in enumerate(BUCKETS) if seconds <= edge), len(BUCKETS))] += 1

    @property
    def deaf(self) -> list[str]:
        """Watches that hear nothing: the process should be begun anew."""
        return [each._path for each in self.informers if each.deaf]

    def collect(self) -> Iterable[Metric]:
        jobs = GaugeMetricFamily("hathi_kube_jobs", "Jobs by kind and state", labels=["kind", "state"])
        for (kind, state), number in self.states().items():
            jobs.add_metric([kind, state], number)
        yield jobs
        yield GaugeMetricFamily("hathi_kube_leads", "1 while this operator works", value=float(self.leads()))
        age = GaugeMetricFamily("hathi_kube_watch_silent_seconds", "Time since a watch heard anything", labels=["path"])
        for each in self.informers:
            age.add_metric([each._path], each.silent)
        yield age
        for name, what, words, counts in (
            ("hathi_kube_requests", "Requests to the API server", ["verb", "resource"], self.requests),
            ("hathi_kube_events", "Events by kind of job and reason", ["kind", "reason"], self.events),
        ):
            family = CounterMetricFamily(name, what, labels=words)
            for labels, number in list(counts.items()):
                family.add_metric(list(labels), number)
            yield family
        steps = CounterMetricFamily("hathi_kube_steps", "Looks at a job by how they ended", labels=["how"])
        for how, number in list(self.steps.items()):
            steps.add_metric([how], number)
        yield steps
        total, buckets = 0, []
        for edge, number in zip((*map(str, BUCKETS), "+Inf"), self._seconds, strict=True):
            total += number
            buckets.append((edge, total))
        yield HistogramMetricFamily("hathi_kube_step_seconds", "How long a look at a job took", buckets, self._sum)
