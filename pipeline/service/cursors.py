"""Where a list goes on: the last row that was shown, signed for one tenant and one list.

A cursor of another tenant, of another list, or one that somebody wrote is refused like any word that is none.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json

_SIGNED = 16
MOST = 512
"""Letters of a cursor."""


def written(key: bytes, tenant: str, of: str, place: list[str | int | float]) -> str:
    """The cursor behind a place.  of: which list, with its filters.  Raises ValueError for one too long to be read."""
    body = json.dumps(place, separators=(",", ":")).encode()
    text = base64.urlsafe_b64encode(_sign(key, tenant, of, body) + body).decode().rstrip("=")
    if len(text) > MOST:
        raise ValueError(f"a cursor of {len(text)} letters; the most is {MOST}")
    return text


def read(key: bytes, tenant: str, of: str, text: str) -> list[str | int | float] | None:
    """The place; None for what is no cursor of this list and this tenant."""
    if len(text) > MOST or not text.isascii():
        return None
    try:
        whole = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    signed, body = whole[:_SIGNED], whole[_SIGNED:]
    if not hmac.compare_digest(signed, _sign(key, tenant, of, body)):
        return None
    found: list[str | int | float] = json.loads(body)
    return found


def _sign(key: bytes, tenant: str, of: str, body: bytes) -> bytes:
    words = b"\0".join([tenant.encode(), of.encode(), body])
    return hmac.new(key, words, hashlib.sha256).digest()[:_SIGNED]
