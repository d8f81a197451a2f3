"""LSTM and RNN, unrolled over their time axis (lstm_layer.cpp, lstm_unit_layer.cpp, rnn_layer.cpp)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pipeline.amounts import counted
from pipeline.codec import caffe_pb2
from pipeline.nets.graph.lowered import Lowered, Shape, Value
from pipeline.nets.layers.registry import Layer, Parameter, register, text


class _Recurrent(Layer):
    """Bottoms: x (T, N, ...), cont (T, N), then a static input (N, ...) and, exposed, the hidden states (1, N, D).

    Caffe carries hidden states from one pass to the next where cont begins with 1; here each pass begins with zeros, as
    Caffe's first one does, so that a row depends on nothing that ran before.  A sequence that goes on in another pass
    needs expose_hidden, and its states fed.
    """

    bottoms = (2, None)
    tops = (1, None)
    states = 1
    gates = 1

    @property
    def p(self) -> caffe_pb2.RecurrentParameter:
        return self.spec.recurrent_param

    def split(self, bottoms: Sequence[Shape]) -> tuple[bool, bool]:
        """Whether there is a static input, and whether hidden states are exposed."""
        exposed = self.p.expose_hidden
        rest = len(bottoms) - 2 - (self.states if exposed else 0)
        if rest not in (0, 1):
            raise self.refuse(f"has {len(bottoms)} bottoms; it takes x, cont, one static input at most"
                              + (f" and {self.states} hidden states" if exposed else ""))  # fmt: skip
        return rest == 1, exposed

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        static, exposed = self.split(bottoms)
        x, cont = bottoms[:2]
        if self.p.num_output < 1:
            raise self.refuse("num_output must be positive")
        if len(x) < 2 or cont != x[:2]:
            raise self.refuse(f"cont must have the time and batch axes of x: {text(cont)} and {text(x)}")
        if static and bottoms[2][0] != x[1]:
            raise self.refuse(f"the static input has {counted(bottoms[2][0], 'item')}, x has {x[1]}")
        hidden = (1, x[1], self.p.num_output)
        if exposed and any(bottom != hidden for bottom in bottoms[-self.states :]):
            raise self.refuse(f"hidden states must have the shape {text(hidden)}")
        tops = 1 + (self.states if exposed else 0)
        if len(self.spec.top) != tops:
            raise self.refuse(f"has {len(self.spec.top)} tops; it makes {tops}")
        return [(x[0], x[1], self.p.num_output), *[hidden] * (tops - 1)]

    def parameters(self, bottoms: Sequence[Shape]) -> list[Parameter]:
        self.shapes(bottoms)
        static, _ = self.split(bottoms)
        size, out = self.gates * self.p.num_output, self.p.num_output
        found = [Parameter((size, math.prod(bottoms[0][2:])), self.p.weight_filler),
                 Parameter((size,), self.p.bias_filler)]  # fmt: skip
        if static:
            found.append(Parameter((size, math.prod(bottoms[2][1:])), self.p.weight_filler))
        return [*found, Parameter((size, out), self.p.weight_filler)]

    def fillings(self, bottoms: Sequence[Shape]) -> list[int]:
        """Caffe's layer is a net of its own: a layer for x, one for the static input, and for each time step layers
        that share their blobs with those of the first step; each of them runs its fillers as it is set up."""
        whole = super().fillings(bottoms)
        once = 3 if self.split(bottoms)[0] else 2
        return whole[:once] + whole[once:] * bottoms[0][0]

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        static, exposed = self.split([bottom.shape for bottom in bottoms])
        x, cont = bottoms[:2]
        steps, items, out = x.shape[0], x.shape[1], self.p.num_output
        size = self.gates * out
        blobs = list(parameters)
        flat = graph.reshape(x, (steps * items, math.prod(x.shape[2:])))
        from_x = _times(graph, flat, blobs.pop(0), blobs.pop(0))
        if static:
            added = _times(graph, graph.reshape(bottoms[2], (items, math.prod(bottoms[2].shape[1:]))), blobs.pop(0))
            from_x = graph.add(graph.reshape(from_x, (steps, items, size)), added)
        gates = _by_step(graph, from_x, (steps, items, size))
        going = _by_step(graph, cont, (steps, items, 1))
        zero = graph.constant(np.zeros((items, out), np.float32))
        states = [graph.reshape(one, (items, out)) for one in bottoms[-self.states :]] if exposed else []
        states = states or [zero] * self.states
        tops = []
        for step in range(steps):
            top, states = self.step(graph, gates[step], going[step], states, blobs)
            tops.append(graph.reshape(top, (1, items, out)))
        whole = graph("Concat", tops, (steps, items, out), axis=0)
        return [whole, *[graph.reshape(one, (1, items, out)) for one in states]] if exposed else [whole]

    def step(self, graph: Lowered, x: Value, going: Value, states: list[Value],
             blobs: Sequence[Value]) -> tuple[Value, list[Value]]:  # fmt: skip
        raise NotImplementedError


@register("LSTM")
class LSTM(_Recurrent):
    states = 2
    gates = 4

    def step(self, graph: Lowered, x: Value, going: Value, states: list[Value],
             blobs: Sequence[Value]) -> tuple[Value, list[Value]]:  # fmt: skip
        hidden, cell = states
        gates = graph.add(x, _times(graph, graph.mul(hidden, going), blobs[0]))
        sizes = graph.constant(np.full(4, self.p.num_output))
        i, f, o, g = graph.many("Split", [gates, sizes], [hidden.shape] * 4, axis=1)
        i, f, o = (graph("Sigmoid", [one], hidden.shape) for one in (i, f, o))
        g = graph("Tanh", [g], hidden.shape)
        cell = graph.add(graph.mul(graph.mul(f, going), cell), graph.mul(i, g))
        hidden = graph.mul(o, graph("Tanh", [cell], hidden.shape))
        return hidden, [hidden, cell]


@register("RNN")
class RNN(_Recurrent):
    """h = tanh(W_hh h + W_xh x + b), o = tanh(W_ho h + b_o); the top is o."""

    def parameters(self, bottoms: Sequence[Shape]) -> list[Parameter]:
        out = self.p.num_output
        return [*super().parameters(bottoms), Parameter((out, out), self.p.weight_filler),
                Parameter((out,), self.p.bias_filler)]  # fmt: skip

    def step(self, graph: Lowered, x: Value, going: Value, states: list[Value],
             blobs: Sequence[Value]) -> tuple[Value, list[Value]]:  # fmt: skip
        inner = graph.add(x, _times(graph, graph.mul(states[0], going), blobs[0]))
        hidden = graph("Tanh", [inner], inner.shape)
        return graph("Tanh", [_times(graph, hidden, blobs[1], blobs[2])], hidden.shape), [hidden]


def _times(graph: Lowered, x: Value, weights: Value, *bias: Value) -> Value:
    return graph("Gemm", [x, weights, *bias], (x.shape[0], weights.shape[0]), transB=1)


def _by_step(graph: Lowered, x: Value, shape: Shape) -> list[Value]:
    """(T, N, D) -> T values of (N, D)."""
    x = graph.reshape(x, shape)
    parts = graph.many("Split", [x, graph.constant(np.ones(shape[0], np.int64))], [(1, *shape[1:])] * shape[0], axis=0)
    return [graph.reshape(part, shape[1:]) for part in parts]
