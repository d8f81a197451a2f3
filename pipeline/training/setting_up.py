"""Sets a net up as Caffe does: layer by layer, each with its draws, so that random numbers come in Caffe's order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.codec import caffe_pb2
from pipeline.codec.caffe_blobs import values_of
from pipeline.errors import PipelineError
from pipeline.nets.caffe.upgrade import upgrade
from pipeline.nets.graph import caffe_graph, rules
from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.nets.graph.lowered import Shape, Slot
from pipeline.training.data.make import is_data, make
from pipeline.training.data.reach import NOWHERE, Reach
from pipeline.training.data.source import Source
from pipeline.training.draws.draws import Draws, OurDraws
from pipeline.training.solver import NetText

Array = NDArray[np.float32]
_DRAWN_IN_THE_NET = "DummyData"
"""Its values are drawn as the net runs: it takes nothing from outside."""


@dataclass
class SetUp:
    """A net that is set up: its graph, its data layers, and the first values of its learned blobs by owner, float32."""

    graph: CaffeGraph
    sources: list[Source] = field(default_factory=list)
    values: dict[Slot, Array] = field(default_factory=dict)
    reshaped: Callable[[Mapping[str, Shape]], CaffeGraph] | None = None
    """The same layers where data layers have tops of these shapes.  Raises NetError for a layer that refuses them."""

    def close(self) -> None:
        """Closes the data layers' files."""
        for source in self.sources:
            source.close()


def set_up(net: NetText, draws: Draws, warn: Callable[[str], None], reach: Reach = NOWHERE) -> SetUp:
    """The net with its first values.  Paths are relative to the current folder.  reach: as of `data.make`.

    A data layer takes its seeds as it is set up, any other layer fills its blobs then: a data layer that follows
    layers with fillers draws after them.  Raises NetError, SolverError and FormatError for what cannot be set up.
    """
    specs = rules.keep(upgrade(net.text, lambda says: None), net.state)
    folder = Path()
    fed: dict[str, Shape] = {}
    sources: list[Source] = []
    values: dict[Slot, Array] = {}
    drawn = 0
    try:
        for number, spec in enumerate(specs):
            if not is_data(spec.type) or spec.type == _DRAWN_IN_THE_NET:
                continue
            if any(not is_data(one.type) for one in specs[drawn:number]):
                below = graph_of(net, _first(net, specs[:number]), fed, lambda says: None)
                values |= _filled(below, draws, range(drawn, number))
                drawn = number
            sources.append(make(spec, _trains(net, spec), draws, folder, reach))
            fed.update(sources[-1].shapes)
        graph = graph_of(net, net.text, fed, warn)
        values |= _filled(graph, draws, range(drawn, len(graph.plan.steps)))
        return SetUp(graph, sources, values, lambda shapes: _reshaped(net, {**fed, **shapes}))
    except BaseException:
        for source in sources:
            source.close()
        raise


def planned(net: NetText, warn: Callable[[str], None]) -> tuple[SetUp, list[PipelineError]]:
    """A net and its data layers without first values, however large it is, and what speaks against its layers.

    A layer that cannot be is a fault of the graph's plan, or stands in the list if it is a data layer.
    """
    sources: list[Source] = []
    refused: list[PipelineError] = []
    fed: dict[str, Shape] = {}
    draws = OurDraws(0)
    for spec in rules.keep(upgrade(net.text, lambda says: None), net.state):
        if is_data(spec.type) and spec.type != _DRAWN_IN_THE_NET:
            try:
                sources.append(make(spec, _trains(net, spec), draws, Path()))
                fed.update(sources[-1].shapes)
            except PipelineError as error:
                refused.append(error)
    return SetUp(graph_of(net, net.text, fed, warn, ()), sources), refused


def _trains(net: NetText, spec: caffe_pb2.LayerParameter) -> bool:
    """A layer has the net's phase where it names none: crops are random where it trains."""
    return (spec.phase if spec.HasField("phase") else net.state.phase) == caffe_pb2.TRAIN


def _first(net: NetText, specs: Sequence[caffe_pb2.LayerParameter]) -> caffe_pb2.NetParameter:
    """A net of these layers alone: what stands before a data layer."""
    return caffe_pb2.NetParameter(name=net.name, layer=specs)


def graph_of(
    net: NetText,
    text: caffe_pb2.NetParameter,
    fed: dict[str, Shape],
    warn: Callable[[str], None],
    blobs: Sequence[str] | None = None,
) -> CaffeGraph:
    """The graph of a net whose data layers give these shapes, by top.  blobs: None: what it computes in the end."""
    named = caffe_graph.NetText(text, net.source.split(": ")[-1])
    return caffe_graph.build(named, None, net.state, blobs, warn, fed)


def _reshaped(net: NetText, fed: dict[str, Shape]) -> CaffeGraph:
    """The net whose data layers, Input among them, have tops of these shapes."""
    text = caffe_pb2.NetParameter()
    text.CopyFrom(upgrade(net.text, lambda says: None))
    for layer in text.layer:
        if layer.type == "Input":
            del layer.input_param.shape[:]
            layer.input_param.shape.extend(caffe_pb2.BlobShape(dim=fed[top]) for top in layer.top if top in fed)
    return graph_of(net, text, fed, lambda says: None)


def _filled(graph: CaffeGraph, draws: Draws, steps: range) -> dict[Slot, Array]:
    """First values of these steps' blobs.

    Every layer's fillers draw, of shared blobs too, and as often as Caffe's set-up of the layer has them draw; none of
    blobs that stand in the text.  The owner keeps what was drawn first.
    """
    learned, found = graph.parameters, {}
    for number in steps:
        step = graph.plan.steps[number]
        if not learned.slots(number):
            continue
        order = step.layer.fillings([graph.declared[read.view] for read in step.reads])
        for turn, blob in enumerate(order):
            slot, name = Slot(number, blob), step.layer.name
            if slot in learned.inline:
                values = values_of(learned.inline[slot]).reshape(learned.shapes[slot])
            elif blob in order[:turn]:
                draws.pass_over(learned.fillers[slot], learned.shapes[slot], name, blob)
                continue
            else:
                values = draws.filler(learned.fillers[slot], learned.shapes[slot], name, blob)
            if learned.owners[slot] == slot:
                found[slot] = values
    return found
