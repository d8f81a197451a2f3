"""A worker of the service that is killed by itself, with SIGKILL, at one point of a promotion.

`python -m tests.servers.dying_promoter DATABASE CONFIG POINT`
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from pipeline.app.promotions import Promotions
from pipeline.clock import Clock
from pipeline.ledger import promotions
from pipeline.service import queue
from pipeline.service.database.opening import open_database
from pipeline.service.work.attempt import Hands
from pipeline.service.work.worker import work
from pipeline.settings import load
from pipeline.stores.opening import open_bucket

POINTS = ("before the number", "after the number", "before the row")


def dies(*_: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def plant(point: str) -> None:
    real = promotions.write

    def after(*given: Any) -> Any:
        real(*given)
        return dies()

    if point == "before the row":
        queue.finish = dies
    else:
        promotions.write = dies if point == "before the number" else after


async def main(database: str, config: Path) -> None:
    settings = load(config, {})
    opened = await open_database(database)
    hands = Hands(
        opened, open_bucket(settings), Clock(), Path(settings.state) / "dying", lambda: False, print,
        promoter=Promotions(settings),
    )  # fmt: skip
    await work(hands, once=True)
    await opened.close()


if __name__ == "__main__":
    assert sys.argv[3] in POINTS
    plant(sys.argv[3])
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
