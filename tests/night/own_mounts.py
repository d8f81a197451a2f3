"""What only this process and its children see: a table of names, a name server that can fail, a disk that can be full.

Mounts in a namespace of its own (unshare(2)); the machine's /etc stays as it is.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS = 0x20000
SERVERS = [f"127.0.77.{number}" for number in range(1, 255)]
"""Addresses of this host, one for each night that runs on it."""
_NO_SUCH_NAME = b"\x81\x83"
"""The flags of an answer: recursive, NXDOMAIN (RFC 1035, 4.1.1)."""


def unshare() -> None:
    """From now on this thread, and what it starts, has mounts of its own.  Raises OSError where that is refused."""
    if _LIBC.unshare(_CLONE_NEWNS) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of this size, as mount writes it ("64m")."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Names:
    """/etc/hosts and /etc/resolv.conf.  Names that the table lacks are asked of a name server, which knows none."""

    def __init__(self, folder: Path) -> None:
        self._table = folder / "hosts"
        self._first = Path("/etc/hosts").read_text()
        self._table.write_text(self._first)
        self.answers = True
        """Whether the name server says that it knows none, or nothing."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        (folder / "resolv.conf").write_text(f"nameserver {self._bind()}\n")
        for name in ("hosts", "resolv.conf"):
            subprocess.run(["mount", "--bind", str(folder / name), f"/etc/{name}"], check=True)
        self._socket.settimeout(0.2)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def know(self, *names: str) -> None:
        """All names of this host beside the machine's own."""
        self._table.write_text(self._first + "".join(f"127.0.0.1 {name}\n" for name in names))

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()
        for name in ("hosts", "resolv.conf"):
            subprocess.run(["umount", "--lazy", f"/etc/{name}"], check=True)

    def _bind(self) -> str:
        for address in SERVERS:
            try:
                self._socket.bind((address, 53))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return address
        raise RuntimeError("all addresses of name servers are taken on this host")

    def _serve(self) -> None:
        while not self._over.is_set():
            try:
                asked, who = self._socket.recvfrom(4096)
            except TimeoutError:
                continue
            if self.answers:
                self._socket.sendto(asked[:2] + _NO_SUCH_NAME + asked[4:6] + bytes(6) + asked[12:], who)
