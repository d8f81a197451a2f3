"""The preprocessing that a feature set's net gets: what the set states, what the net's owner says, or Caffe's."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.settings import PRESETS, FeatureSet, Preprocess

NAMES = "|".join(PRESETS)


def stated(feature_set: FeatureSet) -> Preprocess:
    """The set's own; of an ONNX model without any what lies beside it or stands in it; of other nets Caffe's.

    feature_set: its paths absolute.  Raises ConfigError where an ONNX model has none, and NetError for one that cannot
    be read.
    """
    own, path = feature_set.preprocess, Path(feature_set.net)
    if own.preset is not None:
        return own
    if path.suffix != ".onnx":
        return own.model_copy(update={"preset": "caffe"})
    from pipeline.nets.onnx.preprocessing import beside, within
    from pipeline.nets.onnx.source import OnnxSource

    found = beside(path, own) or within(OnnxSource(path).graph(), own)
    if found is None:
        raise ConfigError(
            f"nothing says how images are prepared for the model {path}",
            "prepared in another way than in its training, they give features that mean nothing; no "
            "preprocessor_config.json lies beside it, and its metadata do not tell",
            f"name what it was trained with: --preprocess {NAMES}, or preprocess.preset of the set; "
            "a preset of your own is a table [preprocess.NAME]",
        )
    return found


def with_stated(feature_set: FeatureSet) -> FeatureSet:
    """The set with its preprocessing as it is applied.  Raises as `stated`."""
    return feature_set.model_copy(update={"preprocess": stated(feature_set)})


def told(how: Preprocess, size: tuple[int, int], *, grey: bool = False) -> str:
    """One line of what is done to an image for a net of `size` (height, width)."""
    high, wide = size
    by = "" if how.interpolation == "fast" else f" ({how.interpolation})"
    placed = f"resized to {high} x {wide}{by}"
    if how.resize == "crop":
        placed = f"short side to {max(how.short_side(size), *size)}{by}, centre {high} x {wide}"
    mean = how.mean if isinstance(how.mean, str) else _numbers(how.mean)
    parts = [
        placed,
        f"{'grey' if grey else how.channel_order.upper()} 0 to {how.raw_scale:.6g}",
        f"mean {mean}",
        f"std {_numbers(how.std)}",
    ]
    if how.input_scale != 1.0:
        parts.append(f"times {how.input_scale:.6g}")
    if not how.reduced_decode:
        parts.append("every detail decoded")
    return f"{how.preset or 'caffe'}: {', '.join(parts)}"


def _numbers(values: list[float]) -> str:
    return " ".join(f"{value:.6g}" for value in (values[:1] if len(set(values)) == 1 else values))
