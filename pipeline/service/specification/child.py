"""The process in which a tenant's texts are parsed: `python -m pipeline.service.specification.child`."""

from __future__ import annotations

import signal
from typing import Any

from pipeline.process.channel import Channel
from pipeline.process.life import limit_memory, limit_processor, live
from pipeline.service.specification.words import Asked, Data, Limits

MEMORY = 144 * 2**20
"""Bytes that the process may take beyond the about 100 MiB that it is: 256 MiB in all."""
SECONDS = 30.0
"""Processor time; then the system ends the process."""


def _judge(asked: dict[str, Any]) -> dict[str, Any]:
    from google.protobuf import text_format

    from pipeline.service.specification.pricing import priced
    from pipeline.service.specification.rebuilding import Rebuilt

    limits = Limits(**asked["limits"])
    data = Data(**asked["data"]) if asked["data"] is not None else None
    rebuilt = Rebuilt(Asked(asked["solver"], asked["net"], data, limits))
    price = {} if rebuilt.problems else priced(rebuilt)
    return {
        "solver": text_format.MessageToString(rebuilt.solver), "net": text_format.MessageToString(rebuilt.net),
        "price": price, "warnings": rebuilt.warnings[:100], "inputs": sorted(rebuilt.inputs),
        "problems": [list(one) for one in dict.fromkeys(rebuilt.problems)][:100],
    }  # fmt: skip


def _work(channel: Channel) -> None:
    for asked_to_stop in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # the parent decides
        signal.signal(asked_to_stop, signal.SIG_IGN)
    limit_processor(SECONDS)
    limit_memory(MEMORY, beyond=True)
    asked, _ = channel.receive()
    channel.send(judged=_judge(asked))


if __name__ == "__main__":
    live(_work)
