"""An archive of a stranger -> a dataset: every entry ends as an example, a duplicate or by a reason.

The archive is read once, in a child; its pictures wait on the local disk until their sides are known.  The dataset
appears whole, as each that `training.dataset` makes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.service.archive.entries import Limits, Picture, Refused, Rejected
from pipeline.service.archive.reading import read
from pipeline.stores.store import Lake
from pipeline.training.dataset.folders import beside
from pipeline.training.dataset.gathered import Gathered, Gathering, Kept
from pipeline.training.dataset.labels import Labels, read_labels
from pipeline.training.dataset.making import DEFAULT, Wanted, make_of
from pipeline.training.dataset.manifest import ArchiveFile, Manifest, Split
from pipeline.training.dataset.sides import split_of


@dataclass(frozen=True)
class Asked:
    """What is made of an archive.

    name: of the archive, for people.  wanted: split, rule and what is extended; labels: how tables are read.
    tables: of labels, each with its lake; none: folders say the labels.  seed: of sides and order, where no split says
    it.
    """

    name: str
    wanted: Wanted
    tables: Sequence[tuple[Lake, str]] = ()
    limits: Limits = field(default_factory=Limits)
    seed: int = 0


def dataset_of(
    archive: Path, out: Path, asked: Asked, told: Callable[[Picture | Rejected], None] = lambda one: None
) -> Manifest:
    """The dataset as it stands in the new folder `out`.  told: of each entry, as it is read.

    Raises Refused for the archive as a whole, and as `making.make`.
    """
    with beside(out) as scratch:
        gathered = _gathered(archive, scratch, asked, told)
        wanted = asked.wanted
        if gathered.layout.sides and not asked.tables:
            if wanted.split is not None:
                raise ConfigError(
                    "the archive has sides of its own, and a split is asked for",
                    f"its folders are {gathered.labels_named(4)}",
                    "leave the split out, or pack the labels without train and test above them",
                )
            wanted = replace(wanted, split=Split(by="column", column="folder", seed=asked.seed))
        elif wanted.split is None and wanted.extends is None:
            wanted = replace(wanted, split=split_of(DEFAULT, "class", asked.seed))
        return make_of(out, gathered, lambda: _labels(gathered, asked), wanted)


def _labels(gathered: Gathered, asked: Asked) -> Labels:
    if asked.tables:
        return gathered.by_table(read_labels(asked.tables, asked.wanted.labels))
    found = gathered.by_folders()
    if not len(found.items):
        raise Refused(
            "nothing",
            "no picture lies in a folder that could be its label" if len(gathered) else "no entry is a picture",
            "pack pictures as label/picture, or give a table of labels",
        )
    return found


def _gathered(archive: Path, scratch: Path, asked: Asked, told: Callable[[Picture | Rejected], None]) -> Gathered:
    gathering = Gathering(scratch, named=bool(asked.tables))
    entries = 0
    for one in read(archive, asked.limits):
        entries += 1
        told(one)
        if isinstance(one, Picture):
            gathering.take(Kept(one.path, one.content, one.sha256))
        else:
            gathering.reject(one.path, one.reason)
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    return gathering.done(asked.name, ArchiveFile(name=asked.name, bytes=size, sha256=digest, entries=entries))
