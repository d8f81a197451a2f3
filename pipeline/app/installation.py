"""Where the configuration stands: of an installation, and of a person's own list."""

from __future__ import annotations

import os
from pathlib import Path

import pipeline
from pipeline.errors import ConfigError

INSTALLATION = Path(pipeline.__file__).resolve().parents[1]
"""The folder that holds the package, config/, scripts/ and docs/."""


def default_config() -> Path:
    """HATHI_CONFIG, else the embedded default's configuration, beside the package."""
    if named := os.environ.get("HATHI_CONFIG"):
        return Path(named)
    return INSTALLATION / "config" / "local.toml"


def config_of(folder: Path) -> Path:
    """The configuration that stands beside the features of a list: what `hathi why --features DIR` reads.

    Raises ConfigError where no list was run into the folder.
    """
    path = folder / ".hathi" / "config.toml"
    if not path.exists():
        raise ConfigError(f"no list was run into {folder}", f"{path} is not there", "name the folder of --features")
    return path
