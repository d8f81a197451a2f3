"""The folder of a person's own list: the configuration that stands in it, and what its features were made with."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.ledger.layout import Root
from pipeline.settings import Hdfs, Settings
from pipeline.settings.written import toml_of
from pipeline.stores.local import typed
from pipeline.stores.opening import open_place

SET, LAKE = "features", "list"
"""How the configuration of an own list names its set and its lake."""
HEAD = "# What this folder was made with, for `hathi why`, `similar` ... --features DIR; each run writes it.\n"

_SECRET: Any = {"access_key", "secret_key", "session_token"}
_HEADERS: Any = {"hosts": {"__all__": {"headers"}}}


def private(folder: Path) -> Path:
    """Where Hathi's own files are in a folder of features."""
    return folder / ".hathi"


def config_of(folder: Path) -> Path:
    """The configuration that stands beside the features of a list: what `hathi why --features DIR` reads.

    It names the folder's place anew where somebody has moved the folder.
    Raises ConfigError where no run with --features has made the folder.
    """
    path = private(folder) / "config.toml"
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{folder} is not a folder of `hathi run --features`",
            f"there is no {path}",
            "name the folder that a run with --features has made",
        ) from None
    except OSError as error:
        raise typed(error, path) from error
    except ValueError:
        return path  # whoever reads it says what is wrong there
    here = str(folder.resolve())
    made = tree.get("sets", {}).get(SET)
    if isinstance(made, dict) and made.get("root") != here:
        made["root"] = here
        write(path, HEAD + toml_of(tree))
    return path


def kept(folder: Path) -> list[str]:
    """The columns of the list that the last run kept beside the features."""
    path = private(folder) / "config.toml"
    try:
        sources = tomllib.loads(path.read_text(encoding="utf-8"))["lakes"][LAKE]["sources"]
        return [str(name) for name in sources[0].get("keep", [])]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise typed(error, path) from error
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        hint = "delete the file: a run with --refs writes it anew (say --keep again where you want columns)"
        raise ConfigError(f"{path} cannot be read", f"{error}", hint) from error


def write_config(settings: Settings) -> None:
    """Write the set and the source of an own list, with each of their values, into the folder of its features.

    Of bucket and fetch what was given is written; secrets are not: they come from the environment each time.
    """
    folder = private(Path(settings.sets[SET].root))
    tree = settings.model_dump(
        mode="json",
        include={
            "state": True,
            "logs": {"folder"},
            "lakes": {LAKE},
            "sets": {SET},
            "preprocess": True,
        },
    )
    # A preset fills what is not given, so what was not given stays so.
    tree["sets"][SET]["preprocess"] = settings.sets[SET].preprocess.model_dump(mode="json", exclude_unset=True)
    tree["state"] = _from(folder, tree["state"])
    tree["bucket"] = settings.bucket.model_dump(mode="json", exclude_unset=True, exclude=_SECRET)
    tree["bucket"]["url"] = _from(folder, settings.bucket.url)
    tree["fetch"] = settings.fetch.model_dump(mode="json", exclude_unset=True, exclude=_HEADERS)
    tree["logs"]["folder"] = _from(folder, tree["logs"]["folder"])
    write(folder / "config.toml", HEAD + toml_of(tree))


def _from(folder: Path, path: str) -> str:
    """A path in the folder, so that it holds where the folder is moved; any other as it is."""
    return os.path.relpath(path, folder) if Path(path).is_relative_to(folder) else path


def made_with(folder: Path) -> str | None:
    """The fingerprint of the newest features that are delivered there; None where there is not one feature."""
    from pipeline.stages.compact.standing import delta, newest, partners, shipments, tables  # NumPy and pyarrow

    if not folder.is_dir():
        return None
    lake, root = open_place(str(folder.parent), Hdfs()), Root(folder.name)
    for name in sorted(shipments(lake, root), reverse=True):
        for partner in partners(lake, root, name):
            body = delta(lake, root, name, partner)
            if body.features:
                return body.fingerprint
    for partner in tables(lake, root):
        current = newest(lake, root, partner)
        if current is not None and current.body.fingerprints:
            return next(iter(current.body.fingerprints))
    return None


def write(path: Path, text: str) -> None:
    """The old text or the new one stands there, whenever the process is killed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise typed(error, path) from error


def differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The settings, by their path in the set, that are written down with other values."""
    keys = sorted({*before, *now})
    found = []
    for key in keys:
        one, other = before.get(key), now.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found += [f"{key}.{below}" for below in differing(one, other)]
        elif one != other:
            found.append(key)
    return found
