"""What a barista and its customers say: one JSON object a message, over a socket that keeps messages apart."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import PermanentError, PipelineError

MOST = 1 << 16
"""Bytes of a message; arrays go by the memory."""
_LONGEST_TEXT = 4000
_ENCODED = json.JSONEncoder(separators=(",", ":")).encode
"""Made once: `json.dumps` makes one for each message whose form is not its own."""
_CREDENTIALS = struct.Struct("3i")
Message = Mapping[str, Any]


class Ended(PipelineError):
    """The other side has ended, or has closed the connection."""


class Refused(PermanentError):
    """What a barista says to a request that it does not take."""

    def __init__(self, message: str, detail: str = "", hint: str = "", exit_code: int = 1) -> None:
        super().__init__(message, detail, hint)
        self.exit_code = exit_code


def socket_made() -> socket.socket:
    """A socket of the kind that both sides speak by."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)


def send(to: socket.socket, fields: Message, handles: Sequence[int] = ()) -> None:
    """Raises Ended, also where the other side takes no more: it is not waited for on a socket that does not block."""
    content = _ENCODED(fields).encode()
    try:
        if handles:
            socket.send_fds(to, [content], list(handles))
        else:
            to.send(content)
    except OSError as error:
        raise Ended("the connection to the barista has ended", str(error)) from error


def receive(of: socket.socket) -> dict[str, Any]:
    """The next message.  Raises Ended; Refused for what is no message; TimeoutError, BlockingIOError as it is set."""
    try:
        content = of.recv(MOST + 1)
    except (TimeoutError, BlockingIOError):
        raise
    except OSError as error:
        raise Ended("the connection to the barista has ended", str(error)) from error
    return _read(content)


def receive_with(of: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """As `receive`, with the descriptors that came with it: the caller closes them."""
    try:
        content, handles, _, _ = socket.recv_fds(of, MOST + 1, 4)
    except (TimeoutError, BlockingIOError):
        raise
    except OSError as error:
        raise Ended("the connection to the barista has ended", str(error)) from error
    try:
        for one in handles:
            os.set_inheritable(one, False)
        return _read(content), handles
    except PipelineError:
        for one in handles:
            os.close(one)
        raise


def _read(content: bytes) -> dict[str, Any]:
    if not content:
        raise Ended("the connection to the barista has ended", "the other side has closed it")
    if len(content) > MOST:
        raise Refused(f"a message of more than {MOST:,} bytes", "", "arrays go by the memory, not by messages")
    found = None
    with contextlib.suppress(ValueError):  # what is no JSON is no object either
        found = json.loads(content.decode())
    if not isinstance(found, dict):
        raise Refused("a message that is no JSON object", repr(content[:80]))
    return found


def refusal(error: PipelineError) -> dict[str, Any]:
    """An error as an answer says it."""
    texts = [text[:_LONGEST_TEXT] for text in (error.message, error.detail, error.hint)]
    return {"error": [*texts, error.exit_code]}


def accepted(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer.  Raises Refused where it is an error."""
    if "error" in answer:
        raise Refused(*answer["error"])
    return answer


def user_of(other: socket.socket) -> int:
    """The user whose process is at the other end, as the kernel says."""
    found = other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(found)[1])


def process_of(other: socket.socket) -> int:
    """The number of that process."""
    found = other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(found)[0])
