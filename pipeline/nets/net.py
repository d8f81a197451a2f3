"""What every net offers, whatever file it came from."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import NetError
from pipeline.nets.engines import Engine, EngineInfo
from pipeline.nets.graph.lowered import Shape
from pipeline.nets.verdict import Verdict
from pipeline.records import Failure

if TYPE_CHECKING:
    from pipeline.settings import Preprocess

log = logging.getLogger(__name__)

Blobs = dict[str, NDArray[np.float32]]


class Net(ABC):
    """A net that can be run.

    name: what it calls itself.  inputs: the shape that it declares for each input blob (-1: any).  warnings: what was
    odd about it.
    """

    name: str
    inputs: dict[str, Shape]

    def __init__(self, engine: Engine) -> None:
        self.warnings: list[str] = []
        self._engine = engine

    @property
    def engine(self) -> EngineInfo:
        """What runs it, and why."""
        return self._engine.info

    @property
    @abstractmethod
    def blobs(self) -> tuple[str, ...]:
        """The names of all blobs."""

    @property
    @abstractmethod
    def outputs(self) -> tuple[str, ...]:
        """The blobs that no layer reads."""

    @abstractmethod
    def forward(self, feeds: Mapping[str, ArrayLike], blobs: Sequence[str] | None = None) -> Blobs:
        """One pass: the values of `blobs` (by default those given to `load`, else the net's outputs).

        feeds: the inputs that those blobs depend on, any real dtype, in the net's axis order; any batch and size that
        the net allows.  A new set of shapes compiles the net once for them.  No pass depends on another: recurrent
        layers begin each with zeros.
        Returns float32 arrays, C order, in the net's own shapes: what a full pass leaves in each blob.
        Raises NetError: a feed is missing, unknown or does not fit, or a blob does not exist.
        """

    @abstractmethod
    def shape(self, blob: str, shapes: Mapping[str, Shape]) -> Shape:
        """The blob's shape for inputs of `shapes`.  Raises NetError where they do not fit."""

    @abstractmethod
    def inputs_of(self, blob: str) -> list[str]:
        """The names of the inputs that the blob depends on."""

    def preparation(self, wanted: Preprocess) -> Preprocess:
        """How images are prepared for this net where a feature set wants `wanted`.  Raises ConfigError for what it
        cannot take."""
        return wanted

    def prepare(self, content: bytes) -> NDArray[np.float32] | Failure:
        """Bytes of an image -> (3, height, width) float32 for the net; `hathi.load_net` says how."""
        raise NetError(f"nothing says how images are prepared for the net {self.name}", "", "open it by hathi.load_net")

    def batch_of(self, name: str) -> int:
        """The one batch size that an input takes; 0: any."""
        return 0

    @abstractmethod
    def ready(self, blob: str, shapes: Mapping[str, Shape]) -> None:
        """Compiles what computes the blob for inputs of `shapes`: no pass of those shapes reads a file after it.

        Raises NetError for weights that are damaged, and for what the engine does not take.
        """

    @abstractmethod
    def rows(self, blob: str, shapes: Mapping[str, Shape]) -> Verdict:
        """Whether each row of the blob depends on its own item of the batch alone, as far as the graph tells.

        shapes: the inputs', with the batch; a batch of 1 is looked at as one of 2.
        """

    def lacking(self, blob: str) -> list[str]:
        """The layers that the blob depends on for whose weights neither a file nor the net's text has any values."""
        return []

    @abstractmethod
    def fingerprint(self, blob: str, shapes: Mapping[str, Shape]) -> str:
        """Hex SHA-256 of what the blob's value depends on, beside what is fed; batches have no part."""

    def _warn(self, says: str) -> None:
        if says not in self.warnings:
            self.warnings.append(says)
            log.warning("%s", says)
