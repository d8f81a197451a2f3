"""Figures of trainings for Prometheus: how far each is, how well and how fast it learns, when it wrote a snapshot.

A training writes them into the file of `[metrics]` and keeps what runs from cron have written there; those keep what
trainings have written.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from pipeline.clock import Clock
from pipeline.times import DAY

UPDATED = "hathi_training_updated_timestamp_seconds"
FIGURES: dict[str, tuple[str, tuple[str, ...]]] = {
    "hathi_training_iteration": ("Iterations that are made.", ("training",)),
    "hathi_training_max_iterations": ("Iterations at which the training ends.", ("training",)),
    "hathi_training_loss": ("The smoothed loss.", ("training",)),
    "hathi_training_learning_rate": ("The rate of the last update.", ("training",)),
    "hathi_training_examples_per_second": ("Examples a second, tests included.", ("training",)),
    "hathi_training_waiting_ratio": ("Part of the time in which the net waits for data.", ("training",)),
    "hathi_training_test_output": ("An output of the last test.", ("training", "net", "output")),
    "hathi_training_snapshot_timestamp_seconds": ("When the last snapshot was begun.", ("training",)),
    "hathi_training_attempts": ("Attempts at the training so far.", ("training",)),
    UPDATED: ("When the figures of the training were written.", ("training",)),
}
KEPT = 7 * DAY
"""Figures of a training that nobody writes any more stay in the file so long."""
OUTPUTS = 50
"""Outputs of tests that are shown."""
LEAST = 1.0
"""Seconds over which a speed is measured, at least."""
Families = dict[str, GaugeMetricFamily]


def families() -> Families:
    """Each figure, without a value."""
    return {name: GaugeMetricFamily(name, says, labels=labels) for name, (says, labels) in FIGURES.items()}


def written(path: Path | None, now: float, without: str = "") -> tuple[Families, list[Metric]]:
    """What stands in a file: figures of trainings, without those of one and old ones; and everything else."""
    found, others = families(), []
    try:
        read = list(text_string_to_metric_families(path.read_text())) if path is not None else []
    except (OSError, ValueError):  # it is begun anew
        return found, []
    ages = {one.labels.get("training", ""): now - one.value for of in read if of.name == UPDATED for one in of.samples}
    for family in read:
        if family.name not in FIGURES:
            others.append(family)
            continue
        labels = FIGURES[family.name][1]
        for sample in family.samples:
            training = sample.labels.get("training", "")
            if set(sample.labels) == set(labels) and training != without and ages.get(training, math.inf) < KEPT:
                found[family.name].add_metric([sample.labels[label] for label in labels], sample.value)
    return found, others


class TrainingMetrics(Collector):
    """The figures of one training.  `step`, `row` and `saved` are for its main thread; collecting is for any."""

    def __init__(self, clock: Clock) -> None:
        self.registry = CollectorRegistry()
        self.name = ""
        self._clock = clock
        self._path: Path | None = None
        self._values: dict[str, float] = {}
        self._outputs: dict[tuple[str, str], float] = {}
        self._counts = (0, 0.0)
        self._speed = (clock.monotonic(), 0, 0.0)
        self.registry.register(self)

    def begin(self, name: str, last: int, attempts: int) -> None:
        """name: of the job; of a training in a folder its whole snapshot_prefix.  last: the iteration at which it ends.

        attempts: so far, with this one.
        """
        self.name = name
        self._values |= {"max_iterations": last, "attempts": attempts}

    def step(self, iteration: int, loss: float, rate: float) -> None:
        """An iteration is made."""
        self._values |= {"iteration": iteration, "loss": loss, "learning_rate": rate}

    def took(self, examples: int, waited: float) -> None:
        """examples: of this attempt so far.  waited: seconds in which the net waited for data."""
        if examples < self._counts[0]:  # another attempt
            self._speed = (self._clock.monotonic(), 0, 0.0)
        self._counts = (examples, waited)

    def row(self, row: Mapping[str, Any]) -> None:
        """A row of metrics: of a test its outputs."""
        if row.get("kind") != "test":
            return
        for name, value in row["values"].items():
            net, _, output = name.partition("/")
            if isinstance(value, int | float) and (len(self._outputs) < OUTPUTS or (net, output) in self._outputs):
                self._outputs[net, output] = value

    def saved(self, iteration: int) -> None:
        """A snapshot is begun."""
        self._values["snapshot_timestamp_seconds"] = self._clock.now()

    def go_on(self, path: Path) -> None:
        """The file whose other figures stay."""
        self._path = path

    def collect(self) -> Iterable[Metric]:
        """For the registry: this training's as they are now, beside everything else that stands in the file."""
        now = self._clock.now()
        self._measure()
        found, others = written(self._path, now, self.name)
        values = dict(self._values) | ({"updated_timestamp_seconds": now} if self.name else {})
        for name, value in values.items():
            found[f"hathi_training_{name}"].add_metric([self.name], value)
        for (net, output), value in sorted(dict(self._outputs).items()):
            found["hathi_training_test_output"].add_metric([self.name, net, output], value)
        yield from others
        yield from found.values()

    def _measure(self) -> None:
        """The speed since it was measured last, as soon as that is long enough ago."""
        at, examples, waited = self._speed
        now, seconds = self._counts, self._clock.monotonic() - at
        if now[0] > examples and (seconds >= LEAST or "examples_per_second" not in self._values):
            seconds = max(seconds, 1e-9)
            self._values["examples_per_second"] = (now[0] - examples) / seconds
            self._values["waiting_ratio"] = min(1.0, max(0.0, (now[1] - waited) / seconds))
            self._speed = (self._clock.monotonic(), *now)


def kept(path: Path | None, now: float) -> Iterator[Metric]:
    """The figures of trainings that stand in a file, for whoever writes it anew."""
    yield from written(path, now)[0].values()
