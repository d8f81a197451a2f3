"""Weights out of files, for a net that is there: Net::CopyTrainedLayersFrom, of both of Caffe's forms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SolverError
from pipeline.nets.caffe import caffemodel
from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.nets.graph.lowered import Slot
from pipeline.training import hdf5

Array = NDArray[np.float32]
Say = Callable[[str], None]


def _unheard(says: str) -> None:
    """Where nobody wants to hear it."""


_NAMED = 5
"""Layers in a message."""
_FOREIGN = "the weights are of another net; rename the layer to keep what its fillers give"


def taken(path: Path, graph: CaffeGraph, say: Say, warn: Say = _unheard) -> Iterator[tuple[Slot, Array]]:
    """What the file at `path` gives to the net: the owner's slot and its values, in the owner's shape.

    Layers are matched by name; `say` hears of those that the net lacks, `warn` where the net takes nothing at all.
    Nothing is given before all of it fits.
    Raises NetError and SolverError: a file that cannot be read, another number of blobs, another shape.
    """
    given = _from_hdf5(path, graph, say) if hdf5.is_hdf5(path) else _from_message(path, graph, say)
    none = True
    for slot, values in given:
        none = False
        yield slot, values
    names = [step.layer.name for number, step in enumerate(graph.plan.steps) if graph.parameters.slots(number)]
    if none and names:
        has = f"; it learns in {', '.join(names[:_NAMED])}" + (", ..." if len(names) > _NAMED else "")
        warn(f"{path} gives nothing to the net {graph.name}: no layer has the name of one of its own{has}")


def trainable(path: Path, graph: CaffeGraph, say: Say, warn: Say = _unheard) -> Iterator[tuple[Slot, Array]]:
    """As `taken`.  Raises SolverError for a number that is not finite: what is trained from it is NaN, too."""
    for slot, values in taken(path, graph, say, warn):
        if not np.isfinite(values.sum(dtype=np.float64)):
            layer = graph.plan.steps[slot.step].layer.name
            says = f"blob {slot.blob} of the layer '{layer}' holds a number that is not finite"
            raise SolverError(f"the weights {path} cannot be trained on", says, "take those of an earlier snapshot")
        yield slot, values


def _from_message(path: Path, graph: CaffeGraph, say: Say) -> Iterator[tuple[Slot, Array]]:
    file = caffemodel.read_index(path)
    found = []
    for layer, slots in _matched([layer.name for layer in file.layers], graph, say):
        blobs = file.layers[layer].blobs
        name = file.layers[layer].name
        if len(blobs) != len(slots):
            raise _refused(path, name, f"it holds {len(blobs)} blobs for the layer, the net has {len(slots)}")
        for slot, blob in zip(slots, blobs, strict=True):
            if blob.fault is not None:
                raise blob.fault
            if not blob.fits(graph.parameters.shapes[slot]):
                raise _other_shape(path, name, slot, blob.shape, graph)
            found.append((slot, blob))
    for (slot, _), values in zip(found, file.read([blob for _, blob in found]), strict=True):
        owner = graph.parameters.owners[slot]
        yield owner, values.reshape(graph.parameters.shapes[owner])


def _from_hdf5(path: Path, graph: CaffeGraph, say: Say) -> Iterator[tuple[Slot, Array]]:
    learned = graph.parameters
    with hdf5.net_layers(path) as layers:
        found = []
        for number, slots in _matched([name for name, _ in layers], graph, say):
            name, blobs = layers[number]
            if len(blobs) > len(slots):
                raise _refused(path, name, f"it holds {len(blobs)} blobs for the layer, the net has {len(slots)}")
            for slot in slots:
                if slot.blob not in blobs:
                    if learned.owners[slot] != slot:
                        continue  # only owners of shared blobs are in the file
                    raise _refused(path, name, f"it lacks blob {slot.blob} of the layer")
                values = blobs[slot.blob]()
                if values.shape != learned.shapes[slot]:
                    raise _other_shape(path, name, slot, values.shape, graph)
                found.append((learned.owners[slot], values))
        for owner, values in found:
            yield owner, values.reshape(learned.shapes[owner])


def _matched(names: list[str], graph: CaffeGraph, say: Say) -> Iterator[tuple[int, list[Slot]]]:
    """Of the file's layers: its number, and the learned blobs of the net's first layer of that name."""
    steps: dict[str, int] = {}
    for number, step in enumerate(graph.plan.steps):
        steps.setdefault(step.layer.name, number)
    for number, name in enumerate(names):
        if name in steps:
            yield number, graph.parameters.slots(steps[name])
        elif not name.endswith("_split"):
            say(f"Ignoring source layer {name}")


def _refused(path: Path, layer: str, says: str) -> SolverError:
    return SolverError(f"the weights {path} do not fit the net's layer '{layer}'", says, _FOREIGN)


def _other_shape(path: Path, layer: str, slot: Slot, shape: tuple[int, ...], graph: CaffeGraph) -> SolverError:
    has = " ".join(map(str, graph.parameters.shapes[slot])) or "one number"
    says = f"blob {slot.blob} has the shape {' '.join(map(str, shape)) or 'of one number'}; the net's is {has}"
    return _refused(path, layer, says)
