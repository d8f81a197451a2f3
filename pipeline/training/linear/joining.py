"""A head and the net below it as one net: a deploy.prototxt and a .caffemodel that everything here runs.

What happens to the blob before it is a feature (pooling, division by its length) becomes layers of the net, each of
them Caffe's own, so that the net computes the scores of the features that were delivered.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray

from pipeline.codec import caffe_pb2
from pipeline.errors import ConfigError
from pipeline.nets.caffe import prototxt
from pipeline.nets.features import FeatureNet
from pipeline.nets.graph import caffe_graph, rules, saving
from pipeline.nets.graph.caffe_graph import CaffeGraph, NetText
from pipeline.nets.graph.lowered import Slot
from pipeline.settings import FeatureSet, is_built_in
from pipeline.training.dataset.manifest import MANIFEST, Manifest
from pipeline.training.dataset.shards import digest_of
from pipeline.training.linear.head import Head, Trained

NET, WEIGHTS, ABOUT = "deploy.prototxt", "weights.caffemodel", "head.json"
SCORE, PROB = "score", "prob"
_TINY = 1e-30  # under the root of a length: a feature of zeros stays zeros
Layers = list[caffe_pb2.LayerParameter]


@dataclass(frozen=True)
class Trunk:
    """The net that the features come from.  feature_set: its paths absolute."""

    feature_set: FeatureSet
    graph: CaffeGraph


def trunk_of(feature_set: FeatureSet, manifest: Manifest, folder: Path) -> Trunk:
    """Raises ConfigError where the net is no Caffe net, or the features of the dataset are not this set's."""
    if is_built_in(feature_set.net) or not feature_set.net.endswith(".prototxt"):
        raise ConfigError(
            f"a head is not joined to {feature_set.net}",
            "it becomes a layer of a Caffe net: a .prototxt with its .caffemodel",
            "leave --net out: the head is then a net of its own, which takes features",
        )
    own = FeatureNet(feature_set).fingerprint
    if set(manifest.fingerprints) != {own}:
        has = ", ".join(f"{one[:12]} ({count:,})" for one, count in manifest.fingerprints.items()) or "none"
        raise ConfigError(
            f"the features of {folder} are not those of the net {feature_set.net}",
            f"fingerprints of the dataset: {has}; of the net as it is given here: {own[:12]}",
            "give the net, weights, blob, preprocessing, pool and normalise of the feature set that was delivered; "
            "--config FILE --like SET takes them from it",
        )
    text = NetText(prototxt.read(Path(feature_set.net)), feature_set.net)
    weights = None if feature_set.weights is None else Path(feature_set.weights)
    state = rules.state_of("TEST", 0, ())
    return Trunk(feature_set, caffe_graph.build(text, weights, state, [feature_set.blob], lambda says: None))


def write(folder: Path, trained: Trained, trunk: Trunk | None, dataset: Path, manifest: Manifest) -> None:
    """Puts the net, its weights and what is known of them into an empty folder."""
    write_net(folder, trained.head, trunk)
    about = {
        "format": 1,
        "loss": trained.head.loss.name,
        "l2": trained.l2,
        "objective": trained.optimum.value,
        "bound": trained.optimum.bound,
        "steps": trained.optimum.steps,
        "dim": manifest.dim,
        "classes": manifest.classes,
        "dataset": digest_of(dataset / MANIFEST),
        "fingerprints": manifest.fingerprints,
        "joined": trunk is not None,
        "figures": {side: asdict(one) for side, one in trained.figures.items()},
        "warnings": list(trained.warnings),
    }
    (folder / ABOUT).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_net(folder: Path, head: Head, trunk: Trunk | None) -> None:
    """Puts the net and its weights into a folder."""
    net = _net(head, trunk)
    (folder / NET).write_text(text_format.MessageToString(net), encoding="utf-8")
    graph = caffe_graph.build(NetText(net, NET), None, rules.state_of("TEST", 0, ()), None, lambda says: None)
    saving.save(folder / WEIGHTS, graph, _Values(graph, head, trunk))


