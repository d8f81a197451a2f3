"""Bytes -> text, for nets: Caffe reads bytes, so a text in any encoding is read as far as its grammar goes."""

from __future__ import annotations

import codecs

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
          (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))  # fmt: skip
_LOOKED_AT = 256


def text_of(content: bytes) -> str:
    """The text of a net: UTF-8, with or without a mark; UTF-16 and UTF-32 as Windows saves them.

    A byte that is no UTF-8 stands for itself (Latin-1), so that names are the same wherever they are read.  Lines end
    with \\n, \\r\\n, or \\r where a text has no other end.  Raises UnicodeDecodeError for torn UTF-16 and UTF-32.
    """
    encoding, content = _encoding(content)
    text = name_of(content) if encoding == "utf-8" else content.decode(encoding)
    return text if "\n" in text else text.replace("\r", "\n")


def name_of(content: bytes) -> str:
    """A name in a file of weights, as it stands in a text: UTF-8, and a byte that is no UTF-8 for itself.  Never fails.

    Where a name begins like a text in UTF-16, that is chance or damage: protobuf has no marks.
    """
    return content.decode("utf-8", _KEEP)


def _encoding(content: bytes) -> tuple[str, bytes]:
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return encoding, content[len(mark) :]
    head = content[:_LOOKED_AT]
    odd, even = head[1::2].count(0), head[::2].count(0)
    if odd > len(head) // 3 and not even:  # Latin letters have a zero beside each
        return "utf-16-le", content
    return ("utf-16-be", content) if even > len(head) // 3 and not odd else ("utf-8", content)


def _as_latin(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("latin-1"), error.end


_KEEP = "hathi-latin-1"
codecs.register_error(_KEEP, _as_latin)
