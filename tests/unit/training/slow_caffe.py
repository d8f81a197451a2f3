"""Caffe's Net in NumPy, slow and to the letter: blobs with data and diff, layers that run one after another.

It is written from what Caffe's sources do (net.cpp, insert_splits.cpp, layers/*.cpp), with no autograd and nothing of
the product's: each layer writes the diff of its bottoms into their memory, and what nobody writes stays as it was.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray

from pipeline.codec import caffe_pb2

Array = NDArray[np.float64]
LOSSES = ("SoftmaxWithLoss", "EuclideanLoss", "SigmoidCrossEntropyLoss", "HingeLoss")


class Blob:
    """Values and their gradients; both may be another blob's memory."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.data: Array = np.zeros(shape)
        self.diff: Array = np.zeros(shape)

    def share(self, other: Blob, shape: tuple[int, ...] | None = None) -> None:
        self.data, self.diff = (
            other.data.reshape(shape or other.data.shape),
            other.diff.reshape(shape or other.diff.shape),
        )


@dataclass
class Layer:
    """A layer as Net::Init leaves it."""

    spec: caffe_pb2.LayerParameter
    bottoms: list[Blob]
    tops: list[Blob]
    blobs: list[Blob] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    backward: bool = False
    down: list[bool] = field(default_factory=list)
    learns: list[bool] = field(default_factory=list)
    top_names: list[str] = field(default_factory=list)
    memory: dict[str, Any] = field(default_factory=dict)


@dataclass
class Learnable:
    """One of Net::learnable_params, with the rates that a solver has for it."""

    layer: str
    blob: Blob
    lr: float
    decay: float
    has: set[str]


