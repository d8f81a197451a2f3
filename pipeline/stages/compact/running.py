"""One run over a lake: every partner that has something new, then the index."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pipeline.errors import PipelineError, Stopped
from pipeline.ledger.protocol import Context
from pipeline.stages.compact.compacting import Compacted, Task, Trouble, perform, plan, point, roots_of

__all__ = ["Compacted", "Trouble", "run"]

_TRIES = 3
"""Where another gateway was first, what its table does not cover is merged into a further one; so often in one run."""


def run(context: Context, partner: int | None = None) -> Iterator[Compacted | Trouble]:
    """Compact one lake.  partner: only this one.  Raises Stopped, and what stops the look itself (the lake is away)."""
    for task in list(plan(context, partner)):
        context.safe_point()
        if isinstance(task, Trouble):
            yield task
        else:
            yield from _one(context, task)
    for name, root in roots_of(context).items():
        context.safe_point()
        try:
            point(context, root)
        except Stopped:
            raise
        except PipelineError as error:
            yield Trouble(f"index of {name}", error)


def _one(context: Context, task: Task) -> Iterator[Compacted | Trouble]:
    wanted: Task | None = task
    for _ in range(_TRIES):
        if wanted is None:
            return
        troubles: list[Trouble] = []
        try:
            done = perform(context, wanted, troubles)
        except Stopped:
            raise
        except PipelineError as error:
            yield Trouble(f"partner {task.partner} of {task.set}", error)
            return
        if done is not None:
            yield done
        if done is None or done.won:
            yield from troubles
            return
        left = tuple(name for name in task.fresh if str(name) not in done.current.body.covers)
        wanted = replace(task, current=done.current, fresh=left, number=done.current.body.number + 1) if left else None
