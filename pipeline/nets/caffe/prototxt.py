"""Text -> NetParameter, with the line and column of what is wrong."""

from __future__ import annotations

import bisect
import difflib
import re
from pathlib import Path

from google.protobuf import text_format

from pipeline.codec import caffe_pb2
from pipeline.errors import NetError
from pipeline.nets.caffe.encodings import text_of
from pipeline.nets.caffe.fields import Field, fields_of, without

_PLACE = re.compile(r"^(\d+):(\d+) : (?:'[^\n]*': )?(.*)$", re.DOTALL)
_NO_FIELD = re.compile(r'Message type "caffe\.(\w+)" has no field named "(\w+)"')
_MAX_BYTES = 64 * 2**20  # a .prototxt of a thousand layers is well under 1 MB
_LAYERS = ("layer", "layers")
_TELLS = ("name", "type", "bottom", "top", "include", "exclude")  # without these nobody knows who needs the layer
_MIXED_UP = {
    "NetParameter": ("SolverParameter", "it is the text of a solver: give the net that it names"),
    "SolverParameter": ("NetParameter", "it is the text of a net: give the solver that names it"),
}
"""By the message that is wanted: the one that is given in its place, and what to do."""
_CAFFEONSPARKS = ("source_class", "share_in_parallel", "cos_data_param")
"""Fields of data layers that CaffeOnSpark has added."""
_MAX_FAULTS = 100  # of one layer
_MAX_AGAIN = 2**20  # characters that are parsed once more for faults, of one text


