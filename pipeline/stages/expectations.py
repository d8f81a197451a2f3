"""What this host expects of its feature sets: what a plan carries, and what a box compares it with.

The fingerprint is read from the net's files where they are here; a gateway may be without them, and then the settings
alone are carried.  Files are read when it is asked for first, and again once one of them has changed.  Of a set that
follows a model they are those of a promotion.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from pipeline.errors import ConfigError, NetError
from pipeline.ledger.manifest import Expected, Promoted
from pipeline.settings import DECODE_POLICY, FeatureSet, is_built_in
from pipeline.stages.following import Asked, Following
from pipeline.stages.known_fingerprints import fingerprint_of


class Expectations:
    """Of the sets of one configuration, by name."""

    def __init__(self, following: Following) -> None:
        self._following = following
        self._known: dict[Asked, tuple[tuple[object, ...], Expected]] = {}

    def refresh(self) -> None:
        """A turn begins: sets that follow a model follow what is in use now."""
        self._following.refresh()

    def __getitem__(self, name: str) -> Expected:
        """What is expected of what is planned now.

        Raises KeyError for a set that is not configured, PermanentError for one whose model has no files.
        """
        return self._of(self._following.newest_of(name))

    def of_plan(self, name: str, planned: Expected) -> Expected:
        """What is expected now of what was planned so; raises as `self[name]`."""
        asked = self._following.newest_of(name)
        before = planned.promoted
        if asked.number and before is not None:
            asked = Asked(name, before.model, before.number)
        return self._of(asked)

    def _of(self, asked: Asked) -> Expected:
        one = self._following.configured(asked)
        seen = tuple(_stamp(path) for path in _files(one).values())
        known = self._known.get(asked)
        if known is None or known[0] != seen:
            print_ = fingerprint_of(self._following.state, one, _whole(one), lambda: _fingerprint(one))
            known = self._known[asked] = seen, expectation(one, print_, promoted=asked.promoted)
        return known[1]


def expectation(feature_set: FeatureSet, fingerprint: str | None = None, promoted: Promoted | None = None) -> Expected:
    """What is expected of a set here.

    fingerprint: the one that is known already, so that no file is read for it.  promoted: where the set's files come
    from, where it follows a model.
    """
    from pipeline.nets.fingerprint import deciding  # who plans nothing does without NumPy and protobuf

    return Expected(
        fingerprint=_fingerprint(feature_set) if fingerprint is None else fingerprint,
        decode=DECODE_POLICY,
        settings={name: json.dumps(value) for name, value in deciding(feature_set).items()},
        files={name: _told(path) for name, path in _files(feature_set).items()},
        promoted=promoted,
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
    return {name: path for name, path in named.items() if isinstance(path, str) and path}


def _whole(feature_set: FeatureSet) -> list[str]:
    """All files that decide a fingerprint, where their names tell which these are: of an ONNX model they do not."""
    files = list(_files(feature_set).values())
    return [] if any(path.endswith(".onnx") or is_built_in(path) for path in files) else files


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


def _told(path: str) -> str:
    stamp = _stamp(path)
    return f"{Path(path).name}, {stamp[0]:,} bytes" if stamp else Path(path).name
