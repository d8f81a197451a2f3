"""Files in the form of libsvm and svmlight: `label[,label] index:value ... [# comment]` a line, as they are or packed.

A line that cannot be used is left out and named with what is wrong; the others count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np

from pipeline.codec.refs.packed import UNPACK, CutOff, Damaged, packing
from pipeline.errors import ConfigError, FormatError
from pipeline.training.descent.compiled import compiled, inlined
from pipeline.training.descent.gathering import At, Gathered, LeftOut
from pipeline.training.descent.values import Numbers

CHUNK = 4 * 2**20
"""Of text that is read at once; a longer line is read as a whole."""
LONGEST = 2**30
_PIECE, _HEAD = 2**18, 16
_END, _MARK = b"\n", b"\xef\xbb\xbf"  # some editors begin UTF-8 with a mark
MOST = 2**31 - 1


class File(Protocol):
    """A path, or a file of a lake; its text is its name."""

    def open(self, mode: str, /) -> Any: ...


class Span(NamedTuple):
    """Bytes of a file, from begin to before end."""

    begin: int
    end: int


class Wrong(IntEnum):
    """What is wrong with a line."""

    LABEL = 1
    EMPTY = 2
    PAIR = 3
    INDEX = 4
    UNSORTED = 5
    REPEATED = 6
    VALUE = 7
    BEYOND = 8


SAYS = {
    Wrong.LABEL: "its label is no whole number: it names no class",
    Wrong.EMPTY: "it has a label and no coordinate",
    Wrong.PAIR: "it has something that is no index:value",
    Wrong.INDEX: f"an index is no whole number from 0 to {MOST:,}",
    Wrong.UNSORTED: "its indices do not rise",
    Wrong.REPEATED: "an index stands twice",
    Wrong.VALUE: "a value is NaN or infinite, or larger than float32 holds",
    Wrong.BEYOND: "an index is beyond the dimension that is given",
}


class Lines(NamedTuple):
    """What a chunk of lines holds.  lengths, label_lengths: of each example; bad: (n, 2): number of the line in the
    chunk, from 0, and what is Wrong; lines: how many there were."""

    columns: Numbers
    value: Numbers
    lengths: Numbers
    label: Numbers
    label_lengths: Numbers
    bad: Numbers
    lines: int


def read(
    path: File,
    dim: int | None,
    left_out: LeftOut,
    span: Span | None = None,
    told: Callable[[int], None] = lambda _: None,
) -> Iterator[Gathered]:
    """The examples of a file, chunk by chunk.  dim: indices from there on are wrong.

    span: of text as it is: the lines that begin within; they are numbered from 1 there.  told: hears how many there
    were.  Raises ConfigError where the file cannot be read, FormatError where packed data is damaged: what was unpacked
    before that place may be wrong as well.
    """
    number, rest, whole = 1, b"", True
    pieces = _pieces(path, span)
    while whole:
        some, cut = _filled(pieces, rest)
        if cut is not None:
            lines = number + some.count(_END)
            if not isinstance(cut, CutOff):
                raise FormatError(f"{path} is damaged",
                                  f"{cut} at line {lines:,} or before: any line before may be wrong as well",
                                  "get it anew; or unpack it, and give what of it is right")  # fmt: skip
            left_out.put(At(str(path), "line", lines), f"{cut} here")
            some, whole = some[: some.rfind(_END) + 1], False
        last = len(some) < len(rest) + CHUNK
        end = len(some) if last else some.rfind(_END) + 1
        whole = whole and not last
        if end:
            found = parse(np.frombuffer(some, np.uint8, end), -1 if dim is None else dim)
            for line, wrong in found.bad.tolist():
                left_out.put(At(str(path), "line", number + line), SAYS[Wrong(wrong)])
            if last and some[-1:] != _END and found.lines - 1 not in found.bad[:, 0]:
                left_out.note(At(str(path), "line", number + found.lines - 1),
                              "the file ends without an end of line: this line may be cut")  # fmt: skip
            number += found.lines
            yield Gathered(found.columns, found.value, found.lengths, found.label, found.label_lengths)
        rest = some[end:]
        if len(rest) > LONGEST:
            raise ConfigError(f"{path} is no file of libsvm's form", f"line {number:,} does not end", "")
    told(number - 1)


def _filled(pieces: Iterator[bytes], rest: bytes) -> tuple[bytes, Damaged | None]:
    """`rest`, and CHUNK bytes or more behind it; fewer: the file ends there, or cannot be unpacked any further."""
    held, length = [rest], 0
    try:
        while length < CHUNK and (one := next(pieces, b"")):
            held.append(one)
            length += len(one)
    except Damaged as error:
        return b"".join(held), error
    return b"".join(held), None


def _within(file: BinaryIO, span: Span) -> Iterator[bytes]:
    """The lines that begin within the span."""
    at, skipping = max(0, span.begin - 1), span.begin > 0
    file.seek(at)
    while data := file.read(_PIECE):
        if skipping:
            cut = data.find(_END) + 1
            at += cut or len(data)
            if at >= span.end:
                return
            data, skipping = data[cut:] if cut else b"", not cut
        if not skipping and at + len(data) >= span.end:
            cut = data.find(_END, max(0, span.end - 1 - at)) + 1
            if cut:
                yield data[:cut]
                return
        if data:
            yield data
        at += len(data)


def _pieces(path: File, span: Span | None) -> Iterator[bytes]:
    """The text of a file, unpacked, without a mark at its begin.  Raises Damaged behind what could be unpacked."""
    try:
        with path.open("rb") as file:
            if span is not None:
                pieces = _within(file, span)
            elif by := packing(file.read(_HEAD)):
                file.seek(0)
                pieces = UNPACK[by](file)
            else:
                file.seek(0)
                pieces = iter(lambda: bytes(file.read(_PIECE)), b"")
            first = next(pieces, b"")
            begins = span is None or span.begin == 0
            if first := first.removeprefix(_MARK) if begins else first:
                yield first
            yield from pieces
    except OSError as error:
        raise ConfigError(f"{path} cannot be read", error.strerror or str(error), "") from error


@inlined
def _number(text: Numbers, at: int, end: int) -> tuple[float, int]:
    """(the number that begins at `at`, where it ends; `at` itself where none does)."""
    begin, sign = at, 1.0
    if at < end and (text[at] == 43 or text[at] == 45):
        sign = -1.0 if text[at] == 45 else 1.0
        at += 1
    if at + 3 <= end and (text[at] | 32) > 102:  # nan, inf, infinity: no digit, and no e
        word = at
        while word < end and 97 <= (text[word] | 32) <= 122:
            word += 1
        first = text[at] | 32
        if (first == 110 and word - at == 3) or (first == 105 and word - at in (3, 8)):
            return (np.nan if first == 110 else np.inf), word
        return 0.0, begin
    whole, power, digits = np.uint64(0), 0, 0
    while at < end and 48 <= text[at] <= 57:
        digits += 1
        if whole < np.uint64(100_000_000_000_000_000):
            whole = whole * np.uint64(10) + np.uint64(text[at] - 48)
        else:
            power += 1
        at += 1
    if at < end and text[at] == 46:
        at += 1
        while at < end and 48 <= text[at] <= 57:
            digits += 1
            if whole < np.uint64(100_000_000_000_000_000):
                whole = whole * np.uint64(10) + np.uint64(text[at] - 48)
                power -= 1
            at += 1
    if digits == 0:
        return 0.0, begin
    if at < end and (text[at] | 32) == 101:
        back, down, more, some = at, False, 0, False
        at += 1
        if at < end and (text[at] == 43 or text[at] == 45):
            down = text[at] == 45
            at += 1
        while at < end and 48 <= text[at] <= 57:
            more, some = min(more * 10 + int(text[at] - 48), 100_000), True
            at += 1
        if some:
            power += -more if down else more
        else:
            at = back
    found = float(whole)
    if power > 0:
        found *= 10.0 ** min(power, 400)
    elif power < -300:
        found = found / 1e300 / 10.0 ** min(-power - 300, 400)
    elif power < 0:
        found /= 10.0**-power
    return sign * found, at


@inlined
def _space(letter: int) -> bool:
    return letter == 32 or letter == 9 or letter == 13


@compiled
def parse(text: Numbers, dim: int) -> Lines:
    """text: uint8, whole lines, the last one with or without its end.  dim: -1: any index is within it."""
    pairs, commas, ends = 0, 0, 1
    for letter in text:
        pairs += letter == 58
        commas += letter == 44
        ends += letter == 10
    index, value = np.empty(pairs, np.uint32), np.empty(pairs, np.float32)
    lengths, label_lengths = np.empty(ends, np.int64), np.empty(ends, np.int64)
    label, bad = np.empty(ends + commas, np.int64), np.empty((ends, 2), np.int64)
    rows, filled, labels, wrongs, line, at = 0, 0, 0, 0, 0, 0
    while at < len(text):
        end = at
        while end < len(text) and text[end] != 10:
            end += 1
        stop = at
        while stop < end and text[stop] != 35:
            stop += 1
        first, k, own, wrong, last = filled, at, labels, 0, -1
        blank = True
        while k < stop and blank:
            blank = _space(text[k])
            k += 1
        k = at
        if not blank:
            if not _space(text[k]):
                while True:
                    found, k_next = _number(text, k, stop)
                    if k_next == k or found != np.floor(found) or abs(found) > 2147483647.0:
                        wrong = 1
                        break
                    if k_next < stop and text[k_next] == 58:  # no label: the line begins with a pair
                        wrong = 1
                        break
                    label[labels] = np.int64(found)
                    labels += 1
                    k = k_next
                    if k < stop and text[k] == 44:
                        k += 1
                        continue
                    if k < stop and not _space(text[k]):
                        wrong = 1
                    break
            while wrong == 0:
                while k < stop and _space(text[k]):
                    k += 1
                if k >= stop:
                    break
                if k + 4 <= stop and text[k] == 113 and text[k + 1] == 105 and text[k + 2] == 100 and text[k + 3] == 58:
                    while k < stop and not _space(text[k]):
                        k += 1
                    continue
                digits, coordinate, colon = k, 0, k
                while colon < stop and 48 <= text[colon] <= 57:
                    coordinate = min(coordinate * 10 + int(text[colon] - 48), 1 << 40)
                    colon += 1
                if colon >= stop or text[colon] != 58:
                    wrong = 3
                    while colon < stop and not _space(text[colon]) and text[colon] != 58:
                        colon += 1
                    if colon < stop and text[colon] == 58 and colon > digits:
                        wrong = 4
                    break
                if colon == digits:
                    wrong = 3
                    break
                found, k_next = _number(text, colon + 1, stop)
                if k_next == colon + 1 or (k_next < stop and not _space(text[k_next])):
                    wrong = 3
                elif coordinate > 2147483647:
                    wrong = 4
                elif dim >= 0 and coordinate >= dim:
                    wrong = 8
                elif coordinate == last:
                    wrong = 6
                elif coordinate < last:
                    wrong = 5
                elif not abs(found) < 3.4028235677973366e38:
                    wrong = 7
                else:
                    index[filled], value[filled] = coordinate, found
                    filled += 1
                    last, k = coordinate, k_next
            if wrong == 0 and filled == first:
                wrong = 2
            if wrong:
                bad[wrongs, 0], bad[wrongs, 1] = line, wrong
                wrongs += 1
                filled, labels = first, own
            else:
                lengths[rows], label_lengths[rows] = filled - first, labels - own
                rows += 1
        line += 1
        at = end + 1
    return Lines(index[:filled], value[:filled], lengths[:rows], label[:labels], label_lengths[:rows], bad[:wrongs],
                 line)  # fmt: skip
