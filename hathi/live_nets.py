"""The nets of a solver, live: blobs and learned blobs as NumPy arrays, passes one by one."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import NetError
from pipeline.nets.graph.lowered import Shape, Slot
from pipeline.nets.graph.plan import Place
from pipeline.nets.graph.saving import save
from pipeline.training import hdf5, weights
from pipeline.training.assembly import Live
from pipeline.training.data.fed import Input, Memory
from pipeline.training.network import Feeds, Network

Array = NDArray[np.float32]
Feed = Callable[[Collection[str] | None], Feeds]
"""Gives what the next pass is fed that goes through these layers (None: all)."""


class Blob:
    """A blob of a net: `data` and `diff`, float32 arrays of its shape.

    Of a learned blob (`net.params`), both are the live numbers: what is written there, the net computes with.  Its
    `diff` is live until the next step or `clear_param_diffs`; ask for it anew after that.
    Of any other blob (`net.blobs`), `data` is what the last pass left there, and `diff` the gradient that the last
    backward pass left.  What is written into the `data` of an Input layer's top, the next pass is fed; what is written
    into the `diff` of a top, `backward(start=...)` begins with.
    """

    def __init__(self, data: Callable[[], Array], diff: Callable[[], Array]) -> None:
        self._data, self._diff = data, diff

    @property
    def data(self) -> Array:
        return self._data()

    @property
    def diff(self) -> Array:
        return self._diff()

    @property
    def shape(self) -> Shape:
        return self.data.shape

    @property
    def count(self) -> int:
        return self.data.size


class Blobs(Mapping[str, Blob]):
    """A net's blobs by name, in the order of its layers."""

    def __init__(self, names: Sequence[str], make: Callable[[str], Blob]) -> None:
        self._names, self._make = list(names), make

    def __getitem__(self, name: str) -> Blob:
        if name not in self._names:
            raise KeyError(f"the net has no blob {name!r}; it has: {', '.join(self._names)}")
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Net:
    """A live net of a solver, with pycaffe's names.

    blobs: each blob by name.  params: the learned blobs of each layer that has some, by the layer's name.
    inputs: the tops of Input layers.  outputs: the blobs that no layer reads.  layer_names: in order.
    """

    def __init__(self, live: Live, feed: Feed, share: Callable[[Network], None], trains: bool) -> None:
        """share: takes over another net's blobs.  trains: it has gradients."""
        self._live, self._feed, self._share, self._trains = live, feed, share, trains
        self._network, self._graph = live.network, live.graph
        self._last = self._network.keep()
        self._diffs: dict[str, Array] = {}
        self._fed = {top: one for one in live.sources if isinstance(one, Input) for top in one.values}
        plan = self._graph.plan
        self.name = self._graph.name
        self.layer_names = [step.layer.name for step in plan.steps]
        self.inputs = list(self._fed)
        self.outputs = [one.blob for one in self._network.outputs]
        self.blobs: Mapping[str, Blob] = Blobs(list(plan.blobs), self._blob)
        self.params: dict[str, list[Blob]] = {}
        for number, step in enumerate(plan.steps):
            slots = self._graph.parameters.slots(number)
            if slots:
                self.params.setdefault(step.layer.name, [self._learned(slot) for slot in slots])

    def forward(
        self, blobs: Sequence[str] | None = None, end: str | None = None, **inputs: ArrayLike
    ) -> dict[str, Array]:
        """One pass: the next batch of the data layers, or what the Input layers hold.

        blobs: what is returned beside the outputs.  end: the layer after which it ends; then its tops are returned in
        place of the outputs, and blobs that it does not reach are zeros.  inputs: values for Input layers, by top, of
        the top's shape.  Returns copies.  It draws (Dropout) and moves (BatchNorm) what a pass of training does.
        Raises `Error` for an unknown layer or blob, another shape, and data that cannot be read.
        """
        _refuse_part("forward", "start", inputs)
        for top, values in inputs.items():
            if top not in self._fed:
                raise NetError(f"'{top}' is no input of the net {self.name}", f"inputs: {', '.join(self.inputs)}")
            self._fed[top].feed(top, np.asarray(values, np.float32))
        self._diffs = {}
        last = None if end is None else self._number(end)
        reached = None if last is None else self.layer_names[: last + 1]
        found = dict(self._network.ahead(self._feed(reached), last).outputs)
        if last is not None:
            found = {name: self.blobs[name].data.copy() for name in self._tops(last)}
        return found | {name: self.blobs[name].data.copy() for name in blobs or ()}

    def backward(
        self, diffs: Sequence[str] | None = None, start: str | None = None, **outputs: ArrayLike
    ) -> dict[str, Array]:
        """The backward pass of the last `forward`; gradients of learned blobs are added to those that are there.

        start: the layer from which it runs down; it begins with the `diff` of that layer's tops.  outputs: gradients
        to begin with, by output blob, in place of the loss weight.  diffs: blobs whose gradients are returned, beside
        those of the inputs.  Returns copies; zeros where no gradient comes (a data layer's top without force_backward).
        Raises `Error` for a net that only tests, for an unknown layer or blob, and without a `forward` before it.
        """
        _refuse_part("backward", "end", outputs)
        if not self._trains:
            raise NetError(f"the net {self.name} only tests", "", "solver.net has gradients; test nets have none")
        seeds = {self._output(blob): np.asarray(values, np.float32) for blob, values in outputs.items()}
        last = None
        if start is not None:
            last = self._number(start)
            seeds |= {Place(last, top): self.blobs[name].diff for top, name in enumerate(self._tops(last))}
        self._network.back(seeds, last)
        self._diffs = {}
        return {name: self.blobs[name].diff.copy() for name in (*self.inputs, *(diffs or ()))}

    def clear_param_diffs(self) -> None:
        """Sets the gradients of all learned blobs to 0."""
        self._network.clear()

    def set_input_arrays(self, data: ArrayLike, labels: ArrayLike) -> None:
        """Gives images (n, channels, height, width) and labels (n,) to the net's MemoryData layer.

        n is a multiple of its batch_size; the next batch begins with the first.  Raises `Error` where it has none.
        """
        memory = next((one for one in self._live.sources if isinstance(one, Memory)), None)
        if memory is None:
            raise NetError(f"the net {self.name} has no MemoryData layer", "", "forward(data=...) feeds Input layers")
        memory.give(np.asarray(data, np.float32), np.asarray(labels, np.float32))

    def share_with(self, other: Net) -> None:
        """Takes over the learned blobs of `other`: layers of one name have one memory from now on, gradients apart.

        Raises `Error` for a layer of one name with blobs of another shape.
        """
        self._share(other._network)

    def copy_from(self, path: str | os.PathLike[str]) -> None:
        """Takes weights of a .caffemodel, of either form: layers are matched by name, others keep theirs.

        Warns where no layer has the name of one of the net's, so that nothing is taken.
        """

        def warn(says: str) -> None:
            warnings.warn(says, stacklevel=3)

        for slot, values in weights.taken(Path(path), self._graph, lambda says: None, warn):
            self._network.load(slot, values)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a .caffemodel, in HDF5's form where the name ends in .h5: whole or not at all."""
        target = Path(path)
        if target.suffix == ".h5":
            hdf5.write_net(target, self._graph, self._network.weights, None)
        else:
            save(target, self._graph, self._network.weights)

    def _number(self, layer: str) -> int:
        if layer not in self.layer_names:
            raise NetError(f"the net has no layer '{layer}'", f"it has: {', '.join(self.layer_names)}")
        return self.layer_names.index(layer)

    def _tops(self, number: int) -> list[str]:
        return list(self._graph.plan.steps[number].layer.spec.top)

    def _output(self, blob: str) -> Place:
        if blob not in self.outputs:
            raise NetError(f"'{blob}' is no output of the net", f"it has: {', '.join(self.outputs)}", "use start=LAYER")
        return self._graph.plan.read(blob).version

    def _blob(self, name: str) -> Blob:
        return Blob(lambda: self._data(name), lambda: self._gradient(name))

    def _data(self, name: str) -> Array:
        if name in self._fed:
            return self._fed[name].values[name]
        found = self._last.value(name)
        return self._zeros(name) if found is None else found

    def _gradient(self, name: str) -> Array:
        if name not in self._diffs:
            found = self._last.gradient(name)
            self._diffs[name] = self._zeros(name) if found is None else found.copy()
        return self._diffs[name]

    def _zeros(self, name: str) -> Array:
        return np.zeros(self._graph.shapes.get(name, ()), np.float32)

    def _learned(self, slot: Slot) -> Blob:
        parameters, network = self._graph.parameters, self._network
        owner, shape = parameters.owners[slot], parameters.shapes[slot]

        def view(tensor: Any) -> Array:
            array: Array = tensor.detach().numpy()
            return array.reshape(shape)

        return Blob(lambda: view(network.tensor(owner)), lambda: view(network.gradient_tensor(owner)))


def _refuse_part(what: str, name: str, given: Mapping[str, object]) -> None:
    if name in given:
        raise NetError(
            f"{what}({name}=...) is not supported",
            "a pass begins with the data, and goes back to where nothing learns any more",
            "net.blobs has the values and gradients of every layer after a pass",
        )
