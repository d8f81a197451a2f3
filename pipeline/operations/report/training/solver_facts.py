"""What a solver says of its training, as a page tells it: names and values, and what its outputs are."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.amounts import counted, size
from pipeline.errors import PipelineError
from pipeline.operations.report.html import figure
from pipeline.training import price
from pipeline.training.assembly import How
from pipeline.training.outputs import kinds_of
from pipeline.training.solver import NetText, Solver

Facts = list[tuple[str, str]]
_SOURCES = ("data_param", "image_data_param", "hdf5_data_param")


def facts(read: Solver) -> Facts:
    """How it trains."""
    update, policy = read.update, read.policy
    found = [("Net", read.net.name or "without a name"), ("Solver", update.type)]
    found.append(("Learning rate", f"{policy.base:g}, {policy.name}"))
    momentum = f"{update.momentum:g}" + (f", {update.momentum2:g}" if update.type == "Adam" else "")
    found.append(("Momentum", momentum))
    found.append(("Weight decay", f"{update.weight_decay:g}, {update.regularization}" if update.weight_decay else "0"))
    if update.clip is not None:
        found.append(("Gradients clipped at", f"{update.clip:g}"))
    found.append(("Iterations", f"{read.max_iter:,}"))
    if read.seed >= 0:
        found.append(("Random numbers", f"Caffe's stream, seed {read.seed}"))
    else:
        found.append(("Random numbers", "Hathi's own stream"))
    found += [(name, value) for net in (read.net, *(one.net for one in read.tests.nets)) for name, value in _data(net)]
    return found


def kinds(read: Solver) -> dict[str, str]:
    """What the outputs of its nets are, by blob: losses and accuracies."""
    return kinds_of(net.text for net in (read.net, *(one.net for one in read.tests.nets)))


def priced(read: Solver, how: How) -> tuple[Facts, str]:
    """What an iteration takes, and why nothing of it can be said.  It looks at the data, in the current folder."""
    try:
        found = price.of(read, how)
    except PipelineError as error:
        return [], f"what the training takes: {error.message}"
    if found.refused:
        return [], f"what the training takes: {found.refused[0].says}"
    return [
        ("Examples an iteration", f"{found.examples:,}"),
        ("Learned numbers", figure(found.parameters)),
        ("Multiplications an iteration", figure(found.multiply_adds)),
        ("Memory, at least", size(found.bytes.memory)),
        ("Weights and history", size(found.bytes.snapshot)),
    ], ""


def threaded(threads: int, exact: bool) -> Facts:
    """How it is computed."""
    found = [("Threads", counted(threads, "thread") if threads else "all cores")]
    return [*found, ("Convolution", "in Caffe's order of sums")] if exact else found


def _data(net: NetText) -> Iterator[tuple[str, str]]:
    phase = "Test data" if net.state.phase else "Training data"
    for layer in net.text.layer:
        if not _included(layer, net.state.phase):
            continue
        for field in _SOURCES:
            if layer.HasField(field):
                given = getattr(layer, field)
                yield phase, f"{given.source}, {counted(given.batch_size, 'example')} a batch"


def _included(layer: object, phase: int) -> bool:
    """Whether the layer says that it is of this phase, or of none."""
    rules = layer.include  # type: ignore[attr-defined]
    return not any(one.HasField("phase") for one in rules) or any(one.phase == phase for one in rules)
