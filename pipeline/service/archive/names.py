"""Names of entries -> the folders and the name of a file, or why it has none.  Pure."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

PART_BYTES = 255
"""Of a folder's or a file's name, in UTF-8."""
_DRIVE = re.compile(r"[A-Za-z]:")
_JUNK = frozenset((".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", ".directory", "icon\r"))
_JUNK_FOLDERS = frozenset(("__macosx", ".appledouble", "@eadir", ".git", ".svn", ".ipynb_checkpoints"))
_BAD_KINDS = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
_JOINERS = frozenset("\u200c\u200d")
"""Of the characters without a width, those that words of some languages and emoji need."""


class Named(NamedTuple):
    """path: folders and name, NFC.  reason: why there is none, of `entries.REASONS`; "" where there is."""

    path: tuple[str, ...]
    reason: str = ""
    detail: str = ""


def text_of(raw: bytes, *, old: bool = False) -> str | None:
    """A name's letters: UTF-8, or None.  old: what is not UTF-8 is code page 437, as zip had it first."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp437") if old else None


def shown(raw: bytes) -> str:
    """Any name, for people."""
    return raw[:200].decode("utf-8", "backslashreplace")


def named(name: str, most: int) -> Named:
    """most: bytes that a name may have."""
    if "\0" in name or not name.strip("/"):
        return Named((), "bad_name", "it is empty" if not name else "it names no file")
    if len(name.encode("utf-8", "surrogatepass")) > most:
        return Named((), "bad_name", "it is too long")
    plain = name.isascii() and name.isprintable()
    if not plain and (strange := _strange(name)):
        if name.rpartition("/")[2].lower() in _JUNK:
            return Named((), "junk")
        return Named((), "bad_name", f"it holds U+{ord(strange):04X}")
    if name.startswith(("/", "\\")) or _DRIVE.match(name):
        return Named((), "absolute")
    if ".." in re.split(r"[/\\]", name):
        return Named((), "traversal")
    if "\\" in name:
        return Named((), "bad_name", "it holds a backslash")
    parts = [part for part in unicodedata.normalize("NFC", name).split("/") if part not in ("", ".")]
    if not parts:
        return Named((), "bad_name", "it names no file")
    if any(len(part.encode()) > PART_BYTES for part in parts):
        return Named((), "bad_name", "a part of it is too long")
    if any(part != part.strip() for part in parts[:-1]):
        return Named((), "bad_name", "a folder's name begins or ends with a blank")
    if parts[-1].startswith("._") or parts[-1].lower() in _JUNK or any(part.lower() in _JUNK_FOLDERS for part in parts):
        return Named((), "junk")
    return Named(tuple(parts))


def _strange(name: str) -> str:
    """The first character that nobody sees, or that changes how others are seen; "" for none."""
    return next((one for one in name if unicodedata.category(one) in _BAD_KINDS and one not in _JOINERS), "")
