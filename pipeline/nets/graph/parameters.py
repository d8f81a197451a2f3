"""The learned blobs of a net: from the weights file by layer name, shared by parameter name, or filled."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import count, takewhile

import numpy as np
from numpy.typing import NDArray

from pipeline.codec import caffe_pb2
from pipeline.codec.caffe_blobs import values_of
from pipeline.errors import NetError
from pipeline.nets.caffe.caffemodel import Caffemodel, StoredBlob, StoredLayer, changed
from pipeline.nets.digests import digest
from pipeline.nets.graph.fillers import fill, is_random
from pipeline.nets.graph.lowered import Learned, Shape, Slot
from pipeline.nets.graph.plan import Place, Plan, check_size
from pipeline.nets.layers.registry import Array, Parameter, text

_NAMED = 20  # layers in a warning


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
    seen: dict[Slot, str] = field(default_factory=dict)
    """The digest of each owner's values as they were read: the first time, and therefore each time."""

    def slots(self, step: int) -> list[Slot]:
        """The learned blobs of a step, in order."""
        return list(takewhile(self.shapes.__contains__, (Slot(step, blob) for blob in count())))

    def learned(self, slot: Slot, plan: Plan) -> Learned:
        """The blob that holds this one's values: itself unless it is shared."""
        owner = self.owners[slot]
        return Learned(plan.steps[owner.step].layer.name, owner, self.shapes[owner])

    def of(self, steps: Sequence[int], plan: Plan) -> dict[int, list[Array]]:
        """The values of the steps' blobs, in their own shapes; else as `values`."""
        values = self.values(steps, plan)
        return {
            step: [values[self.owners[slot]].reshape(self.shapes[slot]) for slot in self.slots(step)] for step in steps
        }

    def values(self, steps: Iterable[int], plan: Plan) -> dict[Slot, Array]:
        """The values of the blobs of these steps by their owners, float32, C order, in the owners' shapes.

        Raises NetError for NaN or infinity among them, and when they are others than those that were read before.
        """
        chosen = set(steps)
        owners = list(dict.fromkeys(self.owners[slot] for slot in self.shapes if slot.step in chosen))
        from_file = [owner for owner in owners if owner in self.stored]
        values: dict[Slot, Array] = {}
        if self.file is not None and from_file:
            read = self.file.read([self.stored[owner] for owner in from_file])
            values = {owner: self._checked(owner, one, plan) for owner, one in zip(from_file, read, strict=True)}
        for owner in owners:
            if owner not in values:
                values[owner] = self._checked(owner, self._made(owner, plan), plan)
            now = digest(values[owner])
            if self.seen.setdefault(owner, now) != now:
                raise changed(f"the weights {self.file.path if self.file else ''}")
        return values

    def digests(self, steps: Set[int], plan: Plan) -> dict[Slot, str]:
        """Of the values of each blob of these steps.  What was read already is not read again."""
        wanted = {slot: self.owners[slot] for slot in self.shapes if slot.step in steps}
        if not self.seen.keys() >= set(wanted.values()):
            self.values(steps, plan)
        return {slot: self.seen[owner] for slot, owner in wanted.items()}

    def filled(self, steps: Set[int]) -> list[Slot]:
        """The learned blobs of these steps that hold what a filler gives: no file has their values."""
        owners = dict.fromkeys(self.owners[slot] for slot in self.shapes if slot.step in steps)
        return [owner for owner in owners if owner not in self.stored and owner not in self.inline]

    def lacking(self, steps: Set[int]) -> list[Slot]:
        """Of these, the ones for which the net's text names no constant: nothing says what they should hold."""
        filled = self.filled(steps)
        return [slot for slot in filled if is_random(how := self.fillers[slot])
                or (how.type == "constant" and not how.HasField("value"))]  # fmt: skip

    def _made(self, owner: Slot, plan: Plan) -> NDArray[np.float32]:
        if owner in self.inline:
            return values_of(self.inline[owner])
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
    """The net's learned blobs for its declared input; shared ones have the first layer's of that name as owner.

    What does not fit is a fault of its step, which has no learned blobs then.
    """
    found = Parameters()
    named: dict[str, Slot] = {}
    for number, step in enumerate(plan.steps):
        if number in plan.faults or any(read.view not in shapes for read in step.reads):
            continue
        try:
            _collect(found, named, plan, number, step.layer.parameters([shapes[read.view] for read in step.reads]))
        except NetError as error:
            plan.faults[number] = error
            for one in (found.shapes, found.fillers, found.owners, found.inline):
                for slot in [slot for slot in one if slot.step == number]:
                    del one[slot]
    return found


