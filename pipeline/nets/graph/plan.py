"""Which layer reads which value: Caffe's blobs, rewritten in place and shared, as values that never change.

A version is what one layer wrote.  A view is a blob as a layer made it (its shape); several views may share memory
(Split, Flatten, Reshape), and then an in-place layer on one gives all of them a new version, as it does in Caffe.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.codec import caffe_pb2
from pipeline.errors import NetError
from pipeline.nets.graph.lowered import Shape
from pipeline.nets.layers.inputs import Source
from pipeline.nets.layers.registry import INT_MAX, Layer, Refused, text

_LISTED = 40  # names in an error


class Place(NamedTuple):
    """A top: which step, and which of its tops."""

    step: int
    top: int


_NOWHERE = Place(-1, 0)


class Read(NamedTuple):
    """A blob as somebody reads it: the values that `version` wrote, in the shape of `view`."""

    version: Place
    view: Place


@dataclass(frozen=True, slots=True)
class Step:
    layer: Layer
    reads: tuple[Read, ...]


@dataclass
class Plan:
    """The layers in order with what each reads; `blobs`: each blob as a full pass leaves it."""

    steps: list[Step] = field(default_factory=list)
    blobs: dict[str, Read] = field(default_factory=dict)
    inputs: dict[str, Place] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    faults: dict[int, NetError] = field(default_factory=dict)
    """Why a step cannot be computed.  It matters to what depends on the step, and to nothing else."""

    def needed(self, reads: Iterable[Read]) -> set[int]:
        """The steps that these values depend on."""
        found: set[int] = set()
        open_steps = [place.step for read in reads for place in read]
        while open_steps:
            step = open_steps.pop()
            if step not in found:
                found.add(step)
                open_steps += [place.step for read in self.steps[step].reads for place in read]
        return found

    def computable(self, reads: Iterable[Read]) -> set[int]:
        """As `needed`.  Raises NetError where one of the steps cannot be computed."""
        found = self.needed(reads)
        self.demand(found)
        return found

    def demand(self, steps: Iterable[int]) -> None:
        """Raises the first fault among these steps."""
        for number in sorted(steps):
            if number in self.faults:
                raise self.faults[number]

    def inputs_for(self, reads: Iterable[Read]) -> dict[str, Place]:
        """The inputs that these values depend on."""
        wanted = list(reads)
        read = {one.version for one in wanted}
        for number in self.needed(wanted):
            read.update(one.version for one in self.steps[number].reads)
        return {name: place for name, place in self.inputs.items() if place in read}

    def shapes(
        self, given: Mapping[str, Shape], steps: set[int] | None = None, counts: Mapping[str, int] | None = None
    ) -> dict[Place, Shape]:
        """The shape of every top of the steps (all when None), from the inputs' shapes; refuses what does not fit."""
        found: dict[Place, Shape] = {}
        for number in range(len(self.steps)) if steps is None else sorted(steps):
            found.update(self._tops(number, given, found, counts or {}))
        return found

    def declared(self) -> dict[Place, Shape]:
        """The shapes of all tops for the declared inputs, as far as they are known; what does not fit is a fault."""
        found: dict[Place, Shape] = {}
        for number, step in enumerate(self.steps):
            if number in self.faults or any(read.view not in found for read in step.reads):
                continue
            try:
                found.update(self._tops(number, {}, found, {}))
            except NetError as error:
                self.faults[number] = error
        return found

    def _tops(
        self, number: int, given: Mapping[str, Shape], known: Mapping[Place, Shape], counts: Mapping[str, int]
    ) -> dict[Place, Shape]:
        step = self.steps[number]
        if isinstance(step.layer, Source):
            tops = step.layer.shapes([])
            tops = [tuple(given.get(name, shape)) for name, shape in zip(step.layer.spec.top, tops, strict=True)]
        else:
            tops = step.layer.shapes([known[read.view] for read in step.reads])
            count = counts.get(step.layer.name)
            tops = tops if count is None else [(count, *top[1:]) for top in tops]
        found = {}
        for top, shape in enumerate(tops):
            if any(size < 0 for size in shape):
                raise step.layer.refuse(f"its top would have the shape {text(shape)}")
            check_size(step.layer, shape)
            found[Place(number, top)] = tuple(int(size) for size in shape)
        return found

    def read(self, blob: str) -> Read:
        """The blob after a full pass.  Raises NetError with the nearest names."""
        if blob in self.blobs:
            return self.blobs[blob]
        raise unknown_blob(blob, self.blobs)


def check_size(layer: Layer, shape: Shape) -> None:
    """Refuses what Caffe's blobs cannot hold, before anything of that size is allocated."""
    if math.prod(shape) > INT_MAX:
        raise layer.refuse(f"a blob of the shape {text(shape)} exceeds INT_MAX values")


