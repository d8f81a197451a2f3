"""A dataset -> what a net's shapes ask of it, by the headers of its images."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import FormatError
from pipeline.images import jpeg, png
from pipeline.images.broken import Broken
from pipeline.images.formats import sniff
from pipeline.service.specification.words import Data
from pipeline.training.data import pixels
from pipeline.training.dataset.shards import batches, read_manifest

_ANY_SIZE = 2**62
_GREY = (0, 4)
"""PNG's kinds of pixels without colour."""


def data_of(dataset: Path) -> Data:
    """Reads the head of every JPEG and PNG, and decodes what is neither.

    dataset: of images.  Raises FormatError for one that is damaged, or of features.
    """
    manifest = read_manifest(dataset)
    if manifest.kind != "images":
        raise FormatError(f"the dataset {dataset} holds {manifest.kind}", "", "give one of images")
    shapes: set[tuple[int, int, int]] = set()
    for batch in batches(dataset, columns=["key", "channels", "height", "width", "encoded", "data"]):
        for row in batch.to_pylist():
            plain = row["channels"], row["height"], row["width"]
            shapes.add(_encoded(row["data"], row["key"]) if row["encoded"] else plain)
    channels, height, width = (one.pop() if len(one) == 1 else 0 for one in map(set, zip(*shapes, strict=True)))
    sides = {name: one.examples for name, one in manifest.sides.items()}
    return Data(len(manifest.labels), channels, height, width, sides or {"train": manifest.examples})


def _encoded(content: bytes, key: bytes) -> tuple[int, int, int]:
    """(channels, height, width) as a data layer decodes it."""
    kind = sniff(content[:64])
    try:
        if kind == "png":
            head = png.read_header(content, _ANY_SIZE)
            return (1 if head.colour in _GREY else 3), head.height, head.width
        if kind == "jpeg":
            seen = jpeg.read_header(content, _ANY_SIZE)
            return (1 if seen.colours == "Gray" else 3), seen.height, seen.width
        found = pixels.decode(content, None).shape
    except (Broken, pixels.Undecodable) as error:
        raise FormatError(f"the image {key!r} of the dataset is damaged", str(error), "import it again") from error
    return found[0], found[1], found[2]
