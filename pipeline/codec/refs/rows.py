"""The values that ref readers share: where a reader stands, what it took, what it had to reject."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from operator import add
from typing import Any, Protocol, TypeVar

from pipeline.process.redaction import redact_row
from pipeline.records import ImageRef

MAX_SAMPLES = 10
MAX_SAMPLE_CHARACTERS = 200
UNREADABLE = "cannot be read and counts as one rejected row"
"""How the reason of such a rejected row ends: nobody knows how many rows are lost with it."""

_REF = partial(tuple.__new__, ImageRef)
"""An image ref from a tuple of its fields: half of what a call with the fields takes."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place between two rows of a source file, from which a reader can go on."""

    position: int
    """Byte offset (of the decompressed bytes, where the file is compressed), or row number for Parquet and ORC."""
    row: int
    """Rows before it, rejected ones included."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that is no image ref."""

    row: int
    """Its number in the file, from 0; a header is no row."""
    offset: int | None
    """Its byte offset; None for Parquet and ORC."""
    why: str
    """Canonical: the same for each row with the same fault."""
    sample: str
    """What stands there: at most 200 characters, control characters escaped, secrets of URLs redacted."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What one `take` read: rows = len(refs) + rejected."""

    refs: list[ImageRef]
    """Ordinals 0, 1, ... within this take."""
    rows: int
    rejected: int
    samples: tuple[Rejected, ...]
    """The first of them, 10 at most."""
    cursor: Cursor
    """Before the next ref, or the end of the file."""
    ended: bool
    """The file holds no further ref."""
    kept: tuple[tuple[Any, ...], ...] = ()
    """Further columns of the refs, piece by piece, where the reader was asked for them: `How.keep`."""


class RefReader(Protocol):
    """A source file being read; what it takes depends on the file and the cursor only, not on when it was opened."""

    def take(self, max_refs: int, max_bytes: int) -> Taken:
        """The next refs, up to max_refs or max_bytes of URLs, external ids and contents; at least one if there is one.

        Rows that are rejected up to the next ref belong to it as well.
        """

    def close(self) -> None:
        """Closes the file."""


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive rows of a file: its refs in columns, and the rows that were rejected."""

    partner_ids: Sequence[int]
    item_ids: Sequence[int]
    external_ids: Sequence[str]
    urls: Sequence[str]
    contents: Sequence[bytes]
    positions: Sequence[int]
    """Where each ref's row begins."""
    rows: Sequence[int]
    """Each ref's row number."""
    rejected: Sequence[Rejected]
    """In the order of rows; one entry may stand for all the rows up to the next one."""
    end: Cursor
    kept: tuple[Any, ...] = ()
    """Further columns, as `RawRows.kept`, of the refs."""


class BlockReader:
    """Cuts a stream of blocks into takes."""

    def __init__(self, blocks: Iterator[Block], file: Closing, at: Cursor) -> None:
        self._blocks = blocks
        self._file = file
        self._cursor = at
        self._block = Block((), (), (), (), (), (), (), (), at)
        self._ref = 0  # the next one of the block
        self._rejected = 0
        self._ends: list[int] = []  # bytes of the block's refs up to and including each

    def take(self, max_refs: int, max_bytes: int) -> Taken:
        refs: list[ImageRef] = []
        samples: list[Rejected] = []
        kept: list[tuple[Any, ...]] = []
        taken_bytes = 0
        began = self._cursor.row
        ended = False
        while True:
            block, first = self._block, self._ref
            before = self._ends[first - 1] if first else 0
            last = min(len(block.urls), first + max_refs - len(refs))
            last = bisect_right(self._ends, max_bytes - taken_bytes + before, first, max(first, last))
            if last == first < len(block.urls) and not refs:
                last = first + 1
            full = last < len(block.urls)
            if last > first:
                refs.extend(_refs(block, first, last, len(refs)))
                if block.kept:
                    kept.append(tuple(column[first:last] for column in block.kept))
                taken_bytes += self._ends[last - 1] - before
            end = Cursor(block.positions[last], block.rows[last]) if full else block.end
            upto = self._rejected
            while upto < len(block.rejected) and block.rejected[upto].row < end.row:
                upto += 1
            samples = sampled([*samples, *block.rejected[self._rejected : upto]])
            self._ref, self._rejected, self._cursor = last, upto, end
            if full:
                break
            following = next(self._blocks, None)
            if following is None:
                ended = True
                break
            self._enter(following)
        rows = self._cursor.row - began
        return Taken(refs, rows, rows - len(refs), tuple(samples), self._cursor, ended, tuple(kept))

    def close(self) -> None:
        self._file.close()

    def _enter(self, block: Block) -> None:
        self._block, self._ref, self._rejected = block, 0, 0
        lengths: Iterable[int] = map(add, byte_lengths(block.urls), byte_lengths(block.external_ids))
        if any(block.contents):
            lengths = map(add, lengths, map(len, block.contents))
        self._ends = list(accumulate(lengths))


class Reasoned(Protocol):
    @property
    def why(self) -> str: ...


R = TypeVar("R", bound=Reasoned)


def sampled(rejected: Sequence[R]) -> list[R]:
    """At most MAX_SAMPLES of the rejected rows: the first, but what is UNREADABLE before all others."""
    if len(rejected) <= MAX_SAMPLES:
        return list(rejected)
    return sorted(rejected, key=lambda one: not one.why.endswith(UNREADABLE))[:MAX_SAMPLES]


class Closing(Protocol):
    def close(self) -> None: ...


def byte_lengths(texts: Sequence[str]) -> list[int]:
    """The length of each text in UTF-8."""
    if all(map(str.isascii, texts)):
        return list(map(len, texts))
    return [len(text.encode()) for text in texts]


def sample_of(text: str) -> str:
    """The text as a person may see it in a log: at most 200 characters, nothing that a terminal obeys, no secret."""
    shown: list[str] = []
    length = 0
    for character in redact_row(text, MAX_SAMPLE_CHARACTERS):
        safe = character if character.isprintable() else _escaped(character)
        length += len(safe)
        if length > MAX_SAMPLE_CHARACTERS:
            shown[-3:] = ["..."]
            return "".join(shown)[:MAX_SAMPLE_CHARACTERS]
        shown.append(safe)
    return "".join(shown)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8, as `surrogateescape` carries it
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def _refs(block: Block, first: int, last: int, ordinal: int) -> Iterator[ImageRef]:
    rows = zip(
        block.partner_ids[first:last],
        block.item_ids[first:last],
        block.external_ids[first:last],
        block.urls[first:last],
        block.contents[first:last],
        range(ordinal, ordinal + last - first),
        strict=True,
    )
    return map(_REF, rows)
