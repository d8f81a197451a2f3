"""A Caffe net that can be run."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import NetError
from pipeline.nets import caffe_pb2, caffemodel, parameters, plan, prototxt, rules
from pipeline.nets.engines import Engine, EngineInfo, choose
from pipeline.nets.engines.engine import Run
from pipeline.nets.folding import folded
from pipeline.nets.layers import State, make
from pipeline.nets.layers.inputs import Source
from pipeline.nets.layers.selecting import Filter
from pipeline.nets.lowered import Lowered, Shape, Value
from pipeline.nets.plan import Place, Plan, Read
from pipeline.nets.upgrade import upgrade

log = logging.getLogger(__name__)
_KEPT = 4  # compiled shapes; each holds its own copy of the weights in the engine's layout

Blobs = dict[str, NDArray[np.float32]]


class Net:
    """What `load` returns.

    inputs: the shape that the net declares for each input blob.  blobs: the names of all blobs.  outputs: those that
    no layer reads.  warnings: what was odd.  engine: what runs it, and why.
    """

    def __init__(
        self, path: Path, weights: Path | None, engine: Engine, state: caffe_pb2.NetState, blobs: Sequence[str] | None
    ) -> None:
        self.warnings: list[str] = []
        text = prototxt.read(path)
        state.stage.extend(text.state.stage)
        net = upgrade(text, self._warn)
        self.name = net.name or path.stem
        where = State(train=state.phase == caffe_pb2.TRAIN, warn=self._warn)
        self.plan: Plan = plan.build([make(spec, where) for spec in rules.keep(net, state)])
        if not self.plan.steps:
            raise NetError(f"the net {path} has no layers", "", "is this a .prototxt of a net, and is the phase right?")
        self.default = tuple(blobs) if blobs is not None else tuple(self.plan.outputs)
        for blob in self.default:
            self.plan.read(blob)
        declared = self.plan.shapes({})
        self.inputs: dict[str, Shape] = {name: declared[place] for name, place in self.plan.inputs.items()}
        self.shapes: dict[str, Shape] = {name: declared[read.view] for name, read in self.plan.blobs.items()}
        self.parameters = parameters.collect(self.plan, declared)
        parameters.match(self.parameters, self.plan, caffemodel.read_index(weights) if weights else None, self._warn)
        self._engine = engine
        self._compiled: OrderedDict[tuple[object, ...], Run] = OrderedDict()
        self._lock = Lock()

    @property
    def blobs(self) -> tuple[str, ...]:
        return tuple(self.plan.blobs)

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(self.plan.outputs)

    @property
    def engine(self) -> EngineInfo:
        return self._engine.info

    def forward(self, feeds: Mapping[str, ArrayLike], blobs: Sequence[str] | None = None) -> Blobs:
        """One pass: the values of `blobs` (by default those given to `load`, else the net's outputs).

        feeds: the inputs that those blobs depend on, any real dtype, in Caffe's axis order; any batch and size that
        the net allows.  A new set of shapes compiles the net once for them.
        Returns float32 arrays, C order, in Caffe's shapes: what a full pass leaves in each blob.
        Raises NetError: a feed is missing, unknown or does not fit, or a blob does not exist.
        """
        names = tuple(dict.fromkeys(self.default if blobs is None else blobs))
        reads = {name: self.plan.read(name) for name in names}
        arrays = self._arrays(feeds, self.plan.needed(reads.values()))
        with self._lock:
            return self._run(reads, arrays)

    def lower(self, blobs: Sequence[str], shapes: Mapping[str, Shape] | None = None) -> Lowered:
        """The operations that compute `blobs` for inputs of `shapes` (by default the declared ones), optimised."""
        return self._lower({name: self.plan.read(name) for name in blobs}, {**self.inputs, **(shapes or {})}, {})

    def _warn(self, says: str) -> None:
        if says not in self.warnings:
            self.warnings.append(says)
            log.warning("%s", says)

    def _arrays(self, feeds: Mapping[str, ArrayLike], steps: set[int]) -> Blobs:
        for name in feeds:
            if name not in self.inputs:
                raise NetError(f"the net has no input '{name}'", f"its inputs: {', '.join(self.inputs)}")
        found: Blobs = {}
        for name, place in self.plan.inputs.items():
            if place.step not in steps:
                continue
            if name not in feeds:
                shape = " x ".join(map(str, self.inputs[name]))
                raise NetError(f"input '{name}' is not fed", f"its declared shape is {shape}")
            array = np.asarray(feeds[name], np.float32, order="C")
            if array.ndim != len(self.inputs[name]) or 0 in array.shape:
                raise NetError(
                    f"input '{name}' has the shape {array.shape}",
                    f"declared: {self.inputs[name]}; the batch and the sizes may differ, not the axes",
                )
            found[name] = array
        return found

    def _run(self, reads: Mapping[str, Read], arrays: Blobs) -> Blobs:
        counts: dict[str, int] = {}
        for number in sorted(self.plan.needed(reads.values())):
            layer = self.plan.steps[number].layer
            if isinstance(layer, Filter):  # what follows it has shapes only once its selector is known
                selector = {layer.name: self.plan.steps[number].reads[-1]}
                steps = self.plan.needed(selector.values())
                feeds = {name: array for name, array in arrays.items() if self.plan.inputs[name].step in steps}
                run = self._compile(selector, feeds, counts)
                counts[layer.name] = int(
                    np.count_nonzero(run({f"in:{name}": feeds[name] for name in feeds})[layer.name])
                )
                if not counts[layer.name]:
                    raise layer.refuse("selects no item", "what follows it would have no values")
        run = self._compile(reads, arrays, counts)
        return run({f"in:{name}": array for name, array in arrays.items()})

    def _compile(self, reads: Mapping[str, Read], arrays: Blobs, counts: Mapping[str, int]) -> Run:
        shapes = {name: array.shape for name, array in arrays.items()}
        key = (tuple(reads.items()), tuple(sorted(shapes.items())), tuple(counts.items()))
        if key not in self._compiled:
            run = self._engine.compile(self._lower(reads, shapes, counts))
            self._compiled[key] = run
            while len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(key)
        return self._compiled[key]

    def _lower(self, reads: Mapping[str, Read], given: Mapping[str, Shape], counts: Mapping[str, int]) -> Lowered:
        steps = self.plan.needed(reads.values())
        shapes = self.plan.shapes(given, steps, counts)
        learned = self.parameters.of(sorted(steps), self.plan)
        graph = Lowered()
        values: dict[Place, Value] = {}
        for number in sorted(steps):
            step = self.plan.steps[number]
            if isinstance(step.layer, Source):
                for top, name in enumerate(step.layer.spec.top):
                    values[Place(number, top)] = graph.input(name, shapes[Place(number, top)])
            elif not step.layer.is_shared():
                bottoms = [graph.reshape(values[read.version], shapes[read.view]) for read in step.reads]
                self._check_learned(number, [bottom.shape for bottom in bottoms])
                if isinstance(step.layer, Filter):
                    tops = step.layer.lower_counted(graph, bottoms, shapes[Place(number, 0)][0])
                else:
                    tops = step.layer.lower(graph, bottoms, learned[number])
                for top, value in enumerate(tops):
                    assert value.shape == shapes[Place(number, top)], (step.layer, value, shapes[Place(number, top)])
                    values[Place(number, top)] = value
        for name, read in reads.items():
            graph.outputs[name] = graph.reshape(values[read.version], shapes[read.view])
        return folded(graph)

    def _check_learned(self, number: int, bottoms: Sequence[Shape]) -> None:
        """Another input size may call for other weights than there are: then the net does not allow it."""
        layer = self.plan.steps[number].layer
        for index, parameter in enumerate(layer.parameters(bottoms)):
            has = self.parameters.shapes[parameters.Slot(number, index)]
            if parameter.shape != has:
                raise layer.refuse(
                    f"with this input, param {index} would have the shape {parameter.shape}; the net's is {has}",
                    "feed the net its declared size, or ask for a blob before this layer",
                )


def load(
    prototxt: str | Path,
    weights: str | Path | None = None,
    *,
    blobs: Sequence[str] | None = None,
    engine: str = "auto",
    precision: str = "fp32",
    phase: str = "TEST",
    stages: Sequence[str] = (),
    level: int = 0,
    threads: int = 0,
) -> Net:
    """Reads a Caffe net and makes it ready to run.

    prototxt: the net's text (new, V1 or V0 form).  weights: its .caffemodel; without, layers keep their fillers.
    blobs: what `forward` returns by default; only what they depend on is read and computed.
    engine: "auto", "openvino" or "onnxruntime".  precision: "fp32", or "bf16" where the CPU has it.
    phase ("TEST", "TRAIN"), stages, level: the state that include and exclude rules are compared with.
    threads: cores that the engine may use; 0 for all.
    Raises NetError for a net, weights or blob that is refused; the layer is named.
    """
    state = rules.state_of(phase, level, stages)
    return Net(
        Path(prototxt), Path(weights) if weights is not None else None, choose(engine, precision, threads), state, blobs
    )
