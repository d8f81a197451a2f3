"""What a training will take, and what speaks against it, before anything is computed: without the engine."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import NetError, PipelineError, SolverError
from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.nets.graph.lowered import Shape
from pipeline.nets.graph.plan import Place
from pipeline.training import solver, specification, updates, weights
from pipeline.training.assembly import How, fed_by_a_program
from pipeline.training.engine.learned import learned_blobs
from pipeline.training.engine.memory import HAS_CAFFES, Memories, refusal
from pipeline.training.engine.needs import LayerNeeds, needs, refuse_no_loss, without_gradient
from pipeline.training.job import Wanted
from pipeline.training.setting_up import planned
from pipeline.training.solver import NetText, Solver
from pipeline.training.specification import Specification

FLOAT = 4
"""Bytes of a number."""
_LAYER = re.compile(r"layer '([^']*)'")


@dataclass(frozen=True, slots=True)
class LayerPrice:
    """parameters: learned numbers that no layer before has.  activations: numbers of its tops, of one batch.

    multiply_adds: of one forward pass.  backward: of one backward pass, of what the training needs of it.
    """

    name: str
    type: str
    parameters: int
    activations: int
    multiply_adds: int
    backward: int


@dataclass(frozen=True, slots=True)
class NetPrice:
    """A net in one phase: the sums of its layers."""

    name: str
    phase: str
    parameters: int
    activations: int
    multiply_adds: int
    backward: int
    layers: tuple[LayerPrice, ...]


@dataclass(frozen=True, slots=True)
class Bytes:
    """What a training holds in memory, at least; the engine's own workspace comes on top.

    weights, gradients, history: of all learned numbers.  activations: of the largest of the nets.  snapshot: on disk.
    """

    weights: int
    gradients: int
    history: int
    activations: int
    snapshot: int

    @property
    def memory(self) -> int:
        return self.weights + self.gradients + self.history + self.activations


@dataclass(frozen=True, slots=True)
class Refusal:
    """What speaks against the training.  layer: its name; "" where it is no layer's."""

    layer: str
    says: str
    detail: str
    hint: str


@dataclass(frozen=True, slots=True)
class Price:
    """iterations: of the whole training.  examples: of one iteration; 0 where no data layer says it.

    multiply_adds: of one iteration, forward and backward, without its tests.
    """

    iterations: int
    examples: int
    parameters: int
    activations: int
    multiply_adds: int
    bytes: Bytes
    train: NetPrice
    tests: tuple[NetPrice, ...]
    refused: tuple[Refusal, ...]

    def as_json(self) -> dict[str, Any]:
        """The same as values of JSON."""
        found = asdict(self)
        found["bytes"]["memory"] = self.bytes.memory
        return found


def check(spec: Path) -> Price:
    """The price of the specification at `spec`, as `python -m pipeline.training run` takes it.

    It reads texts, and of data what says its shape.  Raises SolverError and NetError for a specification, a solver or
    a net's text that cannot be read; everything that speaks against a layer stands in `refused`.
    """
    read = specification.read(spec)
    with specification.in_folder(read.folder):
        return _price(read, solver.read(read.wanted.solver, read.wanted.flags))


def of(read: Solver, how: How) -> Price:
    """The price of a solver that is read already; paths are relative to the current folder."""
    return _price(Specification(Wanted(read.path, how=how), Path(), None), read)


def _price(read: Specification, wanted: Solver) -> Price:
    refused: dict[Refusal, None] = {}
    train, examples = _net(wanted.net, read, wanted, refused, True)
    tests = tuple(_net(one.net, read, wanted, refused, False)[0] for one in wanted.tests.nets)
    size = FLOAT * train.parameters
    history = updates.histories(wanted.update, 1) * size
    largest = max(one.activations for one in (train, *tests))
    until = read.wanted.until
    return Price(
        wanted.max_iter if until is None else min(until, wanted.max_iter),
        examples * wanted.update.iter_size,
        train.parameters,
        train.activations,
        (train.multiply_adds + train.backward) * wanted.update.iter_size,
        Bytes(size, size, history, FLOAT * largest, size + history),
        train,
        tests,
        tuple(refused),
    )


