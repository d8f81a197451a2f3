"""A TCP proxy on loopback that hurts what passes it, at a chosen byte of a chosen HTTP message.

    proxy = Proxy(server.port)
    proxy.lose_answer(b"PUT ")                        # the server did it, the client is not told
    proxy.meet(b"PUT ", after=1_000_000, do=server.kill)   # in the middle of a request

Each fault is for the next `times` requests whose first line it matches; other requests pass.  Callers need not wait:
`Fault.met` is set when it happened first, and `down` and `up` come back when it is so.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tests.servers.demand import free_port

_BLOCK = 1 << 16
_METHODS = (b"GET ", b"PUT ", b"POST ", b"HEAD ", b"DELETE ", b"OPTIONS ")
_CONTINUE = re.compile(rb"HTTP/1\.1 100 [^\r]*\r\n(?:[^\r]+\r\n)*\r\n")


@dataclass
class Fault:
    """What happens to a message once `after` bytes of it (its head included) have passed.

    do: called in the proxy's thread; meanwhile nothing passes on this connection.
    then: cut: the connection ends on both sides; damage: the next byte is another; pass: it goes on.
    """

    match: re.Pattern[bytes]
    way: Literal["request", "answer"]
    after: int = 0
    do: Callable[[], object] | None = None
    then: Literal["cut", "damage", "pass"] = "cut"
    times: int = 1
    met: threading.Event = field(default_factory=threading.Event)


@dataclass
class _Line:
    """One connection through the proxy, and the faults that its present request has met."""

    client: socket.socket
    server: socket.socket
    asking: bool = True
    """The next byte of the client begins a request."""
    faults: list[Fault] = field(default_factory=list)
    passed: dict[str, int] = field(default_factory=lambda: {"request": 0, "answer": 0})

    def cut(self) -> None:
        for end in (self.client, self.server):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the other side was quicker


class Proxy:
    """Listens on `port` of 127.0.0.1 and passes everything on to `target` there."""

    def __init__(self, target: int, bytes_per_second: float | None = None) -> None:
        """bytes_per_second: of each connection and direction; may be changed at any time."""
        self.target = target
        self.bytes_per_second = bytes_per_second
        self.delay = 0.0
        """Seconds that each answer is held back."""
        self.requests: list[str] = []
        """The first lines of all requests so far."""
        self.port = free_port()  # kept while it is down
        self._faults: list[Fault] = []
        self._lines: list[_Line] = []
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self.up()

    def up(self) -> None:
        """Accept connections, on the same port as before."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(128)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def down(self) -> None:
        """An outage: what is open is cut, what comes is refused."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            self._listener.close()
            self._listener = None
        with self._lock:
            lines, self._lines = self._lines, []
        for line in lines:
            line.cut()

    close = down

    def meet(
        self,
        match: bytes,
        *,
        way: Literal["request", "answer"] = "request",
        after: int = 0,
        do: Callable[[], object] | None = None,
        then: Literal["cut", "damage", "pass"] = "pass",
        times: int = 1,
    ) -> Fault:
        """A fault for the next requests whose first line matches this expression from its beginning."""
        fault = Fault(re.compile(match), way, after, do, then, times)
        with self._lock:
            self._faults.append(fault)
        return fault

    def lose_answer(self, match: bytes, times: int = 1) -> Fault:
        """The server has done it; its answer is dropped."""
        return self.meet(match, way="answer", then="cut", times=times)

    def lose_request(self, match: bytes, times: int = 1) -> Fault:
        """The server never hears of it."""
        return self.meet(match, way="request", then="cut", times=times)

    def cut_answer(self, match: bytes, after: int, times: int = 1) -> Fault:
        """The client gets so many bytes of the answer, head included."""
        return self.meet(match, way="answer", after=after, then="cut", times=times)

    def forgive(self) -> None:
        """No more faults."""
        with self._lock:
            self._faults.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # down
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            line = _Line(client, server)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                if self._listener is not listener:
                    line.cut()
                    continue
                self._lines.append(line)
            for work in (self._requests, self._answers):
                threading.Thread(target=self._pump, args=(work, line), daemon=True).start()

    def _pump(self, work: Callable[[_Line], None], line: _Line) -> None:
        try:
            work(line)
        except OSError:
            pass  # one side ended; so does the other
        finally:
            line.cut()
            with self._lock:
                if line in self._lines:
                    self._lines.remove(line)

    def _requests(self, line: _Line) -> None:
        while block := line.client.recv(_BLOCK):
            if line.asking:
                while block.startswith(_METHODS) and b"\r\n" not in block:
                    block += line.client.recv(_BLOCK)
                self._begin(line, block)
            if not self._pass(line, "request", block, line.server):
                return

    def _begin(self, line: _Line, block: bytes) -> None:
        if not block.startswith(_METHODS):
            return  # a body that waited for `100 Continue`
        first = block.split(b"\r\n", 1)[0]
        with self._lock:
            self.requests.append(first.decode("latin-1"))
            line.faults = [fault for fault in self._faults if fault.match.match(first)][:1]
            for fault in line.faults:
                fault.times -= 1
                if fault.times == 0:
                    self._faults.remove(fault)
        line.passed = {"request": 0, "answer": 0}
        line.asking = False

    def _answers(self, line: _Line) -> None:
        while block := line.server.recv(_BLOCK):
            if line.passed["answer"] == 0:
                if self.delay:
                    time.sleep(self.delay)
                if told := _CONTINUE.match(block):
                    line.client.sendall(told[0])
                    block = block[told.end() :]
                    if not block:
                        continue
            line.asking = True
            if not self._pass(line, "answer", block, line.client):
                return

    def _pass(self, line: _Line, way: Literal["request", "answer"], block: bytes, to: socket.socket) -> bool:
        """Send a block on, up to the fault that lies in it; False: the connection is to end."""
        begun = line.passed[way]
        line.passed[way] += len(block)  # first: what comes back of it may begin the next request at once
        for fault in line.faults:
            if fault.way == way and begun <= fault.after < begun + len(block):
                at = fault.after - begun
                self._send(to, block[:at])
                if fault.do is not None:
                    fault.do()
                fault.met.set()
                if fault.then == "cut":
                    return False
                rest = block[at:]
                if fault.then == "damage":
                    rest = bytes([rest[0] ^ 1]) + rest[1:]
                self._send(to, rest)
                break
        else:
            self._send(to, block)
        return True

    def _send(self, to: socket.socket, block: bytes) -> None:
        to.sendall(block)
        if self.bytes_per_second:
            time.sleep(len(block) / self.bytes_per_second)
