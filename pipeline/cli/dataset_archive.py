"""`hathi dataset import ARCHIVE`: a dataset of the pictures of a tar, tar.gz or zip."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pipeline.cli import dataset_make
from pipeline.cli.output.progress import shown
from pipeline.errors import ConfigError
from pipeline.process.logs import escape, redact

if TYPE_CHECKING:
    from pipeline.service.archive.entries import Picture, Rejected
    from pipeline.service.importing import Asked

_NAMED = 10
_HEAD = 512
_DEFAULTS = {"labels": None, "label": "", "names": None, "split": None, "by": "class", "seed": 0,
             "two_labels": "refuse", "extend": None, "rejected": None, "json": False, "config": None,
             "allow_private": False}  # fmt: skip


def add_arguments(group: argparse._ArgumentGroup) -> None:
    """Options of an archive."""
    add = group.add_argument
    add("--labels", nargs="+", metavar="TABLE", help="tables that say each file's label (default: its folder does)")
    add("--label", default="", metavar="NAME", help="the column of labels (default: label, class)")
    add("--names", metavar="NAME", help="the column of files (default: file, path, name, filename, image, external_id)")
    add("--split", metavar="A/B/C", help="shares of train, validation and test, or of two (default: 80/10/10)")
    add("--by", choices=("class", "content"), default="class", help="as of hathi dataset make (default: class)")
    add("--seed", type=int, default=0, metavar="N", help="of sides and order (default: 0)")
    add("--two-labels", choices=dataset_make.RULES, default="refuse", help="as of hathi dataset make (default: refuse)")
    add("--extend", type=Path, metavar="DATASET", help="keep the examples and sides of this dataset")
    add("--rejected", type=Path, metavar="FILE", help="write each entry that is no picture there, as a line of JSON")
    add("--config", type=Path, metavar="FILE", help="of a URL: a configuration, for its section fetch")
    add("--allow-private", action="store_true", help="of a URL: also fetch from private addresses and any port")
    add("--json", action="store_true", help="print one JSON object")


def given(args: argparse.Namespace) -> list[str]:
    """The options of an archive that were given."""
    return [f"--{name.replace('_', '-')}" for name, default in _DEFAULTS.items() if getattr(args, name) != default]


def is_one(source: str) -> bool:
    """Whether a file is a tar, tar.gz or zip, by its bytes; or another packed form, which the reader names."""
    from pipeline.service.archive.forms import is_archive, packed_by

    path = Path(source)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(_HEAD)
    return is_archive(head) or bool(packed_by(head) and min(head) < 9)  # a list is text, whatever it begins with


def is_url(source: str) -> bool:
    """Whether a source lies on the web."""
    from pipeline.service.downloading import is_url

    return is_url(source)


def run(args: argparse.Namespace) -> int:
    """0."""
    if not is_url(args.source):
        return _of_file(args, Path(args.source), Path(args.source).name)
    if args.out.exists():
        raise ConfigError(f"{args.out} is there already", "nothing is overwritten", "give another name")
    path = args.out.parent / f".{args.out.name}.archive"
    _fetched(args, path)
    try:
        return _of_file(args, path, redact(args.source))
    finally:
        path.unlink(missing_ok=True)


def _fetched(args: argparse.Namespace, path: Path) -> None:
    """The file of a URL, under `path`; what a broken transfer left there goes on."""
    from pipeline.service.archive.entries import Limits
    from pipeline.service.downloading import download, fetcher_of, of_strangers
    from pipeline.settings import load_fetch

    limits = load_fetch(args.config, os.environ)
    mine = of_strangers(limits, Limits().packed)
    if args.allow_private or limits.allow_private:
        mine = mine.model_copy(update={"allow_private": True})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{path.parent} cannot be made", error.strerror or str(error), "give another place"
        ) from error
    had = 0
    with shown() as progress:

        def told(size: int) -> None:
            nonlocal had
            if size > had:
                progress("download", size - had, 0)
                had = size

        download(args.source, path, fetcher_of(mine), told)


def _of_file(args: argparse.Namespace, archive: Path, name: str) -> int:
    from pipeline.service.archive.entries import Picture
    from pipeline.service.importing import dataset_of

    asked = _asked(args, name)
    first: list[Rejected] = []
    with ExitStack() as stack:
        listed: IO[str] | None = None
        if args.rejected is not None:
            listed = stack.enter_context(_new(args.rejected))
        progress = stack.enter_context(shown())

        def told(one: Picture | Rejected) -> None:
            progress("import", 1, 0)
            if isinstance(one, Picture):
                return
            if len(first) < _NAMED:
                first.append(one)
            if listed is not None:
                print(json.dumps({"number": one.number, "name": one.name, "reason": one.reason, "detail": one.detail}),
                      file=listed)  # fmt: skip

        made = dataset_of(archive, args.out, asked, told)
    for one in first if listed is None else ():
        print(f"left out: {escape(one.name)}: {one.reason} {escape(one.detail)}".rstrip(), file=sys.stderr)
    dataset_make.tell(args.out, made, as_json=args.json)
    return 0


def _new(path: Path) -> IO[str]:
    try:
        return path.open("x", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be made", error.strerror or str(error), "give another file") from error


def _asked(args: argparse.Namespace, name: str) -> Asked:
    from pipeline.app.dataset_sources import tables_of
    from pipeline.service.importing import Asked
    from pipeline.settings import ItemColumns
    from pipeline.training.dataset.labels import Asked as AskedOfTables
    from pipeline.training.dataset.making import Wanted
    from pipeline.training.dataset.sides import split_of

    if not 0 <= args.seed < 2**63:
        raise ConfigError(f"--seed {args.seed}", "it is less than 0, or too great", "a whole number from 0 on")
    names = [args.names] if args.names else ["file", "path", "name", "filename", "image", "external_id"]
    columns = ItemColumns.model_validate({"external_id": names})
    split = split_of(args.split, args.by, args.seed) if args.split else None
    tables = AskedOfTables(args.label, "", columns, 0, as_written=True)
    wanted = Wanted(tables, split, args.two_labels, args.extend)
    return Asked(name, wanted, tuple(tables_of(args.labels or ())), seed=args.seed)
