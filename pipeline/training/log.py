"""What a training says: the lines that Caffe's solver prints, in the forms that people's parsers read.

tools/extra/parse_log.py and its descendants find `Iteration N`, `lr = r`, `Train net output #k: name = v` and the time
in glog's prefix; its year is not in it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.training.network import Output, Seen, Watched
from pipeline.training.updates import Clipping

MOST = 20
"""Elements of one output that are printed: a vector of a million was 2.6 GB of log in Caffe."""
Values = Mapping[str, NDArray[np.float32]]


def number(value: float) -> str:
    """As C++ prints a float: six digits."""
    return f"{float(value):g}"


class Log:
    """Writes lines with glog's prefix: level, month and day, time, thread, where Caffe says it."""

    def __init__(self, write: Callable[[str], None], now: Callable[[], float] = time.time) -> None:
        """now: seconds since 1970.  write: takes each line, with its end; one call is one line."""
        self._write, self._now, self._lock = write, now, threading.Lock()

    def __call__(self, where: str, text: str, level: str = "I") -> None:
        """where: Caffe's file and line, e.g. `solver.cpp:239`."""
        seconds = self._now()
        at = time.localtime(seconds)
        micros = int(seconds % 1 * 1e6)
        prefix = f"{level}{at.tm_mon:02}{at.tm_mday:02} {at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}.{micros:06}"
        with self._lock:
            self._write(f"{prefix} {os.getpid():5} {where}] {text}\n")


def displayed(iteration: int, per_second: float, seconds: float, every: int, loss: float) -> str:
    speed = f"({number(per_second)} iter/s, {number(seconds)}s/{every} iters)"
    return f"Iteration {iteration} {speed}, loss = {number(loss)}"


def outputs(kind: str, of: Sequence[Output], values: Values) -> Iterator[str]:
    """A line for each element of each output; kind: Train or Test.  Those left out are counted all the same."""
    count = 0
    for output in of:
        flat = values[output.blob].ravel()
        for offset, value in enumerate(flat[:MOST]):
            yield f"    {kind} net output #{count + offset}: {output.blob} = {named(value, output.loss_weight)}"
        if flat.size > MOST:
            yield f"    {kind} net output: {output.blob} has {flat.size - MOST} more elements"
        count += flat.size


def named(value: np.float32, loss_weight: float) -> str:
    """A value, and what it adds to the loss."""
    if not loss_weight:
        return number(float(value))
    weighted = np.float32(loss_weight) * np.float32(value)
    return f"{number(float(value))} (* {number(loss_weight)} = {number(float(weighted))} loss)"


def clipping(clipped: Clipping, limit: float) -> str:
    norms = f"(L2 norm {number(clipped.norm)} > {number(limit)})"
    return f"Gradient clipping: scaling down gradients {norms} by scale factor {number(clipped.scale)}"


def debug(watched: Watched) -> Iterator[tuple[str, str, str]]:
    """debug_info's lines of one pass, each with where Caffe says it, and at which level: the last one as an error."""
    for seen in watched.forward:
        place = {"top": "net.cpp:605", "param": "net.cpp:617"}.get(seen.what, "net.cpp:605")
        yield place, f"    [Forward] Layer {seen.layer}, {_blob(seen)} data: {number(seen.mean)}", "I"
    for seen in watched.backward:
        place = {"bottom": "net.cpp:636", "param": "net.cpp:647"}.get(seen.what, "net.cpp:636")
        yield place, f"    [Backward] Layer {seen.layer}, {_blob(seen)} diff: {number(seen.mean)}", "I"
    if watched.norms is not None:
        data, diff, data2, diff2 = map(number, watched.norms)
        says = f"All net params (data, diff): L1 norm = ({data}, {diff}); L2 norm = ({data2}, {diff2})"
        yield "net.cpp:677", f"    [Backward] {says}", "E"


def _blob(seen: Seen) -> str:
    return f"{seen.what} blob {seen.blob}"
