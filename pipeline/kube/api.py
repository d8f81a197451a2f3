"""Kubernetes' verbs over urllib3: one request, one try.  Who calls decides what a failure means.

Source: Kubernetes' API concepts (lists in pages, watches with bookmarks, resourceVersion).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import urllib3

from pipeline.errors import PipelineError, TemporaryError
from pipeline.kube.credentials import Credentials

ANSWER_SECONDS = 30.0
SILENT_SECONDS = 90.0
"""A watch that brings neither event nor bookmark for so long is dead: bookmarks come every minute."""
PAGE = 500
"""Objects of one answer to a list."""


class ApiError(PipelineError):
    """The API server refused.  code: HTTP's; reason: the server's word (NotFound, Conflict, Invalid...)."""

    def __init__(self, code: int, reason: str, words: str, path: str) -> None:
        super().__init__(f"Kubernetes' API answered {code} {reason}".rstrip(), f"{path}: {words}")
        self.code = code
        self.reason = reason
        self.words = words


class Unreachable(TemporaryError):
    """No answer came: what was asked may be done or not."""


@dataclass(frozen=True)
class _Request:
    """silent: seconds that may pass without a byte.  whole: the answer is read at once."""

    method: str
    path: str
    query: Mapping[str, str]
    content: bytes | None = None
    kind: str = ""
    silent: float = ANSWER_SECONDS
    whole: bool = True


class Api:
    """A server, asked as somebody.  Threads may share it."""

    def __init__(self, credentials: Credentials, *, threads: int = 8) -> None:
        self._credentials = credentials
        self._pool = urllib3.PoolManager(
            num_pools=2,
            maxsize=threads,
            retries=False,
            cert_reqs="CERT_REQUIRED",
            ca_certs=credentials.ca or None,
            cert_file=credentials.cert or None,
            key_file=credentials.key or None,
        )
        self.asked: Counter[tuple[str, str]] = Counter()
        """Requests by verb and resource, for figures and tests."""

    @property
    def namespace(self) -> str:
        """The namespace that its credentials mean where none is named."""
        return self._credentials.namespace

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: str) -> dict[str, Any]:
        """The answer's body.  Raises ApiError where the server refuses, Unreachable where none answers."""
        content = None if body is None else json.dumps(body).encode()
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        try:
            answer = self._ask(_Request(method, path, query, content, kind))
            text = answer.data
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable("Kubernetes' API does not answer", f"{method} {path}: {error}") from error
        if answer.status >= 400:
            raise _refusal(answer.status, text, path)
        found: dict[str, Any] = json.loads(text)
        return found

    def list(self, path: str, **query: str) -> tuple[list[dict[str, Any]], str]:
        """All objects, page by page, and the version that they stand at."""
        items: list[dict[str, Any]] = []
        more = ""
        while True:
            page = self.call("GET", path, None, **{**query, "limit": str(PAGE), **({"continue": more} if more else {})})
            items += page.get("items") or []
            more = page["metadata"].get("continue") or ""
            if not more:
                return items, page["metadata"]["resourceVersion"]

    def watch(self, path: str, version: str, seconds: int, **query: str) -> Iterator[dict[str, Any]]:
        """Events as they come, bookmarks among them, for at most `seconds`.

        Raises ApiError, Unreachable; the latter as well where the stream stays silent for 90 s.
        """
        wanted = {
            **query, "watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }  # fmt: skip
        try:
            answer = self._ask(_Request("GET", path, wanted, silent=SILENT_SECONDS, whole=False))
            try:
                if answer.status >= 400:
                    raise _refusal(answer.status, answer.read(), path)
                yield from _lines(answer)
            finally:
                answer.close()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable("a watch broke", f"{path}: {error}") from error

    def _ask(self, one: _Request) -> urllib3.BaseHTTPResponse:
        verb = "WATCH" if "watch" in one.query else one.method
        self.asked[(verb, resource_of(one.path))] += 1
        headers = {"Accept": "application/json", "User-Agent": "hathi"}
        if one.content is not None:
            headers["Content-Type"] = one.kind
        token = self._credentials.token()
        if token:
            headers["Authorization"] = f"Bearer {token}"
        url = f"{self._credentials.server}{one.path}" + (f"?{urlencode(one.query)}" if one.query else "")
        timeout = urllib3.Timeout(connect=10.0, read=one.silent)
        return self._pool.request(
            one.method, url, body=one.content, headers=headers, timeout=timeout, preload_content=one.whole,
            redirect=False,
        )  # fmt: skip


def resource_of(path: str) -> str:
    """Which resource a path asks for, without names: `pods`, `trainingjobs/status`."""
    words = path.strip("/").split("/")
    if len(words) < 3:
        return words[0]
    words = words[2:] if words[0] == "api" else words[3:]
    if len(words) > 2 and words[0] == "namespaces":
        words = words[2:]
    return words[0] + (f"/{words[2]}" if len(words) > 2 else "")


def _lines(answer: urllib3.BaseHTTPResponse) -> Iterator[dict[str, Any]]:
    rest = b""
    for piece in answer.stream(65_536):
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield json.loads(line)


def _refusal(code: int, content: bytes, path: str) -> ApiError:
    try:
        body = json.loads(content)
        return ApiError(code, str(body.get("reason") or ""), str(body.get("message") or ""), path)
    except (ValueError, AttributeError):
        return ApiError(code, "", content[:300].decode(errors="replace"), path)
