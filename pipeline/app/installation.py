"""Which configuration a command reads without --config."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.process.installed import INSTALLATION, PACKAGED

DEFAULT = "$HATHI_CONFIG, else " + (
    "./hathi.toml or ~/.config/hathi/config.toml" if PACKAGED else "config/local.toml of the checkout"
)
"""The configuration without --config, in words."""


def default_config() -> Path:
    """$HATHI_CONFIG; else a checkout's config/local.toml, or, of a package, the first that exists of ./hathi.toml and
    ~/.config/hathi/config.toml.

    Raises ConfigError where a package finds none: Hathi never works in the folder of its own code.
    """
    if named := os.environ.get("HATHI_CONFIG"):
        return Path(named)
    return _of_package(Path.cwd(), Path.home()) if PACKAGED else INSTALLATION / "config" / "local.toml"


def _of_package(here: Path, home: Path) -> Path:
    places = here / "hathi.toml", home / ".config" / "hathi" / "config.toml"
    for place in places:
        if place.is_file():
            return place
    raise ConfigError(
        "there is no configuration",
        f"neither --config nor $HATHI_CONFIG is given, and there is no {places[0]} and no {places[1]}",
        "write one with `hathi config init local hathi.toml`, or try `hathi sample`",
    )
