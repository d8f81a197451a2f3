"""Looking at a bucket from the ground up: reach, identity, list, write, put-if-absent, delete."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from pipeline.errors import Exists, PipelineError
from pipeline.stores.s3.errors import about_keys, about_reach, unsent
from pipeline.stores.store import Examined, Store


def examine(store: Store, key: str) -> Iterator[Examined]:
    """Steps until the first that is not ok.  key: written and deleted again."""
    step = "list"
    try:
        store.list(key)
        yield Examined("reach", True, f"{store!r} answers")
        yield Examined("identity", True, "the server accepts our keys")
        yield Examined("list", True, "keys can be listed")
        step = "write"
        store.put_new(key, b"first")
        yield Examined("write", True, "an object was written")
        step = "put-if-absent"
        yield (again := _again(store, key))
        if again.ok:
            step = "delete"
            store.delete(key)
            yield Examined("delete", True, "the object was deleted")
    except PipelineError as error:
        if not about_keys(error) and (about_reach(error) or unsent(error)):
            yield Examined("reach", False, _said(error), error.hint)
            return
        if step == "list":
            yield Examined("reach", True, f"{store!r} answers")
        if about_keys(error):
            step = "identity"
        elif step == "list":
            yield Examined("identity", True, "the server accepts our keys")
        yield Examined(step, False, _said(error), error.hint)
    finally:
        with suppress(PipelineError):  # where it could be written it was deleted above, or is named by its error
            store.delete(key)


def _again(store: Store, key: str) -> Examined:
    try:
        store.put_new(key, b"second")
    except Exists:
        return Examined("put-if-absent", True, "a second writer is refused")
    hint = "use a server with conditional writes (If-None-Match)"
    return Examined("put-if-absent", False, "two writers could write the same key", hint)


def _said(error: PipelineError) -> str:
    return f"{error.message} {error.detail}".rstrip()