class Net:
    """Net::Init of a text of today's form whose layers are all of one phase."""

    def __init__(self, text: str) -> None:
        net = caffe_pb2.NetParameter()
        text_format.Parse(text, net)
        self.layers: list[Layer] = []
        self.learnable: list[Learnable] = []
        self.inputs: dict[str, Blob] = {}
        blobs: dict[str, Blob] = {}
        needed: dict[str, bool] = {}
        named: dict[str, tuple[Blob, Learnable]] = {}
        for spec in insert_splits(list(net.layer)):
            self._set_up(spec, blobs, needed, named)
        self._contributions()
        if net.force_backward:
            self._forced()

    def _set_up(
        self,
        spec: caffe_pb2.LayerParameter,
        blobs: dict[str, Blob],
        needed: dict[str, bool],
        named: dict[str, tuple[Blob, Learnable]],
    ) -> None:
        one = Layer(spec, [blobs[name] for name in spec.bottom], [])
        one.down = [needed[name] for name in spec.bottom]
        one.backward = any(one.down)
        if spec.propagate_down:
            one.down = list(spec.propagate_down)
        shapes, learned = KINDS[spec.type].shapes(one)
        names = list(spec.top)
        if spec.type in LOSSES and not names:
            names = ["(automatic)"]
        for index, (name, shape) in enumerate(zip(names, shapes, strict=True)):
            in_place = index < len(spec.bottom) and spec.bottom[index] == name
            top = one.bottoms[index] if in_place else Blob(shape)
            one.tops.append(top)
            blobs[name] = top
        one.top_names = names
        if spec.type == "Input":
            self.inputs.update(zip(spec.top, one.tops, strict=True))
        given = list(spec.loss_weight) or ([1.0] if spec.type in LOSSES else [])
        if given:
            assert len(given) == len(one.tops)
        one.weights = given or [0.0] * len(one.tops)
        for top, weight in zip(one.tops, one.weights, strict=True):
            if weight:
                top.diff[...] = weight
        one.blobs = [Blob(shape) for shape in learned]
        specs = [spec.param[at] if at < len(spec.param) else caffe_pb2.ParamSpec() for at in range(len(learned))]
        one.learns = [given.lr_mult != 0 for given in specs]
        one.backward |= any(one.learns)
        for at, given_ in enumerate(specs):
            self._append_param(one, at, given_, named)
        if spec.type == "Parameter":
            one.tops[0].share(one.blobs[0])
        for name in names:
            needed[name] = needed.get(name, False) or one.backward
        self.layers.append(one)

    def _append_param(
        self, one: Layer, at: int, given: caffe_pb2.ParamSpec, named: dict[str, tuple[Blob, Learnable]]
    ) -> None:
        has = {what for what in ("lr_mult", "decay_mult") if given.HasField(what)}
        if given.name and given.name in named:
            blob, learnable = named[given.name]
            one.blobs[at].share(blob, one.blobs[at].data.shape)
            if "lr_mult" in has and "lr_mult" not in learnable.has:
                learnable.lr = given.lr_mult
            if "decay_mult" in has and "decay_mult" not in learnable.has:
                learnable.decay = given.decay_mult
            learnable.has |= has
            return
        learnable = Learnable(one.spec.name, one.blobs[at], given.lr_mult, given.decay_mult, has)
        self.learnable.append(learnable)
        if given.name:
            named[given.name] = (one.blobs[at], learnable)

    def _contributions(self) -> None:
        under, skip = set[str](), set[str]()
        for one in reversed(self.layers):
            contributes = any(w or name in under for w, name in zip(one.weights, one.top_names, strict=True))
            skipped = all(name in skip for name in one.top_names)
            if one.backward and skipped:
                one.backward, one.down = False, [False] * len(one.down)
            if not contributes:
                one.backward = False
            for at, name in enumerate(one.spec.bottom):
                if contributes:
                    under.add(name)
                else:
                    one.down[at] = False
                if not one.down[at]:
                    skip.add(name)

    def _forced(self) -> None:
        """Every layer goes back, into all that Layer::AllowForceBackward allows: labels are left out."""
        for one in self.layers:
            one.backward = True
            label = one.spec.type in ("SoftmaxWithLoss", "LSTM")
            one.down = [has or not (label and at == 1) for at, has in enumerate(one.down)]
            one.learns = [True] * len(one.learns)

    def forward(self) -> float:
        """The loss: each top with a loss weight times what stands in its diff at this time."""
        loss, self.said = 0.0, list[tuple[str, str, str, float]]()
        for one in self.layers:
            KINDS[one.spec.type].forward(one)
            self._say(one, "top", one.top_names, [top.data for top in one.tops])
            params = [one.spec.param[at].name if at < len(one.spec.param) else "" for at in range(len(one.blobs))]
            self._say(one, "param", [name or str(at) for at, name in enumerate(params)], [b.data for b in one.blobs])
            for top, weight in zip(one.tops, one.weights, strict=True):
                if weight:
                    loss += float((top.data * top.diff).sum())
        return loss

    def backward(self) -> None:
        for one in reversed(self.layers):
            if one.backward:
                KINDS[one.spec.type].backward(one)
                below = [at for at, has in enumerate(one.down) if has]
                names = [one.spec.bottom[at] for at in below]
                self._say(one, "bottom", names, [one.bottoms[at].diff for at in below])
                learns = [at for at, has in enumerate(one.learns) if has]
                self._say(one, "param", list(map(str, learns)), [one.blobs[at].diff for at in learns])

    def _say(self, one: Layer, what: str, names: list[str], values: list[Array]) -> None:
        """What debug_info prints of a layer, as soon as it has run."""
        means = [float(np.abs(value).mean()) for value in values]
        self.said += [(one.spec.name, what, name, mean) for name, mean in zip(names, means, strict=True)]

    def clear(self) -> None:
        for learnable in self.learnable:
            learnable.blob.diff[...] = 0


def insert_splits(layers: list[caffe_pb2.LayerParameter]) -> list[caffe_pb2.LayerParameter]:
    """A Split layer behind each top with two readers or more; a loss weight is a reader, and moves to the Split."""
    last: dict[str, tuple[int, int]] = {}
    source: dict[tuple[int, int], tuple[int, int]] = {}
    count: Counter[tuple[int, int]] = Counter()
    weights: dict[tuple[int, int], float] = {}
    for number, spec in enumerate(layers):
        for at, name in enumerate(spec.bottom):
            source[number, at] = last[name]
            count[last[name]] += 1
        for at, name in enumerate(spec.top):
            last[name] = (number, at)
        for at in range(min(len(spec.loss_weight), len(spec.top))):
            place = last[spec.top[at]]
            weights[place] = spec.loss_weight[at]
            count[place] += bool(weights[place])
    found, used = [], Counter[tuple[int, int]]()
    for number, spec in enumerate(layers):
        own = caffe_pb2.LayerParameter()
        own.CopyFrom(spec)
        found.append(own)
        for at in range(len(spec.bottom)):
            place = source[number, at]
            if count[place] > 1:
                own.bottom[at] = _split_name(layers, place, used[place])
                used[place] += 1
        for at, name in enumerate(spec.top):
            place = (number, at)
            if count[place] > 1:
                split = caffe_pb2.LayerParameter(name=_split_name(layers, place), type="Split", bottom=[name])
                split.top.extend(_split_name(layers, place, copy) for copy in range(count[place]))
                found.append(split)
                if weights.get(place):
                    split.loss_weight.extend([weights[place], *[0.0] * (count[place] - 1)])
                    own.ClearField("loss_weight")
                    used[place] += 1
    return found


