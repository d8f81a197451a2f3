"""metrics.jsonl: one object a display or test, flushed as it is written; a training that goes on doubles none."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.training.log import MOST
from pipeline.training.network import Output

NAME = "metrics.jsonl"


class Metrics:
    """Rows `{"step", "time", "kind", "values"}`; a value that is not finite is a string."""

    def __init__(self, path: Path | None, also: Callable[[dict[str, Any]], None] = lambda row: None) -> None:
        """path: of the file; None: none is written.  also: hears of each row."""
        self._path, self._also = path, also

    def begin(self, step: int) -> None:
        """Keeps the rows before this iteration: what follows is written anew."""
        if self._path is None:
            return
        kept: list[str] = []
        try:
            lines = self._path.read_text().splitlines() if step else []
        except FileNotFoundError:
            lines = []
        for line in lines:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # the last one, torn by a kill
                break
            if row["step"] >= step:
                break
            kept.append(line + "\n")
        beside = self._path.with_name(f".{self._path.name}.new")
        beside.write_text("".join(kept))
        os.replace(beside, self._path)

    def add(self, step: int, seconds: float, kind: str, values: Mapping[str, float]) -> None:
        """seconds: since 1970."""
        shown = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        row = {"step": step, "time": round(seconds, 3), "kind": kind, "values": shown}
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        self._also(row)


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
