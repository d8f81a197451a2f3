"""Builds the live nets of a training: the one that learns, and those that test what it has learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import SolverError
from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.nets.graph.lowered import Shape, Slot
from pipeline.training.engine.backward import OVERWRITTEN, own_backward
from pipeline.training.engine.learned import part, shared
from pipeline.training.engine.memory import Memories, refusal
from pipeline.training.engine.needs import LayerNeeds, needs, refuse_labels, taught
from pipeline.training.engine.net import Array, TorchNetwork
from pipeline.training.engine.program import Arithmetic, Own
from pipeline.training.network import Network

CPU = Arithmetic(torch.device("cpu"))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of a net that trains.

    force_backward: as the net's text has it: every gradient is computed.  as_caffe: where a layer's gradient reads what
    another has overwritten in place, Caffe's wrong gradient; else such a net is refused.
    """

    force_backward: bool = False
    as_caffe: bool = False


def build(
    graph: CaffeGraph,
    how: Arithmetic = CPU,
    wanted: Wanted | None = None,
    values: Mapping[Slot, Array] | None = None,
) -> TorchNetwork:
    """The net that a solver trains.

    values: of its learned blobs by owner; None: of the weights file that the graph was built with, else of its fillers.
    Raises NetError and SolverError for what cannot be trained, by the layer's name.
    """
    wanted = wanted or Wanted()
    if how.exact and how.half:
        raise SolverError("exact and bf16 exclude each other", "bf16 rounds what exact keeps in order", "choose one")
    layers = needs(graph, wanted.force_backward)
    refuse_labels(graph, layers)
    owns = _owns(graph, layers, wanted.as_caffe)
    own = graph.parameters.values(range(len(graph.plan.steps)), graph.plan) if values is None else values
    tensors = {slot: _live(own[slot], how) for slot in dict.fromkeys(graph.parameters.owners.values())}
    for one in layers:
        for blob, has in enumerate(taught(one)):
            if has and one.backward and one.spec.type != "BatchNorm":
                tensors[graph.parameters.owners[Slot(one.step, blob)]].requires_grad_(True)
    return TorchNetwork(graph, how, layers, tensors, owns, wanted.force_backward)


def build_test(graph: CaffeGraph, train: TorchNetwork, values: Mapping[Slot, Array] | None = None) -> TorchNetwork:
    """A net that tests what `train` has learned: layers of one name have the same learned blobs, live.

    values: of the blobs that `train` lacks; else as `build`.
    """
    before = part(graph, train.graph)
    mine = shared(graph, train.graph)
    owners = dict.fromkeys(graph.parameters.owners.values())
    lacking = [slot for slot in owners if slot not in mine]
    if values is None:
        own = graph.parameters.values([slot.step for slot in lacking], graph.plan)
    else:
        own = {slot: values[before.get(slot, slot)] for slot in lacking}
    tensors = {slot: train.tensor(mine[slot]) if slot in mine else _live(own[slot], train.how) for slot in owners}
    return TorchNetwork(graph, train.how, needs(graph, False), tensors, None, False)


def reshapes(
    net: TorchNetwork, reshaped: Callable[[Mapping[str, Shape]], CaffeGraph] | None, wanted: Wanted | None = None
) -> None:
    """Lets a net take batches of other shapes.  reshaped: its graph where data layers have tops of these shapes.

    wanted: as the net was built with; None: it only tests.
    """
    if reshaped is None:
        return

    def make(one: TorchNetwork, shapes: Mapping[str, Shape]) -> TorchNetwork:
        graph = reshaped(shapes)
        layers = needs(graph, wanted is not None and wanted.force_backward)
        return one.like(graph, layers, None if wanted is None else _owns(graph, layers, wanted.as_caffe))

    net.reshapes(make)


def like(train: Network, graph: CaffeGraph, values: Mapping[Slot, Array], wanted: Wanted | None) -> TorchNetwork:
    """Another net over what `train` has learned, computed alike.  wanted: None: it tests."""
    assert isinstance(train, TorchNetwork)
    if wanted is None:
        return build_test(graph, train, values)
    made = build(graph, train.how, wanted, values)
    made.share(train)
    return made


def _live(values: Array, how: Arithmetic) -> Tensor:
    """A learned blob of its own, in C order: updates work on it as on a flat one."""
    return torch.from_numpy(np.array(values)).to(how.device, how.dtype)


def _owns(graph: CaffeGraph, layers: Sequence[LayerNeeds], as_caffe: bool) -> dict[int, Own]:
    """The steps whose gradient is Caffe's own, by step."""
    memories = Memories(graph.plan)
    found: dict[int, Own] = {}
    for one in layers:
        if one.step < 0 or not one.backward:
            continue
        layer, over = graph.plan.steps[one.step].layer, memories.overwritten(one.step)
        backward = own_backward(layer)
        if over.bottoms or over.tops:
            backward = OVERWRITTEN.get(layer.spec.type)
            if not as_caffe or backward is None:
                raise refusal(graph.plan, one.step, over, backward is not None)
        if backward is not None:
            found[one.step] = Own(layer, backward, over)
    return found
