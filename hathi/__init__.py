"""Hathi as a library: everything that you may import.

    import hathi

    for one in hathi.features(urls, net="deploy.prototxt", weights="x.caffemodel", blob="fc7"):
        ...                                   # one.vector, or one.failure and why
    table = hathi.read_features("out/")       # an Arrow table: the newest feature of each item
    ids, matrix = hathi.read_matrix("out/")   # the same for NumPy
    stories = hathi.why(12, "SKU-4711", features="out/")
    solver = hathi.training.load("solver.prototxt")   # Caffe's solvers, with pycaffe's names
    barista = hathi.barista.start("solver.prototxt")  # a net in memory that other processes map
    service = hathi.remote.connect()      # a service that trains, as docs/service.md has it

Every name in `__all__` keeps its name and its meaning; the code behind it may change.  Python loads a name when you
first use it, so `import hathi` is quick and loads no engine.

A problem with one image is a value, a `Failure` with its reason, and stops nothing.  A problem that you have to solve
is an exception, an `Error`: its text says what happened, the facts, and what to do.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hathi import barista, remote, training
    from hathi.featuring import Features, Result, features
    from hathi.images import decode, fetch
    from hathi.models import load_net
    from hathi.reading import fingerprints, read_features, read_matrix, scan_features
    from hathi.stories import why
    from pipeline import __version__
    from pipeline.errors import PipelineError as Error
    from pipeline.fetch import Fetched
    from pipeline.nets import Net
    from pipeline.operations.why import Story
    from pipeline.records import Failure

__all__ = [
    "Error",
    "Failure",
    "Features",
    "Fetched",
    "Net",
    "Result",
    "Story",
    "__version__",
    "barista",
    "decode",
    "features",
    "fetch",
    "fingerprints",
    "load_net",
    "read_features",
    "read_matrix",
    "remote",
    "scan_features",
    "training",
    "why",
]

_HOMES = {
    "Error": ("pipeline.errors", "PipelineError"),
    "Failure": ("pipeline.records", "Failure"),
    "Features": ("hathi.featuring", "Features"),
    "Fetched": ("pipeline.fetch", "Fetched"),
    "Net": ("pipeline.nets", "Net"),
    "Result": ("hathi.featuring", "Result"),
    "Story": ("pipeline.operations.why", "Story"),
    "__version__": ("pipeline", "__version__"),
    "barista": ("hathi.barista", ""),
    "decode": ("hathi.images", "decode"),
    "features": ("hathi.featuring", "features"),
    "fetch": ("hathi.images", "fetch"),
    "fingerprints": ("hathi.reading", "fingerprints"),
    "load_net": ("hathi.models", "load_net"),
    "read_features": ("hathi.reading", "read_features"),
    "read_matrix": ("hathi.reading", "read_matrix"),
    "remote": ("hathi.remote", ""),
    "scan_features": ("hathi.reading", "scan_features"),
    "training": ("hathi.training", ""),
    "why": ("hathi.stories", "why"),
}
"""Where each name is: a module, and its name there; "" is the module itself."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hathi' has no attribute {name!r}; it has: {', '.join(__all__)}")
    module, there = _HOMES[name]
    found: Any = import_module(module)
    found = getattr(found, there) if there else found
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
