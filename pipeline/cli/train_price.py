"""`hathi train price SOLVER`: what a training will take, by layer, before anything is computed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.amounts import counted, size
from pipeline.errors import ConfigError
from pipeline.process.logs import escape

if TYPE_CHECKING:
    from pipeline.training.assembly import How
    from pipeline.training.price import Price
    from pipeline.training.solver import Flags

_COLUMNS = ("layer", "type", "parameters", "activations", "multiply-adds", "backward")


def run(args: argparse.Namespace, flags: Flags, how: How) -> int:
    """0; 1 where something speaks against the training."""
    if len(args.words) != 2:
        given = " ".join(args.words[1:]) or "nothing"
        raise ConfigError("hathi train price takes one solver", f"given: {given}", "hathi train price SOLVER")
    from pipeline.training import price, solver

    found = price.of(solver.read(Path(args.words[1]), flags), how)
    if args.json:
        print(json.dumps(found.as_json()))
    else:
        print("\n".join(map(escape, _lines(found))))
    return int(bool(found.refused))


def _lines(found: Price) -> Iterator[str]:
    rows = [
        (
            one.name,
            one.type,
            f"{one.parameters:,}",
            f"{one.activations:,}",
            f"{one.multiply_adds:,}",
            f"{one.backward:,}",
        )
        for one in found.train.layers
    ]
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    for row in (_COLUMNS, *rows):
        texts = [cell.ljust(wide) for cell, wide in zip(row[:2], widths, strict=False)]
        texts += [cell.rjust(wide) for cell, wide in zip(row[2:], widths[2:], strict=True)]
        yield "  ".join(texts).rstrip()
    of, work = found.bytes, f"{found.multiply_adds:,}"
    examples = f" of {counted(found.examples, 'example')}" if found.examples else ""
    yield f"iterations: {found.iterations:,}{examples}"
    yield f"multiply-adds of one iteration, forward and backward: {work}"
    yield (f"memory: at least {size(of.memory)}: weights {size(of.weights)}, gradients {size(of.gradients)}, "
           f"history {size(of.history)}, activations {size(of.activations)}")  # fmt: skip
    yield f"a snapshot: {size(of.snapshot)}"
    for one in found.refused:
        yield f"refused: {' | '.join(part for part in (one.says, one.detail, one.hint) if part)}"
