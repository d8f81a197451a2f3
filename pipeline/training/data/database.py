"""Caffe's Data layer: Datums of an LMDB or a LevelDB by their keys, or of a dataset of ours, over and over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.codec import caffe_pb2
from pipeline.errors import SolverError
from pipeline.nets.graph.lowered import Shape
from pipeline.settings.places import folder_of
from pipeline.training.data import datums, pixels
from pipeline.training.data.buffers import Buffers
from pipeline.training.data.examples import Cropped, examined, sizes_of
from pipeline.training.data.parquet import is_dataset, open_dataset, open_remote
from pipeline.training.data.raw import SMALL, Raw
from pipeline.training.data.reach import NOWHERE, Reach, is_remote
from pipeline.training.data.records import Records, key_text, open_leveldb, open_lmdb
from pipeline.training.data.source import Batch, Labels, Trouble
from pipeline.training.data.transform import Float32s, Transform, Unfit, transform_of, unfit
from pipeline.training.draws.draws import Draws
from pipeline.training.draws.words import Uint32s


class Database:
    """A Data layer as a source.  picture: the shape of its first example before the transformation."""

    in_order = False
    transform: Transform | None

    def __init__(
        self, spec: caffe_pb2.LayerParameter, train: bool, draws: Draws, folder: Path, reach: Reach = NOWHERE
    ) -> None:
        given = spec.data_param
        self.layer, self._spec = spec.name, spec
        field = f"layer '{spec.name}': data_param.source"
        if given.batch_size < 1:
            raise SolverError(f"layer '{spec.name}' (Data): batch_size is {given.batch_size}", "", "give 1 or more")
        transform = self.transform = transform_of(spec, train, folder)
        self._records = _opened(given, folder, field, reach)
        self.count = len(self._records.keys)
        if not self.count:
            self._records.close()
            raise SolverError(f"{field}: {given.source} is empty", "it holds no record", "fill it before you train")
        self._examples = Cropped(spec.name, transform, draws)
        self._examples.settle()
        self._raw: Raw | None = None
        shape = self._first_shape()
        self.shapes: dict[str, Shape] = {spec.top[0]: (given.batch_size, *shape)}
        if len(spec.top) > 1:
            self.shapes[spec.top[1]] = (given.batch_size,)
        self.sizes = sizes_of(self.shapes[spec.top[0]], transform.crop > 0)
        self._buffers = Buffers(self.shapes[spec.top[0]])

    def _first_shape(self) -> Shape:
        try:
            first = datums.parse(next(self._records.read([0])))
            image = self._image(first)
            self.picture: Shape = image.shape
            if not first.encoded and image.dtype == np.uint8 and image.size <= SMALL:
                self._raw = Raw(image.shape)
            return self._examples.transform.shape(image.shape)
        except Unfit as error:
            raise unfit(str(self._records.path), key_text(self._records.keys[0]), str(error)) from error

    def _numbers(self, number: int) -> list[int]:
        batch = self._spec.data_param.batch_size
        return [at % self.count for at in range(number * batch, (number + 1) * batch)]

    def batch(self, number: int) -> Batch:
        numbers = self._numbers(number)
        words = self._examples.words(number * len(numbers), len(numbers))
        if self.sizes.vary:
            return self._single(numbers[0], words)
        images = self._buffers.take()
        labels = self._together(numbers, words, images)
        if labels is None:
            labels = self._one_by_one(numbers, words, images)
        return dict(zip(self._spec.top, (images, labels), strict=False))

    def _single(self, number: int, words: Uint32s) -> Batch:
        """A batch of one image, of the image's own size."""
        try:
            datum = datums.parse(next(self._records.read([number])))
            image = self._image(datum)
            images = np.empty((1, *self._examples.transform.shape(image.shape)), np.float32)
            self._examples.put(image, words[0], images[0])
        except Unfit as error:
            raise unfit(str(self._records.path), key_text(self._records.keys[number]), str(error)) from error
        return dict(zip(self._spec.top, (images, np.array([datum.label], np.float32)), strict=False))

    def _together(self, numbers: list[int], words: Uint32s, images: Float32s) -> Float32s | None:
        """Writes small raw images into a batch, all in each pass, and returns their labels; None: they are others."""
        if self._raw is None:
            return None
        found = self._raw.stacked([bytes(value) for value in self._records.read(numbers)])
        if found is None:
            return None
        self._examples.transform.apply_to_all(found[0], words, images)
        return found[1]

    def _one_by_one(self, numbers: list[int], words: Uint32s, images: Float32s) -> Float32s:
        labels = np.empty(len(numbers), np.float32)
        for at, value in enumerate(self._records.read(numbers)):
            try:
                datum = datums.parse(value)
                labels[at] = datum.label
                self._examples.put(self._image(datum), words[at], images[at])
            except Unfit as error:
                raise unfit(str(self._records.path), key_text(self._records.keys[numbers[at]]), str(error)) from error
        return labels

    def keys(self, number: int) -> list[str]:
        return [key_text(self._records.keys[at]) for at in self._numbers(number)]

    def _image(self, datum: caffe_pb2.Datum) -> NDArray[Any]:
        return datums.image(datum, self._examples.transform.colour)

    def examine(self, labels: Mapping[str, Labels], examples: range) -> Iterator[Trouble]:
        wanted = labels.get(self._spec.top[1]) if len(self._spec.top) > 1 else None
        expected = self.sizes
        for at, value in zip(examples, self._records.read(examples), strict=True):
            key = key_text(self._records.keys[at])
            try:
                datum = datums.parse(value)
                image = self._image(datum)
                yield from examined(key, self._examples.transform, image, expected, datum.label, wanted)
                if datum.encoded and pixels.torn(datum.data):
                    yield Trouble(key, pixels.TORN)
            except Unfit as error:
                yield Trouble(key, str(error))

    def close(self) -> None:
        self._records.close()


def _opened(given: caffe_pb2.DataParameter, folder: Path, field: str, reach: Reach) -> Records:
    if is_remote(given.source):
        return open_remote(given.source, reach, field)
    path = folder / (folder_of(given.source) or given.source)
    if is_dataset(path):
        return open_dataset(path, field)
    return open_lmdb(path, field) if given.backend == caffe_pb2.DataParameter.LMDB else open_leveldb(path, field)