def _net(
    net: NetText, read: Specification, wanted: Solver, refused: dict[Refusal, None], trains: bool
) -> tuple[NetPrice, int]:
    """The net's price, and the examples of one of its batches; what speaks against it is added to `refused`."""
    made, errors = planned(net, lambda says: None)
    try:
        graph = made.graph
        failed = {_named(error) for error in errors}
        faults = [error for step, error in sorted(graph.plan.faults.items())
                  if graph.plan.steps[step].layer.name not in failed]  # fmt: skip
        errors = [*errors, *faults]
        layers: list[LayerNeeds] = []
        if not errors:
            try:
                layers = needs(graph, trains and net.text.force_backward)
                errors = list(_speaks_against(graph, layers, read, wanted if trains else None))
            except (NetError, SolverError) as error:
                errors = [error]
        refused.update(dict.fromkeys(Refusal(_named(one), one.message, one.detail, one.hint) for one in errors))
        examples = next((shape[0] for one in made.sources for shape in one.shapes.values() if shape), 0)
        return _sum(graph, net, {one.step: one for one in layers} if trains else {}), examples
    finally:
        made.close()


def _speaks_against(
    graph: CaffeGraph, layers: list[LayerNeeds], read: Specification, trains: Solver | None
) -> Iterator[PipelineError]:
    """trains: the solver, of the net that learns."""
    yield from fed_by_a_program(graph)
    learned_blobs(graph)
    if trains is None:
        return
    yield from without_gradient(graph, layers)
    memories = Memories(graph.plan)
    for one in layers:
        if one.step >= 0 and one.backward:
            over = memories.overwritten(one.step)
            has = one.spec.type in HAS_CAFFES
            if (over.bottoms or over.tops) and not (has and read.wanted.how.as_caffe):
                yield refusal(graph.plan, one.step, over, has)
    refuse_no_loss(graph, layers)
    for path in trains.weights if read.wanted.snapshot is None else ():
        next(weights.taken(path, graph, lambda says: None), None)


def _named(error: PipelineError) -> str:
    """The layer that a message names first."""
    found = _LAYER.search(error.message) or _LAYER.search(error.detail)
    return found[1] if found else ""


def _sum(graph: CaffeGraph, net: NetText, layers: Mapping[int, LayerNeeds]) -> NetPrice:
    rows = tuple(_layer(graph, number, layers.get(number)) for number in range(len(graph.plan.steps)))
    return NetPrice(
        net.name, "TRAIN" if graph.train else "TEST", sum(row.parameters for row in rows),
        sum(row.activations for row in rows), sum(row.multiply_adds for row in rows),
        sum(row.backward for row in rows), rows,
    )  # fmt: skip


def _layer(graph: CaffeGraph, number: int, one: LayerNeeds | None) -> LayerPrice:
    step = graph.plan.steps[number]
    layer, shapes = step.layer, graph.declared
    tops: list[Shape] = [shapes[place] for top in range(len(layer.spec.top)) if (place := Place(number, top)) in shapes]
    bottoms = [shapes[read.view] for read in step.reads if read.view in shapes]
    own = [slot for slot in graph.parameters.slots(number) if graph.parameters.owners[slot] == slot]
    known = number not in graph.plan.faults and len(tops) == len(layer.spec.top) and len(bottoms) == len(step.reads)
    cost = layer.multiply_adds(bottoms, tops) if known else 0
    ways = 0 if one is None or not one.backward else int(any(one.parameters)) + int(any(one.bottoms))
    return LayerPrice(
        layer.name, layer.spec.type, sum(math.prod(graph.parameters.shapes[slot]) for slot in own),
        0 if layer.is_shared() else sum(map(math.prod, tops)), cost, ways * cost,
    )  # fmt: skip
