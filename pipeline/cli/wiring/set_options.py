"""Options of a feature set, the same for `hathi net` and a list of one's own: preprocessing, pooling, size, any."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable
from typing import Any

from pipeline.errors import ConfigError
from pipeline.settings import PRESETS, FeatureSet, Preprocess, Settings

_SIZE = re.compile(r"\s*\d+\s*[xX]\s*\d+\s*")
_NUMBERS = re.compile(r"[\s\d.,eE+-]*,[\s\d.,eE+-]*")
FORMS = "input_size=320, input_size=320x320, preprocess.mean=104,117,123, preprocess.resize=crop, normalise=none"


def add_arguments(parser: argparse._ActionsContainer) -> None:
    """`--preprocess`, `--pool`, `--input-size`."""
    parser.add_argument(
        "--preprocess",
        metavar="NAME",
        help=f"how the net's images were prepared in training: {', '.join(PRESETS)}, or a [preprocess.NAME] of the "
        "configuration (default: what lies beside an ONNX model or stands in it; of other nets caffe)",
    )
    parser.add_argument(
        "--pool",
        choices=("flatten", "mean", "max"),
        help="what becomes of a blob with height and width: all its values, or one for each channel (default: flatten)",
    )
    parser.add_argument(
        "--input-size",
        metavar="SIZE",
        help="the size of images where the net or the preset has none, or another one: 320, or 320x240 (height first)",
    )


def values(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of a set that the three options stand for, by dotted keys."""
    given = {"pool": args.pool, "input_size": args.input_size, "preprocess.preset": args.preprocess}
    return {key: value for key, value in given.items() if value is not None}


def overrides(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """As `values`, of set `name` among all settings."""
    return {f"sets.{name}.{key}": value for key, value in values(args).items()}


def pairs(texts: Iterable[str], name: str | None = None) -> dict[str, Any]:
    """`KEY=VALUE` of `--set`, by dotted keys.  name: the set that a key without its path is of.

    Raises ConfigError for a text that is no such pair.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise ConfigError(f"--set {text}", "it holds no =", f"write --set KEY=VALUE, for example {FORMS}")
        found[_full(key.strip(), name)] = value_of(value)
    return found


def names(text: str) -> list[str]:
    """Names with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def value_of(text: str) -> Any:
    """A value as it is typed: JSON, numbers with commas between them, a size `320x240`, or a text."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    if _NUMBERS.fullmatch(text):
        try:
            return json.loads(f"[{text}]")
        except ValueError:
            return text
    return [int(side) for side in text.lower().split("x")] if _SIZE.fullmatch(text) else text


def _full(key: str, name: str | None) -> str:
    """`mean` and `preprocess.mean` of a set as the path of the setting; other keys as they are."""
    if name is None:
        return key
    first = key.partition(".")[0]
    if first in Settings.model_fields and first != "preprocess":
        return key
    if first in FeatureSet.model_fields:
        return f"sets.{name}.{key}"
    return f"sets.{name}.preprocess.{key}" if key in Preprocess.model_fields else key
