"""metrics.jsonl: one object a display or test, flushed as it is written; a training that goes on doubles none."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SolverError
from pipeline.nets.caffe.writing import replacing
from pipeline.training.log import MOST
from pipeline.training.network import Output
from pipeline.training.saving import unwritten

NAME = "metrics.jsonl"


class Metrics:
    """Rows `{"step", "time", "kind", "values"}`; a value that is not finite is a string."""

    def __init__(self, path: Path | None, also: Callable[[dict[str, Any]], None] = lambda row: None) -> None:
        """path: of the file; None: none is written.  also: hears of each row."""
        self._path, self._also = path, also

    def begin(self, step: int) -> None:
        """Keeps the rows before this iteration: what follows is written anew.

        Raises SolverError where the file cannot be replaced, or is not one that a training wrote.
        """
        if self._path is None:
            return
        try:
            kept = self._kept(self._path.read_bytes().splitlines(), step) if step and self._path.exists() else []
            with replacing(self._path) as file:
                file.writelines(line + b"\n" for line in kept)
        except OSError as error:
            hint = "free some space, give the right to write there, or move what stands there away"
            says = f"the metrics {self._path} cannot be written"
            raise SolverError(says, error.strerror or str(error), hint) from error

    def _kept(self, lines: list[bytes], step: int) -> list[bytes]:
        """The rows before this iteration; what a kill has left torn at the end is none."""
        steps = [_step(line) for line in lines]
        while steps and steps[-1] is None:
            steps.pop()
        if None in steps:
            says = f"the metrics {self._path} are not a training's"
            detail = f"line {steps.index(None) + 1} is no row: {lines[steps.index(None)][:60]!r}"
            raise SolverError(says, detail, "move the file away: the training goes on, and begins another one")
        end = next((at for at, one in enumerate(steps) if one is not None and one >= step), len(steps))
        return lines[:end]

    def add(self, step: int, seconds: float, kind: str, values: Mapping[str, float]) -> None:
        """seconds: since 1970.  Raises TemporaryError where the disk does not take it."""
        shown = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        row = {"step": step, "time": round(seconds, 3), "kind": kind, "values": shown}
        if self._path is not None:
            try:
                with self._path.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            except OSError as error:
                raise unwritten(f"the metrics {self._path}", error) from error
        self._also(row)


def _step(line: bytes) -> int | None:
    """The step of a row; None for what is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = row.get("step") if isinstance(row, dict) else None
    return step if type(step) is int else None


def values_of(prefix: str, of: list[Output], values: Mapping[str, NDArray[np.float32]]) -> dict[str, float]:
    """`train/loss` of a blob with one element; `train/prob/0`, `train/prob/1`, ... of one with more, 20 at most."""
    found: dict[str, float] = {}
    for output in of:
        flat = values[output.blob].ravel()
        if flat.size == 1:
            found[f"{prefix}/{output.blob}"] = float(flat[0])
        else:
            found.update((f"{prefix}/{output.blob}/{at}", float(one)) for at, one in enumerate(flat[:MOST]))
    return found
