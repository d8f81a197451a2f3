"""The head of an HTTP answer, read with suspicion."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from pipeline.records import Failure

REDIRECTS = (301, 302, 303, 307, 308)
_WANTED = {
    name.encode(): name
    for name in (
        "content-length",
        "content-encoding",
        "content-range",
        "location",
        "etag",
        "last-modified",
        "retry-after",
        "transfer-encoding",
    )
}
_INITIALS = frozenset(b"cleert" + b"CLEERT")
BLANK = (b"\r\n", b"\n")
_DIGITS = re.compile(r"[0-9]{1,18}")
_WHOLE = re.compile(r"bytes 0-([0-9]{1,18})/([0-9]{1,18})", re.IGNORECASE)
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", re.IGNORECASE)
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?:[ \r\n]|$)")


class Head(NamedTuple):
    """What a head says.  length: of the body, None when it does not say.

    encoding: all Content-Encoding headers, in lower case; "" for none.  location: ASCII, other bytes percent-encoded.
    whole: a part (206) that is all of the body.  cookie: a redirect that sets one.  first, total: of a part, where it
    begins and how long the whole is.
    """

    status: int
    length: int | None
    encoding: str
    location: str
    etag: str
    last_modified: str
    retry_after: str
    whole: bool = False
    cookie: bool = False
    first: int | None = None
    total: int | None = None


def read_status(line: bytes) -> int:
    """The status of a status line, 0 when it is none."""
    match = _STATUS.match(line)
    return int(match[1]) if match else 0


def read_head(lines: list[bytes]) -> Head | Failure:
    """The head out of an answer's header lines (interim answers before it, trailers after it are left out).

    `protocol` where headers contradict each other.
    """
    status, first = read_status(lines[0]), 1
    while 100 <= status < 200 and status != 101 and (end := _end(lines, first)) + 1 < len(lines):
        status, first = read_status(lines[end + 1]), end + 2
    found: dict[str, str] = {}
    for index in range(first, len(lines)):
        line = lines[index]
        if line[0] not in _INITIALS:
            if line in BLANK:
                break
            continue
        name, _, value = line.partition(b":")
        key = _WANTED.get(name.strip().lower())
        if key is None:
            continue
        text = _location(value) if key == "location" else _text(value)
        if key == "content-encoding" and key in found:
            found[key] += f",{text}"
        elif found.setdefault(key, text) != text and key in ("content-length", "transfer-encoding", "location"):
            return Failure.of("protocol", f"two different {key} headers")
    length = found.get("content-length", "")
    if "transfer-encoding" in found:
        length = ""  # RFC 9112, 6.3: the length is to be ignored then
    elif length and not _DIGITS.fullmatch(length):
        # "n, n" is what a proxy makes of n twice
        parts = {part.strip() for part in length.split(",")}
        length = parts.pop()
        if parts or not _DIGITS.fullmatch(length):
            return Failure.of("protocol", "bad content-length")
    range_ = _WHOLE.fullmatch(found.get("content-range", ""))
    part = _RANGE.fullmatch(found.get("content-range", ""))
    return Head(
        status,
        int(length) if length else None,
        found.get("content-encoding", "").lower(),
        found.get("location", ""),
        found.get("etag", ""),
        found.get("last-modified", ""),
        found.get("retry-after", ""),
        range_ is not None and int(range_[1]) + 1 == int(range_[2]),
        status in REDIRECTS and any(line[:11].lower() == b"set-cookie:" for line in lines[first:]),
        int(part[1]) if part else None,
        int(part[3]) if part else None,
    )


def verdict(head: Head, max_bytes: int) -> Failure | None:
    """What the head alone decides; None: a body is to be read, or a redirect to be followed."""
    status = head.status
    if status in REDIRECTS:
        return None if head.location else Failure.of("protocol", "redirect without location")
    if status == 429:
        return Failure.of("http_429", "429")
    if 400 <= status < 500:
        return Failure.of("http_4xx", str(status), retriable=status in (408, 425))
    if 500 <= status < 600:
        return Failure.of("http_5xx", str(status))
    if status == 0:
        return Failure.of("protocol", "malformed answer")
    if status in (204, 205):
        return Failure.of("empty", str(status))
    if not 200 <= status < 300 or (status == 206 and not head.whole):
        return Failure.of("protocol", f"status {status}")
    if head.length is not None and head.length > max_bytes:
        return Failure.of("too_large", "announced length")
    return None


def seconds_to_wait(retry_after: str, now: datetime) -> float | None:
    """`Retry-After` as seconds from `now`: a number or a date (RFC 9110, 10.2.3); None when it says nothing."""
    if _DIGITS.fullmatch(retry_after):
        return float(retry_after)
    try:
        when = parsedate_to_datetime(retry_after)
    except (ValueError, IndexError, TypeError, OverflowError):  # a day of twenty digits
        return None
    return max(0.0, ((when if when.tzinfo else when.replace(tzinfo=UTC)) - now).total_seconds())


def _end(lines: list[bytes], first: int) -> int:
    return next((index for index in range(first, len(lines)) if lines[index] in BLANK), len(lines))


def _location(value: bytes) -> str:
    """As browsers read it: bytes beyond ASCII stand for themselves, whatever letters they were meant to be."""
    text = value.strip()
    return text.decode("ascii") if text.isascii() else "".join(chr(b) if b < 0x80 else f"%{b:02X}" for b in text)


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8").strip()
    except UnicodeDecodeError:
        return value.decode("latin-1").strip()
