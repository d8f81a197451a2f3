"""Workers that go over parts of a pass at the same time: threads without the interpreter's lock, or processes."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Any, Protocol

from pipeline.errors import PermanentError
from pipeline.process.channel import Message
from pipeline.process.child import Child, Ended, python_of
from pipeline.training.descent.examples import Dense, Examples, Labels, Sparse
from pipeline.training.descent.memory import Memory, Own, Shared
from pipeline.training.descent.values import Model, Numbers, Step, Told


class Workers(Protocol):
    """A context.  memory: where the arrays of models have to lie."""

    @property
    def memory(self) -> Memory: ...
    def walk(self, models: Sequence[Model], parts: Sequence[Numbers], step: Step, counted: bool) -> list[Told]:
        """Each worker goes over its part of the order with its model.  What one raises is raised."""

    def __enter__(self) -> Workers: ...
    def __exit__(self, *_: object) -> None: ...


class Threads:
    """Of this process."""

    def __init__(self, examples: Examples, count: int) -> None:
        self.memory: Memory = Own()
        self._examples = examples
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="workers") if count > 1 else None

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def walk(self, models: Sequence[Model], parts: Sequence[Numbers], step: Step, counted: bool) -> list[Told]:
        if self._pool is None:
            return [self._examples.walk(models[0], parts[0], step, counted)]
        going = [
            self._pool.submit(self._examples.walk, model, part, step, counted)
            for model, part in zip(models, parts, strict=True)
        ]
        return [one.result() for one in going]


class Processes:
    """Each an interpreter of its own, over the examples and the vectors of this process; they die with it."""

    def __init__(self, examples: Examples, count: int, memory: Shared) -> None:
        """examples: whose arrays `memory` gave out."""
        self.memory: Memory = memory
        self._shared = memory
        self._heard = queue.SimpleQueue[tuple[int, Message | Ended]]()
        self._children: list[Child] = []
        self._given = False
        first = told_of(examples, memory)
        try:
            for number in range(count):
                child = Child(python_of("pipeline.training.descent.process"))
                self._children.append(child)
                child.hear(first, partial(self._put, number))
            self._answers()  # they have opened the examples
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            child.kill()

    def walk(self, models: Sequence[Model], parts: Sequence[Numbers], step: Step, counted: bool) -> list[Told]:
        if not self._given:
            for child, model in zip(self._children, models, strict=True):
                child.channel.send(model=[self._shared.where(array) for array in model])
            self._given = True
        for child, part in zip(self._children, parts, strict=True):
            child.channel.send(part.tobytes(), step=list(step), counted=counted)
        return [Told(*one["told"]) for one in self._answers()]

    def _put(self, number: int, one: Message | Ended) -> None:
        self._heard.put((number, one))

    def _answers(self) -> list[Message]:
        """One of each worker, by its number.  Raises PermanentError as soon as one of them has died: it may have had a
        lock that the others wait for."""
        found: dict[int, Message] = {}
        while len(found) < len(self._children):
            number, one = self._heard.get()
            if isinstance(one, Ended):
                raise PermanentError("a worker process of the training died", f"it {one.story}", "run it again")
            if "failed" in one:
                words = one["failed"]
                raise PermanentError(words["message"], words["detail"], words["hint"])
            found[number] = one
        return [found[number] for number in range(len(self._children))]


def told_of(examples: Examples, memory: Shared) -> dict[str, Any]:
    """What a worker process opens the examples by; `examples_of` is its other side."""
    about: dict[str, Any] = {"labels": asdict(examples.labels), "dim": examples.dim}
    if isinstance(examples, Sparse):
        whole = [memory.where(array) for array in examples.rows]
        return about | {"rows": whole, "longest": examples.longest, "count": examples.count}
    assert isinstance(examples, Dense)
    more = {"file": examples.file, "count": examples.count, "first": examples.first}
    return about | more | {"label": [memory.where(array) for array in (examples.label_start, examples.label)]}


def labels_of(told: dict[str, Any]) -> Labels:
    return Labels(tuple(told["classes"]), told["many"])
