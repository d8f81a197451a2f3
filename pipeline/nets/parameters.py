"""The learned blobs of a net: from the weights file by layer name, shared by parameter name, or filled."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import NetError
from pipeline.nets import caffe_pb2
from pipeline.nets.caffemodel import Caffemodel, StoredBlob, StoredLayer
from pipeline.nets.fillers import fill, is_random
from pipeline.nets.layers.registry import Array, Parameter, text
from pipeline.nets.lowered import Shape
from pipeline.nets.plan import Place, Plan, check_size

_NAMED = 20  # layers in a warning


class Slot(NamedTuple):
    """A learned blob: which step's, and which of its blobs."""

    step: int
    blob: int


@dataclass
class Parameters:
    """Each slot's owner (itself unless shared) and where the owner's values come from.

    Values are read each time they are needed and not kept: the engine has its own copy of them.
    """

    shapes: dict[Slot, Shape] = field(default_factory=dict)
    owners: dict[Slot, Slot] = field(default_factory=dict)
    fillers: dict[Slot, caffe_pb2.FillerParameter] = field(default_factory=dict)
    inline: dict[Slot, caffe_pb2.BlobProto] = field(default_factory=dict)
    stored: dict[Slot, StoredBlob] = field(default_factory=dict)
    file: Caffemodel | None = None

    def of(self, steps: Sequence[int], plan: Plan) -> dict[int, list[Array]]:
        """The values of the steps' blobs, float32, C order, in their shapes.

        Raises NetError for NaN or infinity among them.
        """
        chosen = set(steps)
        wanted = [slot for slot in self.shapes if slot.step in chosen]
        owners = list(dict.fromkeys(self.owners[slot] for slot in wanted))
        from_file = [owner for owner in owners if owner in self.stored]
        values: dict[Slot, Array] = {}
        if self.file is not None and from_file:
            read = self.file.read([self.stored[owner] for owner in from_file])
            values = {owner: self._checked(owner, one, plan) for owner, one in zip(from_file, read, strict=True)}
        for owner in owners:
            if owner not in values:
                values[owner] = self._checked(owner, self._made(owner, plan), plan)
        found: dict[int, list[Array]] = {step: [] for step in steps}
        for slot in wanted:
            found[slot.step].append(values[self.owners[slot]].reshape(self.shapes[slot]))
        return found

    def _made(self, owner: Slot, plan: Plan) -> NDArray[np.float32]:
        if owner in self.inline:
            return inline_values(self.inline[owner])
        return fill(self.fillers[owner], self.shapes[owner], f"{plan.steps[owner.step].layer.name}/{owner.blob}")

    def _checked(self, owner: Slot, values: NDArray[np.float32], plan: Plan) -> Array:
        with np.errstate(all="ignore"):
            if not np.isfinite(values.sum(dtype=np.float64)):
                bad = int(np.count_nonzero(~np.isfinite(values)))
                if bad:
                    raise plan.steps[owner.step].layer.refuse(
                        f"blob {owner.blob} of its weights holds {bad} numbers that are NaN or infinite",
                        "the file is damaged, or its training diverged",
                    )
        return values.reshape(self.shapes[owner])


def collect(plan: Plan, shapes: Mapping[Place, Shape]) -> Parameters:
    """The net's learned blobs for its declared input; shared ones have the first layer's of that name as owner."""
    found = Parameters()
    named: dict[str, Slot] = {}
    for number, step in enumerate(plan.steps):
        layer = step.layer
        wanted = layer.parameters([shapes[read.view] for read in step.reads])
        if len(layer.spec.param) > len(wanted):
            raise layer.refuse(f"has {len(layer.spec.param)} param for {len(wanted)} learned blobs")
        _inline(found, number, layer.spec, wanted)
        for index, parameter in enumerate(wanted):
            slot = Slot(number, index)
            check_size(layer, parameter.shape)
            found.shapes[slot] = parameter.shape
            found.fillers[slot] = parameter.filler
            spec = layer.spec.param[index] if index < len(layer.spec.param) else caffe_pb2.ParamSpec()
            found.owners[slot] = slot
            if spec.name:
                owner = named.setdefault(spec.name, slot)
                _check_shared(plan, slot, owner, spec, found)
                found.owners[slot] = owner
    return found


