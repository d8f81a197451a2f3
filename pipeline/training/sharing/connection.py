"""A connection between two processes that train together: frames over TCP, opened by who knows the token."""

from __future__ import annotations

import contextlib
import hmac
import json
import secrets
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.errors import Diverged, PipelineError, SolverError, TemporaryError

BEAT, TOLD, ARRAYS, FAILED = range(4)
_HEAD = struct.Struct("<BQ")
_HELLO = struct.Struct("<32s32sI32s")  # what kind of program this is; a nonce; who it is; its proof
_KIND = b"hathi-training-1".ljust(32)
_ANSWER = struct.Struct("<32s")
_PIECE = 1 << 22  # bytes that are handed to the system at once
_LOOK_SECONDS = 1.0
_KINDS = {kind.exit_code: kind for kind in (SolverError, Diverged, TemporaryError)}
HINT = "the same command goes on from the last whole snapshot"


@dataclass(frozen=True)
class Member:
    """A process of a training.  name: as messages call it."""

    host: str
    port: int
    name: str


class Connection:
    """Frames to and from one other process.  One thread sends and one receives at a time; any thread may beat."""

    def __init__(self, stream: socket.socket, name: str, seconds: float, alive: Callable[[], None]) -> None:
        """seconds: without a word of it, it counts as hung.  alive: called while this process waits for it."""
        self._stream, self.name, self._seconds, self._alive = stream, name, seconds, alive
        self._sending = threading.Lock()
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.settimeout(None)
        self._ready = select.poll()
        self._ready.register(stream, select.POLLIN)

    def send(self, kind: int, content: Sequence[memoryview]) -> None:
        """Raises TemporaryError where the other one is gone."""
        size = sum(one.nbytes for one in content)
        try:
            with self._sending:
                self._stream.sendall(_HEAD.pack(kind, size))
                for one in content:
                    for at in range(0, one.nbytes, _PIECE):
                        self._stream.sendall(one[at : at + _PIECE])
        except OSError as error:
            raise self._gone(error) from error

    def beat(self) -> None:
        """Says that this process lives, unless it says something else just now."""
        if self._sending.acquire(blocking=False):
            try:
                head = _HEAD.pack(BEAT, 0)
                sent = self._stream.send(head, socket.MSG_DONTWAIT)
                if sent < len(head):
                    self._stream.sendall(head[sent:])
            except OSError:  # full, or gone: whoever receives from it finds out
                pass
            finally:
                self._sending.release()

    def receive(self, kind: int) -> int:
        """The size of the next frame, which is of this kind; its content is still to be read by `read`.

        Raises TemporaryError where the other one is gone or silent; what it has told by FAILED.
        """
        head = bytearray(_HEAD.size)
        while True:
            self.read(memoryview(head))
            found, size = _HEAD.unpack(head)
            if found == kind:
                return int(size)
            if found == FAILED:
                content = bytearray(size)
                self.read(memoryview(content))
                raise failed(json.loads(bytes(content)))
            if found != BEAT:
                raise TemporaryError(f"{self.name} sent what nobody expects here", f"a frame of kind {found}", HINT)

    def read(self, into: memoryview) -> None:
        """Fills this memory."""
        at = 0
        while at < into.nbytes:
            self._wait()
            try:
                count = self._stream.recv_into(into[at:])
            except OSError as error:
                raise self._gone(error) from error
            if not count:
                raise self._gone(None)
            at += count

    def _wait(self) -> None:
        """Until there is something to read."""
        ends = time.monotonic() + self._seconds
        while not self._ready.poll(_LOOK_SECONDS * 1000):
            self._alive()
            if time.monotonic() >= ends:
                raise TemporaryError(
                    f"{self.name} is silent for {self._seconds:.0f} s: it hangs",
                    "it sent no word and no sign of life",
                    HINT,
                )

    def _gone(self, error: OSError | None) -> TemporaryError:
        why = error.strerror or str(error) if error is not None else "its connection has ended"
        return TemporaryError(f"{self.name} is gone", why, HINT)

    def close(self) -> None:
        """Wakes whoever waits for it."""
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)
        self._stream.close()


def words(error: PipelineError) -> bytes:
    """An error as it travels."""
    body = {"message": error.message, "detail": error.detail, "hint": error.hint, "exit_code": error.exit_code}
    return json.dumps(body).encode()


def failed(body: dict[str, object]) -> PipelineError:
    """The error that `words` wrote."""
    kind = _KINDS.get(int(str(body["exit_code"])), TemporaryError)
    return kind(str(body["message"]), str(body["detail"]), str(body["hint"]))


def listen(host: str) -> socket.socket:
    """A socket at this address of ours, at a port that is free."""
    return socket.create_server((host, 0), backlog=128)


def connect(to: Member, rank: int, token: bytes, seconds: float) -> socket.socket:
    """A connection to a process that listens, after both have shown that they know the token.

    Raises TemporaryError where nobody is there who does.
    """
    try:
        stream = socket.create_connection((to.host, to.port), timeout=seconds)
        nonce = _exactly(stream, 32)
        mine = secrets.token_bytes(32)
        stream.sendall(_HELLO.pack(_KIND, mine, rank, _proof(token, b"c", nonce, mine, rank)))
        if not hmac.compare_digest(_exactly(stream, _ANSWER.size), _proof(token, b"s", nonce, mine, rank)):
            raise ConnectionError("it does not know the token of this training")
        return stream
    except OSError as error:
        raise TemporaryError(f"{to.name} does not answer", f"{to.host}:{to.port}: {error}", HINT) from error


def accept(listening: socket.socket, wanted: set[int], token: bytes, seconds: float) -> dict[int, socket.socket]:
    """The connections of these processes; a stranger is sent away.

    Raises TemporaryError, with their numbers, where some do not come in time.
    """
    found: dict[int, socket.socket] = {}
    ends = time.monotonic() + seconds
    while wanted - set(found):
        left = ends - time.monotonic()
        listening.settimeout(max(left, 0.001))
        try:
            stream, _ = listening.accept()
        except TimeoutError as error:
            missing = ", ".join(map(str, sorted(wanted - set(found))))
            raise TemporaryError(f"worker {missing} did not come within {seconds:.0f} s", "", HINT) from error
        rank = _known(stream, token, min(10.0, max(left, 0.001)))
        if rank is None or rank not in wanted or rank in found:
            stream.close()
        else:
            found[rank] = stream
    return found


def _known(stream: socket.socket, token: bytes, seconds: float) -> int | None:
    """The number of a process that knows the token; None: a stranger."""
    try:
        stream.settimeout(seconds)
        nonce = secrets.token_bytes(32)
        stream.sendall(nonce)
        kind, theirs, rank, proof = _HELLO.unpack(_exactly(stream, _HELLO.size))
        if kind != _KIND or not hmac.compare_digest(proof, _proof(token, b"c", nonce, theirs, rank)):
            return None
        stream.sendall(_proof(token, b"s", nonce, theirs, rank))
        return int(rank)
    except OSError:
        return None


def _proof(token: bytes, side: bytes, nonce: bytes, theirs: bytes, rank: int) -> bytes:
    return hmac.digest(token, side + nonce + theirs + rank.to_bytes(4, "little"), "sha256")


def _exactly(stream: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        some = stream.recv(count - len(found))
        if not some:
            raise ConnectionError("the connection has ended")
        found += some
    return found
