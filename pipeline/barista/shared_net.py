"""A solver's net whose weights and history lie in memory that customers see: what a barista computes for a slot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.amounts import counted
from pipeline.barista import layout
from pipeline.barista.layout import Layout
from pipeline.barista.memory import Float32s, Mapped
from pipeline.barista.nets import TRAIN, Asked, NetsByRows
from pipeline.errors import Diverged, NetError
from pipeline.training import rates, updates
from pipeline.training.draws.draws import Draws
from pipeline.training.learning import Learning
from pipeline.training.network import LearnedBlob, Mask, Network, Pass
from pipeline.training.solver import Solver
from pipeline.training.statistics import apart, take_up


@dataclass(frozen=True, slots=True)
class Wanted:
    """A pass that a customer asks for.

    rows: of its data.  number: of the pass, which decides Dropout's masks and DummyData's values.  blobs: what is told
    beside the net's outputs.
    """

    rows: int
    number: int
    blobs: tuple[str, ...]


def planned(read: Solver, nets: NetsByRows, slots: int) -> Layout:
    """The memory for a solver's nets and so many customers at once."""
    net = nets.train
    shapes = dict(zip(named(net.learned), (one.shape for one in net.learned), strict=True))
    return layout.plan(layout.Net(shapes, updates.histories(read.update, 1), nets.data, nets.shapes()), slots)


def named(learned: Sequence[LearnedBlob]) -> list[str]:
    """`LAYER/NUMBER` of each learned blob; a second layer of one name has its place in the net behind it."""
    found: list[str] = []
    for one in learned:
        name = f"{one.layer}/{one.slot.blob}"
        found.append(f"{name}@{one.slot.step}" if name in found else name)
    return found