def _split_name(layers: list[caffe_pb2.LayerParameter], place: tuple[int, int], copy: int | None = None) -> str:
    spec = layers[place[0]]
    stem = f"{spec.top[place[1]]}_{spec.name}_{place[1]}_split"
    return stem if copy is None else f"{stem}_{copy}"


Shapes = tuple[list[tuple[int, ...]], list[tuple[int, ...]]]


@dataclass(frozen=True)
class Kind:
    """shapes: of the tops, and of the learned blobs."""

    shapes: Callable[[Layer], Shapes]
    forward: Callable[[Layer], None]
    backward: Callable[[Layer], None]


def _same(one: Layer) -> Shapes:
    return [one.bottoms[0].data.shape] * max(1, len(one.spec.top)), []


def _nothing(one: Layer) -> None:
    pass


def _split_forward(one: Layer) -> None:
    for top in one.tops:
        top.data[...] = one.bottoms[0].data


def _split_backward(one: Layer) -> None:
    if one.down[0]:
        one.bottoms[0].diff[...] = sum(top.diff for top in one.tops)


def _product_shapes(one: Layer) -> Shapes:
    x, p = one.bottoms[0].data, one.spec.inner_product_param
    return [(x.shape[0], p.num_output)], [(p.num_output, x[0].size), (p.num_output,)]


def _product_forward(one: Layer) -> None:
    x = one.bottoms[0].data
    one.tops[0].data[...] = x.reshape(len(x), -1) @ one.blobs[0].data.T + one.blobs[1].data


def _product_backward(one: Layer) -> None:
    x, above = one.bottoms[0].data, one.tops[0].diff
    if one.learns[0]:
        one.blobs[0].diff[...] += above.T @ x.reshape(len(x), -1)
    if one.learns[1]:
        one.blobs[1].diff[...] += above.sum(0)
    if one.down[0]:
        one.bottoms[0].diff[...] = (above @ one.blobs[0].data).reshape(x.shape)


def _power_forward(one: Layer) -> None:
    p = one.spec.power_param
    one.tops[0].data[...] = (p.shift + p.scale * one.bottoms[0].data) ** p.power


def _power_backward(one: Layer) -> None:
    p = one.spec.power_param
    if one.down[0]:
        slope = p.power * p.scale * (p.shift + p.scale * one.bottoms[0].data) ** (p.power - 1)
        one.bottoms[0].diff[...] = one.tops[0].diff * slope


def _relu_forward(one: Layer) -> None:
    x, slope = one.bottoms[0].data, one.spec.relu_param.negative_slope
    one.tops[0].data[...] = np.maximum(x, 0) + slope * np.minimum(x, 0)


def _relu_backward(one: Layer) -> None:
    if one.down[0]:
        x, slope = one.bottoms[0].data, one.spec.relu_param.negative_slope
        one.bottoms[0].diff[...] = one.tops[0].diff * ((x > 0) + slope * (x <= 0))


def _eltwise_forward(one: Layer) -> None:
    p, top = one.spec.eltwise_param, one.tops[0]
    values = [bottom.data.copy() for bottom in one.bottoms]
    if p.operation == p.PROD:
        top.data[...] = np.prod(values, axis=0)
    elif p.operation == p.SUM:
        top.data[...] = sum(c * v for c, v in zip(list(p.coeff) or [1.0] * len(values), values, strict=True))
    else:
        mask = np.where(values[0] > values[1], 0, 1)
        found = np.maximum(values[0], values[1])
        for at, other in enumerate(values[2:], start=2):
            mask = np.where(other > found, at, mask)
            found = np.maximum(found, other)
        top.data[...], one.memory["mask"] = found, mask