def unknown_blob(blob: str, known: Iterable[str]) -> NetError:
    names = list(dict.fromkeys(known))
    near = _near(blob, names)
    hint = f"near names: {', '.join(near)}" if near else "choose one of these; `hathi net show` lists all"
    listed = names
    if len(names) > _LISTED:  # features are near the end
        half = _LISTED // 2
        listed = [*names[:half], f"({len(names) - 2 * half:,} more)", *names[-half:]]
    return NetError(f"the net has no blob '{blob}'", f"it has: {', '.join(listed)}", hint)


def _near(blob: str, names: Sequence[str]) -> list[str]:
    """Names of the whole list that are spelled alike, whatever the case, and the shortest that hold the word."""
    plain: dict[str, str] = {}
    for name in names:
        plain.setdefault(name.lower(), name)
    word = blob.lower()
    alike = difflib.get_close_matches(word, plain, n=3, cutoff=0.4)
    within = sorted((one for one in plain if len(word) > 1 and word in one), key=len)[:2]
    return [plain[one] for one in dict.fromkeys([*alike, *within])]


def build(layers: Sequence[Layer]) -> Plan:
    """What Caffe refuses is a fault: an unknown bottom, a top that two layers make, a wrong in-place layer."""
    plan = Plan(faults=_doubtful_splits([layer.spec for layer in layers]))
    views: dict[str, Place] = {}
    memory: dict[Place, Place] = {}
    current: dict[Place, Place] = {}
    unread: dict[str, None] = {}
    for number, layer in enumerate(layers):
        spec = layer.spec
        if isinstance(layer, Refused):
            plan.faults[number] = layer.why
        reads = tuple(Read(current[memory[views[blob]]], views[blob]) for blob in spec.bottom if blob in views)
        for blob in spec.bottom:
            unread.pop(blob, None)
        for index, blob in enumerate(spec.top):
            here = Place(number, index)
            if index < len(spec.bottom) and spec.bottom[index] == blob:
                if not layer.in_place_is_right() and number not in plan.faults:
                    plan.faults[number] = layer.refuse(
                        f"computes in place onto its bottom '{blob}'",
                        "Caffe accepts this and computes it wrongly; give the top a name of its own",
                    )
                memory[here] = memory.get(views.get(blob, here), here)
            elif layer.is_shared() and spec.bottom[0] in views:
                memory[here] = memory[views[spec.bottom[0]]]
                views[blob] = here
                unread[blob] = None
                continue
            else:
                memory[here] = here
            current[memory[here]] = here
            views[blob] = here
            unread[blob] = None
            if isinstance(layer, Source):
                plan.inputs[blob] = here
        plan.steps.append(Step(layer, reads))
    plan.blobs = {blob: Read(current[memory[view]], view) for blob, view in views.items()}
    plan.outputs = list(unread)
    return plan


def _doubtful_splits(specs: Sequence[caffe_pb2.LayerParameter]) -> dict[int, NetError]:
    """Caffe gives each reader of a blob a copy under another name (InsertSplits), then refuses doubled tops.

    So an in-place layer must be the only reader of what it overwrites.  By layer: why Caffe refuses it.
    """
    faults: dict[int, NetError] = {}
    made: dict[str, Place] = {}
    readers: Counter[Place] = Counter()
    sources: list[list[Place]] = []
    for number, spec in enumerate(specs):
        for index, blob in enumerate(spec.bottom):
            if blob not in made:
                near = difflib.get_close_matches(blob, made, n=3, cutoff=0.4)
                faults.setdefault(
                    number,
                    NetError(
                        f"unknown bottom blob '{blob}'",
                        f"layer '{spec.name}', bottom index {index}",
                        f"near names: {', '.join(near)}" if near else "a layer must come after those it reads",
                    ),
                )
        sources.append([made.get(blob, _NOWHERE) for blob in spec.bottom])
        readers.update(sources[-1])
        for index, blob in enumerate(spec.top):
            made[blob] = Place(number, index)
            if index < len(spec.loss_weight) and spec.loss_weight[index]:
                readers[made[blob]] += 1
    known: set[str] = set()
    for number, spec in enumerate(specs):
        for index, blob in enumerate(spec.top):
            in_place = index < len(spec.bottom) and spec.bottom[index] == blob and readers[sources[number][index]] == 1
            if blob in known and not in_place:
                where = f"layer '{spec.name}', top index {index}"
                error = NetError(
                    f"top blob '{blob}' is produced by multiple sources",
                    where,
                    "an in-place layer must be the only reader of its blob; otherwise rename the top",
                )
                faults.setdefault(number, error)
            known.add(blob)
    return faults