class SharedNet:
    """Its methods take the number of a slot: what they read and write lies there, and in the parameters.

    version: of the weights; each change has another one.  iteration: updates that were made here.
    """

    def __init__(
        self, read: Solver, nets: NetsByRows, draws: Draws, place: tuple[Layout, Mapped], version: int = 0
    ) -> None:
        """place: the layout, and the memory that it is of.  version: of the first weights."""
        plan, memory = place
        self._read, self._nets, self._draws, self._plan, self._memory = read, nets, draws, plan, memory
        self.version = version
        self.iteration = self._step = 0
        net = nets.train
        for one, there in zip(net.learned, plan.parameters, strict=True):
            net.place(one.slot, memory.array(there))
        nets.share()
        self._learning = Learning(read.update, net)
        self._learning.place([memory.array(one).reshape(-1) for one in plan.history])
        self._moving = {slot for one in net.moving for slot in one.blobs}
        self._labels = nets.labels()
        self._views: dict[tuple[int, str], dict[str, Float32s]] = {}
        self._carried: dict[tuple[int, Asked], dict[str, Float32s]] = {}

    def gradient(self, slot: int, wanted: Wanted) -> dict[str, Any]:
        """Forward and backward on the slot's data; its gradients are those of this pass alone."""
        asked = Asked(TRAIN, self._rows(wanted.rows), bool(wanted.blobs))
        net = self._nets.of(asked)
        self._known(net, wanted.blobs)
        net.clear()
        result, sums = apart(net, lambda: self._pass(slot, asked, wanted, gradients=True))
        there = self._view(slot, "gradients")
        for one, place in zip(net.learned, there.values(), strict=True):
            if one.slot in sums:
                place[...] = sums[one.slot]
            else:
                net.array(net.gradient_tensor(one.slot), into=place)
        return {"loss": float(result.loss), "blobs": self._told(slot, net, result, wanted.blobs)}

    def forward(self, slot: int, phase: str, wanted: Wanted) -> dict[str, Any]:
        """Forward alone; nothing of the net changes."""
        asked = Asked(phase, self._rows(wanted.rows), bool(wanted.blobs))
        net = self._nets.of(asked)
        self._known(net, wanted.blobs)
        result, _ = apart(net, lambda: self._pass(slot, asked, wanted, gradients=False))
        return {"loss": float(result.loss), "blobs": self._told(slot, net, result, wanted.blobs)}

    def update(self, slot: int, passes: int | None, rate: float | None) -> dict[str, Any]:
        """The solver's update by the gradients that stand in the slot, which it uses up.

        passes: how many they are the sum of; None: the solver's iter_size.  rate: None: of the solver's policy.
        Raises Diverged: before anything changes where a gradient is not finite; else the weights are spoilt.
        """
        net, there = self._nets.train, self._view(slot, "gradients")
        for name, place in there.items():
            _refuse_not_finite(net, f"the gradient of {name}", place)
        net.clear()
        for one, place in zip(net.learned, there.values(), strict=True):
            if one.slot not in self._moving:
                net.place_gradient(one.slot, place)
        if rate is None:
            self._step = rates.step_of(self._read.policy, self.iteration, self._step)
            rate = rates.rate_of(self._read.policy, self.iteration, self._step)
        try:
            broken = self._learning.update(rate, self.iteration, lambda clipped: None, passes)
        finally:
            net.clear()
            self.version += 1
        take_up(net, {one.slot: place for one, place in zip(net.learned, there.values(), strict=True)
                      if one.slot in self._moving})  # fmt: skip
        self.iteration += 1
        if broken is not None:
            raise Diverged(f"the update makes layer '{broken.layer}' infinite or no number", f"rate {rate:g}",
                           "lower the rate; give the barista weights that are sound, or start it anew")  # fmt: skip
        return {"iteration": self.iteration, "rate": rate}

    def weights(self, slot: int, version: int) -> dict[str, Any]:
        """The slot's weights become the net's, of that version; nothing is done where it has that version already."""
        taken = version != self.version
        if taken:
            net, there = self._nets.train, self._view(slot, "weights")
            for name, place in there.items():
                _refuse_not_finite(net, f"the weights {name}", place)
            for one, place in zip(net.learned, there.values(), strict=True):
                net.load(one.slot, place)
            self.version = version
        return {"taken": taken}

    def copy(self, slot: int) -> dict[str, Any]:
        """The net's weights, copied to the slot's: whole, of one version."""
        net = self._nets.train
        for one, place in zip(net.learned, self._view(slot, "weights").values(), strict=True):
            net.array(net.tensor(one.slot), into=place)
        return {}

    def forget(self, slot: int) -> None:
        """The slot's customer is gone: the next one finds zeros, and meanwhile they cost no memory."""
        self._carried = {key: states for key, states in self._carried.items() if key[0] != slot}
        self._memory.forget(self._plan.begin(slot), self._plan.stride)

    def _rows(self, rows: int) -> int:
        if not 1 <= rows <= self._nets.rows:
            raise NetError(f"a pass of {counted(rows, 'row')}", f"a slot holds 1 to {self._nets.rows}",
                           "give fewer rows at a time, or raise the net's batch size")  # fmt: skip
        return rows

    def _known(self, net: Network, blobs: Sequence[str]) -> None:
        for blob in blobs:
            net.graph.plan.read(blob)

    def _pass(self, slot: int, asked: Asked, wanted: Wanted, gradients: bool) -> Pass:
        """A pass of a slot's own: hidden states go on from the slot's last pass of as many rows."""
        net = self._nets.of(asked)
        feeds: dict[str, Float32s] = {}
        for top, place in self._view(slot, "data").items():
            if top in net.inputs:
                feeds[top] = place.reshape(-1)[: _count(net.inputs[top])].reshape(net.inputs[top])
                self._refuse_labels(top, feeds[top])
        for at, one in enumerate(net.draws):
            if isinstance(one, Mask):
                feeds[one.feed] = self._draws.mask(one, wanted.number)
            else:
                feeds[one.feed] = self._draws.filler(one.filler, one.shape, one.layer, at, wanted.number)
        first = net.carried()
        if not first:
            return net.backward(feeds) if gradients else net.forward(feeds)
        try:
            net.carry(self._carried.get((slot, asked), first))
            result = net.backward(feeds) if gradients else net.forward(feeds)
            self._carried[slot, asked] = net.carried()
            return result
        finally:
            net.carry(first)

    def _refuse_labels(self, top: str, values: Float32s) -> None:
        labels = self._labels.get(top)
        wrong = labels.misfit(values) if labels is not None else None
        if labels is not None and wrong is not None:
            known = f"the net knows whole numbers from 0 to {labels.classes - 1}"
            raise NetError(f"'{top}' holds the label {wrong:g}", known, "nothing was computed; look at the labels")

    def _told(self, slot: int, net: Network, result: Pass, blobs: Sequence[str]) -> dict[str, list[int]]:
        """Puts outputs and blobs where the customer finds them; their shapes."""
        found: Mapping[str, Float32s] = result.outputs
        if blobs:
            kept = net.keep()
            values = {name: kept.value(name) for name in blobs if name not in found}
            found = {**found, **{name: one for name, one in values.items() if one is not None}}
        there = self._view(slot, "blobs")
        for name, values_ in found.items():
            there[name].reshape(-1)[: values_.size] = values_.ravel()
        return {name: list(one.shape) for name, one in found.items()}

    def _view(self, slot: int, kind: str) -> dict[str, Float32s]:
        if (slot, kind) not in self._views:
            begin = self._plan.begin(slot)
            arrays = self._plan.slot[kind]
            self._views[slot, kind] = {one.name: self._memory.array(one, begin) for one in arrays}
        return self._views[slot, kind]


def _refuse_not_finite(net: Network, what: str, values: Float32s) -> None:
    if not updates.finite(net.over(values)):
        raise Diverged(f"{what} is not finite", "nothing was changed", "look at the data and the loss of that pass")


def _count(shape: Sequence[int]) -> int:
    return int(np.prod(shape, dtype=np.int64))
