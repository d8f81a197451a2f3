"""Puts a solver's nets together: data layers, first weights and live nets, in Caffe's order of draws."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.errors import FormatError, SolverError
from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.nets.graph.lowered import Shape, Slot
from pipeline.training import weights
from pipeline.training.data.checking import check
from pipeline.training.data.database import Database
from pipeline.training.data.image_list import ImageList
from pipeline.training.data.source import Labels, Source
from pipeline.training.draws.draws import Draws
from pipeline.training.network import Network
from pipeline.training.setting_up import set_up
from pipeline.training.sharing.shards import refuse_coupled
from pipeline.training.solver import Solver

if TYPE_CHECKING:
    from pipeline.training.engine.program import Arithmetic

Say = Callable[[str], None]
PRECISIONS = ("float32", "bf16")
"""Of convolutions and products; weights, their updates and losses are float32 in both."""
_SIZES = 100
"""Sizes of images for which a net's layers are asked before the first iteration."""


@dataclass(frozen=True, slots=True)
class How:
    """How a training is computed.

    threads: of the engine; 0: all cores, with `exact` one.  exact: convolution in Caffe's order of sums.
    as_caffe: wrong gradients of Caffe's are computed where it computes them, else such nets are refused.
    precision: one of PRECISIONS.  gpu: a card's number, "all" or "none"; "": the solver says whether it wants one.
    shards: into which each batch of the training is cut (sharing/shards.py).  local_steps: that a shard trains for
    itself before all are averaged (sharing/rounds.py).
    """

    threads: int = 0
    exact: bool = False
    as_caffe: bool = False
    precision: str = PRECISIONS[0]
    gpu: str = ""
    shards: int = 1
    local_steps: int = 1

    @property
    def card(self) -> str:
        """As `gpu`; gradients of shards are summed on the CPU."""
        return "none" if self.shards > 1 else self.gpu

    @property
    def rounds(self) -> bool:
        """Whether convolutions and products are in bfloat16."""
        return self.precision == PRECISIONS[1]


@dataclass(frozen=True)
class Live:
    """A net in one phase, with its data layers."""

    graph: CaffeGraph
    network: Network
    sources: Sequence[Source] = field(default=())
    reshaped: Callable[[Mapping[str, Shape]], CaffeGraph] | None = None
    """Its graph where data layers have tops of these shapes."""

    def close(self) -> None:
        for source in self.sources:
            source.close()


@dataclass(frozen=True)
class Nets:
    """The net that learns, and those that test what it has learned."""

    train: Live
    tests: tuple[Live, ...]
    draws: Draws

    def all(self) -> tuple[Live, ...]:
        return (self.train, *self.tests)

    def close(self) -> None:
        for net in self.all():
            net.close()


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    """Data that cannot be used are a refusal: nothing was trained, and the same command would say it again."""
    try:
        yield
    except FormatError as error:
        raise SolverError(error.message, error.detail, error.hint) from error


@_refused()
def assemble(solver: Solver, draws: Draws, how: How, say: Say, warn: Say) -> Nets:
    """The solver's nets with their first weights: of fillers, then of the solver's weights files.

    say: hears the lines that Caffe logs.  Raises SolverError and NetError for what cannot be trained.
    """
    from pipeline.training.engine import building
    from pipeline.training.engine.needs import needs, refuse_no_loss

    computed = arithmetic(how, solver.device)
    made = set_up(solver.net, draws, warn, solver.reach)
    graph = made.graph
    wanted = building.Wanted(solver.net.text.force_backward, how.as_caffe)
    network = building.build(graph, computed, wanted, made.values)
    building.reshapes(network, made.reshaped, wanted)
    for slot, values in _taken(solver, graph, say, warn):
        network.load(slot, values)
    if solver.shards > 1:
        refuse_coupled(network)
    train = Live(graph, network, made.sources, made.reshaped)
    refuse_no_loss(graph, needs(graph, False))
    tests = []
    for test in solver.tests.nets:
        made = set_up(test.net, draws, warn, solver.reach)
        own = building.build_test(made.graph, network, made.values | dict(_taken(solver, made.graph, say)))
        building.reshapes(own, made.reshaped)
        tests.append(Live(made.graph, own, made.sources, made.reshaped))
    return Nets(train, tuple(tests), draws)


def arithmetic(how: How, device: int | None) -> Arithmetic:
    """device: the card that a solver asks for.  Raises SolverError for a card that is not there."""
    from pipeline.training.engine.devices import device_of
    from pipeline.training.engine.program import Arithmetic

    return Arithmetic(device_of(how.card, device), exact=how.exact, half=how.rounds)


def examine(nets: Nets, threads: int, ending: Callable[[], bool] = lambda: False) -> None:
    """Reads every example once, or until `ending`.  Raises SolverError for those that cannot be used, by key."""
    seen: set[str] = set()
    for net in nets.all():
        labels = labels_of(net.graph)
        with _refused():
            check(net.sources, labels, threads, ending)
        _demand_any_size(net)
        seen.update(source.layer for source in net.sources)


def _demand_any_size(net: Live) -> None:
    """Raises NetError for images of several sizes in a net that takes one: of one layer; several belong together."""
    from pipeline.training.engine.shaped import demand_same_blobs

    varying = [(source, source.sizes) for source in net.sources if isinstance(source, Database | ImageList)]
    varying = [(source, sizes) for source, sizes in varying if sizes.vary]
    if len(varying) != 1 or net.reshaped is None:
        return
    source, sizes = varying[0]
    top = next(iter(source.shapes))
    for shape in sorted(sizes.seen - {sizes.first})[:_SIZES]:
        demand_same_blobs(net.graph, net.reshaped({top: (1, *shape)}))


def refuse_fed(nets: Nets) -> None:
    """Raises SolverError for a net that no data layer feeds."""
    for net in nets.all():
        for refusal in fed_by_a_program(net.graph):
            raise refusal


def fed_by_a_program(graph: CaffeGraph) -> Iterator[SolverError]:
    """The error of each layer that a program feeds, for whoever has none."""
    for step in graph.plan.steps:
        spec = step.layer.spec
        if spec.type in ("Input", "MemoryData"):
            yield SolverError(
                f"layer '{spec.name}' ({spec.type}) is fed by a program, and this command has none",
                f"of the net {graph.name}",
                "give the net a data layer that reads files: Data, ImageData or HDF5Data",
            )


def _taken(
    solver: Solver, graph: CaffeGraph, say: Say, warn: Say = lambda says: None
) -> Iterator[tuple[Slot, weights.Array]]:
    """What the solver's weights files give to a net.  A test net takes them up before it shares, as in Caffe."""
    for path in solver.weights:
        say(f"Finetuning from {path}")
        yield from weights.trainable(path, graph, say, warn)


def labels_of(graph: CaffeGraph) -> dict[str, Labels]:
    """What a net takes as labels, by top."""
    return {top: one for step in graph.plan.steps for top, one in _labels(graph, step)}


def _labels(graph: CaffeGraph, step: object) -> Iterator[tuple[str, Labels]]:
    """What the net takes as labels: SoftmaxWithLoss has its classes and, maybe, an ignored label."""
    spec = step.layer.spec  # type: ignore[attr-defined]
    if spec.type == "SoftmaxWithLoss" and len(spec.bottom) > 1:
        shape = graph.declared.get(step.reads[0].view, ())  # type: ignore[attr-defined]
        axis = spec.softmax_param.axis
        if -len(shape) <= axis < len(shape):
            ignored = spec.loss_param.ignore_label if spec.loss_param.HasField("ignore_label") else None
            yield spec.bottom[1], Labels(shape[axis], ignored)
