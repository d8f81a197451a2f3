"""A store in memory whose every call passes a gate, so that a scheduler can stop the world between any two."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from sortedcontainers import SortedDict

from pipeline.errors import Exists, FormatError, NotFound, PermanentError
from pipeline.stores.store import Entry, Listing, Passed, Stat, too_long
from tests.faults.gate import Gate, open_gate


@dataclass
class Disk:
    """What a store holds; several gates may lead to one disk."""

    now: Callable[[], float]
    files: dict[str, tuple[bytes, float, int]] = field(default_factory=SortedDict)
    folders: set[str] = field(default_factory=set)
    serial: int = 0
    watch: Callable[[str, str, bytes], None] = lambda what, key, content: None
    """Told of each change before it happens: written, removed, or moved in (a file at its new key)."""

    def write(self, key: str, content: bytes) -> None:
        self.watch("written", key, content)
        self.serial += 1
        self.files[key] = (content, self.now(), self.serial)

    def remove(self, key: str) -> None:
        if key in self.files:
            self.watch("removed", key, b"")
            del self.files[key]

    def move(self, source: str, target: str) -> None:
        """A file, or a folder with all that is in it."""
        if source in self.files:
            self.watch("moved", target, self.files[source][0])
            self.files[target] = self.files.pop(source)
            return
        for key in list(self.under(source + "/")):
            new = target + key[len(source) :]
            self.watch("moved", new, self.files[key][0])
            self.files[new] = self.files.pop(key)
        self.folders = {
            target + folder[len(source) :] if folder == source or folder.startswith(source + "/") else folder
            for folder in self.folders
        }

    def under(self, prefix: str, after: str = "") -> Iterator[str]:
        """The keys that begin with prefix, in order, from about `after` on."""
        for key in self.files.irange(max(prefix, after)):  # type: ignore[attr-defined]
            if not key.startswith(prefix):
                return
            yield key

    def is_folder(self, path: str) -> bool:
        return path in self.folders or next(self.under(path + "/"), None) is not None

    def stands(self, path: str) -> bool:
        return path in self.files or self.is_folder(path)


@dataclass
class MemoryStore:
    """Store and Lake over a Disk."""

    disk: Disk
    gate: Gate = open_gate

    def list(self, prefix: str, *, after: str = "", until: str = "", folders: bool = False) -> Listing:
        def effect() -> Listing:
            entries: dict[str, Entry] = {}
            for key in self.disk.under(prefix, after):
                name = key
                if folders and "/" in key[len(prefix) :]:
                    name = prefix + key[len(prefix) :].partition("/")[0] + "/"
                if until and name > until:
                    break
                if name <= after:
                    continue
                content, modified, _ = self.disk.files[key]
                entries.setdefault(name, Entry(name, 0 if name != key else len(content), modified))
            return Listing(self.disk.now(), iter(list(entries.values())))

        found = self.gate("list", prefix, effect)
        assert isinstance(found, Listing)
        return found

    def get(self, key: str, at_most: int | None = None) -> bytes:
        found = self.gate("get", key, lambda: self._content(key))
        assert isinstance(found, bytes)
        if at_most is not None and len(found) > at_most:
            raise too_long(key, at_most)
        return found

    def open(self, key: str) -> BinaryIO:
        found = self.gate("open", key, lambda: self._content(key))
        assert isinstance(found, bytes)
        return io.BytesIO(found)

    def _content(self, key: str) -> bytes:
        if key not in self.disk.files:
            if self.disk.is_folder(key):
                raise FormatError(f"no file: {key}", "a folder stands there", "left alone; move it away")
            raise NotFound(f"nothing at {key}")
        return self.disk.files[key][0]

    def put(self, key: str, body: bytes | Path) -> None:
        content = body if isinstance(body, bytes) else body.read_bytes()
        _checked(key)
        self.gate("put", key, lambda: self.disk.write(key, content))

    def put_new(self, key: str, body: bytes) -> None:
        def effect() -> None:
            if self.disk.stands(key):
                raise Exists(f"{key} exists")
            self.disk.write(key, body)

        _checked(key)
        self.gate("put_new", key, effect)

    def delete(self, key: str) -> None:
        self.gate("delete", key, lambda: self.disk.remove(key))

    def sweep(self, seconds: float) -> int:
        return 0

    def stat(self, path: str) -> Stat | None:
        def effect() -> Stat | None:
            if path in self.disk.files:
                content, modified, serial = self.disk.files[path]
                return Stat(path, len(content), int(modified * 1000), serial)
            return Stat(path, 0, 0, 0, True) if self.disk.is_folder(path) else None

        found = self.gate("stat", path, effect)
        assert found is None or isinstance(found, Stat)
        return found

    def walk(self, path: str, passed: Passed | None = None) -> Iterator[Stat]:
        def effect() -> list[Stat]:
            if path and not self.disk.is_folder(path):
                raise NotFound(f"nothing at {path}")
            prefix = f"{path}/" if path else ""
            found = []
            for key in self.disk.under(prefix):
                rest = key.removeprefix(prefix)
                if not any(part[0] in "._" for part in rest.split("/")):
                    content, modified, serial = self.disk.files[key]
                    found.append(Stat(key, len(content), int(modified * 1000), serial))
            return found

        listed = self.gate("walk", path, effect)
        assert isinstance(listed, list)
        yield from listed

    def make_folder(self, path: str) -> None:
        parts = path.split("/")
        self.gate(
            "make_folder",
            path,
            lambda: self.disk.folders.update("/".join(parts[: n + 1]) for n in range(len(parts))),
        )

    def rename_new(self, source: str, target: str) -> None:
        def effect() -> None:
            if not self.disk.stands(source):
                raise NotFound(f"nothing at {source}")
            if self.disk.stands(target):
                raise Exists(f"{target} exists")
            self.disk.move(source, target)

        self.gate("rename_new", target, effect)

    def rename_over(self, source: str, target: str) -> None:
        def effect() -> None:
            if source not in self.disk.files:
                raise NotFound(f"nothing at {source}")
            self.disk.move(source, target)

        self.gate("rename_over", target, effect)

    def delete_folder(self, path: str) -> None:
        def effect() -> None:
            for key in list(self.disk.under(path + "/")):
                self.disk.remove(key)
            self.disk.folders = {f for f in self.disk.folders if f != path and not f.startswith(path + "/")}

        self.gate("delete_folder", path, effect)


def _checked(key: str) -> None:
    if key.startswith("/") or ".." in key.split("/"):
        raise PermanentError(f"not a key of this store: {key}")
