"""How a source's path names folders and files: globs, days, and the partner that stands in a path."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import unquote

from pipeline.errors import Denied, NotAFile
from pipeline.records import MAX_PARTNER_ID
from pipeline.sources.table_formats import HIDDEN
from pipeline.stores.store import Entry, Lake

_MAGIC = re.compile(r"[*?\[]")
_CLASS = re.compile(r"\[([!^]?)(\]?[^\]]*)\]")
_MOMENT: Final = re.compile(r"%[YmdH]")
HIDDEN_FOLDERS: Final = frozenset(f"{name}/" for name in HIDDEN)
_NUMBER = re.compile(r"[0-9]{1,40}")


def is_pattern(path: str) -> bool:
    """Whether a path holds `*`, `?` or `[`."""
    return _MAGIC.search(path) is not None


def is_dated(path: str) -> bool:
    """Whether a path holds `%Y`, `%m`, `%d` or `%H`; any other `%` is part of a name."""
    return _MOMENT.search(path) is not None


def is_deep(folders: Folders, above: Sequence[str], part: str) -> bool:
    """Whether a part of a path stands for any number of folders; one with other signs beside `**` may be a name."""
    if part == "**" or "**" not in part:
        return part == "**"
    folder = "/".join(above)
    inside = {} if is_pattern(folder) else folders.inside(folder)
    return part not in inside and f"{part}/" not in inside


def hidden(name: str) -> bool:
    """Whether a name is left out, as Hadoop does: `_temporary`, `.part-0.crc`."""
    return name.startswith((".", "_"))


def fixed(path: str) -> str:
    """The leading parts of a path that hold neither a glob nor a day."""
    parts = []
    for part in path.split("/"):
        if is_pattern(part) or is_dated(part):
            break
        parts.append(part)
    return "/".join(parts)


def moments(path: str, now: float, days: int) -> list[dict[str, str]]:
    """What `%Y`, `%m`, `%d`, `%H` stand for: today and so many days before, in UTC, oldest first, each path once.

    now: seconds since 1970.  A path without any of them has one moment, that says nothing.
    """
    today = datetime.fromtimestamp(now, UTC).replace(minute=0, second=0, microsecond=0)
    hours = today.hour + 24 * days if "%H" in path else 24 * days
    step = 1 if "%H" in path else 24
    found: dict[str, dict[str, str]] = {}
    for back in range(hours, -1, -step):
        at = today - timedelta(hours=back)
        words = {"%Y": f"{at.year:04d}", "%m": f"{at.month:02d}", "%d": f"{at.day:02d}", "%H": f"{at.hour:02d}"}
        found.setdefault(at_moment(path, words), words)
    return list(found.values())


def at_moment(text: str, words: dict[str, str]) -> str:
    """The text with its day and hour."""
    return _MOMENT.sub(lambda found: words[found[0]], text)


def pattern(glob: str) -> re.Pattern[str]:
    """`*` and `?` within one part of a path, `**` over any number of parts, `[abc]` as usual."""
    out = []
    at = 0
    while at < len(glob):
        if glob.startswith("**/", at):
            out.append("(?:.*/)?")
            at += 3
        elif glob.startswith("**", at):
            out.append(".*")
            at += 2
        elif glob[at] == "*":
            out.append("[^/]*")
            at += 1
        elif glob[at] == "?":
            out.append("[^/]")
            at += 1
        elif found := _CLASS.match(glob, at):
            out.append(_class(found[2], negated=bool(found[1])))
            at = found.end()
        else:
            out.append(re.escape(glob[at]))
            at += 1
    return re.compile("".join(out), re.DOTALL)


def _class(inside: str, *, negated: bool) -> str:
    """`[a-z_]` as a shell takes it: a range that runs backwards holds nothing, and no class holds a `/`."""
    out, at = [], 0
    while at < len(inside):
        if inside[at + 1 : at + 2] == "-" and at + 2 < len(inside):
            first, last = inside[at], inside[at + 2]
            if first <= last:
                out.append(f"{re.escape(first)}-{re.escape(last)}")
            at += 3
        else:
            out.append(re.escape(inside[at]))
            at += 1
    if not out:
        return "[^/]" if negated else "(?!)"
    return f"(?!/)[{'^' if negated else ''}{''.join(out)}]"


class Folders:
    """The folders that patterns name, part by part: what they do not name is not looked into, and nothing twice.

    A part that stands there as it is written is a name, whatever signs it holds.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._inside: dict[str, dict[str, Entry]] = {}
        self.left: dict[str, str] = {}
        """What a pattern names and that is not looked into, and why."""

    def of(self, path: str, words: dict[str, str] | None = None) -> Iterator[tuple[str, str]]:
        """(folder, whose): whose is the folder with its days left as the pattern has them."""
        yield from self._below("", "", path.strip("/").split("/"), words or {})

    def inside(self, folder: str) -> Mapping[str, Entry]:
        """What lies directly in a folder, by its name, listed once; a folder's name ends in `/`."""
        if folder not in self._inside:
            prefix = f"{folder}/" if folder else ""
            listed = self._lake.list(prefix, folders=True)
            self._inside[folder] = {entry.key.removeprefix(prefix): entry for entry in listed}
        return self._inside[folder]

    def marks(self) -> list[str]:
        """Hidden folders that make a folder a table, of all that was listed."""
        found = (
            (folder, name.rstrip("/"))
            for folder, inside in self._inside.items()
            for name in HIDDEN_FOLDERS & inside.keys()
        )
        return [_join(folder, name) for folder, name in found]

    def _below(self, folder: str, whose: str, rest: list[str], words: dict[str, str]) -> Iterator[tuple[str, str]]:
        if not rest:
            yield folder, whose
            return
        part = at_moment(rest[0], words) if words else rest[0]
        for name in self._names(folder, part):
            named = rest[0] if part != rest[0] else name
            yield from self._below(_join(folder, name), _join(whose, named), rest[1:], words)

    def _names(self, folder: str, part: str) -> list[str]:
        """The folders in a folder that a part of a pattern names."""
        if not is_pattern(part):
            return [part]
        try:
            inside = self.inside(folder)
        except (Denied, NotAFile) as error:
            self.left[folder] = f"this user may not read it: {error.message}"
            return []
        if f"{part}/" in inside:
            return [part]
        wanted = pattern(part)
        names = []
        for name, entry in inside.items():
            if not wanted.fullmatch(name.removesuffix("/")) or hidden(name):
                continue
            if name.endswith("/"):
                names.append(name[:-1])
            elif entry.unread:
                self.left[entry.key] = entry.unread
        return names


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


NO_VALUE = "(empty)"
"""What a folder says that has nothing behind its `=`."""


def partner_text(folders: str, names: Sequence[str]) -> str:
    """What the deepest folder of the form `partner=123` says, also where it is URL-encoded; "" where there is none.

    names: what may stand before the `=`, in any letter case (as Hive writes them).
    """
    wanted = {name.lower() for name in names}
    for part in reversed(folders.split("/")):
        name, equals, value = unquote(part).partition("=")
        if equals and name.lower() in wanted:
            return value.strip() or NO_VALUE
    return ""


def partner_number(text: str) -> int | None:
    """The partner that a text names; None where it is no number that a partner may have."""
    if not _NUMBER.fullmatch(text):
        return None
    number = int(text)
    return number if number <= MAX_PARTNER_ID else None
