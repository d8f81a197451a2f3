"""Data sets that were made of what a root delivers, and lie on this host: whole, and their law holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import FormatError, LawBroken, PermanentError
from pipeline.ledger.layout import Root
from pipeline.ledger.made import made_of
from pipeline.operations.verify.finding import Finding, Say
from pipeline.process.host import host_name
from pipeline.stores.store import Lake


def made(say: Say, lake: Lake, root: Root, *, deep: bool) -> Iterator[Finding]:
    """deep: shards are hashed."""
    try:
        for record in made_of(lake, root):
            body = record.body
            if body.kind == "dataset" and body.host == host_name() and Path(body.path).is_dir():
                yield from _dataset(say, Path(body.path), deep)
    except FormatError as error:
        yield say("dataset_damaged", root.mades, f"{error.message}: {error.detail}")


def _dataset(say: Say, folder: Path, deep: bool) -> Iterator[Finding]:
    from pipeline.training.dataset.law import law_of  # what reads datasets takes its time to import
    from pipeline.training.dataset.manifest import MANIFEST, read_manifest
    from pipeline.training.dataset.shards import digest_of

    if not (folder / MANIFEST).is_file():
        return
    try:
        found = read_manifest(folder)
        if (law := found.law) is not None:
            law_of(found.examples + (law.rows - law.examples), law.examples, law.without_image, law.without_label,
                   law.duplicates, law.forgotten)  # fmt: skip
    except (PermanentError, LawBroken) as error:
        yield say("dataset_damaged", str(folder), f"{error.message}: {error.detail}")
        return
    named = {shard.name: shard.sha256 for shard in found.shards}
    there = {path.name: path for path in folder.glob("part-*.parquet")}
    for name in sorted(named.keys() | there.keys()):
        if name not in there:
            yield say("dataset_damaged", str(folder / name), "its manifest names this shard, and it does not exist")
        elif name not in named:
            yield say("dataset_left", str(folder / name), "no manifest names this shard: forgetting was interrupted")
        elif deep and digest_of(there[name]) != named[name]:
            yield say("dataset_damaged", str(folder / name), "its SHA-256 is another one than its manifest says")
