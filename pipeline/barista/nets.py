"""A solver's nets for any number of rows, over one set of weights: each is made when it is first asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.barista.layout import Shape, rows_of
from pipeline.codec import caffe_pb2
from pipeline.errors import NetError
from pipeline.nets.caffe.upgrade import upgrade
from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.training.assembly import How, Nets, labels_of
from pipeline.training.data.source import Labels
from pipeline.training.network import Network
from pipeline.training.setting_up import graph_of
from pipeline.training.solver import NetText, Solver

TRAIN, TEST = "TRAIN", "TEST"
PHASES = (TRAIN, TEST)
MOST = 8
"""Nets that are kept at a time; the one that was asked for longest ago goes."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which net.  rows: of what it is fed.  kept: after a pass it tells each of its blobs."""

    phase: str
    rows: int
    kept: bool


class NetsByRows:
    """The nets of one solver.  data: what a pass of the training net is fed, by top.  rows: its batch size.

    All of them compute with the weights of the training net, wherever these lie.
    """

    def __init__(self, read: Solver, how: How, nets: Nets) -> None:
        self._read, self._how, self._nets = read, how, nets
        self.train = nets.train.network
        self.data: Mapping[str, Shape] = dict(self.train.inputs)
        self.rows = rows_of(self.data)
        self._made: OrderedDict[Asked, Network] = OrderedDict()
        self.has_test = bool(nets.tests) and self._fits(nets.tests[0].network)

    def share(self) -> None:
        """The nets that test find the weights of the training net again, after these have come to lie elsewhere."""
        for test in self._nets.tests:
            test.network.share(self.train)

    def of(self, asked: Asked) -> Network:
        """Raises NetError for a net that cannot have so many rows, and where the solver has no net that tests."""
        if asked == Asked(TRAIN, self.rows, False):
            return self.train
        if asked not in self._made:
            self._made[asked] = self._make(asked)
        self._made.move_to_end(asked)
        if len(self._made) > MOST:
            self._made.popitem(last=False)
        return self._made[asked]

    def shapes(self) -> dict[str, Shape]:
        """The largest shape that each blob of these nets may have, by name."""
        found: dict[str, Shape] = {}
        graphs = [self._nets.train.graph, *([self._graph(TEST, self.rows)] if self.has_test else [])]
        for graph in graphs:
            for name, shape in graph.shapes.items():
                if name not in found or _count(shape) > _count(found[name]):
                    found[name] = shape
        tested = [self._nets.tests[0].network] if self.has_test else []
        for net in (self.train, *tested):  # the copy that an automatic Split layer makes of a blob may be an output
            for one in net.outputs:
                found.setdefault(one.blob, one.shape)
        return found

    def labels(self) -> dict[str, Labels]:
        """What the nets take as labels, by top."""
        tests = [self._nets.tests[0].graph] if self.has_test else []
        return {top: one for graph in (self._nets.train.graph, *tests) for top, one in labels_of(graph).items()}

    def fed(self, rows: int) -> dict[str, Shape]:
        """What a pass of so many rows is fed: tops that begin with the batch size have so many, others are whole."""
        return {top: (rows, *shape[1:]) if shape[:1] == (self.rows,) else shape for top, shape in self.data.items()}

    def _make(self, asked: Asked) -> Network:
        from pipeline.training.engine import building

        graph = self._graph(asked.phase, asked.rows)
        like = self.train if asked.phase == TRAIN else self._nets.tests[0].network
        values = {slot: like.weights(slot) for slot in set(graph.parameters.owners.values())}
        wanted = building.Wanted(self._read.net.text.force_backward, self._how.as_caffe)
        made = building.like(self.train, graph, values, wanted if asked.phase == TRAIN else None)
        if asked.kept:
            made.keep()
        return made

    def _graph(self, phase: str, rows: int) -> CaffeGraph:
        net = self._read.net if phase == TRAIN else self._test()
        fed = self.fed(rows)
        return graph_of(net, _with_shapes(net.text, fed), fed, lambda says: None)

    def _test(self) -> NetText:
        if not self.has_test:
            raise NetError(
                "the solver has no net that tests on what the training net is fed",
                f"the training net is fed {', '.join(f'{top} {shape}' for top, shape in self.data.items())}",
                f'ask for phase "{TRAIN}", or give the solver a test net with the same tops and rows',
            )
        return self._read.tests.nets[0].net

    def _fits(self, test: Network) -> bool:
        return all(top in self.data and self.data[top][1:] == shape[1:] for top, shape in test.inputs.items())


def _with_shapes(text: caffe_pb2.NetParameter, fed: Mapping[str, Shape]) -> caffe_pb2.NetParameter:
    """The net whose layers that a program feeds say these shapes themselves; other data layers have none to say."""
    found = upgrade(text, lambda says: None)
    for layer in found.layer:
        if layer.type == "MemoryData" and layer.top[:1] and layer.top[0] in fed:
            layer.memory_data_param.batch_size = fed[layer.top[0]][0]
        elif layer.type == "Input":
            given = [tuple(shape.dim) for shape in layer.input_param.shape]
            given = given if len(given) == len(layer.top) else given * len(layer.top)
            shapes = [fed.get(top, shape) for top, shape in zip(layer.top, given, strict=False)]
            del layer.input_param.shape[:]
            layer.input_param.shape.extend(caffe_pb2.BlobShape(dim=shape) for shape in shapes)
    return found


def _count(shape: Shape) -> int:
    count = 1
    for one in shape:
        count *= one
    return count