@dataclass(frozen=True)
class _Values:
    """The values of a joined net's blobs: the head's, and of all other layers the trunk's."""

    graph: CaffeGraph
    head: Head
    trunk: Trunk | None

    def __call__(self, slot: Slot) -> NDArray[np.float32]:
        name = self.graph.plan.steps[slot.step].layer.name
        if self.trunk is None or name == _score_of(self.trunk):
            return self.head.weights if slot.blob == 0 else self.head.bias
        plan = self.trunk.graph.plan
        step = next(number for number in self._steps() if plan.steps[number].layer.name == name)
        values = self.trunk.graph.parameters
        return values.values([step], plan)[values.owners[Slot(step, slot.blob)]]

    def _steps(self) -> list[int]:
        assert self.trunk is not None
        return _needed(self.trunk)


def _needed(trunk: Trunk) -> list[int]:
    plan = trunk.graph.plan
    return sorted(plan.computable([plan.read(trunk.feature_set.blob)]))


def _net(head: Head, trunk: Trunk | None) -> caffe_pb2.NetParameter:
    if trunk is None:
        dim = head.weights.shape[1]
        below = [_layer("Input", "features", [], "features", f"input_param {{ shape {{ dim: 1 dim: {dim} }} }}")]
        name, blob, score = "head", "features", SCORE
    else:
        steps = trunk.graph.plan.steps
        below = [steps[number].layer.spec for number in _needed(trunk)]
        more, blob = _feature(trunk)
        below += more
        name, score = f"{trunk.graph.name} with a head", _score_of(trunk)
    net = caffe_pb2.NetParameter(name=name)
    for spec in below:
        net.layer.add().CopyFrom(spec)
    outputs = head.weights.shape[0]
    net.layer.append(_layer("InnerProduct", score, [blob], score, f"inner_product_param {{ num_output: {outputs} }}"))
    if head.loss.top:
        prob = _free(trunk, PROB)
        net.layer.append(_layer(head.loss.top, prob, [score], prob))
    return net


def _feature(trunk: Trunk) -> tuple[Layers, str]:
    """Layers that make a feature of the blob, and the blob that holds it."""
    chosen, blob = trunk.feature_set, trunk.feature_set.blob
    found: Layers = []
    if chosen.pool != "flatten":
        method = "AVE" if chosen.pool == "mean" else "MAX"
        pooled = _free(trunk, "pooled")
        text = f"pooling_param {{ pool: {method} global_pooling: true }}"
        found.append(_layer("Pooling", pooled, [blob], pooled, text))
        blob = pooled
    if chosen.normalise == "l2":
        squares, inverse, feature = (_free(trunk, name) for name in ("squares", "inverse_length", "feature"))
        found.append(_layer("Reduction", squares, [blob], squares, "reduction_param { operation: SUMSQ axis: 1 }"))
        found.append(_layer("Power", inverse, [squares], inverse, f"power_param {{ power: -0.5 shift: {_TINY} }}"))
        found.append(_layer("Scale", feature, [blob, inverse], feature, "scale_param { axis: 0 }"))
        blob = feature
    return found, blob


def _score_of(trunk: Trunk) -> str:
    return _free(trunk, SCORE)


def _free(trunk: Trunk | None, name: str) -> str:
    """The name, or one like it where a layer or a blob of the trunk has it."""
    if trunk is None:
        return name
    steps = [trunk.graph.plan.steps[number].layer.spec for number in _needed(trunk)]
    taken = {spec.name for spec in steps} | {top for spec in steps for top in spec.top}
    while name in taken:
        name = f"head_{name}"
    return name


def _layer(kind: str, name: str, bottoms: Sequence[str], top: str, text: str = "") -> caffe_pb2.LayerParameter:
    spec = caffe_pb2.LayerParameter(name=name, type=kind, bottom=bottoms, top=[top])
    text_format.Merge(text, spec)
    return spec
