"""What a net is made of, and whether it runs: the facts behind `hathi net show`, `check` and `bench`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.nets.caffe_net import CaffeNet
from pipeline.nets.features import comes_last, no_size
from pipeline.nets.graph.lowered import Shape
from pipeline.nets.graph.plan import Place
from pipeline.nets.net import Net
from pipeline.nets.probing import probe
from pipeline.nets.verdict import Verdict

Feeds = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class LayerRow:
    """shapes: of its tops.  parameters: learned numbers.  multiply_adds: of one image.  needed: by the blobs.

    A shape or a cost that is not known is None.
    """

    name: str
    kind: str
    tops: tuple[str, ...]
    shapes: tuple[Shape | None, ...]
    parameters: int
    multiply_adds: int | None
    needed: bool


def layers(net: CaffeNet, blobs: Sequence[str]) -> list[LayerRow]:
    """One row a layer, for the declared input; shared parameters count with their owner.

    None: a shape that depends on a layer that is not computed here.
    """
    shapes = net.graph.declared
    needed = net.plan.needed([net.plan.read(blob) for blob in blobs])
    batch = max((shape[0] for shape in net.inputs.values() if shape), default=1)
    rows = []
    for number, step in enumerate(net.plan.steps):
        bottoms = [shapes.get(read.view) for read in step.reads]
        tops = [shapes.get(Place(number, top)) for top in range(len(step.layer.spec.top))]
        own = [slot for slot, owner in net.parameters.owners.items() if slot.step == number and owner == slot]
        learned = sum(math.prod(net.parameters.shapes[slot]) for slot in own)
        cost = None
        if number not in net.plan.faults and None not in bottoms and None not in tops:
            cost = step.layer.multiply_adds([one for one in bottoms if one], [one for one in tops if one]) // batch
        names = tuple(step.layer.spec.top)
        rows.append(
            LayerRow(step.layer.name, step.layer.spec.type, names, tuple(tops), learned, cost, number in needed)
        )
    return rows


Size = tuple[int, int]


def fed(net: Net, blobs: Sequence[str], batch: int | None = None, size: Size | None = None) -> dict[str, Shape]:
    """The shapes in which the inputs of the blobs are fed: batch and size instead of the declared ones.

    Raises NetError for images of any size where no size is given.
    """
    found = {}
    for name in dict.fromkeys(name for blob in blobs for name in net.inputs_of(blob)):
        declared = net.inputs[name]
        shape = list(declared)
        if batch is not None and shape:
            shape[0] = batch
        if len(shape) == 4:
            places = slice(1, 3) if comes_last(shape) else slice(2, 4)
            shape[places] = size or shape[places]
            if min(shape[places]) < 1:
                raise no_size(name, declared)
            shape[1] = 3 if shape[1] < 1 else shape[1]  # free channels are those of a colour image
        found[name] = tuple(max(1, n) for n in shape)
    return found


def noise(net: Net, blobs: Sequence[str], batch: int | None = None, size: Size | None = None) -> Feeds:
    """Numbers to feed: the same each time, from -128 to 128.  Otherwise as `fed`."""
    random = np.random.default_rng(0)
    shapes = fed(net, blobs, batch, size)
    return {name: random.uniform(-128, 128, shape).astype(np.float32) for name, shape in shapes.items()}


def oddities(net: Net, blobs: Sequence[str], size: Size | None = None) -> list[str]:
    """What a person should know after one pass: warnings, values that are not finite, outputs that never change.

    size: (height, width) of images instead of the declared ones.  Raises NetError as `fed` does.
    """
    feeds = noise(net, blobs, batch=2, size=size)
    values = net.forward(feeds, blobs)
    found = list(net.warnings)
    for blob, array in values.items():
        bad = int(np.count_nonzero(~np.isfinite(array)))
        if bad:
            found.append(f"blob '{blob}': {bad} of {array.size} values are not finite for random input")
        elif _alike(array) and _alike(net.forward({name: one / 128 for name, one in feeds.items()}, [blob])[blob]):
            found.append(f"blob '{blob}': two different images give the same values")
        if not array.ndim or array.shape[0] != 2:
            found.append(f"blob '{blob}' has no row for each image: {array.shape} for a batch of 2")
        elif len(names := net.inputs_of(blob)) == 1:
            verdict = _rows_of(net, blob, names[0], feeds[names[0]])
            if verdict.kind in _SAYS:
                found.append(f"blob '{blob}': {_SAYS[verdict.kind]}: {verdict.why}")
    return found


def _alike(array: NDArray[Any]) -> bool:
    """Whether two images have equal values.  Saturated ones count only if images of smaller numbers have them, too."""
    return array.ndim > 0 and len(array) == 2 and np.array_equal(array[0], array[1])


_SAYS = {
    "random": "an image gets another feature in each pass; Hathi refuses a feature set with this blob",
    "mixed": "an image gets another feature when other images are in its batch; Hathi refuses a feature set with this "
    'blob unless you set dependent_rows = "alone"',
}


def _rows_of(net: Net, blob: str, name: str, images: NDArray[np.float32]) -> Verdict:
    verdict = net.rows(blob, {name: images.shape})
    if verdict.kind != "unknown":
        return verdict
    more = np.concatenate([images, images[::-1] / 2 + 1])
    return probe(lambda some: net.forward({name: some}, [blob])[blob].reshape(len(some), -1), more, 4, "fp32")


@dataclass(frozen=True, slots=True)
class Speed:
    """distance: the largest difference from the first one's values, as a part of their largest."""

    engine: str
    precision: str
    batch: int
    images_per_second: float
    cpu_milliseconds: float
    distance: float


def speeds(
    nets: Mapping[tuple[str, str], Net], blob: str, feeds: Feeds, rounds: int, clock: Callable[[], float]
) -> Iterator[Speed]:
    """Each engine's images a second, the median of `rounds` passes that take turns; the first one is the reference.

    feeds: as of `noise`, all of one batch.
    """
    batch = max(len(array) for array in feeds.values())
    values = {key: net.forward(feeds, [blob])[blob] for key, net in nets.items()}
    wall: dict[tuple[str, str], list[float]] = {key: [] for key in nets}
    busy: dict[tuple[str, str], list[float]] = {key: [] for key in nets}
    for _ in range(rounds):
        for key, net in nets.items():
            began, used = clock(), time.process_time()
            net.forward(feeds, [blob])
            wall[key].append(clock() - began)
            busy[key].append(time.process_time() - used)
    reference = next(iter(values.values()))
    top = max(float(np.abs(reference).max()), 1e-30)
    for key in nets:
        far = float(np.abs(values[key] - reference).max()) / top
        yield Speed(*key, batch, batch / median(wall[key]), median(busy[key]) / batch * 1e3, far)
