"""A Caffe net without an engine: its layers and who reads what, its learned blobs, the operations of each of its blobs.

`CaffeNet` runs one; a trainer takes one for each phase.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from pipeline.codec import caffe_pb2
from pipeline.errors import NetError
from pipeline.nets.caffe import caffemodel, prototxt
from pipeline.nets.caffe.upgrade import upgrade
from pipeline.nets.graph import parameters, plan, rules
from pipeline.nets.graph.lowered import Lowered, Shape, Slot, Value
from pipeline.nets.graph.parameters import Parameters
from pipeline.nets.graph.plan import Place, Plan, Read
from pipeline.nets.layers import Layer, State, make
from pipeline.nets.layers.inputs import Fed, Source
from pipeline.nets.layers.registry import DATA, NEED_FILES, Refused
from pipeline.nets.layers.selecting import Filter

Warn = Callable[[str], None]
Lowering = Callable[[Lowered, int, Sequence[Value], Sequence[Value]], list[Value]]
"""Lowers a step: the graph, the step's number, its bottoms and its learned blobs -> its tops."""


@dataclass(frozen=True)
class CaffeGraph:
    """plan: who reads what.  parameters: its learned blobs, and where their values come from.

    train: its phase is TRAIN.  declared: the shapes of all tops for the inputs that the net declares.  default: the
    blobs that are asked for where none is named.
    """

    name: str
    train: bool
    plan: Plan
    parameters: Parameters
    declared: Mapping[Place, Shape]
    default: tuple[str, ...]

    @cached_property
    def inputs(self) -> dict[str, Shape]:
        """The declared shape of each input."""
        return {name: self.declared[place] for name, place in self.plan.inputs.items() if place in self.declared}

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """The shape of each blob for the declared inputs, as far as it is known."""
        return {name: self.declared[read.view] for name, read in self.plan.blobs.items() if read.view in self.declared}

    def reads(self, blobs: Iterable[str]) -> dict[str, Read]:
        """Raises NetError for a blob that the net lacks."""
        return {name: self.plan.read(name) for name in blobs}

    def lower(
        self,
        blobs: Sequence[str] | None = None,
        shapes: Mapping[str, Shape] | None = None,
        counts: Mapping[str, int] | None = None,
    ) -> Lowered:
        """The operations that compute `blobs` (the default ones), as the layers give them; learned blobs are values.

        shapes: of inputs, where they are others than declared.  counts: how many items each Filter layer selects.
        Raises NetError where the blobs cannot be computed, or not for these shapes.
        """
        return self.lowered(self.reads(self.default if blobs is None else blobs), {**self.inputs, **(shapes or {})},
                            counts or {})  # fmt: skip

    def lowered(
        self,
        reads: Mapping[str, Read],
        given: Mapping[str, Shape],
        counts: Mapping[str, int],
        by: Lowering | None = None,
    ) -> Lowered:
        """As `lower`, of what is read, with the shape of every input that it depends on.

        by: another way to lower a step than its layer's own; then every step of the net is lowered, read or not.
        """
        steps = self.plan.computable(reads.values()) if by is None else set(range(len(self.plan.steps)))
        self.plan.demand(steps)
        shapes = self.shapes_of(steps, given, counts)
        graph = Lowered()
        values: dict[Place, Value] = {}
        for number in sorted(steps):
            step = self.plan.steps[number]
            if isinstance(step.layer, Source):
                for top, name in enumerate(step.layer.spec.top):
                    values[Place(number, top)] = graph.input(name, shapes[Place(number, top)])
            elif not step.layer.is_shared():
                before = len(graph.operations)
                bottoms = [graph.reshape(values[read.version], shapes[read.view]) for read in step.reads]
                for top, value in enumerate(self._tops(graph, number, bottoms, shapes, by)):
                    assert value.shape == shapes[Place(number, top)], (step.layer, value, shapes[Place(number, top)])
                    values[Place(number, top)] = Value(value.name, value.shape)
                label = f"layer '{step.layer.name}' ({step.layer.spec.type})"
                graph.layers.update((name, label) for one in graph.operations[before:] for name in one.outputs)
        for name, read in reads.items():
            graph.outputs[name] = graph.reshape(values[read.version], shapes[read.view])
        return graph

    def _tops(
        self,
        graph: Lowered,
        number: int,
        bottoms: Sequence[Value],
        shapes: Mapping[Place, Shape],
        by: Lowering | None,
    ) -> list[Value]:
        layer = self.plan.steps[number].layer
        learned = [
            graph.reshape(graph.weight(self.parameters.learned(slot, self.plan)), self.parameters.shapes[slot])
            for slot in self.parameters.slots(number)
        ]
        if by is not None:
            return by(graph, number, bottoms, learned)
        if isinstance(layer, Filter):
            return layer.lower_counted(graph, bottoms, shapes[Place(number, 0)][0])
        return layer.lower(graph, bottoms, learned)

    def shapes_of(self, steps: set[int], given: Mapping[str, Shape], counts: Mapping[str, int]) -> dict[Place, Shape]:
        """The shape of each top of the steps.  Raises NetError: another input size may call for other weights."""
        shapes = self.plan.shapes(given, steps, counts)
        for number in sorted(steps):
            step = self.plan.steps[number]
            for index, parameter in enumerate(step.layer.parameters([shapes[read.view] for read in step.reads])):
                has = self.parameters.shapes[Slot(number, index)]
                if parameter.shape != has:
                    raise step.layer.refuse(
                        f"with this input, param {index} would have the shape {parameter.shape}; the net's is {has}",
                        "feed the net its declared size, or ask for a blob before this layer",
                    )
        return shapes

    def by_item(self, reads: Mapping[str, Read], given: Mapping[str, Shape]) -> bool:
        """Each image's values are its own: then a batch may be padded, or go through in parts."""
        batches = {shape[:1] for shape in given.values()}
        if len(batches) != 1 or () in batches:
            return False
        steps = self.plan.needed(reads.values())
        shapes = self.plan.shapes(given, steps)
        if any(shapes[read.view][:1] not in batches for read in reads.values()):
            return False
        return all(
            self.plan.steps[number].layer.by_item([shapes[read.view] for read in self.plan.steps[number].reads])
            for number in steps
        )


