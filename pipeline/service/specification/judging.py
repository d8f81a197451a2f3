"""A specification as whoever queues it has it: the texts of ours and their price, or all that is wrong with it."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

from pipeline.errors import PipelineError, TemporaryError
from pipeline.process.child import Child, python_of
from pipeline.process.life import OUT_OF_MEMORY
from pipeline.service.archive.reading import environment
from pipeline.service.specification.words import NET, Asked, BadSpecification, Judged, Problem

SECONDS = 60.0
"""Of the clock that judging may take: twice the processor time that its child may, which only a busy host needs."""


def judge(asked: Asked) -> Judged:
    """Raises BadSpecification, with every problem that was found; TemporaryError where the host is too busy to say."""
    limits = {**asdict(asked.limits)}
    data = {**asdict(asked.data), "sides": dict(asked.data.sides)} if asked.data is not None else None
    first = {"solver": asked.solver, "net": asked.net, "data": data, "limits": limits}
    with Child(python_of("pipeline.service.specification.child"), environment(os.environ)) as child:
        told, end = child.run(first, SECONDS, lambda: None)
    found: dict[str, Any] | None = next((one["judged"] for one in told if "judged" in one), None)
    if found is None:
        failed = next((one["failed"] for one in told if "failed" in one), None)
        if failed is not None:
            raise PipelineError(failed["message"], failed["detail"], failed["hint"])
        if end.late:
            raise TemporaryError("this host is too busy to judge a specification", f"it {end.how}", "ask again", 10.0)
        what = "memory" if end.code == OUT_OF_MEMORY else "time" if end.by_itself else ""
        if not what:
            raise PipelineError("the judge of a specification was ended", f"it {end.story}", "ask again")
        raise BadSpecification([
            Problem(NET, f"the specification takes more {what} to read than it may", f"its reader {end.how}",
                    "make the net smaller")
        ])  # fmt: skip
    if found["problems"]:
        raise BadSpecification([Problem(*one) for one in found["problems"]])
    return Judged(found["solver"], found["net"], found["price"], tuple(found["warnings"]), tuple(found["inputs"]))
