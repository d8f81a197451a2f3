"""The barista: one thread that takes customers, leases slots, and computes what they ask for, one after the other.

What a customer asks for waits in its socket until its turn comes.  A customer that leaves, is killed, says what nobody
understands or takes no answers loses its slot, and nobody else notices.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.amounts import counted, length_of_time
from pipeline.barista import interface
from pipeline.barista.messages import Ended, Refused, receive, refusal, send
from pipeline.barista.nets import PHASES
from pipeline.barista.shared_net import SharedNet, Wanted
from pipeline.errors import PipelineError
from pipeline.training.out_of_memory import enough_memory

LOOK_SECONDS = 0.5


@dataclass
class _Customer:
    connection: socket.socket
    slot: int | None = None


@dataclass(frozen=True)
class Around:
    """stop: whether to end, as ESTOP and signals say; why: in words.  idle: seconds without a customer after which it
    ends; 0: never.  found: looks whether customers still find it; why they cannot, or "".  about: what it says of
    itself."""

    monotonic: Callable[[], float]
    stop: Callable[[], bool]
    why: Callable[[], str]
    idle: float
    found: Callable[[], str]
    say: Callable[[str], None]
    about: dict[str, Any]


class Daemon:
    """Serves from `serve` on until it is to end.  memory: the descriptor that customers get; text: bytes of the layout
    at its beginning."""

    def __init__(self, listening: socket.socket, net: SharedNet, slots: int, memory: tuple[int, int], around: Around):
        self._listening, self._net, self._around = listening, net, around
        self._memory, self._slots = memory, slots
        self._free = deque(range(slots))
        self._customers: dict[int, _Customer] = {}
        self._poll = select.epoll()
        self._ended = ""
        self._verbs: dict[str, Callable[[_Customer, dict[str, Any]], dict[str, Any]]] = {
            "layout": self._layout, "gradient": self._gradient, "forward": self._forward, "update": self._update,
            "weights": self._weights, "copy": self._copy, "about": self._about, "stop": self._stop,
        }  # fmt: skip

    def serve(self) -> str:
        """Until it is to end; why it did."""
        around = self._around
        self._listening.setblocking(False)
        self._poll.register(self._listening, select.EPOLLIN)
        left = looked = around.monotonic()
        try:
            while not self._ended:
                if around.stop():
                    self._ended = around.why()
                    break
                for handle, _ in self._poll.poll(LOOK_SECONDS):
                    if handle == self._listening.fileno():
                        self._admit()
                    elif (customer := self._customers.get(handle)) is not None:
                        self._turn(customer)
                    if self._ended:
                        break
                now = around.monotonic()
                if now - looked >= LOOK_SECONDS and not self._ended:
                    self._ended, looked = around.found(), now
                if self._customers:
                    left = now
                elif around.idle and now - left >= around.idle:
                    self._ended = f"it had no customer for {length_of_time(around.idle)}"
        finally:
            for one in list(self._customers.values()):
                one.connection.close()
            self._poll.close()
        return self._ended

    def _admit(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):  # who has left again meanwhile
            connection, _ = self._listening.accept()
            if not interface.mine(connection, self._around.say):
                connection.close()
                return
            connection.setblocking(False)
            self._customers[connection.fileno()] = _Customer(connection)
            self._poll.register(connection, select.EPOLLIN)

    def _turn(self, customer: _Customer) -> None:
        """One request, and its answer."""
        handles: tuple[int, ...] = ()
        try:
            try:
                asked = receive(customer.connection)
                answer, handles = self._answer(customer, asked)
            except Refused as error:
                answer = refusal(error)
            send(customer.connection, {"version": self._net.version, **answer}, handles)
        except BlockingIOError:
            pass  # nothing was there to be read
        except Ended:
            self._dismiss(customer)

    def _answer(self, customer: _Customer, asked: dict[str, Any]) -> tuple[dict[str, Any], tuple[int, ...]]:
        verb = asked.get("verb")
        if verb not in self._verbs:
            raise Refused(f"the barista knows no verb {verb!r}", f"known: {', '.join(self._verbs)}")
        wants = asked.get("version")
        if verb != "weights" and wants is not None and wants != self._net.version:
            raise Refused(f"the weights are of version {self._net.version}, not {wants!r}", "nothing was computed",
                          "give the barista the weights that are meant, or ask without a version")  # fmt: skip
        try:
            with enough_memory():
                return self._verbs[verb](customer, asked), self._memory[:1] if verb == "layout" else ()
        except Refused:
            raise
        except PipelineError as error:
            self._around.say(f"{verb} failed: {error}")
            return refusal(error), ()
        except (RuntimeError, ValueError, IndexError, ArithmeticError) as error:  # of the engine: data it cannot take
            self._around.say(f"{verb} failed: {type(error).__name__}: {error}")
            says = next(iter(str(error).splitlines()), type(error).__name__)
            return refusal(Refused(f"the pass failed: {says}", type(error).__name__, "look at labels and data")), ()

    def _dismiss(self, customer: _Customer) -> None:
        handle = customer.connection.fileno()
        self._poll.unregister(handle)
        del self._customers[handle]
        customer.connection.close()
        if customer.slot is not None:
            self._net.forget(customer.slot)
            self._free.append(customer.slot)

    def _layout(self, customer: _Customer, asked: dict[str, Any]) -> dict[str, Any]:
        if customer.slot is None:
            if not self._free:
                says = f"all {counted(self._slots, 'slot')} of the barista are taken"
                raise Refused(says, "each customer has one until it leaves", "start it with more --slots")
            customer.slot = self._free.popleft()
        return {"slot": customer.slot, "layout": self._memory[1], **self._around.about}

    def _gradient(self, customer: _Customer, asked: dict[str, Any]) -> dict[str, Any]:
        return self._net.gradient(_slot(customer), _wanted(asked))

    def _forward(self, customer: _Customer, asked: dict[str, Any]) -> dict[str, Any]:
        phase = asked.get("phase")
        if phase not in PHASES:
            raise Refused(f"forward in the phase {phase!r}", f"known: {', '.join(PHASES)}")
        return self._net.forward(_slot(customer), phase, _wanted(asked))

    def _update(self, customer: _Customer, asked: dict[str, Any]) -> dict[str, Any]:
        passes, rate = asked.get("passes"), asked.get("rate")
        if passes is not None:
            _whole("passes", passes, 1)
        if rate is not None and (type(rate) not in (int, float) or not 0 <= rate < float("inf")):
            raise Refused(f"rate is {rate!r}", "a number from 0 on")
        return self._net.update(_slot(customer), passes, rate)

    def _weights(self, customer: _Customer, asked: dict[str, Any]) -> dict[str, Any]:
        return self._net.weights(_slot(customer), _whole("version", asked.get("version"), 0))

    def _copy(self, customer: _Customer, asked: dict[str, Any]) -> dict[str, Any]:
        return self._net.copy(_slot(customer))

    def _about(self, customer: _Customer, asked: dict[str, Any]) -> dict[str, Any]:
        leased = sum(one.slot is not None for one in self._customers.values())
        return {"iteration": self._net.iteration, "customers": leased, "slots": self._slots, **self._around.about}

    def _stop(self, customer: _Customer, asked: dict[str, Any]) -> dict[str, Any]:
        self._ended = "a customer asked it to end"
        return {}


def _slot(customer: _Customer) -> int:
    if customer.slot is None:
        raise Refused("this customer has no slot yet", "", "ask for the layout first")
    return customer.slot


def _wanted(asked: dict[str, Any]) -> Wanted:
    blobs = asked.get("blobs", [])
    if not isinstance(blobs, list) or not all(isinstance(one, str) for one in blobs):
        raise Refused(f"blobs is {blobs!r}", "a list of names")
    return Wanted(_whole("rows", asked.get("rows"), 1), _whole("number", asked.get("number", 0), 0), tuple(blobs))


def _whole(name: str, value: object, least: int) -> int:
    if type(value) is not int or not least <= value < 2**63:
        raise Refused(f"{name} is {value!r}", f"a whole number from {least} on")
    return value
