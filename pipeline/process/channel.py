"""Messages between a parent and its child: a line of JSON, which says how many bytes follow it, and these bytes."""

from __future__ import annotations

import contextlib
import io
import json
import threading
from collections.abc import Mapping
from typing import Any

Message = Mapping[str, Any]
"""What JSON carries, by name."""


class Gone(EOFError):
    """The other side of a channel has ended."""


class Channel:
    """Messages with bytes behind them, in both directions; any thread may send."""

    def __init__(self, descriptor: int) -> None:
        """descriptor: of a socket; its owner closes it."""
        self._incoming = io.BufferedReader(io.FileIO(descriptor, "rb", closefd=False))
        self._outgoing = io.BufferedWriter(io.FileIO(descriptor, "wb", closefd=False))
        self._sending = threading.Lock()

    def send(self, content: bytes | memoryview = b"", **fields: Any) -> None:
        """Raises Gone."""
        head = json.dumps({**fields, "bytes": len(content)}).encode() + b"\n"
        try:
            with self._sending:
                self._outgoing.write(head)
                self._outgoing.write(content)
                self._outgoing.flush()
        except ConnectionError as error:
            raise Gone from error

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """The next message, and the bytes behind it.  Raises Gone."""
        try:
            line = self._incoming.readline()
            fields = json.loads(line) if line.endswith(b"\n") else None
            content = self._incoming.read(fields["bytes"]) if fields else b""
        except ConnectionError as error:
            raise Gone from error
        if fields is None or len(content) < fields["bytes"]:
            raise Gone
        del fields["bytes"]
        return fields, content

    def close(self) -> None:
        for pipe in (self._outgoing, self._incoming):
            with contextlib.suppress(ConnectionError):  # bytes that nobody takes any more
                pipe.close()
