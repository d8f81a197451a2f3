"""A rebuilt specification -> what it will take, and what speaks against it: without a dataset's files or an engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.codec import caffe_pb2
from pipeline.errors import PipelineError
from pipeline.service.specification.rebuilding import SOURCES, Rebuilt
from pipeline.service.specification.words import NET, SOLVER, Data
from pipeline.times import HOUR
from pipeline.training import price, solver
from pipeline.training.assembly import How
from pipeline.training.solver import Flags

_SIDES = {caffe_pb2.TRAIN: "train", caffe_pb2.TEST: "test"}
_LOSSES = ("SoftmaxWithLoss", "Accuracy", "MultinomialLogisticLoss", "HingeLoss", "InfogainLoss")
_MEGA = 2**20


def priced(rebuilt: Rebuilt) -> dict[str, Any]:
    """The price as JSON, with `seconds` of the whole training; {} where problems leave none, or data is not known."""
    data = rebuilt.asked.data
    _sides(rebuilt, data)
    text = caffe_pb2.SolverParameter()
    text.CopyFrom(rebuilt.solver)
    text.ClearField("net")
    if data is None:
        if not rebuilt.problems:
            rebuilt.look_at_wires()
        text.net_param.CopyFrom(rebuilt.net)
    else:
        _labels(rebuilt, data)
        text.net_param.CopyFrom(_without_data(rebuilt, data))
    if rebuilt.problems:
        return {}
    try:
        read = solver.check(text, Path("solver"), Flags())
    except PipelineError as error:
        rebuilt.error(SOLVER, _said(error))
        return {}
    if data is None:
        return {}
    try:
        found = price.of(read, How())
    except PipelineError as error:
        rebuilt.error(NET, error)
        return {}
    for one in found.refused:
        rebuilt.error(NET, PipelineError(one.says, one.detail, one.hint))
    told = found.as_json()
    told["examples"] = _batch(rebuilt) * rebuilt.solver.iter_size
    told["seconds"] = _seconds(rebuilt, found)
    _judge(rebuilt, found, told["seconds"])
    return told


def _said(error: PipelineError) -> PipelineError:
    return PipelineError(error.message.removeprefix("solver: "), error.detail, error.hint)


def _batch(rebuilt: Rebuilt) -> int:
    return next((layer.data_param.batch_size for layer in rebuilt.net.layer if layer.type == "Data"), 0)


def _seconds(rebuilt: Rebuilt, found: price.Price) -> float:
    """Of all iterations and tests, by multiply-adds alone."""
    wanted = rebuilt.solver
    work = found.iterations * found.multiply_adds
    if wanted.test_iter and wanted.test_interval > 0:
        times = found.iterations // wanted.test_interval + 1
        work += times * sum(
            net.multiply_adds * count for net, count in zip(found.tests, wanted.test_iter, strict=False)
        )
    return round(work / rebuilt.asked.limits.rate, 3)


def _judge(rebuilt: Rebuilt, found: price.Price, seconds: float) -> None:
    """What the limits say."""
    limits = rebuilt.asked.limits
    largest = max(found.train.layers, key=lambda one: one.parameters, default=None)
    if found.parameters > limits.parameters and largest is not None:
        says = f"the net learns {found.parameters:,} numbers, {largest.parameters:,} of them in layer '{largest.name}'"
        rebuilt.error(NET, PipelineError(says, f"the most is {limits.parameters:,}", "make that layer smaller"))
    widest = max(found.train.layers, key=lambda one: one.activations, default=None)
    if found.bytes.memory > limits.memory and widest is not None:
        holds, mine = (f"{size // _MEGA:,} MiB" for size in (found.bytes.memory, 4 * widest.activations))
        says = f"the training holds {holds}, {mine} of them in layer '{widest.name}'"
        rebuilt.error(NET, PipelineError(says, f"the most is {limits.memory // _MEGA:,} MiB", "lower batch_size"))
    trained = {one.name: one.parameters for one in found.train.layers}
    for tested in (one for net in found.tests for one in net.layers):
        if tested.parameters != trained.get(tested.name, tested.parameters):
            has = trained[tested.name]
            says = f"layer '{tested.name}' learns {has:,} numbers, and takes {tested.parameters:,} in tests"
            rebuilt.error(NET, PipelineError(says, "", "give the data layers of both phases one crop_size"))
    if seconds > limits.seconds:
        rebuilt.refuse(
            f"{SOLVER}/max_iter", f"the training takes about {seconds / HOUR:,.0f} h",
            f"the most is {limits.seconds / HOUR:,.0f} h", "make max_iter smaller, or test less often",
        )  # fmt: skip


def _labels(rebuilt: Rebuilt, data: Data) -> None:
    """Whether what the net answers fits the dataset's labels."""
    outputs = {layer.top[0]: layer for layer in rebuilt.net.layer if layer.type == "InnerProduct" and layer.top}
    seen = set()
    for layer in rebuilt.net.layer:
        answers = outputs.get(layer.bottom[0]) if layer.type in _LOSSES and layer.bottom else None
        if answers is None or answers.name in seen:
            continue
        seen.add(answers.name)
        count = answers.inner_product_param.num_output
        says = f"layer '{answers.name}' has {count:,} outputs, the dataset {data.labels:,} labels"
        if count < data.labels:
            rebuilt.error(NET, PipelineError(says, "", f"set its num_output to {data.labels}"))
        elif count > data.labels:
            rebuilt.warnings.append(says)


def _sides(rebuilt: Rebuilt, data: Data | None) -> None:
    """Whether the net has a data layer for each side that it needs, and the data has the side."""
    for phase, side in _SIDES.items():
        layers = [one for one in rebuilt.net.layer if one.type in SOURCES and one.include[0].phase == phase]
        if phase == caffe_pb2.TEST and not rebuilt.solver.test_iter:
            continue
        if not layers:
            rebuilt.refuse(NET, f"the net has no data layer for {side}", "", "add a Data layer")
        elif data is not None and not data.sides.get(side):
            rebuilt.refuse(
                NET, f"the dataset has no side {side}", f"it has {', '.join(data.sides) or 'none'}", "split it anew"
            )


def _without_data(rebuilt: Rebuilt, data: Data) -> caffe_pb2.NetParameter:
    """The net with tops of the data's shapes in the place of the data."""
    net = caffe_pb2.NetParameter()
    net.CopyFrom(rebuilt.net)
    for layer in net.layer:
        if layer.type != "Data":
            continue
        shapes = list(_shapes(rebuilt, layer, data))
        dummy = caffe_pb2.LayerParameter(name=layer.name, type="DummyData", top=layer.top, include=layer.include)
        for shape in shapes[: len(layer.top)]:
            dummy.dummy_data_param.shape.add(dim=shape)
        layer.CopyFrom(dummy)
    return net


def _shapes(rebuilt: Rebuilt, layer: caffe_pb2.LayerParameter, data: Data) -> Iterator[list[int]]:
    transform, where = layer.transform_param, f"layer '{layer.name}'"

    def refuse(says: str, hint: str = "") -> None:
        rebuilt.error(NET, PipelineError(f"{where}: {says}", "", hint))

    channels = 3 if transform.force_color else 1 if transform.force_gray else data.channels
    height, width = (transform.crop_size,) * 2 if transform.crop_size else (data.height, data.width)
    if not channels:
        refuse("the dataset has grey and coloured images", "set force_color: true in its transform_param")
    if not height or not width:
        refuse("the dataset's images have several sizes", "set crop_size in its transform_param")
    elif data.height and (height > data.height or width > data.width):
        refuse(f"crop_size is {height}, and images are {data.height} x {data.width}")
    batch = layer.data_param.batch_size
    yield [batch, channels or 1, height or 1, width or 1]
    yield [batch]
