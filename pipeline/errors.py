"""Every error that leaves a room: what happened, the detail, and what to do.

A failure of one item is not an error: it is a `records.Failure`, a value.
"""

from __future__ import annotations

IGNORED = "Hathi ignores and keeps it"
"""What Hathi does with a key in the bucket that it did not write."""

TO_REPAIR = "docs/runbook.md says how to repair it"
UNREADABLE = f"{IGNORED}; {TO_REPAIR}"
"""The hints where an object in the bucket cannot be read."""


class PipelineError(Exception):
    """Something a person has to know of; exit code 1 unless a subclass says otherwise.

    message: what happened, one line.  detail: the facts (file, key, offset, server's words).
    hint: what to do next.
    """

    exit_code = 1

    def __init__(self, message: str, detail: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        return " | ".join(part for part in (self.message, self.detail, self.hint) if part)


class TemporaryError(PipelineError):
    """It may work later: retried after `delay` seconds, in one place (stores/retrying.py, daemon)."""

    def __init__(self, message: str, detail: str = "", hint: str = "", delay: float = 1.0) -> None:
        super().__init__(message, detail, hint)
        self.delay = delay


class PermanentError(PipelineError):
    """It will not work however often it is tried; somebody has to change something."""


class ConfigError(PermanentError):
    """A setting or an argument is wrong: names the file, the key and what is allowed."""

    exit_code = 2


class NetError(PermanentError):
    """A net that is refused: names the layer and says what is wrong, as Caffe's CHECK would."""

    exit_code = 2


class SolverError(PermanentError):
    """A training that is refused before its first iteration: names the field and says what is wrong."""

    exit_code = 2


class Diverged(PermanentError):
    """A loss, gradient or weight is not finite: names the iteration, the layer and the blob."""

    exit_code = 3


class OutOfMemory(PermanentError):
    """A training wants more memory than its process gets."""

    exit_code = 71


class FormatError(PermanentError):
    """Bytes that are not what they should be: names the file and the offset or row."""


class TooLong(FormatError):
    """What stands there is longer than anything that is read whole."""


class LawBroken(PermanentError):
    """The conservation law does not hold at a hop: nothing is published."""


class Stopped(PipelineError):
    """ESTOP, SIGTERM or SIGINT was seen at a safe point: work ends here and is taken up again later."""

    exit_code = 4

    def __init__(
        self,
        message: str = "stopped",
        detail: str = "ESTOP or a signal",
        hint: str = "the next start continues unfinished work",
    ) -> None:
        super().__init__(message, detail, hint)


class NotFound(PermanentError):
    """A store has nothing at that key or path."""


class Denied(PermanentError):
    """This user may not read or write there."""


class NotAFile(PermanentError):
    """What stands there is never read or written: a pipe, a device, a link that leads out of the lake."""


class Exists(PermanentError):
    """put_new or rename_new was refused: something stands there already."""


class Unknown(TemporaryError):
    """A store did not answer whether it did it: read the key back (docs/protocol.md 2)."""
