"""How images become network input: every setting of it, and the named presets that fill them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from pipeline.settings.reading import FilePath
from pipeline.settings.section import Section

Side = Annotated[int, Field(ge=1)]


def _two_sides(value: object) -> object:
    """`320`, `320x320` and `[320, 320]` are one size."""
    sides = value.lower().split("x") if isinstance(value, str) else value
    if isinstance(sides, int) and not isinstance(sides, bool):
        sides = [sides]
    if value is None:
        return None
    try:
        found = [int(side) for side in sides]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        found = []
    if len(found) not in (1, 2) or any(side < 1 for side in found):
        raise PydanticCustomError("size", "write 320, 320x320 or [320, 320]: height and width in pixels")
    return found * 2 if len(found) == 1 else found


def _numbers(value: object) -> object:
    """One number may stand for a list of one."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [value]
    if isinstance(value, list | tuple) and not all(isinstance(one, int | float | str) for one in value):
        raise PydanticCustomError("numbers", _FORMS)
    if not isinstance(value, list | tuple | str):
        raise PydanticCustomError("numbers", _FORMS)
    return value


_FORMS = "write one number or three: [104, 117, 123], as an option 104,117,123; a mean may be a .binaryproto or .npy"
Size = Annotated[tuple[Side, Side], BeforeValidator(_two_sides)]

_IMAGENET_MEAN, _IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_RGB: dict[str, Any] = {"channel_order": "rgb", "raw_scale": 1.0, "mean": [0.0], "std": [1.0]}
_NORMED = {**_RGB, "mean": _IMAGENET_MEAN, "std": _IMAGENET_STD}
_SQUARE = {"resize": "crop", "crop_pct": 0.875, "size": [224, 224]}
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "caffe": {},
        "imagenet": {**_NORMED, **_SQUARE, "interpolation": "bilinear"},
        "clip": {
            **_RGB,
            **_SQUARE,
            "crop_pct": 1.0,
            "mean": [0.48145466, 0.4578275, 0.40821073],
            "std": [0.26862954, 0.26130258, 0.27577711],
            "interpolation": "bicubic",
        },
        "dinov2": {**_NORMED, **_SQUARE, "interpolation": "bicubic"},
        "unit": {**_RGB, "interpolation": "bilinear"},
        "none": {**_RGB, "raw_scale": 255.0, "interpolation": "bilinear"},
    }
)
"""Name -> the settings in which it differs from the defaults, which are Caffe's."""
FROM_FILE, FROM_METADATA = "preprocessor_config.json", "metadata of the model"
"""In the place of a preset's name, where the model's owner says it all."""


