"""A net's steps as operations for training: as inference lowers them, save where training needs more.

It knows no engine.  Dropout takes a mask, BatchNorm gives the batch's statistics, LSTM and RNN take the states that the
pass before left, a loss without a top has one all the same, and a gradient that nobody asks for is cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.codec import caffe_pb2
from pipeline.errors import SolverError
from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.nets.graph.fillers import fill, is_random
from pipeline.nets.graph.lowered import Lowered, Operation, Shape, Slot, Value
from pipeline.nets.graph.plan import Place
from pipeline.nets.layers import Layer, make
from pipeline.nets.layers.pooling import AVE, Pooling
from pipeline.nets.layers.registry import filler
from pipeline.nets.layers.selecting import Filter
from pipeline.training.engine.needs import LayerNeeds, taught
from pipeline.training.network import Draw, Filling, Mask


@dataclass(frozen=True, slots=True)
class Statistics:
    """A BatchNorm layer's blobs, which a pass moves: blob = fraction * blob + what the batch has."""

    blobs: tuple[Slot, Slot, Slot]
    mean: str
    variance: str
    fraction: float


@dataclass(frozen=True, slots=True)
class Part:
    """One step's operations: its bottoms and tops by the names of their values.

    ahead: what comes before it and is no layer's (a reshape of what is read).  statistics: what its pass moves.
    Layers that share memory (Split, Flatten, Reshape) compute nothing and are none.
    """

    step: int
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    ahead: tuple[Operation, ...]
    operations: tuple[Operation, ...]
    statistics: Statistics | None = None


@dataclass(frozen=True, slots=True)
class State:
    """A hidden state that goes from one pass to the next: what it is fed as, and the value that follows it."""

    name: str
    feed: str
    after: str
    shape: Shape


@dataclass
class Trained:
    """A net lowered for training.

    parts: in order.  tops: the value of each top that a step computes, those of losses without names among them.
    rest: the operations after the last part.
    """

    graph: Lowered
    parts: list[Part] = field(default_factory=list)
    tops: dict[Place, str] = field(default_factory=dict)
    draws: list[Draw] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    rest: tuple[Operation, ...] = ()


def lower(
    graph: CaffeGraph, needs: Sequence[LayerNeeds] | None, blobs: Sequence[str], counts: Mapping[str, int]
) -> Trained:
    """Every step, and these blobs as outputs of the graph.

    needs: what its backward pass computes; None: it has none.  counts: how many items each Filter layer selects.

    Raises NetError for a net that cannot be computed.
    """
    work = _Lowering(graph, needs, counts)
    work.found.graph = graph.lowered(graph.reads(blobs), graph.inputs, counts, work.step)
    work.found.rest = tuple(work.found.graph.operations[work.end :])
    return work.found


class _Lowering:
    def __init__(self, graph: CaffeGraph, needs: Sequence[LayerNeeds] | None, counts: Mapping[str, int]) -> None:
        self.net, self.counts = graph, counts
        self.needs = {one.step: one for one in needs or () if one.step >= 0}
        self.found = Trained(Lowered())
        self.end = 0
        self._cut = _cut_views(graph, self.needs)

    def step(self, graph: Lowered, number: int, bottoms: Sequence[Value], learned: Sequence[Value]) -> list[Value]:
        layer = self.net.plan.steps[number].layer
        needs = self.needs.get(number)
        if needs is not None:
            reads = self.net.plan.steps[number].reads
            wanted = [has and read.view not in self._cut for has, read in zip(needs.bottoms, reads, strict=True)]
            bottoms = [_kept(graph, value, has) for value, has in zip(bottoms, wanted, strict=True)]
            learned = [_kept(graph, value, has) for value, has in zip(learned, taught(needs), strict=True)]
        before = len(graph.operations)
        how = _HOW.get(layer.spec.type)
        tops = how(self, graph, number, bottoms, learned) if how else _as_it_is(layer, graph, bottoms, learned)
        statistics = self._statistics(number, tops) if layer.spec.type == "BatchNorm" and len(tops) == 3 else None
        names = tuple(value.name for value in tops[: max(1, len(layer.spec.top))])
        ahead, own = tuple(graph.operations[self.end : before]), tuple(graph.operations[before:])
        self.end = len(graph.operations)
        self.found.parts.append(Part(number, tuple(value.name for value in bottoms), names, ahead, own, statistics))
        self.found.tops.update((Place(number, index), name) for index, name in enumerate(names))
        return tops[: len(layer.spec.top)]

    def _statistics(self, number: int, tops: Sequence[Value]) -> Statistics:
        owners = self.net.parameters.owners
        mean, variance, count = (owners[Slot(number, blob)] for blob in range(3))
        p = self.net.plan.steps[number].layer.spec.batch_norm_param
        return Statistics((mean, variance, count), tops[1].name, tops[2].name, p.moving_average_fraction)

    def feed(self, kind: str, number: int) -> str:
        """A name that no blob has: of what a layer is fed beside its bottoms."""
        return f"{kind}:{number}:{self.net.plan.steps[number].layer.name}"


