"""What is computed of an image, and where it goes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.records import Numbers
from pipeline.settings.places import RootPath
from pipeline.settings.reading import FilePath
from pipeline.settings.section import Section

DECODE_POLICY = "3"
"""What decoding and resizing do to an image; raised when their pixels change, which changes every fingerprint."""


class Preprocess(Section):
    """Image bytes -> network input, in the terms of Caffe's `caffe.io.Transformer`. All of it is part of the
    fingerprint."""

    resize: Literal["direct", "crop"] = "direct"
    """How an image gets the net's size. direct: straight to it, whatever its shape; crop: the short side to
    resize_to, then the centre is cut out. Take what the net was trained with."""
    resize_to: Annotated[int, Field(ge=1, le=4096)] = 256
    """crop: the length of the short side before the centre is cut out, pixels."""
    channel_order: Literal["bgr", "rgb"] = "bgr"
    """The order of colours that the net was trained with: bgr for most Caffe nets, rgb for most others."""
    raw_scale: float = 255.0
    """Pixels run from 0 to raw_scale before the mean is taken off: 255 for Caffe nets, 1 for most others."""
    mean: list[float] | FilePath = [104.0, 117.0, 123.0]
    """What is subtracted: one value for each channel in channel_order, or a .binaryproto or .npy file."""
    std: list[float] = [1.0, 1.0, 1.0]
    """What is divided by after the mean, one value for each channel in channel_order. ONNX backbones want it."""
    input_scale: float = 1.0
    """What is multiplied by at the end, as Caffe's Transformer.set_input_scale."""
    reduced_decode: bool = True
    """Let the JPEG decoder leave out detail that the resize would drop (1/2, 1/4, 1/8): several times faster. Turn
    it off for exactly the pixels of a full decode; features change a little."""
    max_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    """An image that declares more pixels is refused with `too_many_pixels` before memory is taken for it."""
    damaged: Literal["keep", "fail"] = "keep"
    """What a JPEG gets that is damaged but has its end marker, so that a part of the picture is missing.
    keep: a feature of what can be seen, which summary and report count; fail: a failure (truncated), tried again.
    Use fail where a feature of half a picture is worse than none; no other feature changes."""


class FeatureSet(Section):
    """What is computed, and where it is delivered."""

    net: FilePath = Field(examples=["deploy.prototxt"])
    """A deploy .prototxt, an .onnx model, or `hog`: OpenCV's descriptor, which needs no weights."""
    weights: FilePath | None = Field(default=None, examples=["x.caffemodel"])
    """The .caffemodel of a .prototxt; none for ONNX."""
    blob: str = Field(examples=["fc7"])
    """The blob of the net, or the output of the ONNX model, that is the feature. `hathi net show` lists them."""
    input_size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = Field(
        default=None, examples=[[227, 227]]
    )
    """Height and width that the net is fed, pixels. none: what it declares; set it where it declares any size."""
    preprocess: Preprocess = Preprocess()
    normalise: Literal["l2", "none"] = "l2"
    """l2: each feature is divided by its length, so that dot products are cosines. none: as the net computes it."""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """The net's arithmetic; part of the fingerprint. bf16 and fp16 are faster where the device has them and change
    features a little."""
    engine: Literal["auto", "openvino", "onnxruntime", "torch", "pycaffe"] = "auto"
    """What runs the net. auto: the fastest that is installed; name one to be sure that every box uses the same."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    """Images in one forward pass; the last pass is padded, so the bits of a row do not depend on its neighbours.
    Raise it on a GPU; lower it where memory is short."""
    dependent_rows: Literal["refuse", "alone"] = "refuse"
    """A net whose rows depend on each other (by statistics of the batch, say) gives an image another feature when
    others stand beside it.  refuse: such a net is not loaded; alone: each image has a pass of its own, which is slower.
    Part of the fingerprint when it is alone.  A net that draws random numbers is refused always."""
    root: RootPath = Field(examples=["features"])
    """The folder on the lake where features are delivered, relative to the lake. Each set needs one of its own."""
    lakes: list[str] | None = Field(default=None, examples=[["main"]])
    """The lakes whose refs this set takes. none: all of them."""
    formats: Annotated[list[Literal["text", "parquet", "libsvm"]], Field(min_length=1)] = ["text", "parquet"]
    """What is delivered, beside failures: parquet; text, a line `partner item v1 ... vN` of integers, round(1e6 * v);
    libsvm, a line `item index:value ...` without zeros, for programs that learn from it. Each holds all features, so
    leave out what nobody reads. `hathi compact` and `read_features` need parquet."""

    parquet_numbers: Numbers = "float32"
    """The type of the numbers in Parquet. float16 takes half the room, rounds each value to 11 bits, and not every
    reader of Parquet knows it; the net computes as before, so the fingerprint stays. Each delivery's manifest says
    which type it has. float16 needs normalise = "l2": it holds nothing beyond 65,504."""

    @property
    def folder(self) -> str:
        """The root as a path of the lake, without slashes at its ends."""
        return self.root.strip("/")
