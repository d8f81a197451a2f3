"""The process that looks at the pipeline for others: `python -m pipeline.app.overview_child CONFIG`.

It remembers what it has read, as a daemon's look does, and ends when nobody asks it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.app import models
from pipeline.app.contexts import opened, sighted
from pipeline.app.reporting import as_tree as report_tree
from pipeline.app.status import as_tree, status
from pipeline.clock import Clock
from pipeline.errors import PermanentError, PipelineError, TemporaryError
from pipeline.ledger.protocol import Context
from pipeline.operations.health.judge import judge, level_of
from pipeline.operations.health.look import Look, said
from pipeline.operations.health.memory import read_memory
from pipeline.operations.health.notify import as_json
from pipeline.operations.health.this_host import disks_in_time, has_seen_lakes
from pipeline.operations.report.gather import gather
from pipeline.operations.report.page import page
from pipeline.operations.report.scope import scope_of
from pipeline.process.channel import Channel
from pipeline.process.life import limit_memory, live
from pipeline.process.redaction import redact_tree
from pipeline.settings import Settings, load

IDLE_SECONDS = 120
MEMORY = 1 << 30
"""Bytes that the process may take beyond what it is."""
PROGRAM = "overview"
ROWS = 200
"""Of each table of a look; of more the first, and how many they are."""
TABLES = ("open", "running", "retries", "partners", "failing", "held", "forget", "backfills", "models")


class Looks:
    """Looks at the lakes of a configuration, which go on from each other."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opened: tuple[Sequence[Context], Look] | None = None
        self.worn = False
        """A store gave no answer, and a thread may still wait for it: another process looks next."""

    def __call__(self) -> dict[str, Any]:
        """As `hathi status --json`, each table cut off after ROWS; and `findings`, as `hathi health` judges it."""
        settings, state = self._settings, Path(self._settings.state)
        where, look = self._opened or self._open()
        memory = read_memory(state)
        found = status(where, look, lambda key: memory.unplanned.get(key, 0.0), {})
        facts = memory.joined(found.facts, settings.daemon.alive_seconds, notes=False)
        findings = memory.dated(judge(facts, settings.health))
        tree = as_tree(found)
        tree["models"], unread = _in_use(where)
        tree["unseen"] |= unread
        self._opened, self.worn = (where, look), any(one.trouble for one in found.facts.stores)
        more = {name: len(tree[name]) - ROWS for name in TABLES if len(tree[name]) > ROWS}
        told = {
            **tree, **{name: tree[name][:ROWS] for name in TABLES}, "more": more, "level": level_of(findings).word,
            "lakes": sorted(settings.lakes), "findings": [as_json(one) for one in findings],
        }  # fmt: skip
        shown: dict[str, Any] = redact_tree(told)  # type: ignore[assignment]
        return shown

    def _open(self) -> tuple[Sequence[Context], Look]:
        settings = self._settings
        where, unopened = opened(settings, PROGRAM)
        expects = has_seen_lakes(Path(settings.state))
        more: dict[str, Any] = {"unopened": unopened, "disks": disks_in_time}
        return where, Look(settings, where, Clock(), expects_lakes=expects, folders=0, forms=False, **more)


def _in_use(where: Sequence[Context]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The promotions that are in use, and the lakes whose promotions could not be read, with the reason."""
    found: list[dict[str, Any]] = []
    unread: dict[str, str] = {}
    for context in where:
        try:
            found += [models.as_tree(one) for one in models.in_use(context)]
        except (TemporaryError, PermanentError) as error:
            unread[f"models of lake {context.lake_name}"] = said(error)
    return found, unread


def day(settings: Settings, text: str) -> dict[str, Any]:
    """The report of a day as values, and its page.  Raises PipelineError."""
    scope = scope_of(text, Clock().now())
    found = gather(sighted(settings, PROGRAM), scope, settings.logs.redact_queries)
    return {**report_tree(found), "page": page(found)}


def _answer(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return {"answer": ask()}
    except PipelineError as error:
        temporary = isinstance(error, TemporaryError)
        return {
            "failed": {"message": error.message, "detail": error.detail, "hint": error.hint, "temporary": temporary}
        }


def _work(channel: Channel) -> None:
    for asked_to_stop in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # the parent decides
        signal.signal(asked_to_stop, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    limit_memory(MEMORY, beyond=True)
    settings = load(Path(sys.argv[1]), os.environ)
    look = Looks(settings)

    def told(question: dict[str, Any]) -> dict[str, Any]:
        return day(settings, question["day"]) if "day" in question else look()

    while not look.worn:
        signal.alarm(IDLE_SECONDS)
        question, _ = channel.receive()
        signal.alarm(0)
        channel.send(**_answer(partial(told, question)))


if __name__ == "__main__":
    live(_work)
