"""A customer that tries every verb of a barista, and checks what comes of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.amounts import counted
from pipeline.barista import interface
from pipeline.barista.customer import Answer, Customer
from pipeline.barista.messages import Refused
from pipeline.errors import PermanentError

ROUND_TRIPS = 200
_END_SECONDS = 30.0


@dataclass(frozen=True)
class Tried:
    """What one verb did.  done: False: it was left out."""

    verb: str
    says: str
    done: bool = True


def tried(file: Path, *, changes: bool) -> Iterator[Tried]:
    """Tries the barista of an interface file, verb by verb.

    changes: also the verbs that change what other customers use, and at last `stop`.  Raises PermanentError at the
    first answer that is wrong.
    """
    with Customer(file) as first:
        about = first.about()
        _fill(first, about["labels"], seed=1)
        with Customer(file) as second:
            yield _layout(first, second)
            yield _about(first, about)
            _fill(second, about["labels"], seed=2)
            answer, kept = first.gradient(number=1), _kept(first)
            yield _beside(first, second, kept)
        with Customer(file) as third:  # hidden states would go on from a customer's own pass before
            _fill(third, about["labels"], seed=1)
            yield _gradient(third, answer, kept)
        yield _rows(first)
        for phase in about["phases"]:
            yield _forward(first, phase)
        yield _copy(first)
        yield _refusal(first)
        if not changes:
            for verb in ("update", "weights", "stop"):
                yield Tried(
                    verb, "it changes what others use; `hathi barista test SOLVER` tries it on one of its own", False
                )
            return
        yield _update(first)
        yield _weights(first)
        yield _stop(first, file)


def _layout(first: Customer, second: Customer) -> Tried:
    numbers = sum(one.size for one in first.parameters.values())
    _demand("layout", all(not one.flags.writeable for one in first.parameters.values()), "parameters can be written")
    _demand("layout", not any(np.shares_memory(first.data[top], second.data[top]) for top in first.data),
            "two customers have one slot")  # fmt: skip
    fed = ", ".join(f"{top} {one.shape}" for top, one in first.data.items())
    return Tried("layout", f"{counted(len(first.parameters), 'parameter')} of {counted(numbers, 'number')}; fed {fed}")


def _about(customer: Customer, about: dict[str, Any]) -> Tried:
    times = []
    for _ in range(ROUND_TRIPS):
        begin = time.perf_counter()
        customer.about()
        times.append(time.perf_counter() - begin)
    trip = f"a round trip takes {statistics.median(times) * 1e6:.0f} us"
    return Tried("about", f"{about['customers']} of {counted(about['slots'], 'slot')} in use; {trip}")


def _fill(customer: Customer, labels: dict[str, int], seed: int) -> None:
    """Chance, which every layer takes: labels that are known, else numbers from 0 to 1."""
    numbers = np.random.default_rng(seed)
    for top, place in customer.data.items():
        place[...] = numbers.integers(0, labels[top], place.shape) if top in labels else numbers.random(place.shape)


def _beside(first: Customer, second: Customer, kept: dict[str, Any]) -> Tried:
    other = second.gradient(number=1)
    _demand("gradient", _equal(kept, _kept(first)), "another customer's pass changed this one's gradients")
    return Tried("gradient", f"another customer has its own: loss {other.loss:.6g}; {_version(other)}")


def _gradient(third: Customer, answer: Answer, kept: dict[str, Any]) -> Tried:
    again = third.gradient(number=1)
    _demand("gradient", again.loss == answer.loss and _equal(kept, _kept(third)), "the same pass gave other gradients")
    _demand("gradient", all(np.isfinite(one).all() for one in kept.values()), "a gradient is not finite")
    return Tried("gradient", f"the same data give the same to the bit: loss {again.loss:.6g}")


def _rows(customer: Customer) -> Tried:
    try:
        answer = customer.gradient(rows=1, number=1)
    except Refused as error:
        return Tried("gradient", f"this net takes whole batches alone: {error.message}")
    return Tried("gradient", f"of 1 row of {customer.rows}: loss {answer.loss:.6g}")


def _forward(customer: Customer, phase: str) -> Tried:
    answer = customer.forward(phase=phase, number=1)
    told = ", ".join(f"{name} {one.shape}" if one.ndim else f"{name} {one:.6g}" for name, one in answer.blobs.items())
    return Tried("forward", f"in phase {phase}: {told or 'no output'}; {_version(answer)}")


def _copy(customer: Customer) -> Tried:
    _demand("copy", _equal(customer.parameters, customer.copy()), "the copy differs from the parameters")
    return Tried("copy", f"the weights of version {customer.version}, equal to the parameters to the bit")


def _refusal(customer: Customer) -> Tried:
    for wrong in (0, customer.rows + 1):
        _refused("gradient", lambda wrong=wrong: customer.gradient(rows=wrong))  # type: ignore[misc]
    _refused("gradient", lambda: customer.gradient(version=customer.version + 1))
    return Tried("gradient", "too many rows, none, and another version's weights are refused; the customer stays")


def _update(customer: Customer) -> Tried:
    customer.gradient(number=1)
    moves = any(one.any() for one in customer.gradients.values())
    before, version = {name: one.copy() for name, one in customer.parameters.items()}, customer.version
    found = customer.update()
    _demand("update", found.version == version + 1, f"version {found.version} follows on {version}")
    moved = not _equal(before, customer.parameters)
    _demand("update", moved or not moves or not found.rate, "no parameter has moved")
    return Tried("update", f"rate {found.rate:g}: the weights are of version {found.version}")


def _weights(customer: Customer) -> Tried:
    for name, one in customer.given.items():
        one[...] = customer.parameters[name] * np.float32(0.5)
    wanted = {name: one.copy() for name, one in customer.given.items()}
    version = customer.version + 10
    taken = customer.weights(version)
    _demand("weights", taken and customer.version == version, "the weights were not taken")
    _demand("weights", _equal(wanted, customer.parameters), "the parameters are not what was given")
    _demand("weights", not customer.weights(version), "weights of the version that is there were taken again")
    return Tried("weights", f"what was given is version {version}; a second time nothing is done")


def _stop(customer: Customer, file: Path) -> Tried:
    customer.stop()
    ends = time.monotonic() + _END_SECONDS
    while interface.alive(file) is not None:
        _demand("stop", time.monotonic() < ends, f"it runs {_END_SECONDS:g} s later")
        time.sleep(0.01)
    _demand("stop", not file.exists(), "its interface file is still there")
    return Tried("stop", "it has ended, and its interface file is gone")


def _refused(verb: str, ask: Callable[[], object]) -> None:
    try:
        ask()
    except Refused:
        return
    _demand(verb, False, "it took what it has to refuse")


def _demand(verb: str, holds: bool, says: str) -> None:
    if not holds:
        raise PermanentError(f"the barista fails at {verb}: {says}", "", "this is a fault of Hathi: please report it")


def _kept(customer: Customer) -> dict[str, Any]:
    return {name: one.copy() for name, one in customer.gradients.items()}


def _equal(some: Any, others: Any) -> bool:
    return all(np.array_equal(one.view(np.uint32), others[name].view(np.uint32)) for name, one in some.items())


def _version(answer: Answer) -> str:
    return f"version {answer.version}"
