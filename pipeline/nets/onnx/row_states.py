"""What is known of a value while a batch is followed through a graph, and what all rules of operations share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.nets.graph.lowered import Shape


@dataclass(frozen=True, eq=False)
class Free:
    """It depends on no image.  array: its values, where they are known."""

    array: NDArray[Any] | None = None


@dataclass(frozen=True)
class Rows:
    """Item b of the batch lies at (o * batch + b) * inner + i of `axis`, for each o < outer and i < inner.

    Reshaping joins the batch with the axes beside it, and parts them again.
    """

    axis: int
    outer: int
    inner: int


@dataclass(frozen=True)
class Mixed:
    """Items depend on each other, or on their places in the batch."""

    why: str


@dataclass(frozen=True)
class Unknown:
    """Nobody can tell by the graph."""

    why: str


State = Free | Rows | Mixed | Unknown


@dataclass(frozen=True)
class Node:
    """An operation; inputs: Free or Rows, and at least one Rows.  A shape that is not known is None."""

    kind: str
    inputs: tuple[State, ...]
    shapes: tuple[Shape | None, ...]
    outs: tuple[Shape | None, ...]
    attributes: Mapping[str, Any]
    version: int
    batch: int

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def array(self, place: int) -> NDArray[Any] | None:
        """The values of an input, where they are known."""
        state = self.inputs[place] if place < len(self.inputs) else None
        return state.array if isinstance(state, Free) else None


Rule = Callable[[Node], State | list[State]]
"""One operation's: a state for each output; the last one given counts for those that follow."""
RULES: dict[str, Rule] = {}

NO_SHAPE = Unknown("has a shape that is not known")
ACROSS = Mixed("reads items of the batch against each other")
PLACES = Mixed("holds numbers that differ from place to place in the batch")


def rule(kinds: str) -> Callable[[Rule], Rule]:
    def enter(made: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds.split(), made))
        return made

    return enter


def spread(node: Node, values: Iterable[tuple[State, Shape | None]], out: Shape) -> State:
    """Values that are broadcast to `out`."""
    values = list(values)
    found: Rows | None = None
    for state, shape in values:
        if isinstance(state, Rows):
            if shape is None:
                return NO_SHAPE
            here = Rows(state.axis + len(out) - len(shape), state.outer, state.inner)
            if found is not None and found != here:
                return ACROSS
            found = here
    if found is None or out[found.axis] != found.outer * node.batch * found.inner:
        return ACROSS if found is not None else Unknown("reads no image")
    for state, shape in values:
        if isinstance(state, Free) and (shape is None or found.axis >= len(out) - len(shape)):
            if shape is None:
                return NO_SHAPE
            trouble = unequal(state, shape, found.axis - len(out) + len(shape), found, node.batch)
            if trouble is not None:
                return trouble
    return found


def unequal(state: Free, shape: Shape, axis: int, rows: Rows, batch: int) -> Mixed | Unknown | None:
    """What is wrong with values of no image that lie along the batch: they must be the same for each item."""
    if shape[axis] == 1:
        return None
    if state.array is None:
        return Unknown("reads numbers along the batch that are not known here")
    along = np.moveaxis(state.array, axis, 0)
    if len(along) != rows.outer * batch * rows.inner:
        return ACROSS
    parts = along.reshape(rows.outer, batch, rows.inner, -1)
    if (parts == parts[:, :1]).all():
        return None
    # Whole numbers may be those by which each item is fetched from its own place.
    return Unknown(PLACES.why) if along.dtype.kind in "iu" else PLACES


def alone(node: Node, first: int = 1) -> Rows | Unknown:
    """The first input's rows; the inputs from `first` on must depend on no image."""
    state = node.inputs[0]
    if isinstance(state, Rows) and all(isinstance(one, Free) for one in node.inputs[first:]):
        return state
    return Unknown("reads images where it takes weights")