def _eltwise_backward(one: Layer) -> None:
    p, above = one.spec.eltwise_param, one.tops[0].diff
    for at, bottom in enumerate(one.bottoms):
        if not one.down[at]:
            continue
        if p.operation == p.PROD:
            others = [other.data for number, other in enumerate(one.bottoms) if number != at]
            bottom.diff[...] = np.prod(others, axis=0) * above
        elif p.operation == p.SUM:
            bottom.diff[...] = (p.coeff[at] if p.coeff else 1.0) * above
        else:
            bottom.diff[...] = above * (one.memory["mask"] == at)


def _slice_shapes(one: Layer) -> Shapes:
    x, cuts = one.bottoms[0].data, [0, *one.spec.slice_param.slice_point, one.bottoms[0].data.shape[1]]
    return [(x.shape[0], b - a, *x.shape[2:]) for a, b in itertools.pairwise(cuts)], []


def _pieces(wide: Array, parts: list[Blob], axis: int) -> list[Array]:
    ends = np.cumsum([part.data.shape[axis] for part in parts])[:-1]
    return np.split(wide, ends, axis)


def _slice_forward(one: Layer) -> None:
    for top, piece in zip(one.tops, _pieces(one.bottoms[0].data, one.tops, 1), strict=True):
        top.data[...] = piece


def _slice_backward(one: Layer) -> None:
    if one.down[0]:
        one.bottoms[0].diff[...] = np.concatenate([top.diff for top in one.tops], 1)


def _concat_shapes(one: Layer) -> Shapes:
    shape = list(one.bottoms[0].data.shape)
    shape[1] = sum(bottom.data.shape[1] for bottom in one.bottoms)
    return [tuple(shape)], []


def _concat_forward(one: Layer) -> None:
    one.tops[0].data[...] = np.concatenate([bottom.data for bottom in one.bottoms], 1)


def _concat_backward(one: Layer) -> None:
    for has, bottom, piece in zip(one.down, one.bottoms, _pieces(one.tops[0].diff, one.bottoms, 1), strict=True):
        if has:
            bottom.diff[...] = piece


def _reduction_forward(one: Layer) -> None:
    one.tops[0].data[...] = one.bottoms[0].data.sum() * one.spec.reduction_param.coeff


def _reduction_backward(one: Layer) -> None:
    if one.down[0]:
        one.bottoms[0].diff[...] = one.tops[0].diff * one.spec.reduction_param.coeff


def _euclidean_forward(one: Layer) -> None:
    one.memory["gap"] = one.bottoms[0].data - one.bottoms[1].data
    one.tops[0].data[...] = (one.memory["gap"] ** 2).sum() / len(one.bottoms[0].data) / 2


def _euclidean_backward(one: Layer) -> None:
    for at, sign in enumerate((1, -1)):
        if one.down[at]:
            one.bottoms[at].diff[...] = sign * one.tops[0].diff / len(one.bottoms[0].data) * one.memory["gap"]


def _softmax_loss_forward(one: Layer) -> None:
    x, label = one.bottoms[0].data, one.bottoms[1].data.astype(int).ravel()
    e = np.exp(x - x.max(1, keepdims=True))
    one.memory["p"] = e / e.sum(1, keepdims=True)
    true = one.memory["p"][np.arange(len(x)), label]
    one.tops[0].data[...] = -np.log(np.maximum(true, np.finfo(np.float32).tiny)).mean()


def _softmax_loss_backward(one: Layer) -> None:
    assert not one.down[1]
    if one.down[0]:
        x, label = one.bottoms[0].data, one.bottoms[1].data.astype(int).ravel()
        found = one.memory["p"].copy()
        found[np.arange(len(x)), label] -= 1
        one.bottoms[0].diff[...] = found * one.tops[0].diff / len(x)


def _silence_backward(one: Layer) -> None:
    for has, bottom in zip(one.down, one.bottoms, strict=True):
        if has:
            bottom.diff[...] = 0


def _reshape_forward(one: Layer) -> None:
    one.tops[0].share(one.bottoms[0], one.tops[0].data.shape)


def _reshape_backward(one: Layer) -> None:
    """The bottom's gradient is the top's: one memory."""


