"""`caffe test`: the mean of each output of a net over so many batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.codec import caffe_pb2
from pipeline.errors import SolverError
from pipeline.nets.caffe import prototxt
from pipeline.training import log, weights
from pipeline.training.assembly import How
from pipeline.training.draws.draws import draws
from pipeline.training.engine.starting import start
from pipeline.training.feeding import Feeding
from pipeline.training.network import Output
from pipeline.training.setting_up import set_up
from pipeline.training.solver import Flags, merged
from pipeline.training.testing import Scores

_MODEL = "give the .prototxt of a net with a data layer for phase TEST, then its weights"


@dataclass(frozen=True)
class Tested:
    """loss: the mean of the net's loss.  outputs, means: of each output blob, flat."""

    loss: float
    outputs: tuple[Output, ...]
    means: dict[str, NDArray[np.float32]]


def evaluate(net: Path, given: Path, iterations: int, flags: Flags, say: log.Log, how: How) -> Tested:
    """Runs the net in phase TEST with the weights of `given`; `say` takes Caffe's lines.

    how: its threads, and whether sums have Caffe's order; a test computes in float32 on the CPU.

    Raises NetError, SolverError and FormatError for a net, weights or data that cannot be used.
    """
    start(how.threads or int(how.exact))
    from pipeline.training.engine import building
    from pipeline.training.engine.alone import alone

    state = caffe_pb2.NetState(level=flags.level, stage=flags.stages)
    if not net.exists():
        raise SolverError(f"the net {net} cannot be read", "No such file or directory", _MODEL)
    text = merged(prototxt.read(net), f"net file: {net}", caffe_pb2.TEST, state)
    drawn = draws(-1, 0)
    made = set_up(text, drawn, lambda says: None)

    def warn(says: str) -> None:
        say("net.cpp:744", says, "W")

    network = alone(made.graph, replace(building.CPU, exact=how.exact), made.values)
    building.reshapes(network, made.reshaped)
    for slot, values in weights.taken(given, made.graph, lambda says: say("net.cpp:744", says), warn):
        network.load(slot, values)
    say("caffe.cpp:281", f"Running for {iterations} iterations.")
    scores = Scores(network.outputs)
    feeding = Feeding(made.sources, network.draws_of, drawn, 0, 2)
    try:
        for number in range(iterations):
            result = network.forward(feeding.take())
            scores.add(result)
            for output in network.outputs:
                for value in result.outputs[output.blob].ravel()[: log.MOST]:
                    say("caffe.cpp:304", f"Batch {number}, {output.blob} = {log.number(float(value))}")
    finally:
        feeding.close()
        made.close()
    found = Tested(scores.loss(), tuple(network.outputs), scores.means())
    say("caffe.cpp:309", f"Loss: {log.number(found.loss)}")
    for output in found.outputs:
        for value in found.means[output.blob][: log.MOST]:
            say("caffe.cpp:321", f"{output.blob} = {log.named(value, output.loss_weight)}")
    return found
