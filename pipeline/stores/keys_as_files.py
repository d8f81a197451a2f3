"""The keys of a bucket as the files of a lake, to read from: what a list that lies in S3 is found with."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO

from pipeline.errors import NotFound
from pipeline.stores.store import Listing, Passed, Stat, Store


class KeysAsFiles:
    """The verbs of a lake that read, over a store that knows keys alone."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def list(self, prefix: str, *, after: str = "", until: str = "", folders: bool = False) -> Listing:
        return self._store.list(prefix, after=after, until=until, folders=folders)

    def open(self, key: str) -> BinaryIO:
        return self._store.open(key)

    def stat(self, path: str) -> Stat | None:
        """A key, or a folder where keys lie below it."""
        for entry in self._store.list(path, until=path) if path else ():
            return Stat(path, entry.size, int(entry.modified * 1000))
        below = self._store.list(f"{path}/" if path else "")
        return Stat(path, 0, 0, is_folder=True) if list(islice(below, 1)) else None

    def walk(self, path: str, passed: Passed | None = None) -> Iterator[Stat]:
        """As Lake; of hidden folders each is told once."""
        prefix, told, empty = f"{path}/" if path else "", set[str](), True
        for entry in self._store.list(prefix):
            empty = False
            parts = entry.key.removeprefix(prefix).split("/")
            if {"", ".", ".."} & set(parts[:-1]) or parts[-1] in (".", ".."):
                if passed is not None:
                    passed(entry.key, "its name holds `.`, `..` or `//`, and is no path")
                continue
            at = next((at for at, part in enumerate(parts) if part.startswith((".", "_"))), None)
            if at is not None:
                hidden = prefix + "/".join(parts[: at + 1])
                if passed is not None and hidden not in told:
                    told.add(hidden)
                    passed(hidden, "")
            elif parts[-1]:  # else the mark of a folder, which some tools write
                yield Stat(entry.key, entry.size, int(entry.modified * 1000))
        if empty and path:
            raise NotFound(f"nothing under {path}")