def _inline(found: Parameters, number: int, spec: caffe_pb2.LayerParameter, wanted: Sequence[Parameter]) -> None:
    """Blobs that stand in the .prototxt itself are what the layer begins with."""
    if spec.blobs and len(spec.blobs) != len(wanted):
        has = f"its text holds {len(spec.blobs)} blobs; it takes {len(wanted)}"
        raise NetError(f"layer '{spec.name}' ({spec.type}): {has}")
    for index, blob in enumerate(spec.blobs):
        count = math.prod(wanted[index].shape)
        if max(len(blob.data), len(blob.double_data)) != count:
            raise NetError(f"layer '{spec.name}' ({spec.type}): blob {index} in its text does not hold {count} values")
        found.inline[Slot(number, index)] = blob


def _check_shared(plan: Plan, slot: Slot, owner: Slot, spec: caffe_pb2.ParamSpec, found: Parameters) -> None:
    mine, theirs = found.shapes[slot], found.shapes[owner]
    layer, first = plan.steps[slot.step].layer, plan.steps[owner.step].layer
    loose = spec.share_mode == caffe_pb2.ParamSpec.PERMISSIVE
    if math.prod(mine) != math.prod(theirs) if loose else mine != theirs:
        raise layer.refuse(
            f"cannot share param '{spec.name}' of layer '{first.name}': shape mismatch. "
            f"Its own is {text(mine)}, the owner's {text(theirs)}"
        )
    given = first.spec.param[owner.blob]
    for what in ("lr_mult", "decay_mult"):
        if spec.HasField(what) and given.HasField(what) and getattr(spec, what) != getattr(given, what):
            raise layer.refuse(f"shared param '{spec.name}' has another {what} than in layer '{first.name}'")


def inline_values(blob: caffe_pb2.BlobProto) -> NDArray[np.float32]:
    return np.array(blob.double_data if blob.double_data else blob.data, np.float32)


def match(found: Parameters, plan: Plan, file: Caffemodel | None, warn: Callable[[str], None]) -> None:
    """Gives each learned blob its place in the weights file (Net::CopyTrainedLayersFrom).

    Layers are matched by name.  A layer that the file lacks keeps its filler, with a warning; one that the net lacks
    is ignored.  Raises NetError for another number of blobs or another shape, and when nothing at all matches.
    """
    found.file = file
    steps: dict[str, int] = {}
    for number, step in enumerate(plan.steps):
        steps.setdefault(step.layer.name, number)
    for source in file.layers if file else ():
        number = steps.get(source.name, -1)
        if number >= 0:
            _take(found, plan, number, source)
    _report(found, plan, file, warn)


def _take(found: Parameters, plan: Plan, number: int, source: StoredLayer) -> None:
    slots = [slot for slot in found.shapes if slot.step == number]
    layer = plan.steps[number].layer
    if len(slots) != len(source.blobs):
        has = f"the weights hold {len(source.blobs)}, the net has {len(slots)}"
        raise layer.refuse(
            f"incompatible number of blobs: {has}",
            "the weights are of another net; to keep the fillers' values rename the layer",
        )
    for slot, blob in zip(slots, source.blobs, strict=True):
        if not blob.fits(found.shapes[slot]):
            has = f"The weights' shape is {text(blob.shape)}; the net's is {text(found.shapes[slot])}"
            raise layer.refuse(
                f"cannot copy param {slot.blob}: shape mismatch. {has}",
                "the weights are of another net; to keep the fillers' values rename the layer",
            )
        found.stored[found.owners[slot]] = blob


def _report(found: Parameters, plan: Plan, file: Caffemodel | None, warn: Callable[[str], None]) -> None:
    filled = [
        slot
        for slot, owner in found.owners.items()
        if slot == owner and owner not in found.stored and slot not in found.inline
    ]
    if not filled:
        return
    names = list(dict.fromkeys(plan.steps[slot.step].layer.name for slot in filled))
    chance = any(is_random(found.fillers[slot]) for slot in filled)
    if file and not found.stored and file.layers:
        raise NetError(
            f"the weights {file.path} are of another net: no layer with weights has the same name",
            f"the net has {', '.join(names[:5])}; the weights {', '.join(_with_blobs(file)[:5])}",
            "give the .caffemodel that belongs to this .prototxt",
        )
    kind = "their fillers, random ones among them" if chance else "their fillers' constants"
    where = f"{file.path} lacks weights" if file else "no weights are given"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    warn(f"{where}: these layers hold what {kind} give: {', '.join(names[:_NAMED])}{more}")


def _with_blobs(file: Caffemodel) -> list[str]:
    return [layer.name for layer in file.layers if layer.blobs] or ["none"]
