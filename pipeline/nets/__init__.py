"""Caffe nets and ONNX models: read, check, lower, run.  `load` is the way in.

`caffe_pb2` holds the messages of Caffe's files, for whoever writes a net in Python.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.codec import caffe_pb2
    from pipeline.nets.loading import load
    from pipeline.nets.net import Net

__all__ = ["Net", "caffe_pb2", "load"]
_HOMES = {"Net": "pipeline.nets.net", "load": "pipeline.nets.loading"}


def __getattr__(name: str) -> Any:
    """Loads the room when it is entered: engines are heavy, and so is protobuf."""
    if name == "caffe_pb2":
        return import_module("pipeline.codec.caffe_pb2")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(name)