class Preprocess(Section):
    """How image bytes become network input, in the terms of Caffe's `caffe.io.Transformer`. Every value is part of the
    fingerprint: a change computes everything anew. An ONNX net needs a preset or values of its own here, unless a
    preprocessor_config.json lies beside it or its metadata say it; other nets have Caffe's."""

    preset: str | None = Field(default=None, examples=["clip"])
    """What the net was trained with, by name; settings beside it win over the preset's. caffe: straight to the net's
    size, BGR, 0 to 255, Caffe's mean; imagenet: as torchvision and timm do; clip; dinov2; unit: RGB, 0 to 1; none: RGB,
    0 to 255, for a net that normalises by itself; or a name of [preprocess.NAME]."""
    resize: Literal["direct", "crop"] = "direct"
    """How an image gets the net's size. direct: it is resized to that size whatever its shape; crop: its short side is
    resized to resize_to, then the centre is cut out. Use what the net was trained with."""
    resize_to: Annotated[int, Field(ge=1, le=4096)] = 256
    """crop: the length of the short side before the centre is cut out, pixels."""
    crop_pct: Annotated[float, Field(gt=0, le=1)] | None = Field(default=None, examples=[0.875])
    """crop: the net's size as a share of the short side, instead of resize_to: 0.875 is 224 of 256, at any size."""
    size: Size | None = Field(default=None, examples=[[224, 224]])
    """Height and width where neither input_size of the set nor the net says one, pixels. Set it for a net of free size
    that was trained with one."""
    interpolation: Literal["fast", "nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = "fast"
    """How pixels are resized. fast: OpenCV's cubic, softened where it shrinks; the others are Pillow's, which do not
    alias, as torchvision and Hugging Face use them. Use what the net was trained with; Caffe nets do not mind."""
    layout: Literal["auto", "nchw", "nhwc"] = "auto"
    """The order of axes that the net takes: channels before or after height and width. auto: as the net declares it,
    nchw where it declares neither."""
    channel_order: Literal["bgr", "rgb"] = "bgr"
    """The order of colours that the net was trained with: bgr for most Caffe nets, rgb for most others."""
    raw_scale: float = 255.0
    """The range of pixels before the mean is subtracted: 0 to raw_scale. 255 for Caffe nets, 1 for most others."""
    mean: Annotated[list[float] | FilePath, BeforeValidator(_numbers)] = [104.0, 117.0, 123.0]
    """The mean that is subtracted: one value for each channel in channel_order, or a .binaryproto or .npy file. Use
    what the net was trained with."""
    std: Annotated[list[float], BeforeValidator(_numbers)] = [1.0, 1.0, 1.0]
    """The divisor after the mean, one value for each channel in channel_order. Most ONNX models need it; Caffe nets do
    not."""
    input_scale: float = 1.0
    """The factor at the end, as Caffe's Transformer.set_input_scale. Change it only where the net was trained with
    one."""
    reduced_decode: bool = True
    """Let the JPEG decoder skip detail that the resize would drop (1/2, 1/4, 1/8): several times faster. Turn it off to
    get exactly the pixels of a full decode; features change a little."""
    max_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    """The most pixels of an image; a larger one fails with `too_many_pixels` before memory is taken for it. Raise it
    for huge originals; memory grows with it."""
    damaged: Literal["keep", "fail"] = "keep"
    """What happens to a damaged JPEG that has its end marker, where a part of the picture is missing.
    keep: it gets a feature of the part that can be seen, and summary and report count it; fail: it becomes a failure
    (`truncated`) and is tried again. Use fail where a feature of half a picture is worse than none; no other feature
    changes."""

    @model_validator(mode="before")
    @classmethod
    def _begin_with_the_preset(cls, values: Any) -> Any:
        """Values without a preset change Caffe's, and so state it; a preset fills what is not given."""
        if not isinstance(values, Mapping):
            return values
        states = bool(values.keys() & _STATING)
        if "preset" not in values:
            return {**values, "preset": "caffe"} if states else values
        preset = values["preset"]
        if preset in (FROM_FILE, FROM_METADATA):
            return values if states else {**values, "preset": None}  # it is looked for anyway
        return over(PRESETS.get(preset, {}), values) if isinstance(preset, str) else values

    def short_side(self, size: tuple[int, int]) -> int:
        """crop: what the short side is resized to for a net of (height, width), pixels."""
        return self.resize_to if self.crop_pct is None else round(min(size) / self.crop_pct)


_STATING = frozenset(Preprocess.model_fields) - {"preset", "size", "reduced_decode", "max_pixels", "damaged"}
"""Settings whose presence says that somebody has thought of how the net was trained."""


def over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a table over those of its preset."""
    found = {**below, **above}
    if "resize_to" in above and "crop_pct" not in above:
        found["crop_pct"] = None  # the two say one thing
    return found


def with_own_presets(values: Any) -> Any:
    """The settings as a tree, each set that names a table of [preprocess] filled from it.

    Raises for a name that is no preset, and for a table that is called as one that is built in.
    """
    if not isinstance(values, Mapping):
        return values
    own, sets = values.get("preprocess") or {}, values.get("sets") or {}
    if not isinstance(own, Mapping) or not isinstance(sets, Mapping):
        return values
    for name in own:
        if name in PRESETS:
            raise PydanticCustomError(
                "preset_taken", "a preset of this name is built in; choose another", {"parts": ["preprocess", name]}
            )
    filled = {}
    for name, one in sets.items():
        how = one.get("preprocess") if isinstance(one, Mapping) else None
        preset = how.get("preset") if isinstance(how, Mapping) else None
        if isinstance(how, Mapping) and isinstance(preset, str) and preset not in (*PRESETS, FROM_FILE, FROM_METADATA):
            if not isinstance(own.get(preset), Mapping):
                raise PydanticCustomError(
                    "unknown_preset",
                    "no such preset; there are: {known}, or a table [preprocess.NAME] of your own",
                    {"known": ", ".join([*PRESETS, *own]), "parts": ["sets", name, "preprocess", "preset"]},
                )
            table = dict(own[preset])
            below = PRESETS.get(str(table.pop("preset", "caffe")), {})
            one = {**one, "preprocess": over(over(below, table), how)}
        filled[name] = one
    return {**values, "sets": filled}
