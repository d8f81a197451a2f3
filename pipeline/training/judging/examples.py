"""The labelled examples that a net is judged on: one side of a dataset, or all of a database."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.training.dataset import examples, shards
from pipeline.training.dataset.examples import Example
from pipeline.training.dataset.manifest import MANIFEST, read_manifest

SIDE = "test"


@dataclass(frozen=True)
class Examples:
    """side: None where the dataset has no sides.  names: of classes.  digest: hex SHA-256 of the dataset's manifest, or
    of the keys and labels of a database."""

    folder: Path
    side: str | None
    features: bool
    names: dict[int, str]

    def __iter__(self) -> Iterator[Example]:
        return examples.read(self.folder, self.side)

    @property
    def digest(self) -> str:
        if (self.folder / MANIFEST).is_file():
            return shards.digest_of(self.folder / MANIFEST)
        found = hashlib.sha256()
        for example in self:
            found.update(b"%d %d " % (len(example.key), example.datum.label) + example.key)
        return found.hexdigest()

    def __str__(self) -> str:
        return f"the side '{self.side}' of {self.folder}" if self.side else str(self.folder)


def examples_of(folder: Path, side: str | None) -> Examples:
    """side: None: the test side, or all of a dataset that has no sides.

    Raises ConfigError for what is no dataset, for a side that it lacks, and for a side without examples.
    """
    if not (folder / MANIFEST).is_file():
        if side is not None:
            raise ConfigError(f"{folder} has no sides", "only what `hathi dataset make` makes has", "leave --side out")
        return Examples(folder, None, False, {})
    manifest = read_manifest(folder)
    names = {int(label): name for label, name in manifest.classes.items()}
    if not manifest.sides and side is None:
        found = Examples(folder, None, manifest.kind == shards.FEATURES, names)
    else:
        side = SIDE if side is None else side
        if side not in manifest.sides:
            has = f"its sides are: {', '.join(manifest.sides)}" if manifest.sides else "it has no sides"
            raise ConfigError(f"the dataset {folder} has no side '{side}'", has, "name one of its sides by --side")
        if not manifest.sides[side].examples:
            raise ConfigError(
                f"the side '{side}' of {folder} is empty",
                "a net is judged on examples",
                "make the dataset with a share for this side, for example --split 80/10/10; or name another by --side",
            )
        found = Examples(folder, side, manifest.kind == shards.FEATURES, names)
    return found
