"""Pictures by URLs that a stranger gives: by the project's own fetcher, from public addresses alone, and bounded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipeline.records import Failure
from pipeline.settings import Fetch

if TYPE_CHECKING:
    from pipeline.fetch.fetcher import Fetcher

PICTURE_BYTES, ALL_BYTES = 16 * 2**20, 64 * 2**20
"""Of one picture, and of all that one request names."""
SECONDS = 20.0
ATTEMPTS = 2
FILE_SECONDS = 600.0
"""Of a file that one request waits for."""
Accept = Callable[[bytes], str | None]
"""Whether a body is wanted, by what it begins with: its form, or None."""


def fetcher_for(limits: Fetch) -> Callable[[], Fetcher]:
    """Makes fetchers of strangers' URLs, whatever the settings of the pipeline allow."""
    bounded = limits.model_copy(
        update={
            "allow_private": False, "allow_folders": [], "allow_buckets": [], "max_bytes": PICTURE_BYTES,
            "total_seconds": SECONDS, "attempts": ATTEMPTS, "buffer_bytes": ALL_BYTES, "retry_after_seconds": 2.0,
        }
    )  # fmt: skip

    def made() -> Fetcher:
        from pipeline.fetch.fetcher import Fetcher  # libcurl and the decoders of bodies: half a second

        return Fetcher(bounded)

    return made


def file_fetcher_for(limits: Fetch) -> Callable[[Accept, int], Fetcher]:
    """Makes fetchers of any body by a stranger's URL: what it has to begin with, and its bytes at most."""

    def made(accept: Accept, most: int) -> Fetcher:
        from pipeline.fetch.fetcher import Fetcher
        from pipeline.service.downloading import of_strangers

        bounded = of_strangers(limits, most).model_copy(update={"total_seconds": FILE_SECONDS, "attempts": ATTEMPTS})
        return Fetcher(bounded, accept=accept)

    return made


def fetched(
    fetcher: Fetcher, urls: Sequence[str], most: int = ALL_BYTES, stopped: Callable[[], bool] = lambda: False
) -> list[bytes | Failure]:
    """The bytes of each URL's picture, or why there are none.

    most: bytes of all; what comes beyond is too large.  stopped: asked ten times a second; what is open then is given
    up, as a timeout.
    """
    found: list[bytes | Failure] = [Failure.of("timeout", "")] * len(urls)
    held = 0
    with contextlib.closing(fetcher.stream(list(enumerate(urls)))) as results:
        for ended in results:
            if stopped():
                break
            if ended is None:
                continue
            at, result = ended
            if isinstance(result, Failure):
                found[at] = result
            elif held + len(result.content) > most:
                found[at] = Failure.of("too_large", f"the pictures of one request have {most} bytes at most")
            else:
                held += len(result.content)
                found[at] = result.content
    return found
