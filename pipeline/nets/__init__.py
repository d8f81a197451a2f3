"""Caffe nets and ONNX models: read, check, lower, run.  `load` is the way in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.nets.loading import load
    from pipeline.nets.net import Net

__all__ = ["Net", "load"]
_HOMES = {"Net": "net", "load": "loading"}


def __getattr__(name: str) -> Any:
    """Loads the room when it is entered: engines are heavy."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(name)
