"""An archive by its URL -> a file, by the project's own fetcher: every rule for images holds, and the file is capped.

What a stranger names is fetched from public addresses alone, whatever the settings of the pipeline allow.  A transfer
that breaks goes on where it broke, in the next process too, where the host names the same version by a strong tag.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.errors import PermanentError, PipelineError, TemporaryError
from pipeline.fetch.fetcher import Fetcher
from pipeline.fetch.sink import Sink, Stored
from pipeline.process.logs import redact
from pipeline.records import Failure
from pipeline.service.archive.forms import packed_by
from pipeline.settings import Fetch
from pipeline.times import HOUR

SECONDS = 6 * HOUR
"""Of all requests of one archive."""
_ATTEMPTS = 10
"""Requests in a row that bring nothing."""


def of_strangers(limits: Fetch, most: int) -> Fetch:
    """The settings by which a stranger's URL is fetched.  most: bytes of an archive."""
    return limits.model_copy(
        update={
            "allow_private": False, "allow_folders": [], "allow_buckets": [], "max_bytes": most,
            "total_seconds": SECONDS, "attempts": _ATTEMPTS,
        }
    )  # fmt: skip


def is_url(source: str) -> bool:
    """Whether somebody names a place of the web, not a file."""
    return source.lower().startswith(("http://", "https://"))


def download(url: str, path: Path, fetcher: Fetcher, told: Callable[[int], None] = lambda size: None) -> Stored:
    """The archive as it stands in the file `path`.  told: bytes that are there, now and then.

    fetcher: new, made by `fetcher_of`.  Raises TemporaryError for what may work later (what has come stays in the
    file), PermanentError for what will not.
    """
    try:
        sink = Sink(path)
    except OSError as error:
        raise PermanentError(f"{path} cannot be written", error.strerror or str(error), "give another place") from error
    try:
        found = fetcher.store(url, sink, told)
        if sink.error is not None:
            raise PermanentError(f"{path} cannot be written", sink.error.strerror or str(sink.error), "make room there")
        if isinstance(found, Failure):
            raise _error(url, found)
        sink.done()
        return found
    finally:
        sink.close()


def fetcher_of(limits: Fetch) -> Fetcher:
    """A fetcher of one archive; limits: `of_strangers`, or a person's own."""
    return Fetcher(limits, accept=lambda head: packed_by(head) or None)


def _error(url: str, failure: Failure) -> PipelineError:
    kind = TemporaryError if failure.retriable else PermanentError
    hint = "try again later: it goes on where it broke" if failure.retriable else "give the URL of a tar, tar.gz or zip"
    says = "is no archive" if failure.reason == "not_image" else "cannot be fetched"
    return kind(f"{redact(url)} {says}", f"{failure.reason}: {failure.detail}", hint)
