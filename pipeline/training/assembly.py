"""Puts a solver's nets together: data layers, first weights and live nets, in Caffe's order of draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.codec import caffe_pb2
from pipeline.codec.caffe_blobs import values_of
from pipeline.errors import SolverError
from pipeline.nets.caffe.upgrade import upgrade
from pipeline.nets.graph import caffe_graph, rules
from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.nets.graph.lowered import Shape, Slot
from pipeline.training import weights
from pipeline.training.data.checking import check
from pipeline.training.data.make import is_data, make
from pipeline.training.data.source import Labels, Source
from pipeline.training.draws.draws import Draws
from pipeline.training.network import Network
from pipeline.training.solver import NetText, Solver

Array = NDArray[np.float32]
Say = Callable[[str], None]
_DRAWN_IN_THE_NET = "DummyData"
"""Its values are drawn as the net runs: it takes nothing from outside."""


@dataclass(frozen=True, slots=True)
class How:
    """How a training is computed.

    threads: of the engine; 0: all cores, with `exact` one.  exact: convolution in Caffe's order of sums.
    as_caffe: wrong gradients of Caffe's are computed where it computes them, else such nets are refused.
    """

    threads: int = 0
    exact: bool = False
    as_caffe: bool = False


@dataclass(frozen=True)
class Live:
    """A net in one phase, with its data layers."""

    graph: CaffeGraph
    network: Network
    sources: Sequence[Source] = field(default=())

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


def assemble(solver: Solver, draws: Draws, how: How, say: Say, warn: Say) -> Nets:
    """The solver's nets with their first weights: of fillers, then of the solver's weights files.

    say: hears the lines that Caffe logs.  Raises SolverError, NetError and FormatError for what cannot be trained.
    """
    from pipeline.training.engine import building
    from pipeline.training.engine.learned import shared
    from pipeline.training.engine.needs import needs

    arithmetic = replace(building.CPU, exact=how.exact)
    graph, sources = graph_of(solver.net, draws, warn)
    wanted = building.Wanted(solver.net.text.force_backward, how.as_caffe)
    network = building.build(graph, arithmetic, wanted, filled(graph, draws))
    _load(solver, graph, network, None, say)
    train = Live(graph, network, sources)
    if not any(any(one.weights) for one in needs(graph, False)):
        raise SolverError(f"the net {graph.name} has no loss", "no layer has a loss_weight in phase TRAIN",
                          "add a loss layer, e.g. SoftmaxWithLoss")  # fmt: skip
    tests = []
    for test in solver.tests.nets:
        graph, sources = graph_of(test.net, draws, warn)
        own = building.build_test(graph, network, filled(graph, draws))
        _load(solver, graph, own, graph.parameters.owners.keys() - shared(graph, train.graph).keys(), say)
        tests.append(Live(graph, own, sources))
    return Nets(train, tuple(tests), draws)


def examine(nets: Nets, threads: int) -> None:
    """Reads every example once.  Raises FormatError for those that cannot be used, by key."""
    seen: set[str] = set()
    for net in nets.all():
        labels = {top: one for step in net.graph.plan.steps for top, one in _labels(net.graph, step)}
        check(net.sources, labels, threads)
        seen.update(source.layer for source in net.sources)


def graph_of(net: NetText, draws: Draws, warn: Say) -> tuple[CaffeGraph, list[Source]]:
    """A net's graph and its data layers, which take their seeds.  Paths are relative to the current folder."""
    specs = rules.keep(upgrade(net.text, lambda says: None), net.state)
    train = net.state.phase == caffe_pb2.TRAIN
    folder = Path()
    sources = [
        make(spec, train, draws, folder) for spec in specs if is_data(spec.type) and spec.type != _DRAWN_IN_THE_NET
    ]
    fed: dict[str, Shape] = {top: shape for source in sources for top, shape in source.shapes.items()}
    graph = caffe_graph.build(
        caffe_graph.NetText(net.text, net.source.split(": ")[-1]), None, net.state, None, warn, fed
    )
    return graph, sources


def filled(graph: CaffeGraph, draws: Draws) -> dict[Slot, Array]:
    """First values by owner.  Every layer's fillers draw, of shared blobs too; none of blobs that stand in the text."""
    learned, found = graph.parameters, {}
    for slot, shape in learned.shapes.items():
        if slot in learned.inline:
            values = values_of(learned.inline[slot]).reshape(shape)
        else:
            layer = graph.plan.steps[slot.step].layer.name
            values = draws.filler(learned.fillers[slot], shape, layer, slot.blob)
        if learned.owners[slot] == slot:
            found[slot] = values
    return found


def _load(solver: Solver, graph: CaffeGraph, network: Network, only: Set[Slot] | None, say: Say) -> None:
    for path in solver.weights:
        say(f"Finetuning from {path}")
        for slot, values in weights.taken(path, graph, say):
            if only is None or slot in only:
                network.load(slot, values)


def _labels(graph: CaffeGraph, step: object) -> Iterator[tuple[str, Labels]]:
    """What the net takes as labels: SoftmaxWithLoss has its classes and, maybe, an ignored label."""
    spec = step.layer.spec  # type: ignore[attr-defined]
    if spec.type == "SoftmaxWithLoss" and len(spec.bottom) > 1:
        shape = graph.declared.get(step.reads[0].view, ())  # type: ignore[attr-defined]
        axis = spec.softmax_param.axis
        if -len(shape) <= axis < len(shape):
            ignored = spec.loss_param.ignore_label if spec.loss_param.HasField("ignore_label") else None
            yield spec.bottom[1], Labels(shape[axis], ignored)
