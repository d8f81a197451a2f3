"""Image bytes -> what a net is fed.  `decode` and `prepare` are the way in; neither raises for any bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.images.decoding import decode
    from pipeline.images.formats import sniff
    from pipeline.images.preparing import Preparation, prepare

__all__ = ["Preparation", "decode", "prepare", "sniff"]
_HOMES = {"Preparation": "preparing", "prepare": "preparing", "decode": "decoding", "sniff": "formats"}


def __getattr__(name: str) -> Any:
    """Loads OpenCV and Pillow when the room is entered, not before."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(name)
