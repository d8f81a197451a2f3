"""The service: teams that train over REST."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.settings.reading import FilePath
from pipeline.settings.section import Section


class Service(Section):
    """`hathi service`: teams train over REST, each team its own."""

    listen: str = "127.0.0.1:8974"
    """Where an API server listens, HOST:PORT. It speaks plain HTTP: for others than this machine put a proxy with TLS
    before it."""
    public_url: Annotated[str, Field(pattern=r"^(https?://[^/?#\s]+)?$")] = ""
    """What people write in their browser to reach the service, `https://hathi.example.org`; "": the address that it
    listens on. With https a browser's session is kept in a cookie that never travels without TLS."""
    database: FilePath = Field(default="../state/service.db", examples=["postgresql://hathi@db.example.org/hathi"])
    """Who is who and whose turn it is: a file (SQLite, for one host), or `postgresql://USER:PASSWORD@HOST/NAME` for
    many. Set one with a password as the variable HATHI_SERVICE__DATABASE rather than here."""
    workers: Annotated[int, Field(ge=0, le=256)] = 1
    """How many trainings `hathi service start` runs at once. Raise it where there are cores for more."""
    serving_processes: Annotated[int, Field(ge=1, le=64)] = 1
    """How many processes of an API server hold nets that classify. Raise it where there are cores for more; a net lives
    in one of them."""
    serving_nets: Annotated[int, Field(ge=1, le=1000)] = 4
    """How many nets one of them holds at most; the net that was asked longest ago makes room. Raise it where many
    classifiers are asked in turn and memory is there."""
    serving_bytes: Annotated[int, Field(ge=2**28)] = 2 * 2**30
    """How much memory one of them may have, bytes; one that has more ends after its answer, and a new one begins. Raise
    it for nets that are larger."""
    serving_threads: Annotated[int, Field(ge=0, le=256)] = 0
    """How many cores one of them uses; 0: all. Lower it where trainings run on the same host."""
