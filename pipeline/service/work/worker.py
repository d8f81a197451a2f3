"""A worker: claims, does, tells, again and again, until it is asked to end or retired; its kinds side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from pipeline.errors import TemporaryError
from pipeline.process.host import host_name
from pipeline.service import promotion, queue
from pipeline.service.ids import Kind, new_id
from pipeline.service.queue import Chance
from pipeline.service.words import Claimed, Slot
from pipeline.service.work import classifying, promoting
from pipeline.service.work.attempt import Hands, attempt
from pipeline.service.work.importing import Importing
from pipeline.service.work.training import Training

POLL_SECONDS = 0.5
AWAY_SECONDS = 2.0


def names_of(worker: str, slots: Iterable[Slot] = Slot) -> dict[Slot, str]:
    """What a worker is called in the queue, by what it does there."""
    return {slot: f"{worker}-{slot}" for slot in slots}


async def work(hands: Hands, worker: str = "", *, slots: Iterable[Slot] = Slot, once: bool = False) -> None:
    """worker: its name, a new one by default.  slots: what it does.  once: until nothing is queued.

    Raises PipelineError for what a person has to mend.
    """
    names = names_of(worker or new_id(Kind.WORKER, hands.clock.now()), slots)
    tasks = [asyncio.ensure_future(_work(hands, name, slot, once)) for slot, name in names.items()]
    try:
        await asyncio.gather(*tasks)
    finally:  # what one of them raised ends the other
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _attempt(hands: Hands, held: Claimed) -> None:
    if held.kind == classifying.KIND:
        await classifying.attempt(hands, held)
    elif held.kind == promotion.KIND:
        await promoting.attempt(hands, held)
    else:
        await attempt(hands, held, Training(hands.clock) if held.kind == "train" else Importing())


async def _rest(hands: Hands, seconds: float) -> None:
    ends = hands.clock.monotonic() + seconds
    while not hands.stopping() and hands.clock.monotonic() < ends:
        await asyncio.sleep(POLL_SECONDS)


async def _work(hands: Hands, worker: str, slot: Slot, once: bool) -> None:
    listed = False
    while not hands.stopping():
        try:
            if not listed:
                await queue.enlist(hands.database, worker, host_name(), slot)
                listed = True
            chance = await queue.look(hands.database, worker)
            if chance is Chance.RETIRED:
                hands.say(f"this worker was retired from {slot} work")
                return
            held = await queue.claim(hands.database, worker) if chance is Chance.CLAIM else None
            if held is not None:
                hands.say(f"{held.id}: attempt {held.epoch}")
                await _attempt(hands, held)
        except TemporaryError as error:  # what was held goes to whoever claims it after its lease
            hands.say(str(error))
            await _rest(hands, max(AWAY_SECONDS, error.delay))
            continue
        if held is None:
            if once:
                break
            await asyncio.sleep(POLL_SECONDS)
    if listed:
        try:
            await queue.retire(hands.database, worker)
        except TemporaryError as error:  # it holds nothing, and asks for nothing any more
            hands.say(str(error))
