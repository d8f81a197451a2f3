"""What an index as `outputByPartner` says, entry by entry; read liberally, judged strictly.  No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.amounts import counted
from pipeline.codec.refs.rules import is_unicode
from pipeline.errors import FormatError
from pipeline.settings import Source
from pipeline.sources.index_times import job_seconds
from pipeline.sources.paths import partner_number
from pipeline.stores.backends import HDFS

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?://(?P<host>[^/]*))?(?P<path>/.*)?", re.DOTALL)
_FIELDS = ("jobTimeStamp", "outputFolder", "files", "outputSize")
_PARTNER = ("partnerId", "partner_id", "partner")
_NAME = ("path", "name", "file", "fileName")
_SIZE = ("size", "length", "fileSize")


@dataclass(frozen=True)
class Home:
    """Where a lake is, as paths in an index may say it: the scheme, the servers and the folder of its URL."""

    schemes: frozenset[str]
    hosts: frozenset[str]
    folder: str

    @staticmethod
    def of(url: str) -> Home:
        """hdfs://a:50070,b:50070/folder, or an absolute folder of this machine."""
        match = _URL.fullmatch(url)
        if match is None or match["host"] is None:
            return Home(frozenset({"file"}), frozenset({""}), _clean(url))
        hosts = {host.rpartition("@")[2].partition(":")[0].lower() for host in match["host"].split(",")}
        schemes = {*HDFS.names, match["scheme"].lower()}
        return Home(frozenset(schemes), frozenset({*hosts, ""}), _clean(match["path"] or ""))


@dataclass(frozen=True)
class IndexEntry:
    """What one partner has.  folder and files: paths of the lake; sizes in bytes, None where the index names none."""

    partner: int
    job_time: float
    folder: str
    files: tuple[tuple[str, int | None], ...]
    size: int | None


def read_entries(content: bytes) -> dict[str, object]:
    """What stands for each partner, not judged yet.  Raises FormatError for what is no index, or only half of one."""
    try:
        whole = json.loads(content)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise FormatError(
            "not JSON", why, "perhaps it is still being written; Hathi reads it again when it changes"
        ) from error
    if not isinstance(whole, dict):
        raise FormatError(
            "not an index", f"a JSON {type(whole).__name__}", "write an object with an entry for each partner"
        )
    inner = next((whole[name] for name in ("outputByPartner", "partners") if name in whole), None)
    if inner is None:
        return {
            key: value for key, value in whole.items() if isinstance(value, dict) or partner_number(key) is not None
        }
    if isinstance(inner, list):
        return {_partner_of(one, at): one for at, one in enumerate(inner)}
    if not isinstance(inner, dict):
        raise FormatError(
            "not an index",
            f"its partners are a JSON {type(inner).__name__}",
            "write an object with an entry for each partner",
        )
    return inner


def judge(key: str, raw: object, source: Source, home: Home, now: float) -> IndexEntry:
    """One partner's entry.  Raises ValueError, with cause and remedy, for one that is not to be shipped."""
    partner = partner_number(key)
    if partner is None:
        raise ValueError(f"the partner id {key[:40]!r} is not a number")
    if not isinstance(raw, Mapping):
        raise ValueError(f"its entry is not an object | write one with {', '.join(_FIELDS)}")
    missing = [name for name in ("jobTimeStamp", "outputFolder", "files") if raw.get(name) is None]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)} | write an entry with {', '.join(_FIELDS)}")
    job_time = job_seconds(raw["jobTimeStamp"], source.job_time_unit, source.job_time_zone, now)
    folder = _path(raw["outputFolder"], home, "")
    files = tuple((_path(name, home, folder), size) for name, size in _files(raw["files"]))
    for name, _ in files:
        if folder and not name.startswith(f"{folder}/"):
            raise ValueError(
                f"its file {name} lies outside its outputFolder {folder} | Hathi does not read it; put "
                "the file into that folder"
            )
    twice = len(files) - len({name for name, _ in files})
    if twice:
        raise ValueError(f"it names {counted(twice, 'file')} twice")
    return IndexEntry(partner, job_time, folder, files, _size(raw.get("outputSize"), "outputSize"))


def _partner_of(one: object, at: int) -> str:
    named = (one.get(name) for name in _PARTNER) if isinstance(one, Mapping) else iter(())
    return next((str(name) for name in named if name is not None), f"(entry {at + 1} names none)")


def _files(raw: object) -> Iterator[tuple[object, int | None]]:
    """Names, and their sizes where the index tells them: a list of either, an object of both, or one name."""
    if isinstance(raw, str):
        raw = [raw]
    if isinstance(raw, Mapping):
        raw = [
            {"path": name, **(value if isinstance(value, Mapping) else {"size": value})} for name, value in raw.items()
        ]
    if not isinstance(raw, list):
        raise ValueError("its files are not a list")
    for one in raw:
        if not isinstance(one, Mapping):
            yield one, None
            continue
        name = next((one[key] for key in _NAME if key in one), None)
        size = next((one[key] for key in _SIZE if key in one), None)
        yield name, _size(size, f"the size of {str(name)[:200]}")


def _size(raw: object, what: str) -> int | None:
    if raw is None:
        return None
    text = str(raw).strip()
    if isinstance(raw, float) and raw.is_integer():
        text = str(int(raw))
    if isinstance(raw, bool) or not text.isascii() or not text.isdecimal() or len(text) > 19:
        raise ValueError(f"{what} is not a number of bytes: {text[:40]!r}")
    return int(text)


def _path(raw: object, home: Home, folder: str) -> str:
    """A path of the lake.  folder: what a relative one starts from."""
    if not isinstance(raw, str) or not raw.strip():
        raise ValueError(f"not a path: {str(raw)[:40]!r}")
    shown = raw[:200]
    if any(ord(sign) < 32 for sign in raw) or not is_unicode(raw):
        raise ValueError(f"not a path: {shown!r}")
    text = raw
    match = _URL.fullmatch(raw)
    if (
        match is not None
        and match["path"] is not None
        and (match["host"] is not None or match["scheme"] in home.schemes)
    ):
        host = (match["host"] or "").rpartition("@")[2].partition(":")[0].lower()
        if match["scheme"].lower() not in home.schemes or host not in home.hosts:
            raise ValueError(f"{shown} is not of this lake's cluster | name paths relative to the lake")
        text = match["path"]
    if ".." in text.split("/"):
        raise ValueError(f"{shown} contains `..` | Hathi does not follow it; name paths relative to the lake")
    clean = _clean(text)
    if not text.startswith("/"):
        return f"{folder}/{clean}".strip("/") if clean else folder
    if home.folder and clean != home.folder and not clean.startswith(f"{home.folder}/"):
        raise ValueError(f"{shown} lies outside the lake | name paths relative to the lake")
    return clean.removeprefix(home.folder).strip("/")


def _clean(path: str) -> str:
    return "/".join(part for part in path.split("/") if part not in ("", "."))
