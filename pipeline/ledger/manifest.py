"""The small JSON documents whose existence is the truth (docs/protocol.md 3), and how they are read and written.

Every body carries a format number and a nonce: whoever cannot know whether its put_new won reads the key back and
looks for its own nonce.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pipeline.amounts import counted
from pipeline.errors import FormatError
from pipeline.ledger.layout import FIRST_DUE, ShipmentName, digest, number_of, seconds_of
from pipeline.records import Numbers
from pipeline.times import DAY, HOUR

FORMAT = 1
"""The form of every body written today; who meets a greater one leaves that shipment alone."""

MOST_BYTES = 64 * 2**20
"""A longer body is not read, whoever wrote it."""

MAX_BATCHES = 100_000
"""Batches have five digits in their keys."""

MAX_VERSION = 9_999_999_999
"""Versions of an index, and current tables, have ten."""

MAX_DIM = 2**31 - 1
"""Values of a feature, as Arrow counts them."""

_CAPITAL = re.compile("(?<!^)(?=[A-Z])")
_DELIVERED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
_KEPT = "Hathi ignores and keeps it; docs/runbook.md says how to repair it"
_LAST_YEAR = "9900"
"""Delays can be added to any time before it."""
_MOST_DIGITS = 20


def _stamp(text: str) -> str:
    """A time as names carry it."""
    seconds_of(text)
    if text >= _LAST_YEAR:
        raise ValueError("it is not a time before the year 9900")
    return text


def _due(text: str) -> str:
    return text if text == FIRST_DUE else _stamp(text)


def _perhaps(text: str) -> str:
    return text and _stamp(text)


def _shipment(text: str) -> str:
    return str(ShipmentName.parse(text))


def _inside(text: str) -> str:
    if text.startswith("/") or ".." in text.split("/"):
        raise ValueError("the path leads out of its folder")
    if "\0" in text or re.search("[\ud800-\udc7f\udd00-\udfff]", text):
        raise ValueError("a file cannot have this name")
    return text


def _delivered(text: str) -> str:
    if not _DELIVERED.fullmatch(text):
        _inside(text)
        raise ValueError(
            "it is not a file of a delivered folder, whose name has letters, digits, `.`, `_`, `-` and at most one `/`"
        )
    return text


def _spelt(pattern: str, otherwise: str) -> AfterValidator:
    """A text of this spelling.  otherwise: what is said of another, in words; a pattern tells a reader little."""
    spelling = re.compile(pattern)

    def check(text: str) -> str:
        if not spelling.fullmatch(text):
            raise ValueError(otherwise)
        return text

    return AfterValidator(check)


def _partner(text: str) -> str:
    number = number_of(text)
    if number is None or str(number) != text or number >= 2**63:
        raise ValueError("it is not the number of a partner")
    return text


# Values that code relies on: a body that breaks them is damaged, and is left alone like any other.
Stamp = Annotated[str, AfterValidator(_stamp)]
Due = Annotated[str, AfterValidator(_due)]
"""A time, or the due of a first try."""
PerhapsStamp = Annotated[str, AfterValidator(_perhaps)]
"""A time, or "" where it is not known yet."""
Shipment = Annotated[str, AfterValidator(_shipment)]
Partner = Annotated[str, AfterValidator(_partner)]
PartnerNumber = Annotated[int, Field(ge=0, lt=2**63)]
Inside = Annotated[str, AfterValidator(_inside)]
"""A path or key: whoever can write a body must not thereby reach what lies elsewhere."""
Delivered = Annotated[str, AfterValidator(_delivered)]
"""A file of a delivered folder, relative to it."""
Digest = Annotated[str, _spelt("[0-9a-f]{64}", "it is not a SHA-256, which has 64 digits, each 0 to 9 or a to f")]
Fingerprint = Annotated[
    str, _spelt("[0-9a-f]{12,64}", "it is not a fingerprint, which has 12 to 64 digits, each 0 to 9 or a to f")
]
PerhapsFingerprint = Annotated[str, _spelt("([0-9a-f]{12,64})?", "it is neither a fingerprint nor empty")]
Count = Annotated[int, Field(ge=0, le=2**60)]
Refs = Annotated[int, Field(ge=0, le=2**20)]
"""Of one batch."""
Delay = Annotated[float, Field(ge=0, le=10 * 366 * DAY)]
Batches = Annotated[int, Field(ge=0, le=MAX_BATCHES)]
Dim = Annotated[int, Field(ge=0, le=MAX_DIM)]


class NewerFormat(FormatError):
    """A body written by a newer Hathi: upgrade this host (boxes before gateways)."""


class Part(BaseModel):
    """A piece of a document.  Types are taken at their word: no text, truth value or fraction is a number."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


