"""libcurl's multi interface, driven by the reactor."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pycurl

from pipeline.fetch.reactor import READ, WRITE, Reactor
from pipeline.fetch.transfer import Transfer

_EVENTS = {pycurl.POLL_IN: READ, pycurl.POLL_OUT: WRITE, pycurl.POLL_INOUT: READ | WRITE}


class Wire:
    """Transfers that are under way, and the connections that stay open between them."""

    def __init__(self, reactor: Reactor, connections: int) -> None:
        self._reactor = reactor
        self.active: dict[Any, Transfer] = {}
        self._timer_at: float | None = None
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, connections)
        self._multi.setopt(pycurl.M_PIPELINING, 0)

    def start(self, transfer: Transfer) -> None:
        self.active[transfer.curl] = transfer
        self._multi.add_handle(transfer.curl)

    def cancel(self, transfer: Transfer) -> None:
        """Cut it off: its connection is closed where an answer is still coming."""
        del self.active[transfer.curl]
        self._multi.remove_handle(transfer.curl)

    def wait(self, longest: float) -> float:
        """Seconds until libcurl wants to be called, at most `longest`."""
        if self._timer_at is None:
            return longest
        return min(longest, max(0.0, self._timer_at - time.monotonic()))

    def reap(self) -> Iterator[tuple[Transfer, int]]:
        """Transfers that have ended, with libcurl's code (0: well); each is free to be used again."""
        if self._timer_at is not None and self._timer_at <= time.monotonic():
            self._timer_at = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        while True:
            queued, well, badly = self._multi.info_read()
            for curl in well:
                yield self._remove(curl), 0
            for curl, code, _text in badly:
                yield self._remove(curl), code
            if not queued:
                return

    def _remove(self, curl: Any) -> Transfer:
        self._multi.remove_handle(curl)
        return self.active.pop(curl)

    def _on_socket(self, what: int, fd: int, _multi: Any, _data: Any) -> None:
        if what == pycurl.POLL_REMOVE:
            self._reactor.unwatch(fd)
        elif what in _EVENTS:
            self._reactor.watch(fd, _EVENTS[what], self._on_event)
        else:
            self._reactor.unwatch(fd)

    def _on_event(self, fd: int, events: int) -> None:
        self._multi.socket_action(
            fd, (pycurl.CSELECT_IN if events & ~WRITE else 0) | (pycurl.CSELECT_OUT if events & WRITE else 0)
        )

    def _on_timer(self, milliseconds: int) -> None:
        self._timer_at = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000

    def close(self) -> None:
        """Cut off what is under way and close every connection."""
        for transfer in list(self.active.values()):
            self.cancel(transfer)
            transfer.curl.close()
        self._multi.close()