def _recurrent_shapes(one: Layer) -> Shapes:
    x, out = one.bottoms[0].data, one.spec.recurrent_param.num_output
    lstm = one.spec.type == "LSTM"
    gates, hidden = (4 if lstm else 1) * out, (1, x.shape[1], out)
    learned = [(gates, x[0, 0].size), (gates,), (gates, out)]
    learned += [] if lstm else [(out, out), (out,)]
    return [(*x.shape[:2], out), *[hidden] * (len(one.spec.top) - 1)], learned


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _lstm_forward(one: Layer) -> None:
    """lstm_unit_layer.cpp, step by step; the hidden states are fed, or those that the pass before left."""
    x, cont = one.bottoms[0].data, one.bottoms[1].data[:, :, None]
    wx, b, wh = (blob.data for blob in one.blobs)
    out, memory = wh.shape[1], one.memory
    exposed = one.spec.recurrent_param.expose_hidden
    h = one.bottoms[-2].data[0] if exposed else memory.get("h", np.zeros((x.shape[1], out)))
    c = one.bottoms[-1].data[0] if exposed else memory.get("c", np.zeros((x.shape[1], out)))
    memory["steps"] = []
    for t in range(len(x)):
        gates = x[t].reshape(len(x[t]), -1) @ wx.T + b + (h * cont[t]) @ wh.T
        i, f, o = (_sigmoid(gates[:, k * out : (k + 1) * out]) for k in range(3))
        g = np.tanh(gates[:, 3 * out :])
        f = np.where(cont[t] == 0, 0, cont[t] * f)
        before = (h, c)
        c = f * c + i * g
        h = o * np.tanh(c)
        memory["steps"].append((before, i, f, o, g, c))
        one.tops[0].data[t] = h
    memory["h"], memory["c"] = h, c
    if exposed:
        one.tops[1].data[...], one.tops[2].data[...] = h, c


def _lstm_backward(one: Layer) -> None:
    """Into x and all learned blobs, whatever their rates; nothing comes from or goes to exposed states."""
    x, cont = one.bottoms[0].data, one.bottoms[1].data[:, :, None]
    wx, b, wh = one.blobs
    dh, dc = (np.zeros_like(one.memory["h"]) for _ in range(2))
    dx = np.zeros_like(x)
    for t in reversed(range(len(x))):
        (h0, c0), i, f, o, g, c = one.memory["steps"][t]
        dh = dh + one.tops[0].diff[t]
        tanh = np.tanh(c)
        dc = dc + dh * o * (1 - tanh**2)
        d = np.concatenate([dc * g * i * (1 - i), dc * c0 * f * (1 - f), dh * tanh * o * (1 - o),
                            dc * i * (1 - g**2)], 1)  # fmt: skip
        flat = x[t].reshape(len(x[t]), -1)
        wx.diff[...] += d.T @ flat
        b.diff[...] += d.sum(0)
        wh.diff[...] += d.T @ (h0 * cont[t])
        dx[t] = (d @ wx.data).reshape(x[t].shape)
        dh, dc = (d @ wh.data) * cont[t], dc * f
    one.bottoms[0].diff[...] = dx


KINDS: Mapping[str, Kind] = {
    "Input": Kind(lambda one: ([tuple(one.spec.input_param.shape[0].dim)], []), _nothing, _nothing),
    "Parameter": Kind(lambda one: ([tuple(one.spec.parameter_param.shape.dim)],
                                   [tuple(one.spec.parameter_param.shape.dim)]), _nothing, _nothing),
    "Split": Kind(_same, _split_forward, _split_backward),
    "InnerProduct": Kind(_product_shapes, _product_forward, _product_backward),
    "Power": Kind(_same, _power_forward, _power_backward),
    "ReLU": Kind(_same, _relu_forward, _relu_backward),
    "Eltwise": Kind(_same, _eltwise_forward, _eltwise_backward),
    "Slice": Kind(_slice_shapes, _slice_forward, _slice_backward),
    "Concat": Kind(_concat_shapes, _concat_forward, _concat_backward),
    "Reduction": Kind(lambda one: ([()], []), _reduction_forward, _reduction_backward),
    "EuclideanLoss": Kind(lambda one: ([()], []), _euclidean_forward, _euclidean_backward),
    "SoftmaxWithLoss": Kind(lambda one: ([()], []), _softmax_loss_forward, _softmax_loss_backward),
    "Reshape": Kind(lambda one: ([tuple(one.spec.reshape_param.shape.dim)], []), _reshape_forward, _reshape_backward),
    "Silence": Kind(lambda one: ([], []), _nothing, _silence_backward),
    "LSTM": Kind(_recurrent_shapes, _lstm_forward, _lstm_backward),
}  # fmt: skip
