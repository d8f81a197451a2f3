"""Solvers to begin with, written for one dataset: its channels, sizes, labels and counts are in the texts already."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.service.specification.words import Data

LEAST, LARGE = 16, 64
"""Pixels of the shorter side: below there is nothing to convolve, above LeNet's inner product would be too large."""
CROP = 32
"""Where the pictures have several sizes."""
_BATCH, _TEST_BATCH = 48, 100
_CENTRE = "mean_value: 128 scale: 0.0078125"
"""Bytes become -1 to 1."""


@dataclass(frozen=True)
class Template:
    """about: whom it suits, in a sentence.  solver, net: texts as `POST /v1/solvers` takes them."""

    name: str
    about: str
    solver: str
    net: str


def templates(data: Data) -> list[Template]:
    """Those that fit the dataset, the one to try first at the front."""
    side = min(data.height, data.width) or CROP
    fitting: list[tuple[str, str, Callable[[Data], str], float]] = []
    if LEAST <= side <= LARGE:
        fitting.append(("lenet", "LeNet, for small pictures: two convolutions and two inner products", _lenet, 0.01))
    if side >= LEAST:
        about = "Three convolutions with stride and one average over the picture: for pictures of any size"
        fitting.append(("convolutions", about, _convolutions, 0.02))
    about = "One inner product, which learns in seconds: what every other net has to beat"
    fitting.append(("linear", about, _linear, 0.005))
    return [Template(name, about, _solver(data, rate), _net(name, data, body)) for name, about, body, rate in fitting]


def _solver(data: Data, rate: float) -> str:
    examples = data.sides.get("train", 1)
    iterations = min(20_000, max(200, 10 * math.ceil(3 * examples / _batch(data) / 10)))
    often = max(10, iterations // 20)
    lines = [
        f"base_lr: {rate:g}", 'lr_policy: "step"', "gamma: 0.1", f"stepsize: {iterations * 3 // 4}",
        f"max_iter: {iterations}", "momentum: 0.9", "weight_decay: 0.0005", f"display: {max(5, often // 4)}",
        f"snapshot: {max(100, iterations // 3)}",
    ]  # fmt: skip
    if tested := data.sides.get("test", 0):
        lines += [f"test_iter: {math.ceil(tested / min(_TEST_BATCH, tested))}", f"test_interval: {often}"]
    return "\n".join(lines) + "\n"


def _batch(data: Data) -> int:
    return max(1, min(_BATCH, data.sides.get("train", 1)))


def _net(name: str, data: Data, body: Callable[[Data], str]) -> str:
    transform = _CENTRE
    if not data.channels:
        transform += " force_color: true"
    if not (data.height and data.width):
        transform += f" crop_size: {CROP}"
    tested = data.sides.get("test", 0)
    layers = [_data("TRAIN", transform, _batch(data))]
    if tested:
        layers.append(_data("TEST", transform, min(_TEST_BATCH, tested)))
    layers += [body(data), _layer("loss", "SoftmaxWithLoss", "score", 'bottom: "label"')]
    if tested:
        layers.append(_layer("accuracy", "Accuracy", "score", 'bottom: "label" include { phase: TEST }'))
    return f'name: "{name}"\n' + "\n".join(layers) + "\n"


def _data(phase: str, transform: str, batch: int) -> str:
    return (
        f'layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: {phase} }}\n'
        f"  transform_param {{ {transform} }}\n"
        f'  data_param {{ source: "{phase.lower()}" backend: LMDB batch_size: {batch} }} }}'
    )


def _layer(name: str, kind: str, bottom: str, more: str = "", top: str = "") -> str:
    return f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{top or name}"{f" {more}" * bool(more)} }}'


def _convolution(name: str, bottom: str, outputs: int, of: str) -> str:
    weights = 'weight_filler { type: "msra" }'
    return _layer(name, "Convolution", bottom, f"convolution_param {{ num_output: {outputs} {of} {weights} }}")


def _inner(name: str, bottom: str, outputs: int) -> str:
    filler = 'weight_filler { type: "xavier" }'
    return _layer(name, "InnerProduct", bottom, f"inner_product_param {{ num_output: {outputs} {filler} }}")


def _rectified(name: str) -> str:
    return _layer(f"relu_{name}", "ReLU", name, "", name)


def _lenet(data: Data) -> str:
    pool = "pooling_param { pool: MAX kernel_size: 2 stride: 2 }"
    return "\n".join([
        _convolution("conv1", "data", 20, "kernel_size: 5"), _layer("pool1", "Pooling", "conv1", pool),
        _convolution("conv2", "pool1", 50, "kernel_size: 5"), _layer("pool2", "Pooling", "conv2", pool),
        _inner("ip1", "pool2", 200), _rectified("ip1"), _inner("score", "ip1", data.labels),
    ])  # fmt: skip


def _convolutions(data: Data) -> str:
    lines, bottom = [], "data"
    for name, outputs, of in (
        ("conv1", 32, "kernel_size: 5 stride: 2 pad: 2"), ("conv2", 64, "kernel_size: 3 stride: 2 pad: 1"),
        ("conv3", 96, "kernel_size: 3 stride: 2 pad: 1"),
    ):  # fmt: skip
        lines += [_convolution(name, bottom, outputs, of), _rectified(name)]
        bottom = name
    lines.append(_layer("average", "Pooling", bottom, "pooling_param { pool: AVE global_pooling: true }"))
    return "\n".join([*lines, _inner("score", "average", data.labels)])


def _linear(data: Data) -> str:
    return _inner("score", "data", data.labels)
