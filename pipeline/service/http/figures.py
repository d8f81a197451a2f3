"""How good a training says that it is: what its own test measured at one iteration."""

from __future__ import annotations

import math

from pipeline.service.http.asking import Behind
from pipeline.service.http.job_records import chunks_of, rows_of
from pipeline.service.words import Actor


async def figures_of(service: Behind, actor: Actor, job: str, iteration: int) -> dict[str, float]:
    """By name, as `test/accuracy`; {} where it did not test then."""
    found: dict[str, float] = {}
    for chunk in await chunks_of(service, actor, job, "metrics"):
        if chunk["first"] <= iteration <= chunk["last"]:
            for row in await rows_of(service, chunk):
                if row.get("kind") == "test" and row["step"] == iteration:
                    values = ((name, float(value)) for name, value in row["values"].items())
                    found.update({name: value for name, value in values if math.isfinite(value)})
    return found
