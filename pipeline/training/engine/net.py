"""One phase of a net over live learned blobs, in torch: what a solver trains and tests (training/network.Network)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import NetError
from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.nets.graph.lowered import Shape, Slot
from pipeline.nets.graph.plan import Place
from pipeline.nets.layers.selecting import Filter
from pipeline.training.engine import watching
from pipeline.training.engine.devices import sent
from pipeline.training.engine.ends import ends, value_of
from pipeline.training.engine.kept import Both, KeptPass, no_pass
from pipeline.training.engine.learned import learned_blobs, shared
from pipeline.training.engine.lowering import Part, Trained, lower
from pipeline.training.engine.needs import LayerNeeds
from pipeline.training.engine.program import Arithmetic, Own, Program, Span, Values, Watch
from pipeline.training.engine.repeatable import repeatable
from pipeline.training.engine.shaped import Shaped, Shapes, demand_same_blobs
from pipeline.training.engine.stopwatch import Stopwatch
from pipeline.training.network import (
    Draw,
    Feeds,
    LearnedBlob,
    Mask,
    MovingSums,
    Network,
    NotFinite,
    Output,
    Pass,
    Watched,
)
from pipeline.training.predictions.judged import Judged
from pipeline.training.predictions.judged import judged as judged_of

Array = NDArray[np.float32]


class TorchNetwork:
    """See training/network.Network.  losses: of each top with a loss weight, in order."""

    def __init__(
        self,
        graph: CaffeGraph,
        how: Arithmetic,
        layers: Sequence[LayerNeeds],
        tensors: Mapping[Slot, Tensor],
        owns: Mapping[int, Own] | None,
        force_backward: bool,
    ) -> None:
        """layers: what a backward pass computes.  owns: whose gradient is Caffe's own; None: the net only tests."""
        self.graph, self.how = graph, how
        self.inputs: dict[str, Shape] = dict(graph.inputs)
        self.learned: Sequence[LearnedBlob] = learned_blobs(graph)
        self._layers, self._tensors, self._owns, self._force = layers, dict(tensors), owns, force_backward
        self._ends = ends(graph, layers)
        self.outputs: Sequence[Output] = self._ends.outputs
        where = judged_of(graph) if owns is None else ""
        self._told = where.beside(graph) if isinstance(where, Judged) else ()
        self._filters = [n for n, step in enumerate(graph.plan.steps) if isinstance(step.layer, Filter)]
        self._compiled: dict[tuple[int, ...], tuple[Trained, Program]] = {}
        self._replaced = _replaced(graph)
        self._kept: KeptPass | None = None
        self._slope: Tensor | None = None
        self._shaped: Shaped[TorchNetwork] = Shaped()
        self._make: Callable[[TorchNetwork, Shapes], TorchNetwork] | None = None
        self._ahead: TorchNetwork | None = None
        """The net in other shapes that has made the last pass `ahead`; None: this one has."""
        first, _ = self._compile(tuple(graph.declared[self._selector(number)][0] for number in self._filters))
        self.draws: Sequence[Draw] = first.draws
        moved = [part.statistics for part in first.parts if part.statistics is not None]
        self.moving: Sequence[MovingSums] = [MovingSums(one.blobs, one.fraction) for one in moved]
        self._states = {
            state.name: torch.zeros(state.shape, device=how.device, dtype=how.dtype) for state in first.states
        }
        self._states |= {one.state: torch.tensor(one.weight, dtype=how.dtype, device=how.device)
                         for one in self._ends.losses if one.state}  # fmt: skip

    @property
    def masks(self) -> list[Mask]:
        return [draw for draw in self.draws if isinstance(draw, Mask)]

    def reshapes(self, make: Callable[[TorchNetwork, Shapes], TorchNetwork]) -> None:
        """From now on the net takes inputs of other shapes, as Caffe's Reshape does.  make: a net like it, of those."""
        self._make = make

    def like(self, graph: CaffeGraph, layers: Sequence[LayerNeeds], owns: Mapping[int, Own] | None) -> TorchNetwork:
        """The same net where its blobs have other shapes: its learned blobs and what is kept of a pass are this one's.

        Raises NetError where a learned blob would have another shape, and for a net with hidden states.
        """
        demand_same_blobs(self.graph, graph)
        if self._states:
            hint = "give images a crop_size"
            raise NetError(f"the net {graph.name} carries numbers from pass to pass, of one shape", "", hint)
        found = TorchNetwork(graph, self.how, layers, self._tensors, owns, self._force)
        found._tensors = self._tensors
        return found

    def of(self, feeds: Feeds) -> TorchNetwork:
        """The net that takes these feeds: this one, or this one in other shapes."""
        shapes = {name: feeds[name].shape for name in self.inputs if name in feeds}
        if self._make is None or all(shape == self.inputs[name] for name, shape in shapes.items()):
            return self
        found = self._shaped.of(shapes, partial(self._make, self))
        found._kept = self._kept
        return found

    def draws_of(self, feeds: Feeds) -> Sequence[Draw]:
        return self.of(feeds).draws

    def forward(self, feeds: Feeds) -> Pass:
        with torch.no_grad():
            return self.of(feeds)._pass(feeds, None)[0]

    def backward(self, feeds: Feeds) -> Pass:
        if (other := self.of(feeds)) is not self:
            return other.backward(feeds)
        found, slope = self._pass(feeds, None)
        self._back(slope)
        return found

    def keep(self) -> KeptPass:
        self._kept = self._kept or KeptPass(self.graph)
        return self._kept

    def ahead(self, feeds: Feeds, last: int | None = None, first: int = 0) -> Pass:
        kept, span = self.keep(), Span(last, first)
        other = self.of(feeds)
        self._ahead = None if other is self else other
        if self._ahead is not None:
            return self._ahead.ahead(feeds, last, first)
        if first:
            net, _ = next(iter(self._compiled.values()))
            held = {
                name: kept.held(place).to(self.how.device) for place, name in net.tops.items() if place.step < first
            }
            given = {name: self.array(kept.held(place)) for name, place in self.graph.plan.inputs.items()}
            feeds, span = {**given, **feeds}, replace(span, held=held)
        with torch.no_grad() if self._owns is None else nullcontext():
            found, self._slope = self._pass(feeds, None, span)
        return found

    def back(self, seeds: Mapping[Place, Array], last: int | None = None, first: int = 0) -> None:
        if self._ahead is not None:
            return self._ahead.back(seeds, last, first)
        slope, self._slope = self._slope, None
        if slope is None and not seeds:
            raise no_pass()
        if not seeds and last is None and not first:
            self._back(slope)
        else:
            steps, kept = len(self.graph.plan.steps), self.keep()
            self._overwrite()
            ends = [*self._learned_from(first), *kept.down_to(first)] if first else None
            kept.back(self._ends.losses, seeds, steps if last is None else last, ends)
            self.keep().settle()

    def _learned_from(self, first: int) -> list[Tensor]:
        """What steps from this one on learn.  Raises NetError where a step before it learns the same."""
        found = dict.fromkeys(owner for slot, owner in self.graph.parameters.owners.items() if slot.step >= first)
        for slot, owner in self.graph.parameters.owners.items():
            if slot.step < first and owner in found:
                layer = self.graph.plan.steps[slot.step].layer.name
                raise NetError(f"layer '{layer}' shares a blob with a layer behind the end", "", "go back to its start")
        return [self._tensors[owner] for owner in found if self._tensors[owner].requires_grad]

    def clocked(self, feeds: Feeds, watch: Stopwatch) -> Pass:
        """`backward`, while `watch` measures its layers."""
        if (other := self.of(feeds)) is not self:
            return other.clocked(feeds, watch)
        watch.begin()
        found, slope = self._pass(feeds, watch)
        watch.turn()
        self._back(slope)
        watch.end()
        return found

    def share(self, other: Network) -> None:
        for slot, theirs in shared(self.graph, other.graph).items():
            mine, live = self._tensors[slot], other.tensor(theirs)
            self._tensors[slot] = live.detach().view(mine.shape).requires_grad_(mine.requires_grad)

    def watched(self, feeds: Feeds, gradients: bool) -> Watched:
        if (other := self.of(feeds)) is not self:
            return other.watched(feeds, gradients)
        seen = watching.Watcher()
        with nullcontext() if gradients else torch.no_grad():
            result, slope = self._pass(feeds, seen)
        lines = watching.forward_lines(self.graph, self._layers, seen, self._weight_mean)
        if not gradients:
            return Watched(result, lines)
        self._back(slope)
        back = watching.backward_lines(self.graph, self._layers, seen, self._gradient_mean)
        return Watched(result, lines, back, self._norms())

    def first_not_finite(self, feeds: Feeds) -> NotFinite | None:
        if (other := self.of(feeds)) is not self:
            return other.first_not_finite(feeds)
        for one in self.learned:
            if not bool(torch.isfinite(self._tensors[one.slot].detach()).all()):
                return NotFinite(one.layer, str(one.slot.blob), False)
        with self.unchanged():
            try:
                _, slope = self._pass(feeds, watching.Finder())
                self._back(slope)
                return self._gradient_not_finite()
            except watching.NotFiniteFound as found:
                spec = self.graph.plan.steps[found.step].layer.spec
                names = spec.bottom if found.gradient else spec.top
                return NotFinite(spec.name, [*names, "(automatic)"][found.number], found.gradient)

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """What passes change within is as before afterwards; gradients begin at 0 within."""
        kept = [(tensor, tensor.grad, tensor.detach().clone()) for tensor in self._tensors.values()]
        states = dict(self._states)
        for tensor, _, _ in kept:
            tensor.grad = None
        try:
            yield
        finally:
            self._states = states
            with torch.no_grad():
                for tensor, gradient, values in kept:
                    tensor.grad = gradient
                    tensor.copy_(values)

    def clear(self) -> None:
        for tensor in self._tensors.values():
            tensor.grad = None

    def tensor(self, slot: Slot) -> Tensor:
        return self._tensors[slot]

    def gradient_tensor(self, slot: Slot) -> Tensor:
        tensor = self._tensors[slot]
        if tensor.grad is None:
            if not tensor.requires_grad:
                return torch.zeros_like(tensor)
            tensor.grad = torch.zeros_like(tensor)
        return tensor.grad

    def take_gradient(self, slot: Slot) -> Array:
        found: Array = self.gradient_tensor(slot).numpy()
        self._tensors[slot].grad = None
        return found

    def over(self, memory: Array) -> Tensor:
        return torch.from_numpy(memory)

    def place(self, slot: Slot, memory: Array) -> None:
        mine = self._tensors[slot]
        there = self.over(memory).view(mine.shape)
        there.copy_(mine.detach())
        self._tensors[slot] = there.requires_grad_(mine.requires_grad)

    def place_gradient(self, slot: Slot, memory: Array) -> None:
        self._tensors[slot].grad = self.over(memory).view(self._tensors[slot].shape)

    def weights(self, slot: Slot) -> Array:
        return self.array(self._tensors[slot])

    def gradient(self, slot: Slot) -> Array:
        return self.array(self.gradient_tensor(slot))

    def load(self, slot: Slot, values: Array) -> None:
        with torch.no_grad():
            self._tensors[slot].copy_(torch.from_numpy(np.array(values)).reshape(self._tensors[slot].shape))

    def carried(self) -> dict[str, Array]:
        return {name: self.array(state) for name, state in self._states.items()}

    def carry(self, states: Mapping[str, Array]) -> None:
        if states.keys() != self._states.keys():
            raise NetError(
                "these are the hidden states of another net",
                f"it has {', '.join(self._states) or 'none'}; given are {', '.join(states) or 'none'}",
            )
        for name, values in states.items():
            self._states[name] = torch.from_numpy(np.array(values)).to(self._states[name])

    def array(self, tensor: Tensor, into: Array | None = None) -> Array:
        found = np.empty(tuple(tensor.shape), np.float32) if into is None else into  # NumPy asks for large pages
        torch.from_numpy(found).copy_(tensor.detach())
        return found

    def _pass(self, feeds: Feeds, watch: Watch | None, span: Span | None = None) -> tuple[Pass, Tensor | None]:
        """A forward pass, of a part of the net, and what its gradients begin with."""
        given = self._fed(feeds)
        if self._kept is not None:
            self._kept.begin(self.graph)
            watch = self._kept if watch is None else Both(self._kept, watch)
        if watch is not None:
            for name, place in self.graph.plan.inputs.items():
                watch.top(place.step, place.top, given[f"in:{name}"])
        with repeatable(self.how.device), self._precision():
            net, program = self._compile(self._counts(given))
            found = program(given, self._live, self._take_up, watch, span)
            loss, slope = self._loss(net, found)
            names = {one.blob: self._value(net, one) for one in self.outputs}
            told = {blob: net.graph.outputs[blob].name for blob in self._told}
            outputs = {blob: self.array(found[name]) for blob, name in names.items() if name in found}
            judged = {blob: self.array(found[name]) for blob, name in told.items() if name in found}
            for state in net.states:
                if state.after in found:
                    self._states[state.name] = found[state.after].detach().to(self.how.dtype)
        return Pass(loss, outputs, judged), slope

    def _back(self, slope: Tensor | None) -> None:
        self._overwrite()
        if slope is not None and slope.requires_grad:
            with repeatable(self.how.device):
                slope.backward()
        if self._kept is not None:
            self._kept.settle()

    def _overwrite(self) -> None:
        """Forgets what this backward pass writes anew: gradients of losses that are read, and of Parameter layers.

        A Parameter layer's top and blob have one gradient in Caffe, and who reads the top does not add to it.
        """
        self._states.update({one.state: torch.zeros_like(self._states[one.state])
                             for one in self._ends.losses if one.state})  # fmt: skip
        for slot in self._replaced:
            self._tensors[slot].grad = None

    def _loss(self, net: Trained, found: Values) -> tuple[float, Tensor | None]:
        total: Tensor | None = None
        slope: Tensor | None = None
        for one in self._ends.losses:
            if (name := value_of(net, one)) not in found:
                continue  # of a pass that ends before it
            value = found[name].to(self.how.dtype).sum()
            weighted = value * (self._states[one.state] if one.state else one.weight)
            total = weighted if total is None else total + weighted
            if one.slope:
                slope = value * one.slope if slope is None else slope + value * one.slope
            elif found[name].requires_grad:
                found[name].register_hook(partial(self._states.__setitem__, one.state))
        return 0.0 if total is None else float(total.detach()), slope

    def _take_up(self, part: Part, values: Values) -> None:
        """BatchNorm's own blobs: sums that fade, and how much they weigh."""
        if part.statistics is None:
            return
        p = part.statistics
        with torch.no_grad():
            mean, variance, count = (self._tensors[slot] for slot in p.blobs)
            count.mul_(p.fraction).add_(1)
            mean.mul_(p.fraction).add_(values[p.mean])
            variance.mul_(p.fraction).add_(values[p.variance])

    def _compile(self, counts: tuple[int, ...]) -> tuple[Trained, Program]:
        """For so many items that each Filter layer selects; the last one is kept."""
        if counts not in self._compiled:
            names = [self.graph.plan.steps[number].layer.name for number in self._filters]
            shared = [one.blob for one in self._ends.losses if self.graph.plan.steps[one.place.step].layer.is_shared()]
            blobs = [*(self._ends.sources[one.blob] for one in self.outputs), *shared, *self._told]
            layers = None if self._owns is None else self._layers
            net = lower(self.graph, layers, list(dict.fromkeys(blobs)), dict(zip(names, counts, strict=True)))
            kept = {value_of(net, one) for one in self._ends.losses} | {state.after for state in net.states}
            kept |= {self._value(net, one) for one in self.outputs}
            kept |= {net.graph.outputs[blob].name for blob in self._told}
            self._compiled = {counts: (net, Program(net, self.how, self._owns or {}, kept))}
        return self._compiled[counts]

    def _value(self, net: Trained, output: Output) -> str:
        return net.graph.outputs[self._ends.sources[output.blob]].name

    def _counts(self, given: Mapping[str, Tensor]) -> tuple[int, ...]:
        """How many items each Filter layer selects of what is fed: what follows it has shapes only then."""
        found: list[int] = [self.graph.declared[self._selector(number)][0] for number in self._filters]
        for index, number in enumerate(self._filters):
            _, program = self._compile(tuple(found))
            chosen = program.last_bottom(given, self._live, number)
            found[index] = int(torch.count_nonzero(chosen))
            if not found[index]:
                layer = self.graph.plan.steps[number].layer
                raise layer.refuse("selects no item", "what follows it would have no values")
        return tuple(found)

    def _selector(self, number: int) -> Place:
        return self.graph.plan.steps[number].reads[-1].view

    def _fed(self, feeds: Feeds) -> dict[str, Tensor]:
        wanted = {**self.inputs, **{draw.feed: draw.shape for draw in self.draws}}
        given: dict[str, Tensor] = {}
        for name, shape in wanted.items():
            if name not in feeds:
                raise NetError(f"'{name}' is not fed", f"its shape is {shape}")
            array = feeds[name]
            if array.shape != shape:
                raise NetError(f"'{name}' is fed with the shape {array.shape}", f"its shape is {shape}")
            tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
            given[f"in:{name}"] = sent(tensor, self.how.device, self.how.dtype).requires_grad_(self._force)
        net, _ = next(iter(self._compiled.values()))
        given.update((f"in:{state.feed}", self._states[state.name]) for state in net.states)
        return given

    def _live(self, slot: Slot) -> Tensor:
        return self._tensors[slot]

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast(self.how.device.type, torch.bfloat16) if self.how.half else nullcontext()

    def _weight_mean(self, slot: Slot) -> float:
        return watching.mean(self._tensors[self.graph.parameters.owners[slot]])

    def _gradient_mean(self, slot: Slot) -> float:
        gradient = self._tensors[self.graph.parameters.owners[slot]].grad
        return 0.0 if gradient is None else watching.mean(gradient)

    def _norms(self) -> tuple[float, float, float, float]:
        """Net::Backward: L1 of all values and of all gradients, L2 of both."""
        tensors = [self._tensors[one.slot].detach() for one in self.learned]
        gradients = [self.gradient_tensor(one.slot) for one in self.learned]
        return watching.norms(tensors, gradients)

    def _gradient_not_finite(self) -> NotFinite | None:
        for one in reversed(self.learned):
            gradient = self._tensors[one.slot].grad
            if gradient is not None and not bool(torch.isfinite(gradient).all()):
                return NotFinite(one.layer, str(one.slot.blob), True)
        return None


def _replaced(graph: CaffeGraph) -> list[Slot]:
    """The blobs of Parameter layers, save those that other layers share."""
    owners = Counter(graph.parameters.owners.values())
    kinds = [step.layer.spec.type for step in graph.plan.steps]
    return [slot for slot, count in owners.items() if count == 1 and kinds[slot.step] == "Parameter"]
