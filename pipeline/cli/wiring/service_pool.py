"""The workers beside an API server: a thread that begins and ends them while the server answers.

`python -m pipeline.cli.wiring.service_pool CONFIG KIND NAME PARENT` is one of them; it dies with who began it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.clock import Clock
from pipeline.errors import TemporaryError
from pipeline.process import life
from pipeline.process.child import Child, python_of
from pipeline.process.stop import Stop
from pipeline.service import scaling
from pipeline.service.database.opening import open_database
from pipeline.service.words import Slot
from pipeline.service.work import missing
from pipeline.service.work.pool import COUNT_SECONDS, Pool, Scaler
from pipeline.service.work.telling import Teller
from pipeline.service.work.worker import AWAY_SECONDS
from pipeline.settings import Settings


@contextlib.contextmanager
def pooled(settings: Settings, config: str, stop: Stop, say: Callable[[str], None]) -> Iterator[None]:
    """Workers of this host while the block lasts; at its end each parts with what it holds.

    config: the file that they read.  What breaks the pool ends the program, and is raised at the end of the block.
    """
    ending, failed = threading.Event(), []

    def run() -> None:
        try:
            asyncio.run(_run(settings, config, lambda: ending.is_set() or stop(), say))
        except BaseException as error:
            failed.append(error)
            stop.ask()

    thread = threading.Thread(target=run, name="workers")
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()
    if failed:
        raise failed[0]


async def _run(settings: Settings, config: str, stopping: Callable[[], bool], say: Callable[[str], None]) -> None:
    def begin(slot: Slot, name: str) -> Child:
        return Child(python_of("pipeline.cli.wiring.service_pool", config, slot, name))

    clock, state = Clock(), Path(settings.state)
    async with _scaler(settings, clock) as scaler:
        for worker in await missing.miss(scaler.database, state):
            say(f"{worker} is gone; what it held goes to the next worker that asks")
        await Pool(scaler, state, begin, say, teller_of(settings, clock, say)).run(stopping)


def teller_of(settings: Settings, clock: Clock, say: Callable[[str], None]) -> Teller:
    """As `[service.scaling]` says."""
    given = settings.service.scaling
    return Teller(given.command, given.command_seconds, clock, say)


async def scaled(settings: Settings, stopping: Callable[[], bool], say: Callable[[str], None]) -> None:
    """Tells the command of `[service.scaling]` until it is asked to end."""
    clock = Clock()
    async with _scaler(settings, clock) as scaler:
        tell = teller_of(settings, clock, say)
        while not stopping():
            pause = COUNT_SECONDS
            try:
                tell(await scaler.look())
            except TemporaryError as error:
                say(f"the queue cannot be looked at: {error}")
                pause = AWAY_SECONDS
            await asyncio.sleep(pause)


async def told_once(settings: Settings) -> dict[str, Any]:
    """How many workers of each kind there should be just now."""
    async with _scaler(settings, Clock()) as scaler:
        return scaling.told(await scaler.look())


@contextlib.asynccontextmanager
async def _scaler(settings: Settings, clock: Clock) -> AsyncIterator[Scaler]:
    database = await open_database(settings.service.database)
    try:
        yield Scaler(database, scaling.rules_of(settings.service), clock)
    finally:
        await database.close()


if __name__ == "__main__":
    from pipeline.cli.main import main

    life.die_with(int(sys.argv[4]))
    sys.exit(main(["service", "worker", "--config", sys.argv[1], "--kind", sys.argv[2], "--name", sys.argv[3]]))
