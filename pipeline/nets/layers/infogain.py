"""InfogainLoss: the softmax loss in which each pair of a label and a class counts as a matrix says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from google.protobuf.message import DecodeError

from pipeline.codec import caffe_pb2
from pipeline.codec.caffe_blobs import values_of
from pipeline.nets.graph.lowered import Lowered, Shape, Value
from pipeline.nets.layers.losses import SoftmaxWithLoss, summed
from pipeline.nets.layers.registry import Array, State, register

_LOG_THRESHOLD = 1e-20  # what Caffe takes logarithms of instead of less
_MAX_BYTES = 256 * 2**20


@register("InfogainLoss")
class InfogainLoss(SoftmaxWithLoss):
    """The mean over places of -sum over classes of H[label, class] log softmax(score)[class] (infogain_loss_layer.cpp).

    H is the third bottom, else a .binaryproto at `source`, found from the current folder as Caffe finds it.
    A second top has the softmax.
    """

    bottoms = (2, 3)

    def __init__(self, spec: caffe_pb2.LayerParameter, state: State) -> None:
        super().__init__(spec, state)
        self._matrix = self._read() if len(spec.bottom) == 2 else None

    def class_axis(self, bottom: Shape) -> int:
        return self.axis(self.spec.infogain_loss_param.axis, bottom)

    def check(self, bottoms: Sequence[Shape]) -> None:
        super().check(bottoms)
        classes = self.extents(bottoms[0])[1]
        has = math.prod(bottoms[2]) if self._matrix is None else self._matrix.size
        if has != classes * classes:
            raise self.refuse(f"the infogain matrix has {has} values; {classes} classes need {classes * classes}")

    def constants(self) -> list[Array]:
        return [] if self._matrix is None else [self._matrix]

    def total(self, graph: Lowered, prob: Value, bottoms: Sequence[Value], kept: Value | None) -> Value:
        outer, classes, inner = self.extents(prob.shape)
        shape = (outer, classes, inner)
        logs = graph("Max", [graph.reshape(prob, shape), graph.constant(_LOG_THRESHOLD)], shape)
        logs = graph("Log", [logs], shape)
        matrix = graph.constant(self._matrix) if self._matrix is not None else bottoms[2]
        matrix = graph.reshape(matrix, (classes, classes))
        label = graph.reshape(bottoms[1], (outer, inner))
        label = graph("Clip", [label, graph.constant(0.0), graph.constant(float(classes - 1))], label.shape)
        index = graph("Cast", [label], label.shape, to=7)
        rows = graph("Gather", [matrix, index], (outer, inner, classes), axis=0)
        rows = graph("Transpose", [rows], shape, perm=[0, 2, 1])
        lost = graph.mul(graph.mul(rows, logs), -1.0)
        return summed(graph, lost if kept is None else graph.mul(lost, kept))

    def _read(self) -> Array:
        source = self.spec.infogain_loss_param.source
        if not source:
            raise self.refuse("infogain matrix source must be specified", "give it as a third bottom, or set source")
        try:
            size = Path(source).stat().st_size
            content = Path(source).read_bytes() if Path(source).is_file() and size <= _MAX_BYTES else b""
        except OSError as error:
            says = f"its infogain matrix {source} cannot be read: {error.strerror or error}"
            raise self.refuse(says, "the path counts from the current folder") from error
        blob = caffe_pb2.BlobProto()
        try:
            blob.ParseFromString(content)
        except DecodeError as error:
            raise self.refuse(f"its infogain matrix {source} is no .binaryproto") from error
        values = values_of(blob)
        if not values.size:
            raise self.refuse(f"its infogain matrix {source} holds no values")
        return values
