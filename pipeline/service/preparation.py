"""Whether a feature set makes numbers of pictures as the test of a job did: else its accuracy would be another one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.settings import FeatureSet, Preprocess

_CLOSE = 1e-6
_WHITE = 255.0


def differences(name: str, one: FeatureSet, facts: Mapping[str, Any]) -> list[str]:
    """What differs, with both values.  name: of the set; facts: of the model's net (`classifying.facts_of`).

    A mean image goes with the promotion, so the set's own mean says nothing then.  Pictures of the job's size are what
    is compared: of others a set that cuts the middle out keeps the shape, and the service does not.
    """
    pictures = facts["pictures"]
    if pictures is None:
        return [f"the net learned from numbers, and set {name} has pictures"]
    return [
        f"{setting} is {ours} in set {name}, and {theirs} as the job's test prepared pictures"
        for setting, ours, theirs in _pairs(one, facts, pictures)
        if ours != theirs
    ]


def _pairs(one: FeatureSet, facts: Mapping[str, Any], pictures: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    channels, high, wide = facts["shape"]
    how, crop, mean = one.preprocess, pictures["crop"], pictures["mean"]
    if one.input_size is not None:
        yield "input_size", _sides(one.input_size), _sides((high, wide))
    yield "preprocess.resize", how.resize, "crop" if crop else "direct"
    if crop and how.resize == "crop":
        yield "preprocess.resize_to", str(how.short_side((high, wide))), str(min(pictures["size"]))
    if crop and mean == "image":
        yield "the size of a mean image", _sides([min(pictures["size"])] * 2), _sides(pictures["size"])
    if crop == 0:
        yield "the net's input", _sides(pictures["size"]), _sides((high, wide))
    yield "preprocess.interpolation", how.interpolation, "fast"
    if channels == 3:
        yield "preprocess.channel_order", how.channel_order, "bgr"
    yield _told(
        "preprocess.input_scale (with raw_scale and std)", _scale(how, channels), [pictures["scale"]] * channels
    )
    if mean == "image":
        yield "preprocess.raw_scale", f"{how.raw_scale:g}", f"{_WHITE:g}"
    elif isinstance(how.mean, str):
        yield "preprocess.mean", "a file", _listed(_wide(mean or [0.0], channels))
    else:
        white = _WHITE / how.raw_scale if how.raw_scale else math.inf
        ours = [value * white for value in _wide(how.mean, channels)]
        yield _told("preprocess.mean", ours, _wide(mean or [0.0], channels))


def _told(setting: str, ours: Sequence[float], theirs: Sequence[float]) -> tuple[str, str, str]:
    """Equal texts where they are close."""
    same = len(ours) == len(theirs) and all(map(_close, ours, theirs))
    return setting, _listed(theirs if same else ours), _listed(theirs)


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_CLOSE, abs_tol=_CLOSE * _CLOSE)


def _scale(how: Preprocess, channels: int) -> list[float]:
    """What a value of a pixel is multiplied with, by channel."""
    return [how.raw_scale / _WHITE * how.input_scale / std if std else math.inf for std in _wide(how.std, channels)]


def _wide(values: Sequence[float], channels: int) -> list[float]:
    """A number for each channel."""
    same = len(set(values)) == 1
    return [values[0]] * channels if same else list(values)


def _listed(values: Sequence[float]) -> str:
    some = values[:1] if len(set(values)) == 1 else values
    return "[" + ", ".join(f"{value:.9g}" for value in some) + "]"


def _sides(size: Sequence[int]) -> str:
    return f"{size[0]}x{size[1]}"
