"""Where the configuration of an installation stands."""

from __future__ import annotations

import os
from pathlib import Path

import pipeline

INSTALLATION = Path(pipeline.__file__).resolve().parents[1]
"""The folder that holds the package, config/, scripts/ and docs/."""


def default_config() -> Path:
    """HATHI_CONFIG, else the embedded default's configuration, beside the package."""
    if named := os.environ.get("HATHI_CONFIG"):
        return Path(named)
    return INSTALLATION / "config" / "local.toml"