def _kept(graph: Lowered, value: Value, wanted: bool) -> Value:
    return value if wanted else graph("Detach", [value], value.shape)


def _cut_views(graph: CaffeGraph, needs: Mapping[int, LayerNeeds]) -> set[Place]:
    """The views through which no gradient goes: propagate_down: false at a layer that shares its bottom's memory."""
    cut: set[Place] = set()
    for number, step in enumerate(graph.plan.steps):
        if step.layer.is_shared() and number in needs:
            stopped = needs[number].backward and not needs[number].bottoms[0]
            if stopped or step.reads[0].view in cut:
                cut.update(Place(number, top) for top in range(len(step.layer.spec.top)))
    return cut


def _as_it_is(layer: Layer, graph: Lowered, bottoms: Sequence[Value], learned: Sequence[Value]) -> list[Value]:
    """As the layer lowers itself; a loss without a top gets one, as Caffe gives it."""
    if not layer.spec.top and type(layer).tops[0] == 0 and layer.spec.type != "Silence":
        spec = caffe_pb2.LayerParameter()
        spec.CopyFrom(layer.spec)
        spec.top.append("(automatic)")
        layer = make(spec, layer.state)
    return layer.lower(graph, bottoms, learned)


def _dropout(
    work: _Lowering, graph: Lowered, number: int, bottoms: Sequence[Value], learned: Sequence[Value]
) -> list[Value]:
    layer, x = work.net.plan.steps[number].layer, bottoms[0]
    if not layer.state.train:
        return [x]
    feed = work.feed("mask", number)
    work.found.draws.append(Mask(feed, layer.name, x.shape, layer.spec.dropout_param.dropout_ratio))
    return [graph.mul(x, graph.input(feed, x.shape))]


def _dummy(
    work: _Lowering, graph: Lowered, number: int, bottoms: Sequence[Value], learned: Sequence[Value]
) -> list[Value]:
    """Caffe fills anew in each pass what its filler draws; a constant stays."""
    layer = work.net.plan.steps[number].layer
    fillers = list(layer.spec.dummy_data_param.data_filler) or [filler()]
    tops: list[Value] = []
    for index, shape in enumerate(layer.shapes([])):
        how = fillers[index if len(fillers) > 1 else 0]
        if is_random(how):
            feed = f"{work.feed('filling', number)}/{index}"
            work.found.draws.append(Filling(feed, layer.name, shape, how))
            tops.append(graph.input(feed, shape))
        else:
            tops.append(graph.constant(fill(how, shape, layer.name)))
    return tops


def _batch_norm(
    work: _Lowering, graph: Lowered, number: int, bottoms: Sequence[Value], learned: Sequence[Value]
) -> list[Value]:
    """Of the batch: the values, its mean and its unbiased variance by channel."""
    layer, x = work.net.plan.steps[number].layer, bottoms[0]
    p = layer.spec.batch_norm_param
    if p.use_global_stats if p.HasField("use_global_stats") else not layer.state.train:
        return layer.lower(graph, bottoms, learned)
    channels = learned[0].shape
    return graph.many("BatchNormalised", [x], [x.shape, channels, channels], eps=p.eps)


