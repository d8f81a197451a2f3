"""Where each array of a barista's memory lies: one plan for the process that holds it and for those that map it.

    layout as JSON | parameters | history | slot 0 | slot 1 | ...

A slot holds data (what a pass is fed), gradients, weights (to give and to take) and blobs (what a pass computed).  All
arrays are float32 in C order.  What nobody has written costs no memory, so a plan may be generous.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import FormatError

FORMAT = 1
"""Of the layout and of the messages; another one is refused by name."""
Shape = tuple[int, ...]
_ALIGNED = 64
_BYTES = 4
_KINDS = ("data", "gradients", "weights", "blobs")


@dataclass(frozen=True, slots=True)
class Array:
    """An array's name, its shape, and its offset in bytes: of the memory, or within a slot."""

    name: str
    offset: int
    shape: Shape

    @property
    def size(self) -> int:
        return _BYTES * math.prod(self.shape)


@dataclass(frozen=True)
class Net:
    """What a memory is planned for.  parameters: by `LAYER/NUMBER`.  histories: of each parameter.

    data: what a pass of the training net is fed, by top.  blobs: whatever a customer may ask for, by name.
    """

    parameters: Mapping[str, Shape]
    histories: int
    data: Mapping[str, Shape]
    blobs: Mapping[str, Shape]


@dataclass(frozen=True)
class Layout:
    """parameters, history: offsets in the memory.  slot: its arrays by kind, offsets within the slot.

    first: the offset of slot 0.  stride: bytes of a slot.  slots: how many.  rows: the batch size of the training net;
    its tops whose first number it is may be fed in part.
    """

    parameters: Sequence[Array]
    history: Sequence[Array]
    slot: Mapping[str, Sequence[Array]]
    first: int
    stride: int
    slots: int
    rows: int

    @property
    def size(self) -> int:
        """Bytes of the whole memory."""
        return self.first + self.stride * self.slots

    def begin(self, slot: int) -> int:
        """The offset of a slot."""
        return self.first + self.stride * slot

    def as_json(self) -> bytes:
        body = {
            "format": FORMAT,
            **{name: getattr(self, name) for name in ("first", "stride", "slots", "rows")},
            "parameters": _listed(self.parameters),
            "history": _listed(self.history),
            "slot": {kind: _listed(arrays) for kind, arrays in self.slot.items()},
        }
        return json.dumps(body, separators=(",", ":")).encode()


def plan(net: Net, slots: int) -> Layout:
    """The layout for a net and so many slots; its own JSON has room in front."""
    names = list(net.parameters)
    histories = {f"{name}:{number}": net.parameters[name] for number in range(net.histories) for name in names}
    kinds = {"data": net.data, "gradients": net.parameters, "weights": net.parameters, "blobs": net.blobs}
    slot: dict[str, Sequence[Array]] = {}
    end = 0
    for kind in _KINDS:
        slot[kind], end = _placed(kinds[kind], end)
        end = _rounded(end, mmap.PAGESIZE)
    room = mmap.PAGESIZE
    while True:
        parameters, after = _placed(net.parameters, room)
        history, after = _placed(histories, after)
        first = _rounded(after, mmap.PAGESIZE)
        found = Layout(parameters, history, slot, first, end, slots, rows_of(net.data))
        if len(found.as_json()) <= room:
            return found
        room *= 2


def rows_of(data: Mapping[str, Shape]) -> int:
    """The batch size of a net that is fed this: the first number of its first top; 1 where that has none."""
    first = next(iter(data.values()), ())
    return first[0] if first else 1


def read(text: bytes, size: int) -> Layout:
    """The layout that stands in a memory of so many bytes.  Raises FormatError for one that is none, or of another
    Hathi: a customer never looks beyond what is there."""
    try:
        body = json.loads(text)
        found = _read(body) if body["format"] == FORMAT else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError("the barista's layout cannot be read", str(error), "start the barista anew") from error
    if found is None:
        raise another(body["format"])
    within = [(found.parameters, found.first), (found.history, found.first)]
    within += [(arrays, found.stride) for arrays in found.slot.values()]
    for arrays, end in within:
        for one in arrays:
            if min((one.offset, *one.shape)) < 0 or one.offset + one.size > end:
                raise FormatError("the barista's layout is damaged", f"'{one.name}' lies beyond its place")
    if found.size > size:
        raise FormatError("the barista's memory is smaller than its layout", f"{size} bytes for {found.size}")
    return found


def another(format: object) -> FormatError:
    """The error of a barista and a customer of different versions of Hathi."""
    detail = f"it speaks form {format}, this Hathi form {FORMAT}"
    return FormatError("the barista is of another version of Hathi", detail, "install the same version on both sides")


def _read(body: Mapping[str, Any]) -> Layout:
    slot = {kind: _arrays(body["slot"][kind]) for kind in _KINDS}
    numbers = [body[name] for name in ("first", "stride", "slots", "rows")]
    if not all(type(one) is int and one >= 0 for one in numbers):
        raise ValueError(f"numbers are {numbers}")
    return Layout(_arrays(body["parameters"]), _arrays(body["history"]), slot, *numbers)


def _arrays(listed: Iterable[Any]) -> list[Array]:
    found = [Array(str(name), offset, tuple(shape)) for name, offset, shape in listed]
    for one in found:
        if not all(type(number) is int for number in (one.offset, *one.shape)):
            raise ValueError(f"'{one.name}' has no numbers")
    return found


def _listed(arrays: Iterable[Array]) -> list[list[Any]]:
    return [[one.name, one.offset, one.shape] for one in arrays]


def _placed(shapes: Mapping[str, Shape], begin: int) -> tuple[list[Array], int]:
    found = []
    for name, shape in shapes.items():
        found.append(Array(name, _rounded(begin, _ALIGNED), tuple(shape)))
        begin = found[-1].offset + found[-1].size
    return found, begin


def _rounded(number: int, to: int) -> int:
    return -(-number // to) * to
