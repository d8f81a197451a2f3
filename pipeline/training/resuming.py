"""Where a training begins: at 0, at its own newest snapshot, or at a .solverstate that a person names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SolverError
from pipeline.training import snapshot, updates, weights
from pipeline.training.assembly import Live, Nets
from pipeline.training.log import Log
from pipeline.training.loop import Training
from pipeline.training.snapshot import Places, Position, Whole
from pipeline.training.solver import Solver

_MOMENTUM = {"SGD", "Nesterov"}
"""Whose history is the same thing."""
_NAMED = 5


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
        _say_torn(start.places, start.found.iteration, log)
        goes_on = f"this training goes on at iteration {start.found.iteration}"
        log("caffe.cpp:221", f"Resuming from {start.found.state}: {goes_on}")
        restore(training, nets, read, replace(start, given=start.found.state), log)
    else:
        _say_torn(start.places, 0, log)
        others = [number for number in start.places.iterations() if snapshot.whole(start.places, number) is not None]
        if others:
            there = f"the snapshots that are there (up to iteration {others[0]}) are of another training"
            log("solver.cpp:57", f"{there}: this one begins at 0 and replaces them; --snapshot goes on from one", "W")
        training.begin(Position())


def _say_torn(places: Places, since: int, log: Log) -> None:
    """Names the snapshots after this iteration that nobody can go on from, though their manifests are there."""
    torn = [at for at in places.iterations() if at > since and snapshot.whole(places, at) is None]
    for at in sorted(torn):
        why = "a file is damaged, cut or missing, or another program wrote it"
        log("solver.cpp:57", f"the snapshot of iteration {at} is not what {places.manifest(at)} says: {why}", "W")


def _load(live: Live, model: Path, state: Path, log: Log) -> None:
    """The weights that belong to a state.  Raises SolverError where they lack a learned blob of this net."""
    missing = {one.slot: one for one in live.network.learned}
    for slot, values in weights.trainable(model, live.graph, lambda says: log("net.cpp:744", says)):
        live.network.load(slot, values)
        missing.pop(slot, None)
    if missing:
        names = sorted({one.layer for one in missing.values()})
        raise SolverError(
            f"{state} is of another net",
            f"its weights {model} have nothing for the layers {', '.join(names[:_NAMED])}"
            + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""),
            "resume with the net that wrote it; --weights takes up the weights alone",
        )


def foreign(path: Path, history: Sequence[NDArray[np.float32]], of: str, known: str) -> Iterator[str]:
    """Warnings about a history that may be of another type of solver.  known: the type that wrote it; "" if unknown.

    A mean or sum of squares has no number under 0, and momentum has some.  Raises SolverError for a history that is
    certainly of another type, or holds a number that is not finite.
    """
    hint = "resume with the solver that wrote it; --weights takes up the weights alone"
    for number, values in enumerate(history):
        if not np.isfinite(values).all():
            says = f"history blob {number} holds a number that is not finite"
            raise SolverError(f"{path} is damaged", says, "take an earlier snapshot")
    if known and known != of and {known, of} != _MOMENTUM:
        raise SolverError(f"{path} is of another solver", f"its history is of {known}, not of {of}", hint)
    if known:
        if known != of:
            yield f"{path} is of {known}; its momentum is taken up by {of}"
        return
    begin = {"SGD": len(history), "Nesterov": len(history), "Adam": len(history) // 2}.get(of, 0)
    moving, squares = history[:begin], history[begin:]
    if any((values < 0).any() for values in squares):
        detail = f"its history has numbers under 0; that of {of} has none"
        raise SolverError(f"{path} is of another solver", detail, hint)
    if moving and any(values.any() for values in moving) and all((values >= 0).all() for values in moving):
        yield f"{path} may be of another solver: its momentum has no number under 0, as if it were of squares"


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
    for says in foreign(path, state.history, read.update.type, found.solver if found is not None else ""):
        log("solver.cpp:57", says, "W")
    model = found.model if found is not None else snapshot.learned_net(state, path, lambda says: log(
        "solver.cpp:57", says, "W"))  # fmt: skip
    if model is not None:
        _load(live, model, path, log)
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
