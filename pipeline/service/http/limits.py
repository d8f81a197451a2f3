"""How long a body may be, whatever a request says of itself; and the headers of every answer."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException

JSON_BYTES = 4 * 2**20
"""Of a body that is read whole."""
PICTURES_BYTES = 64 * 2**20
"""Of a body that brings pictures."""
CONTENT = "/content"
"""How the paths end whose bodies are streamed, and limited by what was announced."""
PICTURES = ("/classify", "/infer")
"""How the paths end whose bodies bring pictures."""
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]


class Limited:
    """An ASGI application around another one."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        taken = 0
        most = PICTURES_BYTES if scope["path"].endswith(PICTURES) else JSON_BYTES

        async def counted() -> dict[str, Any]:
            nonlocal taken
            message: dict[str, Any] = await receive()
            taken += len(message.get("body", b""))
            if taken > most and not scope["path"].endswith(CONTENT):
                raise HTTPException(413, f"the body is longer than {most} bytes")
            return message

        async def sent(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message["headers"]}
                more = [one for one in _HEADERS if one[0] not in there]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        await self._app(scope, counted, sent)
