"""Features of a column of URLs or of images: Arrow batches in, the same rows with `features` and `failure` out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from pipeline.errors import ConfigError, PermanentError
from pipeline.extraction.window import Computed, Opened
from pipeline.fetch.host import registered_domain
from pipeline.fetch.target import parse
from pipeline.records import Failure, ImageRef

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.extraction.feature_maker import FeatureMaker

T = TypeVar("T")
FEATURES = "features"
FAILURE = "failure"
PIECE_ROWS = 512
PIECES_OPEN = 16
"""Rows of so many pieces are in work at the same time, and in memory with their features."""


def domain_of(url: str | None, max_length: int) -> str:
    """Whose limits a URL is under: its registered domain; empty for what is no URL."""
    target = parse(url or "", max_length)
    return "" if isinstance(target, Failure) else registered_domain(target.key, target.address is None)


def check_columns(names: Iterable[str], column: str) -> None:
    """Raises ConfigError where the images are not there, or where a name is taken."""
    names = list(names)
    if column not in names:
        raise ConfigError(
            f"no column {column!r}",
            f"there are: {', '.join(names)}",
            "give the name of the column that holds the URLs or the images",
        )
    for ours in (FEATURES, FAILURE):
        if ours in names:
            raise ConfigError(f"the table has a column {ours!r}", "the result adds it", "rename or drop it first")


def featurise(maker: FeatureMaker, batches: Iterable[pa.RecordBatch], column: str) -> Iterator[pa.RecordBatch]:
    """Each row once, in pieces as they end: `features` list<float32> or null, `failure` struct or null.

    column: of texts, which are URLs, or of bytes, which are images.  One that is null or empty is a failure `bad_ref`.
    """
    if not maker.net.dim:
        raise ConfigError('net = "image" keeps images and computes no features', "", "name a set with a net")
    pieces = (batch.slice(at, PIECE_ROWS) for batch in batches for at in range(0, batch.num_rows, PIECE_ROWS))
    for done in computed(maker, pieces, lambda piece: _refs(piece, column)):
        yield _joined(done)


def computed(
    maker: FeatureMaker, pieces: Iterable[T], refs_of: Callable[[T], Sequence[ImageRef]]
) -> Iterator[Computed[T]]:
    """Each piece of work once, as it ends; PIECES_OPEN of them at a time.  Raises PermanentError when the net does."""
    left = iter(pieces)
    while some := list(islice(left, PIECES_OPEN)):
        groups = {str(number): [piece] for number, piece in enumerate(some)}
        for done in maker.window(groups, lambda piece: Opened(piece, refs_of(piece)), lambda: True):
            if done is None:
                continue
            if done.trouble:
                raise PermanentError(
                    "the net failed on one of the images",
                    done.trouble,
                    "reproduce it with: hathi net features NET IMAGE",
                )
            yield done


def _refs(piece: pa.RecordBatch, column: str) -> list[ImageRef]:
    found = ((place, one or "") for place, one in enumerate(piece.column(column).to_pylist()))
    return [
        ImageRef(0, 0, "", "", one, place) if isinstance(one, bytes) else ImageRef(0, 0, "", one, b"", place)
        for place, one in found
    ]


def _joined(computed: Computed[pa.RecordBatch]) -> pa.RecordBatch:
    import pyarrow as pa

    piece = computed.task
    features: list[object] = [None] * piece.num_rows
    failures: list[dict[str, object] | None] = [None] * piece.num_rows
    for row, vector in zip(computed.rows, computed.matrix, strict=True):
        features[row.ordinal] = vector
    for failed in computed.failures:
        failures[failed.ordinal] = {
            "reason": failed.reason, "retriable": failed.retriable, "detail": failed.detail
        }  # fmt: skip
    struct = pa.struct([("reason", pa.string()), ("retriable", pa.bool_()), ("detail", pa.string())])
    columns = [pa.array(features, pa.list_(pa.float32())), pa.array(failures, struct)]
    names = [*piece.schema.names, FEATURES, FAILURE]
    return pa.RecordBatch.from_arrays([*piece.columns, *columns], names=names)
