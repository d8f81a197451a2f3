"""Figures for Prometheus: what this process did, from its tallies; what waits, from the facts that health looks at.

Names and labels: docs/metrics.md.  A registry of its own; over HTTP for daemons, as a text file for runs from cron.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from platform import python_version
from typing import Protocol

from prometheus_client import CollectorRegistry, start_http_server, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from pipeline import __version__
from pipeline.clock import Clock
from pipeline.ledger.layout import seconds_of
from pipeline.operations.health.facts import Facts, LakeFacts
from pipeline.operations.health.judge import Finding, Level, level_of
from pipeline.operations.training_metrics import kept
from pipeline.stage_names import ON_THE_BOX, ON_THE_LAKE, STAGES
from pipeline.stages.tally import Tally

PORTS = (*ON_THE_LAKE, *ON_THE_BOX)
"""In this order, from the configured port on."""
FILE_SECONDS = 60.0
"""A run from cron writes its file so often."""

BY_STAGE = {
    "hathi_tasks": "Tasks done.",
    "hathi_problems": "Tasks or whole turns that failed; Hathi tries them again.",
    "hathi_refs": "Image refs shipped, computed, aggregated.",
    "hathi_features": "Features computed, aggregated, delivered.",
    "hathi_bytes": "Bytes of batches shipped, of images fetched and of files delivered.",
    "hathi_turn_seconds": "Seconds spent in turns of the stage.",
}
COUNTERS = {
    **BY_STAGE,
    "hathi_rejected_rows": "Rows of sources that are no refs.",
    "hathi_failures": "Items without a feature, by reason, as batches are computed; each try counts.",
}
LABELS = dict.fromkeys(BY_STAGE, ("lake", "stage")) | {
    "hathi_rejected_rows": ("lake",),
    "hathi_failures": ("lake", "reason"),
}
Sums = dict[str, dict[tuple[str, ...], float]]


def sums_of(lake: str, stage: str, tally: Tally) -> Iterator[tuple[str, tuple[str, ...], float]]:
    """A tally as counters: name, values of the labels, amount."""
    amounts = (tally.tasks, tally.problems, tally.counts.refs, tally.counts.features, tally.bytes, tally.seconds)
    for name, amount in zip(BY_STAGE, amounts, strict=True):
        yield name, (lake, stage), amount
    if stage == "ship":
        yield "hathi_rejected_rows", (lake,), tally.counts.rejected
    if stage == "compute":  # what aggregate counts are the same failures once more
        for reason, number in dict(tally.reasons).items():
            yield "hathi_failures", (lake, reason), number


class Metrics(Collector):
    """All figures of one process.  `turn` and `show` are for its main thread; collecting is for any."""

    def __init__(self, clock: Clock) -> None:
        self.registry = CollectorRegistry()
        self._clock = clock
        self._sums: Sums = {name: {} for name in COUNTERS}
        self._turn: tuple[str, str, Tally] | None = None
        self._success: dict[tuple[str, str], float] = {}
        self._gauges: tuple[GaugeMetricFamily, ...] = ()
        self._changing = threading.Lock()
        self._path: Path | None = None
        self.registry.register(self)

    @contextlib.contextmanager
    def turn(self, lake: str, stage: str) -> Iterator[Tally]:
        """Around a turn of a stage: the tally that it is to fill, counted while it grows.

        A turn that raises counts as one problem.
        """
        tally = Tally()
        began = self._clock.monotonic()
        self._turn = (lake, stage, tally)
        failed = True
        try:
            yield tally
            failed = False
        finally:
            tally.seconds = self._clock.monotonic() - began
            tally.problems += int(failed)
            with self._changing:
                self._turn = None
                _add(self._sums, sums_of(lake, stage, tally))
                if not tally.problems and not tally.stopped:
                    self._success[lake, stage] = self._clock.now()

    def add(self, lake: str, stage: str, tally: Tally) -> None:
        """What others did in turns of their own (the workers of a run)."""
        with self._changing:
            _add(self._sums, sums_of(lake, stage, tally))

    def show(self, facts: Facts, findings: Sequence[Finding]) -> None:
        """What health has looked at; it stands until the next look."""
        self._gauges = tuple(gauges(facts, findings))

    def collect(self) -> Iterable[Metric]:
        """For the registry: everything as it is now."""
        with self._changing:
            sums = {name: dict(amounts) for name, amounts in self._sums.items()}
            if self._turn is not None:
                _add(sums, sums_of(*self._turn))
            success = dict(self._success)
        for name, help_text in COUNTERS.items():
            counter = CounterMetricFamily(name, help_text, labels=LABELS[name])
            for labels, amount in sorted(sums[name].items()):
                counter.add_metric(labels, amount)
            yield counter
        last = _gauge(
            "hathi_last_success_timestamp_seconds",
            "When the last good turn ended.",
            "lake",
            "stage",
        )
        for pair, when in sorted(success.items()):
            last.add_metric(pair, when)
        yield last
        build = _gauge("hathi_build_info", "The version of Hathi that runs.", "version", "python")
        build.add_metric([__version__, python_version()], 1)
        yield build
        yield from self._gauges
        yield from kept(self._path, self._clock.now())

    def go_on(self, path: Path) -> None:
        """Count on from what the last run wrote, so that no run from cron looks like a reset; anew where it cannot.

        What trainings write there stays.
        """
        self._path = path
        try:
            families = list(text_string_to_metric_families(path.read_text()))
        except (OSError, ValueError):
            return
        for sample in (sample for family in families for sample in family.samples):
            name = sample.name.removesuffix("_total")
            if name in COUNTERS and set(sample.labels) == set(LABELS[name]):
                labels = tuple(sample.labels[label] for label in LABELS[name])
                self._sums[name][labels] = self._sums[name].get(labels, 0.0) + sample.value
            elif name == "hathi_last_success_timestamp_seconds" and set(sample.labels) == {"lake", "stage"}:
                self._success[sample.labels["lake"], sample.labels["stage"]] = sample.value


def _add(sums: Sums, amounts: Iterable[tuple[str, tuple[str, ...], float]]) -> None:
    for name, labels, amount in amounts:
        sums[name][labels] = sums[name].get(labels, 0.0) + amount


def _gauge(name: str, help_text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, help_text, labels=labels)


def gauges(facts: Facts, findings: Sequence[Finding]) -> Iterator[GaugeMetricFamily]:
    """The facts of one look, all lakes together."""
    yield from _of_backlog(facts.lakes)
    yield from _of_partners(facts.lakes)
    yield from _of_host(facts)
    level = _gauge("hathi_health_level", "0 OK, 1 Warning, 2 Alert.")
    level.add_metric([], level_of(findings))
    yield level
    number = _gauge("hathi_health_findings", "Findings of health.", "level")
    for one in (Level.WARNING, Level.ALERT):
        number.add_metric([one.word.lower()], sum(found.level is one for found in findings))
    yield number
    looked = _gauge("hathi_health_look_timestamp_seconds", "When these facts were gathered.")
    looked.add_metric([], facts.at)
    yield looked


def _of_backlog(lakes: Sequence[LakeFacts]) -> Iterator[GaugeMetricFamily]:
    shipments = _gauge("hathi_backlog_shipments", "Open shipments by the stage that they wait for.", "lake", "stage")
    batches = _gauge("hathi_backlog_batches", "Batches that wait for a stage.", "lake", "stage")
    refs = _gauge("hathi_backlog_refs", "Estimate of the refs that wait for a stage.", "lake", "stage")
    oldest = _gauge("hathi_backlog_oldest_timestamp_seconds", "Since when the oldest shipment waits.", "lake", "stage")
    held = _gauge("hathi_held_batches", "Held batches that nobody has answered.", "lake")
    retries = _gauge("hathi_retries_waiting", "Shipments of retries that are not due yet.", "lake")
    due = _gauge("hathi_retry_next_due_timestamp_seconds", "When the first of the retries is due.", "lake")
    sent = _gauge("hathi_last_delivery_timestamp_seconds", "When something last entered an index.", "lake")
    missing = _gauge("hathi_missing_files", "Files that an index names and that do not exist.", "lake")
    for lake in lakes:
        for one in lake.backlog:
            labels = [lake.lake, one.stage]
            shipments.add_metric(labels, one.shipments)
            batches.add_metric(labels, one.batches)
            refs.add_metric(labels, one.refs)
            if one.oldest is not None:
                oldest.add_metric(labels, one.oldest)
        held.add_metric([lake.lake], len(lake.held))
        retries.add_metric([lake.lake], lake.retries)
        if lake.next_due is not None:
            due.add_metric([lake.lake], lake.next_due)
        if lake.sees_lake:
            missing.add_metric([lake.lake], len(lake.missing))
            if lake.sent is not None:
                sent.add_metric([lake.lake], lake.sent)
    yield from (shipments, batches, refs, oldest, held, retries, due, sent, missing)


def _of_partners(lakes: Sequence[LakeFacts]) -> Iterator[GaugeMetricFamily]:
    labels = ("lake", "set", "partner")
    source = _gauge("hathi_partner_source_timestamp_seconds", "The newest version at the source.", *labels)
    delivered = _gauge("hathi_partner_delivered_timestamp_seconds", "The newest version delivered.", *labels)
    lag = _gauge("hathi_partner_lag_seconds", "How far delivery is behind the source.", *labels)
    for lake in lakes:
        for one in lake.freshness:
            values = [lake.lake, one.set, one.partner]
            if one.source:
                source.add_metric(values, seconds_of(one.source))
            if one.delivered:
                delivered.add_metric(values, seconds_of(one.delivered))
            lag.add_metric(values, one.lag)
    yield from (source, delivered, lag)


def _of_host(facts: Facts) -> Iterator[GaugeMetricFamily]:
    disk = _gauge("hathi_disk_used_ratio", "How full the local disk of a folder is, from 0 to 1.", "folder")
    for one in facts.disks:
        disk.add_metric([one.folder], one.percent / 100)
    yield disk
    up = _gauge("hathi_store_up", "1 when a store answers, else 0.", "store")
    skew = _gauge("hathi_clock_skew_seconds", "A store's clock minus this host's, in seconds.", "store")
    ends = _gauge("hathi_credentials_end_timestamp_seconds", "When a ticket or key ends that nothing renews.", "store")
    for store in facts.stores:
        up.add_metric([store.name], int(not store.trouble))
        if not store.trouble:
            skew.add_metric([store.name], store.skew)
        if store.credentials_end is not None:
            ends.add_metric([store.name], store.credentials_end)
    yield from (up, skew, ends)
    runs = _gauge("hathi_program_running", "1 while a program runs on this host (holds its lock), else 0.", "program")
    for stage in STAGES:
        runs.add_metric([stage], int(stage in facts.programs))
    yield runs
    estop = _gauge("hathi_estop", "1 while ESTOP is engaged, else 0.")
    engaged = facts.estop is not None or any(lake.estop is not None for lake in facts.lakes)
    estop.add_metric([], int(engaged))
    yield estop


def port_of(port: int, stages: Sequence[str]) -> int:
    """The port of a daemon: ship has the configured one, deliver the next, and so on."""
    return port + min(PORTS.index(stage) for stage in stages)


class Registered(Protocol):
    """Figures that are asked for."""

    registry: CollectorRegistry


@contextlib.contextmanager
def answering(
    metrics: Registered, address: str, port: int, say: Callable[[str], None], setting: str = "metrics.port"
) -> Iterator[int | None]:
    """Answer Prometheus while the program runs: on which port (0 asks for any that is free).  setting: which says it.

    A port that cannot be had is one line, not the program's end.
    """
    try:
        server, thread = start_http_server(port, address, metrics.registry)
    except (OSError, OverflowError) as error:
        say(f"no metrics on {address}:{port}: {error}; set {setting} to one that is free")
        yield None
        return
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5.0)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time; a folder of a server that knows no locks is written without."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class Written(Protocol):
    """Figures that are written into a file."""

    registry: CollectorRegistry

    def go_on(self, path: Path) -> None:
        """Before the first time: the file as it was left."""


@contextlib.contextmanager
def writing(metrics: Written, path: Path, say: Callable[[str], None], seconds: float = FILE_SECONDS) -> Iterator[None]:
    """Write the file every so often and at the end, each time in one instant; what fails is said once."""
    ended = threading.Event()
    failed = False

    def write() -> None:
        nonlocal failed
        try:
            os.makedirs(path.parent, exist_ok=True)
            with _alone(path.parent):  # a run and a training keep what the other has written
                write_to_textfile(str(path), metrics.registry)
        except OSError as error:
            if not failed:
                say(f"the metrics file {path} cannot be written: {error}; look at metrics.file")
            failed = True

    def go_on() -> None:
        while not ended.wait(seconds):
            write()

    metrics.go_on(path)
    writer = threading.Thread(target=go_on, name="metrics", daemon=True)
    writer.start()
    try:
        yield
    finally:
        ended.set()
        writer.join(5.0)
        write()
