"""The documents of a shipment whose existence is the truth (docs/protocol.md 3): from its plan to its done."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from pipeline.amounts import counted
from pipeline.ledger.bodies import Body, Part
from pipeline.ledger.layout import digest
from pipeline.ledger.values import (
    MAX_BATCHES,
    MAX_PROMOTION,
    Batches,
    Count,
    Delay,
    Delivered,
    Digest,
    Dim,
    Due,
    Fingerprint,
    Inside,
    ModelName,
    Partner,
    PartnerNumber,
    PerhapsFingerprint,
    PerhapsStamp,
    Refs,
    Shipment,
    Stamp,
    as_tuples,
    stamp,
)
from pipeline.records import Numbers
from pipeline.times import DAY, HOUR


class SourceFile(Part):
    """A file as a snapshot saw it.  modified: milliseconds since 1970; id: the store's own, 0 where it has none."""

    path: Inside
    length: Count
    modified: Annotated[int, Field(ge=-(2**53), le=2**53)]
    id: Annotated[int, Field(ge=0, lt=2**64)] = 0
    partner: str = ""
    """What the folder that it lies in says of its partner (`partner=123`); no number: the file is rejected."""


class Snapshot(Part):
    """A source as it was seen: what it is called, its version and its files."""

    source: str
    version: str
    files: tuple[SourceFile, ...]
    group: str = ""
    """Whose turn it takes where no partner is named: the place that it is one of many snapshots of."""
    job_time: PerhapsStamp = ""
    """When the job ran that an index tells of; it does not go back."""

    def digest(self) -> str:
        """What names derive from: path, length and time of each file (ids differ between hosts), nothing else."""
        return digest(self.source, self.version, [[f.path, f.length, f.modified] for f in self.files])


class Place(Part):
    """Where reading goes on: which file, where in it (bytes or rows), and rows read of it so far."""

    file: Count = 0
    position: Count = 0
    row: Count = 0


class Rejection(Part):
    """A sample of the rows that are no refs."""

    file: str
    row: Count
    offset: Count | None = None
    why: str
    sample: str = ""


class DataFile(Part):
    """A file under `d/`."""

    key: Inside
    size: Count
    sha256: Digest
    rows: Count


class Reading(Part):
    """How a source's files are read; frozen with the plan, so that a changed setting cannot split a shipment."""

    format: str = "auto"
    otherwise: str = ""
    """The format of files whose name tells none."""
    columns: dict[str, Annotated[tuple[str, ...], BeforeValidator(as_tuples)]] = Field(default_factory=dict)
    partner_id: PartnerNumber | None = None
    text: dict[str, Annotated[str | bool | tuple[str, ...], BeforeValidator(as_tuples)]] = Field(default_factory=dict)
    """What was set of a source's `text`."""
    null_words: tuple[str, ...] | None = None
    """None: those of the default."""
    ids: str = "normalised"


class Promoted(Part):
    """A promotion by the model's name and its number (docs/protocol.md 16)."""

    model: ModelName
    number: Annotated[int, Field(ge=1, le=MAX_PROMOTION)]

    def __str__(self) -> str:
        return f"{self.model}@{self.number}"


class Expected(Part):
    """What whoever planned a shipment expects of its features: a host that would compute others leaves it alone."""

    fingerprint: PerhapsFingerprint = ""
    """"" where the net's files could not be read there."""
    decode: str = ""
    """The decode policy; fingerprints of two policies cannot be compared."""
    settings: dict[str, str] = Field(default={})
    """What decides the features beside the net's files: by the setting's path in the set, its value as JSON."""
    files: dict[str, str] = Field(default={})
    """The net's files by setting, name and size: what a person is told where settings do not differ."""
    promoted: Promoted | None = None
    """Whose files they are, where the set follows a model: who has a newer promotion computes with this one."""


class Plan(Body):
    """A shipment exists from here on."""

    kind: Literal["source", "retry", "release", "drop", "again", "backfill"] = "source"
    lake: str
    set: str
    snapshot: Snapshot
    snapshot_digest: str
    reading: Reading = Reading()
    cursor: Place = Place()
    batch_refs: Annotated[int, Field(ge=1, le=2**20)]
    batch_bytes: Annotated[int, Field(ge=1, le=2**60)]
    batches: Annotated[int, Field(ge=1, le=MAX_BATCHES)]
    """Batches of one part, at the most."""
    parent: Shipment | None = None
    parent_batch: Batches | None = None
    """Of a release: the held batch."""
    salt: str = ""
    due: Due
    retry_delays: tuple[Delay, Delay, Delay] = (HOUR, DAY, 3 * DAY)
    expects: Expected | None = None
    """None in plans of older versions: whatever is computed is taken."""
    from_archive: bool = False
    """A back-fill, or a retry of one: an image that the archive has is not fetched."""

    def flaw(self) -> str:
        try:
            stamp(self.snapshot.version)
        except ValueError as error:
            return str(error)
        if self.cursor.file > len(self.snapshot.files):
            files = counted(len(self.snapshot.files), "file")
            return f"its cursor is in file {self.cursor.file}, and its snapshot has {files}"
        if self.kind in ("retry", "release", "drop", "backfill") and self.parent is None:
            return f"it is a {self.kind} and names no parent"
        return (
            f"it is a {self.kind} and names no batch"
            if self.kind in ("release", "drop") and self.parent_batch is None
            else ""
        )


