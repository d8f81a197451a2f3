"""Every setting, its default and what it means; the configuration files hold the same words with comments.

Paths are relative to the folder of the file that names them.  Each setting is also an environment variable:
`HATHI_` and the path with double underscores, e.g. `HATHI_FETCH__CONNECTIONS_PER_HOST=8`; lists are JSON there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from pipeline.errors import ConfigError
from pipeline.settings import reading
from pipeline.settings.bucket import Bucket
from pipeline.settings.fetch import Fetch, HostFetch
from pipeline.settings.lakes import NULL_WORDS, Columns, Format, Hdfs, ItemColumns, Lake, Source, Text
from pipeline.settings.operation import Daemon, Health, Logs, Metrics, Notify
from pipeline.settings.places import place_of, within
from pipeline.settings.preprocessing import PRESETS, Preprocess, with_own_presets
from pipeline.settings.reading import FilePath
from pipeline.settings.section import Name
from pipeline.settings.service import Service
from pipeline.settings.sets import BUILT_IN, DECODE_POLICY, HOG, IMAGE, FeatureSet, is_built_in
from pipeline.settings.stages import Archive, Compute, Deliver, Prune, Ship
from pipeline.stage_names import ON_THE_BOX, ON_THE_LAKE, STAGES

__all__ = [
    "BUILT_IN",
    "DECODE_POLICY",
    "HOG",
    "IMAGE",
    "NULL_WORDS",
    "PRESETS",
    "Archive",
    "Bucket",
    "Columns",
    "Compute",
    "Daemon",
    "Deliver",
    "FeatureSet",
    "Fetch",
    "Format",
    "Hdfs",
    "Health",
    "HostFetch",
    "ItemColumns",
    "Lake",
    "Logs",
    "Metrics",
    "Name",
    "Notify",
    "Preprocess",
    "Prune",
    "Service",
    "Settings",
    "Ship",
    "Source",
    "Text",
    "is_built_in",
    "load",
    "load_bucket",
    "load_fetch",
    "travelling",
]


class Settings(BaseModel):
    """All settings of one installation; `load` reads them, tests may construct them."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, defer_build=True)

    role: Literal["gateway", "compute", "local"] | None = Field(default=None, examples=["gateway"])
    """What this host is. gateway: it runs ship and deliver; compute: it runs compute and aggregate; local: it runs all
    four. `hathi run` and `hathi config check` take the stages from it where none is named. none: compute where no
    lake has a url, else local."""
    state: FilePath = "../state"
    """The folder for this host's locks, ESTOP and temporary files. Put it on a local disk with room for
    compute.spill_bytes; two hosts must never share it. For a file under /etc, or in a folder at the top of the file
    system, the default is /var/lib/hathi/state (/var/lib/NAME/state for /etc/NAME/x.toml); for one under ~/.config it
    is ~/.local/state/hathi/state."""
    bucket: Bucket
    """The object store that gateways and compute boxes share."""
    lakes: dict[Name, Lake] = Field(default={}, examples=["main"])
    """The lakes (Hadoop sides), by name: a to z, 0 to 9, - and _. The name is part of every key in the bucket: gateways
    and boxes must use the same name, and it must not change later."""
    sets: dict[Name, FeatureSet] = Field(default={}, examples=["features"])
    """The feature sets, by name (a to z, 0 to 9, - and _): what Hathi computes and where it delivers it. Gateways and
    boxes need the same sets."""
    preprocess: dict[Name, Preprocess] = Field(default={}, examples=["mine"])
    """Presets of your own, by name, for preprocess.preset of sets and --preprocess. Each may begin with a preset that
    is built in (its own `preset`)."""
    ship: Ship = Ship()
    fetch: Fetch = Fetch()
    compute: Compute = Compute()
    archive: Archive = Archive()
    deliver: Deliver = Deliver()
    prune: Prune = Prune()
    daemon: Daemon = Daemon()
    health: Health = Health()
    notify: Notify = Notify()
    metrics: Metrics = Metrics()
    logs: Logs = Logs()
    service: Service = Service()

    @property
    def stages(self) -> tuple[str, ...]:
        """What this host runs, by its role, in the order of the pipeline."""
        seen = any(lake.url is not None for lake in self.lakes.values())
        role = self.role or ("compute" if self.lakes and not seen else "local")
        return {"gateway": ON_THE_LAKE, "compute": ON_THE_BOX, "local": STAGES}[role]

    @model_validator(mode="before")
    @classmethod
    def _sets_begin_with_their_presets(cls, values: Any) -> Any:
        return with_own_presets(values)

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
    def _tenants_promote_to_sets_that_follow_a_model(self) -> Settings:
        for tenant, names in self.service.promotion.items():
            for name in names:
                if name not in self.sets or self.sets[name].model is None:
                    known = ", ".join(sorted(one for one in self.sets if self.sets[one].model is not None)) or "none"
                    raise PydanticCustomError(
                        "unknown_set",
                        "no set {name} follows a model; those that do: {known}",
                        {"name": name, "known": known, "parts": ["service", "promotion", tenant]},
                    )
        return self

    def followers(self, model: str) -> list[str]:
        """The sets that follow a model."""
        return sorted(name for name, one in self.sets.items() if one.model == model)

    @model_validator(mode="after")
    def _float16_holds_what_is_delivered(self) -> Settings:
        for name, feature_set in self.sets.items():
            if feature_set.parquet_numbers == "float16" and feature_set.normalise != "l2":
                raise PydanticCustomError(
                    "too_great_for_float16",
                    'float16 ends at 65,504, and a feature as the net computes it may not; set normalise = "l2"',
                    {"parts": ["sets", name, "parquet_numbers"]},
                )
        return self

    @model_validator(mode="after")
    def _no_setting_of_a_set_is_mute(self) -> Settings:
        for name, feature_set in self.sets.items():
            if (found := feature_set.mute()) is not None:
                says, where = f"{found[1]}; leave it out", ["sets", name, *found[0]]
                raise PydanticCustomError("mute", "{says}", {"says": says, "parts": where})
        return self

    @model_validator(mode="after")
    def _each_set_has_a_root_of_its_own(self) -> Settings:
        for (lake, name, place), (other_lake, other, second) in self._mixed():
            if lake == other_lake:
                raise PydanticCustomError(
                    "shared_root",
                    "set {other} delivers there too; give each set a root of its own"
                    if place == second
                    else "this root and the root of set {other} lie in each other; give each set a root of its own",
                    {"other": name, "parts": ["sets", other, "root"]},
                )
        return self

    def check_lakes(self) -> None:
        """Raises ConfigError where a lake has no url, or where two lakes are one place, or one lies in the other, and
        what is delivered would mix.

        For hosts that reach the lakes: a compute box knows them by name alone, and may give them any URL.
        """
        for name in self.lakes:
            self.url_of(name)
        for (lake, name, _), (other_lake, other, _) in self._mixed():
            raise ConfigError(
                f"lakes.{other_lake}.url: lakes {other_lake} and {lake} are the same place, or one lies in the other",
                f"set {name} of {lake} and set {other} of {other_lake} would deliver into one folder",
                "use each folder for one lake only, or give the sets different lakes (sets.NAME.lakes)",
            )

    def shown(self, lake: str, path: str) -> str:
        """A path on a lake as a person writes it: of the whole file system (a list of one's own) it begins with `/`."""
        return f"/{path}" if self.lakes[lake].url == "/" and not path.startswith("/") else path

    def url_of(self, lake: str) -> str:
        """Where a lake is.  Raises ConfigError where the configuration does not say it: it is that of a compute box."""
        url = self.lakes[lake].url
        if url is None:
            raise ConfigError(
                f"lakes.{lake}.url is not set",
                "ship and deliver read and write the lake; a compute box only needs its name",
                f"on a gateway add url to [lakes.{lake}]; on a box run compute and aggregate alone",
            )
        return url

    def _mixed(self) -> Iterator[tuple[tuple[str, str, str], tuple[str, str, str]]]:
        """Deliveries, two at a time, that are one place, or one in the other."""
        for first, second in combinations(sorted(self._deliveries()), 2):
            if within(first[2], second[2]) or within(second[2], first[2]):
                yield first, second

    def _deliveries(self) -> Iterator[tuple[str, str, str]]:
        """(lake, set, the place where it delivers)."""
        for name, one in self.sets.items():
            for lake in self.lakes if one.lakes is None else one.lakes:
                yield lake, name, self._place(lake, one.root)

    def _place(self, lake: str, path: str = "") -> str:
        """A path of a lake in one spelling; a lake without a url is a place of its own."""
        url = self.lakes[lake].url
        return place_of(f"lake://{lake}" if url is None else url, path)

    def delivered(self, lake: str) -> tuple[str, ...]:
        """Prefixes of the paths of a lake under which Hathi delivers, by whatever name: never a source."""
        top = self._place(lake)
        own = {one.folder + "/" for one in self.sets.values()}
        others = {
            place.removeprefix(f"{top}/") + "/" for _, _, place in self._deliveries() if place.startswith(f"{top}/")
        }
        return tuple(sorted(own | others))


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
    return reading.validate(Settings, reading.read(Settings, path, environ, overrides or {}))


def load_fetch(path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, object] | None = None) -> Fetch:
    """Section `fetch` alone, for commands that need no bucket; as `load`."""
    return reading.validate(Fetch, reading.read(Settings, path, environ, overrides or {}), "fetch")


def load_logs(path: Path | None, environ: Mapping[str, str]) -> Logs:
    """Section `logs` alone; as `load`."""
    return reading.validate(Logs, reading.read(Settings, path, environ, {}), "logs")


def load_bucket(path: Path | None, environ: Mapping[str, str]) -> Bucket:
    """Section `bucket` alone; as `load`."""
    return reading.validate(Bucket, reading.read(Settings, path, environ, {}), "bucket")
