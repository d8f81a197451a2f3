"""`python -m pipeline.service.work.import_child FOLDER PARENT`: an archive becomes a dataset, in a folder of its own.

Exit codes: 0; BAD_ARCHIVE for one of which nothing is taken; BAD_REQUEST where what was asked does not fit it; NO_ROOM
where the disk takes no more.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from pipeline.errors import PipelineError
from pipeline.service.archive.entries import Picture, Refused, Rejected
from pipeline.service.work.confined import enter
from pipeline.service.work.preparing import OUT, WORK
from pipeline.service.work.room import NO_ROOM, is_full

ARCHIVE, EXTENDS, PROGRESS = "archive", "extends", "progress.json"
MADE = f"{OUT}/snapshots/1"
SUMMARY, REJECTED = "summary.json", "rejected.jsonl"
BAD_ARCHIVE, BAD_REQUEST = 80, 2
TOLD = 200
"""So many entries are read between two notes of how far it is."""
LISTED = 100_000
"""Rejected entries that are named; all are counted."""


class _Told:
    """What the entries came to so far."""

    def __init__(self, listed: IO[str]) -> None:
        self._listed, self.pictures = listed, 0
        self.rejected: Counter[str] = Counter()

    def __call__(self, one: Picture | Rejected) -> None:
        if isinstance(one, Picture):
            self.pictures += 1
        else:
            self.rejected[one.reason] += 1
            if self.rejected.total() <= LISTED:
                told = {"number": one.number, "name": one.name, "reason": one.reason, "detail": one.detail}
                print(json.dumps(told), file=self._listed)
        if self.entries % TOLD == 0:
            self.note()

    @property
    def entries(self) -> int:
        return self.pictures + self.rejected.total()

    def note(self) -> None:
        said = {"entries": self.entries, "pictures": self.pictures, "rejected": self.rejected.total()}
        Path(f"{PROGRESS}.new").write_text(json.dumps(said))
        os.replace(f"{PROGRESS}.new", PROGRESS)


def run() -> None:
    """Makes the dataset of the current folder, where it is not there yet.  Raises PipelineError."""
    from pipeline.service.importing import dataset_of
    from pipeline.service.specification.facts import data_of
    from pipeline.service.work import thumbnails
    from pipeline.training.dataset.manifest import digest_of_manifest

    made, folder = Path(MADE), Path("made")
    if made.exists():  # an attempt before this one has made it
        return
    asked = json.loads(Path(WORK).read_bytes())
    listed = Path(REJECTED)
    with listed.open("w", encoding="utf-8") as file:
        told = _Told(file)
        manifest = dataset_of(Path(ARCHIVE), folder, _asked(asked), told)
    told.note()
    data, law = data_of(folder), manifest.law
    assert law is not None
    classes = {int(number): name for number, name in manifest.classes.items()}

    def named(counts: dict[str, int]) -> dict[str, int]:
        return {classes[int(number)]: count for number, count in counts.items()}

    summary: dict[str, Any] = {
        "entries": told.entries, "examples": manifest.examples, "duplicates": law.duplicates,
        "rejected": dict(sorted(told.rejected.items())), "labels": named(manifest.labels),
        "classes": [classes[number] for number in sorted(classes)],
        "sides": {
            name: {"examples": one.examples, "labels": named(one.labels)} for name, one in manifest.sides.items()
        },
        "warnings": manifest.warnings, "digest": digest_of_manifest(folder), "data": asdict(data),
    }  # fmt: skip
    (folder / SUMMARY).write_text(json.dumps(summary))
    (folder / thumbnails.FILE).write_text(json.dumps(thumbnails.thumbnails(folder, classes)))
    listed.rename(folder / REJECTED)
    made.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(made)


def _asked(given: dict[str, Any]) -> Any:
    from pipeline.service.importing import Asked
    from pipeline.training.dataset.making import Wanted
    from pipeline.training.dataset.sides import split_of

    shares = given["split"]
    split = None
    if shares is not None:
        order = ("train", "validation", "test") if shares["validation"] else ("train", "test")
        split = split_of("/".join(str(shares[name]) for name in order), given["by"], given["seed"])
    earlier = Path(EXTENDS) if Path(EXTENDS).exists() else None
    return Asked(given["archive"], Wanted(split=split, rule=given["two_labels"], extends=earlier), seed=given["seed"])


def main(folder: Path, parent: int) -> int:
    """The exit code."""
    enter(folder, parent)
    try:
        run()
    except Refused as error:
        sys.stderr.write(f"{error}\n")
        return BAD_ARCHIVE
    except (PipelineError, OSError) as error:
        if isinstance(error, OSError) and not is_full(error):
            raise
        sys.stderr.write(f"{error}\n")
        return NO_ROOM if is_full(error) else BAD_REQUEST
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
