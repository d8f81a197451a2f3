"""Two commands of Redis, by which workers find each other: a text is put under a key, and asked for.

Source: the protocol RESP2 (redis.io/docs/latest/develop/reference/protocol-spec); a client library is not worth its
packages for two commands.
"""

from __future__ import annotations

import socket
import time

from pipeline.errors import ConfigError, TemporaryError
from pipeline.training.sharing.connection import PeerLost

AGAIN_SECONDS = 0.5
_LONGEST = 4096


class Redis:
    """A server, with one connection for each command.  ends: by the monotonic clock, until when it is tried."""

    def __init__(self, host: str, port: int, ends: float) -> None:
        self._host, self._port, self._ends = host, port, ends

    @property
    def own_address(self) -> str:
        """The address of this host from which the server is reached.  Raises PeerLost where it is not."""
        with self._connected() as stream:
            return str(stream.getsockname()[0])

    def put(self, key: str, text: str, seconds: int) -> None:
        """The text stands under the key for so long.  Raises PeerLost, ConfigError."""
        self._ask("SET", key, text, "EX", str(seconds))

    def get(self, key: str) -> str:
        """What stands there; "": nothing.  Raises PeerLost, ConfigError."""
        return self._ask("GET", key)

    def _connected(self) -> socket.socket:
        while True:
            try:
                return socket.create_connection((self._host, self._port), 5.0)
            except OSError as error:
                if time.monotonic() > self._ends:
                    where = f"{self._host}:{self._port}"
                    raise PeerLost(f"Redis does not answer at {where}", str(error), "REDIS_HOST names it") from error
            time.sleep(AGAIN_SECONDS)

    def _ask(self, *words: str) -> str:
        content = b"".join(b"$%d\r\n%s\r\n" % (len(each.encode()), each.encode()) for each in words)
        with self._connected() as stream, stream.makefile("rb") as answers:
            try:
                stream.sendall(b"*%d\r\n%s" % (len(words), content))
                line = answers.readline(_LONGEST).decode(errors="replace").rstrip("\r\n")
                if line.startswith("$") and line != "$-1":
                    return answers.read(min(int(line[1:]), _LONGEST)).decode(errors="replace")
            except (OSError, ValueError) as error:
                raise TemporaryError("Redis broke off its answer", str(error)) from error
        if line.startswith("-"):
            hint = "workers use a Redis without a password"
            raise ConfigError(f"Redis at {self._host}:{self._port} refuses {words[0]}", line[1:], hint)
        return ""
