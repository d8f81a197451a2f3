"""What Hathi computes from an image, and where it delivers the feature."""

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
    """How image bytes become network input, in the terms of Caffe's `caffe.io.Transformer`. Every value is part of the
    fingerprint: a change computes everything anew."""

    resize: Literal["direct", "crop"] = "direct"
    """How an image gets the net's size. direct: it is resized to that size whatever its shape; crop: its short side is
    resized to resize_to, then the centre is cut out. Use what the net was trained with."""
    resize_to: Annotated[int, Field(ge=1, le=4096)] = 256
    """crop: the length of the short side before the centre is cut out, pixels."""
    channel_order: Literal["bgr", "rgb"] = "bgr"
    """The order of colours that the net was trained with: bgr for most Caffe nets, rgb for most others."""
    raw_scale: float = 255.0
    """The range of pixels before the mean is subtracted: 0 to raw_scale. 255 for Caffe nets, 1 for most others."""
    mean: list[float] | FilePath = [104.0, 117.0, 123.0]
    """The mean that is subtracted: one value for each channel in channel_order, or a .binaryproto or .npy file. Use
    what the net was trained with."""
    std: list[float] = [1.0, 1.0, 1.0]
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


class FeatureSet(Section):
    """What Hathi computes, and where it delivers the features."""

    net: FilePath = Field(examples=["deploy.prototxt"])
    """The net: a deploy .prototxt, an .onnx model, or `hog` (OpenCV's descriptor, which needs no weights)."""
    weights: FilePath | None = Field(default=None, examples=["x.caffemodel"])
    """The .caffemodel of a .prototxt. Leave it out for ONNX, whose model holds its weights, and for hog."""
    blob: str = Field(examples=["fc7"])
    """The blob of the net, or the output of the ONNX model, whose values are the feature. `hathi net show` lists
    them."""
    input_size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = Field(
        default=None, examples=[[227, 227]]
    )
    """Height and width of the net's input, pixels. none: the size that the net declares; set it where the net declares
    no fixed size."""
    preprocess: Preprocess = Preprocess()
    normalise: Literal["l2", "none"] = "l2"
    """l2: each feature is divided by its length, so that dot products are cosines. none: the values stay as
    the net computes them."""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """The net's arithmetic; part of the fingerprint. bf16 and fp16 are faster where the device has them and change
    features a little."""
    engine: Literal["auto", "openvino", "onnxruntime", "torch", "pycaffe"] = "auto"
    """The library that runs the net. auto: the fastest that is installed. Name one to be sure that every box uses the
    same."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    """Images in one forward pass; the last pass is padded, so the bits of a feature do not depend on other images.
    Raise it on a GPU; lower it where memory is short."""
    dependent_rows: Literal["refuse", "alone"] = "refuse"
    """What happens to a net whose rows depend on each other, for example by statistics of the batch: an image would get
    another feature when other images are in its batch. refuse: the net is not loaded; alone: each image gets a pass of
    its own, which is slower. `alone` is part of the fingerprint. A net that draws random numbers is always refused."""
    root: RootPath = Field(examples=["features"])
    """The folder on the lake where features are delivered, relative to the lake. Each set needs its own folder."""
    lakes: list[str] | None = Field(default=None, examples=[["main"]])
    """The lakes whose refs this set takes. none: all of them."""
    formats: Annotated[list[Literal["text", "parquet", "libsvm"]], Field(min_length=1)] = ["text", "parquet"]
    """The forms in which features are delivered. parquet; text: a line `partner item v1 ... vN` of integers,
    round(1e6 * v); libsvm: a line `item index:value ...` without zeros, for programs that train. Each form holds all
    features: leave out the forms that nobody reads. `hathi compact` and `read_features` need parquet."""

    parquet_numbers: Numbers = "float32"
    """The type of the numbers in Parquet. float16 takes half the room, rounds each value to 11 bits, and not every
    reader of Parquet knows it; the net computes as before, so the fingerprint stays. Each delivery's manifest says
    which type it has. float16 needs normalise = "l2": it holds nothing beyond 65,504."""

    @property
    def folder(self) -> str:
        """The root as a path of the lake, without slashes at its ends."""
        return self.root.strip("/")
