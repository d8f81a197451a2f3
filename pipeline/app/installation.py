"""Where the files beside the code are, and which configuration a command reads without --config."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pipeline
from pipeline.errors import ConfigError

_CODE = Path(pipeline.__file__).resolve().parent
PACKAGED = (_CODE / "share").is_dir()
"""Whether Hathi was installed as a package; else this is a checkout."""
INSTALLATION = _CODE / "share" if PACKAGED else _CODE.parent
"""The folder that holds config/, docs/, proto/ and sample/; in a checkout, the code, scripts/ and locks/ too."""
DEFAULT = "$HATHI_CONFIG, else " + (
    "./hathi.toml or ~/.config/hathi/config.toml" if PACKAGED else "config/local.toml of the checkout"
)
"""The configuration without --config, in words."""
_NAMED = re.compile(r"(?<![\w/.-])(?:config|docs|proto|sample)/[\w.-]*\w")


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


def located(text: str) -> str:
    """A message in which files that came with a package are named by their whole path."""
    return _NAMED.sub(lambda found: _path_of(found[0]), text) if PACKAGED else text


def _path_of(name: str) -> str:
    path = INSTALLATION / name
    return str(path) if path.exists() else name
