"""Tells a program of the operator's how many workers there should be: for Slurm, a cloud's groups of machines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence

from pipeline.clock import Clock
from pipeline.process.child import asked
from pipeline.service import scaling
from pipeline.service.scaling import Wanted
from pipeline.service.words import Slot

AGAIN_SECONDS = 30.0
"""After a failure the same numbers are told again so much later."""
_SHOWN = 500


class Teller:
    """Called with what the queue wants, it tells numbers that changed, one program at a time; a failure it says.

    seconds: that the program has.  Everything is for one event loop.
    """

    def __init__(self, command: Sequence[str], seconds: float, clock: Clock, say: Callable[[str], None]) -> None:
        self._command, self._seconds, self._clock, self._say = list(command), seconds, clock, say
        self._told: dict[Slot, int] = {}
        self._not_before = float("-inf")
        self._running: asyncio.Task[None] | None = None

    def __call__(self, found: Mapping[Slot, Wanted]) -> None:
        numbers = {slot: one.desired for slot, one in found.items()}
        runs = self._running is not None and not self._running.done()
        if self._command and not runs and numbers != self._told and self._clock.monotonic() >= self._not_before:
            self._running = asyncio.ensure_future(self._tell(numbers, json.dumps(scaling.told(found)).encode()))

    async def _tell(self, numbers: dict[Slot, int], text: bytes) -> None:
        try:
            code, printed = await asyncio.to_thread(asked, self._command, self._seconds, None, text)
        except OSError as error:
            failed = str(error)
        else:
            ended = f"ended with {code}" if code is not None else f"did not end within {self._seconds:g} s"
            failed = "" if code == 0 else f"it {ended}: {printed.strip()[-_SHOWN:] or 'it printed nothing'}"
        if failed:
            self._not_before = self._clock.monotonic() + AGAIN_SECONDS
            self._say(f"service.scaling.command was not told how many workers there should be: {failed}")
        else:
            self._told = numbers
