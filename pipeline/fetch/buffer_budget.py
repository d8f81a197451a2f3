"""How many bytes of bodies may lie about: the back-pressure from whoever takes images to the sockets."""

from __future__ import annotations

from pipeline.clock import Clock
from pipeline.fetch.transfer import Transfer

_RESUME_AT = 0.75


class BufferRoom:
    """Counts bodies that arrive, and bodies that wait to be taken, against one limit.

    Never over `limit` plus one body: when all of it is partial bodies, one transfer may go on to its end.
    Each counter has one thread that writes it: `handed`, `arriving` the engine, `grown` the finisher, `unpacked` the
    unpacker, `taken` the taker.
    """

    def __init__(self, limit: int, clock: Clock) -> None:
        self.limit = limit
        self._clock = clock
        self.handed = 0
        self.grown = 0
        self.unpacked = 0
        self.taken = 0
        self._arriving = 0
        self._paused: list[Transfer] = []
        self._first: Transfer | None = None

    def waiting(self) -> int:
        """Bytes of whole bodies that nobody has taken yet."""
        return self.handed + self.grown + self.unpacked - self.taken

    def full(self) -> bool:
        return self.waiting() + self._arriving >= self.limit

    def admit(self, transfer: Transfer, size: int) -> bool:
        """May `size` more bytes of this body come in?  If not it is paused until `resumable` says so."""
        arriving = self._arriving + size
        if self.handed + self.grown + self.unpacked - self.taken + arriving > self.limit:
            if self._first is None and self.waiting() <= 0:
                self._first = transfer
            if self._first is not transfer:
                transfer.pause(self._clock.monotonic())
                self._paused.append(transfer)
                return False
        self._arriving = arriving
        return True

    def leave(self, transfer: Transfer, handed: bool) -> None:
        """The transfer has ended; handed: its body waits now to be taken."""
        self._arriving -= transfer.size
        if handed:
            self.handed += transfer.size
        if self._first is transfer:
            self._first = None
        if transfer.paused_at is not None:
            self._paused.remove(transfer)

    def resumable(self) -> list[Transfer]:
        """Transfers to read on with, oldest first; each may be paused again at once."""
        if not self._paused:
            return []
        roomy = self.waiting() + self._arriving < self.limit * _RESUME_AT
        if not roomy and (self._first is not None or self.waiting() > 0):
            return []
        paused, self._paused = self._paused, []
        return paused
