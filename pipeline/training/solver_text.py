"""The text of a solver -> SolverParameter, as Caffe's ReadSolverParamsFromTextFileOrDie makes it."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

from google.protobuf import text_format

from pipeline.codec import caffe_pb2
from pipeline.errors import SolverError
from pipeline.nets.caffe.prototxt import syntax_error

_TYPES = {"SGD": "SGD", "NESTEROV": "Nesterov", "ADAGRAD": "AdaGrad", "RMSPROP": "RMSProp", "ADADELTA": "AdaDelta",
          "ADAM": "Adam"}  # fmt: skip
"""The old enum's names -> today's `type`."""
_MAX_BYTES = 64 * 2**20  # a solver with its net in it is well under 1 MB


def read(path: Path) -> caffe_pb2.SolverParameter:
    """The solver at `path`, its old `solver_type` as `type`, and its snapshot_prefix as Caffe completes it.

    Raises SolverError: no such file, no UTF-8, a syntax error or an unknown field with its line and column.
    """
    return with_prefix(parse(_text(path), str(path)), str(path))


def parse(text: str, source: str) -> caffe_pb2.SolverParameter:
    """As `read`, from text, and without the prefix; `source` stands in messages."""
    solver = caffe_pb2.SolverParameter()
    try:
        text_format.Parse(text, solver)
    except text_format.ParseError as error:
        said = syntax_error(error, source)
        raise SolverError(said.message, said.detail, said.hint) from error
    except RecursionError as error:
        raise SolverError(f"{source} is nested too deeply", "", "check the file: a solver needs few levels") from error
    missing: list[str] = solver.FindInitializationErrors()  # type: ignore[attr-defined]
    if missing:
        raise SolverError(f"{source} lacks a field that must be set", ", ".join(missing), "set it in the text")
    if solver.HasField("solver_type"):
        if solver.HasField("type"):
            raise SolverError(
                f"{source} has solver_type and type",
                f'solver_type: {_type(solver.solver_type)}, type: "{solver.type}"',
                "solver_type is the old name of type: keep one of them",
            )
        solver.type = _TYPES[_type(solver.solver_type)]
        solver.ClearField("solver_type")
    return solver


def with_prefix(solver: caffe_pb2.SolverParameter, source: str) -> caffe_pb2.SolverParameter:
    """Without a snapshot_prefix: the solver's path without its extension; a folder: with the solver's name in it."""
    if not solver.HasField("snapshot_prefix"):
        solver.snapshot_prefix = os.path.splitext(source)[0]
    elif os.path.isdir(solver.snapshot_prefix):
        solver.snapshot_prefix = os.path.join(solver.snapshot_prefix, Path(source).stem)
    return solver


def _type(number: int) -> str:
    return caffe_pb2.SolverParameter.SolverType.Name(number)


def _text(path: Path) -> str:
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= _MAX_BYTES else b""
    except OSError as error:
        hint = "give the path of a solver's .prototxt"
        raise SolverError(f"the solver {path} cannot be read", error.strerror or str(error), hint) from error
    if size > _MAX_BYTES:
        raise SolverError(f"the solver {path} is no text of a solver", f"it has {size} bytes")
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise SolverError(
            f"{path}:{line}:{column}: the solver is not UTF-8",
            f"byte 0x{content[error.start]:02x}",
            "save the file as UTF-8; it may be in Latin-1",
        ) from error
    if "\0" in text:
        before_nul = text[: text.index("\0")]
        place = f"{before_nul.count(chr(10)) + 1}:{len(before_nul) - before_nul.rfind(chr(10))}"
        raise SolverError(f"{path}:{place}: the solver is no text", "a NUL", "give the .prototxt, not a binary file")
    return text
