"""The operations of a lowered graph in torch, each as ONNX defines it (opset 17).

Shapes, axes and counts come as Python numbers, all else as tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Attributes = Mapping[str, Any]
Inputs = Sequence[Any]
Operation = Callable[[Inputs, Attributes], Tensor | Sequence[Tensor]]

_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}
_TYPES = {1: torch.float32, 7: torch.int64, 9: torch.bool, 11: torch.float64}


def _convolution(x: Inputs, a: Attributes) -> Tensor:
    """Padding is the same at both ends, as Caffe's is."""
    axes = x[1].ndim - 2
    bias = x[2] if len(x) > 2 else None
    none, one = [0] * axes, [1] * axes
    return _CONV[axes](x[0].to(x[1].dtype), x[1], bias, tuple(a.get("strides", one)), tuple(a.get("pads", none)[:axes]),
                       tuple(a.get("dilations", one)), a.get("group", 1))  # fmt: skip


def _transposed(x: Inputs, a: Attributes) -> Tensor:
    axes = x[1].ndim - 2
    bias = x[2] if len(x) > 2 else None
    sizes = tuple(a["strides"]), tuple(a["pads"][:axes]), 0, a["group"], tuple(a["dilations"])
    return _TRANSPOSED[axes](x[0].to(x[1].dtype), x[1], bias, *sizes)


def _framed(x: Tensor, pads: Sequence[int], value: float) -> Tensor:
    axes = len(pads) // 2
    if not any(pads):
        return x
    ends = [side for axis in reversed(range(axes)) for side in (pads[axis], pads[axes + axis])]
    return functional.pad(x, ends, value=value)


def _max_pool(x: Inputs, a: Attributes) -> Tensor:
    return functional.max_pool2d(_framed(x[0], a["pads"], float("-inf")), a["kernel_shape"], a["strides"])


def _average_pool(x: Inputs, a: Attributes) -> Tensor:
    return functional.avg_pool2d(_framed(x[0], a["pads"], 0.0), a["kernel_shape"], a["strides"])


def _lrn(x: Inputs, a: Attributes) -> Tensor:
    """In float32, since squares leave the range of half precision; along the channels, which lie side by side."""
    batch, channels, *places = x[0].shape
    last = x[0].float().movedim(1, -1)
    rows = last.square().reshape(-1, 1, channels)
    means = functional.avg_pool1d(rows, a["size"], 1, a["size"] // 2).reshape(batch, *places, channels)
    return (last * (means * a["alpha"] + a["bias"]).pow(-a["beta"])).movedim(-1, 1).to(x[0].dtype)


def _reshape(x: Inputs, a: Attributes) -> Tensor:
    return x[0].reshape(x[1])


def _gather(x: Inputs, a: Attributes) -> Tensor:
    axis = a.get("axis", 0)
    index = x[1]
    flat = torch.index_select(x[0], axis, index.reshape(-1))
    return flat.reshape(*x[0].shape[:axis], *index.shape, *x[0].shape[axis + 1 :])


def _gemm(x: Inputs, a: Attributes) -> Tensor:
    weights = x[1] if a.get("transB") else x[1].T
    return functional.linear(x[0].to(weights.dtype), weights, x[2] if len(x) > 2 else None)


def _slice(x: Inputs, a: Attributes) -> Tensor:
    places = zip(x[1], x[2], strict=True)
    return x[0][tuple(slice(begin, end) for begin, end in places)]


def _split(x: Inputs, a: Attributes) -> Sequence[Tensor]:
    return tuple(torch.split(x[0], x[1], a["axis"]))


def _reduce_sum(x: Inputs, a: Attributes) -> Tensor:
    return x[0].sum(x[1], keepdim=bool(a["keepdims"]))


def _reduce_mean(x: Inputs, a: Attributes) -> Tensor:
    return x[0].mean(list(a["axes"]), keepdim=bool(a["keepdims"]))


def _top_k(x: Inputs, a: Attributes) -> Sequence[Tensor]:
    """The earlier of equals first, which torch.topk does not promise."""
    values, places = torch.sort(x[0], dim=a["axis"], descending=True, stable=True)
    count = int(x[1][0])
    return values.narrow(a["axis"], 0, count), places.narrow(a["axis"], 0, count)


def _cast(x: Inputs, a: Attributes) -> Tensor:
    return x[0].to(_TYPES[a["to"]])


def _clip(x: Inputs, a: Attributes) -> Tensor:
    return torch.minimum(torch.maximum(x[0], x[1]), x[2])


def _pad(x: Inputs, a: Attributes) -> Tensor:
    """Of spatial axes only."""
    pads = x[1]
    axes = len(pads) // 2
    return _framed(x[0], [*pads[2:axes], *pads[axes + 2 :]], float(x[2]))


OPERATIONS: dict[str, Operation] = {
    "Abs": lambda x, a: x[0].abs(),
    "Add": lambda x, a: x[0] + x[1],
    "ArgMax": lambda x, a: x[0].argmax(a["axis"], keepdim=bool(a["keepdims"])),
    "AveragePool": _average_pool,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda x, a: torch.cat(list(x), a["axis"]),
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "Div": lambda x, a: x[0] / x[1],
    "Elu": lambda x, a: functional.elu(x[0], a["alpha"]),
    "Equal": lambda x, a: x[0] == x[1],
    "Exp": lambda x, a: x[0].exp(),
    "Expand": lambda x, a: x[0].expand(x[1]),
    "Gather": _gather,
    "GatherElements": lambda x, a: torch.gather(x[0], a["axis"], x[1]),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda x, a: x[0].mean((2, 3), keepdim=True),
    "Greater": lambda x, a: x[0] > x[1],
    "GreaterOrEqual": lambda x, a: x[0] >= x[1],
    "LRN": _lrn,
    "LeakyRelu": lambda x, a: functional.leaky_relu(x[0], a["alpha"]),
    "Less": lambda x, a: x[0] < x[1],
    "Log": lambda x, a: x[0].log(),
    "MatMul": lambda x, a: x[0] @ x[1],
    "Max": lambda x, a: torch.maximum(x[0], x[1]),
    "MaxPool": _max_pool,
    "Mul": lambda x, a: x[0] * x[1],
    "Neg": lambda x, a: -x[0],
    "PRelu": lambda x, a: torch.where(x[0] >= 0, x[0], x[0] * x[1]),
    "Pad": _pad,
    "Pow": lambda x, a: torch.pow(x[0], x[1]),
    "ReduceMean": _reduce_mean,
    "ReduceSum": _reduce_sum,
    "Relu": lambda x, a: functional.relu(x[0]),
    "Reshape": _reshape,
    "Sigmoid": lambda x, a: x[0].sigmoid(),
    "Slice": _slice,
    "Softmax": lambda x, a: functional.softmax(x[0], a["axis"]),
    "Split": _split,
    "Sqrt": lambda x, a: x[0].sqrt(),
    "Sub": lambda x, a: x[0] - x[1],
    "Tanh": lambda x, a: x[0].tanh(),
    "Tile": lambda x, a: x[0].repeat(x[1]),
    "TopK": _top_k,
    "Transpose": lambda x, a: x[0].permute(a["perm"]),
    "Where": lambda x, a: torch.where(x[0], x[1], x[2]),
}
