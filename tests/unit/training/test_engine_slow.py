"""Whole nets against Caffe's Net written slowly in NumPy: losses and gradients, pass after pass, in float64."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import pytest
import torch

from pipeline.errors import NetError
from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.training.engine.building import Wanted, build
from pipeline.training.engine.net import TorchNetwork
from pipeline.training.network import Feeds
from tests.unit.training.slow_caffe import Net
from tests.unit.training.trained import FLOAT64, Array, graph_of, inputs, layer

RNG = np.random.default_rng(11)
ITEMS = 3
X = RNG.normal(size=(ITEMS, 4)).astype(np.float32)
LABEL = np.array([0, 1, 0], np.float32)
TIME = RNG.normal(size=(4, 3, 5)).astype(np.float32)
CONT = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 1], [1, 0, 1]], np.float32)
STATE = RNG.normal(size=(1, 3, 4)).astype(np.float32)
DATA = inputs(x=X.shape, label=LABEL.shape) + layer("InnerProduct", "x", "ip", "inner_product_param { num_output: 3 }")
SEQUENCE = inputs(x=TIME.shape, cont=CONT.shape)
LSTM = "recurrent_param { num_output: 4 }"
EXPOSED = "recurrent_param { num_output: 4 expose_hidden: true }"
ODD = {
    "a reader's gradient replaces the weight 1 of a loss": DATA
    + layer("SoftmaxWithLoss", "ip label", "l")
    + layer("Power", "l", "p", "power_param { scale: 2 } loss_weight: 1"),
    "a loss with a weight of its own and a reader counts twice": DATA
    + layer("SoftmaxWithLoss", "ip label", "l", "loss_weight: 2")
    + layer("Power", "l", "p", "power_param { scale: 2 } loss_weight: 1"),
    "a reader without a gradient replaces none": DATA
    + layer("SoftmaxWithLoss", "ip label", "l")
    + layer("Silence", "l", ""),
    "a Silence beside a weight": DATA
    + layer("SoftmaxWithLoss", "ip label", "l", "loss_weight: 2")
    + layer("Silence", "l", ""),
    "two readers of a loss": DATA
    + layer("SoftmaxWithLoss", "ip label", "l")
    + layer("Power", "l", "p", "power_param { scale: 2 } loss_weight: 1")
    + layer("Power", "l", "q", "power_param { power: 2 } loss_weight: 0.5"),
    "losses added by a layer": DATA
    + layer("SoftmaxWithLoss", "ip label", "l", "loss_weight: 0")
    + layer("EuclideanLoss", "ip ip", "e")
    + layer("Eltwise", "l e", "s", "eltwise_param { coeff: 0.5 coeff: 3 } loss_weight: 1"),
    "a split takes all weights of its layer": DATA
    + layer("Slice", "ip", "a b", "slice_param { slice_point: 1 } loss_weight: 1 loss_weight: 2")
    + layer("Power", "a", "p", "power_param { power: 2 } loss_weight: 1"),
    "a Parameter layer's gradient is that of the last pass": inputs(x=X.shape)
    + layer("Parameter", "", "w", "parameter_param { shape { dim: 3 dim: 4 } }")
    + layer("Eltwise", "x w", "m", "eltwise_param { operation: PROD }")
    + layer("EuclideanLoss", "m w", "l"),
    "an LSTM": SEQUENCE + layer("LSTM", "x cont", "h", LSTM) + layer("Reduction", "h", "r", "loss_weight: 1"),
    "an LSTM whose rates are 0 has gradients": SEQUENCE
    + layer("LSTM", "x cont", "h", LSTM + " param { lr_mult: 0 } param { } param { lr_mult: 0 }")
    + layer("Reduction", "h", "r", "loss_weight: 1"),
    "exposed states have no gradient": SEQUENCE
    + inputs(h0=STATE.shape, c0=STATE.shape)
    + layer("InnerProduct", "h0", "i", "inner_product_param { num_output: 12 }")
    + layer("Reshape", "i", "i0", "reshape_param { shape { dim: 1 dim: 3 dim: 4 } }")
    + layer("LSTM", "x cont i0 c0", "h ht ct", EXPOSED)
    + "".join(layer("Reduction", top, f"r{top}", "loss_weight: 1") for top in ("h", "ht", "ct")),
}
FEEDS = {"x": X, "label": LABEL, "cont": CONT, "h0": STATE, "c0": STATE}


def both(text: str, graph: CaffeGraph) -> tuple[Net, TorchNetwork, Feeds]:
    """The net in NumPy and the one that trains, with the same learned blobs, and what they are fed."""
    slow, net = Net(text), build(graph, FLOAT64, Wanted(force_backward="force_backward: true" in text))
    sequence = "LSTM" in text
    feeds = {name: TIME if name == "x" and sequence else FEEDS[name] for name in slow.inputs}
    for name, values in feeds.items():
        slow.inputs[name].data[...] = values
    assert [(one.lr, one.decay) for one in slow.learnable] == [(one.lr_mult, one.decay_mult) for one in net.learned]
    chance = np.random.default_rng(len(text))
    for theirs, mine in zip(slow.learnable, net.learned, strict=True):
        theirs.blob.data[...] = chance.normal(size=mine.shape) * 0.5
        with torch.no_grad():
            net.tensor(mine.slot).copy_(torch.from_numpy(theirs.blob.data.copy()))
    return slow, net, feeds


def compared(text: str, graph: CaffeGraph, least: float = 1e-6) -> None:
    """Two passes add up, a third stands alone: what a pass leaves behind is in the next one."""
    slow, net, feeds = both(text, graph)
    for number in range(3):
        if number == 2:
            slow.clear()
            net.clear()
        loss = slow.forward()
        slow.backward()
        assert net.backward(feeds).loss == pytest.approx(loss, rel=least, abs=least), f"pass {number}\n{text}"
        for theirs, mine in zip(slow.learnable, net.learned, strict=True):
            gradient: Array = net.gradient_tensor(mine.slot).detach().numpy()
            np.testing.assert_allclose(
                gradient, theirs.blob.diff, rtol=least, atol=least * max(1.0, float(np.abs(gradient).max())),
                err_msg=f"pass {number}, {mine.layer}/{mine.slot.blob}\n{text}",
            )  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_a_net_of_odd_losses_and_layers_is_caffes(name: str) -> None:
    compared(ODD[name], graph_of(ODD[name]))


@pytest.mark.parametrize("name", [name for name in ODD if "exposed" not in name])
def test_the_lines_of_debug_info_are_caffes(name: str) -> None:
    """A bottom into which no gradient came has 0, whatever others of its blob got; a shared blob's number stands."""
    shared = ODD[name].replace("num_output: 3 }", "num_output: 3 } param { name: 'w' } param { lr_mult: 0 }")
    slow, net, feeds = both(shared, graph_of(shared))
    slow.forward()
    slow.backward()
    watched = net.watched(feeds, True)
    ours = [(one.layer, one.what, one.blob) for one in (*watched.forward, *watched.backward)]
    assert ours == [one[:3] for one in slow.said]
    for one, theirs in zip((*watched.forward, *watched.backward), slow.said, strict=True):
        assert one.mean == pytest.approx(theirs[3], rel=1e-5, abs=1e-9), theirs


