"""Features of images: URLs, files or bytes in, vectors out."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from hathi.images import _overrides, is_missing
from pipeline.clock import Clock
from pipeline.cluster.dataframe import PIECE_ROWS, computed
from pipeline.errors import ConfigError
from pipeline.extraction.feature_maker import FeatureMaker
from pipeline.fetch.inline import read_file
from pipeline.nets.loading import default_blob
from pipeline.records import Failure, ImageRef
from pipeline.settings import BUILT_IN, Settings, load

if TYPE_CHECKING:
    import pyarrow as pa

Image = str | bytes | Path
"""Where an image is: a URL, its bytes, or a file."""
PIECE_BYTES = 4 * 2**20
"""Bytes of given images after which a piece of work ends; at most 16 pieces are in memory."""
_SET = "features"


@dataclass(frozen=True, slots=True)
class Result:
    """The result for one image: a vector, or a failure."""

    index: int
    """The image's place among the given images: 0, 1, ..."""
    url: str
    """The URL as given, the path of a file, or "" for bytes."""
    vector: NDArray[np.float32] | None
    """(dim,) float32, or None if there is a failure."""
    failure: Failure | None


class Features(Iterator[Result]):
    """The results, one for each image, in the order in which they end.

    dim: the number of values in a vector.  engine: the library that runs the net, and why it was chosen.
    preprocessing: what is done to images before the net and to the blob after it, in one line.
    fingerprint: a hash of everything that decides a vector's values (net, weights, preprocessing).  Vectors with equal
    fingerprints are comparable.
    """

    def __init__(self, maker: FeatureMaker, images: Iterable[Image], max_bytes: int) -> None:
        self.dim = maker.net.dim
        self.engine = maker.engine
        self.preprocessing = maker.preprocessing
        self._maker = maker
        self._results: Generator[Result, None, None] = _results(maker, images, max_bytes)

    @property
    def fingerprint(self) -> str:
        return self._maker.fingerprint

    def __next__(self) -> Result:
        return next(self._results)

    def close(self) -> None:
        """End early: stop fetching, end the threads, and yield nothing more."""
        self._results.close()

    def to_arrow(self) -> pa.Table:
        """All remaining results as one Arrow table, in the order of the images.

        Columns: index int64, url string, features list<float32>[dim] or null, failure struct<reason, retriable, detail>
        or null.  Memory: the whole table.
        """
        import pyarrow as pa

        found = sorted(self, key=lambda one: one.index)
        failures = [
            None if (why := one.failure) is None
            else {"reason": why.reason, "retriable": why.retriable, "detail": why.detail}
            for one in found
        ]  # fmt: skip
        struct = pa.struct([("reason", pa.string()), ("retriable", pa.bool_()), ("detail", pa.string())])
        columns: dict[str, Any] = {
            "index": pa.array([one.index for one in found], pa.int64()),
            "url": pa.array([one.url.encode("utf-8", "backslashreplace").decode() for one in found], pa.string()),
            "features": pa.array([one.vector for one in found], pa.list_(pa.float32(), self.dim)),
            "failure": pa.array(failures, struct),
        }
        return pa.table(columns)


