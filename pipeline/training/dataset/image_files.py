"""Image files of a list as examples: what Caffe's convert_imageset puts into a database."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipeline.codec import caffe_pb2
from pipeline.errors import ConfigError, FormatError
from pipeline.training.data import pixels
from pipeline.training.data.image_list import read_list
from pipeline.training.dataset.examples import Example
from pipeline.training.draws.shuffling import CaffesOrders


@dataclass(frozen=True, slots=True)
class How:
    """What is done with each file.

    root: stands before each path, as it is.  size: (height, width) to resize to.  shuffle: a seed of the order, or
    None: the list's.  encode: None: pixels; "": encoded, in the form that the file's name ends with; else in this form.
    same_size: the first image decides the size of all.
    """

    root: str = ""
    size: tuple[int, int] | None = None
    colour: bool = True
    shuffle: int | None = None
    encode: str | None = None
    same_size: bool = False


def examples(path: Path, how: How, skip: Callable[[str, str], None] | None = None) -> Iterator[Example]:
    """The files of a list (`path label` a line), keyed by their number in the order and their path.

    skip: told the path and the reason of a file that is left out; its number stays unused, as in Caffe.  Without it,
    such a file is a FormatError.  Raises SolverError for a list that cannot be read.
    """
    names, labels = read_list(path, "the list")
    order = range(len(names)) if how.shuffle is None else CaffesOrders(how.shuffle, len(names)).order(0).tolist()
    first: int | None = None
    for number, at in enumerate(order):
        try:
            datum = _datum(names[at], labels[at], how)
            size = len(datum.data)
            if how.same_size and not datum.encoded:
                first = size if first is None else first
                if size != first:
                    raise pixels.Undecodable(f"it has {size} bytes of pixels; the first image has {first}")
        except pixels.Undecodable as error:
            if skip is None:
                hint = "repair or remove it; --skip leaves such files out"
                raise FormatError(f"the image '{names[at]}' cannot be used", str(error), hint) from error
            skip(names[at], str(error))
            continue
        yield Example(b"%08d_" % number + os.fsencode(names[at]), datum)


def _datum(name: str, label: int, how: How) -> caffe_pb2.Datum:
    try:
        content = Path(how.root + name).read_bytes()
    except (OSError, ValueError) as error:
        raise pixels.Undecodable(f"the file cannot be read: {getattr(error, 'strerror', None) or error}") from error
    image = pixels.decode(content, how.colour, how.size)
    if pixels.torn(content):
        raise pixels.Undecodable(pixels.TORN)
    channels, height, width = image.shape
    ending = name.rpartition(".")[2].lower() if "." in name else ""
    if how.encode is None:
        return caffe_pb2.Datum(
            channels=channels, height=height, width=width, data=image.tobytes(), label=label, encoded=False
        )
    kind = how.encode or ending
    if (channels == 3) == how.colour and how.size is None and (ending == kind or (kind, ending) == ("jpg", "jpeg")):
        return caffe_pb2.Datum(data=content, label=label, encoded=True)
    return caffe_pb2.Datum(
        channels=channels, height=height, width=width, data=_encoded(image, kind), label=label, encoded=True
    )


def _encoded(image: pixels.Pixels, kind: str) -> bytes:
    try:
        done, content = cv2.imencode(f".{kind}", np.ascontiguousarray(image.transpose(1, 2, 0)))
    except cv2.error as error:
        raise ConfigError(f"OpenCV encodes no '{kind}'", str(error.err), "give --encode jpg or --encode png") from error
    if not done:
        raise ConfigError(f"OpenCV could not encode an image as '{kind}'", "", "give --encode jpg or --encode png")
    return bytes(content)
