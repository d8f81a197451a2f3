"""A worker: claims, trains, tells, again and again, until it is asked to end."""

from __future__ import annotations

import asyncio

from pipeline.errors import TemporaryError
from pipeline.process.host import host_name
from pipeline.service import queue
from pipeline.service.ids import Kind, new_id
from pipeline.service.words import Slot
from pipeline.service.work.training import Hands, attempt

POLL_SECONDS = 0.5
AWAY_SECONDS = 2.0


async def work(hands: Hands, worker: str = "", *, once: bool = False) -> None:
    """worker: its name, a new one by default.  once: until nothing is queued.

    Raises PipelineError for what a person has to mend.
    """
    worker = worker or new_id(Kind.WORKER, hands.clock.now())
    listed = False
    while not hands.stopping():
        try:
            if not listed:
                await queue.enlist(hands.database, worker, host_name(), Slot.TRAIN)
                listed = True
            held = await queue.claim(hands.database, worker)
            if held is not None:
                hands.say(f"{held.id}: attempt {held.epoch}")
                await attempt(hands, held)
        except TemporaryError as error:  # what was held goes to whoever claims it after its lease
            hands.say(str(error))
            await asyncio.sleep(AWAY_SECONDS)
            continue
        if held is None:
            if once:
                break
            await asyncio.sleep(POLL_SECONDS)
    if listed:
        await queue.retire(hands.database, worker)
