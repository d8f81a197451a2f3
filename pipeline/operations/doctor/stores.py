"""Bucket and lakes: what the stores say of themselves, and whether put-if-absent lets one writer win."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from pipeline.clock import random_nonce
from pipeline.errors import PipelineError
from pipeline.settings import Settings
from pipeline.stores.opening import probe
from pipeline.stores.store import Examined, Lake, Store


def bucket(settings: Settings, opened: Callable[[], Store]) -> Iterator[Examined]:
    """From reaching it to a race of writers, in a scratch folder; then its rules on our keys."""
    store = opened()
    good = True
    scratch = f"doctor-{random_nonce()}/"
    for one in store.examine(scratch):
        good = good and one.ok
        yield one
    if not good:
        return
    yield from _race(store, scratch)
    for lake in sorted(settings.lakes):
        rule = store.forgets(f"{lake}/")
        hint = "remove that rule from our prefix: only `hathi prune` may delete there" if rule else ""
        yield Examined("rules", not rule, rule or f"no rule of the server deletes keys of lake {lake}", hint)


def lake(opened: Callable[[], Lake], roots: list[str], *, written: bool = True) -> Iterator[Examined]:
    """The same under each target root, where deliveries are prepared.  written: False where it can only be read."""
    store = opened()
    for root in roots:
        scratch = f"{root}/_tmp/doctor-{random_nonce()}/"
        good = True
        for one in store.examine(scratch):
            good = good and one.ok
            yield Examined(one.step, one.ok, f"{root}: {one.said}", one.hint)
        if good and written:
            yield _placed(store, root, scratch)
            yield from _race(store, scratch)


def _placed(store: Lake, root: str, scratch: str) -> Examined:
    """What deliver does last: to move from `_tmp` into the root, which needs the right to write there, too."""
    source, target = f"{scratch}placed", f"{root}/_doctor-{random_nonce()}"
    try:
        store.put_new(source, b"placed")
        store.rename_new(source, target)
        store.delete(target)
    except PipelineError as error:
        with suppress(PipelineError):
            store.delete(source)
        return Examined("place", False, f"{root}: {error.message}: {error.detail}", error.hint)
    return Examined("place", True, f"{root}: a file can be moved into it")


def _race(store: Store, scratch: str) -> Iterator[Examined]:
    probe(store, scratch)
    yield Examined("race", True, "when several writers put one key at the same time, exactly one wins")