def _recurrent(
    work: _Lowering, graph: Lowered, number: int, bottoms: Sequence[Value], learned: Sequence[Value]
) -> list[Value]:
    """The hidden states of the pass before come in, as Caffe carries them on; no gradient goes back to it.

    Exposed ones are fed: they share their values with Caffe's unrolled net, and no gradients.
    """
    layer = work.net.plan.steps[number].layer
    if layer.spec.recurrent_param.expose_hidden:
        count = len(layer.spec.top) - 1
        states = [_kept(graph, value, False) for value in bottoms[-count:]]
        top, *after = layer.lower(graph, [*bottoms[:-count], *states], learned)
        return [top, *(_kept(graph, value, False) for value in after)]
    names = ["hidden", "cell"] if layer.spec.type == "LSTM" else ["hidden"]
    shape = (1, bottoms[0].shape[1], layer.spec.recurrent_param.num_output)
    spec = caffe_pb2.LayerParameter()
    spec.CopyFrom(layer.spec)
    spec.recurrent_param.expose_hidden = True
    feeds = [f"{work.feed('state', number)}/{name}" for name in names]
    for feed in feeds:
        spec.bottom.append(feed)
        spec.top.append(feed)
    fed = [graph.input(feed, shape) for feed in feeds]
    top, *after = make(spec, layer.state).lower(graph, [*bottoms, *fed], learned)
    work.found.states += [
        State(f"{layer.name}/{name}", feed, value.name, shape)
        for name, feed, value in zip(names, feeds, after, strict=True)
    ]
    return [top]


def _pooling(
    work: _Lowering, graph: Lowered, number: int, bottoms: Sequence[Value], learned: Sequence[Value]
) -> list[Value]:
    """In one operation where its windows allow it: padding would copy the bottom, and keep the copy."""
    layer, x = work.net.plan.steps[number].layer, bottoms[0]
    assert isinstance(layer, Pooling)
    pool = layer.pool(x.shape)
    sizes = zip(x.shape[2:], pool.size(x.shape), pool.kernel, pool.stride, pool.pad, strict=True)
    whole = all(2 * p <= k and (o - 1) * s < n + p and (o - 1) * s - p + k >= 0 for n, o, k, s, p in sizes)
    if not whole or len(layer.spec.top) == 2:
        return layer.lower(graph, bottoms, learned)
    kind = "AverageWindows" if pool.method == AVE else "LargestOfWindows"
    out = (*x.shape[:2], *pool.size(x.shape))
    return [graph(kind, [x], out, kernel=pool.kernel, stride=pool.stride, pad=pool.pad, ceil=not pool.floor)]


def _eltwise(
    work: _Lowering, graph: Lowered, number: int, bottoms: Sequence[Value], learned: Sequence[Value]
) -> list[Value]:
    """MAX: of equals the second of the first two bottoms has the gradient, then the earlier one."""
    layer = work.net.plan.steps[number].layer
    p = layer.spec.eltwise_param
    if p.operation != p.MAX:
        if p.operation == p.PROD and not p.stable_prod_grad:
            layer.state.warn(
                f"layer '{layer.name}' (Eltwise): stable_prod_grad: false makes NaN of zeros in Caffe; "
                "the stable gradient is computed"
            )
        return layer.lower(graph, bottoms, learned)
    top = bottoms[0]
    for index, bottom in enumerate(bottoms[1:]):
        first, second = (top, bottom) if index == 0 else (bottom, top)
        larger = graph("Greater", [first, second], top.shape)
        top = graph("Where", [larger, first, second], top.shape)
    return [top]


def _filter(
    work: _Lowering, graph: Lowered, number: int, bottoms: Sequence[Value], learned: Sequence[Value]
) -> list[Value]:
    layer = work.net.plan.steps[number].layer
    assert isinstance(layer, Filter)
    if layer.name not in work.counts:
        raise SolverError(f"layer '{layer.name}' (Filter): how many items it selects is not known")
    return layer.lower_counted(graph, bottoms, work.counts[layer.name])


_Step = Callable[[_Lowering, Lowered, int, Sequence[Value], Sequence[Value]], list[Value]]
_HOW: dict[str, _Step] = {
    "BatchNorm": _batch_norm, "Dropout": _dropout, "DummyData": _dummy, "Eltwise": _eltwise, "Filter": _filter,
    "LSTM": _recurrent, "Pooling": _pooling, "RNN": _recurrent,
}  # fmt: skip