class Batch(Body):
    """The refs of one batch, and where reading goes on after it."""

    data: DataFile
    refs: Refs
    rows: Count
    rejected: Count
    rejections: tuple[Rejection, ...] = ()
    cursor: Place

    def flaw(self) -> str:
        if self.rows != self.refs + self.rejected:
            return f"it counts {counted(self.rows, 'row')}, but {counted(self.refs, 'ref')} + {self.rejected} rejected"
        return (
            f"it counts {counted(self.refs, 'ref')}, but {self.data.rows} in its data"
            if self.refs != self.data.rows
            else ""
        )


class End(Body):
    """No more batches; or void, and why."""

    batches: Batches
    refs: Count
    rows: Count
    rejected: Count
    rejections: tuple[Rejection, ...] = ()
    next: Place | None = None
    void: str | None = None

    def flaw(self) -> str:
        if self.void is None and self.rows != self.refs + self.rejected:
            return f"it counts {counted(self.rows, 'row')}, but {counted(self.refs, 'ref')} + {self.rejected} rejected"
        return ""


class Attempt(Body):
    """One try at a task, and the process that makes it."""

    process: str
    at: str
    alone: bool = False


class AttemptEnd(Body):
    """An attempt that ended without a result: abandoned (neither strike nor lost), or a strike with its cause."""

    kind: Literal["abandoned", "strike"]
    cause: str = ""


class Result(Body):
    """THE result of a batch: a shard, or held with its reason."""

    kind: Literal["shard", "held"]
    refs: Refs
    features: Refs = 0
    failures: Refs = 0
    damaged: Refs = 0
    """Features of images that the decoder said were damaged."""
    archived: Refs = 0
    """Refs whose image was kept in the archive."""
    from_archive: Refs = 0
    """Refs whose image came from there."""
    not_modified: Refs = 0
    """Features that were computed before: the host said that the image is what it was."""
    equal_bytes: Refs = 0
    """Features that were computed before: the host sent the same bytes."""
    features_file: DataFile | None = None
    failures_file: DataFile | None = None
    dim: Dim = 0
    reason: str = ""
    fingerprint: PerhapsFingerprint = ""
    engine: str = ""
    process: str = ""
    attempt: int = 0
    fetched_bytes: int = 0
    seconds: float = 0.0

    def flaw(self) -> str:
        if self.kind == "held":
            return ""
        if self.refs != self.features + self.failures:
            return f"it counts {counted(self.refs, 'ref')}, but {self.features} features + {self.failures} failures"
        for what, count, file in (
            ("features", self.features, self.features_file),
            ("failures", self.failures, self.failures_file),
        ):
            rows = file.rows if file is not None else 0
            if count != rows:
                return f"it counts {count} {what}, but {rows} in their file"
        return ""


class OutFile(Part):
    """A file to deliver.  name: relative to the partner's folder."""

    name: Delivered
    key: Inside
    size: Count
    sha256: Digest
    rows: Count


class OutPartner(Part):
    """What one partner gets."""

    files: tuple[OutFile, ...]
    features: Count
    failures: Count
    not_modified: Count = 0
    """Features that were computed before: the host said that the image is what it was."""
    equal_bytes: Count = 0
    """Features that were computed before: the host sent the same bytes."""


class Out(Body):
    """A shipment's aggregated features; decides which fingerprint serves it."""

    fingerprint: Fingerprint
    engine: str = ""
    preprocessing: str = ""
    """What was done to images before the net and to the blob after it, for people."""
    dim: Dim
    numbers: Numbers = "float32"
    """Of features in Parquet."""
    at: Stamp
    partners: dict[Partner, OutPartner]
    refs: Count
    features: Count
    failures: Count
    duplicates: Count
    alike: Count = 0
    """Of the duplicates: rows whose external id differs from the item's in letter case or percent-coding only."""
    alike_ids: tuple[tuple[PartnerNumber, str, str], ...] = ()
    """The first of them: partner, the id as the row has it, the id as it stands for the item."""
    held: Count = 0
    damaged: Count = 0
    """Features of images that the decoder said were damaged."""
    not_modified: Count = 0
    """Features that were computed before: the host said that the image is what it was."""
    equal_bytes: Count = 0
    """Features that were computed before: the host sent the same bytes."""
    reasons: dict[str, Count]
    carried: DataFile | None = None
    """Complete refs of the retriable failures; nobody delivers it."""

    def flaw(self) -> str:
        if self.refs != self.features + self.failures + self.duplicates:
            counts = f"{self.features} features + {self.failures} failures + {self.duplicates} duplicates"
            return f"it counts {counted(self.refs, 'ref')}, but {counts}"
        for what, count, sums in (
            ("features", self.features, sum(one.features for one in self.partners.values())),
            ("failures", self.failures, sum(one.failures for one in self.partners.values())),
        ):
            if count != sums:
                return f"it counts {count} {what}, but {sums} of its partners"
        twice = [partner for partner, one in self.partners.items() if _twice(file.name for file in one.files)]
        return f"it names a file of partner {twice[0]} twice" if twice else ""


class Done(Body):
    """Delivered; or given up by a person, and why."""

    folders: tuple[Inside, ...]
    at: Stamp
    void: str | None = None
    """Not delivered: it could not go on, and a person closed it."""


def _twice(names: Iterable[str]) -> bool:
    listed = list(names)
    return len(listed) != len(set(listed))
