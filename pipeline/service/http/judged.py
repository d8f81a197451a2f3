"""A specification, judged within a request: a few children at a time, and every problem with its place."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from pipeline.service.problems import Problem, Refused
from pipeline.service.specification.judging import judge
from pipeline.service.specification.words import Asked, BadSpecification, Judged
from pipeline.service.specification.words import Problem as Wrong

AT_ONCE = 2
"""Children of one server that judge at the same time; others wait."""
CORRECT = "correct what `errors` names, each at its pointer"
"""What to do, where no problem says it better."""


class Judges:
    """Of one server."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(AT_ONCE)

    async def judge(self, asked: Asked) -> Judged:
        """Raises Refused: 422, with JSON pointer, line and column of each problem; PipelineError."""
        try:
            async with self._free:
                return await asyncio.to_thread(judge, asked)
        except BadSpecification as error:
            wrong = tuple(_told(one) for one in error.problems)
            problem = Problem(
                422, "the specification cannot be trained", error.hint or CORRECT, "specification", errors=wrong
            )
            raise Refused(problem) from error


def _told(one: Wrong) -> Mapping[str, str]:
    place = {"line": str(one.line), "column": str(one.column)} if one.line else {}
    says = f"{one.message}: {one.detail}" if one.detail else one.message
    return {"pointer": f"#{one.pointer}", "detail": says, **({"hint": one.hint} if one.hint else {}), **place}
