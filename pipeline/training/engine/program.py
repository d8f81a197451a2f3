"""A net lowered for training as torch operations: one pass, with gradients where they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.nets.engines.torch_program import read_as_numbers
from pipeline.nets.graph.lowered import Operation, Slot
from pipeline.nets.graph.plan import Place
from pipeline.nets.layers import Layer
from pipeline.training.engine.backward import Backward
from pipeline.training.engine.in_place import in_place
from pipeline.training.engine.lowering import Part, Trained
from pipeline.training.engine.memory import Overwritten
from pipeline.training.engine.operations import operations

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How a net is computed.

    dtype: float32; float64 for tests of gradients.  exact: convolution in Caffe's order of sums.  half: bfloat16 in
    convolutions and products, weights and sums stay float32.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    exact: bool = False
    half: bool = False


@dataclass(frozen=True, slots=True)
class Own:
    """A step whose Backward is Caffe's own.  over: what it reads of blobs that others have overwritten by then."""

    layer: Layer
    backward: Backward
    over: Overwritten


class Watch(Protocol):
    """Who looks at a pass: at each value as it is there, and at each gradient as the backward pass gets to it."""

    def top(self, step: int, top: int, value: Tensor) -> None: ...

    def bottom_gradient(self, step: int, bottom: int, gradient: Tensor) -> None: ...

    def top_gradient(self, step: int, top: int, gradient: Tensor) -> None: ...


@dataclass(frozen=True)
class Span:
    """A part of a net's steps.  first, last: its ends; last: None: the net's own.

    held: the values that stand where steps before `first` would have computed them, by name.
    """

    last: int | None = None
    first: int = 0
    held: Mapping[str, Tensor] = field(default_factory=dict)


WHOLE = Span()


