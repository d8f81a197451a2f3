"""A real Redis on an address of this host: Debian's server."""

from __future__ import annotations

import contextlib
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from tests.servers.apt import install_packages
from tests.servers.demand import Server, Uninstalled, missing

PORT = 6379


def program() -> Path:
    """Raises Uninstalled."""
    if shutil.which("redis-server") is None:
        install_packages("a rendezvous by Redis", "redis-server")
    found = shutil.which("redis-server")
    if found is None:
        raise Uninstalled("redis-server is not on the PATH")
    return Path(found)


@contextlib.contextmanager
def running(folder: Path, address: str) -> Iterator[Server]:
    """It answers on PORT of the address, and writes nothing to the disk."""
    try:
        path = program()
    except Uninstalled as error:
        missing(str(error))
    folder.mkdir(parents=True, exist_ok=True)
    words = [
        str(path),
        "--bind",
        address,
        "--port",
        str(PORT),
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        str(folder),
    ]
    server = Server.start(words, log=folder / "redis.log")
    try:
        server.until(lambda: _answers(address), "Redis answers")
        yield server
    finally:
        server.stop()


def _answers(address: str) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, PORT), 1.0) as stream:
        stream.sendall(b"PING\r\n")
        return stream.recv(16) == b"+PONG\r\n"
    return False
