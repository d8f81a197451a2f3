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

    Raises ConfigError where no run with --features has made the folder.
    """
    path = folder / ".hathi" / "config.toml"
    if not path.exists():
        raise ConfigError(
            f"{folder} is not a folder of `hathi run --features`",
            f"there is no {path}",
            "name the folder that a run with --features has made",
        )
    return path