def read(
    path: Path, weights: Path | None, state: caffe_pb2.NetState, blobs: Sequence[str] | None, warn: Warn
) -> CaffeGraph:
    """The net of a .prototxt; else as `build`."""
    return build(NetText(prototxt.read(path), str(path)), weights, state, blobs, warn)


class NetText(NamedTuple):
    """A net's text; source: where it is from, for messages, and the net's name where it has none."""

    net: caffe_pb2.NetParameter
    source: str


def build(
    text: NetText,
    weights: Path | None,
    state: caffe_pb2.NetState,
    blobs: Sequence[str] | None,
    warn: Warn,
    fed: Mapping[str, Shape] | None = None,
) -> CaffeGraph:
    """The layers that the state includes, checked as far as `blobs` depend on them (None: all).

    weights: a .caffemodel.
    fed: the shape of each top of its data layers (Data, ImageData, ...), by a trainer that has their files.
    Raises NetError for a net, weights or blob that is refused; the layer is named.
    """
    where = caffe_pb2.NetState()
    where.CopyFrom(state)
    where.stage.extend(text.net.state.stage)
    net = upgrade(text.net, warn)
    seen = State(train=where.phase == caffe_pb2.TRAIN, warn=warn)
    made = plan.build([_made(spec, seen, fed) for spec in rules.keep(net, where)])
    if not made.steps:
        raise NetError(
            f"the net {text.source} has no layers",
            "",
            "check that the file is the .prototxt of a net, and that the phase is right",
        )
    default = tuple(blobs) if blobs is not None else tuple(made.outputs)
    wanted = made.needed([made.read(blob) for blob in default])
    needed = wanted if blobs is not None else set(range(len(made.steps)))
    declared = made.declared()
    learned = parameters.collect(made, declared)
    made.demand(needed)
    parameters.match(learned, made, caffemodel.read_index(weights) if weights else None, warn, needed)
    made.demand(needed)
    return CaffeGraph(net.name or Path(text.source).stem, seen.train, made, learned, declared, default)


def _made(spec: caffe_pb2.LayerParameter, where: State, fed: Mapping[str, Shape] | None) -> Layer:
    if fed is not None and spec.type in DATA:
        return Fed(spec, where, fed)
    try:
        return make(spec, where)
    except NetError as error:
        if fed is not None and spec.type in NEED_FILES:
            hint = "remove it, or keep it out of this phase with an include rule: no training has layers of this type"
            error = NetError(error.message, error.detail, hint)
        return Refused(spec, where, error)
