"""Where a net says which class an example has: what its last Accuracy layer reads, else its last SoftmaxWithLoss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.nets.graph.plan import Read, Step
from pipeline.nets.layers.losses import Labelled

LOGIT, PROBABILITY, SCORE = "logit", "probability", "score"


@dataclass(frozen=True, slots=True)
class Judged:
    """scores, labels: blobs.  ignored: the label that counts for nothing.

    kind: "logit" where the softmax of a score is a probability, "probability" where the score is one, else "score".
    """

    scores: str
    labels: str
    classes: int
    ignored: int | None
    kind: str

    def beside(self, graph: CaffeGraph) -> tuple[str, ...]:
        """The blobs that no data layer feeds: a pass has to give them."""
        return tuple(dict.fromkeys(blob for blob in (self.scores, self.labels) if blob not in graph.inputs))


def judged(graph: CaffeGraph) -> Judged | str:
    """Where the net says it; else why it says nothing of single examples, as a sentence."""
    steps = [step for step in graph.plan.steps if step.layer.spec.type in ("Accuracy", "SoftmaxWithLoss")]
    steps = [step for step in steps if isinstance(step.layer, Labelled) and len(step.reads) > 1]
    if not steps:
        return f"the test net {graph.name} has no SoftmaxWithLoss and no Accuracy layer, so it tells no class"
    step = next((one for one in reversed(steps) if one.layer.spec.type == "Accuracy"), steps[-1])
    name, spec = step.layer.name, step.layer.spec
    assert isinstance(step.layer, Labelled)
    shape = graph.declared.get(step.reads[0].view)
    if shape is None:
        return f"the shape of what layer '{name}' reads is not known before the test"
    outer, classes, inner = step.layer.extents(shape)
    if inner != 1 or outer != shape[0]:
        return f"layer '{name}' judges {outer * inner // max(1, shape[0])} places of an example, not the example"
    if classes < 2:
        return f"layer '{name}' knows one class alone"
    for blob, read in zip(spec.bottom, step.reads, strict=False):
        if not _stays(graph, blob, read):
            return f"blob '{blob}' is overwritten after layer '{name}' has read it"
    given = spec.accuracy_param if spec.type == "Accuracy" else spec.loss_param
    ignored = given.ignore_label if given.HasField("ignore_label") else None
    return Judged(spec.bottom[0], spec.bottom[1], classes, ignored, _kind(graph, step))


def _stays(graph: CaffeGraph, blob: str, read: Read) -> bool:
    """Whether the blob holds after a pass what the layer has read."""
    if blob in graph.inputs:
        return graph.plan.inputs[blob] == read.version
    return graph.plan.read(blob).version == read.version


def _kind(graph: CaffeGraph, step: Step) -> str:
    version = step.reads[0].version
    if graph.plan.steps[version.step].layer.spec.type == "Softmax":
        return PROBABILITY
    return LOGIT if version in set(_logits(graph)) else SCORE


def _logits(graph: CaffeGraph) -> Iterator[object]:
    """What goes through a softmax."""
    for step in graph.plan.steps:
        if step.layer.spec.type in ("SoftmaxWithLoss", "Softmax"):
            yield step.reads[0].version
