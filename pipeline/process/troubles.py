"""What does not work on this host just now, as the log says it once: a small file, so that health knows it as well.

Each turn of a stage says what it tried and what became of it.  What failed is noted with its cause and remedy, since
when and how often; it is over as soon as it works, or when nobody has tried it again for a while.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pipeline.clock import Clock
from pipeline.errors import PermanentError, PipelineError, TemporaryError
from pipeline.process.redaction import redact_text
from pipeline.times import DAY, HOUR

FILE = "troubles.json"
MOST = 200
"""So many are noted; of more, those that came first."""
TRIED_AGAIN = HOUR
"""What has not been tried for so long, while its stage takes turns, is over: what rests, rests for less."""
OLD = DAY
"""What its stage has not noted for so long tells nothing of today: the program was stopped."""
NOTED = 60.0
"""A trouble that lasts is noted again so many seconds later at the earliest."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that fails.  Times are seconds since 1970, by this host's clock."""

    lake: str
    stage: str
    what: str
    """What was tried; "" for the whole turn."""
    message: str
    detail: str
    hint: str
    since: float
    last: float
    times: int
    passing: bool
    """It may work the next time without anybody's help."""


class Troubles:
    """Notes what the turns of one process meet.  Several processes of a host share the file."""

    def __init__(self, state: Path, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._known: dict[str, Trouble] = {}
        """As the file had it when this process looked last."""
        self._stamp = -1
        """When the file was written that it saw then; 0 where there was none, -1 before it has looked."""

    def turned(self, lake: str, stage: str, tried: Mapping[str, PipelineError | None]) -> None:
        """A turn has ended.  tried: by what was tried, the error; None where it worked.

        Raises PermanentError where the state folder cannot be written.
        """
        now = self._clock.now()
        stamp = _stamp(self._state)
        if stamp != self._stamp:
            self._known, self._stamp = _read(self._state), stamp
        after = _after(self._known, lake, stage, tried, now)
        if after == self._known or (after.keys() == self._known.keys() and not self._due(after, now)):
            return
        try:
            with _only(self._state):
                self._known = _after(_read(self._state), lake, stage, tried, now)
                _write(self._state, self._known)
            self._stamp = _stamp(self._state)
        except OSError as error:
            raise PermanentError(
                f"{self._state / FILE} cannot be written: health does not hear of this host's troubles",
                str(error),
                "free space on the disk, or give this user the right to write there",
            ) from error

    def _due(self, after: Mapping[str, Trouble], now: float) -> bool:
        """Whether what lasts has changed, or was last noted some time ago."""
        return any(
            one.message != self._known[key].message or one.times <= 3 or now - self._known[key].last >= NOTED
            for key, one in after.items()
            if one != self._known[key]
        )


def troubles(state: Path, now: float) -> tuple[Trouble, ...]:
    """What does not work on this host, oldest first.  Raises nothing: a file that cannot be read tells of none."""
    return tuple(sorted((one for one in _read(state).values() if one.last > now - OLD), key=lambda one: one.since))


def _after(
    known: Mapping[str, Trouble], lake: str, stage: str, tried: Mapping[str, PipelineError | None], now: float
) -> dict[str, Trouble]:
    """What there is after a turn."""
    found: dict[str, Trouble] = {}
    for key, one in known.items():
        mine = (one.lake, one.stage) == (lake, stage)
        if mine and (one.what in tried or one.last < now - TRIED_AGAIN):
            continue
        if one.last > now - OLD:
            found[key] = one
    for what, error in tried.items():
        if error is None:
            continue
        key = f"{lake} {stage} {what}"
        before = known.get(key)
        mine_now = Trouble(
            lake,
            stage,
            what,
            redact_text(error.message),
            redact_text(error.detail),
            redact_text(error.hint),
            now,
            now,
            1,
            isinstance(error, TemporaryError),
        )
        if before is not None:
            mine_now = replace(mine_now, since=before.since, times=before.times + 1)
        if before is not None or len(found) < MOST:
            found[key] = mine_now
    return found


@contextlib.contextmanager
def _only(state: Path) -> Iterator[None]:
    """One writer at a time; the file itself is replaced, so the lock stands beside it."""
    state.mkdir(parents=True, exist_ok=True)
    handle = os.open(state / f".{FILE}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _read(state: Path) -> dict[str, Trouble]:
    try:
        fields = json.loads((state / FILE).read_text())
        found = [Trouble(**one) for one in fields]
        return {f"{one.lake} {one.stage} {one.what}": one for one in found if isinstance(one.last, float)}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _stamp(state: Path) -> int:
    try:
        return (state / FILE).stat().st_mtime_ns
    except OSError:
        return 0


def _write(state: Path, troubles: Mapping[str, Trouble]) -> None:
    temporary = state / f".{FILE}"
    temporary.write_text(json.dumps([asdict(one) for one in troubles.values()], sort_keys=True) + "\n")
    os.replace(temporary, state / FILE)
