"""What the features of an own list were made with, beside what they are made with now: `.hathi/options.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.app import own_folder
from pipeline.app.own_folder import LAKE, SET
from pipeline.clock import Clock
from pipeline.errors import ConfigError
from pipeline.settings import Settings, Source
from pipeline.stores.local import typed

_NO_VALUE = frozenset(("net", "weights", "engine", "batch_size", "formats", "parquet_numbers", "lakes", "reuse"))
"""Settings of a set that decide no value of a feature; of net and weights what the files hold decides."""
_NO_OTHER_VALUE = ("preprocess.max_pixels", "preprocess.damaged")
"""Settings that decide whether an image has a feature, and not which."""
_LATER = {"text": {}, "ids": "normalised"}
"""What options.json did not say at first."""


@dataclass(frozen=True)
class Options:
    """What a folder of features is made with, and what it was made with the last time."""

    path: Path
    now: dict[str, Any]
    before: dict[str, Any] | None
    remade: bool = False
    """Other features are made now than the last time, when not one came of it: what ended without is shipped again."""

    @property
    def changed(self) -> bool:
        """Whether the list is read in another way than the last time: what was shipped is to be shipped again."""
        if self.before is None:
            return False
        grown = {"text": {}, "ids": Source.model_fields["ids"].default}  # unknown to who wrote it down long ago
        return bool({**grown, **self.before["reading"]} != self.now["reading"])

    @property
    def refetched(self) -> bool:
        """Whether the difference lies in what may be fetched, which no plan tells of."""
        key = "allow_private"
        return self.changed and self.before is not None and self.before["reading"][key] != self.now["reading"][key]

    def keep(self) -> None:
        """Write them down: only once the round that a changed option asks for is announced."""
        own_folder.write(self.path, json.dumps(self.now, indent=1) + "\n")


def options_of(settings: Settings) -> Options:
    """What the folder is made with, beside what it was made with; the caller holds the locks of the stages.

    Where the options or the files are not those of the last time, the set is loaded first: nothing is remembered, and
    nothing shipped, for a net that cannot be used.
    Raises ConfigError where the folder holds features and the set would make others, and as FeatureMaker does.
    """
    from pipeline.nets.preprocessing import with_stated

    one = settings.sets[SET]
    path = own_folder.private(Path(one.root)) / "options.json"
    stated = with_stated(one)
    how = stated.model_dump(mode="json", exclude={"root"})
    files = [_stamp(name) for name in (one.net, one.weights, stated.preprocess.mean) if isinstance(name, str)]
    before = _read(path)
    known = {} if before is None else before["features"]
    fingerprint, remade = known.get("fingerprint"), False
    if fingerprint is None or (known.get("set"), known.get("files")) != (how, files):
        from pipeline.extraction.feature_maker import FeatureMaker  # the net's engine takes its time to import

        fingerprint = FeatureMaker(settings, SET, Clock()).fingerprint
        remade = before is not None and _remade(known, how, fingerprint, Path(one.root))
    now = {"features": {"set": how, "files": files, "fingerprint": fingerprint}, "reading": _reading(settings)}
    return Options(path, now, before, remade)


def _remade(known: dict[str, Any], how: dict[str, Any], fingerprint: str, root: Path) -> bool:
    """Whether images are to be computed anew.  Raises ConfigError where features stand there that are others."""
    changed = [key for key in own_folder.differing(known.get("set", {}), how) if key.partition(".")[0] not in _NO_VALUE]
    made = own_folder.made_with(root)
    if made is None:
        return bool(changed) or known.get("fingerprint") != fingerprint
    if made != fingerprint:
        deciding = [key for key in changed if key not in _NO_OTHER_VALUE]
        raise ConfigError(
            f"{root} holds features that were made with other settings",
            f"changed: {', '.join(deciding) or 'net or weights (the file)'}",
            "choose another --features folder, so that two kinds of features do not mix",
        )
    return False


def _reading(settings: Settings) -> dict[str, Any]:
    """What decides how the list is read, and what of it may be fetched."""
    source = settings.lakes[LAKE].sources[0]
    return {
        "allow_private": settings.fetch.allow_private,
        "columns": source.columns.model_dump(mode="json"),
        "format": source.format,
        "partner_id": source.partner_id,
        "text": source.text.model_dump(mode="json", exclude_defaults=True),
        "ids": source.ids,
    }


def _read(path: Path) -> dict[str, Any] | None:
    """What was written down; None where nothing was."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found["features"], dict) or "allow_private" not in found["reading"]:
            raise ValueError("it lacks features or reading")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise typed(error, path) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} cannot be read",
            f"it records how the features of this folder are made: {error}",
            "choose another --features folder, or put the file back",
        ) from error
    return {**found, "reading": {**_LATER, **found["reading"]}}


def _stamp(path: str) -> list[object]:
    """What changes with a file's content, wherever it lies: nobody reads 500 MB to find that nothing has changed."""
    try:
        found = Path(path).stat()
    except OSError:  # who reads it says so
        return [path]
    return [found.st_size, found.st_mtime_ns]
