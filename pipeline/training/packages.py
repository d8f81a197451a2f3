"""Packages that only a training needs: the error where one is missing."""

from __future__ import annotations

import importlib
from typing import Any

from pipeline.errors import SolverError
from pipeline.process.installed import to_install


def demand(package: str, what: str) -> Any:
    """The module.  Raises SolverError with the command that installs it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise SolverError(f"{what} needs the package {package}", str(error), to_install("training")) from error
