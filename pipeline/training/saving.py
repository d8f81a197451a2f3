"""Writes snapshots while the training goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from pipeline.errors import NetError, TemporaryError
from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.training import divergence, snapshot, updates
from pipeline.training.network import Network
from pipeline.training.snapshot import Array, Content, Owner, Places, Position
from pipeline.training.solver import SnapshotPlan
from pipeline.training.updates import Tensor


class Saver:
    """One snapshot is written at a time; the next one waits for it.  parent: the snapshot before."""

    def __init__(self, plan: SnapshotPlan, graph: CaffeGraph, places: Places, owner: Owner) -> None:
        self._plan, self._graph, self._places, self._owner = plan, graph, places, owner
        self._thread = ThreadPoolExecutor(1, "hathi-snapshot")
        self._pending: Future[None] | None = None
        self._later: Future[None] | None = None
        self._memory: dict[str, list[Array]] = {}
        self.parent: int | None = None

    def lines(self, iteration: int) -> Iterator[tuple[str, str]]:
        """Caffe's words about it."""
        model, state = self._places.model(iteration), self._places.state(iteration)
        kind, where = ("HDF5 file", (474, 296)) if self._plan.hdf5 else ("binary proto file", (464, 284))
        yield f"solver.cpp:{where[0]}", f"Snapshotting to {kind} {model}"
        yield f"sgd_solver.cpp:{where[1]}", f"Snapshotting solver state to {kind} {state}"

    def has(self, iteration: int) -> bool:
        """Whether the snapshot of this iteration was the last one that was asked for, or the one that it began with."""
        return self.parent == iteration

    def save(self, network: Network, history: Sequence[Tensor], position: Position) -> None:
        """Copies what the snapshot holds, for which the training stands still, and begins to write it.

        history: the solver's, as the engine holds it.  Raises Diverged for weights that are not finite, which no
        snapshot holds, and what the writing of the one before raised.
        """
        learned = network.learned
        for one in learned:
            if not updates.finite(network.tensor(one.slot).detach()):
                raise divergence.weights(position.iteration, one)
        self.wait()
        slots = [one.slot for one in learned]
        values = dict(zip(slots, self._copies(network, "values", map(network.tensor, slots)), strict=True))
        diff = None
        if self._plan.diff:
            gradients = self._copies(network, "diffs", map(network.gradient_tensor, slots))
            diff = dict(zip(slots, gradients, strict=True)).__getitem__
        shapes = [one.shape for one in learned] * (len(history) // max(1, len(learned)))
        copies = self._copies(network, "history", history)
        content = Content(self._graph, values.__getitem__, diff, shapes, copies, position)
        parent = self.parent if self.parent != position.iteration else None
        self._pending = self._thread.submit(self._write, content, parent)
        self.parent = position.iteration

    def _copies(self, network: Network, kind: str, tensors: Iterable[Tensor]) -> list[Array]:
        """In the memory of the snapshot before, whose pages are there already: to get new ones takes longer."""
        kept = self._memory.setdefault(kind, [])
        for at, tensor in enumerate(tensors):
            if at == len(kept):
                kept.append(network.array(tensor))
            else:
                network.array(tensor, kept[at])
        return kept

    def _write(self, content: Content, parent: int | None) -> None:
        try:
            snapshot.write(self._places, content, self._owner, parent)
        except (OSError, NetError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if not isinstance(cause, OSError):
                raise
            raise unwritten(f"the snapshot of iteration {content.position.iteration}", cause) from error

    def look(self) -> None:
        """Raises what `wait` would where the snapshot that is being written has failed by now."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def later(self, write: Callable[[], None]) -> None:
        """Something else to be written by the same thread.  Raises what the one before raised."""
        later, self._later = self._later, None
        if later is not None:
            later.result()
        self._later = self._thread.submit(write)

    def wait(self) -> None:
        """Until what was begun is written.

        Raises TemporaryError where the disk does not take it, and NetError for more than the form of a file holds.
        """
        pending, self._pending = self._pending, None
        later, self._later = self._later, None
        for one in (pending, later):
            if one is not None:
                one.result()


def unwritten(what: str, error: OSError) -> TemporaryError:
    """The error of a file that a disk does not take while a training is at work: its last whole snapshot stays."""
    where = f"{error.filename}: " if error.filename else ""
    return TemporaryError(
        f"{what} cannot be written",
        f"{where}{error.strerror or error}",
        "free some space, or give the right to write; the same command goes on from the last whole snapshot",
    )
