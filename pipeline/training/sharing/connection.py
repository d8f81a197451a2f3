"""A connection between two processes that train together: frames, sent and taken without waiting."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
from collections import deque
from collections.abc import Callable

from pipeline.errors import Diverged, PipelineError, SolverError, TemporaryError

BEAT, TOLD, ARRAYS, FAILED, SHARED = range(5)
"""Kinds of frames.  ARRAYS: numbers follow.  SHARED: no content; what stands in the memory of both is ready."""
_HEAD = struct.Struct("<BQ")
_PIECE = 1 << 22  # bytes that are handed to the system at once
_KINDS = {kind.exit_code: kind for kind in (SolverError, Diverged)}
HINT = "the same command goes on from the last whole snapshot"
Place = Callable[[int], memoryview]
"""What takes a frame's content, by its size in bytes."""


class PeerLost(TemporaryError):
    """This process is well, and another one is gone, hangs, or did not come."""


class Connection:
    """Frames to and from one other process.  Nothing here waits; whoever has several of them asks which are ready.

    name: the other one's, as messages call it.  near: it is on this host.  heard: when it last took or sent something.
    """

    def __init__(self, stream: socket.socket, name: str) -> None:
        self._stream, self.name, self.heard = stream, name, 0.0
        self.near = stream.family not in (socket.AF_INET, socket.AF_INET6)
        if not self.near:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.setblocking(False)
        self._out: deque[memoryview] = deque()
        self._broken: OSError | None = None
        self._wanted: deque[tuple[int, Place]] = deque()
        self._head = bytearray(_HEAD.size)
        self._into, self._at, self._in_head = memoryview(self._head), 0, True
        self._story: bytearray | None = None

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def events(self) -> int:
        """What it waits for, as `poll` has it; 0: nothing."""
        return (select.POLLIN if self._wanted else 0) | (select.POLLOUT if self._out else 0)

    def put(self, kind: int, content: memoryview | bytes = b"") -> None:
        """The next frame to be sent.  content: of bytes; it stays as it is until then."""
        self._out.append(memoryview(_HEAD.pack(kind, len(content))))
        if content:
            self._out.append(memoryview(content))

    def want(self, kind: int, place: Place) -> None:
        """The next frame to be taken is of this kind."""
        self._wanted.append((kind, place))

    def push(self) -> bool:
        """Sends what goes; whether something went.  One that is gone is found by `pull`."""
        went = False
        try:
            while self._out:
                one = self._out[0]
                count = self._stream.send(one[:_PIECE])
                went = True
                if count < one.nbytes:
                    self._out[0] = one[count:]
                else:
                    self._out.popleft()
        except BlockingIOError:
            pass
        except OSError as error:
            self._broken = error
            self._out.clear()
        return went

    def pull(self) -> bool:
        """Takes what has come of the frames that are wanted; whether something has.

        Raises TemporaryError where the other one is gone; what it told by FAILED; PipelineError for another frame.
        """
        came = False
        while self._wanted:
            try:
                count = self._stream.recv_into(self._into[self._at :])
            except BlockingIOError:
                return came
            except OSError as error:
                raise self._gone(self._broken or error) from error
            if not count:
                raise self._gone(self._broken)
            came = True
            self._at += count
            if self._at == self._into.nbytes:
                self._whole()
        return came

    def _whole(self) -> None:
        """What was read is whole: a head, or a content."""
        if self._in_head:
            kind, size = _HEAD.unpack(self._head)
            if kind == FAILED:
                self._story = bytearray(size)
                self._begin(memoryview(self._story))
            elif kind == BEAT:
                self._begin(None)
            elif kind != self._wanted[0][0]:
                raise TemporaryError(f"{self.name} sent what nobody expects here", f"a frame of kind {kind}", HINT)
            else:
                self._begin(self._wanted[0][1](size))
            if self._in_head or self._into.nbytes:
                return
        if self._story is not None:
            raise failed(json.loads(bytes(self._story)))
        self._wanted.popleft()
        self._begin(None)

    def _begin(self, into: memoryview | None) -> None:
        self._in_head, self._at = into is None, 0
        self._into = memoryview(self._head) if into is None else into

    def beat(self) -> None:
        """Says that this process lives, unless something else on its way says so."""
        if not self._out:
            self.put(BEAT)
            self.push()

    def _gone(self, error: OSError | None) -> PeerLost:
        why = error.strerror or str(error) if error is not None else "its connection has ended"
        return PeerLost(f"{self.name} is gone", why, HINT)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)
        self._stream.close()


def words(error: PipelineError) -> bytes:
    """An error as it travels."""
    body = {"message": error.message, "detail": error.detail, "hint": error.hint, "exit_code": error.exit_code}
    return json.dumps(body).encode()


def failed(body: dict[str, object]) -> PipelineError:
    """The error that `words` wrote: one that may work later is the other one's, not ours."""
    kind = _KINDS.get(int(str(body["exit_code"])), PeerLost)
    return kind(str(body["message"]), str(body["detail"]), str(body["hint"]))
