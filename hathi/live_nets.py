"""The nets of a solver, live: blobs and learned blobs as NumPy arrays, passes one by one."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hathi.absent import NET, absent
from hathi.blobs import Array, Blob, Blobs, Layer
from pipeline.errors import NetError
from pipeline.nets.graph.lowered import Slot
from pipeline.nets.graph.plan import Place
from pipeline.nets.graph.saving import save
from pipeline.training import hdf5, weights
from pipeline.training.assembly import Live
from pipeline.training.data.fed import Input, Memory
from pipeline.training.network import Feeds, Network


@dataclass(frozen=True)
class Fed:
    """What a net's passes are fed.

    take: of the next pass, which goes through these layers (None: all).  drawn: of one behind the data layers.
    """

    take: Callable[[Collection[str] | None], Feeds]
    drawn: Callable[[Collection[str]], Feeds]


class Net:
    """A live net of a solver, with pycaffe's names.

    blobs: each blob by name.  params: the learned blobs of each layer that has some, by the layer's name.
    inputs: the tops of Input layers.  outputs: the blobs that no layer reads.  layer_names: in order.  layers: each
    with its type and learned blobs; layer_dict: the same by name.  bottom_names, top_names: blobs by layer.
    blob_loss_weights: what each blob adds to the loss, by its name.
    """

    def __init__(self, live: Live, fed: Fed, share: Callable[[Network], None], trains: bool) -> None:
        """share: takes over another net's blobs.  trains: it has gradients."""
        self._live, self._share, self._trains = live, share, trains
        self._feed, self._drawn = fed.take, fed.drawn
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
        specs = [step.layer.spec for step in plan.steps]
        self.layers = [Layer(one.name, one.type, self._blobs_of(number)) for number, one in enumerate(specs)]
        self.layer_dict = {one.name: one for one in self.layers}
        self.bottom_names = {one.name: list(one.bottom) for one in specs}
        self.top_names = {one.name: list(one.top) for one in specs}
        weighs = {one.blob: one.loss_weight for one in self._network.outputs}
        self.blob_loss_weights = {name: weighs.get(name, 0.0) for name in self.blobs}
        self._layer_names, self._blob_names = self.layer_names, list(self.blobs)
        self._begun = 0
        """The step with which the last forward pass began."""

    def _blobs_of(self, step: int) -> list[Blob]:
        return [self._learned(slot) for slot in self._graph.parameters.slots(step)]

    def __getattr__(self, name: str) -> Any:
        raise absent("a net of a solver", name, NET)

    def forward(
        self, blobs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **inputs: ArrayLike
    ) -> dict[str, Array]:
        """One pass: the next batch of the data layers, or what the Input layers hold.

        blobs: what is returned beside the outputs.  start: the layer with which it begins, on what the last pass left
        in the blobs, and what the program has written there; behind the data layers it takes no batch.  end: the layer
        after which it ends; then its tops are returned in place of the outputs, and blobs that no pass has reached are
        zeros.  inputs: values for Input layers, by top, of the top's shape.  Returns copies.  It draws (Dropout) and
        moves (BatchNorm) what a pass of training does.
        Raises `Error` for an unknown layer or blob, another shape, and data that cannot be read.
        """
        for top, values in inputs.items():
            if top not in self._fed:
                raise NetError(f"'{top}' is no input of the net {self.name}", f"inputs: {', '.join(self.inputs)}")
            self._fed[top].feed(top, np.asarray(values, np.float32))
        self._diffs = {}
        first = 0 if start is None else self._number(start)
        last = None if end is None else self._number(end)
        if last is not None and last < first:
            raise NetError(f"layer '{end}' stands before layer '{start}'", "", "a pass runs from start up to end")
        found = dict(self._network.ahead(self._fed_between(first, last), last, first).outputs)
        self._begun = first
        if last is not None:
            found = {name: self.blobs[name].data.copy() for name in self._tops(last)}
        return found | {name: self.blobs[name].data.copy() for name in blobs or ()}

    def _fed_between(self, first: int, last: int | None) -> Feeds:
        """What a pass through these steps is fed: a batch where a data layer is among them."""
        reached = None if last is None and not first else self.layer_names[first : None if last is None else last + 1]
        sources = {one.layer for one in self._live.sources}
        if not first or sources & set(self.layer_names[first:]):
            feeds = dict(self._feed(reached))
            passed = [name for name, place in self._graph.plan.inputs.items() if place.step < first]
            return {name: values for name, values in feeds.items() if name not in passed}
        return self._drawn(reached or ())

    def backward(
        self, diffs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **outputs: ArrayLike
    ) -> dict[str, Array]:
        """The backward pass of the last `forward`; gradients of learned blobs are added to those that are there.

        start: the layer from which it runs down; it begins with the `diff` of that layer's tops.  end: the layer with
        which it ends; then gradients of its bottoms are returned in place of those of the inputs.  outputs: gradients
        to begin with, by output blob, in place of the loss weight.  diffs: blobs whose gradients are returned as well.
        Returns copies; zeros where no gradient comes (a data layer's top without force_backward).
        Raises `Error` for a net that only tests, for an unknown layer or blob, without a `forward` before it, and where
        that one began behind the end.
        """
        if not self._trains:
            raise NetError(f"the net {self.name} only tests", "", "solver.net has gradients; test nets have none")
        seeds = {self._output(blob): np.asarray(values, np.float32) for blob, values in outputs.items()}
        last = None
        if start is not None:
            last = self._number(start)
            seeds |= {Place(last, top): self.blobs[name].diff for top, name in enumerate(self._tops(last))}
        first = 0 if end is None else self._number(end)
        if first < self._begun:
            begun = self.layer_names[self._begun]
            says = f"the last forward pass began with layer '{begun}', so nothing before it has a gradient"
            raise NetError(says, "", f"backward(end='{begun}'), or forward() before it")
        self._network.back(seeds, last, first)
        self._diffs = {}
        found = self.inputs if end is None else self.bottom_names[end]
        return {name: self.blobs[name].diff.copy() for name in (*found, *(diffs or ()))}

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

    def reshape(self) -> None:
        """Nothing is to be done: every shape follows from the inputs' with the next `forward`."""

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

    def save_hdf5(self, path: str | os.PathLike[str]) -> None:
        """Writes the learned blobs in HDF5's form, whatever the file is called."""
        hdf5.write_net(Path(path), self._graph, self._network.weights, None)

    def load_hdf5(self, path: str | os.PathLike[str]) -> None:
        """As `copy_from`."""
        self.copy_from(path)

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
        reshape = partial(self._fed[name].reshape, name) if name in self._fed else None
        return Blob(lambda: self._data(name), lambda: self._gradient(name), reshape)

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
