"""URLs that need no host: `data:` always, files only under folders that the settings name."""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from pipeline.records import Failure

_SPACES = re.compile(rb"[\t\n\f\r ]+")
_FILE = re.compile(r"file:", re.IGNORECASE)
_DATA = re.compile(r"\s*data:", re.IGNORECASE)


def is_data(url: str) -> bool:
    return _DATA.match(url) is not None


def is_file(url: str) -> bool:
    """A file: URL or an absolute path."""
    return _FILE.match(url) is not None or (url.startswith("/") and not url.startswith("//"))


def read_data(url: str, max_bytes: int) -> bytes | Failure:
    """The bytes in a `data:` URL (RFC 2397, read as the fetch standard does)."""
    header, comma, body = _DATA.sub("", url, count=1).partition(",")
    if not comma:
        return Failure.of("bad_url", "data without a comma")
    if len(body) > 4 * max_bytes:
        return Failure.of("too_large", "data")
    content = unquote_to_bytes(body.partition("#")[0].encode("utf-8", "surrogatepass"))
    if re.search(r";\s*base64\s*$", header, re.IGNORECASE):
        packed = _SPACES.sub(b"", content).rstrip(b"=")
        try:
            content = base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
        except binascii.Error:
            return Failure.of("bad_url", "data is not base64")
    return _checked(content, max_bytes)


def read_file(url: str, folders: Sequence[str], max_bytes: int) -> bytes | Failure:
    """The bytes of a file under one of `folders`, links followed before the check; `blocked` elsewhere."""
    if _FILE.match(url):
        try:
            parts = urlsplit(url)
        except ValueError:  # a bracket that is not closed
            return Failure.of("bad_url", "malformed")
        if parts.netloc not in ("", "localhost"):
            return Failure.of("blocked", "scheme file")
        text = unquote(parts.path)
    else:
        text = url
    if not text.startswith("/") or "\0" in text:
        return Failure.of("bad_url", "malformed")
    path = Path(text).resolve()
    if not any(path.is_relative_to(Path(folder).resolve()) for folder in folders):
        return Failure.of("blocked", "scheme file")
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return Failure.of("http_4xx", "404")
    except OSError:
        return Failure.of("blocked", "file cannot be opened")
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        return Failure.of("blocked", "not a file")
    with open(handle, "rb") as stream:
        return _checked(stream.read(max_bytes + 1), max_bytes)


def _checked(content: bytes, max_bytes: int) -> bytes | Failure:
    if len(content) > max_bytes:
        return Failure.of("too_large", "data")
    return content or Failure.of("empty", "data", retriable=False)
