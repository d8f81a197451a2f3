"""Settings of the environment, as pydantic-settings reads them: `HATHI_` and the path, JSON for lists and tables.

A module of its own, since the library takes its time to import and most starts have no such variable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource

from pipeline.settings.reading import DELIMITER, PREFIX


def values_of(model: type[BaseModel], environ: Mapping[str, str]) -> dict[str, Any]:
    """The values that variables set, as a tree; not validated yet.  Empty variables set nothing."""
    return _Environment(model, environ)()


class _Environment(EnvSettingsSource):
    """The library's reading of variables, over a given environment instead of the process's own."""

    def __init__(self, model: type[BaseModel], environ: Mapping[str, str]) -> None:
        self._given = {name.lower(): value for name, value in environ.items() if value}
        settings = cast(type[BaseSettings], model)  # it reads the fields only, which any model has
        super().__init__(settings, env_prefix=PREFIX, env_nested_delimiter=DELIMITER)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._given

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """JSON; text that is none goes on as it is, so that validation names the key."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value
