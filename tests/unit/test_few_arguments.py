"""What is wanted travels as a value: a function with many parameters is called wrongly sooner or later."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PIPELINE = Path(__file__).parents[2] / "pipeline"
MOST = 6
MORE = [
    "codec/refs/avro.py: _rows_of",
    "codec/refs/tables.py: _blocks",
    "codec/refs/tables.py: open_refs",
    "extraction/isolation.py: _run_child",
    "extraction/isolation.py: compute_alone",
    "ledger/layout.py: of",
    "nets/loading.py: load",
    "operations/health/failing.py: look",
    "operations/report/gather.py: _features",
    "operations/verify/delivered.py: _shipment",
    "stages/snapshots.py: plan",
]
"""Functions that take more, and where they stand; one that has become short leaves the list."""


def _long() -> Iterator[str]:
    for path in PIPELINE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name != "__init__":
                taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                if len([one for one in taken if one.arg not in ("self", "cls")]) > MOST:
                    yield f"{path.relative_to(PIPELINE)}: {node.name}"


def test_no_function_but_those_that_are_named_takes_more_than_six_values() -> None:
    assert sorted(_long()) == MORE
