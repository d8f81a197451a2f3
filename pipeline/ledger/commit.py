"""put_new judged by what stands there afterwards (docs/protocol.md 2).

An answer can be lost: a process that asked to write a key may see an error although the key was written, by itself or
by another process.  So no answer is believed.  Every body carries a nonce of its writer; after anything but a clear
success the key is read back, and whose nonce is found there has won.  Where the key cannot be read either, the result
is unknown, and the caller tries the whole step again: writing the same key once more cannot do harm.
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.errors import Exists, NotFound, PipelineError, TemporaryError, Unknown
from pipeline.ledger.bodies import content_of
from pipeline.stores.store import Lake, Store

TRIES = 8


def put_first(store: Store, key: str, body: bytes, sleep: Callable[[float], None]) -> bytes:
    """Put `body` at `key` unless something stands there, and give back what stands there now.

    The caller has won exactly when that equals its own body, which carries a nonce.  Refused, conflict, timeout and
    reset all mean "unknown": the key is read back.  Absent: the same body again, since the first may still arrive.
    Raises TemporaryError when the store gave no answer to TRIES tries, with what it said last.
    """
    last: PipelineError | None = None
    for attempt in range(TRIES):
        try:
            store.put_new(key, body)
            return body
        except (Exists, Unknown) as error:
            last = error
            try:
                return content_of(store, key)
            except NotFound:
                sleep(min(0.05 * 2**attempt, 2.0))
    if isinstance(last, Unknown):  # a full disk, say: it names the key, and what to do
        raise TemporaryError(last.message, f"{TRIES} tries: {last.detail}", last.hint, last.delay) from last
    raise TemporaryError(
        f"the store did not say whether {key} was written", f"{TRIES} tries", "the next run tries it again"
    )


def rename_first(lake: Lake, source: str, target: str) -> None:
    """rename_new of something small or a folder; what stands at the target is for the caller to read.

    Returns whether or not it won; raises only what says nothing about the target (TemporaryError, no permission).
    """
    try:
        lake.rename_new(source, target)
    except (Exists, NotFound, Unknown):
        return
