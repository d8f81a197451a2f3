"""What an API server answered, and how long it took to begin: for its metrics."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

UP_TO = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds at which a histogram of answers is cut."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@dataclass
class Requests:
    """answered: by method and status.  took: by place in UP_TO, those that took longer than all at its end."""

    answered: Counter[tuple[str, int]] = field(default_factory=Counter)
    took: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0

    def note(self, method: str, status: int, seconds: float) -> None:
        """An answer has begun."""
        self.answered[method if method in _METHODS else "other", status] += 1
        self.took[bisect_left(UP_TO, seconds)] += 1
        self.seconds += seconds


class Counted:
    """An ASGI application around another one, which notes each answer as it begins."""

    def __init__(self, app: Any, requests: Requests, now: Callable[[], float] = time.monotonic) -> None:
        self._app, self._requests, self._now = app, requests, now

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = self._now()

        async def sent(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self._requests.note(scope["method"], message["status"], self._now() - began)
            await send(message)

        await self._app(scope, receive, sent)
