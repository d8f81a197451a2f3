"""`_manifest.json` of a dataset: what it holds and where that comes from.  It is written last (docs/datasets.md)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from pipeline.errors import FormatError
from pipeline.ledger.bodies import Part

MANIFEST = "_manifest.json"
FORMAT = 1
MOST_BYTES = 2**30

Kind = Literal["images", "features"]


class ShardFile(Part):
    """One shard.  side: "" in a dataset without sides."""

    name: str
    rows: int = Field(ge=0)
    sha256: str
    side: str = ""


class Side(Part):
    """What stands on one side; labels: examples by label, as text."""

    examples: int = Field(ge=0)
    labels: dict[str, int]


class Split(Part):
    """How sides were chosen.  by: class, content or column; shares: of each side; column: of the labels."""

    by: str
    shares: dict[str, int] = Field(default_factory=dict)
    seed: int = 0
    column: str = ""


class Law(Part):
    """rows = examples + without image + without label + duplicates + forgotten; reasons have their own numbers."""

    rows: int
    examples: int
    without_image: dict[str, int]
    without_label: dict[str, int]
    duplicates: int
    forgotten: int = 0
    """Examples that went since, as a person asked for it."""


class LabelFile(Part):
    """A file that labels were read from."""

    name: str
    rows: int
    sha256: str


class ArchiveFile(Part):
    """An archive that pictures were read from.  entries: all but folders."""

    name: str
    bytes: int
    sha256: str
    entries: int


class Parents(Part):
    """What a dataset was made of.  root: of the deliveries; shipments: by partner, as text; archive: in their stead."""

    root: str = ""
    shipments: dict[str, list[str]] = Field(default_factory=dict)
    labels: list[LabelFile] = Field(default_factory=list)
    archive: ArchiveFile | None = None
    extends: str = ""
    """SHA-256 of the manifest of the dataset that this one extends."""


class Manifest(Part):
    """A dataset.  labels: examples by label, as text; classes: names by number, as text; dim: numbers of a feature."""

    format: int = FORMAT
    source: str
    examples: int = Field(ge=0)
    labels: dict[str, int]
    shards: list[ShardFile]
    kind: Kind = "images"
    classes: dict[str, str] = Field(default_factory=dict)
    dim: int = 0
    fingerprints: dict[str, int] = Field(default_factory=dict)
    sides: dict[str, Side] = Field(default_factory=dict)
    split: Split | None = None
    law: Law | None = None
    parents: Parents | None = None
    warnings: list[str] = Field(default_factory=list)
    before: list[str] = Field(default_factory=list)
    """SHA-256 of the manifests that stood here before examples were forgotten."""

    @property
    def gone(self) -> int:
        """Examples that were forgotten."""
        return 0 if self.law is None else self.law.forgotten

    def text(self) -> str:
        """As it stands in the file; fields that say nothing are left out."""
        tree = self.model_dump(mode="json", exclude_unset=True)
        return json.dumps({"format": self.format, **tree}, indent=2, ensure_ascii=False) + "\n"

    def write(self, folder: Path) -> None:
        """Puts it beside the shards that it names."""
        (folder / MANIFEST).write_text(self.text(), encoding="utf-8")


def digest_of_manifest(folder: Path) -> str:
    """Hex SHA-256 of the manifest of a dataset."""
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Raises FormatError, which names the file, for one that is damaged, not ours or of a newer Hathi."""
    path = folder / MANIFEST
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it is longer than {MOST_BYTES:,} bytes")
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise _unreadable(str(path), str(error)) from error
    return manifest_of(content, str(path))


def manifest_of(content: bytes, path: str) -> Manifest:
    """What stands in a manifest; path: its name, in words.  Raises as `read_manifest`."""
    try:
        found = Manifest.model_validate_json(content)
        if found.format != FORMAT:
            raise ValueError(f"its format is {found.format}")
        strange = next((one.name for one in found.shards if Path(one.name).name != one.name), None)
        if strange is not None:
            raise ValueError(f"the shard {strange[:80]!r} is no file of this folder")
        if sum(one.rows for one in found.shards) != found.examples:
            raise ValueError(f"its shards do not add up to {found.examples} examples")
    except ValueError as error:
        what = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise _unreadable(path, what) from error
    return found


def _unreadable(path: str, what: str) -> FormatError:
    says = f"it is damaged, or a newer Hathi wrote it: {what}"
    return FormatError(f"the manifest {path} cannot be read", says, "bring it in again")
