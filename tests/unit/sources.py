"""Lakes as real folders, whose every call is counted."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.settings import Source
from pipeline.sources.conventions import Sources
from pipeline.sources.found import Named
from pipeline.stores.local import LocalStore

NOW = 1_700_000_000.0
"""2023-11-14 22:13:20 UTC."""
HEADER = "partner_id,external_id,url\n"
DAY = 86400.0


@dataclass
class Counting:
    """A lake that counts what is asked of it."""

    store: LocalStore
    asked: Counter[str] = field(default_factory=Counter)

    def __getattr__(self, verb: str) -> Any:
        def call(key: str, *args: Any, **options: Any) -> Any:
            self.asked[verb] += 1
            return getattr(self.store, verb)(key, *args, **options)

        return call


class Shore:
    """A lake with one source, looked at poll after poll."""

    def __init__(self, folder: Path, path: str, ours: tuple[str, ...] = (), **settings: Any) -> None:
        self.folder = folder
        self.now = NOW
        folder.mkdir(exist_ok=True)
        self.lake = Counting(LocalStore(folder, fsync=False, now=lambda: self.now))
        self.source = Source(path=path, **settings)
        self.ours = ours
        self.anew()

    def anew(self) -> None:
        """A new process."""
        self.sources = Sources(self.lake, [self.source], self.ours, str(self.folder))  # type: ignore[arg-type]

    def put(self, path: str, content: bytes | str = b"x", at: float | None = None) -> Path:
        """A file as of now, or of then."""
        where = self.folder / path
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_bytes(content.encode() if isinstance(content, str) else content)
        when = self.now if at is None else at
        os.utime(where, (when, when))
        return where

    def index(self, partners: Mapping[str, Any], path: str = "index", **more: Any) -> None:
        self.now += 1  # an index that is written again has another time
        self.put(path, json.dumps({"outputByPartner": partners, **more}))

    def look(self, *, wide: bool = False) -> Named:
        self.lake.asked.clear()
        return self.sources.look(self.now, wide=wide)

    @property
    def asked(self) -> dict[str, int]:
        """Of the last look."""
        return dict(self.lake.asked)


def partners(named: Named) -> dict[int | None, list[str]]:
    """Whose files were found."""
    return {one.reading.partner_id: [file.path for file in one.snapshot.files] for one in named.found}
