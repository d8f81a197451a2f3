"""A net that learned, as it serves: its deploy text, and how its data layer made numbers of pictures.

What the net learned with is what it is asked with: the shape, the mean, the scale and the crop are taken from the data
layer that tested it, and nobody has to say them again.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf import text_format

from pipeline.codec import caffe_pb2
from pipeline.errors import FormatError, SolverError
from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.nets.graph.lowered import Shape
from pipeline.training.data.database import Database
from pipeline.training.data.make import is_data
from pipeline.training.data.source import Source
from pipeline.training.data.transform import Transform
from pipeline.training.predictions.judged import LOGIT, SCORE, Judged, judged
from pipeline.training.setting_up import planned
from pipeline.training.solver import Solver

FORMAT = 1
CHANNELS = (1, 3)


@dataclass(frozen=True)
class Pictures:
    """How a picture becomes numbers: decoded with so many channels (3: BGR), resized to (height, width), transformed.

    transform: of phase TEST, without a mirror.
    """

    channels: int
    size: tuple[int, int]
    transform: Transform


@dataclass(frozen=True)
class Deployed:
    """net: the deploy text, whose one input is `input`, of (1, *shape).  blob: what it answers, (1, classes).

    probabilities: whether those are such; else they are scores.  pictures: None for a net that learned from numbers.
    """

    net: str
    input: str
    shape: Shape
    blob: str
    classes: int
    probabilities: bool
    pictures: Pictures | None

    def written(self) -> bytes:
        """As JSON, with the mean as base64 of float32."""
        how = self.pictures
        found: dict[str, Any] = {
            "format": FORMAT, "net": self.net, "input": self.input, "shape": list(self.shape), "blob": self.blob,
            "classes": self.classes, "probabilities": self.probabilities, "pictures": None,
        }  # fmt: skip
        if how is not None:
            mean = how.transform.mean
            found["pictures"] = {
                "channels": how.channels, "size": list(how.size), "crop": how.transform.crop,
                "scale": float(how.transform.scale),
                "mean": None if mean is None else {
                    "shape": list(mean.shape), "values": base64.b64encode(mean.astype("<f4").tobytes()).decode()},
            }  # fmt: skip
        return json.dumps(found).encode()

    @classmethod
    def read(cls, content: bytes) -> Deployed:
        """What `written` wrote.  Raises FormatError for anything else."""
        try:
            found = json.loads(content)
            if found.pop("format") != FORMAT:
                raise ValueError("another Hathi wrote it")
            how = found.pop("pictures")
            shape = tuple(int(one) for one in found.pop("shape"))
            return cls(**found, shape=shape, pictures=None if how is None else _pictures(how))
        except (ValueError, TypeError, KeyError) as error:
            raise FormatError("nothing here says how the net serves", str(error)[:200], "train it again") from error


def transform_of(mean: np.ndarray[Any, np.dtype[np.float32]] | None, scale: float, crop: int = 0) -> Transform:
    """(value - mean) * scale of the middle of an image."""
    return Transform(crop, False, np.float32(scale), mean, False, None)


def _pictures(how: dict[str, Any]) -> Pictures:
    mean = how["mean"]
    if mean is not None:
        mean = np.frombuffer(base64.b64decode(mean["values"]), "<f4").reshape(mean["shape"])
    high, wide = how["size"]
    return Pictures(int(how["channels"]), (int(high), int(wide)), transform_of(mean, how["scale"], how["crop"]))


def deployed(solver: Solver) -> Deployed:
    """How the solver's net serves: as its first test net, or as the net that learns where there is no test.

    Paths are relative to the current folder.  Raises SolverError for a net that tells no class of one example,
    NetError and FormatError for layers and examples that cannot be.
    """
    net = solver.tests.nets[0].net if solver.tests.nets else solver.net
    made, refused = planned(net, lambda says: None)
    try:
        for error in refused:
            raise error
        where = judged(made.graph)
        if isinstance(where, str):
            raise SolverError("this net classifies nothing", where, "train a net with a SoftmaxWithLoss or an Accuracy")
        return _of(made.graph, where, made.sources)
    finally:
        made.close()


def _of(graph: CaffeGraph, where: Judged, sources: list[Source]) -> Deployed:
    read = graph.plan.read(where.scores)
    names = list(graph.plan.inputs_for([read]))
    source = next((one for one in sources if names == [top for top in one.shapes if top in names]), None)
    if len(names) != 1 or source is None:
        has = ", ".join(names) or "none"
        raise SolverError("a classifier has one input", f"the scores depend on: {has}", "train a net of one input")
    shape = source.shapes[names[0]][1:]
    steps = sorted(graph.plan.computable([read]))
    layers = [_served(graph.plan.steps[number].layer.spec) for number in steps]
    layers = [_input(names[0], shape), *(one for one in layers if not is_data(one.type))]
    blob = where.scores
    if where.kind == LOGIT:
        blob = _free(layers, "prob")
        layers.append(caffe_pb2.LayerParameter(name=blob, type="Softmax", bottom=[where.scores], top=[blob]))
    text = text_format.MessageToString(caffe_pb2.NetParameter(name=graph.name, layer=layers))
    return Deployed(text, names[0], shape, blob, where.classes, where.kind != SCORE, _how(source))


def _how(source: Source) -> Pictures | None:
    if not isinstance(source, Database) or len(source.picture) != 3 or source.picture[0] not in CHANNELS:
        return None
    channels, high, wide = source.picture
    taken = source.transform
    assert taken is not None
    return Pictures(channels, (high, wide), transform_of(taken.mean, float(taken.scale), taken.crop))


def _served(spec: caffe_pb2.LayerParameter) -> caffe_pb2.LayerParameter:
    """The layer without rules about phases, which it was chosen by already, and without values of its own."""
    found = caffe_pb2.LayerParameter()
    found.CopyFrom(spec)
    for name in ("include", "exclude", "phase"):
        found.ClearField(name)
    return found


def _input(name: str, shape: Shape) -> caffe_pb2.LayerParameter:
    layer = caffe_pb2.LayerParameter(name=name, type="Input", top=[name])
    layer.input_param.shape.add(dim=[1, *shape])
    return layer


def _free(layers: list[caffe_pb2.LayerParameter], wanted: str) -> str:
    taken = {layer.name for layer in layers} | {top for layer in layers for top in layer.top}
    while wanted in taken:
        wanted = f"{wanted}_of_it"
    return wanted