class Program:
    """A net's parts on one device.  owns: by step.  kept: the values that a pass gives back."""

    def __init__(self, net: Trained, how: Arithmetic, owns: Mapping[int, Own], kept: set[str]) -> None:
        graph = net.graph
        self.parts, self.how, self.owns, self.kept = net.parts, how, owns, kept
        self._inputs, self._learned, self._preparations = tuple(graph.inputs), graph.learned, graph.preparations
        self._operations = operations(how.dtype, how.exact)
        numbers = read_as_numbers(graph)
        self._constants: Values = {
            name: array.tolist() if name in numbers else self._placed(torch.from_numpy(np.array(array)))
            for name, array in graph.constants.items()
        }
        late = [place for own in owns.values() for place in (*own.over.bottoms.values(), *own.over.tops.values())]
        self._late = {net.tops[place]: place for place in late}
        self._rest = net.rest
        self._done = self._last_uses(graph.shapes.keys() | graph.inputs.keys())
        saved = {name for part in net.parts if part.step in owns for name in part.tops}
        lean = not how.exact  # its convolution is a function of its own, whose tops are views
        self._lean = in_place(net.parts, net.rest, kept | saved | self._late.keys()) if lean else net.parts

    def __call__(
        self,
        feeds: Mapping[str, Tensor],
        learned: Callable[[Slot], Tensor],
        after: Callable[[Part, Values], None],
        watch: Watch | None = None,
        span: Span | None = None,
    ) -> Values:
        """The values that are kept.  after: what is done once a part is computed (BatchNorm's statistics).

        span: a part of the net; then the values that are there by then, and nothing that is asked for twice.
        """
        span = span or WHOLE
        values = self._begun(feeds, learned)
        late: dict[Place, Tensor] = {}
        for number, part in enumerate(self._lean if watch is None else self.parts):
            if span.last is not None and part.step > span.last:
                return {name: values[name] for name in self.kept if name in values}
            for operation in part.ahead:
                self._compute(operation, values)
            if part.step < span.first:
                self._held(part, values, span.held, watch)
            else:
                self._part(part, values, late, watch)
                after(part, values)
            for name in part.tops:
                if name in self._late:
                    late[self._late[name]] = values[name].detach()
            for name in self._done[number]:
                values.pop(name, None)
        for operation in self._rest:
            self._compute(operation, values)
        return {name: values[name] for name in self.kept if not span.first or name in values}

    @staticmethod
    def _held(part: Part, values: Values, held: Mapping[str, Tensor], watch: Watch | None) -> None:
        """What stands in the place of a part that the pass does not compute."""
        values.update((name, held[name]) for name in part.tops)
        if watch is not None:
            for index, name in enumerate(part.tops):
                watch.top(part.step, index, held[name])

    def last_bottom(self, feeds: Mapping[str, Tensor], learned: Callable[[Slot], Tensor], step: int) -> Tensor:
        """The last bottom of a step, and nothing behind it."""
        values = self._begun(feeds, learned)
        with torch.no_grad():
            for part in self.parts:
                for operation in part.ahead:
                    self._compute(operation, values)
                if part.step == step:
                    found = values[part.bottoms[-1]]
                    assert isinstance(found, Tensor)
                    return found
                for operation in part.operations:
                    self._compute(operation, values)
        raise AssertionError(step)

    def _begun(self, feeds: Mapping[str, Tensor], learned: Callable[[Slot], Tensor]) -> Values:
        values: Values = {**self._constants, **{name: self._placed(feeds[name]) for name in self._inputs}}
        values.update((name, learned(blob.slot)) for name, blob in self._learned.items())
        for operation in self._preparations:
            self._compute(operation, values)
        return values

    def _part(self, part: Part, values: Values, late: dict[Place, Tensor], watch: Watch | None) -> None:
        before = {name: values[name] for name in part.bottoms}
        if watch is not None:
            for index, name in enumerate(part.bottoms):
                values[name] = _seen(values[name], watch.bottom_gradient, part.step, index)
        own = self.owns.get(part.step)
        if own is None or not torch.is_grad_enabled():
            for operation in part.operations:
                self._compute(operation, values)
        else:
            bottoms = [self._full(values[name]) for name in part.bottoms]
            tops = _Own.apply(self, part, own, values, late, *bottoms)
            assert isinstance(tops, tuple)
            values.update(zip(part.tops, tops, strict=True))
        values.update((name, value) for name, value in before.items() if name not in part.tops)
        if watch is not None:
            for index, name in enumerate(part.tops):
                watch.top(part.step, index, values[name])
                values[name] = _seen(values[name], watch.top_gradient, part.step, index)

    def run(self, part: Part, values: Values, bottoms: Sequence[Tensor]) -> list[Tensor]:
        """The part's tops from these bottoms."""
        inner = {**values, **dict(zip(part.bottoms, bottoms, strict=True))}
        for operation in part.operations:
            self._compute(operation, inner)
        return [inner[name] for name in part.tops]

    def _compute(self, operation: Operation, values: Values) -> None:
        found = self._operations[operation.kind]([values[name] for name in operation.inputs], operation.attributes)
        outputs = [found] if isinstance(found, Tensor) else found
        values.update(zip(operation.outputs, outputs, strict=True))

    def _placed(self, tensor: Tensor) -> Tensor:
        """Floating numbers in the engine's precision; images with their channels last, where no order is asked for."""
        tensor = tensor.to(self.how.device, self.how.dtype if tensor.is_floating_point() else None)
        if tensor.ndim == 4 and not self.how.exact:
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    def _full(self, tensor: Tensor) -> Tensor:
        """Losses and other formulas of Caffe's are computed in full precision."""
        return tensor.to(self.how.dtype) if tensor.is_floating_point() else tensor

    def _last_uses(self, computed: set[str]) -> list[list[str]]:
        """After which part each value is needed no more."""
        last: dict[str, int] = {}
        for number, part in enumerate(self.parts):
            for operation in (*part.ahead, *part.operations):
                last.update((name, number) for name in (*operation.inputs, *operation.outputs) if name in computed)
            last.update((name, number) for name in (*part.bottoms, *part.tops) if name in computed)
        for operation in self._rest:
            last.update((name, len(self.parts)) for name in operation.inputs)
        found: list[list[str]] = [[] for _ in range(len(self.parts) + 1)]
        for name, number in last.items():
            if name not in self.kept:
                found[number].append(name)
        return found


def _seen(value: Tensor, by: Callable[[int, int, Tensor], None], step: int, index: int) -> Tensor:
    """The same value, whose gradient somebody looks at."""
    if not value.requires_grad:
        return value
    alias = value.view_as(value)
    alias.register_hook(lambda gradient: by(step, index, gradient))
    return alias


class _Own(torch.autograd.Function):  # type: ignore[misc]
    """A layer's values as its operations give them, its gradient as Caffe's Backward does."""

    @staticmethod
    def forward(
        ctx: Any, program: Program, part: Part, own: Own, values: Values, late: dict[Place, Tensor], *bottoms: Tensor
    ) -> tuple[Tensor, ...]:
        tops = program.run(part, values, bottoms)
        ctx.save_for_backward(*bottoms, *tops)
        ctx.how = own, late, len(bottoms)
        if len(tops) > 1:  # of SoftmaxWithLoss: Caffe gives no gradient to what it makes beside its loss
            ctx.mark_non_differentiable(*tops[1:])
        return tuple(tops)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        own, late, count = ctx.how
        saved = ctx.saved_tensors
        bottoms, tops = list(saved[:count]), list(saved[count:])
        for index, place in own.over.bottoms.items():
            bottoms[index] = late[place].reshape(bottoms[index].shape)
        for index, place in own.over.tops.items():
            tops[index] = late[place].reshape(tops[index].shape)
        found = own.backward(own.layer, bottoms, tops, gradients[0])
        return (None, None, None, None, None, *found, *[None] * (count - len(found)))
