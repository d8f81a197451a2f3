"""Which ReLU writes over what it reads: it saves memory and time where nothing else looks at those values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from pipeline.nets.graph.lowered import Operation
from pipeline.training.engine.lowering import Part

IN_PLACE = "ReluInPlace"
_NOT_READ_BACK = frozenset({"Add", "AverageWindows", "Conv", "Gemm", "LargestOfWindows"})
"""What makes values that its own gradient does not read."""


def in_place(parts: Sequence[Part], rest: Sequence[Operation], kept: Collection[str]) -> list[Part]:
    """The same parts, where a ReLU that alone reads its bottom overwrites it: no number changes.

    rest: the operations behind them.  kept: values that are asked for after the pass, or that a gradient reads.
    """
    operations = [*(one for part in parts for one in (*part.ahead, *part.operations)), *rest]
    reads = Counter(name for one in operations for name in one.inputs)
    makers = {name: one.kind for one in operations for name in one.outputs}
    bottoms = Counter(name for part in parts for name in part.bottoms)
    found = []
    for part in parts:
        if len(part.operations) == 1 and part.operations[0].kind == "Relu":
            (name,) = part.operations[0].inputs
            alone = reads[name] == 1 and bottoms[name] == 1 and name not in kept
            if alone and makers.get(name) in _NOT_READ_BACK:
                part = replace(part, operations=(replace(part.operations[0], kind=IN_PLACE),))
        found.append(part)
    return found
