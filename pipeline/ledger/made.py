"""What was made of a root's deliveries and lies elsewhere: a record on the lake for each data set and each file of
`--out`, so that `hathi forget` finds them (docs/protocol.md 18).

The record is put before anything is read: what is being made while somebody is forgotten is waited for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import field_validator

from pipeline.errors import NotFound
from pipeline.ledger.bodies import Body, read_body
from pipeline.ledger.layout import Root
from pipeline.process.host import host_name
from pipeline.stores.store import Lake

Kind = Literal["dataset", "file"]


class Made(Body):
    """`_made/<16 hex>`: what lies where.  without: digests of requests to forget that were done there."""

    host: str
    path: str
    kind: Kind
    without: tuple[str, ...] = ()

    @field_validator("path")
    @classmethod
    def _is_whole(cls, path: str) -> str:
        if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise ValueError("it is no whole path")
        return path


@dataclass(frozen=True)
class Record:
    """A record, and where it stands on the lake."""

    key: str
    body: Made


def note_made(lake: Lake, root: Root, kind: Kind, path: Path, *, anew: bool = True) -> None:
    """Say that this host makes something of a root.  anew: also where that is said already, of an older one.

    Raises as the lake does, where it cannot be written.
    """
    body = Made(host=host_name(), path=str(path.absolute()), kind=kind)
    key = root.made(body.host, body.path)
    if anew or lake.stat(key) is None:
        lake.put(key, body.encode())


def made_of(lake: Lake, root: Root) -> Iterator[Record]:
    """Each record.  Raises FormatError for one that cannot be read."""
    for entry in list(lake.list(f"{root.mades}/")):
        try:
            yield Record(entry.key, read_body(lake, Made, entry.key))
        except NotFound:
            continue