def test_what_a_pass_leaves_in_the_gradient_of_a_loss_goes_on_in_another_net() -> None:
    text = ODD["a reader's gradient replaces the weight 1 of a loss"]
    feeds = {"x": X, "label": LABEL}
    one, other = (build(graph_of(text), FLOAT64) for _ in range(2))
    first, second = (one.backward(feeds).loss for _ in range(2))
    assert second == pytest.approx(first * 4 / 3), "2 of the loss in place of 1, and the 2 of its reader"
    other.carry(one.carried())
    assert other.forward(feeds).loss == second


@pytest.mark.parametrize("group", range(6))
def test_nets_that_chance_makes_have_caffes_losses_and_gradients(group: int) -> None:
    made = 0
    for seed in range(group * 15, group * 15 + 15):
        text = Chance(seed).text() + "force_backward: true" * (seed % 5 == 0)
        with contextlib.suppress(NetError):  # of a blob that is read twice and overwritten in place
            graph = graph_of(text)
            compared(text, graph)
            made += 1
    assert made > 10


class Chance:
    """A net of layers of two axes, some of them read several times, with losses and weights anywhere."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.lines = inputs(x=X.shape, label=LABEL.shape)
        self.widths = {"x": 4}
        self.numbers: list[str] = []
        self.fresh: list[str] = []

    def text(self) -> str:
        for number in range(self.random.randint(4, 12)):
            kinds = (
                self.product, self.product, self.pointwise, self.pointwise, self.in_place, self.eltwise, self.slice,
                self.concat, self.reduction, self.loss, self.loss, self.silence, self.parameter, self.of_numbers,
            )  # fmt: skip
            self.random.choice(kinds)(f"b{number}")
        self.add("InnerProduct", [self.pick()], ["last"], "inner_product_param { num_output: 3 }")
        self.add("SoftmaxWithLoss", ["last", "label"], ["loss"])
        return self.lines

    def add(self, kind: str, bottoms: list[str], tops: list[str], body: str = "") -> None:
        if bottoms and "label" not in bottoms and self.random.random() < 0.06:
            body += "".join(f" propagate_down: {self.random.choice(['true', 'false'])}" for _ in bottoms)
        self.fresh = [one for one in self.fresh if one not in bottoms]
        self.lines += layer(kind, " ".join(bottoms), " ".join(tops), body, name=f"L{self.lines.count('layer {')}")

    def pick(self, width: int | None = None) -> str:
        return self.random.choice([one for one, has in self.widths.items() if width in (None, has)])

    def weight(self, tops: int = 1) -> str:
        if self.random.random() > 0.2:
            return ""
        return "".join(f" loss_weight: {self.random.choice([0, 0.5, 2])}" for _ in range(tops))

    def product(self, top: str) -> None:
        width = self.random.choice([2, 4, 4])
        rates = "".join(
            f" param {{ {self.random.choice(['', 'lr_mult: 0', 'lr_mult: 2', 'decay_mult: 0'])} }}"
            for _ in range(self.random.randint(0, 2))
        )
        self.add(
            "InnerProduct", [self.pick()], [top], f"inner_product_param {{ num_output: {width} }}{rates}{self.weight()}"
        )
        self.widths[top] = width
        self.fresh.append(top)

    def pointwise(self, top: str) -> None:
        bottom = self.pick()
        power = (
            f"power_param {{ power: {self.random.choice([1, 2])} scale: -1.5 shift: {self.random.choice([0, 0.3])} }}"
        )
        relu = f"relu_param {{ negative_slope: {self.random.choice([0, 0.2])} }}"
        kind, body = self.random.choice([("Power", power), ("ReLU", relu)])
        self.add(kind, [bottom], [top], body + self.weight())
        self.widths[top] = self.widths[bottom]

    def in_place(self, top: str) -> None:
        if self.fresh:
            bottom = self.random.choice(self.fresh)
            self.add("ReLU", [bottom], [bottom], "relu_param { negative_slope: 0.2 }")

    def eltwise(self, top: str) -> None:
        width = self.widths[self.pick()]
        bottoms = [self.pick(width) for _ in range(self.random.randint(2, 3))]
        kind = self.random.choice(["SUM", "PROD", "MAX"])
        coeff = "".join(f" coeff: {self.random.choice([1, -0.5, 2])}" for _ in bottoms) if kind == "SUM" else ""
        self.add("Eltwise", bottoms, [top], f"eltwise_param {{ operation: {kind}{coeff} }}{self.weight()}")
        self.widths[top] = width

    def slice(self, top: str) -> None:
        bottom = self.pick()
        if self.widths[bottom] > 1:
            self.add("Slice", [bottom], [f"{top}a", f"{top}b"], f"slice_param {{ slice_point: 1 }}{self.weight(2)}")
            self.widths |= {f"{top}a": 1, f"{top}b": self.widths[bottom] - 1}

    def concat(self, top: str) -> None:
        bottoms = [self.pick() for _ in range(self.random.randint(2, 3))]
        self.add("Concat", bottoms, [top], self.weight())
        self.widths[top] = sum(self.widths[one] for one in bottoms)

    def reduction(self, top: str) -> None:
        self.add("Reduction", [self.pick()], [top], f"reduction_param {{ coeff: 0.3 }}{self.weight()}")
        self.numbers.append(top)

    def loss(self, top: str) -> None:
        bottom = self.pick()
        tops = [top] if self.random.random() < 0.7 else []
        if self.random.random() < 0.5:
            self.add("EuclideanLoss", [bottom, self.pick(self.widths[bottom])], tops, self.weight())
        elif self.widths[bottom] > 1:
            self.add("SoftmaxWithLoss", [bottom, "label"], tops, self.weight())
        else:
            return
        self.numbers += tops

    def silence(self, top: str) -> None:
        self.add("Silence", [self.pick()], [])

    def parameter(self, top: str) -> None:
        rate = self.random.choice(["", " param { lr_mult: 0 }"])
        self.add("Parameter", [], [top], f"parameter_param {{ shape {{ dim: {ITEMS} dim: 4 }} }}{rate}")
        self.widths[top] = 4

    def of_numbers(self, top: str) -> None:
        if len(self.numbers) > 1 and self.random.random() < 0.5:
            bottoms = [self.random.choice(self.numbers) for _ in range(2)]
            self.add("Eltwise", bottoms, [top], f"eltwise_param {{ coeff: 0.5 coeff: 2 }}{self.weight()}")
        elif self.numbers:
            body = f"power_param {{ power: 2 scale: 0.5 shift: 0.1 }}{self.weight()}"
            self.add("Power", [self.random.choice(self.numbers)], [top], body)
        else:
            return
        self.numbers.append(top)