def read(path: Path) -> caffe_pb2.NetParameter:
    """The net of a .prototxt file, in whatever of the three forms it has (upgrade.py makes them one).

    A layer with a field that is not known, or with a value that does not fit, is read without it; its `fault` says so.
    Raises NetError: no such file, no text, a syntax error with its line and column.
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
            f"the net {path} is not a .prototxt",
            f"it has {size} bytes",
            "check that this is not the .caffemodel: a net's text is small",
        )
    try:
        text = text_of(content)
    except UnicodeDecodeError as error:
        raise NetError(
            f"the net {path} is not text", f"byte {error.start} is not {error.encoding.upper()}", "save it as UTF-8"
        ) from error
    if "\0" in text:
        before = text[: text.index("\0")]
        raise NetError(
            f"the net {path} is not text",
            f"a NUL at {before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}",
            "the net is the .prototxt, the weights are the .caffemodel; a text with NULs is damaged: fetch it again",
        )
    return _whole_or_faulty(text, str(path))


def parse(text: str, source: str = "prototxt") -> caffe_pb2.NetParameter:
    """As `read`, from text, but raises NetError for any fault; `source` stands in messages."""
    try:
        net = _merged(text)
    except text_format.ParseError as error:
        raise syntax_error(error, source) from error
    except RecursionError as error:
        raise NetError(
            f"{source} is nested too deeply", "", "check the file: a net's text needs only a few levels"
        ) from error
    missing: list[str] = net.FindInitializationErrors()  # type: ignore[attr-defined]
    if missing:
        raise _lacking(missing, source)
    return net


def _merged(text: str) -> caffe_pb2.NetParameter:
    net = caffe_pb2.NetParameter()
    text_format.Parse(text, net)
    return net


def _lacking(missing: list[str], source: str) -> NetError:
    return NetError(f"{source} lacks a field that must be set", ", ".join(missing), "set it in the .prototxt")


def _whole_or_faulty(text: str, source: str) -> caffe_pb2.NetParameter:
    """All at once; where that fails, layer by layer, so that a layer that nobody needs spoils nothing."""
    try:
        return parse(text, source)
    except NetError:
        outer = fields_of(text)
        layers = [one for one in outer or () if one.name in _LAYERS and one.inner]
        if not layers:
            raise
    lines = [0, *(match.end() for match in re.finditer("\n", text))]
    net = parse(without(text, layers), source)
    left = _MAX_AGAIN
    for layer in layers:
        line = bisect.bisect_right(lines, layer.begin) - 1
        one, again = _layer(text, layer, source, (line, layer.begin - lines[line]), left)
        net.MergeFrom(one)
        left -= again
    return net


def _layer(
    text: str, layer: Field, source: str, place: tuple[int, int], left: int
) -> tuple[caffe_pb2.NetParameter, int]:
    """A net of one layer, with its first fault; and how many characters were parsed once more for it.

    place: where it begins, from 0.  left: how many may be.  Raises NetError as `parse`.
    """
    own = text[layer.begin : layer.end]
    first: NetError | None = None
    faults = 0
    for _ in range(min(_MAX_FAULTS, left // max(1, len(own)) + 1)):
        try:
            net = _merged(own)
            break
        except text_format.ParseError as error:
            said = syntax_error(error, source, place)
            first = first or said
            inner = _innermost(layer, own, error)
            if inner is None:
                raise said from error
            own = without(own, [Field(inner.name, inner.begin - layer.begin, inner.end - layer.begin)])
            faults += 1
        except RecursionError as error:
            raise NetError(
                f"{source} is nested too deeply", "", "check the file: a net's text needs only a few levels"
            ) from error
    else:
        assert first is not None
        raise first
    only = net.layer[0] if net.layer else net.layers[0]
    missing: list[str] = only.FindInitializationErrors()  # type: ignore[union-attr]
    if missing:
        first = first or _lacking(missing, f"{source}:{place[0] + 1}")
    if first is not None:
        only.fault = str(first)
    return net, faults * len(own)


def _innermost(layer: Field, text: str, error: text_format.ParseError) -> Field | None:
    """The field that an error is about, to be left out; None where the layer cannot do without it.

    text: the layer's own, in which fields that were left out are blanks, so that all others stand where they stood.
    """
    line, column = error.GetLine() or 1, error.GetColumn() or 1
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    if line > len(starts):
        return None
    holding = layer.at(layer.begin + starts[line - 1] + column - 1)
    within = holding[2:] if len(holding) > 1 and holding[1].name == "layer" else holding[1:]  # V0: one within
    return within[-1] if within and (within[0].name not in _TELLS or within[0].name == "type") else None


def _is_mixed_up(message: str, field: str) -> bool:
    """Whether a field that the message does not have is one of what people mix it up with."""
    other = _MIXED_UP.get(message, ("", ""))[0]
    return bool(other) and field in caffe_pb2.DESCRIPTOR.message_types_by_name[other].fields_by_name


def syntax_error(error: text_format.ParseError, source: str, place: tuple[int, int] = (0, 0)) -> NetError:
    """What is wrong with a text in protobuf's form, with its line and column, and the names that are near.

    place: line and column, from 0, at which the text that was parsed begins.
    """
    found = _PLACE.match(str(error))
    line, column = (int(found[1]), int(found[2])) if found else (error.GetLine() or 1, error.GetColumn() or 1)
    column += place[1] if line == 1 else 0
    says = found[3] if found else str(error)
    unknown = _NO_FIELD.search(says)
    hint = "correct the text there"
    if unknown:
        message = caffe_pb2.DESCRIPTOR.message_types_by_name.get(unknown[1])
        near = difflib.get_close_matches(unknown[2], [field.name for field in message.fields]) if message else []
        what = "solver" if unknown[1] == caffe_pb2.SolverParameter.DESCRIPTOR.name else "net"
        hint = f"near names: {', '.join(near)}" if near else f"the {what} may be written for another branch of Caffe"
        if unknown[2] in _CAFFEONSPARKS:
            hint = 'the field is CaffeOnSpark\'s: write a layer of type "Data" (docs/spark.md says what for what)'
        hint = _MIXED_UP[unknown[1]][1] if _is_mixed_up(unknown[1], unknown[2]) else hint
    return NetError(f"{source}:{line + place[0]}:{column}: syntax error", says.strip(), hint)
