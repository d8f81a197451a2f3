"""A web server of its own process with pictures like photographs: 600 x 450 JPEGs of about 45 KB.

Prints the port; ends with the standard input.  Any path is answered; its number chooses one of 64 pictures.  It listens
on all of 127.0.0.0/8, so that each address is a host.
"""

from __future__ import annotations

import asyncio
import re
import sys

import cv2
import numpy as np
import uvloop

PICTURES = 64
SIZE = (450, 600)
BYTES = 45_000


class Guest(asyncio.Protocol):
    """Answers each request of a connection; requests are never longer than one read here."""

    def __init__(self, answers: list[bytes]) -> None:
        self._answers = answers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for found in re.finditer(rb"GET /(\d+)", data):
            number = int(found[1])
            self._transport.write(self._answers[number % len(self._answers)] + _tail(number))  # type: ignore[attr-defined]


def _tail(number: int) -> bytes:
    """Behind a picture's end, where no decoder looks: no two paths give equal bytes, which would pass a net once."""
    return b"%08d" % (number % 10**8)


def pictures(count: int = PICTURES) -> list[bytes]:
    """Noise of all scales, as photographs have it, in the JPEG quality that comes to BYTES."""
    return [_picture(seed) for seed in range(count)]


def _picture(seed: int) -> bytes:
    random = np.random.default_rng(seed)
    high, wide = SIZE
    total = np.zeros((high, wide, 3), np.float32)
    for octave in range(2, 9):
        rows, columns = -(-high >> octave) + 2, -(-wide >> octave) + 2
        part = random.normal(0, 1, (rows, columns, 3)).astype(np.float32)
        total += cv2.resize(part, (wide, high), interpolation=cv2.INTER_CUBIC) * 2.0 ** (0.8 * octave)
    total += random.normal(0, 3.0, total.shape)
    pixels = np.clip(128 + 50 * total / total.std(), 0, 255).astype(np.uint8)
    for quality in range(96, 20, -1):
        done, content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert done
        if len(content) <= BYTES:
            break
    return content.tobytes()


def answer(body: bytes) -> bytes:
    length = len(body) + len(_tail(0))
    head = f'HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {length}\r\nETag: "1"\r\n\r\n'
    return head.encode() + body


async def serve() -> None:
    answers = [answer(picture) for picture in pictures()]
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Guest(answers), "0.0.0.0", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(serve())
