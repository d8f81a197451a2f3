"""The small JSON documents whose existence is the truth (docs/protocol.md 3), and how they are read and written.

Every body carries a format number and a nonce: whoever cannot know whether its put_new won reads the key back and
looks for its own nonce.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from pipeline.errors import FormatError
from pipeline.layout import FIRST_DUE, ShipmentName, digest, seconds_of

FORMAT = 1
"""The form of every body written today; who meets a greater one leaves that shipment alone."""


MAX_BATCHES = 100_000
"""Batches have five digits in their keys."""


def _time(text: str) -> str:
    """A version's time, the due of a first try, or "" where it is not known yet."""
    if text not in ("", FIRST_DUE):
        seconds_of(text)
    return text


def _shipment(text: str) -> str:
    return str(ShipmentName.parse(text))


def _inside(text: str) -> str:
    if text.startswith("/") or ".." in text.split("/"):
        raise ValueError("no path below the place that it belongs to")
    return text


# Values that code relies on: a body that breaks them is damaged, and is left alone like any other.
Time = Annotated[str, AfterValidator(_time)]
Shipment = Annotated[str, AfterValidator(_shipment)]
Partner = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,19}$")]
Inside = Annotated[str, AfterValidator(_inside)]
"""A path or key: whoever can write a body must not thereby reach what lies elsewhere."""
Count = Annotated[int, Field(ge=0)]
Delay = Annotated[float, Field(ge=0, le=10 * 366 * 86400)]
Batches = Annotated[int, Field(ge=0, le=MAX_BATCHES)]


class NewerFormat(FormatError):
    """A body written by a newer Hathi: upgrade this host (boxes before gateways)."""


class Body(BaseModel):
    """A document under `c/`, `_manifest.json` or the index; unknown fields are kept out, never an error."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: int = FORMAT
    nonce: str = ""

    def encode(self) -> bytes:
        """Canonical JSON: equal values give equal bytes."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return text.encode("utf-8", "surrogatepass") + b"\n"


B = TypeVar("B", bound=Body)


def read(kind: type[B], content: bytes, where: str) -> B:
    """The body that `content` holds.  Raises NewerFormat or FormatError, which names `where`."""
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"not a {kind.__name__.lower()}: {where}", f"not JSON: {error}", "left alone; see docs/runbook.md"
        ) from error
    number = fields.get("format") if isinstance(fields, dict) else None
    if not isinstance(number, int):
        raise FormatError(f"not a {kind.__name__.lower()}: {where}", "no format number", "not ours; left alone")
    if number > FORMAT:
        raise NewerFormat(f"written by a newer Hathi: {where}", f"format {number}, known {FORMAT}", "upgrade this host")
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        detail = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        raise FormatError(f"not a {kind.__name__.lower()}: {where}", detail, "left alone") from error


class SourceFile(BaseModel):
    """A file as a snapshot saw it.  modified: milliseconds since 1970; id: the store's own, 0 where it has none."""

    model_config = ConfigDict(frozen=True)

    path: Inside
    length: int
    modified: int
    id: int = 0
    partner: str = ""
    """What the folder that it lies in says of its partner (`partner=123`); no number: the file is rejected."""


class Snapshot(BaseModel):
    """A source as it was seen: what it is called, its version and its files."""

    model_config = ConfigDict(frozen=True)

    source: str
    version: str
    files: tuple[SourceFile, ...]
    group: str = ""
    """Whose turn it takes where no partner is named: the place that it is one of many snapshots of."""
    job_time: Time = ""
    """When the job ran that an index tells of; it does not go back."""

    def digest(self) -> str:
        """What names derive from: path, length and time of each file (ids differ between hosts), nothing else."""
        return digest(self.source, self.version, [[f.path, f.length, f.modified] for f in self.files])


class Place(BaseModel):
    """Where reading goes on: which file, where in it (bytes or rows), and rows read of it so far."""

    model_config = ConfigDict(frozen=True)

    file: int = 0
    position: int = 0
    row: int = 0


class Rejection(BaseModel):
    """A sample of the rows that are no refs."""

    model_config = ConfigDict(frozen=True)

    file: str
    row: int
    offset: int | None = None
    why: str
    sample: str = ""


class DataFile(BaseModel):
    """A file under `d/`."""

    model_config = ConfigDict(frozen=True)

    key: Inside
    size: int
    sha256: str
    rows: int


class Reading(BaseModel):
    """How a source's files are read; frozen with the plan, so that a changed setting cannot split a shipment."""

    model_config = ConfigDict(frozen=True)

    format: str = "auto"
    otherwise: str = ""
    """The format of files whose name tells none."""
    columns: dict[str, list[str]] = {}
    partner_id: int | None = None
    text: dict[str, str | bool | list[str]] = {}
    """What was set of a source's `text`."""
    null_words: tuple[str, ...] | None = None
    """None: those of the default."""
    ids: str = "normalised"


