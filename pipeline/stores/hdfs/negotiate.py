"""HTTP's Negotiate (RFC 4559) for `requests`: a server that asks who we are is told, once for as long as its cookie."""

from __future__ import annotations

import base64
import re
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from pipeline.errors import PermanentError
from pipeline.stores.hdfs.tickets import Handshake, Tickets

_NEGOTIATE = re.compile(r"\bNegotiate\b\s*([A-Za-z0-9+/=]*)", re.IGNORECASE)


class Negotiate(AuthBase):
    """Answers a 401 that asks for it.  Raises what Tickets raises; hides nothing behind a 401."""

    def __init__(self, tickets: Tickets) -> None:
        self._tickets = tickets

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.register_hook("response", self._answer)  # type: ignore[no-untyped-call]
        return request

    def _answer(self, response: requests.Response, **how: Any) -> requests.Response:
        request = response.request
        if response.status_code != 401 or "Authorization" in request.headers or _offered(response) is None:
            return response
        handshake = self._tickets.handshake(urlsplit(response.url).hostname or "")
        _ = response.content  # the connection is free for the second request
        again = request.copy()
        again.headers["Authorization"] = f"Negotiate {base64.b64encode(handshake.token).decode()}"
        second: requests.Response = response.connection.send(again, **how)
        second.history.append(response)
        second.request = again
        _check(second, handshake)
        return second


def _offered(response: requests.Response) -> str | None:
    found = _NEGOTIATE.search(response.headers.get("www-authenticate", ""))
    return found[1] if found else None


def _check(response: requests.Response, handshake: Handshake) -> None:
    """A server that proves who it is has to be the one that was meant."""
    proof = _offered(response)
    if response.status_code < 400 and proof and not handshake.believe(base64.b64decode(proof)):
        raise PermanentError(
            f"{urlsplit(response.url).netloc} does not prove that it is the NameNode",
            "its Kerberos answer does not verify",
            "another program may answer at this address: correct lakes.*.url, or tell the administrators",
        )
