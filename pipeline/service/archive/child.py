"""The process in which a stranger's archive is read: `python -m pipeline.service.archive.child`.

It is told a path, limits and entries that are not to be read again, and tells pictures and rejected entries.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.process.channel import Channel
from pipeline.process.life import limit_memory, limit_processor, live
from pipeline.service.archive.entries import Limits, Picture, Refused, Rejected

MEMORY = 160 * 2**20
"""Bytes that the process may take beyond what it is."""
ENTRY_SECONDS = 4.0
"""Processor time of one entry; then the system ends the process."""
MANY = 512
"""Rejected entries are told together."""


def _tell(channel: Channel, rejected: list[Rejected]) -> None:
    if rejected:
        channel.send(kind="rejected", rejected=[list(one) for one in rejected])
        rejected.clear()


def _read(channel: Channel, asked: Mapping[str, Any]) -> None:
    """asked: path, limits; first: the number of the first entry that counts; poison: entries that end a process;
    careful: each entry is told of before it is read."""
    from pathlib import Path

    from pipeline.service.archive import judging

    limits = Limits(**asked["limits"])
    judge = judging.Judge(limits)
    poison = set(asked["poison"])
    rejected: list[Rejected] = []
    count = folders = 0
    with judging.opened(Path(asked["path"])) as file:
        for entry in _counted(judging.entries(file, limits)):
            count += 1
            if entry.number < asked["first"]:
                folders += entry.content is None and not entry.reason
                continue
            if entry.number in poison:
                entry = entry._replace(reason="poison", content=None)
            if asked["careful"]:
                _tell(channel, rejected)
                channel.send(kind="at", number=entry.number)
            found = judge.judged(entry)
            if isinstance(found, Picture):
                _tell(channel, rejected)
                channel.send(
                    found.content, kind="picture", number=found.number, path=found.path, sha256=found.sha256.hex(),
                    form=found.form, width=found.width, height=found.height,
                )  # fmt: skip
            elif found is None:
                folders += 1
            else:
                rejected.append(found)
                if len(rejected) >= MANY:
                    _tell(channel, rejected)
    _tell(channel, rejected)
    channel.send(kind="end", entries=count, folders=folders)


def _counted(entries: Iterable[Any]) -> Iterable[Any]:
    """Each with its own processor time."""
    limit_processor(ENTRY_SECONDS)
    for entry in entries:
        limit_processor(ENTRY_SECONDS)
        yield entry


def _work(channel: Channel) -> None:
    for asked_to_stop in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # the parent decides
        signal.signal(asked_to_stop, signal.SIG_IGN)
    import pipeline.service.archive.judging  # noqa: F401  what decoders are, they are before the limit

    limit_memory(MEMORY, beyond=True)
    asked, _ = channel.receive()
    try:
        _read(channel, asked)
    except Refused as refused:
        channel.send(kind="refused", reason=refused.reason, detail=refused.detail, hint=refused.hint)


if __name__ == "__main__":
    live(_work)
