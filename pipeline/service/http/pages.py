"""The web app's files: one shell, modules and a style, which talk to the same REST as every other client.

They lie in memory, whole and compressed, are answered without a token, and hold nothing of a tenant.  The policy lets
a page load, ask and run nothing but this service's own files, and its scripts make no markup out of text.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILES = Path(__file__).parents[1] / "static"
UNDER = "/static/"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".svg": "image/svg+xml",
    ".zip": "application/zip",
}
_SMALLER = (".html", ".js", ".svg", ".css", ".txt")
_Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class File:
    """kind: of its content.  packed: the same bytes by gzip, b"" where that is not less."""

    kind: str
    content: bytes
    packed: bytes

    @property
    def tag(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'


def files() -> dict[str, File]:
    """By the path at which each is asked for; the shell is `/`."""
    found = {}
    for path in sorted(FILES.rglob("*")):
        if path.suffix in _TYPES:
            content = path.read_bytes()
            packed = gzip.compress(content, 9, mtime=0) if path.suffix in _SMALLER else b""
            name = path.relative_to(FILES).as_posix()
            found["/" if name == "index.html" else UNDER + name] = File(_TYPES[path.suffix], content, packed)
    return found


class Pages:
    """An ASGI application around another one, which answers all that is no file."""

    def __init__(self, app: Any) -> None:
        self._app, self._files = app, files()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        file = self._files.get(scope.get("path", "")) if scope["type"] == "http" else None
        if file is None or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        asked = {name: value.decode("latin-1") for name, value in scope["headers"]}
        status, headers, body = _answer(file, asked)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body if scope["method"] == "GET" else b""})


def _answer(file: File, asked: Mapping[bytes, str]) -> tuple[int, _Headers, bytes]:
    """no-cache: a browser asks each time whether its copy still holds, and is told so in a few bytes."""
    headers = [
        (b"etag", file.tag.encode()), (b"cache-control", b"no-cache"), (b"content-type", file.kind.encode()),
        (b"content-security-policy", POLICY.encode()), (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"), (b"cross-origin-opener-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"), (b"vary", b"accept-encoding"),
    ]  # fmt: skip
    if file.tag in [one.strip().removeprefix("W/") for one in asked.get(b"if-none-match", "").split(",")]:
        return 304, headers, b""
    body = file.content
    if file.packed and "gzip" in asked.get(b"accept-encoding", ""):
        body = file.packed
        headers.append((b"content-encoding", b"gzip"))
    return 200, [*headers, (b"content-length", str(len(body)).encode())], body
