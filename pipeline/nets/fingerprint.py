"""The fingerprint of a feature: SHA-256 over what decides its value, and nothing else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from numpy.typing import NDArray

from pipeline.codec.mean_image import read_mean
from pipeline.errors import ConfigError
from pipeline.nets.digests import digest, hashed
from pipeline.nets.graph.lowered import Shape
from pipeline.nets.graph.parameters import Parameters
from pipeline.nets.graph.plan import Place, Plan, Read
from pipeline.nets.layers.inputs import Source
from pipeline.nets.layers.registry import Layer
from pipeline.settings import DECODE_POLICY, HOG, IMAGE, FeatureSet, Preprocess

_NAMES_ONLY = frozenset(
    ("name", "type", "bottom", "top", "loss_weight", "param", "blobs", "include", "exclude", "phase", "propagate_down")
)
_NO_VALUE = frozenset(("engine", "force_nd_im2col", "stable_prod_grad", "weight_filler", "bias_filler", "filler",
                       "moving_average_fraction", "debug_info", "dropout_ratio", "source"))  # fmt: skip
_SAME = frozenset(("Dropout", "Split"))  # what they give is what they take


def of_net(plan: Plan, parameters: Parameters, blob: str, given: Mapping[str, Shape]) -> str:
    """Hex SHA-256 of what the blob's value depends on: layers, their settings, weights and input sizes.

    Names, comments, the order of layers, the form of the text and layers that the blob does not need have no part.
    """
    read = plan.read(blob)
    steps = plan.computable([read])
    shapes = plan.shapes(given, steps)
    learned: dict[int, list[Any]] = {number: [] for number in steps}
    for slot, found in parameters.digests(steps, plan).items():
        learned[slot.step].append([list(parameters.shapes[slot]), found])
    known: dict[Place, str] = {}
    for number in sorted(steps):
        step = plan.steps[number]
        layer = step.layer
        bottoms = [_as_read(known, shapes, one) for one in step.reads]
        if layer.is_shared() or layer.spec.type in _SAME:
            for top in range(len(layer.spec.top)):
                known[Place(number, top)] = known[step.reads[0].version]
            continue
        for top, name in enumerate(layer.spec.top):
            place = Place(number, top)
            meaning: Any = (
                ["input", name, list(shapes[place][1:])]
                if isinstance(layer, Source)
                else [_settings(layer), [list(shapes[one.view][1:]) for one in step.reads]]
            )
            weights = [*learned[number], *([list(one.shape), digest(one)] for one in layer.constants())]
            known[place] = hashed([meaning, top, bottoms, weights])
    return hashed(["net", _as_read(known, shapes, read)])


_YOUNGER = {"interpolation": "fast", "layout": "auto"}
"""Settings of preprocessing that are younger than fingerprints, and what was done before there were any."""


def of_features(
    feature_set: FeatureSet, net: str, size: tuple[int, int], mean: NDArray[np.float32] | None = None
) -> str:
    """Hex SHA-256 of a feature set: its net's own, input size, preprocessing, decoding, normalisation, precision, and
    whether each image is computed alone.

    mean: what the mean's file held when it was read for preparing images, where the settings name one.
    """
    parts = {
        "form": 1,
        "net": net,
        "size": list(size),
        "preprocess": _preprocess(feature_set.preprocess, size, mean),
        "decode": DECODE_POLICY,
        "normalise": feature_set.normalise,
        "precision": feature_set.precision,
    }
    if feature_set.dependent_rows == "alone":
        parts["rows"] = "alone"
    if feature_set.pool != "flatten":
        parts["pool"] = feature_set.pool
    return hashed(parts)


def of_images(feature_set: FeatureSet) -> str:
    """Hex SHA-256 of a set that keeps images: of what decides their bytes.  As fetched, nothing does."""
    parts: dict[str, Any] = {"form": 1, "net": IMAGE, "short_side": feature_set.short_side}
    if feature_set.short_side:
        parts |= {
            "quality": feature_set.quality,
            "decode": DECODE_POLICY,
            "reduced_decode": feature_set.preprocess.reduced_decode,
        }
    return hashed(parts)


def deciding(feature_set: FeatureSet) -> dict[str, Any]:
    """What of a set's settings decides a feature's value, by the setting's path in the set, spelt in one way.

    Settings that mean the same give equal values (`mean = [128]` and `[128, 128, 128]`), and each
    has one, its default too: hosts compare the settings that both name.  The net's own files have no
    part; a mean's file has what it holds, and none where it cannot be read here.
    """
    if feature_set.keeps_images:
        return {
            "blob": IMAGE,
            "short_side": feature_set.short_side,
            "quality": feature_set.quality if feature_set.short_side else None,
            "preprocess.reduced_decode": feature_set.preprocess.reduced_decode if feature_set.short_side else None,
        }
    size = feature_set.input_size or feature_set.preprocess.size
    found: dict[str, Any] = {
        "blob": HOG if os.path.basename(feature_set.net) == HOG else feature_set.blob,
        "input_size": list(size) if size else None,
        "normalise": feature_set.normalise,
        "precision": feature_set.precision,
        "dependent_rows": feature_set.dependent_rows,
        "pool": feature_set.pool,
    }
    values = _how_prepared(feature_set.preprocess, size)
    with contextlib.suppress(ConfigError):
        values["mean"] = _mean(feature_set.preprocess.mean, None)
    values |= {name: getattr(feature_set.preprocess, name) for name in _YOUNGER}
    return found | {f"preprocess.{name}": value for name, value in values.items()}


def _as_read(known: Mapping[Place, str], shapes: Mapping[Place, Shape], read: Read) -> list[Any]:
    """The values, and the shape in which they are read; the batch has no part."""
    return [known[read.version], list(shapes[read.view][1:])]


def _preprocess(preprocess: Preprocess, size: tuple[int, int], read: NDArray[np.float32] | None) -> dict[str, Any]:
    return {**_how_prepared(preprocess, size), "mean": _mean(preprocess.mean, read)}


def _how_prepared(preprocess: Preprocess, size: tuple[int, int] | None) -> dict[str, Any]:
    """All but the mean, which can be in a file.  A setting that is younger than fingerprints has a part where it is not
    what was done before there was one.  size: the net's, or None where it is not known.
    """
    short: Any = ["crop_pct", preprocess.crop_pct] if size is None else preprocess.short_side(size)
    short = preprocess.resize_to if preprocess.crop_pct is None else short
    return {
        "resize": preprocess.resize,
        "resize_to": short if preprocess.resize == "crop" else None,
        "channel_order": preprocess.channel_order,
        "raw_scale": preprocess.raw_scale,
        "std": _spread(preprocess.std),
        "input_scale": preprocess.input_scale,
        "reduced_decode": preprocess.reduced_decode,
        **{name: value for name, old in _YOUNGER.items() if (value := getattr(preprocess, name)) != old},
    }


def _mean(mean: list[float] | str, read: NDArray[np.float32] | None) -> list[Any]:
    """A value for each channel; of an image its shape and digest.  Raises ConfigError for a file that holds none."""
    values = np.asarray(mean, np.float32) if isinstance(mean, list) else read_mean(mean) if read is None else read
    flat = values.reshape(values.shape[0], -1)
    if (flat == flat[:, :1]).all():
        return _spread(flat[:, 0].tolist())
    return [list(values.shape), digest(values)]


def _spread(values: Sequence[float]) -> list[float]:
    return list(values) * 3 if len(values) == 1 else list(values)


def _settings(layer: Layer) -> list[Any]:
    """The type's own settings with their defaults filled in."""
    fields: list[Any] = [layer.spec.type]
    own = _OWN.get(layer.spec.type, layer.spec.type.lower())
    for field in layer.spec.DESCRIPTOR.fields:
        if field.name in _NAMES_ONLY or field.message_type is None or field.name == "transform_param":
            continue
        stem = field.name.removesuffix("_param").replace("_", "")
        if stem == own:
            fields.append([stem, _values(getattr(layer.spec, field.name))])
    if layer.spec.type == "BatchNorm":
        p = layer.spec.batch_norm_param
        fields.append(p.use_global_stats if p.HasField("use_global_stats") else not layer.state.train)
    return fields


_OWN = {"Deconvolution": "convolution", "Im2col": "convolution", "LSTM": "recurrent", "RNN": "recurrent",
        "SoftmaxWithLoss": "softmax", "Convolution": "convolution"}  # fmt: skip


def _values(message: Message) -> list[Any]:
    found = []
    for field in message.DESCRIPTOR.fields:
        if field.name in _NO_VALUE:
            continue
        value = getattr(message, field.name)
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            plain: Any = [_values(one) for one in value] if field.is_repeated else _values(value)
        else:
            plain = list(value) if field.is_repeated else value
        found.append([field.name, plain, not field.is_repeated and message.HasField(field.name)
                      and not field.has_default_value])  # fmt: skip
    return found
