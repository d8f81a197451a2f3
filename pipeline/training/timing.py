"""`caffe time`: how long each layer of a net takes, forward and backward, on the average."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.codec import caffe_pb2
from pipeline.errors import SolverError
from pipeline.nets.caffe import prototxt
from pipeline.training import log, solver
from pipeline.training.assembly import How, arithmetic
from pipeline.training.draws.draws import draws
from pipeline.training.engine.starting import start
from pipeline.training.feeding import Feeding
from pipeline.training.setting_up import SetUp, set_up
from pipeline.training.solver import Flags, NetText

Say = Callable[[str, str], None]
_A_SOLVER = re.compile(r"(?:^|[\s}\"])(?:net|train_net|net_param|train_net_param|base_lr|lr_policy|max_iter)\s*[:{]")
"""Fields that a solver has, and no net at any depth."""


@dataclass(frozen=True, slots=True)
class LayerTime:
    """The averages of a layer, in seconds."""

    name: str
    forward: float
    backward: float


@dataclass(frozen=True, slots=True)
class Times:
    """Averages over the iterations, in seconds.  layers: in order, automatic Split layers among them.

    forward: of a pass, with the wait for its data.  both: forward and backward.
    """

    iterations: int
    layers: tuple[LayerTime, ...]
    forward: float
    backward: float
    both: float


def measure(
    path: Path, iterations: int, flags: Flags, how: How, say: Say, now: Callable[[], float] = time.perf_counter
) -> Times:
    """Times the net at `path`, or the training net of the solver there, in phase TRAIN; `say` hears Caffe's lines.

    A layer that shares its bottom's memory (Split, Flatten, Reshape) computes nothing and takes no time.  Gradients
    that a training does not need are not computed.  now: seconds.
    Raises NetError, SolverError and FormatError for a net or data that cannot be used.
    """
    start(how.threads or int(how.exact))
    from pipeline.training.engine import building
    from pipeline.training.engine.stopwatch import Stopwatch

    say("caffe.cpp:343", "Use CPU.")
    text = net_of(path, flags)
    drawn = draws(-1, 0)
    made = set_up(text, drawn, lambda says: None)
    feeding: Feeding | None = None
    try:
        wanted = building.Wanted(text.text.force_backward, how.as_caffe)
        network = building.build(made.graph, arithmetic(how, None), wanted, made.values)
        building.reshapes(network, made.reshaped, wanted)
        feeding = Feeding(made.sources, network.draws_of, drawn, 0, 2)
        say("caffe.cpp:352", "Performing Forward")
        first = network.backward(feeding.take())
        say("caffe.cpp:357", f"Initial loss: {log.number(first.loss)}")
        say("caffe.cpp:358", "Performing Backward")
        say("caffe.cpp:366", "*** Benchmark begins ***")
        say("caffe.cpp:367", f"Testing for {iterations} iterations.")
        watch, began, waited = Stopwatch(now), now(), 0.0
        for number in range(1, iterations + 1):
            before = now()
            feeds = feeding.take()
            waited += now() - before
            network.clocked(feeds, watch)
            say("caffe.cpp:395", f"Iteration: {number} forward-backward time: {_ms(now() - before)}")
        whole = now() - began
    finally:
        if feeding is not None:
            feeding.close()
        made.close()
    found = _times(made, watch.forward, watch.backward, waited, iterations)
    _report(replace(found, both=whole / iterations), say)
    return replace(found, both=whole / iterations)


def net_of(path: Path, flags: Flags) -> NetText:
    """The net of a .prototxt, or the training net of a solver's, in phase TRAIN."""
    if not path.exists():
        says = f"{path} cannot be read"
        raise SolverError(says, "No such file or directory", "give the path of a solver's .prototxt, or of a net's")
    if path.is_file() and _A_SOLVER.search(re.sub("#.*", "", path.read_text("latin-1"))):
        return solver.read(path, flags).net
    state = caffe_pb2.NetState(level=flags.level, stage=flags.stages)
    return solver.merged(prototxt.read(path), f"net file: {path}", caffe_pb2.TRAIN, state)


def _times(
    made: SetUp, forward: Mapping[int, float], backward: Mapping[int, float], waited: float, iterations: int
) -> Times:
    from pipeline.training.engine.needs import needs

    sources = [source.layer for source in made.sources]
    layers: list[LayerTime] = []
    for one in needs(made.graph, False):
        ahead = forward.get(one.step, 0.0)
        if sources and one.spec.name == sources[0]:
            ahead += waited  # the loader gives the batches of all data layers together
        layers.append(LayerTime(one.spec.name, ahead / iterations, backward.get(one.step, 0.0) / iterations))
    return Times(iterations, tuple(layers), _sum(layers, "forward"), _sum(layers, "backward"), 0.0)


def _sum(layers: Sequence[LayerTime], which: str) -> float:
    return float(sum(getattr(one, which) for one in layers))


def _report(times: Times, say: Say) -> None:
    say("caffe.cpp:398", "Average time per layer: ")
    for one in times.layers:
        say("caffe.cpp:401", f"{one.name:>10}\tforward: {_ms(one.forward)}")
        say("caffe.cpp:404", f"{one.name:>10}\tbackward: {_ms(one.backward)}")
    say("caffe.cpp:409", f"Average Forward pass: {_ms(times.forward)}")
    say("caffe.cpp:411", f"Average Backward pass: {_ms(times.backward)}")
    say("caffe.cpp:413", f"Average Forward-Backward: {_ms(times.both)}")
    say("caffe.cpp:415", f"Total Time: {_ms(times.both * times.iterations)}")
    say("caffe.cpp:416", "*** Benchmark ends ***")


def _ms(seconds: float) -> str:
    return f"{log.number(seconds * 1000)} ms."
