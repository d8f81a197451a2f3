"""The service as health sees it: what stands in the way of its work, among the findings of the host."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence

from pipeline.app.estop import has_service
from pipeline.clock import Clock
from pipeline.operations.health.facts import ServiceTrouble
from pipeline.operations.health.look import Look
from pipeline.operations.health.notify import channels
from pipeline.operations.health.step import Step
from pipeline.process import logs
from pipeline.settings import Settings

LOOK_SECONDS = 1.0
"""So often it is asked whether a look is due."""


def service_troubles(settings: Settings) -> Callable[[], Sequence[ServiceTrouble]] | None:
    """A look at its database, which raises PipelineError; None where this configuration has no service."""
    setting = settings.service.database
    if not has_service(settings):
        return None

    def look() -> Sequence[ServiceTrouble]:
        import asyncio

        from pipeline.service import troubles  # a host without the service does without its packages
        from pipeline.service.database.opening import open_database

        async def seen() -> troubles.Seen:
            database = await open_database(setting)
            try:
                return await troubles.look(database)
            finally:
                await database.close()

        found = troubles.judge(asyncio.run(seen()), (), settings.service.scaling.target_wait_seconds)
        return [ServiceTrouble(one.key, one.text, one.hint) for one in found]

    return look


@contextlib.contextmanager
def looked_after(settings: Settings, clock: Clock) -> Iterator[None]:
    """An API server looks now and then, and tells changes to its log and to `[notify]`.

    Where lakes are configured the pipeline's daemons do it.
    """
    if settings.lakes:
        yield
        return
    logs.open_log("service", settings.logs)
    look = Look(settings, [], clock, expects_lakes=False, service=service_troubles(settings))
    step, ending = Step(settings, look, channels(settings.notify), clock), threading.Event()

    def looks() -> None:
        while not ending.is_set():
            step()
            ending.wait(LOOK_SECONDS)

    thread = threading.Thread(target=looks, name="health", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join(5)
        step.close()
        logs.close_log()
