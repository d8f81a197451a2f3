"""What the owner of an ONNX model says of its preprocessing: in a preprocessor_config.json beside it, or in the model.

The file is Hugging Face's, of its image processors; the model's metadata are those that ONNX defines for images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from pydantic import ValidationError

from pipeline.errors import ConfigError
from pipeline.settings import PRESETS, Preprocess
from pipeline.settings.preprocessing import FROM_FILE, FROM_METADATA, over

_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""By Pillow's numbers, as `resample` has them."""
_MAX_BYTES = 2**20
_HINT = f"name the preprocessing instead: --preprocess {'|'.join(PRESETS)}, or preprocess.preset of the set"


def beside(model: Path, kept: Preprocess) -> Preprocess | None:
    """What the file beside the model says; None where there is none.  kept: for what no such file tells.

    Raises ConfigError for a file that cannot be read, or that asks for what is not done here.
    """
    path = model.parent / FROM_FILE
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES)
        told = json.loads(content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read", str(error), _HINT) from error
    if not isinstance(told, Mapping):
        raise ConfigError(f"{path} is no preprocessor's", "an object is expected", _HINT)
    try:
        return _validated({**_placed(told), **_scaled(told)}, kept, FROM_FILE)
    except (_Unknown, ValidationError) as error:
        why = str(error.errors()[0]["msg"]) if isinstance(error, ValidationError) else str(error)
        raise ConfigError(f"{path} says what is not done here", why, _HINT) from error


def within(model: onnx.ModelProto, kept: Preprocess) -> Preprocess | None:
    """What the model's metadata say (Image.BitmapPixelFormat, Image.NominalPixelRange); None where they say too little.

    They tell nothing of the resize: it is direct.  Raises ConfigError for a format or a range that is not made here.
    """
    told = {one.key.lower(): one.value.lower() for one in model.metadata_props}
    order, scale = told.get("image.bitmappixelformat"), told.get("image.nominalpixelrange")
    if order is None or scale is None:
        return None
    if order not in _ORDERS or scale not in _RANGES or told.get("image.colorspacegamma", "srgb") != "srgb":
        raise ConfigError("the model's metadata ask for what is not done here", f"{order}, {scale}", _HINT)
    return _validated({"channel_order": _ORDERS[order], **_RANGES[scale]}, kept, FROM_METADATA)


_ORDERS = {"rgb8": "rgb", "bgr8": "bgr"}
_RANGES: Mapping[str, Mapping[str, Any]] = {
    "nominalrange_0_255": {"raw_scale": 255.0},
    "normalized_0_1": {},
    "normalized_1_1": {"mean": [0.5], "std": [0.5]},
}


class _Unknown(Exception):
    """What a file asks for, in words."""


def _validated(said: Mapping[str, Any], kept: Preprocess, origin: str) -> Preprocess:
    """Over plain pixels of RGB; decoding stays as the set has it."""
    own = {name: getattr(kept, name) for name in ("reduced_decode", "max_pixels", "damaged")}
    size = {"size": kept.size} if kept.size is not None else {}
    return Preprocess.model_validate({**over(PRESETS["unit"], said), **own, **size, "preset": origin})


def _placed(told: Mapping[str, Any]) -> dict[str, Any]:
    """How an image gets the net's size."""
    for word in ("do_pad", "rescale_offset", "do_grayscale", "do_thumbnail", "do_image_splitting"):
        if told.get(word):
            raise _Unknown(f"{word} is true")
    if not told.get("do_resize", True):
        raise _Unknown("do_resize is false: images keep their sizes, and a net takes one")
    number = told.get("resample", 2)
    if not isinstance(number, int) or not 0 <= number < len(_FILTERS):
        raise _Unknown(f"resample is {number!r}")
    found: dict[str, Any] = {"interpolation": _FILTERS[number]}
    crop = _sides(told["crop_size"]) if told.get("do_center_crop") and told.get("crop_size") is not None else None
    size = told.get("size")
    short = size.get("shortest_edge") if isinstance(size, Mapping) and len(size) == 1 else None
    if isinstance(size, int) and crop is not None:
        short = size  # as it was written before there were names
    if short is not None and (not isinstance(short, int) or short < 1):
        raise _Unknown(f"its short side is {short!r}")
    if short is None:
        if size is None:
            raise _Unknown("it has no size")
        sides = _sides(size)
        if crop not in (None, sides):
            raise _Unknown("it resizes to height and width and crops after that")
        return {**found, "resize": "direct", "size": sides}
    if crop is None and "crop_pct" in told:  # ConvNeXt's: up to 384 pixels a crop, from there on none
        pct = told["crop_pct"] or 224 / 256
        if short >= 384:
            return {**found, "resize": "direct", "size": [short, short]}
        return {**found, "resize": "crop", "size": [short, short], "crop_pct": pct}
    if crop is None:
        raise _Unknown("it resizes the short side and crops nothing, so that each image has a size of its own")
    if min(crop) > short:
        raise _Unknown(f"it crops {crop[0]} x {crop[1]} of a short side of {short}")
    return {**found, "resize": "crop", "size": crop, "crop_pct": min(crop) / short}


def _sides(size: object) -> list[int]:
    if isinstance(size, int):
        return [size, size]
    if isinstance(size, Mapping) and all(isinstance(size.get(side), int) for side in ("height", "width")):
        return [size["height"], size["width"]]
    raise _Unknown(f"a size is {json.dumps(size)}")


def _scaled(told: Mapping[str, Any]) -> dict[str, Any]:
    """What becomes of the pixels."""
    factor = told.get("rescale_factor", 1 / 255) if told.get("do_rescale", True) else 1.0
    if not isinstance(factor, int | float):
        raise _Unknown(f"rescale_factor is {factor!r}")
    found: dict[str, Any] = {"raw_scale": round(255.0 * factor, 9)}
    if told.get("do_flip_channel_order"):
        found["channel_order"] = "bgr"
    if told.get("do_normalize", True):
        for key, name in (("image_mean", "mean"), ("image_std", "std")):
            if told.get(key) is None:
                raise _Unknown(f"it normalises and has no {key}")
            if isinstance(told[key], str):
                raise _Unknown(f"{key} is {told[key]!r}")
            found[name] = told[key]
    return found