class Body(Part):
    """A document under `c/`, `_manifest.json` or the index; unknown fields are kept out, never an error."""

    format: int = FORMAT
    nonce: str = ""

    def encode(self) -> bytes:
        """Canonical JSON: equal values give equal bytes."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return text.encode("utf-8", "surrogatepass") + b"\n"

    def flaw(self) -> str:
        """How the document contradicts itself; "" where it does not."""
        return ""


B = TypeVar("B", bound=Body)


def read(kind: type[B], content: bytes, where: str) -> B:
    """The body that `content` holds, every value of it judged.  Raises NewerFormat or FormatError, naming `where`."""
    name = _CAPITAL.sub(" ", kind.__name__).lower()
    what = f"{where} is not {'an' if name[0] in 'aeio' else 'a'} {name}"
    if len(content) > MOST_BYTES:
        raise FormatError(
            what,
            f"it is longer than {MOST_BYTES:,} bytes",
            _KEPT,
        )
    try:
        fields = json.loads(
            content, object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant, parse_float=_fraction
        )
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise FormatError(what, f"it is not JSON: {why}", _KEPT) from error
    number = fields.get("format") if isinstance(fields, dict) else None
    if type(number) is not int or number < 1:
        raise FormatError(what, "it has no format number", "Hathi did not write it; Hathi ignores and keeps it")
    if number > FORMAT:
        raise NewerFormat(
            f"{where} was written by a newer Hathi",
            f"it has format {number}; this host knows {FORMAT}",
            "upgrade Hathi on this host",
        )
    try:
        body = kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        detail = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg'].removeprefix('Value error, ')}"
        raise FormatError(what, detail, _KEPT) from error
    flaw = body.flaw()
    if flaw:
        raise FormatError(what, flaw, _KEPT)
    return body


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, its arrays as tuples.  Raises ValueError for one that says something twice."""
    found = {key: _frozen(value) for key, value in pairs}
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)


def _fraction(text: str) -> float:
    if len(text) > 400:
        raise ValueError(f"a number has {len(text)} digits")
    return float(text)


def _constant(text: str) -> float:
    raise ValueError(f"{text} is not a number in JSON")


def _twice(names: Iterable[str]) -> bool:
    listed = list(names)
    return len(listed) != len(set(listed))


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
    columns: dict[str, Annotated[tuple[str, ...], BeforeValidator(lambda names: _frozen(names))]] = {}
    partner_id: PartnerNumber | None = None
    text: dict[str, Annotated[str | bool | tuple[str, ...], BeforeValidator(lambda value: _frozen(value))]] = {}
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

    def flaw(self) -> str:
        try:
            _stamp(self.snapshot.version)
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


class Out(Body):
    """A shipment's aggregated features; decides which fingerprint serves it."""

    fingerprint: Fingerprint
    engine: str = ""
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
    """Delivered."""

    folders: tuple[Inside, ...]
    at: Stamp


class IndexFile(Part):
    """A delivered file, relative to its folder."""

    name: Delivered
    size: Count
    sha256: Digest
    rows: Count


class PartnerManifest(Body):
    """`_manifest.json` of a delivered partner folder."""

    shipment: Shipment
    partner_id: PartnerNumber
    set: str
    fingerprint: Fingerprint
    engine: str = ""
    dim: Dim
    numbers: Numbers = "float32"
    """Of features in Parquet."""
    version: Stamp
    round: Count
    generation: Count
    files: tuple[IndexFile, ...]
    features: Count
    failures: Count
    parents: tuple[str, ...] = ()
    """Keys in the bucket that this folder came from: `out` of its shipment."""


class Delivery(Part):
    """One delivered folder, as the index lists it for some days."""

    folder: Inside
    partner_id: PartnerNumber
    files: tuple[IndexFile, ...]
    features: Count
    failures: Count
    fingerprint: str
    jobTimeStamp: Stamp
    round: Count
    generation: Count
    delivered: PerhapsStamp


class IndexPartner(Part):
    """A partner in the original's terms: the files of all parts of its newest version, relative to outputFolder."""

    jobTimeStamp: Stamp
    outputFolder: str
    files: tuple[Inside, ...]
    outputSize: Annotated[int, Field(ge=0)]


class CurrentManifest(Body):
    """`_manifest.json` of a compacted table: for each item of a partner the feature of the greatest shipment."""

    partner_id: PartnerNumber
    set: str
    number: Annotated[int, Field(ge=1, le=MAX_VERSION)]
    """Counts the partner's tables; a greater one covers what a lesser one does."""
    dim: Dim
    numbers: Numbers = "float32"
    """Of features in Parquet."""
    features: Count
    fingerprints: dict[str, Count]
    """Rows by fingerprint."""
    files: tuple[IndexFile, ...]
    covers: Annotated[tuple[Shipment, ...], Field(min_length=1)]
    """Every shipment whose features were merged, in the order of names."""


class IndexCurrent(Part):
    """A partner's compacted table, as the index names it.  folder: relative to the root."""

    folder: Inside
    number: Annotated[int, Field(ge=1, le=MAX_VERSION)]
    files: tuple[IndexFile, ...]
    features: Count
    newest: Shipment
    """The greatest shipment that it covers."""


class Index(Body):
    """`outputByPartner`."""

    version: Annotated[int, Field(ge=0, le=MAX_VERSION)] = 0
    partners: dict[Partner, IndexPartner] = Field(default_factory=dict)
    deliveries: tuple[Delivery, ...] = ()
    current: dict[Partner, IndexCurrent] = Field(default_factory=dict)
    """Compacted tables, where there are any."""

    def flaw(self) -> str:
        if self.version > MAX_VERSION - 1000:
            return f"version {self.version} leaves no room for a next one"
        undated = next((one.folder for one in self.deliveries if not one.delivered), "")
        return f"it does not say when {undated} was delivered" if undated else ""


class Proposal(Body):
    """`_index/<v>`: names the token that becomes index version v."""

    token: Annotated[
        str,
        _spelt("[A-Za-z0-9_-]{1,64}", "it is not a token's name, which has at most 64 letters, digits, `_` and `-`"),
    ]