def features(
    images: Image | Iterable[Image],
    *,
    net: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    blob: str | None = None,
    preprocess: str | Mapping[str, object] | None = None,
    pool: Literal["flatten", "mean", "max"] = "flatten",
    normalise: Literal["l2", "none"] = "l2",
    input_size: tuple[int, int] | None = None,
    engine: str = "auto",
    precision: str = "fp32",
    batch_size: int = 32,
    allow_private: bool = False,
    fetch: Mapping[str, object] | None = None,
) -> Features:
    """Compute a feature of each image.  The pipeline's own fetcher, decoders and net give the same bits as a run.

    images: URLs (str), bytes (bytes) or files (pathlib.Path), one or many, in any mix; None and NaN, as in a
        column of pandas, become failures.  Hathi reads a few thousand images ahead; memory stays bounded.
    net, weights, blob: a deploy .prototxt, its .caffemodel and the blob that is the feature; or an .onnx model and its
        output; or "hog".  blob: by default the net's output, if it has one.
    preprocess: what the net was trained with: "caffe", "imagenet", "clip", "dinov2", "unit" or "none"; or settings of
        `[sets.NAME.preprocess]`, e.g. {"preset": "clip", "mean": [0.5]}.  The default is Caffe's for a Caffe net; for
        an ONNX model what its preprocessor_config.json or its metadata say, and an `Error` if there are none.
    pool: what becomes of a blob with height and width: all its values, or one for each channel.
    normalise: "l2" divides each vector by its length; "none" keeps the net's values.
    input_size: height and width in pixels, if neither the net nor the preset fixes them.
    engine, precision, batch_size: the library that runs the net, and how; see `load_net`.
    allow_private, fetch: for URLs; see `fetch`.
    Returns `Features`; iterate over it, or call `to_arrow()` for one table.
    Raises `Error` at once for a net or a setting that cannot be used, never for an image; TypeError for an image
    that is neither str, bytes nor a path.

    >>> import hathi
    >>> from pathlib import Path
    >>> images = ["https://img.shop.example/shoe.png", "https://img.shop.example/missing.png", Path("shoe.png")]
    >>> found = hathi.features(images, net="deploy.prototxt", weights="x.caffemodel", blob="pool")
    >>> found.dim
    128
    >>> for one in sorted(found, key=lambda one: one.index):
    ...     print(one.index, one.failure.reason if one.failure else one.vector.shape)
    0 (128,)
    1 http_4xx
    2 (128,)
    >>> table = hathi.features(images, net="deploy.prototxt", weights="x.caffemodel", blob="pool").to_arrow()
    >>> table.column_names, table.num_rows
    (['index', 'url', 'features', 'failure'], 3)
    """
    where = os.fspath(net)
    chosen: dict[str, object] = {
        "bucket.url": os.devnull,  # nothing is kept
        f"sets.{_SET}.net": where if where in BUILT_IN else os.path.abspath(where),
        f"sets.{_SET}.blob": blob if blob is not None else default_blob(where, weights),
        f"sets.{_SET}.pool": pool,
        f"sets.{_SET}.root": _SET,
        f"sets.{_SET}.normalise": normalise,
        f"sets.{_SET}.engine": engine,
        f"sets.{_SET}.precision": precision,
        f"sets.{_SET}.batch_size": batch_size,
        **_overrides(allow_private, fetch),
    }
    if weights is not None:
        chosen[f"sets.{_SET}.weights"] = os.path.abspath(os.fspath(weights))
    if input_size is not None:
        chosen[f"sets.{_SET}.input_size"] = list(input_size)
    given = {"preset": preprocess} if isinstance(preprocess, str) else preprocess or {}
    chosen |= {f"sets.{_SET}.preprocess.{name}": value for name, value in given.items()}
    settings: Settings = load(None, os.environ, chosen)
    maker = FeatureMaker(settings, _SET, Clock())
    if not maker.net.dim:
        raise ConfigError('net = "image" keeps images and computes no features', "", "name a net")
    many = [images] if isinstance(images, str | bytes | Path) else images
    return Features(maker, many, settings.fetch.max_bytes)


@dataclass
class _Piece:
    """Images that are computed together, and those that could not even be read."""

    refs: list[ImageRef]
    unread: list[Result]


def _results(maker: FeatureMaker, images: Iterable[Image], max_bytes: int) -> Generator[Result, None, None]:
    for done in computed(maker, _pieces(images, max_bytes), lambda piece: piece.refs):
        yield from done.task.unread
        urls = {ref.ordinal: ref.url or ref.external_id for ref in done.task.refs}
        for row, vector in zip(done.rows, done.matrix, strict=True):
            yield Result(row.ordinal, urls[row.ordinal], np.array(vector, np.float32), None)
        for failed in done.failures:
            why = Failure(failed.reason, failed.detail, failed.retriable, failed.url)
            yield Result(failed.ordinal, urls[failed.ordinal], None, why)


def _pieces(images: Iterable[Image], max_bytes: int) -> Iterator[_Piece]:
    piece, held = _Piece([], []), 0
    for index, image in enumerate(images):
        read = _read(index, image, max_bytes)
        if isinstance(read, Result):
            piece.unread.append(read)
        else:
            piece.refs.append(read)
            held += len(read.content)
        if len(piece.refs) + len(piece.unread) == PIECE_ROWS or held >= PIECE_BYTES:
            yield piece
            piece, held = _Piece([], []), 0
    if piece.refs or piece.unread:
        yield piece


def _read(index: int, image: Image, max_bytes: int) -> ImageRef | Result:
    """A ref to be computed; a file that cannot be read is a failure at once."""
    if is_missing(image):
        return Result(index, "", None, Failure.of("bad_ref", "neither a URL nor bytes"))
    if isinstance(image, str):
        return ImageRef(0, 0, "", image, b"", index)
    if isinstance(image, bytes | bytearray | memoryview):
        content, name = bytes(image), ""
    elif isinstance(image, os.PathLike):
        name = os.fspath(image)
        read = read_file(os.path.abspath(name), ["/"], max_bytes)
        if isinstance(read, Failure):
            return Result(index, name, None, read)
        content = read
    else:
        raise TypeError(
            f"image {index} is a {type(image).__name__}: give a URL (str), bytes, or a pathlib.Path; "
            "encode an array of pixels first, for example with cv2.imencode"
        )
    if not content:
        return Result(index, name, None, Failure.of("empty", "no bytes"))
    return ImageRef(0, 0, name, "", content, index)
