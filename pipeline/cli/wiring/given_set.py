"""A feature set that stands on a command line: a net with the options of set_options.py."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.cli.wiring import set_options
from pipeline.errors import ConfigError
from pipeline.settings import HOG, FeatureSet
from pipeline.settings import load as load_settings

SET = "net-command"


@dataclass(frozen=True)
class Given:
    """net, weights: files.  more: `KEY=VALUE` of --set.  settings: by dotted keys, of the set itself."""

    net: str
    weights: str | None
    blob: str
    more: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


def feature_set(given: Given, config: Path | None) -> FeatureSet:
    """What the options say of a feature set; config: with presets of its own, and nothing else.

    Raises ConfigError for an option that is no setting of a feature set.
    """
    typed = set_options.pairs(given.more, SET)
    unknown = [key for key in typed if not key.startswith(f"sets.{SET}.")]
    if unknown:
        hint = f"for example {set_options.FORMS}"
        raise ConfigError(f"--set {unknown[0]}: a feature set has no such setting", "", hint)
    settings = load_settings(
        config,
        os.environ,
        {
            "bucket.url": os.devnull,  # nothing is kept
            f"sets.{SET}.net": given.net if Path(given.net).name == HOG else os.path.abspath(given.net),
            f"sets.{SET}.weights": given.weights,
            f"sets.{SET}.blob": given.blob,
            f"sets.{SET}.root": SET,
            **{f"sets.{SET}.{key}": value for key, value in given.settings.items()},
            **typed,
        },
    )
    return settings.sets[SET]