def _collect(found: Parameters, named: dict[str, Slot], plan: Plan, number: int, wanted: Sequence[Parameter]) -> None:
    layer = plan.steps[number].layer
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
            owner = named.get(spec.name, slot)
            if owner != slot:
                _check_shared(plan, slot, owner, spec, found)
            found.owners[slot] = owner
    for index, spec in enumerate(layer.spec.param):
        if spec.name:
            named.setdefault(spec.name, Slot(number, index))


def _inline(found: Parameters, number: int, spec: caffe_pb2.LayerParameter, wanted: Sequence[Parameter]) -> None:
    """Blobs that stand in the .prototxt itself are what the layer begins with."""
    if spec.blobs and len(spec.blobs) != len(wanted):
        has = f"its text holds {len(spec.blobs)} blobs; it takes {len(wanted)}"
        raise NetError(f"layer '{spec.name}' ({spec.type}): {has}")
    for index, blob in enumerate(spec.blobs):
        count = math.prod(wanted[index].shape)
        if values_of(blob).size != count:
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


def match(
    found: Parameters, plan: Plan, file: Caffemodel | None, warn: Callable[[str], None], needed: Set[int]
) -> None:
    """Gives each learned blob its place in the weights file (Net::CopyTrainedLayersFrom).

    Layers are matched by name.  A layer that the file lacks keeps its filler, with a warning where it is needed; one
    that the net lacks is ignored.  Another number of blobs or another shape is a fault of the step.  Raises NetError
    when nothing at all matches.
    """
    found.file = file
    steps: dict[str, int] = {}
    for number, step in enumerate(plan.steps):
        steps.setdefault(step.layer.name, number)
    for source in file.layers if file else ():
        number = steps.get(source.name, -1)
        if number >= 0 and number not in plan.faults:
            try:
                _take(found, plan, number, source)
            except NetError as error:
                plan.faults[number] = error
    _report(found, plan, file, warn, needed)


def _take(found: Parameters, plan: Plan, number: int, source: StoredLayer) -> None:
    slots = found.slots(number)
    layer = plan.steps[number].layer
    if len(slots) != len(source.blobs):
        has = f"the weights hold {len(source.blobs)}, the net has {len(slots)}"
        raise layer.refuse(
            f"incompatible number of blobs: {has}",
            "the weights are of another net; to keep the fillers' values rename the layer",
        )
    for slot, blob in zip(slots, source.blobs, strict=True):
        if blob.fault is not None:
            raise blob.fault
        if not blob.fits(found.shapes[slot]):
            has = f"The weights' shape is {text(blob.shape)}; the net's is {text(found.shapes[slot])}"
            raise layer.refuse(
                f"cannot copy param {slot.blob}: shape mismatch. {has}",
                "the weights are of another net; to keep the fillers' values rename the layer",
            )
        found.stored[found.owners[slot]] = blob


def _report(
    found: Parameters, plan: Plan, file: Caffemodel | None, warn: Callable[[str], None], needed: Set[int]
) -> None:
    filled = found.filled(needed)
    if not filled or any(slot.step in plan.faults for slot in filled):
        return
    names = list(dict.fromkeys(plan.steps[slot.step].layer.name for slot in filled))
    chance = any(is_random(found.fillers[slot]) for slot in filled)
    if file and not found.stored and file.layers:
        raise NetError(
            f"the weights {file.path} belong to another net: no layer with weights has the same name",
            f"the net has {', '.join(names[:5])}; the weights {', '.join(_with_blobs(file)[:5])}",
            "give the .caffemodel that belongs to this .prototxt",
        )
    kind = "their fillers, random ones among them" if chance else "their fillers' constants"
    where = f"{file.path} lacks weights" if file else "no weights are given"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    warn(f"{where}: these layers hold what {kind} give: {', '.join(names[:_NAMED])}{more}")


def _with_blobs(file: Caffemodel) -> list[str]:
    return [layer.name for layer in file.layers if layer.blobs] or ["none"]
