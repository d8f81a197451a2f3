"""What two configurations have differently: what has to match between a gateway and a box, or everything.

What has to match stands in one place, MUST_MATCH: the page docs/configuration.md and `hathi config check` name it too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from pipeline.ledger.expectation import differing
from pipeline.settings import FeatureSet, Settings, load
from pipeline.settings.leaves import MASK, leaves
from pipeline.settings.places import place_of
from pipeline.stages.expectations import expectation

MUST_MATCH: dict[str, str] = {
    "bucket.url": "the same place, and bucket.endpoint with it",
    "lakes": "the names; a box needs nothing else of a lake",
    "sets": "the names, and of each set what decides its features: net and weights, or model; blob, input_size, "
    "preprocess, normalise, precision, dependent_rows; and formats and parquet_numbers, which the box writes",
    "daemon.alive_seconds": "one value on every host",
}
"""The tables and settings that have to match between a gateway and its boxes, and what of them."""
WRITTEN_BY_THE_BOX = ("formats", "parquet_numbers")
NOT_THERE = "not there"


@dataclass(frozen=True, slots=True)
class Difference:
    """One setting; texts as they are shown, secrets masked."""

    key: str
    first: str
    second: str


@dataclass(frozen=True)
class Side:
    """A configuration as its file alone says it: no variable of this shell has a part."""

    path: Path
    settings: Settings

    @staticmethod
    def of(path: Path) -> Side:
        """Raises ConfigError for a file that is missing or wrong."""
        return Side(path, load(path, {}))

    @property
    def home(self) -> Path:
        return self.path.resolve().parent


def that_matters(first: Side, second: Side) -> Iterator[Difference]:
    """What differs of MUST_MATCH.  The nets' files are compared where both are on this host, else their names."""
    one, other = first.settings, second.settings
    if not _same_path(first, one.bucket.url, second, other.bucket.url):
        yield _difference("bucket.url", one.bucket.url, other.bucket.url)
    if one.bucket.endpoint != other.bucket.endpoint:
        yield _difference("bucket.endpoint", one.bucket.endpoint, other.bucket.endpoint)
    yield from _names("lakes", one.lakes, other.lakes)
    yield from _names("sets", one.sets, other.sets)
    for name in sorted(one.sets.keys() & other.sets.keys()):
        yield from _set(f"sets.{name}", one.sets[name], other.sets[name])
    if one.daemon.alive_seconds != other.daemon.alive_seconds:
        yield _difference("daemon.alive_seconds", one.daemon.alive_seconds, other.daemon.alive_seconds)


def everything(first: Side, second: Side) -> Iterator[Difference]:
    """Each setting that differs; paths that lie in the same way to their files are one."""
    one, other = dict(leaves(first.settings)), dict(leaves(second.settings))
    for key in [*one, *(key for key in other if key not in one)]:
        here, there = one.get(key, NOT_THERE), other.get(key, NOT_THERE)
        same = here == there or (
            isinstance(here, str) and isinstance(there, str) and _same_path(first, here, second, there)
        )
        if not same and not (key not in one and there is None) and not (key not in other and here is None):
            yield _difference(key, here, there)


def _names(key: str, one: Mapping[str, object], other: Mapping[str, object]) -> Iterator[Difference]:
    for name in sorted(one.keys() ^ other.keys()):
        first, second = ("there", NOT_THERE) if name in one else (NOT_THERE, "there")
        yield Difference(f"{key}.{name}", first, second)


def _set(key: str, one: FeatureSet, other: FeatureSet) -> Iterator[Difference]:
    here, there = expectation(one), expectation(other)
    found = {one.setting: one for one in differing(here, there)}
    for found_one in found.values():
        yield Difference(f"{key}.{found_one.setting}", found_one.gateway, found_one.here)
    if not (here.fingerprint and there.fingerprint):
        for name in ("net", "weights", "model"):
            first, second = _name(getattr(one, name)), _name(getattr(other, name))
            if first != second and name not in found:
                yield Difference(f"{key}.{name}", first, second)
    for name in WRITTEN_BY_THE_BOX:
        if getattr(one, name) != getattr(other, name):
            yield _difference(f"{key}.{name}", getattr(one, name), getattr(other, name))


def _name(path: str | None) -> str:
    return os.path.basename(path) if path else "none"


def _same_path(first: Side, here: str, second: Side, there: str) -> bool:
    """Whether two values are one place, or lie in the same way to the files that name them."""
    if here == there:
        return True
    if "://" in here or "://" in there:
        return "://" in here and "://" in there and place_of(here) == place_of(there)
    if not (os.path.isabs(here) and os.path.isabs(there)):
        return False
    return os.path.relpath(here, first.home) == os.path.relpath(there, second.home)


def _difference(key: str, first: Any, second: Any) -> Difference:
    return Difference(key, _shown(first), _shown(second))


def _shown(value: Any) -> str:
    if isinstance(value, SecretStr):
        return MASK
    return "none" if value is None else str(value)
