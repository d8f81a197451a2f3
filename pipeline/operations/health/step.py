"""The daemon's step: look now and then, judge, and tell on change only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.clock import Clock
from pipeline.errors import PipelineError, Stopped, TemporaryError
from pipeline.operations.health.facts import Facts
from pipeline.operations.health.judge import Finding, judge, level_of
from pipeline.operations.health.look import Look
from pipeline.operations.health.memory import Memory, read_memory, write_memory
from pipeline.operations.health.notify import Channel, News
from pipeline.process import logs
from pipeline.process.lock import Held, locked
from pipeline.settings import Settings

PROGRAM = "health"
LOG = "log"
"""The log is told like any channel: what it was told of survives a restart, too."""


class Step:
    """Of the programs of one host one looks: the one that has the lock `health`, until it ends.

    shown: told of the facts of each look (metrics).
    """

    def __init__(
        self,
        settings: Settings,
        look: Look,
        channels: Sequence[Channel],
        clock: Clock,
        shown: Callable[[Facts, Sequence[Finding]], None] = lambda facts, findings: None,
    ) -> None:
        self._settings = settings
        self._state = Path(settings.state)
        self._look = look
        self._channels = channels
        self._clock = clock
        self._shown = shown
        self._due = float("-inf")
        self._lock = contextlib.ExitStack()
        self._has_lock = False
        self._failing: set[str] = set()

    def close(self) -> None:
        """Let another program of this host look."""
        self._lock.close()
        self._has_lock = False

    def __call__(self) -> None:
        """Look if it is time."""
        if self._clock.monotonic() >= self._due:
            self.look()

    def look(self) -> None:
        """Look now if it is this program's part; nothing of it ends the daemon."""
        self._due = self._clock.monotonic() + self._settings.health.every_seconds
        try:
            if self._mine():
                self._step()
        except Stopped:
            return
        except PipelineError as error:
            logs.once(f"{PROGRAM} {error.message}", str(error), PROGRAM)

    def _mine(self) -> bool:
        if not self._has_lock:
            try:
                self._lock.enter_context(locked(self._state, PROGRAM))
            except Held:
                return False
            self._has_lock = True
        return True

    def _step(self) -> None:
        memory = read_memory(self._state)
        now = self._clock.now()
        seen = self._look(lambda key: memory.unplanned.get(key, now))
        facts = memory.joined(seen, self._settings.daemon.alive_seconds)
        findings = judge(facts, self._settings.health)
        unplanned = [key for lake in facts.lakes for key in lake.unplanned]
        memory = memory.after(findings, unplanned, now).knowing(facts)
        findings = memory.dated(findings)
        self._shown(facts, findings)
        memory = self._tell(memory, facts, findings)
        write_memory(self._state, memory)

    def _tell(self, memory: Memory, facts: Facts, findings: Sequence[Finding]) -> Memory:
        signs = tuple(sorted(one.sign for one in findings))
        told = dict(memory.told)
        before = told.get(LOG, ())
        if signs != before:
            _log(findings, before)
            told[LOG] = signs
        for channel in self._channels:
            if (last := told.get(channel.name, ())) == signs:
                continue
            over = _over(findings, last)
            if self._told(channel, News(facts.host, facts.at, level_of(findings), tuple(findings), over)):
                told[channel.name] = signs
        return replace(memory, told=told)

    def _told(self, channel: Channel, news: News) -> bool:
        try:
            complaint = channel.tell(news)
        except TemporaryError as error:
            if channel.name not in self._failing:
                self._failing.add(channel.name)
                logs.log(PROGRAM).warning("%s; the message is sent again at each look (health.every_seconds)", error)
            return False
        if complaint:
            logs.log(PROGRAM).warning("%s", complaint)
        if channel.name in self._failing:
            self._failing.discard(channel.name)
            logs.log(PROGRAM).info("%s takes messages again", channel.name)
        return True


def _log(findings: Sequence[Finding], before: Sequence[str]) -> None:
    """A line for each finding that is new and for each that is over, with its key, which troubles.awk reads."""
    log = logs.log(PROGRAM)
    for one in findings:
        if one.sign not in before:
            log.info("%s: %s%s [%s]", one.level.word, one.text, f"; {one.hint}" if one.hint else "", one.key)
    for key in _over(findings, before):
        log.info("resolved: %s", key)
    if not findings:
        log.info("OK")


def _over(findings: Sequence[Finding], before: Sequence[str]) -> tuple[str, ...]:
    """What was told before and holds at no level any more, by its key."""
    keys = {one.key for one in findings}
    return tuple(sorted({key for sign in before if (key := sign.partition(" ")[2]) not in keys}))
