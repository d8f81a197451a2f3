"""A net with its learned blobs as a .caffemodel, as Caffe itself would save it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.codec import caffe_pb2
from pipeline.nets.caffe.splits import with_splits
from pipeline.nets.caffe.writing import LayerToWrite, Written, write
from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.nets.graph.lowered import Slot

Read = Callable[[Slot], NDArray[np.float32]]


def save(path: Path, graph: CaffeGraph, values: Read, diffs: Read | None = None) -> Written:
    """Puts the net at `path`, whole or not at all.

    values: gives a learned blob's values, float32, by its owner's slot: asked for one blob at a time, and once for each
    layer that shares it, as every layer's blobs stand in the file.  diffs: the same, of their `diff`.
    Raises NetError as `write`, and for a net with a layer that cannot be computed.
    """
    graph.plan.demand(range(len(graph.plan.steps)))
    owners = [graph.parameters.owners[slot] for slot in graph.parameters.shapes]
    kinds = [values] if diffs is None else [values, diffs]
    each = (read(owner) for owner in owners for read in kinds)
    return write(path, graph.name, layers(graph), each, diffs=diffs is not None)


def layers(graph: CaffeGraph) -> list[LayerToWrite]:
    """What a file says of the net, in order: Caffe's own Split layers among the others, and each one's phase."""
    learned = graph.parameters
    found = []
    for number, (own, *splits) in enumerate(with_splits([step.layer.spec for step in graph.plan.steps])):
        graph.plan.steps[number].layer.complete(own)
        found.append(LayerToWrite(own, tuple(learned.shapes[slot] for slot in learned.slots(number))))
        found += [LayerToWrite(split) for split in splits]
    for layer in found:
        if not layer.spec.HasField("phase"):
            layer.spec.phase = caffe_pb2.TRAIN if graph.train else caffe_pb2.TEST
    return found
