"""A few small pictures of each label of a dataset, as a file beside its shards: what a person sees of it at once."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.training.data import pixels
from pipeline.training.dataset.shards import batches
from pipeline.training.predictions.pictures import is_picture, picture

FILE = "thumbnails.json"
EACH, SIDE = 4, 40
"""Pictures of a label, and pixels of their longer side."""
LABELS = 200
"""Of more labels the first have pictures."""
PICTURE_BYTES = 2**20
"""Of all of them together; what no longer fits is left out."""


def thumbnails(dataset: Path, names: Mapping[int, str]) -> dict[str, list[str]]:
    """By label the base64 of PNGs made anew, of the first examples that the shards have of it.

    dataset: of images that can be decoded; one that cannot has no picture.  names: of the labels.
    """
    found: dict[str, list[str]] = {names[number]: [] for number in sorted(names)[:LABELS]}
    left = PICTURE_BYTES
    for batch in batches(dataset, columns=["label", "channels", "height", "width", "encoded", "data"]):
        if all(len(some) == EACH for some in found.values()):
            break
        for row in batch.to_pylist():
            some = found.get(names[row["label"]])
            content = _small(row) if some is not None and len(some) < EACH else b""
            if some is not None and content and len(content) <= left:
                some.append(base64.b64encode(content).decode())
                left -= len(content)
    return found


def _small(row: Mapping[str, Any]) -> bytes:
    """A PNG; b"" of what is no picture."""
    try:
        if row["encoded"]:
            image = pixels.decode(row["data"], None)
        else:
            shape = row["channels"], row["height"], row["width"]
            image = np.frombuffer(row["data"], np.uint8).reshape(shape)
    except pixels.Undecodable:
        return b""
    return picture(image.astype(np.float32), None, SIDE) if is_picture((1, *image.shape)) else b""