class Plan(Body):
    """A shipment exists from here on."""

    kind: Literal["source", "retry", "release", "drop", "again", "backfill"] = "source"
    lake: str
    set: str
    snapshot: Snapshot
    snapshot_digest: str
    reading: Reading = Reading()
    cursor: Place = Place()
    batch_refs: Annotated[int, Field(ge=1)]
    batch_bytes: Annotated[int, Field(ge=1)]
    batches: Annotated[int, Field(ge=1, le=MAX_BATCHES)]
    """Batches of one part, at the most."""
    parent: Shipment | None = None
    parent_batch: Count | None = None
    """Of a release: the held batch."""
    salt: str = ""
    due: Time
    retry_delays: tuple[Delay, Delay, Delay] = (3600.0, 86400.0, 259200.0)


class Batch(Body):
    """The refs of one batch, and where reading goes on after it."""

    data: DataFile
    refs: Count
    rows: Count
    rejected: Count
    rejections: tuple[Rejection, ...] = ()
    cursor: Place


class End(Body):
    """No more batches; or void, and why."""

    batches: Batches
    refs: Count
    rows: Count
    rejected: Count
    rejections: tuple[Rejection, ...] = ()
    next: Place | None = None
    void: str | None = None


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
    refs: int
    features: int = 0
    failures: int = 0
    damaged: int = 0
    """Features of images that the decoder said were damaged."""
    features_file: DataFile | None = None
    failures_file: DataFile | None = None
    dim: int = 0
    reason: str = ""
    fingerprint: str = ""
    engine: str = ""
    process: str = ""
    attempt: int = 0
    fetched_bytes: int = 0
    seconds: float = 0.0


class OutFile(BaseModel):
    """A file to deliver.  name: relative to the partner's folder."""

    model_config = ConfigDict(frozen=True)

    name: Inside
    key: Inside
    size: int
    sha256: str
    rows: int


class OutPartner(BaseModel):
    """What one partner gets."""

    model_config = ConfigDict(frozen=True)

    files: tuple[OutFile, ...]
    features: int
    failures: int


class Out(Body):
    """A shipment's aggregated features; decides which fingerprint serves it."""

    fingerprint: str
    engine: str = ""
    dim: int
    at: Time
    partners: dict[Partner, OutPartner]
    refs: int
    features: int
    failures: int
    duplicates: int
    alike: int = 0
    """Of the duplicates: rows whose external id differs from the item's in letter case or percent-coding only."""
    alike_ids: tuple[tuple[int, str, str], ...] = ()
    """The first of them: partner, the id as the row has it, the id as it stands for the item."""
    held: int = 0
    damaged: int = 0
    """Features of images that the decoder said were damaged."""
    reasons: dict[str, int]
    carried: DataFile | None = None
    """Complete refs of the retriable failures; nobody delivers it."""


class Done(Body):
    """Delivered."""

    folders: tuple[Inside, ...]
    at: Time


class IndexFile(BaseModel):
    """A delivered file, relative to its folder."""

    model_config = ConfigDict(frozen=True)

    name: Inside
    size: int
    sha256: str
    rows: int


class PartnerManifest(Body):
    """`_manifest.json` of a delivered partner folder."""

    shipment: str
    partner_id: int
    set: str
    fingerprint: str
    engine: str = ""
    dim: int
    version: str
    round: int
    generation: int
    files: tuple[IndexFile, ...]
    features: int
    failures: int
    parents: tuple[str, ...] = ()
    """Keys in the bucket that this folder came from: `out` of its shipment."""


class Delivery(BaseModel):
    """One delivered folder, as the index lists it for some days."""

    model_config = ConfigDict(frozen=True)

    folder: Inside
    partner_id: int
    files: tuple[IndexFile, ...]
    features: int
    failures: int
    fingerprint: str
    jobTimeStamp: str
    round: int
    generation: int
    delivered: Time


class IndexPartner(BaseModel):
    """A partner in the original's terms: the files of all parts of its newest version, relative to outputFolder."""

    model_config = ConfigDict(frozen=True)

    jobTimeStamp: str
    outputFolder: str
    files: tuple[str, ...]
    outputSize: int


class CurrentManifest(Body):
    """`_manifest.json` of a compacted table: for each item of a partner the feature of the greatest shipment."""

    partner_id: int
    set: str
    number: Annotated[int, Field(ge=1)]
    """Counts the partner's tables; a greater one covers what a lesser one does."""
    dim: int
    features: Count
    fingerprints: dict[str, int]
    """Rows by fingerprint."""
    files: tuple[IndexFile, ...]
    covers: tuple[Shipment, ...]
    """Every shipment whose features were merged, in the order of names."""


class IndexCurrent(BaseModel):
    """A partner's compacted table, as the index names it.  folder: relative to the root."""

    model_config = ConfigDict(frozen=True)

    folder: Inside
    number: int
    files: tuple[IndexFile, ...]
    features: int
    newest: Shipment
    """The greatest shipment that it covers."""


class Index(Body):
    """`outputByPartner`."""

    version: int = 0
    partners: dict[Partner, IndexPartner] = Field(default_factory=dict)
    deliveries: tuple[Delivery, ...] = ()
    current: dict[Partner, IndexCurrent] = Field(default_factory=dict)
    """Compacted tables, where there are any."""


class Proposal(Body):
    """`_index/<v>`: names the token that becomes index version v."""

    token: Inside
