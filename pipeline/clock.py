"""Time and chance as values that are handed in, so that tests and the simulation rule them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Clock:
    """now: seconds since 1970, UTC; monotonic: seconds that never go back; sleep: waits seconds."""

    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def random_nonce() -> str:
    """Sixteen hex digits that nobody else has."""
    return secrets.token_hex(8)


@dataclass(frozen=True)
class Process:
    """Who makes an attempt.

    name: host, boot, pid, start and a random end, as `h/alive/<name>` carries it.
    gone: whether the named process is of this host and boot and does not run any more.
    """

    name: str
    clock: Clock = field(default_factory=Clock)
    nonce: Callable[[], str] = random_nonce
    gone: Callable[[str], bool] = lambda name: False
