"""What Hathi computes from an image, and where it delivers the feature."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from pipeline.records import Numbers
from pipeline.settings.places import RootPath
from pipeline.settings.preprocessing import Preprocess, Size
from pipeline.settings.reading import FilePath
from pipeline.settings.section import Name, Section

DECODE_POLICY = "3"
"""What decoding and resizing do to an image; raised when their pixels change, which changes every fingerprint."""
HOG, IMAGE = "hog", "image"
BUILT_IN = frozenset({HOG, IMAGE})
"""Nets that are no files."""
_OF_VALUES = (
    "weights", "input_size", "pool", "normalise", "precision", "engine", "dependent_rows", "parquet_numbers",
)  # fmt: skip
_OF_IMAGES = ("short_side", "quality")
_PREPARED = frozenset({"max_pixels", "damaged", "reduced_decode"})
"""What of preprocessing has a meaning where no net follows."""


def is_built_in(net: str) -> bool:
    """Whether a set's net is no file."""
    return PurePath(net).name in BUILT_IN


class FeatureSet(Section):
    """What Hathi computes, and where it delivers the features."""

    net: FilePath = Field(examples=["deploy.prototxt"])
    """The net: a deploy .prototxt, an .onnx model, `hog` (OpenCV's descriptor, which needs no weights), or `image`: the
    set keeps the images themselves, to train with. Leave it out where the set has a model."""
    weights: FilePath | None = Field(default=None, examples=["x.caffemodel"])
    """The .caffemodel of a .prototxt. Leave it out for ONNX, whose model holds its weights, and for hog."""
    model: Name | None = Field(default=None, examples=["shoes"])
    """In the place of net and weights: the name of a model that `hathi promote` puts into use. Each host fetches the
    files of the newest promotion from the bucket, and what is shipped from then on is computed with them."""
    blob: str = Field(examples=["fc7"])
    """The blob of the net, or the output of the ONNX model, whose values are the feature. `hathi net show` lists
    them. Leave it out for `image`."""
    input_size: Size | None = Field(default=None, examples=[[227, 227]])
    """Height and width of the net's input, pixels. none: the size that the net declares; set it where the net declares
    no fixed size and the preset has none."""
    preprocess: Preprocess = Preprocess()
    pool: Literal["flatten", "mean", "max"] = "flatten"
    """What becomes of a blob with height and width (C x H x W). flatten: all its values are the feature; mean, max: one
    value for each channel. mean and max are part of the fingerprint."""
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
    short_side: Annotated[int, Field(ge=0, le=4096)] = 256
    """`image`: an image whose short side is longer becomes a JPEG of this short side, pixels; a smaller one keeps its
    size. 0: the bytes as they were fetched, in the form that they have. Part of the fingerprint."""
    quality: Annotated[int, Field(ge=1, le=100)] = 90
    """`image`: of the JPEG; higher is larger and closer to what was fetched. Part of the fingerprint."""
    reuse: bool = True
    """Whether an image that did not change is computed once only: hosts are asked what changed since it was fetched,
    and an image that they do not send, or send with the same bytes, gets the feature that it has under the same
    fingerprint. Turn it off where hosts say wrongly that nothing changed, or where the bucket is short of space: it
    keeps each feature once more."""
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

    @model_validator(mode="before")
    @classmethod
    def _names_files_or_a_model(cls, values: Any) -> Any:
        """Exactly one of the two.  A set that has a model names no net: its net is empty."""
        if not isinstance(values, Mapping) or values.get("model") is None:
            return values
        both = [name for name in ("net", "weights") if values.get(name)]
        if both:
            raise PydanticCustomError(
                "net_and_model",
                "a set has either a net with its weights, or a model, whose files `hathi promote` puts into use; "
                "this one has {both} and model: remove one of them",
                {"both": " and ".join(both)},
            )
        return {**values, "net": ""}

    @model_validator(mode="before")
    @classmethod
    def _of_images(cls, values: Any) -> Any:
        """A set that keeps images has one blob and one form."""
        if not isinstance(values, Mapping) or PurePath(str(values.get("net"))).name != IMAGE:
            return values
        return {"blob": IMAGE, "formats": ["parquet"], **values}

    def mute(self) -> tuple[list[str], str] | None:
        """A setting that changes nothing of this set, as its path in the set, and why; None where there is none."""
        keeps = self.keeps_images
        why = 'it has no meaning where net = "image"' if keeps else 'it is for net = "image" only'
        for name in _OF_VALUES if keeps else _OF_IMAGES:
            if getattr(self, name) != type(self).model_fields[name].default:
                return [name], why
        if keeps and self.blob != IMAGE:
            return ["blob"], why
        if keeps and self.formats != ["parquet"]:
            return ["formats"], "images are delivered as Parquet alone"
        # By value: of settings that came from another process every one is set.
        how, usual = self.preprocess, Preprocess()
        asked = [name for name in Preprocess.model_fields if getattr(how, name) != getattr(usual, name)]
        strange = sorted(set(asked) - _PREPARED - {"preset"}) if keeps else []
        return (["preprocess", strange[0]], why) if strange else None

    @property
    def keeps_images(self) -> bool:
        """Whether it delivers images in the place of features."""
        return PurePath(self.net).name == IMAGE

    @property
    def folder(self) -> str:
        """The root as a path of the lake, without slashes at its ends."""
        return self.root.strip("/")
