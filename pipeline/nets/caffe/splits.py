"""The Split layers that Caffe puts into a net by itself: one copy of a blob for each of its readers.

They compute nothing, but Caffe's files have them, so a file of ours has them (src/caffe/util/insert_splits.cpp).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.codec import caffe_pb2


class _Top(NamedTuple):
    layer: int
    top: int


def with_splits(layers: Sequence[caffe_pb2.LayerParameter]) -> list[list[caffe_pb2.LayerParameter]]:
    """Each layer, and behind it a Split layer for each of its tops that has two readers or more, who read its tops.

    A loss_weight that is not 0 counts as the first reader, and moves to the Split layer.  Every bottom is a top of a
    layer before.
    """
    sources, readers, losses = _traced(layers)
    given: Counter[_Top] = Counter()  # of each top, the copies that have a reader by now
    found: list[list[caffe_pb2.LayerParameter]] = []
    for number, spec in enumerate(layers):
        layer = caffe_pb2.LayerParameter()
        layer.CopyFrom(spec)
        for index, source in enumerate(sources[number]):
            if readers[source] > 1:
                stem = _stem(layers, source)
                layer.bottom[index] = f"{stem}_{given[source]}"
                given[source] += 1
        found.append([layer])
        for top in (_Top(number, index) for index in range(len(spec.top))):
            if readers[top] > 1:
                weight = losses.get(top, 0.0)
                found[-1].append(_split(spec.top[top.top], _stem(layers, top), readers[top], weight))
                if weight:
                    layer.ClearField("loss_weight")
                    given[top] += 1
    return found


def _traced(
    layers: Sequence[caffe_pb2.LayerParameter],
) -> tuple[list[list[_Top]], Counter[_Top], dict[_Top, float]]:
    """The top that each bottom is, how many read each top, and the tops' loss weights."""
    made: dict[str, _Top] = {}
    sources: list[list[_Top]] = []
    readers: Counter[_Top] = Counter()
    losses: dict[_Top, float] = {}
    for number, spec in enumerate(layers):
        sources.append([made[blob] for blob in spec.bottom])
        readers.update(sources[-1])
        made.update((blob, _Top(number, index)) for index, blob in enumerate(spec.top))
        for blob, weight in zip(spec.top, spec.loss_weight, strict=False):
            losses[made[blob]] = weight
            readers[made[blob]] += bool(weight)
    return sources, readers, losses


def _stem(layers: Sequence[caffe_pb2.LayerParameter], top: _Top) -> str:
    spec = layers[top.layer]
    return f"{spec.top[top.top]}_{spec.name}_{top.top}_split"


def _split(blob: str, stem: str, readers: int, weight: float) -> caffe_pb2.LayerParameter:
    tops = [f"{stem}_{copy}" for copy in range(readers)]
    weights = [weight, *[0.0] * (readers - 1)] if weight else []
    return caffe_pb2.LayerParameter(name=stem, type="Split", bottom=[blob], top=tops, loss_weight=weights)
