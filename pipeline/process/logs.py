"""Log lines as operators know them: `2016-03-13 06:59:52<TAB>[deliver]<TAB>text`, in UTC, one file for each program.

Everything goes through the standard library's logging under the name `hathi`, so a room says `log(program).info(...)`
and `open_log` alone decides where it lands.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.process.installed import located
from pipeline.process.redaction import redact_text
from pipeline.recent import Recent
from pipeline.settings import Logs
from pipeline.times import to_the_second

ROOT = "hathi"
# What a terminal obeys, and what turns the order of letters round or hides between them.
_CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    r"\U000e0000-\U000e007f]"
)


def log(program: str) -> logging.Logger:
    """The log of a program, e.g. `ship`; its lines go where `open_log` said."""
    return logging.getLogger(f"{ROOT}.{program}")


def summary(program: str, text: str) -> None:
    """One line for each run that did work; print_logs.sh shows the last ones."""
    log(program).info("Summary: %s", text)


class Once:
    """Says each thing once: a source that is broken for hours is one line, not one a minute.

    It remembers the last MOST things; who has more troubles than that hears of the oldest of them again.
    """

    MOST = 10_000

    def __init__(self) -> None:
        self._said: Recent[tuple[str, str]] = Recent(self.MOST)

    def say(self, program: str, key: str, text: str, level: int = logging.WARNING) -> bool:
        """Log the text unless `key` was said before; whether it was logged."""
        if (program, key) in self._said:
            return False
        self._said.add((program, key))
        log(program).log(level, "%s", text)
        return True

    def forget(self, program: str, key: str) -> None:
        """It is over: should it come again, it is worth a line again."""
        self._said.discard((program, key))


_once = Once()


def once(key: str, text: str, program: str = ROOT) -> bool:
    """Log a thing once in this process; whether it was logged now."""
    return _once.say(program, key, text)


def escape(text: str) -> str:
    """The text on one line; for control characters and what changes its direction stand `\\n`, `\\x1b`, ..."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def redact(text: str) -> str:
    """The text with what is secret in each URL in it replaced."""
    return redact_text(text)


class LineFormatter(logging.Formatter):
    """UTC time, tab, [program], tab, text; a traceback follows as further lines of the same form."""

    def __init__(self, redact_queries: bool, clock: Callable[[], float] | None = None) -> None:
        super().__init__()
        self._redact_queries = redact_queries
        self._clock = clock

    def format(self, record: logging.LogRecord) -> str:
        stamp = self._clock() if self._clock else record.created
        time_text = to_the_second(stamp)
        program = record.name.removeprefix(f"{ROOT}.")
        texts = [located(record.getMessage())]
        if record.exc_info:
            texts += self.formatException(record.exc_info).splitlines()
        if record.levelno >= logging.WARNING:
            texts[0] = f"{record.levelname.capitalize()}: {texts[0]}"
        if self._redact_queries:
            texts = [redact(text) for text in texts]
        return "\n".join(f"{time_text}\t[{program}]\t{escape(text)}" for text in texts)


class SharedRotatingFile(RotatingFileHandler):
    """A rotated log into which several processes write, a run and its workers for one: no line is lost or torn.

    A line is appended by one write.  Who finds the file full rotates it under a lock on the folder, unless another one
    did so meanwhile; and who holds a file that was rotated away opens the new one.
    """

    _unwritten = False
    """A line could not be written, and that was said."""

    def shouldRollover(self, record: logging.LogRecord) -> bool:
        """Whether the file that has the name now would grow too large.

        Its size is asked of the open file: while another process rotates, nothing has the name for a moment.
        """
        if not self._is_current():
            self._reopen()
        assert self.stream is not None
        size = os.fstat(self.stream.fileno()).st_size
        added = len(self.format(record).encode("utf-8", "backslashreplace")) + len(self.terminator)
        return self.maxBytes > 0 and size > 0 and size + added > self.maxBytes

    def doRollover(self) -> None:
        """Rotate, unless another process has just done so."""
        with _folder_locked(Path(self.baseFilename).parent):
            if self._is_current():
                super().doRollover()
            else:
                self._reopen()

    def handleError(self, record: logging.LogRecord) -> None:
        """The line is printed in its place, and once why: a full disk must not hide what it is about."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        with contextlib.suppress(OSError, ValueError):  # nobody reads our stderr
            if not self._unwritten:
                self._unwritten = True
                where = f"the log {self.baseFilename} cannot be written"
                sys.stderr.write(f"{where} ({error.strerror}); its lines follow here\n")
            sys.stderr.write(f"{self.format(record)}\n")

    def _is_current(self) -> bool:
        """Whether our file still has the name."""
        try:
            named = os.stat(self.baseFilename)
        except FileNotFoundError:
            return False
        return self.stream is not None and os.path.samestat(named, os.fstat(self.stream.fileno()))

    def _reopen(self) -> None:
        if self.stream is not None:
            self.stream.close()
        self.stream = self._open()

    def _open(self) -> io.TextIOWrapper:
        """Without a buffer: each line is one write of its own, to where the file ends then."""
        file = open(self.baseFilename, "ab", buffering=0)  # noqa: SIM115 - the handler closes it
        return io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="\n", write_through=True)


@contextlib.contextmanager
def _folder_locked(folder: Path) -> Iterator[None]:
    """A folder can be locked as a file can, and leaves nothing behind."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)  # not only by its closing: a fork of ours may have it open
        os.close(handle)


def open_log(
    program: str,
    settings: Logs,
    echo: bool | None = None,
    clock: Callable[[], float] | None = None,
    echo_level: int = logging.INFO,
) -> Path:
    """Lines of all programs in this process go to `<folder>/<program>.log`, rotated, and with `echo` to stderr.

    echo: None leaves it to the setting; echo_level: the least that is echoed.  Called again, it replaces what it
    set up before.  Raises ConfigError: the folder cannot be written.
    """
    path = Path(settings.folder) / f"{program}.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = SharedRotatingFile(
            path, maxBytes=settings.max_bytes, backupCount=settings.keep, encoding="utf-8", errors="backslashreplace"
        )
    except OSError as error:
        raise ConfigError(
            f"the log {path} cannot be written", str(error), "set logs.folder to a folder that this user may write"
        ) from error
    handlers: list[logging.Handler] = [file]
    if settings.echo if echo is None else echo:
        handlers.append(logging.StreamHandler(sys.stderr))
        handlers[-1].setLevel(echo_level)
    for handler in handlers:
        handler.setFormatter(LineFormatter(settings.redact_queries, clock))
    logger = logging.getLogger(ROOT)
    close_log()
    for handler in handlers:
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return path


def close_log() -> None:
    """Close the files; lines after it go nowhere but to the standard library's last resort."""
    logger = logging.getLogger(ROOT)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
