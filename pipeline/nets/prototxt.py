"""Text -> NetParameter, with the line and column of what is wrong."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from google.protobuf import text_format

from pipeline.errors import NetError
from pipeline.nets import caffe_pb2

_PLACE = re.compile(r"^(\d+):(\d+) : (?:'[^\n]*': )?(.*)$", re.DOTALL)
_NO_FIELD = re.compile(r'Message type "caffe\.(\w+)" has no field named "(\w+)"')
_MAX_BYTES = 64 * 2**20  # a .prototxt of a thousand layers is well under 1 MB


def read(path: Path) -> caffe_pb2.NetParameter:
    """The net of a .prototxt file, in whatever of the three forms it has (upgrade.py makes them one).

    Raises NetError: no such file, not UTF-8 text, a syntax error with its line and column.
    """
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= _MAX_BYTES else b""
    except OSError as error:
        raise NetError(
            f"the net {path} cannot be read", error.strerror or str(error), "give the path of a deploy .prototxt"
        ) from error
    if size > _MAX_BYTES:
        raise NetError(
            f"the net {path} is no .prototxt", f"it has {size} bytes", "a net's text is small: is this the .caffemodel?"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NetError(
            f"the net {path} is not text",
            f"byte {error.start} is no UTF-8",
            "the net is the .prototxt; a .caffemodel is given as the weights",
        ) from error
    return parse(text, str(path))


def parse(text: str, source: str = "prototxt") -> caffe_pb2.NetParameter:
    """As `read`, from text; `source` stands in messages."""
    net = caffe_pb2.NetParameter()
    try:
        text_format.Parse(text, net)
    except text_format.ParseError as error:
        raise _syntax_error(error, source) from error
    except RecursionError as error:
        raise NetError(f"{source} is nested too deeply", "", "a net's text needs a handful of levels") from error
    missing: list[str] = net.FindInitializationErrors()  # type: ignore[attr-defined]
    if missing:
        raise NetError(f"{source} lacks a field that must be set", ", ".join(missing), "set it in the .prototxt")
    return net


def _syntax_error(error: text_format.ParseError, source: str) -> NetError:
    place = _PLACE.match(str(error))
    where = f"{place[1]}:{place[2]}" if place else f"{error.GetLine() or 1}:{error.GetColumn() or 1}"
    says = place[3] if place else str(error)
    unknown = _NO_FIELD.search(says)
    hint = "correct the text there"
    if unknown:
        message = caffe_pb2.DESCRIPTOR.message_types_by_name.get(unknown[1])
        near = difflib.get_close_matches(unknown[2], [field.name for field in message.fields]) if message else []
        hint = f"near names: {', '.join(near)}" if near else "the net may be written for another branch of Caffe"
    return NetError(f"{source}:{where}: syntax error", says.strip(), hint)
