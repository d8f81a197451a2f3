"""The documents that stand on a lake: what a delivered folder and a current table hold, and the index of a root."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.ledger.bodies import Body, Part
from pipeline.ledger.values import (
    MAX_VERSION,
    Count,
    Delivered,
    Digest,
    Dim,
    Fingerprint,
    Inside,
    Partner,
    PartnerNumber,
    PerhapsStamp,
    Shipment,
    Stamp,
    spelt,
)
from pipeline.records import Numbers


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
    preprocessing: str = ""
    """What was done to images before the net and to the blob after it, for people."""
    source: str = ""
    """Of the snapshot; "" in a manifest of an older Hathi, as `delivered`."""
    last: bool = False
    """No part of the snapshot follows."""
    delivered: PerhapsStamp = ""
    """When the gateway looked that delivered it, by the bucket's clock: which net came first follows from it."""
    dim: Dim
    numbers: Numbers = "float32"
    """Of features in Parquet."""
    version: Stamp
    round: Count
    generation: Count
    files: tuple[IndexFile, ...]
    features: Count
    failures: Count
    forgotten: Count = 0
    """Rows that were delivered and went since, as a person asked for it."""
    not_modified: Count = 0
    """Features that were computed before: the host said that the image is what it was."""
    equal_bytes: Count = 0
    """Features that were computed before: the host sent the same bytes."""
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


class Covered(Part):
    """What a merged shipment's manifest said, as far as it decides which net readers take."""

    shipment: Shipment
    fingerprint: Fingerprint
    source: str = ""
    last: bool = False
    delivered: PerhapsStamp = ""


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
    sources: tuple[Covered, ...] = ()
    """Of each source and net the first shipment that was merged, and those of its newest version; () in a table of an
    older Hathi."""


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
        spelt("[A-Za-z0-9_-]{1,64}", "it is not a token's name, which has at most 64 letters, digits, `_` and `-`"),
    ]
