"""The service: teams that train over REST."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.settings.reading import FilePath
from pipeline.settings.section import Name, Section

Workers = Annotated[int, Field(ge=0, le=10_000)]


class ServiceWorkers(Section):
    """How many workers `hathi service start` runs, and how many `GET /v1/scaling` asks others to run."""

    train_min: Workers = 0
    """So many workers for trainings there are at least, whatever is queued. Raise it where a training should begin
    without the second that a worker takes to begin."""
    train_max: Workers = 2
    """So many trainings run at once at most. Raise it where there are cores for more."""
    light_min: Workers = 1
    """So many workers for imports and classification jobs there are at least. 0 saves their memory while nobody works
    with the service; an import begins a second later then."""
    light_max: Workers = 2
    """So many imports and classification jobs run at once at most. Raise it where there are cores for more."""


class ServiceScaling(Section):
    """When there are more workers, and when fewer."""

    target_wait_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Queued work should wait for so long at most, seconds; so many workers are wanted that it does, within the limits
    of [service.workers]. Raise it to do with fewer workers."""
    idle_seconds: Annotated[float, Field(ge=0)] = 60.0
    """A worker that nothing needs any more stays for so long, seconds. Raise it where work comes in bursts."""
    command: list[str] = []
    """A program and its words, which is told how many workers of each kind there should be, each time that a number
    changes: as JSON on its standard input. Set it where something else begins workers: Slurm, a cloud's groups of
    machines."""
    command_seconds: Annotated[float, Field(gt=0)] = 30.0
    """The program of command is killed when it has not ended by then, seconds. Raise it where it has to wait for
    others."""


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
    metrics_listen: str | None = Field(default=None, examples=["127.0.0.1:9474"])
    """Where an API server shows its metrics to Prometheus, HOST:PORT; docs/service.md lists them. none: it opens no
    port for them."""
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
    promotion: dict[str, list[Name]] = Field(default={}, examples=[{"red": ["shoes"]}])
    """The feature sets whose model a tenant may put into use by `POST /v1/promotions`, by the tenant's name: a table
    [service.promotion] with lines such as `red = ["shoes"]`. A tenant that is not named promotes nothing. All sets that
    follow one model change together, so grant all of them or none."""
    workers: ServiceWorkers = ServiceWorkers()
    scaling: ServiceScaling = ServiceScaling()
