"""A customer: a process that has a barista compute on its data.  It needs NumPy, and no engine."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pipeline.barista import interface, layout
from pipeline.barista.layout import Array, Layout
from pipeline.barista.memory import Float32s, Mapped, checked
from pipeline.barista.messages import Ended, accepted, receive, receive_with, send
from pipeline.errors import ConfigError, TemporaryError

Arrays = Mapping[str, Float32s]
Batch = Mapping[str, ArrayLike]


@dataclass(frozen=True)
class Answer:
    """What a pass gave.  version: of the weights that it was computed with.  loss: weighted, of a net without a loss 0.

    blobs: the net's outputs, and the blobs that were asked for; views of the customer's slot, which its next pass
    overwrites.
    """

    version: int
    loss: float
    blobs: Arrays


@dataclass(frozen=True)
class Updated:
    """version: of the new weights.  iteration: updates that the barista made.  rate: that it took."""

    version: int
    iteration: int
    rate: float


class Customer:
    """A connection to a barista, with a slot of its own until it is closed or its process ends.

    data: what a pass is fed, by top: write it before you ask for a pass.  gradients: of the last `gradient`, by
    `LAYER/NUMBER`; what stands there when you ask for an `update` is taken.  given: weights, for `weights` and `copy`.
    These lie in the customer's slot and may be written.  parameters, history: the barista's own, live: they are read,
    and change with each update.  All are float32 views of shared memory; nothing is copied.
    version: of the weights at the last answer.  rows: the most that a pass takes.
    """

    def __init__(self, file: str | os.PathLike[str], *, seconds: float | None = None) -> None:
        """file: the interface file.  seconds: the longest wait for an answer; None: as long as the barista lives.

        Raises ConfigError for a file that is none, PermanentError where its barista has ended or all slots are taken.
        """
        self._file = Path(os.path.abspath(file))
        self._asking = threading.Lock()
        self._socket = interface.connected(self._file, seconds)
        try:
            plan, slot = self._begin()
        except BaseException:
            self._socket.close()
            raise
        self.rows, self._slot, self._number = plan.rows, slot, 0
        begin = plan.begin(slot)

        def mine(kind: str) -> dict[str, Float32s]:
            return {one.name: self._own.array(one, begin) for one in plan.slot[kind]}

        self.data: Arrays = mine("data")
        self.gradients: Arrays = mine("gradients")
        self.given: Arrays = mine("weights")
        self._blobs = mine("blobs")
        self.parameters: Arrays = self._shared_arrays(plan.parameters)
        self.history: Arrays = self._shared_arrays(plan.history)

    def gradient(
        self, batch: Batch | None = None, *, rows: int | None = None, number: int | None = None,
        blobs: Sequence[str] = (), version: int | None = None,
    ) -> Answer:  # fmt: skip
        """Forward and backward in phase TRAIN on the first `rows` of `data`; the gradients are in `gradients`.

        batch: values by top, put into `data` first; None: what stands there.  rows: None: as many as the batch has.
        number: of the pass, which decides Dropout's masks; None: one more than this customer's last.
        blobs: of the net, to be told beside its outputs.  version: refused where the weights have another one.
        BatchNorm's own blobs have what the batch adds to their sums in place of a gradient.
        Raises ConfigError for another shape, Refused for what the barista does not take.
        """
        return self._pass("gradient", self._put(rows, batch or {}), number, blobs, {"version": version})

    def forward(
        self, batch: Batch | None = None, *, rows: int | None = None, phase: str = "TEST", number: int | None = None,
        blobs: Sequence[str] = (), version: int | None = None,
    ) -> Answer:  # fmt: skip
        """Forward alone: in phase TEST by the solver's first test net, in phase TRAIN by the net that learns."""
        return self._pass("forward", self._put(rows, batch or {}), number, blobs, {"version": version, "phase": phase})

    def update(self, passes: int | None = None, rate: float | None = None, version: int | None = None) -> Updated:
        """The solver's update by what stands in `gradients`, which it uses up.

        passes: how many they are the sum of; None: the solver's iter_size.  rate: None: what its lr_policy says.
        """
        answer = self._ask({"verb": "update", "passes": passes, "rate": rate, "version": version})
        return Updated(self.version, answer["iteration"], answer["rate"])

    def weights(self, version: int, values: Batch | None = None) -> bool:
        """What stands in `given` becomes the net's weights, of that version; False: it has that version already.

        values: by `LAYER/NUMBER`, put into `given` first.
        """
        for name, one in (values or {}).items():
            _put(self.given, name, one)
        return bool(self._ask({"verb": "weights", "version": version})["taken"])

    def copy(self) -> Arrays:
        """The net's weights of one version, which is `version` then, copied into `given`."""
        self._ask({"verb": "copy"})
        return self.given

    def about(self) -> dict[str, Any]:
        """What the barista says of itself: iteration, customers, slots, rows, phases, pid."""
        return self._ask({"verb": "about"})

    def stop(self) -> None:
        """Ends the barista, for all its customers."""
        self._ask({"verb": "stop"})

    def close(self) -> None:
        """Leaves: the slot is free for another customer.  Arrays that you hold stay readable."""
        self._socket.close()

    def __enter__(self) -> Customer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self) -> tuple[Layout, int]:
        with self._told():
            send(self._socket, {"verb": "layout"})
            answer, handles = receive_with(self._socket)
        try:
            accepted(answer)
            self.version = int(answer["version"])
            size = checked(handles[0])
            head = Mapped(handles[0], 0, int(answer["layout"]), write=False)
            plan = layout.read(head.head(int(answer["layout"])), size)
            head.close()
            slot = int(answer["slot"])
            self._shared = Mapped(handles[0], 0, plan.first, write=False)
            self._own = Mapped(handles[0], plan.begin(slot), plan.stride, write=True)
            return plan, slot
        finally:
            for one in handles:
                os.close(one)

    def _shared_arrays(self, arrays: Sequence[Array]) -> dict[str, Float32s]:
        return {one.name: self._shared.array(one) for one in arrays}

    def _put(self, rows: int | None, data: Batch) -> int:
        """Puts the data where a pass is fed from; how many rows it is of."""
        for top, values in data.items():
            array = np.asarray(values, np.float32)
            whole = self.data.get(top)
            batched = whole is not None and whole.shape[:1] == (self.rows,)
            if batched and rows is None and array.ndim:
                rows = len(array)
            _put(self.data, top, array, rows if batched else None)
        return self.rows if rows is None else rows

    def _pass(self, verb: str, rows: int, number: int | None, blobs: Sequence[str], more: Mapping[str, Any]) -> Answer:
        number = self._number if number is None else number
        answer = self._ask({"verb": verb, "rows": rows, "number": number, "blobs": list(blobs), **more})
        self._number = number + 1
        views = {name: _part(self._blobs[name], shape) for name, shape in answer["blobs"].items()}
        return Answer(self.version, answer["loss"], views)

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._asking:
            with self._told():
                send(self._socket, request)
                answer = receive(self._socket)
            self.version = int(answer["version"])
            return accepted(answer)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Says what became of a barista that does not answer; the connection is of no more use then."""
        try:
            yield
        except TimeoutError as error:
            waited = f"waited {self._socket.gettimeout():g} s"
            self._socket.close()  # a late answer would be taken for another one's
            raise TemporaryError("the barista did not answer in time", waited, "connect anew") from error
        except Ended as error:
            self._socket.close()
            if interface.alive(self._file) is None:
                raise interface.dead(self._file) from error
            raise


def _put(arrays: Arrays, name: str, values: ArrayLike, rows: int | None = None) -> None:
    """Raises ConfigError for an unknown name and for another shape."""
    array = np.asarray(values, np.float32)
    there = arrays.get(name)
    if there is None:
        raise ConfigError(f"the net takes no '{name}'", f"it takes: {', '.join(arrays)}")
    wanted = there.shape if rows is None else (rows, *there.shape[1:])
    if array.shape != wanted or (rows is not None and rows > len(there)):
        raise ConfigError(f"'{name}' is given with the shape {array.shape}", f"its shape is {there.shape}",
                          "the first number may be smaller where it is the batch size")  # fmt: skip
    if array.ndim:
        there[: len(array)] = array
    else:
        there[...] = array


def _part(whole: Float32s, shape: Sequence[int]) -> Float32s:
    count = int(np.prod(shape, dtype=np.int64))
    return whole.reshape(-1)[:count].reshape(shape)
