"""Where the figures of a daemon, a run or the service go: to Prometheus where a setting says so, else nowhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.clock import Clock
from pipeline.errors import ConfigError
from pipeline.operations.health.facts import Facts
from pipeline.operations.health.judge import Finding
from pipeline.settings import Settings
from pipeline.stages.tally import Tally

if TYPE_CHECKING:
    from pipeline.operations.training_metrics import TrainingMetrics
    from pipeline.service.http.server import Server
    from pipeline.training.surroundings import Shown


class Meter(Protocol):
    """Takes the figures of one process."""

    def turn(self, lake: str, stage: str) -> contextlib.AbstractContextManager[Tally]:
        """Around a turn: the tally that it is to fill."""

    def add(self, lake: str, stage: str, tally: Tally) -> None:
        """What others did."""

    def show(self, facts: Facts, findings: Sequence[Finding]) -> None:
        """What health has looked at."""


class Unmetered:
    """Nobody asked for figures."""

    @contextlib.contextmanager
    def turn(self, lake: str, stage: str) -> Iterator[Tally]:
        yield Tally()

    def add(self, lake: str, stage: str, tally: Tally) -> None:
        return

    def show(self, facts: Facts, findings: Sequence[Finding]) -> None:
        return


@contextlib.contextmanager
def metered_daemon(
    settings: Settings, stages: Sequence[str], clock: Clock, say: Callable[[str], None]
) -> Iterator[Meter]:
    """A daemon answers on its port while it runs."""
    port = settings.metrics.port
    if port is None:
        yield Unmetered()
        return
    from pipeline.operations.metrics import Metrics, answering, port_of  # few need it, and it takes its time to import

    metrics = Metrics(clock)
    with answering(metrics, settings.metrics.address, port_of(port, stages), say):
        yield metrics


@contextlib.contextmanager
def metered_run(settings: Settings, clock: Clock, say: Callable[[str], None]) -> Iterator[Meter]:
    """A run writes its file each minute and at its end."""
    if settings.metrics.file is None:
        yield Unmetered()
        return
    from pipeline.operations.metrics import Metrics, writing

    metrics = Metrics(clock)
    with writing(metrics, Path(settings.metrics.file), say):
        yield metrics


class TrainingMeter:
    """Takes the figures of one training; where nobody asked for them it does nothing."""

    def __init__(self, metrics: TrainingMetrics | None) -> None:
        self._metrics = metrics

    def begin(self, name: str, last: int, attempts: Callable[[], int]) -> None:
        """name: of the training.  last: the iteration at which it ends.  attempts: so far, with this one."""
        if self._metrics is not None:
            self._metrics.begin(name, last, attempts())

    def show(self, now: Shown) -> None:
        """After each iteration."""
        if self._metrics is not None:
            self._metrics.step(now.iteration, now.loss, now.rate)
            self._metrics.took(now.examples, now.waited)

    def row(self, row: dict[str, Any]) -> None:
        """A row of metrics."""
        if self._metrics is not None:
            self._metrics.row(row)

    def saved(self, iteration: int) -> None:
        """A snapshot is begun."""
        if self._metrics is not None:
            self._metrics.saved(iteration)


@contextlib.contextmanager
def metered_training(settings: Settings | None, clock: Clock, say: Callable[[str], None]) -> Iterator[TrainingMeter]:
    """A training writes the file each minute and at its end, as a run does."""
    if settings is None or settings.metrics.file is None:
        yield TrainingMeter(None)
        return
    from pipeline.operations.metrics import writing
    from pipeline.operations.training_metrics import TrainingMetrics

    metrics = TrainingMetrics(clock)
    with writing(metrics, Path(settings.metrics.file), say):
        yield TrainingMeter(metrics)


@contextlib.contextmanager
def metered_service(settings: Settings, server: Server, say: Callable[[str], None]) -> Iterator[None]:
    """An API server shows its figures while the block lasts.  Raises ConfigError for an address that is none."""
    listen = settings.service.metrics_listen
    if listen is None:
        yield
        return
    from pipeline.operations.metrics import answering
    from pipeline.service.metrics import ServiceMetrics

    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"service.metrics_listen: {listen} is no HOST:PORT", "", "127.0.0.1:9474, for example")
    metrics = ServiceMetrics(settings.service.database, server.rules, server.requests)
    with answering(metrics, host.strip("[]"), int(port), say, "service.metrics_listen"):
        yield
