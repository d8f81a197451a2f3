"""What a solver changes: the learned blobs of a net in Caffe's order, and which blobs of another net are the same."""

from __future__ import annotations

from pipeline.codec import caffe_pb2
from pipeline.errors import SolverError
from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.nets.graph.lowered import Slot
from pipeline.nets.layers.registry import text
from pipeline.training.network import LearnedBlob


def learned_blobs(graph: CaffeGraph) -> list[LearnedBlob]:
    """Net::learnable_params: owners in the order of layers.

    lr_mult and decay_mult are the owner's, else those of the first layer that shares the blob and names one.  Raises
    SolverError where two that share it name different ones.
    """
    parameters, plan = graph.parameters, graph.plan
    found: dict[Slot, dict[str, float]] = {}
    for slot in parameters.shapes:
        owner, layer = parameters.owners[slot], plan.steps[slot.step].layer
        spec = caffe_pb2.LayerParameter()
        spec.CopyFrom(layer.spec)
        layer.complete(spec)
        param = spec.param[slot.blob] if slot.blob < len(spec.param) else caffe_pb2.ParamSpec()
        given = found.setdefault(owner, {})
        for what in ("lr_mult", "decay_mult"):
            if param.HasField(what) and given.setdefault(what, getattr(param, what)) != getattr(param, what):
                raise SolverError(
                    f"layer '{layer.name}' ({layer.spec.type}) shares the param '{param.name}' with another {what}",
                    f"{getattr(param, what):g} here, {given[what]:g} in a layer before",
                    f"give the same {what} in all layers that share it, or in one of them alone",
                )
    return [
        LearnedBlob(
            plan.steps[slot.step].layer.name,
            slot,
            parameters.shapes[slot],
            given.get("lr_mult", 1.0),
            given.get("decay_mult", 1.0),
        )
        for slot, given in found.items()
    ]


def shared(graph: CaffeGraph, with_: CaffeGraph) -> dict[Slot, Slot]:
    """Which blob of `with_` each learned blob of a test net is: by the layers' names (Net::ShareTrainedLayersWith).

    A blob that is shared within the net goes with the first of its layers that `with_` has.  Those that are not found
    stay the net's own.  Raises SolverError for a layer of one name with other blobs.
    """
    found: dict[Slot, Slot] = {}
    for slot, other in _found(graph, with_).items():
        found.setdefault(graph.parameters.owners[slot], other)
    return found


def part(graph: CaffeGraph, with_: CaffeGraph) -> dict[Slot, Slot]:
    """Ends the sharing of blobs within a test net where `with_` has some of their layers only, as Caffe ends it.

    Caffe points the blobs of the layers that it finds at those of `with_`; the others stay as they were filled.
    Returns the owner that each new owner had before.
    """
    found, owners = _found(graph, with_), graph.parameters.owners
    firsts: dict[tuple[Slot, Slot | None], Slot] = {}
    before: dict[Slot, Slot] = {}
    for slot, owner in list(owners.items()):
        owners[slot] = firsts.setdefault((owner, found.get(slot)), slot)
        if owners[slot] == slot != owner:
            before[slot] = owner
    for slot, owner in before.items():
        if (slot in found) != (owner in found):
            layer, first = (graph.plan.steps[one.step].layer for one in (slot, owner))
            layer.state.warn(
                f"layers '{first.name}' and '{layer.name}' share a blob in the test net, and the train net has one of "
                "them only: the other keeps what its filler or a weights file gave, as in Caffe"
            )
    return before


def _found(graph: CaffeGraph, with_: CaffeGraph) -> dict[Slot, Slot]:
    """Each blob of the layers that `with_` has, too, and its owner there."""
    steps: dict[str, int] = {}
    for number, step in enumerate(graph.plan.steps):
        steps.setdefault(step.layer.name, number)
    found: dict[Slot, Slot] = {}
    for number, step in enumerate(with_.plan.steps):
        mine = steps.get(step.layer.name)
        if mine is None:
            continue
        own, theirs = graph.parameters.slots(mine), with_.parameters.slots(number)
        layer = graph.plan.steps[mine].layer
        shapes = [text(graph.parameters.shapes[slot]) for slot in own]
        others = [text(with_.parameters.shapes[slot]) for slot in theirs]
        if shapes != others:
            raise SolverError(
                f"layer '{layer.name}' ({layer.spec.type}) has other learned blobs in the test net",
                f"{', '.join(shapes) or 'none'} there; {', '.join(others) or 'none'} in the train net",
                "give the layer another name in one of the two nets",
            )
        found.update(zip(own, (with_.parameters.owners[other] for other in theirs), strict=True))
    return found
