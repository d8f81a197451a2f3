"""What is computed of an image, and where it goes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.configuration import FilePath
from pipeline.settings.places import RootPath
from pipeline.settings.section import Section

DECODE_POLICY = "3"
"""What decoding and resizing do to an image; raised when their pixels change, which changes every fingerprint."""


class Preprocess(Section):
    """Image bytes -> network input, in the terms of Caffe's `caffe.io.Transformer`."""

    resize: Literal["direct", "crop"] = "direct"
    """direct: straight to the net's input size; crop: the short side to resize_to, then the centre."""
    resize_to: Annotated[int, Field(ge=1, le=4096)] = 256
    """crop: length of the short side before the centre is cut out."""
    channel_order: Literal["bgr", "rgb"] = "bgr"
    """The order that the net was trained with."""
    raw_scale: float = 255.0
    """Pixels run from 0 to raw_scale before the mean is taken off (Caffe's nets: 255)."""
    mean: list[float] | FilePath = [104.0, 117.0, 123.0]
    """One value a channel in channel_order, or a .binaryproto or .npy file."""
    std: list[float] = [1.0, 1.0, 1.0]
    """Divides after the mean, one value a channel (ONNX backbones)."""
    input_scale: float = 1.0
    """Multiplies last, as Transformer.set_input_scale."""
    reduced_decode: bool = True
    """Let the JPEG decoder leave out detail that the resize would drop (1/2, 1/4, 1/8)."""
    max_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    """An image that declares more is refused before its pixels are allocated."""
    damaged: Literal["keep", "fail"] = "keep"
    """What a JPEG gets that is damaged but has its end marker, so that a part of the picture is missing.
    keep: a feature of what can be seen, which summary and report count; fail: a failure (truncated), tried again.
    Use fail where a feature of half a picture is worse than none; no other feature changes."""


class FeatureSet(Section):
    """What is computed, and where it is delivered."""

    net: FilePath
    """A deploy .prototxt, an .onnx model, or `hog`: OpenCV's descriptor, which needs no weights."""
    weights: FilePath | None = None
    """A .caffemodel; none for ONNX."""
    blob: str
    """The blob (or ONNX output) that is the feature."""
    input_size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None
    """Height and width that the net is fed; what it declares when absent."""
    preprocess: Preprocess = Preprocess()
    normalise: Literal["l2", "none"] = "l2"
    """l2: each feature is divided by its length."""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """Of the net's arithmetic; part of the fingerprint."""
    engine: Literal["auto", "openvino", "onnxruntime", "torch", "pycaffe"] = "auto"
    """What runs the net; auto: the fastest that is here."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    """Images in one forward pass; the last pass is padded, so a row's bits do not depend on its neighbours."""
    dependent_rows: Literal["refuse", "alone"] = "refuse"
    """A net whose rows depend on each other (by statistics of the batch, say) gives an image another feature when
    others stand beside it.  refuse: such a net is not loaded; alone: each image has a pass of its own, which is slower.
    Part of the fingerprint when it is alone.  A net that draws random numbers is refused always."""
    root: RootPath
    """Where features are delivered, relative to the lake."""
    lakes: list[str] | None = None
    """Lakes whose refs this set takes; all of them when absent."""
    formats: Annotated[list[Literal["text", "parquet"]], Field(min_length=1)] = ["text", "parquet"]
    """What is delivered: text (cnn_features.txt.gz) and Parquet."""
