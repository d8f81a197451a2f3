"""A web server of its own process for the fetch benchmarks: a body for every path, after a delay.

Arguments: size of the body in bytes or the JPEG file to serve, delay in seconds.  Prints the port; with the standard
input's end it prints the CPU seconds that it took and ends.  It listens on all of 127.0.0.0/8, so that each address is
a host.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import uvloop

PATH = 64
"""So many bytes of a request end its body: no two are equal."""


class Guest(asyncio.Protocol):
    """Answers each request of a connection; requests are never longer than one read here."""

    def __init__(self, answer: bytes, delay: float) -> None:
        self._answer = answer[:-PATH]
        self._delay = delay

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not data.endswith(b"\r\n\r\n"):
            return
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._send, data)
        else:
            self._send(data)

    def _send(self, asked: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(self._answer + asked[:PATH].ljust(PATH))  # type: ignore[attr-defined]


def body_of(what: str) -> bytes:
    """Its last bytes are the request's in each answer; decoders stop before them."""
    if not what.isdigit():
        return Path(what).read_bytes() + bytes(PATH)
    return b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + os.urandom(int(what) - 13) + b"\xff\xd9"


async def serve(body: bytes, delay: float) -> None:
    head = f"HTTP/1.1 200 OK\r\nServer: bench\r\nDate: x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n"
    answer = (head + 'Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\nETag: "1"\r\n\r\n').encode() + body
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Guest(answer, delay), "0.0.0.0", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    print(time.process_time(), flush=True)


if __name__ == "__main__":
    uvloop.run(serve(body_of(sys.argv[1]), float(sys.argv[2])))
