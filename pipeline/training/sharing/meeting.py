"""How the processes of a training meet: whoever knows its token, over TCP, or by a socket of the host they share."""

from __future__ import annotations

import contextlib
import hmac
import secrets
import select
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import TemporaryError
from pipeline.process import memory
from pipeline.training.sharing.connection import HINT

_HELLO = struct.Struct("<32s32sI32s")  # what kind of program this is; a nonce; who it is; its proof
_KIND = b"hathi-training-2".ljust(32)
_ANSWER = struct.Struct("<32s")


@dataclass(frozen=True)
class Member:
    """A process of a training.  name: as messages call it."""

    host: str
    port: int
    name: str


@dataclass(frozen=True)
class Listening:
    """Where a process waits for others.  near: those of the same host; None: this system has no such sockets."""

    far: socket.socket
    near: socket.socket | None

    @property
    def port(self) -> int:
        return int(self.far.getsockname()[1])

    def both(self) -> list[socket.socket]:
        return [self.far] if self.near is None else [self.far, self.near]

    def close(self) -> None:
        for one in self.both():
            one.close()


def listen(host: str, port: int = 0) -> Listening:
    """At this address of ours; port 0: at one that is free.  Raises OSError."""
    far = socket.create_server((host, port), backlog=128)
    if not memory.is_here():
        return Listening(far, None)
    near = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        near.bind(_near(Listening(far, None).port))
        near.listen(128)
    except OSError:  # somebody has that name: the others come over TCP
        near.close()
        return Listening(far, None)
    return Listening(far, near)


def connect(to: Member, mine: Member, rank: int, token: bytes, seconds: float) -> socket.socket:
    """A connection to a process that listens, after both have shown that they know the token.

    mine, rank: who this process is.  Raises TemporaryError where nobody is there who does.
    """
    if to.host == mine.host and memory.is_here():  # the same host, unless two networks have the same addresses
        with contextlib.suppress(OSError):
            return _connected(to, rank, token, seconds, near=True)
    try:
        return _connected(to, rank, token, seconds, near=False)
    except OSError as error:
        raise TemporaryError(f"{to.name} does not answer", f"{to.host}:{to.port}: {error}", HINT) from error


def _connected(to: Member, rank: int, token: bytes, seconds: float, near: bool) -> socket.socket:
    if near:
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if near:
            stream.settimeout(seconds)
            stream.connect(_near(to.port))
        else:
            stream = socket.create_connection((to.host, to.port), timeout=seconds)
        nonce = exactly(stream, 32)
        mine = secrets.token_bytes(32)
        stream.sendall(_HELLO.pack(_KIND, mine, rank, _proof(token, b"c", nonce, mine, rank)))
        if not hmac.compare_digest(exactly(stream, _ANSWER.size), _proof(token, b"s", nonce, mine, rank)):
            raise ConnectionError("it does not know the token of this training")
        return stream
    except OSError:
        if near:
            stream.close()
        raise


def accept(listening: Listening, wanted: Sequence[int], token: bytes, seconds: float) -> dict[int, socket.socket]:
    """The connections of these processes; a stranger is sent away.

    Raises TemporaryError, with their numbers, where some do not come in time.
    """
    found: dict[int, socket.socket] = {}
    ends = time.monotonic() + seconds
    while missing := sorted(set(wanted) - set(found)):
        left = ends - time.monotonic()
        ready, _, _ = select.select(listening.both(), [], [], max(left, 0.001))
        if not ready:
            numbers = ", ".join(map(str, missing))
            raise TemporaryError(f"worker {numbers} did not come within {seconds:.0f} s", "", HINT)
        stream, _ = ready[0].accept()
        rank = _known(stream, token, min(10.0, max(left, 0.001)))
        if rank is None or rank not in missing:
            stream.close()
        else:
            found[rank] = stream
    return found


def give(streams: Sequence[socket.socket], handle: int) -> list[int]:
    """Gives all of them a descriptor, and takes one of each.  Raises OSError."""
    for stream in streams:
        socket.send_fds(stream, [b"m"], [handle])
    found: list[int] = []
    for stream in streams:
        content, handles, _, _ = socket.recv_fds(stream, 1, 1, socket.MSG_CMSG_CLOEXEC)
        found += handles
        if not content or not handles:
            raise ConnectionError("it gave no memory")
    return found


def _near(port: int) -> str:
    """A name that only processes see which share a network; it goes with its socket."""
    return f"\0hathi-training-{port}"


def _known(stream: socket.socket, token: bytes, seconds: float) -> int | None:
    """The number of a process that knows the token; None: a stranger."""
    try:
        stream.settimeout(seconds)
        nonce = secrets.token_bytes(32)
        stream.sendall(nonce)
        kind, theirs, rank, proof = _HELLO.unpack(exactly(stream, _HELLO.size))
        if kind != _KIND or not hmac.compare_digest(proof, _proof(token, b"c", nonce, theirs, rank)):
            return None
        stream.sendall(_proof(token, b"s", nonce, theirs, rank))
        return int(rank)
    except OSError:
        return None


def _proof(token: bytes, side: bytes, nonce: bytes, theirs: bytes, rank: int) -> bytes:
    return hmac.digest(token, side + nonce + theirs + rank.to_bytes(4, "little"), "sha256")


def exactly(stream: socket.socket, count: int) -> bytes:
    """So many bytes.  Raises OSError where the connection ends before."""
    found = b""
    while len(found) < count:
        some = stream.recv(count - len(found))
        if not some:
            raise ConnectionError("the connection has ended")
        found += some
    return found
