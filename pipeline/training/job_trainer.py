"""Trains a job of the bucket in this process: a solver's loop behind the `Trainer` of an attempt.

It has a local folder, which holds what it reads and writes on the way and nothing that is missed afterwards.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import Diverged, FormatError
from pipeline.ledger.trainings import JobFile, JobSpec
from pipeline.nets.caffe.writing import replacing
from pipeline.training import divergence, snapshot, solver
from pipeline.training.assembly import How, Nets, assemble, examine, refuse_fed
from pipeline.training.data.reach import NOWHERE, Reach
from pipeline.training.draws.draws import draws
from pipeline.training.engine.starting import cpu_name, engine_name
from pipeline.training.engine.starting import start as start_engine
from pipeline.training.job import OWN_SEED, tell_rounding, warn
from pipeline.training.log import Log
from pipeline.training.loop import Training
from pipeline.training.metrics import Metrics
from pipeline.training.out_of_memory import enough_memory
from pipeline.training.predictions.file import name_of as predictions_of
from pipeline.training.requests import Action, Requests
from pipeline.training.resuming import Beginning, go_on
from pipeline.training.sharing.shards import cut
from pipeline.training.snapshot import ByFolder, Position
from pipeline.training.solver import Flags, SnapshotPlan, Solver
from pipeline.training.specification import in_folder
from pipeline.training.surroundings import Ending, Shown, Surroundings
from pipeline.training.trainer import Computed, Done, Hopeless, Left, Made, Start

POSITION = "position.json"
"""Of a snapshot: its manifest without the one before it, so that the way here does not show in its bits."""


@dataclass(frozen=True)
class Aids:
    """What a trainer has of its host.

    fetch: writes a file of the spec to a local path.  write: takes Caffe's lines.  show: hears of each iteration.
    kept: where the batch that made a training diverge is kept.  row, saved: hear of rows of metrics and of snapshots.
    reach: of data in lakes and buckets.
    """

    fetch: Callable[[JobFile, Path], None]
    write: Callable[[str], None] = lambda line: None
    show: Callable[[Solver, Shown], None] = lambda read, shown: None
    kept: Callable[[str], Path] = Path
    data_threads: int = 2
    row: Callable[[dict[str, Any]], None] = lambda row: None
    saved: Callable[[int], None] = lambda iteration: None
    reach: Reach = NOWHERE


class _Asked(Requests):
    """What the attempt asks for: to go on, or to leave."""

    def __init__(self) -> None:
        super().__init__(Action.NONE, Action.NONE, None, time.monotonic)
        self.wanted: Callable[[], bool] = lambda: True

    def leaving(self) -> bool:
        if not self.why and not self.wanted():
            self.why = "it is asked to end"
        return bool(self.why)


@dataclass(frozen=True)
class _Live:
    training: Training
    nets: Nets
    places: ByFolder


class JobTrainer:
    """A `Trainer`.  folder: an absolute path, of its own."""

    def __init__(self, spec: JobSpec, folder: Path, aids: Aids) -> None:
        self._spec, self._folder, self._aids = spec, folder, aids
        self._rows: list[dict[str, Any]] = []
        self._asked = _Asked()
        self._live: _Live | None = None
        self._given = 0
        self._unread: Nets | None = None
        """Whose examples are to be read before the first iteration."""
        self._held = contextlib.ExitStack()

    def begin(self, start: Start | None) -> None:
        self.close()
        spec = self._spec
        shutil.rmtree(self._folder, ignore_errors=True)
        (self._folder / "snapshots").mkdir(parents=True)
        start_engine(spec.threads)
        self._held.enter_context(in_folder(Path(spec.folder)))
        read = self._read()
        places = ByFolder(self._folder / "snapshots", read.snapshots.hdf5)
        log = Log(self._aids.write)
        with enough_memory():
            nets = assemble(read, draws(read.seed, OWN_SEED), _how(spec),
                            lambda says: log("net.cpp:744", says), lambda says: warn(log, says))  # fmt: skip
        self._held.callback(nets.close)
        refuse_fed(nets)
        for says in divergence.unmoved(read.policy, nets.train.network.learned):
            log("solver.cpp:102", says, "W")
        self._unread = nets if start is None else None
        self._rows = []
        metrics = Metrics(self._folder / "metrics.jsonl", self._row)
        around = Surroundings(
            log, metrics, self._asked, places, str(spec.name()), time.time, time.monotonic,
            lambda shown: self._aids.show(read, shown), self._aids.data_threads, self._aids.kept,
            lambda number: self._folder / predictions_of(number), self._aids.saved,
        )  # fmt: skip
        training = Training(read, nets, around)
        self._held.callback(training.close)
        if start is None:
            training.begin(Position())
        else:
            found = self._put_back(start, places)
            go_on(training, nets, read, Beginning(found, None, places), log)
        if _how(spec).rounds:
            tell_rounding(training, log)
        self._given = training.iteration
        self._live = _Live(training, nets, places)

    def next(self, wanted: Callable[[], bool]) -> Made | Done | Hopeless | Left:
        assert self._live is not None
        self._asked.wanted = wanted
        unread, self._unread = self._unread, None
        if unread is not None:
            examine(unread, self._aids.data_threads, lambda: not wanted())
            if not wanted():
                return Left()
        try:
            with enough_memory():
                return self._next(self._live.training)
        except Diverged as error:
            return Hopeless(self._live.training.iteration, str(error), _computed(), self._predictions())

    def close(self) -> None:
        self._live = None
        self._held.close()

    def _read(self) -> Solver:
        """The solver as the spec has it, with snapshots as the chain wants them."""
        spec = self._spec
        path = self._folder / "solver.prototxt"
        path.write_text(spec.solver)
        weights = []
        for number, file in enumerate(spec.weights):
            weights.append(self._folder / f"{number}-{file.name}")
            self._aids.fetch(file, weights[-1])
        read = solver.read(path, Flags(spec.level, spec.stages, None, spec.seed))
        plan = SnapshotPlan(spec.every, str(self._folder / "net"), read.snapshots.hdf5, read.snapshots.diff, True)
        return cut(replace(read, weights=tuple(weights), snapshots=plan, reach=self._aids.reach), spec.shards)

    def _put_back(self, start: Start, places: ByFolder) -> snapshot.Whole:
        """Raises NotFound, Damaged; FormatError where the files are no snapshot of a training."""
        at = start.iteration
        files = {places.model(at).name: places.model(at), places.state(at).name: places.state(at)}
        places.model(at).parent.mkdir()
        for name, path in files.items():
            start.save(name, path)
        places.manifest(at).write_bytes(start.content(POSITION))
        found = snapshot.whole(places, at)
        if found is None or found.position.iteration != at:
            says = f"the snapshot of iteration {at} of {self._spec.name()} is not whole"
            raise FormatError(says, f"{POSITION} does not fit {', '.join(files)}", "this is a bug: please report it")
        return found

    def _next(self, training: Training) -> Made | Done | Left:
        spec = self._spec
        if training.iteration < spec.max_iter:
            to = min(spec.max_iter, (training.iteration // spec.every + 1) * spec.every)
            asked = training.step(to - training.iteration, resumed=training.iteration > 0)
            at = training.iteration
            if spec.due(at) and at != self._given:
                return self._made(at % spec.every == 0)
            if asked is Action.LEAVE:
                return Left(self._made(False) if at and at != self._given else None)
        if training.finish() is Ending.LEFT:
            return Left()
        return Done(self._taken(None), _computed(), self._predictions())

    def _row(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._aids.row(row)

    def _predictions(self) -> dict[str, Path]:
        """Those of the last test of each test net, as far as one was made here, by name."""
        assert self._live is not None
        self._live.training.written()
        paths = [self._folder / predictions_of(number) for number in range(len(self._live.nets.tests))]
        return {path.name: path for path in paths if path.exists()}

    def _made(self, begun: bool) -> Made:
        """The snapshot of this iteration.  begun: the loop has taken it."""
        assert self._live is not None
        training, places = self._live.training, self._live.places
        if not begun:
            training.snapshot()
        training.written()
        at = self._given = training.iteration
        body = json.loads(places.manifest(at).read_bytes())
        position = self._folder / POSITION
        with replacing(position) as file:
            file.write(json.dumps({**body, "parent": None}, sort_keys=True).encode() + b"\n")
        model, state = places.model(at), places.state(at)
        return Made(at, {model.name: model, state.name: state, POSITION: position}, self._taken(at))

    def _taken(self, before: int | None) -> tuple[str, ...]:
        """The rows since the last call; of a test that is not at its end none.  before: this iteration."""
        taken, self._rows[:] = list(self._rows), []
        return tuple(json.dumps(row) for row in taken if before is None or row["step"] < before)


def _how(spec: JobSpec) -> How:
    return How(spec.threads, spec.exact, spec.as_caffe, spec.precision, "none", spec.shards)


def _computed() -> Computed:
    return Computed(engine_name(), cpu_name())
