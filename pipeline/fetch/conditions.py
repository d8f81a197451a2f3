"""Asking a host whether an image changed: conditional requests (RFC 9110, 13) and what their answers are worth.

A condition belongs to one resource: the URL at the end of all redirects.  Another URL is asked without it, since an
entity tag says nothing about another resource.  Cache-Control plays no part: no answer is used without asking the host.
"""

from __future__ import annotations

import re
from datetime import timedelta
from email.utils import parsedate_to_datetime
from hashlib import sha256

from pipeline.fetch.answer import Head
from pipeline.records import Condition

NOT_MODIFIED, REFUSED = 304, 412
ANSWERS = (NOT_MODIFIED, REFUSED)
SETTLED = timedelta(seconds=60)
"""An image that changed less than this before it was fetched may change again within the same second: RFC 9110, 8.8.2.2
calls its time weak, and asks for a difference that clocks cannot explain."""

_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]{1,512}"')
"""RFC 9110, 8.8.3, without bytes beyond ASCII."""
_DATE = re.compile(r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT")


def identity(url: str) -> bytes:
    """What a condition keeps of the URL that it belongs to: SHA-256, 32 bytes."""
    return sha256(url.encode("utf-8", "surrogatepass")).digest()


def headers_of(condition: Condition | None, url: str) -> list[str]:
    """The header that asks for what changed, none where the condition does not fit this URL or says nothing sure.

    The entity tag alone where there is one: it says more than the time.
    """
    if condition is None or condition.resource != identity(url):
        return []
    if _TAG.fullmatch(condition.etag):
        return [f"If-None-Match: {condition.etag}"]
    if _is_settled(condition):
        return [f"If-Modified-Since: {condition.last_modified}"]
    return []


def is_unchanged(condition: Condition, head: Head) -> bool:
    """Whether an answer to it says that the image is the same: a 304 that names no other tag and no other time."""
    if head.status != NOT_MODIFIED:
        return False
    if _TAG.fullmatch(condition.etag):
        return not head.etag or _opaque(head.etag) == _opaque(condition.etag)
    return not head.last_modified or head.last_modified == condition.last_modified


def _opaque(etag: str) -> str:
    """Tags are compared weakly (RFC 9110, 13.1.2): a host may make a strong one weak on its way."""
    return etag.removeprefix("W/")


def _is_settled(condition: Condition) -> bool:
    if not _DATE.fullmatch(condition.last_modified):
        return False
    try:
        changed = parsedate_to_datetime(condition.last_modified)
        return condition.fetched_at - changed >= SETTLED
    except (ValueError, OverflowError):  # the 31st of February
        return False
