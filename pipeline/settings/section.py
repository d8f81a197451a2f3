"""What every table of the configuration is."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
"""Of a lake or a feature set: it becomes part of keys and folders."""


class Section(BaseModel):
    """A table of the configuration: unknown keys are errors, values never change once read.

    Pydantic prepares a table where it is first used, not where it is imported: most programs use `Settings` alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, defer_build=True)
