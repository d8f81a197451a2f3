"""How much the stages do in one run, and how long data is kept."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.settings.section import Section
from pipeline.times import DAY, HOUR


class Ship(Section):
    """How refs are read from the lake and cut into batches."""

    batch_refs: Annotated[int, Field(ge=1, le=65536)] = 1024
    """A batch ends after this many refs. Smaller batches lose less work when a process dies, and cost more requests.
    Open shipments keep the value of their plan."""
    batch_bytes: Annotated[int, Field(ge=1)] = 64 * 2**20
    """A batch also ends after this many bytes of refs with their inline images. Lower it where boxes have little
    memory."""
    batches_per_shipment: Annotated[int, Field(ge=1, le=4096)] = 128
    """A shipment is a part of a snapshot with at most this many batches. Lower it to get features of a large snapshot
    earlier and in more folders."""
    refs_per_run: Annotated[int, Field(ge=1)] = 50_000_000
    """A run of ship stops after this many refs, and the next run continues. Lower it to spread a first, huge list over
    days."""
    bytes_per_run: Annotated[int, Field(ge=1)] = 100 * 2**30
    """A run of ship stops after this many bytes, and the next run continues. Lower it for the same reason as
    refs_per_run."""
    files_per_run: Annotated[int, Field(ge=1)] = 10_000
    """A run of ship begins at most this many files, and the next run continues. Lower it for the same reason as
    refs_per_run."""
    open_shipments: Annotated[int, Field(ge=1)] = 256
    """Ship begins no new snapshot while this many shipments are due and open. Raise it for many small partners; lower
    it to keep the bucket small while boxes are behind."""
    streams: Annotated[int, Field(ge=1, le=64)] = 4
    """How many shipments ship reads at the same time. Raise it where the lake is slow and the gateway has free
    cores."""
    retry_delays: Annotated[
        list[Annotated[float, Field(ge=0, le=10 * 366 * DAY)]], Field(min_length=3, max_length=3)
    ] = [HOUR, DAY, 3 * DAY]
    """Seconds until the first, second and third retry of retriable failures. Shorten them where hosts recover
    quickly; shipments that exist keep theirs."""
    gone_seconds: float = DAY
    """A shipment whose source file is missing for this long, seconds, ends without features (void). Raise it where
    folders of the lake are sometimes unavailable for longer."""


class Compute(Section):
    """How much one compute run does, and when a batch is held for an operator."""

    threads: Annotated[int, Field(ge=0)] = 0
    """Cores for decoding and the net together; 0: all that this process may use. Set it on a machine that has other
    work."""
    open_batches: Annotated[int, Field(ge=1)] = 256
    """The most batches that are open at once. Raise it where images come from very many slow hosts."""
    open_bytes: Annotated[int, Field(ge=2**20)] = 1024 * 2**20
    """Memory for refs and features of open batches, bytes; when it is full, finished features go to the local disk.
    Lower it on small machines."""
    strikes: Annotated[int, Field(ge=1)] = 2
    """After this many crashes of a worker that held a batch, the batch runs alone, so that it harms no other batch.
    Raise it where workers crash for other reasons, such as a shortage of memory."""
    lost: Annotated[int, Field(ge=1)] = 3
    """After this many attempts whose process disappeared, a batch runs alone. Raise it on machines that are often taken
    away (spot instances)."""
    strikes_alone: Annotated[int, Field(ge=1)] = 3
    """After this many crashes while it ran alone, a batch is held for an operator. Raise it to try longer before an
    operator must decide."""
    lost_alone: Annotated[int, Field(ge=1)] = 20
    """After this many attempts alone whose process disappeared, a batch is held for an operator. Raise it for the same
    reason as `lost`."""
    alone_bytes: Annotated[int, Field(ge=2**28)] = 8 * 2**30
    """The most memory of the child process in which a batch runs alone, bytes. Raise it for nets that need more."""
    spill_bytes: Annotated[int, Field(ge=2**20)] = 8 * 2**30
    """Space on the local disk (in the folder state) for finished features of open batches and for temporary files,
    bytes. Raise it for nets with long features; lower it on small disks."""
    free_bytes: Annotated[int, Field(ge=0)] = 2 * 2**30
    """A run begins no work while the local disk has less free space than this, bytes. Raise it where other programs
    write to the same disk."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that compute at the same time in one run. 0: one for each GPU, or one if there is no GPU. Raise it
    where one process cannot fill the machine."""
    max_run_seconds: Annotated[float, Field(gt=0)] = 3300.0
    """A run from cron takes no new batch after this long, seconds, and ends when its open batches are done. A new
    version of Hathi is used from the next run on: lower it to upgrade sooner."""


class Archive(Section):
    """Images that are kept in the bucket, so that a back-fill asks no host for them."""

    enabled: bool = False
    """Keep the bytes of each image that compute fetches. Turn it on where nets change and hosts are slow or forget
    their images; it costs space in the bucket: as much as was fetched. Set it on compute boxes."""
    read: bool = False
    """Look into the archive for the images of every shipment of a snapshot, not of back-fills alone. Turn it on where
    several sets are computed from one source: each image is then fetched once."""
    days: Annotated[float, Field(ge=0)] | None = Field(default=None, examples=[400.0])
    """How long images stay in the archive, days. none: until max_bytes is reached. Set it where a contract or a law
    limits how long images may be kept."""
    max_bytes: Annotated[int, Field(ge=0)] | None = Field(default=None, examples=[10 * 2**40])
    """The most that the archive may hold, bytes; prune deletes the oldest images first, and none of a snapshot that is
    at work. none: it grows. Set it where space in the bucket is limited."""


class Deliver(Section):
    """What deliver writes on the lake."""

    index_days: Annotated[float, Field(gt=0)] = 7.0
    """How long a delivery stays in the list of the index, days. Raise it for consumers that read the index less often;
    the index grows with it."""
    compact: bool = False
    """Merge the deliveries of each partner into one current table, once a day. Turn it on for consumers that want one
    table instead of deltas."""


class Prune(Section):
    """How long data is kept. Daemons delete what is older once a day; `hathi prune` does it by hand."""

    keep_days: Annotated[float, Field(ge=0)] = 14.0
    """How long data of closed shipments stays in the bucket, days. Lower it to save space; releases, back-fills and
    reports then reach less far back."""
    ledger_days: Annotated[float, Field(ge=0)] = 400.0
    """How long the record of closed shipments stays, days. `why` and `verify` read it. The record of what a source
    still names is always kept."""
    lake_days: Annotated[float, Field(ge=0)] | None = Field(default=None, examples=[400.0])
    """Delivered folders are deleted after this long, days; the newest version of a partner is never deleted. none: all
    folders stay. Set it where consumers read the index and the lake must not grow."""
    compacted_days: Annotated[float, Field(ge=0)] | None = Field(default=None, examples=[30.0])
    """Delivered folders whose features are in a current table are deleted after this long, days. none: they stay.
    Set it with deliver.compact to keep tables and drop deltas."""
    training_days: Annotated[float, Field(ge=0)] = 400.0
    """How long a training stays in the bucket after its end, with its model and its metrics, days. Raise it to look
    back further. A promoted model has files of its own, which stay."""
    reuse_days: Annotated[float, Field(gt=0)] = 30.0
    """How long a feature can be used again for an image that did not change, days; what is used again is kept anew at
    half of the time. Lower it to save space; keep it above twice the time after which a source comes again."""
    reuse_bytes: Annotated[int, Field(ge=0)] = 2**40
    """The most bytes of features in the bucket that can be used again; what was kept the longest goes first. Lower it
    to save space: an image whose feature is gone is fetched and computed."""
    orphan_days: Annotated[float, Field(ge=0)] = 7.0
    """Files that no manifest names, in the bucket or of a half-finished delivery, are deleted after this long, days.
    Keep it well above the longest run."""
    turn_seconds: Annotated[float, Field(gt=0)] = 20.0
    """The most time that prune takes in one turn of a daemon, or in one run from cron, seconds; the next one continues.
    Raise it where prune does not finish within a day."""

    @property
    def least_lake_days(self) -> float | None:
        """After so long a delivered folder may be gone; None: never."""
        return min((days for days in (self.lake_days, self.compacted_days) if days is not None), default=None)
