"""A minimal configuration for a role, with a reader's own values: `hathi config init gateway|compute|local`.

What a role needs stands in QUESTIONS.  Nothing is written that has a default, so the file stays as short as it can be.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.settings import BUILT_IN, Settings, reading

ROLES = ("gateway", "compute", "local")


@dataclass(frozen=True, slots=True)
class Question:
    """One value; without a default it is needed."""

    name: str
    asks: str
    roles: tuple[str, ...] = ROLES
    default: str | None = None
    path: bool = False
    """Made absolute: in the file it would be relative to the file's folder."""
    nets: str = ""
    """The ending of the nets that it is asked for; any where it is empty."""

    def is_of(self, given: Mapping[str, str]) -> bool:
        """Whether it is worth asking, after these answers."""
        return given.get("net", "").endswith(self.nets)


QUESTIONS = (
    Question("bucket", "where the bucket is: s3://bucket/prefix, or a folder", path=True),
    Question("endpoint", "the S3 server's address, for any but Amazon's", default=""),
    Question("lake", "where the lake is: hdfs://namenode:9870/folder, or a folder", ("gateway", "local"), path=True),
    Question("lake_name", "the lake's name, the same on gateways and boxes", default="main"),
    Question("source", "where in the lake the refs are: a folder, a file or a glob", ("gateway", "local"), "refs"),
    Question("set", "the name of the feature set, the same on gateways and boxes", default="features"),
    Question("net", "the net: a .prototxt, an .onnx, hog, or image", path=True),
    Question("weights", "the .caffemodel of the net", default="", path=True, nets=".prototxt"),
    Question("blob", "the blob of the net whose values are the feature"),
    Question("preprocess", "what the net expects: imagenet, clip, dinov2, ...", default="", nets=".onnx"),
    Question("root", "the folder in the lake where features are delivered", default="features"),
    Question("contact", "how an owner of images reaches you: a URL or an address", ("compute", "local"), ""),
)


def questions(role: str) -> tuple[Question, ...]:
    """What a role's file is made of."""
    return tuple(one for one in QUESTIONS if role in one.roles)


def text_of(role: str, given: Mapping[str, str], path: Path) -> str:
    """The file's text.  given: values by the name of their question; what is absent has its default.

    path: where the file will be.  Raises ConfigError for a value that is missing, not of this role or not allowed.
    """
    wanted = {one.name: one for one in questions(role)}
    strange = [name for name in given if given[name] and name not in wanted]
    if strange:
        raise ConfigError(
            f"{option(strange[0])} does not belong to the role {role}", "", f"leave {option(strange[0])} out"
        )
    values = {name: given.get(name) or one.default or "" for name, one in wanted.items()}
    missing = [option(name) for name, one in wanted.items() if one.default is None and not values[name]]
    if missing:
        raise ConfigError(
            f"not given: {', '.join(missing)}",
            f"the role {role} needs: " + "; ".join(wanted[name].asks for name in wanted if option(name) in missing),
            "add it, or run the command on a terminal, where it asks",
        )
    for name, one in wanted.items():
        if one.path and values[name] and "://" not in values[name] and values[name] not in BUILT_IN:
            values[name] = os.path.abspath(os.path.expanduser(values[name]))
    text = "\n".join(_lines(role, values)) + "\n"
    reading.validate(Settings, reading.Effective(tomllib.loads(text), {}, str(path)))
    return text


def option(name: str) -> str:
    """A question's option on the command line."""
    return f"--{name.replace('_', '-')}"


def write(path: Path, text: str, *, over: bool) -> None:
    """Put the file in one step.  over: in the place of one that is there.  Raises ConfigError."""
    if path.exists() and not over:
        raise ConfigError(f"{path} is there already", "nothing was written", "add --yes to write over it")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(f"{path} cannot be written", error.strerror or str(error), "name another file") from error


def _lines(role: str, values: Mapping[str, str]) -> list[str]:
    lake, chosen = values["lake_name"], values["set"]
    lines = [_line("role", role), "", "[bucket]", _line("url", values["bucket"])]
    if values["endpoint"]:
        lines.append(_line("endpoint", values["endpoint"]))
    lines += ["", f"[lakes.{_key(lake)}]"]
    if "lake" in values:
        lines += [_line("url", values["lake"]), "", f"[[lakes.{_key(lake)}.sources]]", _line("path", values["source"])]
    lines += ["", f"[sets.{_key(chosen)}]", _line("net", values["net"])]
    if values["weights"]:
        lines.append(_line("weights", values["weights"]))
    lines += [_line("blob", values["blob"]), _line("root", values["root"])]
    if values["preprocess"]:
        lines.append(_line("preprocess.preset", values["preprocess"]))
    if values.get("contact"):
        lines += ["", "[fetch]", _line("contact", values["contact"])]
    return lines


def _line(key: str, value: str) -> str:
    return f"{key} = {json.dumps(value, ensure_ascii=False)}"


def _key(name: str) -> str:
    """A name as a part of a table's title; validation says which are allowed."""
    return json.dumps(name, ensure_ascii=False) if not name.replace("-", "").replace("_", "").isalnum() else name
