"""The fingerprint that a feature set gives, read from its files alone: no engine is loaded and nothing is compiled.

For hosts that compute nothing and still have to know what is computed elsewhere, such as a gateway.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.codec.mean_image import read_mean
from pipeline.errors import ConfigError, NetError
from pipeline.nets import fingerprint
from pipeline.nets.engines.engine import EngineInfo, Run
from pipeline.nets.features import image_input, taken
from pipeline.nets.graph import rules
from pipeline.nets.graph.lowered import Lowered, Shape
from pipeline.nets.net import Net
from pipeline.nets.preprocessing import with_stated
from pipeline.settings import HOG, FeatureSet

if TYPE_CHECKING:
    from pipeline.nets.onnx.source import Model


class _NoEngine:
    """In the place of an engine, where a net is only looked at."""

    info = EngineInfo("none", "", "", "the net is only looked at")

    def compile(self, graph: Lowered) -> Run:
        raise NetError("a net that is only looked at is not run")

    def compile_model(self, model: Model, shapes: Mapping[str, Shape], outputs: Sequence[str]) -> Run:
        raise NetError("a net that is only looked at is not run")


def expected(feature_set: FeatureSet) -> str:
    """What `FeatureNet(feature_set).fingerprint` is, where that loads at all.

    feature_set: its paths absolute.  Raises NetError or ConfigError where the files or the blob do not allow it.
    """
    if feature_set.keeps_images:
        return fingerprint.of_images(feature_set)
    feature_set = with_stated(feature_set)
    net, blob = _looked_at(feature_set)
    if lacking := net.lacking(blob):
        raise NetError(f"the net {feature_set.net} has no weights", ", ".join(lacking[:5]), "name its .caffemodel")
    name = image_input(net, blob)
    takes = taken(net, name, feature_set)
    mean = feature_set.preprocess.mean
    of_net = net.fingerprint(blob, {name: takes.shape(1)})
    return fingerprint.of_features(feature_set, of_net, takes.size, read_mean(mean) if isinstance(mean, str) else None)


def widths(feature_set: FeatureSet) -> dict[str, int]:
    """How many numbers of an image the set's blob has, and each output of its net (of a head: the classes); by name.

    feature_set: as `expected` takes it.  Nothing where the files do not allow it: `expected` says why.
    """
    if feature_set.keeps_images:
        return {}
    try:
        feature_set = with_stated(feature_set)
        net, blob = _looked_at(feature_set, whole=True)
        name = image_input(net, blob)
        given = {name: taken(net, name, feature_set).shape(1)}
        shapes = {one: net.shape(one, given) for one in dict.fromkeys((blob, *net.outputs))}
    except (NetError, ConfigError):
        return {}
    return {one: math.prod(shape[1:]) for one, shape in shapes.items()}


def _looked_at(chosen: FeatureSet, *, whole: bool = False) -> tuple[Net, str]:
    """The net, and the blob whose values are the feature.  whole: also what lies beyond the blob."""
    blobs = None if whole else [chosen.blob]
    path = Path(chosen.net)
    if path.name == HOG:
        from pipeline.nets.hog import Hog

        return Hog(), HOG
    if path.suffix == ".onnx":
        from pipeline.nets.onnx.net import OnnxNet

        return OnnxNet(path, _NoEngine(), blobs), chosen.blob
    from pipeline.nets.caffe_net import CaffeNet

    weights = Path(chosen.weights) if chosen.weights is not None else None
    return CaffeNet(path, weights, _NoEngine(), rules.state_of("TEST", 0, ()), blobs), chosen.blob
