"""What this host expects of its feature sets: what a plan carries, and what a box compares it with.

The fingerprint is read from the net's files where they are here; a gateway may be without them, and then the settings
alone are carried.  Files are read when it is asked for first, and again once one of them has changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import ConfigError, NetError
from pipeline.ledger.manifest import Expected
from pipeline.settings import DECODE_POLICY, FeatureSet, is_built_in


class Expectations:
    """Of the sets of one configuration, by name."""

    def __init__(self, sets: Mapping[str, FeatureSet]) -> None:
        self._sets = sets
        self._known: dict[str, tuple[tuple[object, ...], Expected]] = {}

    def __getitem__(self, name: str) -> Expected:
        """Raises KeyError for a set that is not configured."""
        one = self._sets[name]
        seen = tuple(_stamp(path) for path in _files(one).values())
        known = self._known.get(name)
        if known is None or known[0] != seen:
            known = self._known[name] = seen, expectation(one)
        return known[1]


def expectation(feature_set: FeatureSet, fingerprint: str | None = None) -> Expected:
    """What is expected of a set here.  fingerprint: the one that is known already, so that no file is read for it."""
    from pipeline.nets.fingerprint import deciding  # who plans nothing does without NumPy and protobuf

    return Expected(
        fingerprint=_fingerprint(feature_set) if fingerprint is None else fingerprint,
        decode=DECODE_POLICY,
        settings={name: json.dumps(value) for name, value in deciding(feature_set).items()},
        files={name: _told(path) for name, path in _files(feature_set).items()},
    )


def _fingerprint(feature_set: FeatureSet) -> str:
    """ "" where the files are not here, or do not fit: whoever computes says so, and this host does not."""
    from pipeline.nets.expected import expected

    if _stamp(feature_set.net) is None and not is_built_in(feature_set.net):
        return ""
    try:
        return expected(feature_set)
    except (NetError, ConfigError):
        return ""


def _files(feature_set: FeatureSet) -> dict[str, str]:
    """The files that decide a feature, by the setting that names them."""
    mean = feature_set.preprocess.mean
    named = {"net": feature_set.net, "weights": feature_set.weights, "preprocess.mean": mean}
    return {name: path for name, path in named.items() if isinstance(path, str)}


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


def _told(path: str) -> str:
    stamp = _stamp(path)
    return f"{Path(path).name}, {stamp[0]:,} bytes" if stamp else Path(path).name
