"""Where a training begins: at 0, at its own newest snapshot, or at a .solverstate that a person names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import SolverError
from pipeline.training import snapshot, updates, weights
from pipeline.training.assembly import Nets
from pipeline.training.log import Log
from pipeline.training.loop import Training
from pipeline.training.snapshot import Places, Position, Whole
from pipeline.training.solver import Solver


@dataclass(frozen=True)
class Beginning:
    """found: the snapshot to go on from; given: the .solverstate that a person named; places: of all snapshots."""

    found: Whole | None
    given: Path | None
    places: Places

    def position(self, tests: int) -> Position | None:
        """Where that training was; None where nothing says it, or where it had other test nets."""
        known = self.found is not None and len(self.found.position.batches) == 1 + tests
        return self.found.position if self.found is not None and known else None


def go_on(training: Training, nets: Nets, read: Solver, start: Beginning, log: Log) -> None:
    if start.given is not None:
        log("caffe.cpp:221", f"Resuming from {start.given}")
        restore(training, nets, read, replace(start, found=snapshot.beside(start.given)), log)
    elif start.found is not None:
        goes_on = f"this training goes on at iteration {start.found.iteration}"
        log("caffe.cpp:221", f"Resuming from {start.found.state}: {goes_on}")
        restore(training, nets, read, replace(start, given=start.found.state), log)
    else:
        others = [number for number in start.places.iterations() if snapshot.whole(start.places, number) is not None]
        if others:
            there = f"the snapshots that are there (up to iteration {others[0]}) are of another training"
            log("solver.cpp:57", f"{there}: this one begins at 0 and replaces them; --snapshot goes on from one", "W")
        training.begin(Position())


def restore(training: Training, nets: Nets, read: Solver, start: Beginning, log: Log) -> None:
    """Weights, history and, where the snapshot is one of ours, everything else."""
    path, found, places = start.given, start.found, start.places
    assert path is not None
    state = snapshot.read_state(path)
    live = nets.train
    shapes = [one.shape for one in live.network.learned]
    wanted = shapes * (updates.histories(read.update, len(shapes)) // max(1, len(shapes)))
    if len(state.history) != len(wanted):
        raise SolverError(
            f"{path} is of another solver or another net",
            f"it holds {len(state.history)} history blobs; {read.update.type} has {len(wanted)} for this net",
            "resume with the solver and the net that wrote it; --weights takes up the weights alone",
        )
    for number, (has, needs) in enumerate(zip(state.history, wanted, strict=True)):
        if has.shape != needs:
            layer = live.network.learned[number % len(shapes)].layer
            raise SolverError(
                f"{path} is of another net",
                f"history blob {number} has the shape {has.shape}; the layer '{layer}' here has {needs}",
                "resume with the net that wrote it; --weights takes up the weights alone",
            )
    model = found.model if found is not None else snapshot.learned_net(state, path, lambda says: log(
        "solver.cpp:57", says, "W"))  # fmt: skip
    if model is not None:
        for slot, values in weights.taken(model, live.graph, lambda says: log("net.cpp:744", says)):
            live.network.load(slot, values)
    log("sgd_solver.cpp:318", "SGDSolver: restoring history")
    position = start.position(len(nets.tests))
    if position is None:
        position = Position(iteration=state.iteration, step=state.step)
        why = (
            "is of a training with other random numbers" if found else "does not say where data and random numbers were"
        )
        anew = "they begin anew, as Caffe's do: this is not the run that it was"
        log("solver.cpp:57", f"{path} {why}: {anew}", "W")
    parent = state.iteration if found is not None and places.manifest(state.iteration).exists() else None
    training.begin(position, list(state.history), parent)
