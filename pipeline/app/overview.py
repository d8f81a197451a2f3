"""The pipeline of a configuration for who looks at it again and again: by children, which end when nobody asks them.

A look keeps what it has read of the ledger, and a report reads files of a day: neither belongs into a process that
answers many people.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.clock import Clock
from pipeline.errors import PipelineError, TemporaryError
from pipeline.process.channel import Gone, Message
from pipeline.process.child import Child, Ended, python_of

MODULE = "pipeline.app.overview_child"
LOOK_SECONDS, DAY_SECONDS = 30.0, 300.0
"""So long one answer may take."""
KEEP_LOOK, KEEP_DAY = 10.0, 60.0
"""So long an answer stands: whoever asks again meanwhile is told the same."""
ENVIRON = {"ARROW_DEFAULT_MEMORY_POOL": "system"}
"""Arrow's own pool takes an address space of 1 GiB at its first array, which the kernel counts as taken."""
DAYS = 4
"""Answers about days that are kept at the most."""


class Overviews:
    """`service.overview.Overview` over the lakes of a configuration: a child that looks, and one that reports."""

    def __init__(self, config: Path, clock: Clock) -> None:
        self._look = _Answers(config, clock, LOOK_SECONDS, KEEP_LOOK)
        self._day = _Answers(config, clock, DAY_SECONDS, KEEP_DAY)

    def look(self) -> Mapping[str, Any]:
        """As `Overview`."""
        return self._look.to({"look": True})

    def day(self, day: str) -> Mapping[str, Any]:
        """As `Overview`."""
        return self._day.to({"day": day})

    def close(self) -> None:
        """End the children."""
        self._look.close()
        self._day.close()


class _Answers:
    """One child at a time, and its last answers."""

    def __init__(self, config: Path, clock: Clock, seconds: float, keep: float) -> None:
        self._config, self._clock, self._seconds, self._keep = config, clock, seconds, keep
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._heard: queue.SimpleQueue[Message | Ended] = queue.SimpleQueue()
        self._known: dict[str, tuple[float, Mapping[str, Any]]] = {}

    def to(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """Raises PipelineError; TemporaryError where there is no answer in time."""
        with self._lock:
            now = self._clock.monotonic()
            self._known = {key: one for key, one in self._known.items() if now - one[0] < self._keep}
            found = self._known.get(str(question))
            if found is None:
                found = (now, self._asked(question))
                self._known = dict([*self._known.items(), (str(question), found)][-DAYS:])
            return found[1]

    def close(self) -> None:
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
        self._child, self._heard = None, queue.SimpleQueue()

    def _asked(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        answer: Message | Ended | None = None
        if self._child is not None:
            try:
                self._child.channel.send(**question)
                answer = self._answer()
            except Gone:
                pass  # nobody had asked it for long, and it has ended: another one begins
        if answer is None or isinstance(answer, Ended):
            self._end()
            self._child = Child(python_of(MODULE, str(self._config)), {**os.environ, **ENVIRON})
            self._child.hear(question, self._heard.put)
            answer = self._answer()
        if isinstance(answer, Ended):
            self._end()
            hint = "`hathi status` and `hathi report` look from a terminal"
            raise PipelineError("the pipeline could not be looked at", f"who looked {answer.story}", hint)
        if "failed" in answer:
            said = answer["failed"]
            kind = TemporaryError if said.get("temporary") else PipelineError
            raise kind(said["message"], said["detail"], said["hint"])
        found: Mapping[str, Any] = answer["answer"]
        return found

    def _answer(self) -> Message | Ended:
        """Raises TemporaryError."""
        try:
            return self._heard.get(timeout=self._seconds)
        except queue.Empty:
            self._end()
            said = f"there was no answer within {self._seconds:.0f} s"
            raise TemporaryError("a look at the pipeline takes too long", said, "ask again", 60.0) from None
