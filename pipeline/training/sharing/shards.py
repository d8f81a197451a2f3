"""A solver whose batches are cut into shards: each is computed by itself, as Caffe computes a batch of iter_size.

The result depends on the number of shards, and not on how many processes compute them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pipeline.amounts import counted
from pipeline.codec import caffe_pb2
from pipeline.errors import SolverError
from pipeline.nets.caffe.upgrade import upgrade
from pipeline.nets.graph import rules
from pipeline.training.data.make import is_data
from pipeline.training.network import Network
from pipeline.training.solver import NetText, Solver

_PARAMETERS = {"Data": "data_param", "ImageData": "image_data_param", "HDF5Data": "hdf5_data_param"}


def cut(read: Solver, shards: int) -> Solver:
    """The solver whose training net takes a shard in place of a batch: iter_size passes each, `shards` in an iteration.

    Shard v of a batch has its examples v * size to (v + 1) * size - 1, where size is batch_size / shards.
    Raises SolverError for a batch that cannot be cut, by its layer.
    """
    if shards == 1:
        return read
    update = replace(read.update, iter_size=read.update.iter_size * shards)
    return replace(read, net=_cut(read.net, shards), update=update, shards=shards)


def _cut(net: NetText, shards: int) -> NetText:
    text = caffe_pb2.NetParameter()
    text.CopyFrom(upgrade(net.text, lambda says: None))
    kept = rules.keep(text, net.state)  # a test's data layer may have the same name
    del text.layer[:]
    text.layer.extend(kept)
    for layer in text.layer:
        if not is_data(layer.type):
            continue
        if layer.type not in _PARAMETERS:
            raise SolverError(
                f"layer '{layer.name}' ({layer.type}) cannot be cut into shards",
                f"{counted(shards, 'shard')} are wanted, of a batch that files hold",
                f"give the net a data layer of type {', '.join(_PARAMETERS)}, or leave --shards out",
            )
        given = getattr(layer, _PARAMETERS[layer.type])
        if given.batch_size % shards:
            fits = [str(count) for count in range(2, given.batch_size + 1) if given.batch_size % count == 0]
            raise SolverError(
                f"layer '{layer.name}': a batch of {given.batch_size} cannot be cut into {counted(shards, 'shard')}",
                "every shard has the same number of examples",
                f"give --shards {', '.join(fits[:8])}, or another batch_size" if fits else "give another batch_size",
            )
        given.batch_size //= shards
    return replace(net, text=text)


def batch_of(net: NetText) -> int:
    """The examples that a pass of its first data layer takes; 0: no layer says it."""
    for layer in net.text.layer:
        if layer.type in _PARAMETERS:
            return int(getattr(layer, _PARAMETERS[layer.type]).batch_size)
    return 0


def refuse_coupled(net: Network) -> None:
    """Raises SolverError for a net whose passes follow from each other, so that nobody can compute one by itself."""
    for says in _coupled(net):
        raise SolverError(says, "shards are computed by themselves, at the same time", "leave --shards out")


def _coupled(net: Network) -> Iterator[str]:
    if carried := net.carried():
        yield f"the net {net.graph.name} carries numbers from pass to pass: {', '.join(sorted(carried))}"
