"""`hathi train price SOLVER`: what a training will take, by layer, before anything is computed."""

from __future__ import annotations

import argparse
import json
import sys
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
    """0; 1 where something speaks against the training.  With --dataset: as the service judges a tenant's texts."""
    if len(args.words) != 2:
        given = " ".join(args.words[1:]) or "nothing"
        raise ConfigError("hathi train price takes one solver", f"given: {given}", "hathi train price SOLVER")
    if args.dataset is not None:
        return _judged(args)
    from pipeline.training import price, solver

    found = price.of(solver.read(Path(args.words[1]), flags), how)
    if args.json:
        print(json.dumps(found.as_json()))
    else:
        print("\n".join(map(escape, _lines(found))))
    return int(bool(found.refused))


def _judged(args: argparse.Namespace) -> int:
    from pipeline.service.specification.facts import data_of
    from pipeline.service.specification.judging import judge
    from pipeline.service.specification.words import Asked, BadSpecification, Limits
    from pipeline.training import solver_text

    path = Path(args.words[1])
    text, named = _text(path), solver_text.read(path).net
    try:
        found = judge(Asked(text, _text(Path(named)) if named else "", data_of(args.dataset)))
    except BadSpecification as error:
        told = [one._asdict() for one in error.problems]
        if args.json:
            print(json.dumps({"problems": told}))
        for one in () if args.json else error.problems:
            place = f":{one.line}:{one.column}" if one.line else ""
            print(escape(f"refused: {one.pointer}{place}: {' | '.join(filter(None, one[1:4]))}"))
        return 1
    for says in found.warnings:
        print(f"warning: {escape(says)}", file=sys.stderr)
    if args.json:
        print(json.dumps(dict(found.price)))
    else:
        price, held = found.price, found.price["bytes"]["memory"]
        print(f"learned numbers: {price['parameters']:,}; memory: at least {size(held)}")
        print(f"iterations: {price['iterations']:,} of {counted(price['examples'], 'example')}; "
              f"about {price['seconds']:,.0f} s at {Limits().rate:,.0f} multiply-adds a second")  # fmt: skip
    return 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        says = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{path} cannot be read", says, "give a .prototxt in UTF-8") from error


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
