"""What the stages take on, and what is forgotten."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.settings.section import Section


class Ship(Section):
    batch_refs: Annotated[int, Field(ge=1, le=65536)] = 1024
    """A batch is so many refs,"""
    batch_bytes: Annotated[int, Field(ge=1)] = 64 * 2**20
    """or so many bytes, whichever comes first."""
    batches_per_shipment: Annotated[int, Field(ge=1, le=4096)] = 128
    """A shipment is a part of a snapshot of at most so many batches."""
    refs_per_run: Annotated[int, Field(ge=1)] = 50_000_000
    """A run stops after so many refs; the next one goes on."""
    bytes_per_run: Annotated[int, Field(ge=1)] = 100 * 2**30
    """A run stops after so many bytes."""
    files_per_run: Annotated[int, Field(ge=1)] = 10_000
    """A run begins no more files than that."""
    open_shipments: Annotated[int, Field(ge=1)] = 256
    """No new snapshot is begun while this many due shipments are open."""
    streams: Annotated[int, Field(ge=1, le=64)] = 4
    """Shipments that are read at the same time, at the most."""
    retry_delays: Annotated[
        list[Annotated[float, Field(ge=0, le=10 * 366 * 86400)]], Field(min_length=3, max_length=3)
    ] = [3600.0, 86400.0, 259200.0]
    """Seconds until the first, second and third retry of a retriable failure."""
    gone_seconds: float = 86400.0
    """A shipment whose frozen file has been missing for so long is void."""


class Compute(Section):
    threads: Annotated[int, Field(ge=0)] = 0
    """Cores for decoding and the net together; 0: all that this process may use."""
    open_batches: Annotated[int, Field(ge=1)] = 256
    """Batches that are worked on at the same time, at the most."""
    open_bytes: Annotated[int, Field(ge=2**20)] = 1024 * 2**20
    """Refs and features of open batches in memory, at the most."""
    strikes: Annotated[int, Field(ge=1)] = 2
    """A batch with so many strikes runs alone."""
    lost: Annotated[int, Field(ge=1)] = 3
    """A batch with so many lost attempts runs alone."""
    strikes_alone: Annotated[int, Field(ge=1)] = 3
    """A batch with so many strikes while it ran alone is held."""
    lost_alone: Annotated[int, Field(ge=1)] = 20
    """A batch with so many lost attempts while it ran alone is held."""
    alone_bytes: Annotated[int, Field(ge=2**28)] = 8 * 2**30
    """Memory of the child process in which a batch runs alone, at the most."""
    spill_bytes: Annotated[int, Field(ge=2**20)] = 8 * 2**30
    """Finished features of open batches and files on their way, on the local disk, at the most."""
    free_bytes: Annotated[int, Field(ge=0)] = 2 * 2**30
    """A run begins nothing while the local disk has less than this free."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that compute side by side in one run; 0: one for each GPU, or one where there is none."""
    max_run_seconds: Annotated[float, Field(gt=0)] = 3300.0
    """A run from cron takes nothing new after so long."""


class Deliver(Section):
    index_days: Annotated[float, Field(gt=0)] = 7.0
    """How long a delivery stays in the index's list."""
    compact: bool = False
    """Once a day, merge what was delivered into one current table for each partner."""


class Prune(Section):
    keep_days: Annotated[float, Field(ge=0)] = 14.0
    """Data of closed shipments stays in the bucket so long."""
    ledger_days: Annotated[float, Field(ge=0)] = 400.0
    """The record of what was done stays so long."""
    lake_days: Annotated[float, Field(ge=0)] | None = None
    """Delivered folders are deleted after so long; none: never."""
    compacted_days: Annotated[float, Field(ge=0)] | None = None
    """Delivered folders that current tables cover are deleted after so long; none: never."""
    orphan_days: Annotated[float, Field(ge=0)] = 7.0
    """What no manifest names, in the bucket or half delivered, is deleted after so long."""

    @property
    def least_lake_days(self) -> float | None:
        """After so long a delivered folder may be gone; None: never."""
        return min((days for days in (self.lake_days, self.compacted_days) if days is not None), default=None)
