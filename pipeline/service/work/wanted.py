"""What an attempt waits for is waited for as long as anybody wants it: a thread behind it may never come back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
LOOK_SECONDS = 0.2


class Unwanted(Exception):
    """The attempt ends before its end.  why: `lost`, `cancel`, `time` or `part`."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


async def wanted(work: Awaitable[T], why: Callable[[], str]) -> T:
    """What it gives.  why: asked again and again; "": it goes on.  Raises Unwanted, and what the work raises."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            if said := why():
                raise Unwanted(said)
            await asyncio.wait([task], timeout=LOOK_SECONDS)
        return task.result()
    finally:
        await given_up(task)


async def given_up(task: asyncio.Future[T]) -> None:
    """Ends what is still under way, and what comes of it is nobody's."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()
