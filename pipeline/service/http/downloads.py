"""A file of the bucket as an answer: streamed, with its SHA-256 as ETag."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

from fastapi import Path
from fastapi.responses import StreamingResponse

from pipeline.service.http.asking import Behind

PIECE = 2**20
FileName = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,120}$")]
BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def download(service: Behind, one: Mapping[str, Any]) -> StreamingResponse:
    """one: name, key, size and SHA-256, as a row names it."""
    headers = {"Content-Length": str(one["size"]), "Content-Disposition": f'attachment; filename="{one["name"]}"',
               "ETag": f'"{one["sha256"]}"'}  # fmt: skip
    return StreamingResponse(_content(service, one["key"]), headers=headers, media_type="application/octet-stream")


async def _content(service: Behind, key: str) -> AsyncIterator[bytes]:
    file = await asyncio.to_thread(service.store.open, key)
    try:
        while some := await asyncio.to_thread(file.read, PIECE):
            yield some
    finally:
        await asyncio.to_thread(file.close)
