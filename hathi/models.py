"""Nets: opening one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.images import Preparation
from pipeline.nets.features import image_input, taken
from pipeline.nets.loading import load
from pipeline.nets.net import Net
from pipeline.nets.preprocessing import with_stated
from pipeline.records import Failure
from pipeline.settings import FeatureSet
from pipeline.settings import load as load_settings


def load_net(
    net: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    *,
    blobs: Sequence[str] | None = None,
    engine: str = "auto",
    precision: str = "fp32",
    phase: Literal["TEST", "TRAIN"] = "TEST",
    threads: int = 0,
    preprocess: str | Mapping[str, object] | None = None,
    input_size: tuple[int, int] | None = None,
) -> Net:
    """Open a Caffe or ONNX net and make it ready to run.

    net: a deploy .prototxt, an .onnx model, or "hog".
    weights: the .caffemodel of a .prototxt; none for ONNX.
    blobs: what `forward` returns by default; only what these depend on is read and computed.  Default: the outputs.
    engine: "auto", the fastest that is installed, or openvino, onnxruntime, torch, pycaffe.
    precision: fp32, or tf32, bf16, fp16 where the device has it.
    threads: cores that it may use; 0: all.
    preprocess: what the net was trained with: "caffe", "imagenet", "clip", "dinov2", "unit", "none", or settings of
        `[sets.NAME.preprocess]`; by default as for `features`.  `prepare` does it.
    input_size: height and width for `prepare`, where the net and the preset do not fix them.
    Returns a `Net`: `inputs`, `outputs`, `blobs`, `shape(blob)`, `forward(feeds)`, `engine`, `warnings`, and
    `prepare(content)`: the bytes of an image -> (3, height, width) float32 (channels last where the net takes them so),
    or a `Failure`.  `prepare` raises `Error` where nothing says how images are prepared for an ONNX model.
    Raises `Error` for a net, weights or a blob that cannot be used; it names the layer and says what to do.

    >>> import hathi, numpy as np
    >>> net = hathi.load_net("deploy.prototxt", "x.caffemodel", blobs=["pool"])
    >>> net.inputs
    {'data': (1, 3, 16, 16)}
    >>> images = np.zeros((2, 3, 16, 16), np.float32)  # prepared as the net was trained
    >>> net.forward({"data": images})["pool"].shape
    (2, 8, 4, 4)
    >>> from pathlib import Path
    >>> image = net.prepare(Path("shoe.png").read_bytes())
    >>> net.forward({"data": image[None]})["pool"].shape
    (1, 8, 4, 4)
    """
    opened = load(
        os.fspath(net),
        None if weights is None else os.fspath(weights),
        blobs=blobs,
        engine=engine,
        precision=precision,
        phase=phase,
        threads=threads,
    )
    given = {"preset": preprocess} if isinstance(preprocess, str) else dict(preprocess or {})
    chosen: dict[str, object] = {"net": os.path.abspath(net) if os.fspath(net) != "hog" else "hog", "preprocess": given}
    if input_size is not None:
        chosen["input_size"] = list(input_size)
    blob = blobs[0] if blobs else ""
    settings = {f"sets.{_SET}.{name}": value for name, value in {**chosen, "blob": blob, "root": _SET}.items()}
    one = load_settings(None, os.environ, {"bucket.url": os.devnull, **settings}).sets[_SET]
    opened.prepare = _Preparing(opened, one)  # type: ignore[method-assign]
    return opened


class _Preparing:
    """Bytes of an image -> what the net is fed; how is looked up when it is first asked for."""

    def __init__(self, net: Net, chosen: FeatureSet) -> None:
        self._net = net
        self._chosen = chosen
        self._made: tuple[Preparation, bool] | None = None

    def __call__(self, content: bytes) -> NDArray[np.float32] | Failure:
        if self._made is None:
            chosen = with_stated(self._chosen)
            blob = chosen.blob or self._net.outputs[0]
            takes = taken(self._net, image_input(self._net, blob), chosen)
            self._made = Preparation(chosen.preprocess, takes.size, channels=takes.channels), takes.last
        prepare, last = self._made
        found = prepare(content)
        return np.ascontiguousarray(found.transpose(1, 2, 0)) if last and not isinstance(found, Failure) else found


_SET = "features"
