"""Packages that only a training needs, and of which extra: the error where one is missing."""

from __future__ import annotations

import importlib
from typing import Any

from pipeline.errors import SolverError
from pipeline.process.installed import to_install


def demand(package: str, what: str, extra: str = "training") -> Any:
    """The module.  Raises SolverError with the command that installs it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise SolverError(f"{what} needs the package {package}", str(error), to_install(extra)) from error
