"""The three full-size nets written by hand as ONNX, with nothing of pipeline.nets: what its speed is compared with.

Dropout is left out, BatchNorm and Scale are folded into the convolutions, only what the blob needs is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.golden import detgen
from tests.golden.bignets import SEED


@dataclass
class Writer:
    """Nodes and weights of one model; `banded`: LRN as a 1x1 convolution of squares."""

    banded: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def op(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        out = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [out], **attributes))
        return out

    def weight(self, array: NDArray[np.float32]) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        return name

    def conv(self, x: str, name: str, shape: tuple[int, ...], stride: int = 1, pad: int = 0, group: int = 1) -> str:
        w = detgen.fill(SEED, "Convolution", name, 0, shape)
        b = detgen.fill(SEED, "Convolution", name, 1, shape[:1])
        return self._conv(x, w, b, stride, pad, group)

    def _conv(self, x: str, w: NDArray[Any], b: NDArray[Any], stride: int, pad: int, group: int) -> str:
        return self.op("Conv", [x, self.weight(w), self.weight(b)], kernel_shape=list(w.shape[2:]), pads=[pad] * 4,
                       strides=[stride] * 2, group=group)  # fmt: skip

    def conv_bn(self, x: str, name: str, tag: str, shape: tuple[int, ...], stride: int = 1, pad: int = 0,
                bias: bool = False, scale: float = 1.0) -> str:  # fmt: skip
        w = detgen.fill(SEED, "Convolution", name, 0, shape, scale).astype(np.float64)
        b = detgen.fill(SEED, "Convolution", name, 1, shape[:1]) if bias else np.zeros(shape[0])
        channels = shape[:1]
        mean, variance = (detgen.fill(SEED, "BatchNorm", f"bn{tag}", i, channels) / detgen.BN_FACTOR for i in (0, 1))
        gamma, beta = (detgen.fill(SEED, "Scale", f"scale{tag}", i, channels) for i in (0, 1))
        factor = gamma / np.sqrt(variance.astype(np.float64) + 1e-5)
        return self._conv(x, w * factor[:, None, None, None], (b - mean) * factor + beta, stride, pad, 1)

    def relu(self, x: str) -> str:
        return self.op("Relu", [x])

    def pool(self, x: str, kernel: int, stride: int, pad: int = 0) -> str:
        return self.op("MaxPool", [x], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, ceil_mode=1)

    def lrn(self, x: str, channels: int) -> str:
        if not self.banded:
            return self.op("LRN", [x], size=5, alpha=1e-4, beta=0.75, bias=1.0)
        band = np.abs(np.subtract.outer(np.arange(channels), np.arange(channels))) <= 2
        square = self.op("Mul", [x, x])
        inner = self._conv(square, (band * 2e-5)[:, :, None, None], np.ones(channels), 1, 0, 1)
        root = self.op("Sqrt", [inner])
        return self.op("Div", [x, self.op("Mul", [root, self.op("Sqrt", [root])])])

    def fc(self, x: str, name: str, shape: tuple[int, int]) -> str:
        w, b = (detgen.fill(SEED, "InnerProduct", name, i, s) for i, s in enumerate((shape, shape[:1])))
        return self.op("Gemm", [x, self.weight(w), self.weight(b)], transB=1)

    def model(self, out: str, batch: int, size: int) -> bytes:
        data = helper.make_tensor_value_info("data", TensorProto.FLOAT, [batch, 3, size, size])
        graph = helper.make_graph(self.nodes, "hand", [data], [onnx.ValueInfoProto(name=out)], self.weights)
        graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return model.SerializeToString()


def caffenet(batch: int, banded: bool) -> bytes:
    w = Writer(banded)
    x = w.lrn(w.pool(w.relu(w.conv("data", "conv1", (96, 3, 11, 11), 4)), 3, 2), 96)
    x = w.lrn(w.pool(w.relu(w.conv(x, "conv2", (256, 48, 5, 5), 1, 2, 2)), 3, 2), 256)
    x = w.relu(w.conv(x, "conv3", (384, 256, 3, 3), 1, 1))
    x = w.relu(w.conv(x, "conv4", (384, 192, 3, 3), 1, 1, 2))
    x = w.op("Flatten", [w.pool(w.relu(w.conv(x, "conv5", (256, 192, 3, 3), 1, 1, 2)), 3, 2)])
    x = w.relu(w.fc(x, "fc6", (4096, 9216)))
    return w.model(w.relu(w.fc(x, "fc7", (4096, 4096))), batch, 227)


INCEPTION = {
    "3a": (192, 64, 96, 128, 16, 32, 32), "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64), "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64), "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128), "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}  # fmt: skip


def googlenet(batch: int, banded: bool) -> bytes:
    w = Writer(banded)
    x = w.lrn(w.pool(w.relu(w.conv("data", "conv1/7x7_s2", (64, 3, 7, 7), 2, 3)), 3, 2), 64)
    x = w.relu(w.conv(x, "conv2/3x3_reduce", (64, 64, 1, 1)))
    x = w.pool(w.lrn(w.relu(w.conv(x, "conv2/3x3", (192, 64, 3, 3), 1, 1)), 192), 3, 2)
    for module, (inputs, one, to3, three, to5, five, pooled) in INCEPTION.items():
        name = f"inception_{module}"
        a = w.relu(w.conv(x, f"{name}/1x1", (one, inputs, 1, 1)))
        b = w.relu(w.conv(x, f"{name}/3x3_reduce", (to3, inputs, 1, 1)))
        b = w.relu(w.conv(b, f"{name}/3x3", (three, to3, 3, 3), 1, 1))
        c = w.relu(w.conv(x, f"{name}/5x5_reduce", (to5, inputs, 1, 1)))
        c = w.relu(w.conv(c, f"{name}/5x5", (five, to5, 5, 5), 1, 2))
        d = w.relu(w.conv(w.pool(x, 3, 1, 1), f"{name}/pool_proj", (pooled, inputs, 1, 1)))
        x = w.op("Concat", [a, b, c, d], axis=1)
        if module in ("3b", "4e"):
            x = w.pool(x, 3, 2)
    return w.model(w.op("GlobalAveragePool", [x]), batch, 224)


def resnet50(batch: int, banded: bool) -> bytes:
    w = Writer(banded)
    x = w.conv_bn("data", "conv1", "_conv1", (64, 3, 7, 7), 2, 3, bias=True, scale=1 / 64)
    x, inputs = w.pool(w.relu(x), 3, 2), 64
    for stage, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 2):
        for block in range(blocks):
            tag = f"{stage}{'abcdef'[block]}"
            stride = 2 if block == 0 and stage > 2 else 1
            short = x
            if block == 0:
                name = f"{tag}_branch1"
                short = w.conv_bn(x, f"res{name}", name, (4 * width, inputs, 1, 1), stride)
            y = w.relu(w.conv_bn(x, f"res{tag}_branch2a", f"{tag}_branch2a", (width, inputs, 1, 1), stride))
            y = w.relu(w.conv_bn(y, f"res{tag}_branch2b", f"{tag}_branch2b", (width, width, 3, 3), 1, 1))
            y = w.conv_bn(y, f"res{tag}_branch2c", f"{tag}_branch2c", (4 * width, width, 1, 1))
            x, inputs = w.relu(w.op("Add", [short, y])), 4 * width
    return w.model(w.op("GlobalAveragePool", [x]), batch, 224)


NETS = {"caffenet": (caffenet, "fc7"), "googlenet": (googlenet, "pool5/7x7_s1"), "resnet50": (resnet50, "pool5")}
