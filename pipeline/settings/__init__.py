"""Every setting, its default and what it means; the configuration files hold the same words with comments.

Paths are relative to the folder of the file that names them.  Each setting is also an environment variable:
`HATHI_` and the path with double underscores, e.g. `HATHI_FETCH__CONNECTIONS_PER_HOST=8`; lists are JSON there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from pipeline import configuration
from pipeline.configuration import FilePath
from pipeline.settings.bucket import Bucket
from pipeline.settings.fetch import Fetch
from pipeline.settings.lakes import Columns, Hdfs, Lake, Source
from pipeline.settings.operation import Daemon, Health, Logs, Metrics, Notify
from pipeline.settings.section import Name
from pipeline.settings.sets import DECODE_POLICY, FeatureSet, Preprocess
from pipeline.settings.stages import Compute, Deliver, Prune, Ship

__all__ = [
    "DECODE_POLICY",
    "Bucket",
    "Columns",
    "Compute",
    "Daemon",
    "Deliver",
    "FeatureSet",
    "Fetch",
    "Hdfs",
    "Health",
    "Lake",
    "Logs",
    "Metrics",
    "Name",
    "Notify",
    "Preprocess",
    "Prune",
    "Settings",
    "Ship",
    "Source",
    "load",
    "load_bucket",
    "load_fetch",
    "travelling",
]


class Settings(BaseSettings):
    """All settings of one installation; `load` reads them, tests may construct them."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    state: FilePath = "../state"
    """The folder of this host's locks, ESTOP and spilled data; never shared between hosts."""
    bucket: Bucket
    """What gateways and compute boxes share."""
    lakes: dict[Name, Lake] = {}
    """By name: a to z, 0 to 9, - and _."""
    sets: dict[Name, FeatureSet] = {}
    """Feature sets by name: a to z, 0 to 9, - and _."""
    ship: Ship = Ship()
    fetch: Fetch = Fetch()
    compute: Compute = Compute()
    deliver: Deliver = Deliver()
    prune: Prune = Prune()
    daemon: Daemon = Daemon()
    health: Health = Health()
    notify: Notify = Notify()
    metrics: Metrics = Metrics()
    logs: Logs = Logs()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what it is constructed with: `load` alone looks at the environment, once, where it can be shown."""
        return (init_settings,)

    @model_validator(mode="after")
    def _sets_name_lakes_that_exist(self) -> Settings:
        for name, feature_set in self.sets.items():
            for lake in feature_set.lakes or ():
                if lake not in self.lakes:
                    raise PydanticCustomError(
                        "unknown_lake",
                        "no such lake; lakes are: {known}",
                        {"known": ", ".join(sorted(self.lakes)) or "none", "parts": ["sets", name, "lakes"]},
                    )
        return self

    @model_validator(mode="after")
    def _each_set_has_a_root_of_its_own(self) -> Settings:
        for name, one in self.sets.items():
            for other_name, other in self.sets.items():
                shared = set(one.lakes or self.lakes) & set(other.lakes or self.lakes)
                if name < other_name and shared and one.root.strip("/") == other.root.strip("/"):
                    raise PydanticCustomError(
                        "shared_root",
                        "set {other} delivers there too, and two sets in one root would mix",
                        {"other": name, "parts": ["sets", other_name, "root"]},
                    )
        return self


def travelling(settings: Settings) -> str:
    """The settings as JSON for another process of this installation, secrets in clear: never logged, never kept."""

    def clear(value: object) -> object:
        if isinstance(value, SecretStr):
            return value.get_secret_value()
        raise TypeError(f"not a setting: {type(value).__name__}")

    return json.dumps(settings.model_dump(), default=clear, sort_keys=True)


def load(path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, object] | None = None) -> Settings:
    """The effective settings: overrides (nested, or dotted keys) win over HATHI_... variables, these over the file.

    Paths are absolute in them.  Raises ConfigError naming the file or variable, the key and what is allowed.
    """
    return configuration.validate(Settings, configuration.read(Settings, path, environ, overrides or {}))


def load_fetch(path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, object] | None = None) -> Fetch:
    """Section `fetch` alone, for commands that need no bucket; as `load`."""
    return configuration.validate(Fetch, configuration.read(Settings, path, environ, overrides or {}), "fetch")


def load_bucket(path: Path | None, environ: Mapping[str, str]) -> Bucket:
    """Section `bucket` alone; as `load`."""
    return configuration.validate(Bucket, configuration.read(Settings, path, environ, {}), "bucket")
