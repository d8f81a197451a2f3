"""Faults by name: which calls of a store they strike, and what they do to them."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import Exists, NotFound, PermanentError, TemporaryError, Unknown
from pipeline.stores.local import typed
from pipeline.stores.store import Entry, Listing

JUDGED = ("put_new", "rename_new", "rename_over")
"""Verbs whose lost answer is `Unknown`: the caller looks what stands there (docs/protocol.md 2)."""

Effect = Callable[[], object]


@dataclass(frozen=True)
class Fault:
    """What happens at some calls of a store.

    verbs, keys: regular expressions that match the whole verb, and some of the key.  first: the first of the matching
    calls that is struck, beginning with 1; times: so many of them from there on, 0 for all; every: each so-many-th.
    seconds: of slow answers and of lists that lag.  while_there: it strikes only as long as this file is there.
    """

    how: str
    verbs: str = ".*"
    keys: str = ""
    first: int = 1
    times: int = 1
    every: int = 1
    seconds: float = 0.0
    while_there: str = ""

    def matches(self, verb: str, key: str) -> bool:
        return re.fullmatch(self.verbs, verb) is not None and re.search(self.keys, key) is not None

    def strikes(self, number: int) -> bool:
        """number: of the matching call, beginning with 1."""
        since = number - self.first
        if since < 0 or since % self.every:
            return False
        return not self.times or since // self.every < self.times


def encoded(faults: Iterable[Fault]) -> str:
    """Faults as text, for a process's environment."""
    return json.dumps([asdict(fault) for fault in faults])


def decoded(text: str) -> list[Fault]:
    """What `encoded` gave."""
    return [Fault(**fields) for fields in json.loads(text or "[]")]


class Faults:
    """The gate that faults are.  The first one that strikes a call has it."""

    def __init__(
        self,
        faults: Iterable[Fault],
        note: Callable[[str], None] = lambda line: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """note: told of each strike before it happens."""
        self._faults = list(faults)
        self._counts = [0] * len(self._faults)
        self._counting = threading.Lock()
        self._note = note
        self._sleep = sleep

    def __call__(self, verb: str, key: str, effect: Effect) -> object:
        fault = self._struck(verb, key)
        if fault is None:
            return effect()
        self._note(f"{fault.how}\t{verb}\t{key}")
        return HOWS[fault.how](verb, key, effect, fault, self._sleep)

    def _struck(self, verb: str, key: str) -> Fault | None:
        """The first fault that strikes this call."""
        with self._counting:
            for number, fault in enumerate(self._faults):
                if not fault.matches(verb, key) or (fault.while_there and not Path(fault.while_there).exists()):
                    continue
                self._counts[number] += 1
                if fault.strikes(self._counts[number]):
                    return fault
        return None


How = Callable[[str, str, Effect, Fault, Callable[[float], None]], object]


def _signalled(number: signal.Signals, before: bool) -> How:
    def strike(verb: str, key: str, effect: Effect, fault: Fault, sleep: Callable[[float], None]) -> object:
        if before:
            os.kill(os.getpid(), number)
        done = effect()
        if not before:
            os.kill(os.getpid(), number)
        return done

    return strike


def _answer_lost(verb: str, key: str, effect: Effect, fault: Fault, sleep: Callable[[float], None]) -> object:
    with contextlib.suppress(Exists, NotFound):
        effect()
    kind = Unknown if verb in JUDGED else TemporaryError
    raise kind(f"no answer to {verb} {key}", "connection reset by peer", "it is tried again")


def _failing(make: Callable[[str, str], Exception]) -> How:
    def strike(verb: str, key: str, effect: Effect, fault: Fault, sleep: Callable[[float], None]) -> object:
        raise make(verb, key)

    return strike


def _os_error(number: int) -> How:
    return _failing(lambda verb, key: typed(OSError(number, os.strerror(number)), Path(key)))


def _slow(verb: str, key: str, effect: Effect, fault: Fault, sleep: Callable[[float], None]) -> object:
    sleep(fault.seconds)
    return effect()


def _changed(change: Callable[[bytes], bytes]) -> How:
    """What is read comes out changed: of get the bytes, of open the stream."""

    def strike(verb: str, key: str, effect: Effect, fault: Fault, sleep: Callable[[float], None]) -> object:
        done: Any = effect()
        if isinstance(done, bytes):
            return change(done)
        with done:
            return io.BytesIO(change(done.read()))

    return strike


def _flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :] if content else content


def _lagging(verb: str, key: str, effect: Effect, fault: Fault, sleep: Callable[[float], None]) -> object:
    done: Any = effect()
    assert isinstance(done, Listing)
    until = time.clock_gettime(time.CLOCK_REALTIME) - fault.seconds  # as the files' times, whatever time is told
    return Listing(done.now, (entry for entry in done if entry.modified < until))


def _broken_off(verb: str, key: str, effect: Effect, fault: Fault, sleep: Callable[[float], None]) -> object:
    done: Any = effect()
    assert isinstance(done, Listing)

    def half() -> Iterator[Entry]:
        entries = list(done)
        yield from entries[: len(entries) // 2]
        raise TemporaryError(f"the listing of {key} broke off", "connection reset by peer", "it is tried again")

    return Listing(done.now, half())


HOWS: dict[str, How] = {
    "killed before": _signalled(signal.SIGKILL, before=True),
    "killed after": _signalled(signal.SIGKILL, before=False),
    "answer lost": _answer_lost,
    "asked to stop": _signalled(signal.SIGTERM, before=True),
    "frozen before": _signalled(signal.SIGSTOP, before=True),
    "refused": _failing(lambda verb, key: TemporaryError(f"no connection for {verb} {key}", "refused", "is it up?")),
    "slow down": _failing(lambda verb, key: TemporaryError(f"SlowDown: {verb} {key}", "503", "it is tried again", 2.0)),
    "expired": _failing(
        lambda verb, key: PermanentError("the credentials have expired", "ExpiredToken", "renew them; work goes on")
    ),
    "full": _os_error(errno.ENOSPC),
    "read only": _os_error(errno.EROFS),
    "too many files": _os_error(errno.EMFILE),
    "slow": _slow,
    "truncated": _changed(lambda content: content[: len(content) // 2]),
    "flipped": _changed(_flip),
    "lagging": _lagging,
    "broken off": _broken_off,
}
"""What each kind of fault does to a call."""
