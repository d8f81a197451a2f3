"""Caffe's ImageData layer: image files of a list, `path label` a line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from pipeline.amounts import counted
from pipeline.codec import caffe_pb2
from pipeline.errors import FormatError, SolverError
from pipeline.nets.graph.lowered import Shape
from pipeline.training.data import pixels
from pipeline.training.data.buffers import Buffers
from pipeline.training.data.examples import Cropped, examined, sizes_of
from pipeline.training.data.source import Batch, Labels, Trouble
from pipeline.training.data.transform import Transform, Unfit, transform_of, unfit
from pipeline.training.draws.draws import Draws
from pipeline.training.draws.shuffling import Orders

_WHOLE = re.compile(r"[+-]?\d{1,9}\s*")
_NAMED = 5  # lines in an error


class ImageList:
    """An ImageData layer as a source.

    `shuffle` orders the whole list anew in each turn through it; `rand_skip` begins the first turn later.
    """

    in_order = False

    def __init__(self, spec: caffe_pb2.LayerParameter, train: bool, draws: Draws, folder: Path) -> None:
        given = self._given = spec.image_data_param
        self.layer, self._tops = spec.name, list(spec.top)
        self._where = f"layer '{spec.name}' (ImageData)"
        if given.batch_size < 1:
            raise SolverError(f"{self._where}: batch_size is {given.batch_size}", "", "give 1 or more")
        if (given.new_height > 0) != (given.new_width > 0):
            raise SolverError(f"{self._where}: new_height and new_width are not both given", "", "give both, or none")
        self._size = (given.new_height, given.new_width) if given.new_height else None
        self._folder = folder
        self._paths, self._labels = read_list(folder / given.source, f"layer '{spec.name}': image_data_param.source")
        self.count = len(self._paths)
        self.transform: Transform | None = transform_of(spec, train, folder)
        self._examples = Cropped(spec.name, self.transform, draws)
        self._orders: Orders | None = draws.orders(draws.word(spec.name), self.count) if given.shuffle else None
        self._skipped = draws.word(spec.name) % given.rand_skip if given.rand_skip else 0
        if self._skipped >= self.count:
            raise SolverError(
                f"{self._where}: rand_skip leaves out all examples",
                f"the list holds {self.count}, and {self._skipped} are left out",
                "give a rand_skip of at most the list's length",
            )
        self._examples.settle()
        shape = self._first_shape()
        self.shapes: dict[str, Shape] = {self._tops[0]: (given.batch_size, *shape), self._tops[1]: (given.batch_size,)}
        resized = self.transform.crop > 0 or self._size is not None
        self.sizes = sizes_of(self.shapes[self._tops[0]], resized)
        self._buffers = Buffers(self.shapes[self._tops[0]])

    def _first_shape(self) -> Shape:
        (first,) = self._numbers(0, 1)
        try:
            return self._examples.transform.shape(self._image(first).shape)
        except Unfit as error:
            raise unfit(self._given.source, self._paths[first], str(error)) from error

    def _numbers(self, start: int, count: int) -> list[int]:
        """The places in the list of these examples, counted from the beginning of the training."""
        places = [divmod(self._skipped + at, self.count) for at in range(start, start + count)]
        if self._orders is None:
            return [at for _, at in places]
        orders = {turn: self._orders.order(turn) for turn in sorted({turn for turn, _ in places})}
        return [int(orders[turn][at]) for turn, at in places]

    def batch(self, number: int) -> Batch:
        size = self._given.batch_size
        images = self._buffers.take() if not self.sizes.vary else None
        words = self._examples.words(number * size, size)
        numbers = self._numbers(number * size, size)
        for at, example in enumerate(numbers):
            try:
                image = self._image(example)
                if images is None:
                    images = np.empty((1, *self._examples.transform.shape(image.shape)), np.float32)
                self._examples.put(image, words[at], images[at])
            except Unfit as error:
                raise unfit(self._given.source, self._paths[example], str(error)) from error
        assert images is not None
        return {self._tops[0]: images, self._tops[1]: np.array([self._labels[at] for at in numbers], np.float32)}

    def keys(self, number: int) -> list[str]:
        size = self._given.batch_size
        return [self._paths[at] for at in self._numbers(number * size, size)]

    def _content(self, example: int) -> bytes:
        try:
            return Path(self._folder, self._given.root_folder + self._paths[example]).read_bytes()
        except (OSError, ValueError) as error:
            raise Unfit(f"the file cannot be read: {getattr(error, 'strerror', None) or error}") from error

    def _image(self, example: int, content: bytes | None = None) -> pixels.Pixels:
        try:
            return pixels.decode(content or self._content(example), self._given.is_color, self._size)
        except pixels.Undecodable as error:
            raise Unfit(str(error)) from error

    def examine(self, labels: Mapping[str, Labels], examples: range) -> Iterator[Trouble]:
        wanted, expected = labels.get(self._tops[1]), self.sizes
        for at in examples:
            path = self._paths[at]
            try:
                content = self._content(at)
                image = self._image(at, content)
                yield from examined(path, self._examples.transform, image, expected, self._labels[at], wanted)
                if pixels.torn(content):
                    yield Trouble(path, pixels.TORN)
            except Unfit as error:
                yield Trouble(path, str(error))

    def close(self) -> None:
        pass


def read_list(path: Path, field: str) -> tuple[list[str], list[int]]:
    """The paths and labels of a list: a line is cut at its last space.

    Raises SolverError, which names the field, for no file, an empty list, and labels that are no whole numbers: Caffe
    takes 0 or a part of them without a word.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise SolverError(f"{field}: {path} cannot be read", error.strerror or str(error), "give a list") from error
    if not lines[-1]:
        lines.pop()
    paths: list[str] = []
    labels: list[int] = []
    wrong: list[str] = []
    for number, line in enumerate(lines, start=1):
        name, _, label = os.fsdecode(line).rpartition(" ")
        if name and _WHOLE.fullmatch(label):
            paths.append(name)
            labels.append(int(label))
        else:
            wrong.append(f"line {number}: {os.fsdecode(line).strip()[:80]!r}")
    if wrong:
        more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise FormatError(
            f"{field}: {path} has {counted(len(wrong), 'line')} other than `path label` with a whole label",
            "; ".join(wrong[:_NAMED]) + more,
            "for other labels use HDF5Data",
        )
    if not paths:
        raise SolverError(f"{field}: the list {path} is empty", "", "fill it before you train")
    return paths, labels
