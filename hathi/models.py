"""Nets: opening one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

from pipeline.nets.loading import load
from pipeline.nets.net import Net


def load_net(
    net: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    *,
    blobs: Sequence[str] | None = None,
    engine: str = "auto",
    precision: str = "fp32",
    phase: Literal["TEST", "TRAIN"] = "TEST",
    threads: int = 0,
) -> Net:
    """Open a Caffe or ONNX net and make it ready to run.

    net: a deploy .prototxt, an .onnx model, or "hog".
    weights: the .caffemodel of a .prototxt; none for ONNX.
    blobs: what `forward` returns by default; only what these depend on is read and computed.  Default: the outputs.
    engine: "auto", the fastest that is installed, or openvino, onnxruntime, torch, pycaffe.
    precision: fp32, or tf32, bf16, fp16 where the device has it.
    threads: cores that it may use; 0: all.
    Returns a `Net`: `inputs`, `outputs`, `blobs`, `shape(blob)`, `forward(feeds)`, `engine`, `warnings`.
    Raises `Error` for a net, weights or a blob that cannot be used; it names the layer and says what to do.

    >>> import hathi, numpy as np
    >>> net = hathi.load_net("deploy.prototxt", "x.caffemodel", blobs=["pool"])
    >>> net.inputs
    {'data': (1, 3, 16, 16)}
    >>> images = np.zeros((2, 3, 16, 16), np.float32)  # prepared as the net was trained
    >>> net.forward({"data": images})["pool"].shape
    (2, 8, 4, 4)
    """
    return load(
        os.fspath(net),
        None if weights is None else os.fspath(weights),
        blobs=blobs,
        engine=engine,
        precision=precision,
        phase=phase,
        threads=threads,
    )
