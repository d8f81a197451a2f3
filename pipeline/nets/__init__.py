"""Caffe nets and ONNX models: read, check, lower, run.  `load` is the way in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.nets.net import Net, load

__all__ = ["Net", "load"]


def __getattr__(name: str) -> Any:
    """Loads the room when it is entered: engines are heavy."""
    if name in __all__:
        from pipeline.nets import net

        return getattr(net, name)
    raise AttributeError(name)
