"""Where things lie on a lake, spelled in one way: paths and URLs that mean one place compare equal."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_GLOB = re.compile(r"[*?\[]")


def folder_of(url: str) -> Path | None:
    """The folder that a store's URL means (`/x`, `file:///x`, `file:/x`), or None for a server's."""
    if not url.lower().startswith("file:"):
        return None if _SCHEME.match(url) else Path(url)
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.netloc in ("", "localhost") else None


def place_of(url: str, path: str = "") -> str:
    """A path in a store in one spelling, whatever its own; a place within another one begins with that and `/`."""
    folder = folder_of(url)
    if folder is not None:
        top = os.path.normpath(folder).lstrip("/")
        return "/".join(part for part in ("file:", top if top != "." else "", path.strip("/")) if part)
    parts = urlsplit(url)
    hosts = ",".join(sorted(parts.netloc.lower().split(",")))
    top = _shortest(parts.path, parts.path).strip("/")
    return "/".join(part for part in (f"{parts.scheme.lower()}://{hosts}", top, path.strip("/")) if part)


def within(place: str, other: str) -> bool:
    """Whether a place is another one, or lies in it."""
    return f"{place}/".startswith(f"{other}/")


def _shortest(path: str, given: str) -> str:
    """Without `//`, `/./`, `x/../` and a `/` at the end.  Raises ValueError where it leads out of the lake."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if not parts or _GLOB.search(parts[-1]):
                raise ValueError(f"{given!r} leads out of the lake by its `..`; write the path without `..`")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return ("/" if path.startswith("/") else "") + "/".join(parts)


def _path(path: str) -> str:
    if _SCHEME.match(path):
        raise ValueError("a path in the lake is expected, not a URL; the URL of the lake is lakes.NAME.url")
    return _shortest(path, path)


def _root(path: str) -> str:
    found = _path(path)
    if not found.strip("/"):
        raise ValueError("the top of the lake cannot be a root; name a folder in it")
    return found


SourcePath = Annotated[str, AfterValidator(_path)]
"""A path on a lake; empty: its top."""
RootPath = Annotated[str, AfterValidator(_root)]
"""A folder on a lake."""
