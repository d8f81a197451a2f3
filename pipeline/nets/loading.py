"""Opens a net by its file: a Caffe .prototxt or an .onnx model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pipeline.codec import caffe_pb2
from pipeline.errors import ConfigError, NetError
from pipeline.nets.engines import Engine, choose
from pipeline.nets.graph import rules
from pipeline.nets.net import Net
from pipeline.settings import HOG, IMAGE, is_built_in


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
    """Reads a net and makes it ready to run.

    prototxt: a Caffe net's text (new, V1 or V0 form), an .onnx model, or "hog" (hog.py).
    weights: the Caffe net's .caffemodel; without, layers keep their fillers.
    blobs: what `forward` returns by default; only what they depend on is read and computed.
    engine: "auto" or one of pipeline.nets.engines.NAMES.
    precision: "fp32"; "tf32", "bf16" or "fp16" where the device has it.
    phase ("TEST", "TRAIN"), stages, level: the state that a Caffe net's include and exclude rules are compared with.
    threads: cores that the engine may use; 0 for all.
    Raises NetError for a net, weights or blob that is refused; the layer is named.
    """
    path = Path(prototxt)
    if path.name == HOG:
        from pipeline.nets.hog import Hog

        return Hog()
    if path.name == IMAGE:
        raise NetError(
            'net = "image" is no net that runs', "a set of it keeps the images themselves", "name a net, or hog"
        )
    if path.suffix == ".onnx":
        from pipeline.nets.onnx.net import OnnxNet

        if weights is not None:
            raise NetError(f"the model {path} takes no weights", str(weights), "an .onnx model holds its own weights")
        return OnnxNet(path, choose(engine, precision, threads, model=True), blobs)
    state = rules.state_of(phase, level, stages)
    found = Path(weights) if weights is not None else None
    if engine == "pycaffe":
        return _by_caffe(path, found, choose(engine, precision, threads), state, blobs)
    from pipeline.nets.caffe_net import CaffeNet

    return CaffeNet(path, found, choose(engine, precision, threads), state, blobs)


def default_blob(net: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None) -> str:
    """The net's output, where it has one.  Raises ConfigError where it has more, NetError for a net that is refused."""
    if is_built_in(str(net)):
        return Path(net).name
    outputs = load(Path(net), None if weights is None else Path(weights), blobs=[]).outputs
    if len(outputs) == 1:
        return outputs[0]
    many = f"the net has {len(outputs)} outputs: {', '.join(outputs[:20])}"
    raise ConfigError("a feature is one blob", many, "name it: --blob NAME")


def _by_caffe(
    path: Path, weights: Path | None, engine: Engine, state: caffe_pb2.NetState, blobs: Sequence[str] | None
) -> Net:
    from pipeline.nets.engines.pycaffe_engine import PyCaffe
    from pipeline.nets.pycaffe_net import PyCaffeNet

    assert isinstance(engine, PyCaffe)
    return PyCaffeNet(path, weights, engine, state, blobs)
