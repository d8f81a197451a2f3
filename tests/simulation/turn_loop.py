"""An event loop of a simulated process: it waits by the hand clock, and what would wait in a thread asks again."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio.base_events import BaseEventLoop
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tests.simulation.scheduler import Killed

T = TypeVar("T")
AGAIN_SECONDS = 0.5


class NotYet(Exception):
    """What a thread waits for has not happened."""


class TurnLoop(BaseEventLoop):
    """One process's.  now: the time; sleep: lets others have their turns for so many seconds; dead: it was killed."""

    def __init__(self, now: Callable[[], float], sleep: Callable[[float], None], dead: Callable[[], bool]) -> None:
        super().__init__()
        self._now, self._sleep, self._dead = now, sleep, dead
        self._selector = self
        self._clock_resolution = 0.001
        self.set_exception_handler(lambda *_: None)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What it gives.  Raises Killed as soon as the process is dead; nothing of it runs any more then."""
        asyncio._set_running_loop(self)
        task = self.create_task(work)
        try:
            with contextlib.suppress(Killed):
                while not task.done() and not self._dead():
                    self._once()
            if self._dead():
                self._bury()
                raise Killed
            return task.result()
        finally:
            asyncio._set_running_loop(None)
            self.close()

    def away(self, switch: Callable[[], T]) -> T:
        """Other processes' loops run meanwhile."""
        asyncio._set_running_loop(None)
        try:
            return switch()
        finally:
            asyncio._set_running_loop(self)

    def _once(self) -> None:
        """What is due now; waits where nothing is."""
        self._run_once()  # type: ignore[attr-defined]

    def _bury(self) -> None:
        """Ends what stands half done: each call of it is refused, since the process is dead."""
        for _ in range(20):
            left = asyncio.all_tasks(self)
            if not left:
                return
            for task in left:
                task.cancel()
            for _ in range(20):
                self._once()
        raise AssertionError("a dead process goes on")

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future = self.create_future()

        def attempt() -> None:
            if future.done():
                return
            try:
                found = func(*args)
            except NotYet:
                self.call_later(AGAIN_SECONDS, attempt)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(found)

        self.call_soon(attempt)
        return future

    # --- what BaseEventLoop asks of a selector, and of its platform ---

    def select(self, timeout: float | None) -> list[Any]:
        if self._dead():
            return []
        if timeout is None:
            raise AssertionError("a process waits for nothing")
        if timeout > 0:
            self.away(lambda: self._sleep(timeout))
        return []

    def time(self) -> float:
        return self._now()

    def _process_events(self, events: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass
