"""compute and aggregate of a run by several workers: what they are told, and what their words come to."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pipeline.amounts import counted
from pipeline.cli.output.summary import summary_of
from pipeline.cli.output.table import Totals
from pipeline.cluster.worker_pool import Heard, Pool, Slot, Worker, WorkerFailed, devices, portion, slots, strike
from pipeline.errors import NetError, PipelineError
from pipeline.extraction.same_net import same_net
from pipeline.ledger.protocol import Context
from pipeline.ledger.row_counts import RowCounts
from pipeline.process import logs
from pipeline.process.channel import Message
from pipeline.process.child import Ended, python_of
from pipeline.process.kernel import killed_for_memory
from pipeline.settings import Settings, travelling
from pipeline.stage_names import ON_THE_BOX
from pipeline.stages.tally import Tally

LESS_MEMORY = "its batches are tried again; if memory ran out, lower compute.workers or compute.open_bytes"


def slots_of(settings: Settings) -> list[Slot]:
    """A slot for each worker of a run; where there is one only, the run's own process computes."""
    wanted = settings.compute.workers
    gpus = devices(os.environ) if wanted != 1 else ()
    return slots(wanted, gpus, sorted(os.sched_getaffinity(0)))


class PooledStages:
    """The stages of a run that its workers take, within each of its rounds."""

    def __init__(
        self, settings: Settings, stages: Sequence[str], program: str, places: Sequence[Slot], where: Sequence[Context]
    ) -> None:
        """stages: of the run.  places: two or more."""
        self.stages = [stage for stage in stages if stage in ON_THE_BOX]
        self._settings = settings
        self._program = program
        self._places = places
        self._where = {context.lake_name: context for context in where}
        self._tallies: dict[tuple[str, str], dict[int, Tally]] = {}
        self._loaded: dict[str, str] = {}
        """The fingerprint under which this run computes each set: that of the worker that loaded it first."""
        self._say = logs.log("compute").warning

    def work(self, totals: Totals, seconds: float, stopping: Callable[[], bool], noted: Callable[[], None]) -> bool:
        """Have them work off what is open; whether anything was done.  seconds: what is left of the run.

        Raises WorkerFailed.
        """
        mine = portion(self._settings, len(self._places), seconds)

        def begin(slot: Slot, heard: Heard) -> Worker:
            instructions = instructions_for(slot, mine, self.stages, self._program, self._loaded)
            return Worker(slot, python_of("pipeline.cli.worker"), instructions, heard)

        self._tallies.clear()
        try:
            Pool(self._places, begin, self._hear, self._lost, self._say).work(stopping, noted)
        finally:
            worked = self._sum_up(totals)
        return worked

    def _hear(self, worker: Worker, tells: Message) -> None:
        if "progress" in tells:
            next(iter(self._where.values())).progress(*tells["progress"])
        elif "estop" in tells:
            lake, key = tells["estop"]
            self._where[lake].engage(key)
        elif "loaded" in tells:
            self._agree(worker, *tells["loaded"])
        else:
            mine = self._tallies.setdefault((tells["lake"], tells["stage"]), {})
            mine.setdefault(worker.pid, Tally()).add(tally_of(tells["tally"]))

    def _agree(self, worker: Worker, name: str, fingerprint: str) -> None:
        """Workers that load a set at the same time may load two nets: the later one ends, and the run says so."""
        try:
            same_net(name, self._loaded.setdefault(name, fingerprint), fingerprint)
        except NetError as error:
            worker.failed = WorkerFailed(error.message, error.detail, error.hint, error.exit_code)
            worker.end()

    def _lost(self, worker: Worker, end: Ended) -> None:
        struck, cause = 0, f"its worker {end.how}"
        if worker.name:
            for context in self._where.values():
                try:
                    struck += strike(context, worker.name, cause)
                except PipelineError as error:
                    self._say("could not write the strikes of worker %s: %s", worker.name, error)
        text = f"worker {worker.slot.number} (process {worker.pid}) {end.story}"
        text += f"; a strike against {counted(struck, 'batch', 'batches')}"
        if end.code == -signal.SIGKILL and not end.late:
            text += f" | {killed_for_memory(worker.pid)} | {LESS_MEMORY}"
        self._say("%s", text)

    def _sum_up(self, totals: Totals) -> bool:
        """What all of them did in the time of the longest: one Summary line for each lake and stage."""
        worked = False
        for (lake, stage), parts in sorted(self._tallies.items(), key=lambda item: self.stages.index(item[0][1])):
            whole = Tally()
            for part in parts.values():
                whole.add(part)
            whole.seconds = max(part.seconds for part in parts.values())
            totals.add(stage, whole)
            totals.meter.add(lake, stage, whole)
            worked = worked or whole.worked
            if whole.worked:
                logs.log(stage).info("%s", summary_of(stage, whole, self._where[lake].settings, lake))
        return worked


def instructions_for(
    slot: Slot, settings: Settings, stages: Sequence[str], program: str, loaded: Mapping[str, str] | None = None
) -> Message:
    """What a worker is told first.  It goes by a socket alone, since the secrets are in it.

    loaded: the fingerprints of the sets that other workers of the run have loaded.
    """
    place = {"number": slot.number, "cores": slot.cores, "loaded": dict(loaded or {})}
    return {"settings": travelling(settings), "stages": list(stages), "program": program, **place}


def as_told(tally: Tally) -> dict[str, Any]:
    """A tally as JSON carries it."""
    values = asdict(tally)
    return {**values, "partners": sorted(tally.partners), "shipments": sorted(tally.shipments)}


def tally_of(told: Mapping[str, Any]) -> Tally:
    """The tally that a worker told."""
    sets = {name: set(told[name]) for name in ("partners", "shipments")}
    return Tally(**{**told, **sets, "counts": RowCounts(**told["counts"])})


def _add(sums: Tally, more: Tally) -> None:
    one = Totals(stages={"": sums})
    one.add("", more)
